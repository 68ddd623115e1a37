"""Disks and taps that cannot be used."""
import fcntl
import os
import struct
import subprocess

import godwit
from godwit import Skip, check, test
from refusal import bare, need_kvm, refused

SECTOR = 512


def disk(place, name="disk", size=1 << 20):
    return place.file(name, bytes(size))


@test
def disk_missing_is_refused(place):
    need_kvm()
    refused(place, 1, ["disk0", place.path("none"), "No such file"],
            *bare("--disk", place.path("none")))
    check(not os.path.exists(place.path("none")), "the disk has been made")


@test
def disk_that_is_a_directory_is_refused(place):
    need_kvm()
    refused(place, 1, ["disk0", "is a directory"], *bare("--disk", place.dir))
    refused(place, 1, ["disk0", "is a directory"], *bare("--disk", f"{place.dir},readonly"))


@test
def disk_that_is_no_disk_is_refused_and_not_waited_for(place):
    need_kvm()
    os.mkfifo(place.path("fifo"))
    refused(place, 1, "neither a file nor a block device", *bare("--disk", place.path("fifo")))
    refused(place, 1, "neither a file nor a block device", *bare("--disk", "/dev/zero"))


@test
def disk_of_a_size_that_no_disk_has_is_refused(place):
    need_kvm()
    refused(place, 1, ["disk0", "1000 bytes", "multiple of 512"],
            *bare("--disk", disk(place, size=1000)))
    refused(place, 1, ["disk0", "is empty"], *bare("--disk", disk(place, "empty", 0)))


@test
def disk_locked_by_another_vm_is_refused(place):
    need_kvm()
    path = disk(place)
    vm = place.bare("", "--memory", "32M", "--disk", path)
    vm.wait_console("^ready")
    for option in (path, f"{path},readonly"):
        second = place.godwit(*bare("--disk", option))
        check(second.returncode == 1 and second.stderr.count("\n") == 1 and
              f"disk0: {path} is " in second.stderr and "(locked)" in second.stderr, f"{second}")
    check(vm.cli("quit").returncode == 0 and vm.wait() == 0, "quit")
    again = place.bare("", "--memory", "32M", "--disk", path)
    again.wait_console("^ready")


@test
def disk_read_by_another_vm_can_be_read_but_not_written(place):
    need_kvm()
    path = disk(place)
    for _ in range(2):
        vm = place.bare("", "--memory", "32M", "--disk", f"{path},readonly")
        vm.wait_console("^ready")
    second = place.godwit(*bare("--disk", path))
    check(second.returncode == 1 and "(locked)" in second.stderr, f"{second}")


@test
def disk_locked_by_another_program_is_refused(place):
    need_kvm()
    path = disk(place)
    with open(path, "r+b") as f:
        # F_OFD_SETLK of the whole file, as QEMU and others do it
        fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        refused(place, 1, ["disk0", path, "locked"], *bare("--disk", path))


@test
def image_given_twice_is_refused(place):
    need_kvm()
    path = disk(place)
    refused(place, 1, [path, "already another disk of this VM"],
            *bare("--disk", path, "--disk", path))


@test
def too_many_disks_are_refused(place):
    args = []
    for i in range(40):
        args += ["--disk", disk(place, f"disk{i}", SECTOR) + ",readonly"]
    refused(place, 2, "more than 16 disks", *bare(*args))
    nets = [word for i in range(3) for word in ("--net", f"tap=gwtnone{i}")]
    refused(place, 1, "more than 18 virtio devices", *bare(*args[:2 * 16], *nets))


# -- taps --

def tap(place, name, *options, mode="tap"):
    godwit.need_root()
    godwit.need_program("ip")
    name = f"gwt{name}{os.getpid() % 100000}"
    made = subprocess.run(["ip", "tuntap", "add", name, "mode", mode, *options],
                          capture_output=True, text=True)
    if made.returncode:
        raise Skip(f"no {mode} interface can be made here: {made.stderr.strip()}")
    place.on_close.append(
        lambda: subprocess.run(["ip", "tuntap", "del", name, "mode", mode, *options[2:]]))
    return name


@test
def tap_missing_is_refused_and_not_made(place):
    need_kvm()
    refused(place, 1, ["net0", "'gwtnone' does not exist", "ip tuntap add"],
            *bare("--net", "tap=gwtnone"))
    check(not os.path.exists("/sys/class/net/gwtnone"), "the interface has been made")


@test
def tap_in_use_is_refused(place):
    need_kvm()
    name = tap(place, "u")
    vm = place.bare("", "--memory", "32M", "--net", f"tap={name}")
    vm.wait_console("^ready")
    second = place.godwit(*bare("--net", f"tap={name}"))
    check(second.returncode == 1 and second.stderr.count("\n") == 1 and
          f"'{name}' is in use" in second.stderr, f"{second}")
    check(vm.cli("quit").returncode == 0 and vm.wait() == 0, "quit")
    check(os.path.exists(f"/sys/class/net/{name}"), "the tap went away with the VM")
    place.bare("", "--memory", "32M", "--net", f"tap={name}").wait_console("^ready")


@test
def interface_that_is_no_tap_is_refused(place):
    need_kvm()
    refused(place, 1, ["'lo'", "not a tap"], *bare("--net", "tap=lo"))
    name = tap(place, "t", mode="tun")
    refused(place, 1, [f"'{name}'", "not a tap"], *bare("--net", f"tap={name}"))
