"""Prints what the tests in the host of `make nested` came to, and writes it to table.md.

    table.py DIRECTORY MINUTES PROFILE...

Reads DIRECTORY/PROFILE.PART.xml, the JUnit reports that nextest writes for the parts of a profile, and writes
DIRECTORY/table.md."""

import pathlib
import sys
import xml.etree.ElementTree


def rows(directory, profile):
    """One (binary, test, result, seconds, reason) for each test of a profile."""
    reports = [xml.etree.ElementTree.parse(report).getroot() for report in directory.glob(f"{profile}.*.xml")]
    for case in (case for report in reports for case in report.iter("testcase")):
        binary = case.get("classname").split("::")[-1]
        bad = next((child for child in case if child.tag in ("failure", "error")), None)
        skipped, again = case.find("skipped"), case.find("flakyFailure")
        if bad is not None:
            result, reason = "failed", (bad.text or bad.get("message") or "").strip().splitlines()
        elif skipped is not None:
            result, reason = "skipped", [skipped.get("message") or ""]
        elif again is not None:
            result, reason = "passed at the second try", (again.text or again.get("message") or "").strip().splitlines()
        else:
            result, reason = "passed", []
        yield binary, case.get("name"), result, float(case.get("time")), " ".join(reason)[:160].replace("|", "/")


def main():
    directory, minutes, profiles = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    lines, totals = [], {}
    for profile in profiles:
        lines += [f"### {profile}", "", "| test | result | s | why |", "|---|---|---|---|"]
        for binary, name, result, seconds, reason in sorted(rows(directory, profile)):
            totals[result] = totals.get(result, 0) + 1
            lines.append(f"| `{binary}` {name} | {result} | {seconds:.0f} | {reason} |")
        lines.append("")
    summary = ", ".join(f"{count} {result}" for result, count in sorted(totals.items())) or "nothing ran"
    lines.append(f"{summary}; the machine ran for {minutes} minutes.")
    text = "\n".join(lines) + "\n"
    (directory / "table.md").write_text(text)
    print("\n" + text)


main()
