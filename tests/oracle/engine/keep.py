#!/usr/bin/env python3
"""Makes the files of this directory from what engines wrote: keep.py ROOT..., each with out/NAME.json and out/NAME.cmd."""
import hashlib, json, pathlib, re, sys

here = pathlib.Path(__file__).parent
(here / "seccomp").mkdir(exist_ok=True)

def plain(text):
    # Ids are made anew for each container.
    text = re.sub(r"\b[0-9a-f]{64}\b", "ID", text)
    text = "box" if re.fullmatch("[0-9a-f]{12}", text) else text
    # A hook of docker's is a program of docker's.
    text = re.sub(r"/proc/\d+/exe", "/bin/true", text)
    return text

def clean(value):
    if isinstance(value, dict):
        return {key: clean(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [clean(entry) for entry in value]
    return plain(value) if isinstance(value, str) else value

for root in map(pathlib.Path, sys.argv[1:]):
    for path in sorted(root.glob("out/*.json")):
        text = path.read_text()
        # The short id is the hostname, and stands in variables too.
        short = json.loads(text).get("hostname", "")
        if re.fullmatch("[0-9a-f]{12}", short):
            text = re.sub(rf"\b{short}\b", "box", text)
        spec = clean(json.loads(text))
        command = " ".join(path.with_suffix(".cmd").read_text().split())
        profile = spec["linux"].pop("seccomp", None)
        if profile:
            text = json.dumps(profile, separators=(",", ":"))
            name = hashlib.sha256(text.encode()).hexdigest()[:8]
            (here / "seccomp" / f"{name}.json").write_text(text + "\n")
            spec["linux"]["seccomp"] = name
        engine, command = command.split(": ", 1)
        kept = {"engine": engine, "system": "Debian " + root.name.removeprefix("root-"), "command": command, "spec": spec}
        lines = ",\n".join(f'"{key}":{json.dumps(value, separators=(",", ":"))}' for key, value in kept.items())
        (here / path.name).write_text("{\n" + lines + "\n}\n")
