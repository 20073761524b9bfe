#!/usr/bin/env bash
# libseccomp 2.5.4 (Debian 12, packages libseccomp2 and python3-seccomp 2.5.4-1+deb12u1)
#
# One would guess that of two rules for the same system call the first one counts, as in a list of a firewall, or the narrower
# one. Neither is so. A rule without arguments takes the place of all rules of that call that look at arguments, in whichever
# order they are added. Every call of seccomp_rule_add() succeeds, and the narrow rule is not in the filter.
#
# It matters to runtimes and to authors of OCI profiles, which are lists. "Allow personality(0), answer ENOSYS to every other"
# cannot be said with a rule for the rest, because then personality(0) gets ENOSYS as well.
#
# Output seen (the filter as pseudo code, for both orders; 38 is ENOSYS):
#   narrow, general: if ($syscall == 135) action ERRNO(38);
#   general, narrow: if ($syscall == 135) action ERRNO(38);
#   narrow alone: if ($syscall == 135) if ($a0.hi32 == 0) if ($a0.lo32 == 0) action ALLOW;
#
# Needs Debian 12 with its python3, and apt-get (with the package lists up to date). Exit status 1 if this changes.
set -eu -o pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq libseccomp2=2.5.4-1+deb12u1 python3-seccomp=2.5.4-1+deb12u1 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done

cat >rules.py <<'PYTHON'
import errno
import tempfile

from seccomp import ALLOW, EQ, ERRNO, Arg, SyscallFilter

NARROW = (ALLOW, Arg(0, EQ, 0))
GENERAL = (ERRNO(errno.ENOSYS),)


def show(name, *rules):
    profile = SyscallFilter(ERRNO(errno.EPERM))
    for action, *arguments in rules:
        profile.add_rule(action, "personality", *arguments)
    with tempfile.TemporaryFile("w+") as file:
        profile.export_pfc(file)
        file.seek(0)
        lines = [line.strip() for line in file]
    begin = lines.index("if ($syscall == 135)")
    print(f"{name}: {' '.join(lines[begin:lines.index('# default action')])}")


show("narrow, general", NARROW, GENERAL)
show("general, narrow", GENERAL, NARROW)
show("narrow alone", NARROW)
PYTHON
LD_LIBRARY_PATH=$folder/usr/lib/x86_64-linux-gnu PYTHONPATH=$folder/usr/lib/python3/dist-packages \
  /usr/bin/python3 -B rules.py | tee seen
diff - seen <<'SEEN'
narrow, general: if ($syscall == 135) action ERRNO(38);
general, narrow: if ($syscall == 135) action ERRNO(38);
narrow alone: if ($syscall == 135) if ($a0.hi32 == 0) if ($a0.lo32 == 0) action ALLOW;
SEEN
