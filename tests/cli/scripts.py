"""What scripts decide: where VMs can run (scripts/choose-kvm), what several test runs come to (tests/totals)."""
import json
import os
import subprocess

from godwit import ROOT, check, test

# A program that says of its host what it is told to; its VMs end with that sentence and status.
PROGRAM = """#!/bin/sh
case $1 in
doctor) cat <<'END'
{doctor}
END
;;
run) echo "{says}" >&2; exit {status} ;;
esac
"""
EMULATION = "godwit: vcpu0 cannot go on: this host's KVM cannot emulate an instruction of the guest; and so on"


def choose(place, words, kvm=True, speed="hardware", says="", status=0, **variables):
    """choose-kvm on a host like that -> CompletedProcess."""
    doctor = {"kvm": kvm, **({} if kvm else {"kvm_error": "no permission: join the group 'kvm'"}),
              "kvm_api_version": 12, "kernel_mode_speed": speed, "ok": kvm}
    path = place.file("program", PROGRAM.format(doctor=json.dumps(doctor, indent=2), says=says, status=status))
    os.chmod(path, 0o755)
    clean = {k: v for k, v in os.environ.items() if k not in ("GODWIT_TESTBED", "GODWIT_IN_TESTBED")}
    return subprocess.run([f"{ROOT}/scripts/choose-kvm", *words], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, env={**clean, "GODWIT_BINARY": path, **variables})


def chosen(done, where, *why):
    check(done.returncode == 0 and done.stdout == f"{where}\n", f"not {where}: {done}")
    for word in why:
        check(word in done.stderr, f"no '{word}': {done}")
    check(why or not done.stderr, f"it says something: {done}")


@test
def host_without_kvm_sends_all_to_the_testbed_and_says_why(place):
    for words in (["bare"], ["linux"], ["linux", "kernel", "initrd"]):
        chosen(choose(place, words, kvm=False, speed="unknown"), "testbed", "no permission: join the group 'kvm'")


@test
def host_that_interprets_kernel_mode_sends_only_stock_kernels_to_the_testbed(place):
    chosen(choose(place, ["bare"], speed="emulated"), "host")
    chosen(choose(place, ["linux"], speed="emulated"), "testbed", "interprets")


@test
def stock_kernel_that_kvm_cannot_run_sends_the_others_to_the_testbed(place):
    trial = ["linux", "kernel", "initrd"]
    for speed in ("hardware", "unknown"):
        chosen(choose(place, trial, speed=speed), "host")
        chosen(choose(place, trial, speed=speed, says=EMULATION, status=1), "testbed", EMULATION)
    # Any other failure is one that tests shall find.
    chosen(choose(place, trial, says="godwit: something else", status=1), "host")


@test
def variable_decides_where_and_takes_two_values_only(place):
    for words in (["bare"], ["linux"], ["linux", "kernel", "initrd"]):
        chosen(choose(place, words, GODWIT_TESTBED="always"), "testbed", "GODWIT_TESTBED=always")
        chosen(choose(place, words, kvm=False, GODWIT_TESTBED="never"), "host")
        chosen(choose(place, words, kvm=False, GODWIT_IN_TESTBED="1", GODWIT_TESTBED="always"), "host")
        for value in ("1", "Always", "never "):
            done = choose(place, words, GODWIT_TESTBED=value)
            check(done.returncode == 2 and not done.stdout and value in done.stderr and
                  "always or never" in done.stderr, str(done))


@test
def program_that_does_not_answer_is_no_host_without_kvm(place):
    done = choose(place, ["bare"], kvm="?")
    check(done.returncode == 1 and not done.stdout and "does not tell" in done.stderr, str(done))


def totals(place, *texts):
    files = [place.file(f"said{i}", text) for i, text in enumerate(texts)]
    done = subprocess.run([f"{ROOT}/tests/totals", *files], capture_output=True, text=True)
    return done.returncode, done.stdout


@test
def run_that_was_cut_short_counts_as_a_failure(place):
    whole = "ok a\n2 passed, 0 failed, 1 skipped\n"
    check(totals(place, whole, whole) == (0, "4 passed, 0 failed, 2 skipped\n"), "two whole runs")
    for cut in ("", "ok a\n", "2 passed, 0 fail"):
        check(totals(place, whole, cut) == (1, "2 passed, 1 failed, 1 skipped\n"), f"a run that said {cut!r}")
    nothing = "0 passed, 0 failed, 9 skipped\n"
    check(totals(place, nothing, nothing) == (1, "0 passed, 0 failed, 18 skipped\n"), "nothing ran")
