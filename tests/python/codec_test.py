#!/usr/bin/env python3
"""Holds pith.py's protobuf against the golden bytes, which come from Google's: what is decoded and encoded again must
mean the same, and what has its fields in order must be the same bytes. Exit status 0 if so."""

import json
import pathlib
import sys

import pith

GOLDEN = pathlib.Path(__file__).resolve().parent.parent.parent / "agent" / "protocols" / "tests" / "golden.json"


def main():
    schema = pith.Schema(pith.TABLE.read_text())
    golden = json.loads(GOLDEN.read_text())
    cases = same = 0
    for name, group in golden["messages"].items():
        message = name.rpartition(".")[2] if name.rpartition(".")[2] in schema.messages else name
        for case in group:
            data = bytes.fromhex(case["hex"])
            value = schema.decode(message, data)
            again = schema.encode(message, value)
            # An empty message that is present reads like one that is absent, and both encode to what was meant.
            if schema.decode(message, again) != value:
                sys.exit(f"{name}, {case['case']}: {data.hex()} became {again.hex()}")
            cases, same = cases + 1, same + (again == data)
    print(f"{cases} cases, {same} of them to the byte")
    if same < cases * 9 // 10:
        sys.exit("too many differ")


if __name__ == "__main__":
    main()
