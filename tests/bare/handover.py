"""What a migration hands over beside memory: disks' locks; and guests that end or reboot meanwhile."""
import fcntl
import os
import struct
import subprocess

import bare
import godwit
from godwit import QmpError, check, test, wait_until
from live import MEMORY, WORDS, destination, follow, migrate, start, stays

# The two halves of an image's lock (devices/backend/disk.h).
KEEP, RESERVE = (0, 200), (200, 0)


def is_held(image, half):
    """Whether somebody has that half locked for writing."""
    fd = os.open(image, os.O_RDWR)
    try:
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, *half, 0)
        return struct.unpack("hhqqi4x", fcntl.fcntl(fd, 36, lock))[0] != fcntl.F_UNLCK  # F_OFD_GETLK
    finally:
        os.close(fd)


def held(image):
    return is_held(image, KEEP), is_held(image, RESERVE)


def third_is_refused(place, disk):
    for suffix in ("", ",readonly"):
        done = place.godwit("run", "--kernel", godwit.BARE, "--disk", disk + suffix, "--name", "third",
                            "--console", "null", *MEMORY)
        check(done.returncode == 1 and "(locked)" in done.stderr, f"{done.returncode} {done.stderr}")


def slow(vm, uri, rate=2 << 20):
    """Starts a migration and waits until it is well under way."""
    qmp = vm.qmp()
    qmp.execute("migrate-set-parameters", {"max-bandwidth": rate})
    qmp.execute("migrate", {"uri": uri})
    wait_until(lambda: qmp.execute("query-migrate")["ram"]["transferred"] > 1 << 20, "some bytes")
    return qmp


def image(place, name="disk"):
    return place.file(name, b"\0" * (1 << 20))


@test
def image_lock_goes_over_in_halves(place):
    disk = image(place)
    vm = start(place, WORDS, "--disk", disk)
    target, uri = destination(place, vm)
    qmp = slow(vm, uri)
    third_is_refused(place, disk)
    # The source has one half, the destination the other: either keeps third ones out alone.
    vm.signal(19)
    target.signal(19)
    check(held(disk) == (True, True), f"{held(disk)}")
    target.signal(18)
    vm.signal(18)
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 0})
    check(follow(qmp)["status"] == "completed", "not completed")
    third_is_refused(place, disk)
    check(vm.wait() == 0, "the source did not end with 0")
    check(held(disk) == (True, True), f"{held(disk)}")
    third_is_refused(place, disk)
    bare.works_on(target)
    target.kill()
    check(held(disk) == (False, False), f"{held(disk)}")


@test
def image_lock_comes_back_whole_after_a_failure(place):
    disk = image(place)
    vm = start(place, WORDS, "--disk", disk)
    for how in ("cancel", "kill"):
        target, uri = destination(place, vm)
        qmp = slow(vm, uri)
        if how == "cancel":
            qmp.execute("migrate_cancel")
        else:
            target.kill()
        check(follow(qmp)["status"] in ("cancelled", "failed"), "it went on")
        check(is_held(disk, KEEP), "the source has let go of its lock")
        third_is_refused(place, disk)
        target.wait()
        wait_until(lambda: is_held(disk, RESERVE), "the other half", 5)
        third_is_refused(place, disk)
        stays(vm)
    vm.kill()
    check(held(disk) == (False, False), f"{held(disk)}")


@test
def second_destination_for_one_image_is_refused(place):
    """Two guests that are moved to one image, by mistake."""
    disk, other = image(place), image(place, "other")
    vm = start(place, WORDS, "--disk", disk)
    target, uri = destination(place, vm)
    qmp = slow(vm, uri)
    stray = start(place, WORDS, "--disk", other)
    wrong, wrong_uri = destination(place, stray, "--disk", f"disk0={disk}")
    reply = migrate(stray, wrong_uri)
    check(reply["status"] == "failed" and "(locked)" in reply["error-desc"], str(reply))
    stays(stray, wrong)
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 0})
    check(follow(qmp)["status"] == "completed", "not completed")
    check(vm.wait() == 0, "the source did not end with 0")
    bare.works_on(target)


def keeps_its_locks_here(place):
    """Whether the test's directory is on a file system that no other host can mount (devices/backend/disk.c)."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", place.dir], capture_output=True, text=True).stdout.strip()
    return kind in ("ext2/ext3", "xfs", "btrfs", "tmpfs")


@test
def guest_moves_to_a_copy_of_its_image(place):
    disk, copy = image(place), image(place, "copy")
    vm = start(place, WORDS, "--disk", disk)
    # One that was not asked for, be it by a slip of the path, is an old state of the disk.
    if keeps_its_locks_here(place):
        target, uri = destination(place, vm, "--disk", f"disk0={copy}")
        reply = migrate(vm, uri)
        check(reply["status"] == "failed" and f"{copy} is not the image that the guest has open" in reply["error-desc"]
              and "disk0=PATH,copy" in reply["error-desc"], str(reply))
        stays(vm, target)
    target, uri = destination(place, vm, "--disk", f"disk0={copy},copy")
    qmp = slow(vm, uri)
    check(is_held(disk, KEEP) and is_held(copy, RESERVE), "locks")
    third_is_refused(place, disk)
    third_is_refused(place, copy)
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 0})
    check(follow(qmp)["status"] == "completed", "not completed")
    check(held(copy) == (True, True), f"{held(copy)}")
    check(vm.wait() == 0, "the source did not end with 0")
    check(held(disk) == (False, False), f"{held(disk)}")
    bare.works_on(target)


@test
def readonly_image_is_read_at_both_ends(place):
    disk = image(place)
    vm = start(place, WORDS, "--disk", disk + ",readonly")
    target, uri = destination(place, vm)
    check(migrate(vm, uri)["status"] == "completed", "not completed")
    check(vm.wait() == 0, "the source did not end with 0")
    done = place.godwit("run", "--kernel", godwit.BARE, "--disk", disk, "--name", "third", *MEMORY)
    check(done.returncode == 1 and "in use" in done.stderr, done.stderr)
    bare.works_on(target)


@test
def image_that_someone_else_writes_stops_a_guest_from_arriving(place):
    disk, copy = image(place), image(place, "copy")
    vm = start(place, WORDS, "--disk", disk)
    owner = start(place, WORDS, "--disk", copy)
    target, uri = destination(place, vm, "--disk", f"disk0={copy}")
    reply = migrate(vm, uri)
    check(reply["status"] == "failed" and "in use by another process" in reply["error-desc"], str(reply))
    stays(vm, target)
    check(held(disk) == (True, True), f"{held(disk)}")
    stays(owner)


@test
def guest_that_powers_off_while_it_is_moved_ends_everywhere(place):
    for channels in (1, 2):
        vm = start(place)
        target, uri = destination(place, vm)
        if channels > 1:
            vm.qmp().execute("migrate-set-capabilities",
                             {"capabilities": [{"capability": "multifd", "state": True}]})
        qmp = slow(vm, uri)
        vm.send("q")
        check(vm.wait() == 0, f"the source ended with {vm.process.returncode}: {vm.stderr()}")
        events = [(e["event"], e.get("data", {}).get("status")) for e in qmp.wait_end() if "event" in e]
        check(("SHUTDOWN", None) in events and ("MIGRATION", "failed") in events, str(events))
        check(target.wait() == 1, f"the destination ended with {target.process.returncode}")
        # Said if the connection was between two records; else it only sees that it was closed.
        check("did not arrive" in target.stderr(), target.stderr())


@test
def guest_that_asks_twice_is_reset_once(place):
    """It writes ACPI's reset register and at once makes a triple fault as well."""
    vm = start(place, "fill=1 cpus=2", "--cpus", 2)
    for _ in range(60):
        vm.send("r")
        vm.wait_console(r"^bare 1\r?\n")
        bare.line(vm, "ready")


@test
def guest_that_reboots_itself_while_it_is_moved_goes_on(place):
    vm = start(place, "fill=24 zero=4 write=16 cpus=2", "--cpus", 2)
    target, uri = destination(place, vm)
    qmp = slow(vm, uri, 1 << 20)  # it must not arrive before
    for _ in range(3):
        vm.send("r")
        vm.wait_console(r"^bare 1\r?\n")
    bare.line(vm, "ready")
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 0})
    check(follow(qmp)["status"] == "completed", "not completed")
    check(vm.wait() == 0, "the source did not end with 0")
    bare.works_on(target)


@test
def guest_that_reboots_all_the_time_is_moved_whole(place):
    """Resets that fall into the parking are carried out, at one end or the other."""
    for _ in range(5):
        vm = start(place, "fill=1")
        target, uri = destination(place, vm)
        vm.send("r" * 3)
        check(migrate(vm, uri)["status"] == "completed", "not completed")
        check(vm.wait() == 0, f"the source ended with {vm.process.returncode}: {vm.stderr()}")
        bare.works_on(target)


@test
def pause_of_a_guest_that_is_on_its_way_counts_when_it_is_here(place):
    vm = start(place)
    target, uri = destination(place, vm)
    qmp = slow(vm, uri)
    check(target.cli("pause").returncode == 0, "pause")
    check(qmp.execute("query-status")["status"] == "running", "it does not run on meanwhile")
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 0})
    check(follow(qmp)["status"] == "completed", "not completed")
    check(vm.wait() == 0, "the source did not end with 0")
    target.wait_status("paused")
    check(target.cli("resume").returncode == 0, "resume")
    bare.works_on(target)


@test
def nothing_can_be_done_to_a_guest_that_has_not_arrived(place):
    vm = start(place)
    target, uri = destination(place, vm)
    qmp = slow(vm, uri)
    for verb in ("system_reset", "system_powerdown"):
        try:
            target.qmp().execute(verb)
            check(False, f"{verb} was taken")
        except QmpError as e:
            check("not arrived" in str(e), str(e))
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 0})
    check(follow(qmp)["status"] == "completed", "not completed")
    check(vm.wait() == 0, "the source did not end with 0")
    bare.works_on(target)
