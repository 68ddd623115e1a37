"""Start of the bare guest, memory beside the guest's, idle wake-ups: godwit against QEMU."""
import os
import re
import time

from common import BARE, Run, godwit, guest_ram_kib, median, pss_kib, qemu, row

RUNS = 15
MIB = 1 << 20


def first_byte(command):
    with Run(command) as vm:
        return vm.until(b"b") * 1000


def beside_guest(command, size):
    """PSS in KiB without the guest's RAM, once the guest is ready."""
    with Run(command) as vm:
        vm.until(b"ready")
        return pss_kib(vm.process.pid) - guest_ram_kib(vm.process.pid, size)


def switches(pid):
    """Voluntary context switches of all threads."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as f:
            total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", f.read(), re.M).group(1))
    return total


def idle_wakeups(command, seconds=5):
    with Run(command) as vm:
        vm.until(b"ready")
        time.sleep(1)
        before = switches(vm.process.pid)
        time.sleep(seconds)
        return (switches(vm.process.pid) - before) / seconds


def main():
    print("bare guest, 1 vCPU, this host's KVM")
    ours, theirs = [], []
    for _ in range(RUNS):
        ours.append(first_byte(godwit(BARE, "", "1G")))
        theirs.append(first_byte(qemu(BARE, "", "1G")))
    row("exec to first serial byte, 1 GiB", median(ours), median(theirs), "ms", limit=0.1)
    size = 128 * MIB
    row("PSS beside guest RAM, 128 MiB",
        median([beside_guest(godwit(BARE, "progress=0"), size) for _ in range(3)]),
        median([beside_guest(qemu(BARE, "progress=0"), size) for _ in range(3)]), "KiB", 0)
    row("wake-ups of an idle guest's process", idle_wakeups(godwit(BARE, "idle progress=0")),
        idle_wakeups(qemu(BARE, "idle progress=0")), "a sec", 1)


main()
