#!/usr/bin/env python3
"""Works out the golden bytes of every message, with Google's protobuf and without our .proto files.

The API is read from api.txt beside this file, turned into descriptors, filled with known values, and encoded. The
result, agent/protocols/tests/golden.json, holds for each message some cases (its value as protobuf JSON, its bytes as
hex) and for each service its methods. The Rust test `golden` compares the agent's own encoding with it.

    golden.py           writes golden.json
    golden.py --check   exits 1 if golden.json is not what would be written

Needs Debian's python3-protobuf, or `pip install protobuf`.
"""

import json
import pathlib
import re
import sys

from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2, json_format, message_factory

HERE = pathlib.Path(__file__).resolve().parent
TABLE = HERE / "api.txt"
GOLDEN = HERE.parent.parent / "agent" / "protocols" / "tests" / "golden.json"

Field = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "bool": Field.TYPE_BOOL,
    "bytes": Field.TYPE_BYTES,
    "int32": Field.TYPE_INT32,
    "int64": Field.TYPE_INT64,
    "string": Field.TYPE_STRING,
    "uint32": Field.TYPE_UINT32,
    "uint64": Field.TYPE_UINT64,
}
NUMBERS = {
    Field.TYPE_INT32: (-(2**31), 2**31 - 1),
    Field.TYPE_INT64: (-(2**63), 2**63 - 1),
    Field.TYPE_UINT32: (0, 2**32 - 1),
    Field.TYPE_UINT64: (0, 2**64 - 1),
}


# The table: text to descriptors.


def read_table(text):
    """Gives {file name: FileDescriptorProto}; the types of fields are still as written, in `type_name`."""
    files, file, service = {}, None, None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            word, _, rest = line.strip().partition(" ")
            if line.startswith("  "):
                name, given, taken = re.fullmatch(r"(\w+): (\S+) -> (\S+)", line.strip()).groups()
                service.method.add(name=name, input_type=given, output_type=taken)
            elif word == "file":
                name, package = re.fullmatch(r"(\S+) package (\w+)", rest).groups()
                file = files[name] = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
            elif word == "service":
                service = file.service.add(name=rest)
            elif word == "message":
                name, _, fields = rest.partition(":")
                add_fields(file.message_type.add(name=name), fields)
            elif word == "enum":
                name, _, values = rest.partition(": ")
                add_enum(file, name, values)
            else:
                raise ValueError(f"unknown word {word!r}")
        except (AttributeError, ValueError) as error:
            sys.exit(f"{TABLE}:{number}: {error}\n  {line}")
    for file in files.values():
        resolve(file, files)
    return files


def add_fields(message, text):
    for part in filter(None, (part.strip() for part in text.split(";"))):
        number, name, kind, oneof = re.fullmatch(r"(\d+) (\w+) (\S+?)(?: oneof\((\w+)\))?", part).groups()
        field = message.field.add(name=name, number=int(number), label=Field.LABEL_OPTIONAL)
        if pair := re.fullmatch(r"map<(\w+),([\w.]+)>", kind):
            entry = message.nested_type.add(name=entry_name(name))
            entry.options.map_entry = True
            for i, side in enumerate(("key", "value")):
                entry.field.add(name=side, number=i + 1, label=Field.LABEL_OPTIONAL, type_name=pair[i + 1])
            field.label, field.type_name = Field.LABEL_REPEATED, f"{message.name}.{entry.name}"
        elif kind.endswith("[]"):
            field.label, field.type_name = Field.LABEL_REPEATED, kind[:-2]
        elif kind.endswith("?"):
            field.type_name, field.proto3_optional = kind[:-1], True
        else:
            field.type_name = kind
        if oneof:
            if oneof not in [o.name for o in message.oneof_decl]:
                message.oneof_decl.add(name=oneof)
            field.oneof_index = [o.name for o in message.oneof_decl].index(oneof)
    # What protoc does for `optional`; these come after the real oneofs.
    for field in message.field:
        if field.proto3_optional:
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name="_" + field.name)


def entry_name(field):
    return "".join(word[:1].upper() + word[1:] for word in field.split("_")) + "Entry"


def add_enum(file, name, values):
    outer, _, inner = name.rpartition(".")
    home = next(m for m in file.message_type if m.name == outer).enum_type if outer else file.enum_type
    enum = home.add(name=inner)
    for value in values.split(", "):
        number, label = value.split(" ")
        enum.value.add(name=label, number=int(number))


def resolve(file, files):
    """Replaces the written type names of `file` by scalar types or full names, and notes its imports."""
    messages, enums = {".google.protobuf.Empty": "google/protobuf/empty.proto"}, {}
    for other in files.values():
        for message in other.message_type:
            messages[f".{other.package}.{message.name}"] = other.name
            for nested in message.nested_type:
                messages[f".{other.package}.{message.name}.{nested.name}"] = other.name
            for enum in message.enum_type:
                enums[f".{other.package}.{message.name}.{enum.name}"] = other.name
        for enum in other.enum_type:
            enums[f".{other.package}.{enum.name}"] = other.name

    def full_name(written, scope):
        for candidate in (f".{file.package}.{scope}.{written}", f".{file.package}.{written}", f".{written}"):
            if home := messages.get(candidate) or enums.get(candidate):
                if home != file.name and home not in file.dependency:
                    file.dependency.append(home)
                return candidate
        sys.exit(f"{TABLE}: {file.name}: nothing is named {written!r}")

    for message in file.message_type:
        for part in (message, *message.nested_type):
            for field in part.field:
                if scalar := SCALARS.get(field.type_name):
                    field.ClearField("type_name")
                    field.type = scalar
                else:
                    field.type_name = full_name(field.type_name, message.name)
                    field.type = Field.TYPE_ENUM if field.type_name in enums else Field.TYPE_MESSAGE
    for service in file.service:
        for method in service.method:
            method.input_type = full_name(method.input_type, "")
            method.output_type = full_name(method.output_type, "")


def load(files):
    """Gives the message classes by full name."""
    pool = descriptor_pool.DescriptorPool()
    empty = descriptor_pb2.FileDescriptorProto()
    empty_pb2.DESCRIPTOR.CopyToProto(empty)
    pool.Add(empty)
    added = {empty.name}

    def add(file):
        if file.name not in added:
            added.add(file.name)
            for name in file.dependency:
                if name in files:
                    add(files[name])
            pool.Add(file)

    for file in files.values():
        add(file)
    if hasattr(message_factory, "GetMessageClass"):
        get_class = message_factory.GetMessageClass
    else:
        get_class = message_factory.MessageFactory(pool).GetPrototype
    names = (f"{file.package}.{message.name}" for file in files.values() for message in file.message_type)
    return {name: get_class(pool.FindMessageTypeByName(name)) for name in sorted(names)}


# The cases: values for every field.


def is_map(field):
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def is_repeated(field):
    # `label` is gone from newer releases, `is_repeated` is not there in older ones.
    repeated = getattr(field, "is_repeated", None)
    return field.label == Field.LABEL_REPEATED if repeated is None else repeated


def plain(field, seed):
    """A scalar that no other field of the message has, save for bools."""
    if field.type == Field.TYPE_BOOL:
        return True
    if field.type == Field.TYPE_STRING:
        return f"{field.name}-{seed} ä€𝄞"
    if field.type == Field.TYPE_BYTES:
        return b"\x00\xff" + field.name.encode() + bytes([seed % 256])
    if field.type == Field.TYPE_ENUM:
        values = field.enum_type.values
        return values[seed % (len(values) - 1) + 1].number
    wide = field.type in (Field.TYPE_INT64, Field.TYPE_UINT64)
    number = (2**33 if wide else 300) + 131 * field.number + seed
    return -number if NUMBERS[field.type][0] < 0 else number


def fill(message, field, scalar=plain, seed=0, deep=True):
    """Sets one field: two elements if repeated, one entry if a map, and messages filled in turn if `deep`."""

    def fill_message(inner, seed):
        if deep:
            fill_all(inner, scalar, seed)

    if is_map(field):
        key = scalar(field.message_type.fields_by_name["key"], seed)
        value = field.message_type.fields_by_name["value"]
        if value.message_type is not None:
            fill_message(getattr(message, field.name)[key], seed)
        else:
            getattr(message, field.name)[key] = scalar(value, seed)
    elif field.message_type is not None:
        inner = getattr(message, field.name)
        if is_repeated(field):
            fill_message(inner.add(), seed)
            fill_message(inner.add(), seed + 1)
        else:
            inner.SetInParent()
            fill_message(inner, seed)
    elif is_repeated(field):
        getattr(message, field.name).extend([scalar(field, seed), scalar(field, seed + 1)])
    else:
        setattr(message, field.name, scalar(field, seed))


def fill_all(message, scalar=plain, seed=0):
    for field in message.DESCRIPTOR.fields:
        fill(message, field, scalar, seed)


def extreme(least):
    def scalar(field, seed):
        if field.type in NUMBERS:
            return NUMBERS[field.type][0 if least else 1]
        return plain(field, seed)

    return scalar


def cases(message_class):
    """Yields (case name, message)."""
    fields = message_class.DESCRIPTOR.fields
    yield "nothing set", message_class()
    if not fields:
        return
    full = message_class()
    fill_all(full)
    yield "every field set", full
    for field in fields:
        alone = message_class()
        fill(alone, field, deep=False)
        yield f"only {field.name}", alone
    own_numbers = [f for f in fields if f.type in NUMBERS]
    if own_numbers:
        for name, least in (("least numbers", True), ("greatest numbers", False)):
            message = message_class()
            for field in own_numbers:
                fill(message, field, extreme(least))
            yield name, message
    present_zero = [f for f in fields if f.containing_oneof is not None]
    if present_zero:
        message = message_class()
        for field in present_zero:
            setattr(message, field.name, field.default_value)
        yield "present with the value zero", message
    for field in (f for f in fields if f.type == Field.TYPE_ENUM):
        for value in field.enum_type.values:
            message = message_class()
            setattr(message, field.name, value.number)
            yield f"{field.name} is {value.name}", message


def as_case(name, message):
    value = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return {"case": name, "json": value, "hex": message.SerializeToString(deterministic=True).hex()}


def golden():
    files = read_table(TABLE.read_text())
    messages = {
        name: [as_case(*case) for case in cases(message_class)] for name, message_class in load(files).items()
    }
    services = {
        f"{file.package}.{service.name}": {
            method.name: [method.input_type[1:], method.output_type[1:]] for method in service.method
        }
        for file in files.values()
        for service in file.service
    }
    return to_text({"services": services, "messages": messages})


def to_text(document):
    """JSON with one line for each case and method: a change shows as few changed lines."""
    def line(value):
        return json.dumps(value, ensure_ascii=False)

    def block(pairs, open_close):
        return open_close[0] + "\n" + ",\n".join(pairs) + "\n" + open_close[1]

    services = (
        f"{line(name)}: " + block((f"  {line(m)}: {line(types)}" for m, types in methods.items()), "{}")
        for name, methods in document["services"].items()
    )
    messages = (
        f"{line(name)}: " + block((f"  {line(case)}" for case in group), "[]")
        for name, group in document["messages"].items()
    )
    return f'{{"services": {block(services, "{}")},\n"messages": {block(messages, "{}")}}}\n'


def main():
    text = golden()
    json.loads(text)
    if sys.argv[1:] == ["--check"]:
        if not GOLDEN.exists() or GOLDEN.read_text() != text:
            sys.exit(f"{GOLDEN} is out of date: run {pathlib.Path(__file__).name} and look at what changed")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        GOLDEN.write_text(text)


if __name__ == "__main__":
    main()
