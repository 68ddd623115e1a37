"""A machine from its start to its end: pause, resume, reset, power-off, quit, signals."""
import os
import re
import signal
import struct
import time

import bare
from godwit import QmpError, check, test

SMALL = ("--memory", "32M")


def vcpu_ticks(vm):
    """Processor time of its vCPU threads, in clock ticks."""
    return [t.ticks for t in vm.threads() if t.name.startswith("vcpu")]


def paused_and_resumed(place, cpus):
    vm = place.bare(f"fill=8 write=8 mode=sparse cpus={cpus}", *SMALL, "--cpus", cpus)
    khz = bare.ready(vm)["khz"]
    bare.progress(vm)
    check(vm.cli("pause").returncode == 0, "pause failed")
    begin, ticks, said = time.monotonic(), vcpu_ticks(vm), len(vm.output.text)
    vm.send("p")  # nobody may read it before resume
    # Not a wait for anything: the time in which a guest that was not stopped would show itself.
    time.sleep(0.3)
    check(vcpu_ticks(vm) == ticks, "a vCPU thread used its processor while paused")
    check(len(vm.output.text) == said, "the guest spoke while paused")
    end = time.monotonic()
    check(vm.cli("resume").returncode == 0, "resume failed")
    # That answer first: with a question always ahead of it, the guest would do nothing but answer.
    bare.line(vm, "progress")
    after = bare.worked(vm, bare.progress(vm)["work"])  # a gap is told when it has ended
    least = int((end - begin) * khz * 1000 * 0.99)  # the clocks' rates differ a little
    for gap in after["max"]:
        check(gap >= least, f"a vCPU went on during the pause: its gap is {gap}, not {least} ticks")
    bare.works_on(vm)
    check(vm.cli("quit").returncode == 0 and vm.wait() == 0, "quit failed")


@test
def run_starts_the_guest_and_its_power_off_ends_with_0(place):
    vm = place.bare("fill=1", *SMALL)
    bare.ready(vm)
    qmp = vm.qmp()
    check(qmp.execute("query-status") == {"status": "running", "singlestep": False,
                                          "running": True}, "query-status")
    vm.send("q")
    vm.wait_console("^power off")
    event = qmp.wait_event("SHUTDOWN")
    check(event["data"]["guest"] is True, f"the guest itself powered off: {event}")
    check(vm.wait() == 0, f"exit {vm.process.returncode}")
    check(vm.stderr() == "", f"stderr: {vm.stderr()}")


def pvh_elf(code):
    """The least kernel with a PVH note: `code`, in 32-bit protected mode, at 1 MiB."""
    entry, start = 1 << 20, 64 + 2 * 56
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen", entry)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    segments = ((4, start, len(note)), (1, start + len(note), len(code)))  # PT_NOTE, PT_LOAD
    return header + b"".join(
        struct.pack("<IIQQQQQQ", kind, 7, offset, entry, entry, size, size, 4)
        for kind, offset, size in segments) + note + code


@test
def guest_that_kvm_cannot_run_ends_with_a_sentence_that_names_the_way_out(place):
    # jmp *%eax to an address where nothing is: no KVM can emulate what is not there.
    kernel = place.file("kernel", pvh_elf(b"\xb8\x00\x00\x00\xd0\xff\xe0"))
    vm = place.run("--kernel", kernel, "--cpus", "2", *SMALL)
    check(vm.wait() == 1, f"exit {vm.process.returncode}")
    said = vm.stderr()
    for word in ("cannot emulate", "scripts/testbed", "godwit doctor", "rip 0xd0000000"):
        check(word in said, f"stderr says no {word}: {said}")
    check(said.count("\n") == 1, f"more than one sentence: {said}")


@test
def console_reaches_file_and_unix_socket(place):
    to_file = place.bare("fill=1", *SMALL, console="file")
    bare.ready(to_file)
    to_socket = place.bare("fill=1 progress=20", *SMALL, console="unix")
    bare.line(to_socket, "progress")  # what is sent before the guest has set its port up is lost
    bare.verify(to_socket)
    for vm in (to_file, to_socket):
        check(vm.cli("quit").returncode == 0 and vm.wait() == 0, "quit")
    os.unlink(to_file.console_path)
    check(not os.path.exists(to_socket.console_path), "the console's socket is left behind")


@test
def two_vcpus_work_and_verify(place):
    vm = place.bare("fill=16 write=16 cpus=2", *SMALL, "--cpus", "2")
    check(bare.ready(vm)["cpus"] == 2, "the guest sees 2 CPUs")
    qmp = vm.qmp()
    ids = [cpu["thread-id"] for cpu in qmp.execute("query-cpus-fast")]
    names = {t.tid: t.name for t in vm.threads()}
    check([names[i] for i in ids] == ["vcpu0", "vcpu1"], f"query-cpus-fast: {ids} {names}")
    bare.worked(vm, [0, 0])
    bare.works_on(vm)


@test
def pause_stops_one_vcpu_and_resume_goes_on(place):
    paused_and_resumed(place, 1)


@test
def pause_stops_two_vcpus_and_resume_goes_on(place):
    paused_and_resumed(place, 2)


@test
def paused_twice_is_paused_and_status_tells(place):
    vm = place.bare("fill=1", *SMALL)
    bare.ready(vm)
    qmp = vm.qmp()
    for _ in range(2):
        check(vm.cli("pause").returncode == 0, "pause")
    qmp.wait_event("STOP")
    check("paused" in vm.cli("status").stdout, "status tells nothing of the pause")
    check("paused" in place.godwit("list").stdout, "list tells nothing of the pause")
    check(qmp.execute("query-status")["status"] == "paused", "query-status")
    for _ in range(2):
        check(vm.cli("resume").returncode == 0, "resume")
    qmp.wait_event("RESUME")
    bare.works_on(vm)


@test
def paused_start_waits_for_resume(place):
    vm = place.bare("fill=1", *SMALL, "--paused")
    qmp = vm.qmp()
    check(qmp.execute("query-status")["status"] == "prelaunch", "not prelaunch")
    check(vm.output.text == "", "the guest has run")
    check(vm.cli("resume").returncode == 0, "resume")
    bare.ready(vm)


@test
def reset_by_the_host_starts_the_guest_again(place):
    vm = place.bare("fill=8 write=8 cpus=2", *SMALL, "--cpus", "2")
    bare.ready(vm)
    qmp = vm.qmp()
    check(vm.cli("reset").returncode == 0, "reset failed")
    event = qmp.wait_event("RESET")
    check(event["data"]["guest"] is False, f"the host has asked for it: {event}")
    bare.ready(vm)
    qmp.execute("system_reset")
    qmp.wait_event("RESET")
    bare.ready(vm)
    bare.works_on(vm)


@test
def reset_by_the_guest_starts_it_again(place):
    vm = place.bare("fill=8", *SMALL)
    qmp = vm.qmp()
    for _ in range(3):
        bare.ready(vm)
        vm.send("r")
        vm.wait_console(r"^reset\r?\n")
        event = qmp.wait_event("RESET")
        check(event["data"]["guest"] is True, f"the guest has asked for it: {event}")
    bare.ready(vm)
    bare.works_on(vm)


@test
def keyboard_controller_resets_the_machine_at_once(place):
    vm = place.bare("fill=8", *SMALL)
    qmp = vm.qmp()
    bare.ready(vm)
    vm.send("k")
    polls = bare.line(vm, "keyboard")["polls"]
    check(polls == 0, f"the controller was asked {polls} times whether it takes a command")
    check(qmp.wait_event("RESET")["data"]["guest"] is True, "not the guest's reset")
    bare.ready(vm)
    bare.works_on(vm)


@test
def reset_of_a_paused_machine_leaves_it_paused(place):
    vm = place.bare("fill=4", *SMALL)
    bare.ready(vm)
    check(vm.cli("pause").returncode == 0 and vm.cli("reset").returncode == 0, "reset failed")
    check("paused" in vm.cli("status").stdout, "it runs")
    check(vm.cli("resume").returncode == 0, "resume failed")
    bare.ready(vm)
    bare.verify(vm)


@test
def quit_ends_with_0_and_says_so(place):
    vm = place.bare("fill=1", *SMALL)
    bare.ready(vm)
    qmp = vm.qmp()
    check(vm.cli("quit").returncode == 0, "quit")
    check(not vm.running() or vm.wait() == 0, "quit returned before the process had ended")
    event = next((e for e in qmp.wait_end() if e.get("event") == "SHUTDOWN"), None)
    check(event and event["data"]["guest"] is False, f"SHUTDOWN: {event}")
    check(vm.wait() == 0, f"exit {vm.process.returncode}")


@test
def signals_end_it_in_good_order(place):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        vm = place.bare("fill=1", *SMALL)
        bare.ready(vm)
        vm.signal(number)
        check(vm.wait() == 0, f"exit {vm.process.returncode} at {number.name}")
        check(not os.path.exists(vm.socket_path), f"socket left behind at {number.name}")


@test
def a_killed_vm_leaves_a_stale_socket_that_the_next_replaces(place):
    first = place.bare("fill=1", *SMALL, name="same")
    bare.ready(first)
    first.kill()
    check(os.path.exists(first.socket_path), "the kernel removes no socket, who did?")
    asked = place.godwit("status", "same")
    check(asked.returncode == 1 and "stale" in asked.stderr, f"status: {asked.stderr}")
    second = place.bare("fill=1", *SMALL, name="same")
    bare.ready(second)
    check(second.cli("status").returncode == 0, "the second one does not answer")
    check(second.cli("quit").returncode == 0 and second.wait() == 0, "quit")
    check(not os.path.exists(second.socket_path), "the socket is left behind")


@test
def list_removes_what_killed_vms_left(place):
    vm = place.bare("fill=1", *SMALL)
    bare.ready(vm)
    vm.kill()
    listed = place.godwit("list")
    check(listed.returncode == 0 and vm.name not in listed.stdout, f"list: {listed.stdout}")
    check(not os.path.exists(vm.socket_path), "the stale socket is still there")


@test
def unknown_qmp_command_leaves_the_connection_open(place):
    vm = place.bare("fill=1", *SMALL)
    bare.ready(vm)
    qmp = vm.qmp()
    for command, arguments in (("nonsense", None), ("migrate", {"uri": 5}), ("migrate", {}),
                               ("stop", {"speed": 1})):
        try:
            qmp.execute(command, arguments)
        except QmpError as error:
            check(error.desc, "an error without a sentence")
        else:
            check(False, f"{command} {arguments} was accepted")
    check(qmp.execute("query-status")["running"], "the guest runs on")


@test
def balloon_is_asked_for_and_outlives_a_reset(place):
    vm = place.bare("fill=1", *SMALL)
    bare.ready(vm)
    qmp = vm.qmp()
    ram = qmp.execute("query-balloon")["actual"]
    check(ram == 32 << 20, f"the guest has {ram} bytes")
    qmp.execute("balloon", {"value": ram - (5 << 20)})
    check(vm.cli("reset").returncode == 0, "reset")
    bare.ready(vm)
    # It has no driver for it: it has what it had, and the wish waits.
    check(qmp.execute("query-balloon")["actual"] == ram, "without a driver")
    check(vm.cli("save", place.path("saved")).returncode == 0 and vm.wait() == 0, "save")
    told = place.godwit("inspect", place.path("saved"), "--states").stdout
    check(re.search(r"num-pages = <0x0*500>", told), f"the wish is lost: {told[:2000]}")
    bare.verify(place.restore(place.path("saved")))
