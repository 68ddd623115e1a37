"""Live migration of the bare guest on one host: it arrives whole, and no failure loses or doubles it."""
import os
import re
import signal
import socket
import threading

import bare
import godwit
from godwit import QmpError, check, test, wait_until

MEMORY = ("--memory", "64M")
WORDS = "fill=24 zero=4 write=16"


def destination(place, source, *args, listen="tcp:127.0.0.1:0", name=None, once=True):
    """A waiting `godwit receive` for that source's guest, and the URI to reach it."""
    vm = place.vm("receive", "--listen", listen, "--same-paths", *(("--once",) if once else ()), *args, console="unix",
                  name=name)
    match = vm.errors.wait(r"waiting for a guest on (\S+)\n", godwit.GUARD_S)
    check(match, f"the destination does not listen: {vm.stderr()}")
    return vm, match.group(1)


def start(place, words=WORDS, *args):
    vm = place.bare(words, *MEMORY, *args)
    bare.ready(vm)
    return vm


def follow(qmp):
    """The last query-migrate of a migration under way."""
    def over():
        reply = qmp.execute("query-migrate")
        return reply if reply["status"] in ("completed", "failed", "cancelled", "x-godwit-undecided") else None
    return wait_until(over, "the end of the migration")


def migrate(source, uri, **parameters):
    with source.qmp() as qmp:
        if parameters:
            qmp.execute("migrate-set-parameters",
                        {k.replace("_", "-"): v for k, v in parameters.items()})
        qmp.execute("migrate", {"uri": uri})
        return follow(qmp)


def moved(source, target, before):
    """The source has ended with 0 and the guest works on at the target, from where it was."""
    check(source.wait() == 0, f"the source ended with {source.process.returncode}: {source.stderr()}")
    after = bare.works_on(target)
    check(after["tsc"] > before["tsc"] and after["clock"] > before["clock"],
          f"time has not gone on: {before} {after}")
    for one, other in zip(before["work"], after["work"]):
        check(other >= one, f"work is lost: {before} {after}")
    return after


def stays(source, target=None):
    """The guest works on at the source; a target has ended with 1 and left nothing."""
    bare.works_on(source)
    check(source.qmp().execute("query-status")["status"] == "running", "the source does not run")
    if target:
        check(target.wait() == 1, f"the destination ended with {target.process.returncode}")


def moves(place, cpus=1, channels=1, listen="tcp:127.0.0.1:0", memory="64M", words=WORDS, args=()):
    source = place.bare(f"{words} cpus={cpus}", "--memory", memory, "--cpus", cpus, *args)
    bare.ready(source)
    before = bare.progress(source)
    target, uri = destination(place, source, listen=listen)
    qmp = source.qmp()
    if channels > 1:
        qmp.execute("migrate-set-capabilities",
                    {"capabilities": [{"capability": "multifd", "state": True}]})
        qmp.execute("migrate-set-parameters", {"multifd-channels": channels})
    reply = migrate(source, uri)
    check(reply["status"] == "completed", str(reply))
    check(reply["ram"]["transferred"] >= reply["ram"]["normal-bytes"] > 0, str(reply))
    check(reply["ram"]["remaining"] == 0, str(reply))
    moved(source, target, before)
    return target


@test
def running_guest_moves_with_its_memory_and_time(place):
    moves(place)


@test
def two_vcpus_move(place):
    moves(place, cpus=2)


def need_dirty_ring():
    if not godwit.doctor()["kvm_dirty_ring_entries_max"]:
        raise godwit.Skip("this host's KVM has no dirty ring")


@test
def guest_moves_with_a_dirty_ring(place):
    need_dirty_ring()
    moves(place, args=("--dirty-ring", "4096"))


@test
def two_vcpus_move_with_dirty_rings_of_any_size(place):
    need_dirty_ring()
    for entries in (1024, 4096, 65536):
        moves(place, cpus=2, args=("--dirty-ring", entries))


@test
def dirty_ring_goes_along_and_can_be_left_behind(place):
    need_dirty_ring()
    vm = start(place, WORDS, "--dirty-ring", "1024")
    for args in ((), ("--dirty-ring", "0"), ("--dirty-ring", "2048"), ()):
        before = bare.progress(vm)
        target, uri = destination(place, vm, *args)
        check(migrate(vm, uri)["status"] == "completed", "not completed")
        moved(vm, target, before)
        vm = target


@test
def dirty_ring_outlives_cancelled_migrations_and_reboots(place):
    need_dirty_ring()
    vm = start(place, WORDS, "--dirty-ring", "1024")
    qmp = vm.qmp()
    for _ in range(3):
        target, uri = destination(place, vm)
        qmp.execute("migrate-set-parameters", {"max-bandwidth": 8 << 20})
        qmp.execute("migrate", {"uri": uri})
        wait_until(lambda: qmp.execute("query-migrate")["ram"]["transferred"] > 1 << 20, "some bytes")
        qmp.execute("system_reset")
        bare.ready(vm)
        qmp.execute("migrate_cancel")
        check(follow(qmp)["status"] == "cancelled", "not cancelled")
        stays(vm, target)
    before = bare.progress(vm)
    target, uri = destination(place, vm)
    check(migrate(vm, uri, max_bandwidth=0)["status"] == "completed", "not completed")
    moved(vm, target, before)


@test
def guest_moves_over_two_and_four_channels(place):
    for channels in (2, 4):
        moves(place, channels=channels)


@test
def guest_moves_over_a_unix_socket(place):
    path = place.path("incoming.sock")
    moves(place, listen=f"unix:{path}")
    check(not os.path.exists(path), "the socket it listened on is still there")


@test
def memory_above_4_gib_moves(place):
    moves(place, memory="5G", words="fill=8 high=8 write=8" if "high=" in open(
        os.path.join(os.path.dirname(godwit.__file__), "../../guest/bare/README.md")).read() else WORDS)


@test
def guest_moves_back_and_forth(place):
    vm = start(place)
    for _ in range(godwit.moves(4)):
        before = bare.progress(vm)
        target, uri = destination(place, vm)
        check(migrate(vm, uri)["status"] == "completed", "not completed")
        moved(vm, target, before)
        vm = target


@test
def paused_guest_arrives_paused(place):
    vm = start(place)
    check(vm.cli("pause").returncode == 0, "pause")
    target, uri = destination(place, vm)
    check(migrate(vm, uri)["status"] == "completed", "not completed")
    check(vm.wait() == 0, "the source did not end with 0")
    target.wait_status("paused")
    check(target.cli("resume").returncode == 0, "resume")
    bare.works_on(target)


@test
def cancelled_migration_keeps_guest_running_and_can_be_repeated(place):
    vm = start(place)
    target, uri = destination(place, vm)
    qmp = vm.qmp()
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 1 << 20})
    qmp.execute("migrate", {"uri": uri})
    wait_until(lambda: qmp.execute("query-migrate")["ram"]["transferred"] > 1 << 20, "some bytes")
    qmp.execute("migrate_cancel")
    check(follow(qmp)["status"] == "cancelled", "not cancelled")
    stays(vm, target)
    before = bare.progress(vm)
    target, uri = destination(place, vm)
    check(migrate(vm, uri, max_bandwidth=0)["status"] == "completed", "not completed")
    moved(vm, target, before)


@test
def both_sides_tell_how_far_it_is(place):
    vm = start(place)
    target, uri = destination(place, vm)
    qmp, other = vm.qmp(), target.qmp()
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 2 << 20})
    qmp.execute("migrate", {"uri": uri})
    wait_until(lambda: qmp.execute("query-migrate")["ram"]["transferred"] > 1 << 20, "some bytes")
    reply = qmp.execute("query-migrate")
    check(reply["ram"]["dirty-sync-count"] == 1 and 0 < reply["ram"]["mbps"] < 100, str(reply))
    wait_until(lambda: other.execute("query-migrate").get("ram", {}).get("normal"), "some pages there")
    reply = other.execute("query-migrate")
    ram = reply["ram"]
    check(reply["status"] == "active" and reply["x-godwit-incoming"] and ram["mbps"] > 0, str(reply))
    check(0 < ram["remaining"] < ram["total"] and ram["transferred"] > ram["normal-bytes"] > 0, str(reply))
    check(re.search(r"^migration: active, coming in, \d+ %, .* received, ", target.cli("status").stdout, re.MULTILINE),
          target.cli("status").stdout)
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 0})
    check(follow(qmp)["status"] == "completed", "not completed")
    wait_until(lambda: other.execute("query-migrate")["status"] == "completed", "the other's end")
    reply = other.execute("query-migrate")
    check(reply["ram"]["remaining"] == 0 and reply["ram"]["dirty-sync-count"] > 1, str(reply))
    check(reply["downtime"] > 0 and reply["total-time"] >= reply["setup-time"], str(reply))


@test
def second_migration_of_one_vm_is_refused(place):
    vm = start(place)
    target, uri = destination(place, vm)
    qmp = vm.qmp()
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 1 << 20})
    qmp.execute("migrate", {"uri": uri})
    try:
        qmp.execute("migrate", {"uri": uri})
        check(False, "a second migration was started")
    except QmpError as e:
        check("under way" in str(e), str(e))
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 0})
    check(follow(qmp)["status"] == "completed", "not completed")
    check(vm.wait() == 0 and target.running(), "not moved")


@test
def destination_that_is_not_there_fails_with_a_sentence(place):
    vm = start(place)
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    reply = migrate(vm, f"tcp:127.0.0.1:{port}")
    check(reply["status"] == "failed" and "refused" in reply["error-desc"], str(reply))
    stays(vm)


def refused(place, vm, words, *args):
    target, uri = destination(place, vm, *args)
    reply = migrate(vm, uri)
    check(reply["status"] == "failed", str(reply))
    for word in ("refuses", *words):
        check(word in reply["error-desc"], str(reply))
    stays(vm, target)


@test
def destination_that_lacks_the_disk_refuses_before_a_page_moves(place):
    disk = place.file("disk", b"\0" * (1 << 20))
    vm = start(place, WORDS, "--disk", disk)
    refused(place, vm, ["disk0", "missing"], "--disk", f"disk0={place.path('missing')}")


def nameless(place):
    """A waiting `godwit receive` without --name, and the URI to reach it."""
    target = place.vm("receive", "--listen", "tcp:127.0.0.1:0", "--same-paths", "--once", keep_name=True, console="unix")
    target.name = f"vm-{target.pid}"
    target.socket_path = place.socket_path(target.name)
    return target, target.errors.wait(r"waiting for a guest on (\S+)\n", godwit.GUARD_S).group(1)


@test
def destination_where_the_name_is_in_use_refuses(place):
    vm = start(place)
    target = place.vm("receive", "--listen", "tcp:127.0.0.1:0", name=vm.name, console="null")
    check(target.wait() == 1 and "is in use by another VM" in target.stderr(), target.stderr())
    target, uri = nameless(place)
    reply = migrate(vm, uri)
    check(reply["status"] == "failed" and "in use" in reply["error-desc"], str(reply))
    stays(vm, target)


@test
def waiting_destination_answers_and_quits(place):
    target, _ = destination(place, None)
    qmp = target.qmp()
    check(qmp.execute("query-status") == {"status": "inmigrate", "singlestep": False, "running": False},
          str(qmp.execute("query-status")))
    check(qmp.execute("query-name") == {"name": target.name}, "another name")
    check(qmp.execute("query-cpus-fast") == [] and qmp.execute("query-migrate") == {}, "before it has a machine")
    qmp.execute("migrate-set-parameters", {"downtime-limit": 77})
    check(qmp.execute("query-migrate-parameters")["downtime-limit"] == 77, "not kept")
    qmp.execute("migrate_cancel")
    for command, arguments in (("system_reset", None), ("system_powerdown", None), ("migrate", {"uri": "tcp:127.0.0.1:1"})):
        try:
            qmp.execute(command, arguments)
            check(False, f"{command} was done")
        except QmpError as error:
            check("has not arrived" in str(error), f"{command}: {error}")
    check(re.search(rf"^{target.name} +inmigrate +{target.pid}$", place.godwit("list").stdout, re.MULTILINE),
          place.godwit("list").stdout)
    check(re.search(r"^status: +inmigrate$", target.cli("status").stdout, re.MULTILINE), "status")
    check(target.cli("quit").returncode == 0 and target.wait() == 0, target.stderr())
    check(any(e["event"] == "SHUTDOWN" for e in qmp.wait_end()), "no SHUTDOWN")


@test
def resume_of_a_waiting_destination_counts_for_the_guest_that_comes(place):
    vm = start(place)
    check(vm.cli("pause").returncode == 0, "pause")
    target, uri = destination(place, vm)
    done = target.cli("resume")
    check(done.returncode == 0 and "will run as soon as its guest is here" in done.stdout, str(done))
    check(migrate(vm, uri)["status"] == "completed", "not completed")
    check(vm.wait() == 0, "the source did not end with 0")
    target.wait_status("running")
    bare.works_on(target)


@test
def waiting_destination_ends_by_a_signal(place):
    target, _ = destination(place, None)
    target.signal(signal.SIGTERM)
    check(target.wait() == 0, target.stderr())


@test
def destination_without_a_name_takes_its_guests(place):
    control = place.path("elsewhere.sock")  # so that the name is free
    vm = place.bare(WORDS, *MEMORY, "--name", "web", "--control", control)
    vm.socket_path = control
    bare.ready(vm)
    target, uri = nameless(place)
    client = target.qmp()
    check(client.execute("query-name") == {"name": target.name}, "it has no name of its own")
    check(migrate(vm, uri)["status"] == "completed", "not completed")
    check(vm.wait() == 0, "the source did not end with 0")
    check(not os.path.exists(target.socket_path), "its first socket is still there")
    target.name, target.socket_path = "web", place.socket_path("web")
    check(target.qmp().execute("query-status")["status"] == "running", "not by its new name")
    check(client.execute("query-name") == {"name": "web"}, "who asked before is cut off")
    bare.works_on(target)


@test
def killed_destination_leaves_the_guest_at_the_source(place):
    vm = start(place)
    target, uri = destination(place, vm)
    qmp = vm.qmp()
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 2 << 20})
    qmp.execute("migrate", {"uri": uri})
    wait_until(lambda: qmp.execute("query-migrate")["ram"]["transferred"] > 1 << 20, "some bytes")
    target.kill()
    reply = follow(qmp)
    check(reply["status"] == "failed" and "closed the connection" in reply["error-desc"], str(reply))
    stays(vm)


@test
def killed_source_ends_the_destination(place):
    vm = start(place)
    target, uri = destination(place, vm)
    qmp = vm.qmp()
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 2 << 20})
    qmp.execute("migrate", {"uri": uri})
    wait_until(lambda: qmp.execute("query-migrate")["ram"]["transferred"] > 1 << 20, "some bytes")
    vm.kill()
    check(target.wait() == 1, f"the destination ended with {target.process.returncode}")
    check("did not arrive" in target.stderr(), target.stderr())


@test
def image_lock_moves_with_the_guest(place):
    disk = place.file("disk", b"\0" * (1 << 20))
    vm = start(place, WORDS, "--disk", disk)

    def third_is_refused():
        done = place.godwit("run", "--kernel", godwit.BARE, "--disk", disk, "--name", "third", *MEMORY)
        check(done.returncode == 1 and "in use" in done.stderr, f"{done.returncode} {done.stderr}")

    target, uri = destination(place, vm)
    qmp = vm.qmp()
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 2 << 20})
    qmp.execute("migrate", {"uri": uri})
    wait_until(lambda: qmp.execute("query-migrate")["ram"]["transferred"] > 1 << 20, "some bytes")
    third_is_refused()
    qmp.execute("migrate_cancel")
    check(follow(qmp)["status"] == "cancelled", "not cancelled")
    stays(vm, target)
    third_is_refused()
    target, uri = destination(place, vm)
    check(migrate(vm, uri, max_bandwidth=0)["status"] == "completed", "not completed")
    check(vm.wait() == 0, "the source did not end with 0")
    third_is_refused()
    bare.works_on(target)


class Proxy:
    """Between source and destination: passes bytes on, and stops after so many from one side."""

    def __init__(self, uri):
        host, port = uri.removeprefix("tcp:").rsplit(":", 1)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.uri = f"tcp:127.0.0.1:{self.server.getsockname()[1]}"
        self.target = (host, int(port))
        self.hold = re.compile(b"$^")
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        self.near, _ = self.server.accept()
        self.far = socket.create_connection(self.target)
        threading.Thread(target=self.pump, args=(self.near, self.far), daemon=True).start()
        self.pump(self.far, self.near)

    def pump(self, a, b):
        while data := a.recv(65536):
            # RUNNING is the destination's last record: type 10, no body, no data.
            if a is self.far and data[:2] == b"\x0a\0":
                return
            b.sendall(data)


@test
def silence_after_go_is_undecided_and_a_person_decides(place):
    vm = start(place)
    target, uri = destination(place, vm)
    proxy = Proxy(uri)
    qmp = vm.qmp()
    qmp.execute("migrate", {"uri": proxy.uri})
    other = target.qmp()
    wait_until(lambda: other.execute("query-status")["status"] == "running", "the target runs")
    check(qmp.execute("query-status")["status"] == "finish-migrate", "the source is not parked")
    target.kill()
    proxy.near.shutdown(socket.SHUT_RDWR)
    reply = follow(qmp)
    check(reply["status"] == "x-godwit-undecided" and reply["x-godwit-undecided"], str(reply))
    check(qmp.execute("query-status")["status"] == "finish-migrate", "the source went on by itself")
    qmp.execute("x-godwit-force-resume")
    bare.works_on(vm)


@test
def guest_that_reboots_while_it_is_moved_goes_on(place):
    vm = start(place)
    target, uri = destination(place, vm)
    qmp = vm.qmp()
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 4 << 20})
    qmp.execute("migrate", {"uri": uri})
    wait_until(lambda: qmp.execute("query-migrate")["ram"]["transferred"] > 1 << 20, "some bytes")
    qmp.execute("system_reset")
    vm.wait_console(r"^bare 1\r?\n")
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 0})
    check(follow(qmp)["status"] == "completed", "not completed")
    check(vm.wait() == 0, "the source did not end with 0")
    bare.works_on(target)
