"""What every refused command has in common."""
import functools
import os

import godwit
from godwit import Skip, check

RUN = ("run", "--console", "null")


@functools.lru_cache(maxsize=None)
def has_kvm():
    return godwit.doctor()["kvm"]


def need_kvm():
    """For what is refused only after the machine has been begun."""
    if not has_kvm():
        raise Skip("this host has no usable /dev/kvm (godwit doctor)")


def refused(place, code, words, *args, **options):
    """This command ends with that code and one sentence on stderr that has all the words."""
    done = place.godwit(*args, **options)
    what = f"{' '.join(map(str, args))[:200]!r}"
    check(done.returncode == code,
          f"{what}: exit {done.returncode}, expected {code}; {done.stdout}{done.stderr}")
    lines = done.stderr.split("\n")
    check(len(lines) == 2 and not lines[1], f"{what}: not one line on stderr: {done.stderr!r}")
    check(lines[0].startswith("godwit: ") and len(lines[0]) > 20, f"{what}: {lines[0]}")
    check(not lines[0].endswith("."), f"{what}: ends with a full stop: {lines[0]}")
    check(done.stdout == "", f"{what}: printed {done.stdout!r}")
    if "GODWIT_TEST_SENTENCES" in os.environ:
        print("#", lines[0])
    for word in [words] if isinstance(words, str) else words:
        check(word in lines[0], f"{what}: no '{word}' in: {lines[0]}")
    left = place.leftovers()
    check(not left, f"{what}: left behind: {left}")


def bare(*args):
    """The words that boot the bare guest with these options more, or in place of its own."""
    words = {"--console": "null", "--memory": "32M"}
    own = [word for name, value in words.items() if not any(arg.split("=")[0] == name for arg in args)
           for word in (name, value)]
    return ("run", *own, "--kernel", godwit.BARE, *args)
