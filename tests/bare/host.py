"""What the host sees of a VM: memory, wake-ups, threads, rights."""
import os
import pwd
import re
import time

import bare
import godwit
from godwit import check, test

OVERHEAD_KIB = 3 * 1024


def no_sanitizer():
    if "/san-" in godwit.GODWIT:
        raise godwit.Skip("a sanitizer has memory and wake-ups of its own")


def mappings(vm):
    """Of smaps: (size, Pss) in KiB."""
    with open(f"/proc/{vm.machine_pid()}/smaps") as f:
        text = f.read()
    sizes = re.findall(r"^Size:\s+(\d+) kB", text, re.MULTILINE)
    pss = re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return list(zip(map(int, sizes), map(int, pss)))


@test
def host_memory_is_at_most_3_mib_beyond_what_the_guest_touched(place):
    no_sanitizer()
    vm = place.bare("idle", "--memory", "128M")
    bare.ready(vm)
    total = vm.memory_kib("Pss")
    # The guest's memory but its first 2 MiB, which are a mapping of their own; where the host
    # gives huge pages, a page that the guest touches is one of these.
    guest = sum(pss for size, pss in mappings(vm) if size >= 120 * 1024)
    print(f"#   Pss {total} KiB, {guest} KiB of it the guest's from 2 MiB on")
    check(guest <= 2048, f"the guest has touched one huge page there, not {guest} KiB")
    check(total - guest <= OVERHEAD_KIB,
          f"{total - guest} KiB beside guest memory, expected at most {OVERHEAD_KIB}")


@test
def idle_guest_wakes_nobody_up(place):
    no_sanitizer()
    vm = place.bare("fill=4 idle", "--memory", "128M", "--cpus", "2")
    bare.ready(vm)
    vm.qmp().close()

    def ours():
        # Threads of KVM itself are among a process's tasks.
        return {t.name: t.voluntary for t in vm.threads()
                if not t.name.startswith(("vcpu", "kvm"))}

    def settled():
        before = ours()
        time.sleep(0.1)
        return before == ours()

    godwit.wait_until(settled, "the end of what the last client caused")
    before = ours()
    # The time in which a tick would show itself; nothing is waited for.
    time.sleep(2)
    check(ours() == before, f"woken up without a cause: {before} {ours()}")
    bare.verify(vm)


@test
def threads_carry_names(place):
    vm = place.bare("fill=1", "--memory", "32M", "--cpus", "3")
    bare.ready(vm)
    names = [t.name for t in vm.threads()]
    for name in ("vcpu0", "vcpu1", "vcpu2", "io"):
        check(names.count(name) == 1, f"no thread '{name}': {names}")


@test
def running_vm_keeps_no_capability(place):
    vm = place.bare("fill=1", "--memory", "32M")
    bare.ready(vm)
    for thread in vm.threads():
        if thread.name.startswith("kvm"):
            continue
        with open(f"/proc/{vm.machine_pid()}/task/{thread.tid}/status") as f:
            status = f.read()
        for field in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            value = int(re.search(rf"^{field}:\s+(\w+)", status, re.MULTILINE).group(1), 16)
            check(value == 0, f"thread {thread.name} has {field} {value:x}")
        check(re.search(r"^NoNewPrivs:\s+1", status, re.MULTILINE), f"{thread.name}: NoNewPrivs")
    if os.geteuid() == 0:
        check(int(vm.status("CapBnd"), 16) == 0, f"CapBnd {vm.status('CapBnd')}")


@test
def user_option_changes_the_user_and_the_vm_can_still_be_saved(place):
    godwit.need_root()
    nobody = pwd.getpwnam("nobody")
    os.mkdir(place.path("theirs"))
    os.chown(place.path("theirs"), nobody.pw_uid, nobody.pw_gid)
    os.chown(place.runtime, nobody.pw_uid, nobody.pw_gid)
    vm = place.bare("fill=4", "--memory", "32M", "--user", "nobody")
    bare.ready(vm)
    check(vm.status("Uid").split() == [str(nobody.pw_uid)] * 4, f"Uid {vm.status('Uid')}")
    check(vm.status("Gid").split() == [str(nobody.pw_gid)] * 4, f"Gid {vm.status('Gid')}")
    check(vm.status("Groups") == "", f"Groups {vm.status('Groups')}")
    check(int(vm.status("CapEff"), 16) == 0 and int(vm.status("CapPrm"), 16) == 0, "capabilities")
    check(vm.cli("reset").returncode == 0, "reset")
    bare.ready(vm)
    done = vm.cli("save", place.path("theirs/saved"))
    check(done.returncode == 0 and vm.wait() == 0, f"save: {done.stderr}")
    check(os.stat(place.path("theirs/saved")).st_uid == nobody.pw_uid, "whose file is it?")
    check(os.listdir(place.path("theirs")) == ["saved"], "leftover")
    again = place.restore(place.path("theirs/saved"), "--same-paths", "--user", "nobody")
    bare.works_on(again)
    check(again.cli("quit").returncode == 0 and again.wait() == 0, "quit")
    check(os.listdir(place.runtime) == [], "its socket is left behind")


@test
def vm_that_stays_root_says_so_once_and_names_the_option(place):
    godwit.need_root()
    vm = place.bare("fill=1", "--memory", "32M")
    bare.ready(vm)
    vm.errors.wait("^godwit: this VM stays root: .*", godwit.GUARD_S)
    said = vm.errors.text.count("this VM stays root")
    check(said == 1 and "--user NAME" in vm.errors.text, f"stderr: {vm.errors.text!r}")
    vm = place.bare("fill=1", "--memory", "32M", "--user", "nobody")
    bare.ready(vm)
    check("root" not in vm.errors.text, f"stderr: {vm.errors.text!r}")
    vm = place.bare("fill=1", "--memory", "32M")
    bare.ready(vm)
    check(vm.cli("save", place.path("saved")).returncode == 0 and vm.wait() == 0, "save")
    vm = place.restore(place.path("saved"))
    vm.errors.wait("^godwit: this VM stays root: .*", godwit.GUARD_S)
    bare.works_on(vm)
    check(vm.errors.text.count("this VM stays root") == 1, f"stderr: {vm.errors.text!r}")


@test
def sockets_of_a_vm_of_another_user_are_removed_however_it_ends(place):
    godwit.need_root()
    channel = place.path("channel")
    vm = place.bare("fill=1 progress=20", "--memory", "32M", "--user", "nobody", "--channel",
                    f"a.0,socket={channel}", console="unix", name="same")
    bare.line(vm, "progress")
    vm.signal(15)
    check(vm.wait() == 0, f"exit {vm.process.returncode}")
    check(not os.path.exists(channel) and not os.path.exists(vm.console_path), "sockets are left")

    # Restored, it has name and paths from the file. The directory is root's, save with its rights.
    vm = place.bare("fill=1 progress=20", "--memory", "32M", "--channel", f"a.0,socket={channel}",
                    console="unix", name="same")
    bare.line(vm, "progress")
    check(vm.cli("save", place.path("saved")).returncode == 0 and vm.wait() == 0, "save")
    for ended_by in ("quit", "SIGKILL"):
        vm = place.restore(place.path("saved"), "--user", "nobody", console=None, name="same",
                           keep_name=True)
        qmp = vm.qmp()
        godwit.wait_until(lambda: qmp.execute("query-status")["running"], "it runs")
        check(os.path.exists(channel), "no channel")
        if ended_by == "quit":
            check(vm.cli("quit").returncode == 0 and vm.wait() == 0, "quit")
        else:
            os.kill(vm.machine_pid(), 9)
            check(vm.wait() == 1 and "signal 9" in vm.stderr(), f"{vm.stderr()}")
        check(not os.path.exists(channel) and not os.path.exists(vm.console_path), "left behind")
        check(os.listdir(place.runtime) == [], "its control socket is left behind")


@test
def vm_of_another_user_ends_with_the_process_that_was_started(place):
    godwit.need_root()
    vm = place.bare("fill=1", "--memory", "32M", "--user", "nobody")
    bare.ready(vm)
    inner = vm.machine_pid()
    check(inner != vm.pid, "it is no process of its own")
    vm.kill()
    check(not godwit.alive(inner), "it goes on alone")


@test
def user_who_may_not_write_there_gets_a_sentence_and_the_guest_runs_on(place):
    godwit.need_root()
    vm = place.bare("fill=1", "--memory", "32M", "--user", "nobody")
    bare.ready(vm)
    done = vm.cli("save", place.path("saved"))
    check(done.returncode == 1 and "Permission denied" in done.stderr, f"save: {done.stderr}")
    bare.works_on(vm)
