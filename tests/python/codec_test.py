#!/usr/bin/env python3
"""Holds the package's protobuf against the golden bytes, which come from Google's: what is decoded and encoded again must
mean the same, and what has its fields in order must be the same bytes. What is no message must be told. Exit status 0 if so."""

import json
import pathlib
import sys

from pith import DecodeError, messages
from pith._codec import Message

GOLDEN = pathlib.Path(__file__).resolve().parent.parent.parent / "agent" / "protocols" / "tests" / "golden.json"

# No messages: bytes, and what the error says of them.
WRONG = {
    "80": "a number without an end",
    "08" + "ff" * 10 + "01": "more than ten bytes",
    "0a05aa": "longer than its message",
    "0b": "wire type 3",
    "0801": "string expected",
    "0a01ff": "no UTF-8",
}


def golden():
    cases = same = 0
    for name, group in json.loads(GOLDEN.read_text())["messages"].items():
        kind = Message.TYPES[name.rpartition(".")[2]]
        for case in group:
            data = bytes.fromhex(case["hex"])
            value = kind.from_bytes(data)
            again = value.to_bytes()
            if kind.from_bytes(again) != value:
                sys.exit(f"{name}, {case['case']}: {data.hex()} became {again.hex()}")
            if kind.from_dict(value.to_dict()) != value:
                sys.exit(f"{name}, {case['case']}: it is another one after to_dict and from_dict")
            cases, same = cases + 1, same + (again == data)
    print(f"{cases} cases, {same} of them to the byte")
    if cases < 100 or same < cases * 9 // 10:
        sys.exit("too few cases, or too many that differ")


def wrong():
    for text, words in WRONG.items():
        try:
            value = messages.StartContainerRequest.from_bytes(bytes.fromhex(text))
        except DecodeError as error:
            if words not in str(error):
                sys.exit(f"{text}: {error}; {words!r} is not in it")
        else:
            sys.exit(f"{text} became {value}")
    for senseless in (5, [], {"container_id": 5}, {"no_such_field": 1}):
        try:
            messages.StartContainerRequest.from_dict(senseless)
        except ValueError:
            continue
        sys.exit(f"{senseless!r} was taken")
    for field, value in (("timeout", -1), ("timeout", 1 << 32), ("timeout", True), ("timeout", "1")):
        try:
            messages.RemoveContainerRequest.from_dict({field: value})
        except ValueError:
            continue
        sys.exit(f"{field} = {value!r} was taken")


if __name__ == "__main__":
    golden()
    wrong()
