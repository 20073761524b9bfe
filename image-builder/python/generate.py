#!/usr/bin/env python3
"""Writes src/pith/messages.py and src/pith/services.py from the table of the agent's API, tests/wire/api.txt.

    generate.py            write them
    generate.py --check    exit with 1 if they are not what would be written
"""

import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
TABLE = HERE.parent.parent / "tests" / "wire" / "api.txt"
PACKAGE = HERE / "src" / "pith"

INTEGERS = {"int32", "int64", "uint32", "uint64"}
PYTHON = {"string": "str", "bytes": "bytes", "bool": "bool"} | {kind: "int" for kind in INTEGERS}
DEFAULTS = {"str": '""', "bytes": 'b""', "bool": "False", "int": "0"}


def parse(text):
    """Services as (name, [(method, request, answer)]), messages as (name, fields), enums as (name, values)."""
    services, messages, enums = [], [("Empty", [])], []
    package = ""
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if not word or word.startswith("#"):
            continue
        if line.startswith("  "):
            services[-1][1].append(re.fullmatch(r"(\w+): (\S+) -> (\S+)", line.strip()).groups())
        elif word == "file":
            package = rest.split()[-1]
        elif word == "service":
            services.append((f"{package}.{rest}", []))
        elif word == "message":
            name, _, fields = rest.partition(":")
            messages.append((name, [field.split() for field in fields.split(";") if field.strip()]))
        elif word == "enum":
            name, _, values = rest.partition(":")
            enums.append((last(name), [value.split() for value in values.split(",")]))
    return services, messages, enums


def last(name):
    return name.rpartition(".")[2]


def snake(name):
    """As the methods are called in other languages: GetOOMEvent is get_oom_event."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.replace("IPTables", "Iptables")).lower().replace("iptables", "ip_tables")


def field(words, enums):
    """The line of a dataclass, and the entry of its table."""
    number, name, kind = words[0], words[1], words[2]
    one_of = any(word.startswith("oneof(") for word in words[3:])
    pair = re.fullmatch(r"map<(\w+),([\w.]+)>", kind)
    shape, key = "ONE", ""
    if pair:
        shape, key, kind = "MAP", pair[1], pair[2]
    elif kind.endswith("[]"):
        shape, kind = "LIST", kind[:-2]
    elif kind.endswith("?") or one_of:
        shape, kind = "OPTIONAL", kind.rstrip("?")
    kind = last(kind)
    is_enum = kind in enums
    wire = "int32" if is_enum else kind
    python = "int" if is_enum else PYTHON.get(kind, kind)
    if shape == "ONE" and python not in DEFAULTS:
        # A message is there, or not.
        shape = "OPTIONAL"
    if shape == "MAP":
        line = f"{name}: dict[{PYTHON[key]}, {python}] = field(default_factory=dict)"
    elif shape == "LIST":
        line = f"{name}: list[{python}] = field(default_factory=list)"
    elif shape == "OPTIONAL":
        line = f"{name}: {python} | None = None"
    else:
        line = f"{name}: {python} = {DEFAULTS[python]}"
    if is_enum:
        line += f"  #: a value of {kind}"
    entry = f'Field({number}, "{name}", "{wire}"'
    if shape != "ONE":
        entry += f", Shape.{shape}"
    if key:
        entry += f', "{key}"'
    return line, entry + ")"


def messages_file(messages, enums):
    out = [
        '"""The messages of the agent\'s API. Written by generate.py; do not edit."""',
        "",
        "from __future__ import annotations",
        "",
        "import enum",
        "from dataclasses import dataclass, field",
        "from typing import ClassVar",
        "",
        "from ._codec import Field, Message, Shape",
    ]
    for name, values in enums:
        out += ["", "", f"class {name}(enum.IntEnum):"]
        out += [f"    {value} = {number}" for number, value in values]
    names = {name for name, _ in enums}
    for name, fields in messages:
        out += ["", "", "@dataclass", f"class {name}(Message):"]
        parts = [field(words, names) for words in fields]
        out += [f"    {line}" for line, _ in parts]
        if parts:
            out += ["    FIELDS: ClassVar[tuple[Field, ...]] = ("]
            out += [f"        {entry}," for _, entry in parts]
            out += ["    )"]
        else:
            out += ["    pass"]
    return "\n".join(out) + "\n"


def services_file(services):
    out = [
        '"""The methods of the agent\'s API, each with its types. Written by generate.py; do not edit."""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import NamedTuple, Protocol, TypeVar",
        "",
        "from . import messages as m",
        "from ._codec import Message",
        "",
        "_M = TypeVar(\"_M\", bound=Message)",
        "",
        "#: Seconds that a call may take when nothing else is said.",
        "DEADLINE = 60.0",
        "",
        "",
        "class Method(NamedTuple):",
        '    """A method of the API."""',
        "",
        "    service: str",
        "    name: str",
        "    request: type[Message]",
        "    answer: type[Message]",
        "",
        "",
        "#: All methods by name.",
        "METHODS: dict[str, Method] = {",
    ]
    for service, methods in services:
        for name, request, answer in methods:
            out.append(f'    "{name}": Method("{service}", "{name}", m.{last(request)}, m.{last(answer)}),')
    out += ["}"]
    for keyword, call, cls, protocol, doc in (
        ("", "", "Methods", "_Calls", "Every method of the agent, as a function that waits for the answer."),
        ("async ", "await ", "AsyncMethods", "_AsyncCalls", "Every method of the agent, as a coroutine."),
    ):
        out += [
            "",
            "",
            f"class {protocol}(Protocol):",
            f"    {keyword}def invoke(self, method: Method, answer: type[_M], request: Message, timeout: float | None) -> _M: ...",
            "",
            "",
            f"class {cls}:",
            f'    """{doc}',
            "",
            "    `timeout` is the deadline in seconds, of which the agent is told too; `None` is for ever. A refusal is a",
            '    `Refused`, and a deadline that passes a `DeadlineExceeded`."""',
        ]
        for _, methods in services:
            for name, request, answer in methods:
                request, answer = last(request), last(answer)
                default = f"m.{request}()"
                out += [
                    "",
                    f"    {keyword}def {snake(name)}(",
                    f"        self: {protocol}, request: m.{request} | None = None, *, timeout: float | None = DEADLINE",
                    f"    ) -> m.{answer}:",
                    f"        return {call}self.invoke(METHODS[\"{name}\"], m.{answer}, request or {default}, timeout)",
                ]
    return "\n".join(out) + "\n"


def main():
    services, messages, enums = parse(TABLE.read_text())
    files = {"messages.py": messages_file(messages, enums), "services.py": services_file(services)}
    for name, text in files.items():
        path = PACKAGE / name
        if sys.argv[1:] == ["--check"]:
            if not path.exists() or path.read_text() != text:
                sys.exit(f"{name} is not what tests/wire/api.txt says: run image-builder/python/generate.py")
        else:
            path.write_text(text)


if __name__ == "__main__":
    main()
