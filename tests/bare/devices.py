"""The host's side of disks and network cards, of which the bare guest knows nothing."""
import errno
import os
import re
import socket
import struct
import subprocess

import bare
from godwit import Skip, check, mount, need_program, need_root, test, unmount, wait_until
from live import destination, follow, migrate, moved
from saving import SMALL, save, save_fails

ETH_P_RARP = 0x8035
MIB = 1 << 20


def tap(place):
    """A tap interface that is up, until the test ends."""
    need_root()
    need_program("ip")
    name = f"gwt{os.getpid()}"
    for words in (("tuntap", "add", name, "mode", "tap"), ("link", "set", name, "up")):
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
        if done.returncode:
            raise Skip(f"ip {' '.join(words)}: {done.stderr.strip()}")
        if words[0] == "tuntap":
            place.on_close.append(lambda: subprocess.run(["ip", "link", "delete", name]))
    return name


def listen_for_rarp(place, interface):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_RARP))
    place.to_close.append(s)
    s.bind((interface, ETH_P_RARP))
    s.setblocking(False)
    return s


def announced(rarp, mac):
    """Waits for the five announcements of that address."""
    rarp.settimeout(10)
    for _ in range(5):
        try:
            frame = rarp.recv(100)
        except TimeoutError:
            check(False, "the network was not told five times where the guest is")
        check(frame[6:12] == mac, f"announced is {frame[6:12].hex(':')}")
        check(struct.unpack("!H", frame[20:22])[0] == 3, "not a RARP request")
    rarp.setblocking(False)


def silent(rarp):
    try:
        rarp.recv(100)
    except BlockingIOError:
        return True
    return False


@test
def restored_guest_is_announced_to_its_network(place):
    interface = tap(place)
    rarp = listen_for_rarp(place, interface)
    vm = place.bare("fill=4", *SMALL, "--net", f"tap={interface},mac=52:54:00:12:34:56")
    bare.ready(vm)
    save(vm, place.path("saved"))
    check(silent(rarp), "a guest that was born here is announced")
    vm = place.restore(place.path("saved"))
    bare.works_on(vm)
    announced(rarp, bytes.fromhex("525400123456"))
    save(vm, place.path("again"))
    # One that waits for `resume` is not there yet.
    vm = place.restore(place.path("again"), "--paused")
    vm.wait_status("paused")
    check(silent(rarp), "a guest that does not run is announced")
    check(vm.cli("resume").returncode == 0, "resume")
    announced(rarp, bytes.fromhex("525400123456"))
    check(vm.cli("pause").returncode == 0 and vm.cli("resume").returncode == 0, "pause, resume")
    bare.works_on(vm)
    check(silent(rarp), "a guest that has only been paused is announced")


def capacity(place, file):
    tree = place.godwit("inspect", file, "--tree").stdout
    disk = tree[tree.index("disk0 {"):]
    high, low = re.search(r"capacity = <(\S+) (\S+)>", disk).groups()
    return int(high, 0) << 32 | int(low, 0)


@test
def image_that_has_grown_is_said_at_save_and_goes_on_when_the_guest_was_told(place):
    image = place.file("disk.raw", b"x" * MIB)
    vm = place.bare("fill=4", *SMALL, "--disk", image)
    bare.ready(vm)
    os.truncate(image, 2 * MIB)
    save_fails(vm, place.path("saved"), "disk0", "has grown", f"from {MIB} to {2 * MIB} bytes",
               "godwit resize VM disk0")
    check(not os.path.exists(place.path("saved")), "a refused save left its file")
    check(vm.cli("resize", "disk0").returncode == 0, "resize")
    # The file is made larger by godwit.
    check(vm.cli("resize", "disk0", "3M").returncode == 0, "resize to 3M")
    check(os.stat(image).st_size == 3 * MIB, f"the image has {os.stat(image).st_size} bytes")
    done = vm.cli("resize", "disk0", "1M")
    check(done.returncode == 1 and "never shrinks" in done.stderr, f"{done.stderr}")
    done = vm.cli("resize", "disk7")
    check(done.returncode == 1 and "no disk 'disk7' (the VM has disk0)" in done.stderr, done.stderr)
    check(vm.cli("reset").returncode == 0, "reset")
    bare.ready(vm)
    save(vm, place.path("saved"))
    check(capacity(place, place.path("saved")) == 3 * MIB // 512, "the file does not say the new size")
    vm = place.restore(place.path("saved"))
    bare.works_on(vm)
    check(vm.cli("resize", "disk0", "4M").returncode == 0, "resize of a restored one")
    save(vm, place.path("again"))
    check(capacity(place, place.path("again")) == 4 * MIB // 512, "the second file does not")


@test
def machine_that_has_grown_is_moved_and_does_not_grow_meanwhile(place):
    image = place.file("disk.raw", b"x" * MIB)
    source = place.bare("fill=24 write=4", "--memory", "64M", "--disk", image)
    bare.ready(source)
    check(source.cli("resize", "disk0", "2M").returncode == 0, "resize")
    target, uri = destination(place, source, "--disk", f"disk0={image}")
    before = bare.progress(source)
    with source.qmp() as qmp:
        qmp.execute("migrate-set-parameters", {"max-bandwidth": 4 * MIB})
        qmp.execute("migrate", {"uri": uri})
        wait_until(lambda: qmp.execute("query-migrate")["status"] == "active", "its beginning")
        done = source.cli("resize", "disk0", "3M")
        check(done.returncode == 1 and "under way" in done.stderr, f"{done.returncode} {done.stderr}")
        qmp.execute("migrate-set-parameters", {"max-bandwidth": 0})
        follow(qmp)
    moved(source, target, before)
    check(target.cli("resize", "disk0", "3M").returncode == 0, "resize where it is now")
    save(target, place.path("saved"))
    check(capacity(place, place.path("saved")) == 3 * MIB // 512, "the size is not the one that was told")


def write(vm):
    vm.send("D")


def written(vm, sector):
    found = bare.line(vm, "written")
    check(found == {"sector": sector, "status": 0}, f"the write of sector {sector}: {found}")


def full_disk(place):
    """An image of 1 MiB on a file system of 64 KiB, and what makes room there."""
    need_root()
    small = place.path("small")
    os.mkdir(small)
    mount("tmpfs", small, "tmpfs", "size=64k")
    place.on_close.append(lambda: unmount(small))
    image = os.path.join(small, "disk.raw")
    with open(image, "wb") as f:
        f.truncate(MIB)
    ballast = os.path.join(small, "ballast")
    with open(ballast, "wb") as f:
        try:
            while True:
                os.write(f.fileno(), bytes(4096))
        except OSError:
            pass
    return image, lambda: os.unlink(ballast)


@test
def guest_whose_disk_has_no_room_is_stopped_until_it_is_resumed(place):
    image, make_room = full_disk(place)
    vm = place.bare("fill=4", *SMALL, "--disk", image)
    bare.ready(vm)
    qmp = vm.qmp()
    write(vm)
    event = qmp.wait_event("BLOCK_IO_ERROR")["data"]
    check(event == {"device": "disk0", "operation": "write", "action": "stop", "nospace": True,
                    "reason": os.strerror(errno.ENOSPC)}, f"{event}")
    qmp.wait_event("STOP")
    check(qmp.execute("query-status") == {"status": "io-error", "singlestep": False, "running": False},
          "not io-error")
    check("is stopped until `godwit resume`" in vm.stderr(), vm.stderr())
    # Too early: it is stopped again.
    qmp.execute("cont")
    qmp.wait_event("BLOCK_IO_ERROR")
    vm.wait_status("io-error")
    # What waits survives a save and a restore, to where there is still no room.
    save(vm, place.path("saved"))
    vm = place.restore(place.path("saved"))
    vm.wait_status("paused")
    check(vm.cli("resume").returncode in (0, 1), "resume")
    vm.wait_status("io-error")
    make_room()
    check(vm.cli("resume").returncode == 0, "resume when there is room")
    written(vm, 0)
    write(vm)
    written(vm, 1)
    bare.works_on(vm)
    with open(image, "rb") as f:
        check(f.read(1024) == b"\x40" * 512 + b"\x41" * 512, "the image has not what was written")


@test
def guest_sees_that_its_disk_has_grown(place):
    image = place.file("disk.raw", b"x" * MIB)
    vm = place.bare("fill=4", *SMALL, "--disk", image)
    bare.ready(vm)
    vm.send("d")
    check(bare.line(vm, "disk")["sectors"] == MIB // 512, "the size at first")
    check(vm.cli("resize", "disk0", "5M").returncode == 0, "resize")
    vm.send("d")
    check(bare.line(vm, "disk")["sectors"] == 5 * MIB // 512, "the size after it was told")
    write(vm)
    written(vm, 0)
    check(vm.cli("reset").returncode == 0, "reset")
    bare.ready(vm)
    vm.send("d")
    check(bare.line(vm, "disk")["sectors"] == 5 * MIB // 512, "the size after a reset")


@test
def guest_that_waits_for_room_is_moved_and_loses_nothing(place):
    image, make_room = full_disk(place)
    source = place.bare("fill=4", *SMALL, "--disk", image)
    bare.ready(source)
    write(source)
    source.wait_status("io-error")
    target, uri = destination(place, source, "--disk", f"disk0={image}")
    reply = migrate(source, uri)
    check(reply["status"] == "completed", f"{reply}")
    check(source.wait() == 0, f"the source ended with {source.process.returncode}")
    target.wait_status("paused")
    make_room()
    check(target.cli("resume").returncode == 0, "resume")
    written(target, 0)
    bare.works_on(target)
    with open(image, "rb") as f:
        check(f.read(512) == b"\x40" * 512, "the image has not what was written")
