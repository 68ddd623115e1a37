"""Limits of vCPUs: how much they still do, and that nothing has to wait for them."""
import os
import time

import bare
import godwit
from godwit import QmpError, check, need_real_time, test
from live import need_dirty_ring

DRIVE = os.path.join(os.path.dirname(godwit.GODWIT), "drive")  # of the same build

# CPU 0 answers and is hardly busy; the others compute, never leave the guest by themselves, and write nothing.
COMPUTES = "fill=1 write=1 rate=1"


def drive(place, words, *args, cpus=1):
    """A VM with the commands of drive.c that works, the ticks of its TSC in a ms, and its QMP."""
    vm = place.bare(words, "--memory", "64M", "--cpus", cpus, *args, program=DRIVE)
    khz = bare.ready(vm)["khz"]
    return vm, khz, vm.qmp()


class Meter:
    """How much a vCPU does. The time that its thread waited for a processor is left out: it is nobody's doing here."""

    def __init__(self, vm, khz, qmp, cpu):
        self.vm, self.khz, self.cpu = vm, khz, cpu
        self.thread = qmp.execute("query-cpus-fast")[cpu]["thread-id"]

    def spent_ns(self):
        """How long it has run, and waited."""
        with open(f"/proc/{self.vm.machine_pid()}/task/{self.thread}/schedstat") as f:
            ran, waited, _ = f.read().split()
            return int(ran), int(waited)

    def share(self, seconds):
        """Of the time that it could have run, over so many seconds of that; what it does in it is a matter of the
        processor's speed, which others share."""
        start, (ran, waited), had = time.monotonic_ns(), self.spent_ns(), 0
        while had < seconds * 1e9:
            time.sleep(max(0.01, seconds - had / 1e9))
            now = self.spent_ns()
            had = time.monotonic_ns() - start - (now[1] - waited)
        return (now[0] - ran) / had

    def look(self):
        found = bare.progress(self.vm)
        return found["tsc"] / self.khz * 1e6, self.spent_ns()[1], found["work"][self.cpu]

    def rate(self, seconds):
        """Work a second, over so many seconds of the guest's time in which it could have worked."""
        start, had = self.look(), 0
        while had < seconds * 1e9:
            time.sleep(max(0.01, seconds - had / 1e9))  # to look is work for CPU 0
            now = self.look()
            had = (now[0] - start[0]) - (now[1] - start[1])
        return 1e9 * (now[2] - start[2]) / had


@test
def throttled_vcpu_does_the_share_that_it_is_left(place):
    need_real_time()
    vm, khz, qmp = drive(place, f"{COMPUTES} compute=1", cpus=2)
    meter = Meter(vm, khz, qmp, 1)
    full = meter.share(0.3)
    check(full > 0.9, f"it runs for {full:.4f} of the time that it has")
    for permille, least, most in ((200, 0.7, 0.87), (500, 0.4, 0.58), (900, 0.05, 0.15), (990, 0.003, 0.03)):
        qmp.execute("x-throttle", {"permille": permille, "cpu": 1})
        before = bare.progress(vm)["work"][1]
        share = meter.share(1)
        check(least < share < most, f"{permille} permille leave {share:.4f} of the time")
        check(bare.progress(vm)["work"][1] > before, f"{permille} permille leave nothing")
    bare.works_on(vm)


@test
def throttle_of_one_vcpu_is_not_another_ones(place):
    vm, khz, qmp = drive(place, f"{COMPUTES} compute=2", cpus=3)
    qmp.execute("x-throttle", {"permille": 950, "cpu": 1})
    one, other = (Meter(vm, khz, qmp, cpu).share(1) for cpu in (1, 2))
    check(one < 0.15, f"not throttled: it runs for {one:.2f} of its time")
    check(other > 0.9, f"throttled as well: it runs for {other:.2f} of its time")


@test
def throttle_is_gone_when_it_is_taken_off(place):
    need_real_time()
    vm, khz, qmp = drive(place, f"{COMPUTES} compute=1", cpus=2)
    meter = Meter(vm, khz, qmp, 1)
    for permille in (990, 999, 300):
        qmp.execute("x-throttle", {"permille": permille})
        meter.share(0.2)
        qmp.execute("x-throttle", {"permille": 0})
        share = meter.share(0.5)
        check(share > 0.9, f"after {permille} permille it runs for {share:.2f} of its time")


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


MIB_PAGES = 256


@test
def dirty_limit_holds_the_writer_and_leaves_the_computing_vcpu_alone(place):
    need_dirty_ring()
    vm, khz, qmp = drive(place, "fill=48 write=48 compute=1", "--dirty-ring", "4096", cpus=2)
    qmp.execute("x-log", {"on": True})
    qmp.execute("x-fetch")
    writer, computing = (Meter(vm, khz, qmp, cpu) for cpu in (0, 1))
    free = writer.rate(0.3)
    # Little enough for a slow host where both have to share a processor.
    for mib in (min(50, free / MIB_PAGES / 8), min(100, free / MIB_PAGES / 4)):
        qmp.execute("x-dirty-limit", {"bytes": int(mib * (1 << 20))})
        writer.rate(0.5)  # what it was ahead is paid off
        before, counted = bare.progress(vm), qmp.execute("x-dirty-pages")
        share = computing.share(2)
        after = bare.progress(vm)
        counted = [new - old for new, old in zip(qmp.execute("x-dirty-pages"), counted)]
        wrote = (after["work"][0] - before["work"][0]) / MIB_PAGES
        rate = wrote * khz * 1000 / (after["tsc"] - before["tsc"])
        check(0.8 * mib < rate < 1.2 * mib, f"limited to {mib:.1f} MiB/s it writes {rate:.1f}")
        check(0.8 * wrote < counted[0] / MIB_PAGES < 1.2 * wrote, f"it wrote {wrote} MiB, its ring says {counted}")
        check(counted[1] < counted[0] / 50, f"who writes nothing has dirtied pages: {counted}")
        check(share > 0.9, f"the computing vCPU runs for {share:.2f} of its time")
    for _ in range(10):
        qmp.execute("stop")
        qmp.execute("cont")
    qmp.execute("x-dirty-limit", {"bytes": 0})
    again = writer.rate(0.3)
    check(again > free / 2, f"without the limit it writes {again / free:.2f} of what it did")
    qmp.execute("x-log", {"on": False})
    bare.works_on(vm)


@test
def dirty_rings_lose_no_page_under_limits(place):
    """What the log says must be all that was written: a bit too few is a page that a migration loses."""
    need_dirty_ring()
    vm, _, qmp = drive(place, "fill=8 write=8 cpus=2", "--dirty-ring", "1024", cpus=2)
    for i in range(8):
        qmp.execute("x-log", {"on": True})
        qmp.execute("x-fetch")
        qmp.execute("x-throttle", {"permille": i * 125})
        qmp.execute("x-dirty-limit", {"bytes": (i % 3) * (100 << 20)})
        bare.worked(vm, [work + 8 * MIB_PAGES for work in bare.progress(vm)["work"]])  # each has been everywhere
        qmp.execute("stop")
        dirty = qmp.execute("x-fetch")["pages"]
        qmp.execute("cont")
        check(dirty >= 8 * MIB_PAGES, f"{dirty} pages are dirty of {8 * MIB_PAGES} that were written")
        qmp.execute("x-log", {"on": False})
    bare.works_on(vm)


@test
def dirty_limit_needs_a_dirty_ring(place):
    _, _, qmp = drive(place, COMPUTES)
    try:
        qmp.execute("x-dirty-limit", {"bytes": 1 << 20})
        check(False, "it was taken")
    except QmpError as e:
        check("--dirty-ring" in str(e), str(e))
    qmp.execute("x-dirty-limit", {"bytes": 0})
