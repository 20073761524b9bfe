#!/usr/bin/env python3
"""Prints how long the tests of each rung took.

    minutes.py FILE

FILE is a JUnit report of nextest. For each test binary: how many tests ran, the minutes that all of them took together, the
minutes from the start of its first test to the end of its last one, and its slowest test. Several binaries run at the same
time, so only the last line of the third column is the time that somebody waited."""

import datetime
import pathlib
import sys
import xml.etree.ElementTree


def rungs(report):
    """{binary: [(start or None, seconds, test)]} of a report."""
    found = {}
    for suite in xml.etree.ElementTree.parse(report).getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            if case.find("skipped") is not None:
                continue
            start = case.get("timestamp")
            start = start and datetime.datetime.fromisoformat(start.replace("Z", "+00:00")).timestamp()
            binary = suite.get("name").split("::")[-1]
            found.setdefault(binary, []).append((start, float(case.get("time") or 0), case.get("name")))
    return found


def row(name, tests):
    """A row of the table: texts."""
    seconds = sum(took for _, took, _ in tests)
    spans = [(start, start + took) for start, took, _ in tests if start is not None]
    waited = max(end for _, end in spans) - min(start for start, _ in spans) if spans else 0
    _, slowest, which = max(tests, key=lambda test: test[1])
    return [name, str(len(tests)), f"{seconds / 60:.1f}", f"{waited / 60:.1f}", f"{slowest:.0f} s", which]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    report = pathlib.Path(sys.argv[1])
    if not report.is_file():
        sys.exit(f"there is no {report}: no test has run")
    found = rungs(report)
    if not found:
        sys.exit(f"no test has run, says {report}")
    rows = [["rung", "tests", "minutes", "first to last", "slowest", ""]]
    rows += [row(name, tests) for name, tests in sorted(found.items(), key=lambda rung: -sum(test[1] for test in rung[1]))]
    rows.append(row("all", [test for tests in found.values() for test in tests]))
    widths = [max(len(texts[column]) for texts in rows) for column in range(5)]
    print("\nMinutes of tests, by rung:\n")
    for texts in rows:
        first, *rest, last = texts
        cells = [first.ljust(widths[0])] + [text.rjust(width) for text, width in zip(rest, widths[1:])]
        print("  " + "  ".join(cells + [last]).rstrip())


main()
