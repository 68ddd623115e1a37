"""Throttled vCPUs: how much they still do, and that nothing has to wait for them."""
import os

import bare
import godwit
from godwit import check, test

DRIVE = os.path.join(godwit.ROOT, "build/drive")

# CPU 0 answers and is hardly busy; the others compute, never leave the guest by themselves, and write nothing.
COMPUTES = "fill=1 write=1 rate=1"


def drive(place, words, *args, cpus=1):
    """A VM with the commands of drive.c that works, the ticks of its TSC in a ms, and its QMP."""
    vm = place.bare(words, "--memory", "64M", "--cpus", cpus, *args, program=DRIVE)
    khz = bare.ready(vm)["khz"]
    return vm, khz, vm.qmp()


class Meter:
    """How fast a vCPU works for each second that its thread has had a processor or asked for one."""

    def __init__(self, vm, khz, qmp, cpu):
        self.vm, self.khz, self.cpu = vm, khz, cpu
        self.thread = qmp.execute("query-cpus-fast")[cpu]["thread-id"]

    def waited_ns(self):
        """For a processor that others had: time that is nobody's doing here."""
        with open(f"/proc/{self.vm.machine_pid()}/task/{self.thread}/schedstat") as f:
            return int(f.read().split()[1])

    def look(self):
        found = bare.progress(self.vm)
        return found["tsc"] / self.khz * 1e6, self.waited_ns(), found["work"][self.cpu], \
            found["max"][self.cpu] / self.khz

    def rate(self, work):
        """Work for a second, over so much time of the guest's (s) that it could have had."""
        start = now = self.look()
        while (now[0] - start[0]) - (now[1] - start[1]) < work * 1e9:
            now = self.look()
        return (now[2] - start[2]) / ((now[0] - start[0]) - (now[1] - start[1]))


@test
def throttled_vcpu_does_the_share_that_it_is_left(place):
    vm, khz, qmp = drive(place, f"{COMPUTES} compute=1", cpus=2)
    meter = Meter(vm, khz, qmp, 1)
    for permille, least, most in ((200, 0.6, 0.9), (500, 0.35, 0.6), (900, 0.03, 0.15), (990, 0.0003, 0.04)):
        qmp.execute("x-throttle", {"permille": 0})
        full = meter.rate(0.3)
        qmp.execute("x-throttle", {"permille": permille, "cpu": 1})
        share = meter.rate(1) / full
        check(least < share < most, f"{permille} permille leave {share:.4f} of the work")
    bare.works_on(vm)


@test
def throttle_of_one_vcpu_is_not_another_ones(place):
    vm, khz, qmp = drive(place, f"{COMPUTES} compute=2", cpus=3)
    meter = Meter(vm, khz, qmp, 2)
    full = meter.rate(0.3)
    qmp.execute("x-throttle", {"permille": 950, "cpu": 1})
    before, share = bare.progress(vm)["work"], meter.rate(1) / full
    after = bare.progress(vm)["work"]
    check(after[1] - before[1] < (after[2] - before[2]) / 3, f"not throttled: {before} {after}")
    check(share > 0.7, f"throttled as well: {share:.2f} of its work")


@test
def throttle_is_gone_when_it_is_taken_off(place):
    vm, khz, qmp = drive(place, f"{COMPUTES} compute=1", cpus=2)
    meter = Meter(vm, khz, qmp, 1)
    full = meter.rate(0.3)
    for permille in (990, 999, 300):
        qmp.execute("x-throttle", {"permille": permille})
        meter.rate(0.2)
        qmp.execute("x-throttle", {"permille": 0})
        share = meter.rate(0.5) / full
        check(share > 0.75, f"after {permille} permille it does {share:.2f} of its work")


@test
def pause_reset_and_quit_are_prompt_while_throttled(place):
    vm, khz, qmp = drive(place, "fill=8 write=8 cpus=2", cpus=2)
    qmp.execute("x-throttle", {"permille": 999})
    for _ in range(20):  # at every moment of a slice and a nap
        qmp.execute("stop")
        check(qmp.execute("query-status")["status"] == "paused", "not paused")
        qmp.execute("cont")
    qmp.execute("x-throttle", {"permille": 0})
    bare.works_on(vm)
    qmp.execute("x-throttle", {"permille": 999})
    qmp.execute("system_reset")
    vm.wait_console("^bare 1")
    qmp.execute("x-throttle", {"permille": 0})
    bare.line(vm, "ready")
    bare.works_on(vm)
    qmp.execute("x-throttle", {"permille": 999})
    qmp.execute("quit")
    check(vm.wait() == 0, f"exit {vm.process.returncode}: {vm.stderr()}")


@test
def guest_is_whole_while_its_throttle_changes(place):
    vm, _, qmp = drive(place, "fill=16 write=16 cpus=2", cpus=2)
    for i in range(200):
        qmp.execute("x-throttle", {"permille": i * 37 % 1000, "cpu": i % 2})
    qmp.execute("x-throttle", {"permille": 0})
    bare.works_on(vm)
