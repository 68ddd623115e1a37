#!/usr/bin/env python3
"""Guests between an older build, whose path is in GODWIT_OLDER, and this one: they arrive whole, or are refused by a
sentence that names both versions of the stream. scripts/compat runs it."""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

import bare  # noqa: E402
import godwit  # noqa: E402
import live  # noqa: E402
from godwit import check, test  # noqa: E402

OLDER = os.environ.get("GODWIT_OLDER", "")
CHANNELS = (1, 4)
godwit._tests.clear()  # those of live.py are not meant


def names_both_versions(text):
    return re.search(r"stream version \d+, this one reads (up to \d+|versions \d+ to \d+)", text)


def arrives_or_is_refused(place, source_program, target_program, channels, may_be_refused):
    source = place.bare(live.WORDS, *live.MEMORY, program=source_program)
    bare.ready(source)
    before = bare.progress(source)
    target = place.vm("receive", "--listen", "tcp:127.0.0.1:0", "--same-paths", "--once", console="unix",
                      program=target_program)
    match = target.errors.wait(r"waiting for a guest on (\S+)\n", godwit.GUARD_S)
    check(match, f"the destination does not listen: {target.stderr()}")
    qmp = source.qmp()
    if channels > 1:
        qmp.execute("migrate-set-capabilities", {"capabilities": [{"capability": "multifd", "state": True}]})
        qmp.execute("migrate-set-parameters", {"multifd-channels": channels})
    qmp.execute("migrate", {"uri": match.group(1)})
    reply = live.follow(qmp)
    if reply["status"] == "completed":
        live.moved(source, target, before)
        bare.verify(target)
        return
    check(may_be_refused and names_both_versions(reply.get("error-desc", "")), f"{reply}")
    live.stays(source)
    target.kill()


def is_restored_or_refused(place, saver, restorer, may_be_refused):
    vm = place.bare(live.WORDS, *live.MEMORY, program=saver)
    bare.ready(vm)
    before = bare.progress(vm)
    vm.qmp().execute("migrate", {"uri": f"file:{place.path('saved')}"})
    check(vm.wait() == 0, f"the saved VM ended with {vm.process.returncode}: {vm.stderr()}")
    again = place.restore(place.path("saved"), program=restorer)
    if may_be_refused and again.errors.wait(r"stream version", 5):
        check(again.wait() == 1 and names_both_versions(again.stderr()), again.stderr())
        return
    after = bare.works_on(again)
    bare.verify(again)
    check(after["tsc"] > before["tsc"], f"time has not gone on: {before} {after}")


for n in CHANNELS:
    godwit.add_test(f"guest_of_the_older_build_arrives_here_over_{n}_connections",
                    lambda place, n=n: arrives_or_is_refused(place, OLDER, godwit.GODWIT, n, False))
    godwit.add_test(f"guest_of_this_build_arrives_there_over_{n}_connections_or_is_refused_by_versions",
                    lambda place, n=n: arrives_or_is_refused(place, godwit.GODWIT, OLDER, n, True))


@test
def guest_saved_by_the_older_build_is_restored_here(place):
    is_restored_or_refused(place, OLDER, godwit.GODWIT, False)


@test
def guest_saved_here_is_restored_there_or_refused_by_versions(place):
    is_restored_or_refused(place, godwit.GODWIT, OLDER, True)


def requirement():
    if not os.access(OLDER, os.X_OK):
        return "GODWIT_OLDER is no program (scripts/compat)"
    if not godwit.doctor()["kvm"]:
        return "this host has no usable /dev/kvm (godwit doctor)"
    return None


godwit.main(requirement)
