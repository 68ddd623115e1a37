"""As much of everything as a machine can have: it moves, is saved and restored, and what its pause will cost is
known before."""
import os

import bare
from godwit import check, test
from live import destination, follow, moved
from policy import policy

VCPUS = 254
WORKING = 8  # of them; the others wait to be started, and have states like these


def many_vcpus(place):
    vm = place.bare(f"fill=8 write=4 cpus={WORKING}", "--memory", "64M", "--cpus", VCPUS)
    bare.ready(vm)
    return vm


def decisions(qmp):
    return [e["data"] for e in qmp.events if e.get("event") == "GODWIT_DECISION"]


@test
def machine_of_254_vcpus_moves_and_its_pause_was_expected(place):
    vm = many_vcpus(place)
    before = bare.progress(vm)
    target, uri = destination(place, vm)
    with vm.qmp() as qmp:
        qmp.execute("migrate-set-parameters", {"downtime-limit": 1})
        qmp.execute("migrate", {"uri": uri})
        reply = follow(qmp)
        check(reply["status"] == "completed", str(reply))
        actions = [d["action"] for d in decisions(qmp)]
        check("downtime-limit" in actions and
              actions.index("downtime-limit") < actions.index("switchover"), str(actions))
        said = next(d["reason"] for d in decisions(qmp) if d["action"] == "downtime-limit")
        check("the 1 ms that are allowed" in said and "states of 254 vCPUs" in said, said)
        check(reply["expected-downtime"] > 1, str(reply))
    moved(vm, target, before)
    bare.verify(target)


@test
def policy_that_allows_less_than_254_vcpus_need_gives_up_before_the_pause(place):
    vm = many_vcpus(place)
    target, uri = destination(place, vm)
    strict = policy(place, [(1, None)], [None], first=1)
    done = vm.cli("migrate", uri, "--policy", strict)
    check(done.returncode == 1 and "policy 'mine'" in done.stderr, str(done))
    check("downtime-limit: the pause will be longer than the 1 ms" in done.stdout and
          "switchover:" not in done.stdout, done.stdout)
    bare.works_on(vm)
    check(target.wait() == 1, f"the destination ended with {target.process.returncode}")


@test
def machine_of_254_vcpus_is_saved_and_restored(place):
    vm = many_vcpus(place)
    saved = place.path("saved")
    done = vm.cli("save", saved)
    check(done.returncode == 0 and vm.wait() == 0, done.stderr)
    shown = place.godwit("inspect", saved, "--states")
    check(shown.returncode == 0 and "cpu@0 {" in shown.stdout and
          shown.stdout.index("cpu@0 {") < shown.stdout.index(f"cpu@{VCPUS - 1} {{"), shown.stderr)
    again = place.restore(saved)
    bare.works_on(again)
    bare.verify(again)


@test
def machine_with_all_the_devices_it_can_have_moves_over_16_connections(place):
    """15 disks, 16 channels on one device, entropy and balloon are the 18 that there is room for."""
    args, others = [], []
    for i in range(15):
        disk = place.file(f"disk{i}.raw")
        os.truncate(disk, 1 << 20)
        args += ["--disk", disk]
    for i in range(16):
        args += ["--channel", f"port.{i},socket={place.path(f'port{i}')}"]
        others += ["--channel", f"port.{i},socket={place.path(f'other{i}')}"]
    vm = place.bare("fill=24 write=8 cpus=2", "--memory", "64M", "--cpus", 2, *args)
    bare.ready(vm)
    before = bare.progress(vm)
    target, uri = destination(place, vm, *others)
    with vm.qmp() as qmp:
        qmp.execute("migrate-set-capabilities",
                    {"capabilities": [{"capability": "multifd", "state": True}]})
        qmp.execute("migrate-set-parameters", {"multifd-channels": 16})
        qmp.execute("migrate", {"uri": uri})
        reply = follow(qmp)
    check(reply["status"] == "completed", str(reply))
    moved(vm, target, before)


@test
def memory_that_was_never_touched_costs_nothing_to_move(place):
    """As much as the host promises, up to a TiB; Linux promises more than there is only where it is told to."""
    with open("/proc/sys/vm/overcommit_memory") as f:
        promises = f.read().strip() == "1"
    with open("/proc/meminfo") as f:
        free = next(int(line.split()[1]) for line in f if line.startswith("MemAvailable:"))
    gib = 64 if promises else max(1, free // 4 >> 20)
    vm = place.bare("fill=24 write=8", "--memory", f"{gib}G")
    bare.ready(vm)
    before = bare.progress(vm)
    target, uri = destination(place, vm)
    with vm.qmp() as qmp:
        qmp.execute("migrate", {"uri": uri})
        reply = follow(qmp)
    check(reply["status"] == "completed", str(reply))
    # Only what was touched goes over: the guest's own, and a little of the machine's.
    check(reply["ram"]["duplicate"] + reply["ram"]["normal"] < (256 << 20) / 4096, str(reply["ram"]))
    moved(vm, target, before)
    check(target.memory_kib("Rss") < 256 << 10, f"{target.memory_kib('Rss')} KiB at the destination")
