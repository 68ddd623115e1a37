"""The host's side of disks and network cards; the bare guest has no driver for a card."""
import os
import socket
import struct
import subprocess

import bare
from godwit import Skip, check, need_program, need_root, test
from saving import SMALL, save

ETH_P_RARP = 0x8035


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
