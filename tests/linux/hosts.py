#!/usr/bin/env python3
"""What one host does in tests/linux/hosts, which starts it in a testbed: each argument is a step.

  born=FILE             a guest begins here, and is saved to FILE of the scratch directory
  takes=FILE            it is restored from there, with its memory whole, and goes on
  refuses=FILE:A,B      it is not: the sentence has these words, and comes before anything is loaded
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

import bare  # noqa: E402
import godwit  # noqa: E402
from godwit import check  # noqa: E402

SHARED = os.environ["GODWIT_SCRATCH"]
HOST = os.environ.get("GODWIT_TEST_HOST", "here")


def born(place, file):
    vm = place.bare("fill=4 write=2 cpus=2", "--memory", "32M", "--cpus", "2")
    bare.ready(vm)
    bare.works_on(vm)
    done = vm.cli("save", os.path.join(SHARED, file))
    check(done.returncode == 0 and vm.wait() == 0, f"save: {done.stderr}")


def takes(place, file):
    vm = place.restore(os.path.join(SHARED, file))
    bare.works_on(vm)
    check(vm.cli("reset").returncode == 0, "reset")
    bare.ready(vm)
    bare.works_on(vm)


def refuses(place, file, words):
    done = place.godwit("restore", os.path.join(SHARED, file))
    check(done.returncode == 1, f"exit {done.returncode}: {done.stdout}{done.stderr}")
    lines = done.stderr.splitlines()
    check(len(lines) == 1 and lines[0].startswith("godwit: "), f"stderr: {done.stderr}")
    for word in words:
        check(word in lines[0], f"no '{word}' in: {lines[0]}")
    print(f"     {lines[0]}")


def add(step):
    kind, _, rest = step.partition("=")
    file, _, words = rest.partition(":")
    run = {"born": lambda place: born(place, file),
           "takes": lambda place: takes(place, file),
           "refuses": lambda place: refuses(place, file, words.split(","))}[kind]
    godwit.add_test(f"{HOST}_{kind}_{file}", run)


for each in sys.argv[1:]:
    add(each)
sys.argv = sys.argv[:1] + ["--times"]
godwit.main(lambda: None if godwit.doctor()["kvm"] else "this host has no usable /dev/kvm")
