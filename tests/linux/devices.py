"""What a Linux guest does with its devices, before it is saved: disks, network, channel, entropy, serial."""
import os
import shutil
import socket
import subprocess

import godwit
from godwit import Skip, check, wait_until
from guest import Background, CHANNEL, GUARD_S, IN_TESTBED, MIB, PATTERN, PORT, pattern, promise, run

DISK_MIB = 128  # of vda; what lies where, in MiB:
DIRECT, CACHED, PREPARED, PUNCHED, CHURNED, CHURNED_CACHED = 0, 16, 32, 48, 64, 96
SMALL_MIB = 8  # of the host's file system that is too small for vdc, at first


def _image(guest, name, mib):
    path = guest.place.path(name)
    with open(path, "wb") as f:
        f.truncate(mib * MIB)
    guest.disks[name] = path
    return path


def disks(guest):
    """vda: what is written to; vdb: read-only; vdc: on a host's disk that is too small at first; vdd: a loop device;
    the last one: a file system."""
    main, fixed = _image(guest, "main", DISK_MIB), _image(guest, "fixed", 4)
    pattern("put", main, 3, "8M", f"at={PREPARED}M")
    pattern("put", fixed, 4, "4M")
    words = ["--disk", f"{main},serial=GODWIT-0001", "--disk", f"{fixed},readonly"]
    small = guest.place.path("small-host")
    os.mkdir(small)
    try:
        godwit.mount("godwit-test", small, "tmpfs", f"size={SMALL_MIB}M")
        guest.place.on_close.append(lambda: godwit.unmount(small))
        words += ["--disk", f"{_image(guest, 'small-host/image', 64)},id=small"]
    except Skip as why:
        guest.disks["why-no-small"] = str(why)
        return words + _files(guest)
    run("modprobe", "loop")
    done = run("losetup", "--show", "-f", _image(guest, "looped", 16))
    if done.returncode:
        guest.disks["why-no-loop"] = f"no loop device: {done.stderr.strip()}"
        return words + _files(guest)
    device = done.stdout.strip()
    guest.place.on_close.append(lambda: run("losetup", "-d", device))
    return words + ["--disk", f"{device},id=looped"] + _files(guest)


def _files(guest):
    """A disk with a file system that the host made."""
    if not shutil.which("mkfs.ext4") or not shutil.which("debugfs"):
        guest.disks["why-no-file-system"] = "mkfs.ext4 or debugfs is not installed"
        return []
    path = _image(guest, "files", 32)
    done = run("mkfs.ext4", "-q", path)
    check(done.returncode == 0, f"mkfs.ext4: {done.stderr}")
    return ["--disk", f"{path},serial=FILES"]


def _by_serial(guest, serial):
    return guest.sh(f"for d in /sys/block/vd*; do [ \"$(cat $d/serial)\" = {serial} ] && "
                    "echo /dev/${d##*/}; done | grep .")


def _need(guest, disk):
    if f"why-no-{disk}" in guest.disks:
        raise Skip(guest.disks[f"why-no-{disk}"])


def _blocks_bytes(path):
    return os.stat(path).st_blocks * 512


def disk_tests():
    @promise("two")
    def disk_has_its_size_and_serial_number(g):
        check(g.sh("cat /sys/block/vda/serial") == "GODWIT-0001", "another serial number")
        sectors = int(g.sh("cat /sys/block/vda/size"))
        check(sectors == DISK_MIB * MIB // 512, f"{sectors} sectors")

    @promise("two")
    def disk_shows_what_the_host_put_into_the_image(g):
        g.sh(f"pattern get /dev/vda 3 8M at={PREPARED}M")

    @promise("two")
    def disk_written_past_the_cache_reads_back_in_guest_and_host(g):
        g.sh(f"pattern put /dev/vda 1 16M at={DIRECT}M block=256K direct sync")
        g.sh(f"pattern get /dev/vda 1 16M at={DIRECT}M direct")
        pattern("get", g.disks["main"], 1, "16M", f"at={DIRECT}M")

    @promise("two")
    def disk_written_through_the_page_cache_reads_back_in_guest_and_host(g):
        g.sh(f"pattern put /dev/vda 2 16M at={CACHED}M sync; echo 3 >/proc/sys/vm/drop_caches; "
             f"pattern get /dev/vda 2 16M at={CACHED}M block=12K")
        pattern("get", g.disks["main"], 2, "16M", f"at={CACHED}M")

    @promise("two")
    def discard_gives_blocks_back_to_the_host(g):
        at, image = PUNCHED, g.disks["main"]
        g.sh(f"pattern put /dev/vda 5 16M at={at}M direct sync")
        before = _blocks_bytes(image)
        g.sh(f"blkdiscard -o $(({at + 4} << 20)) -l $((8 << 20)) /dev/vda; sync")
        freed = before - _blocks_bytes(image)
        check(freed >= 8 * MIB, f"{freed} bytes were given back, of {8 * MIB} discarded")
        pattern("get", image, 5, "4M", f"at={at}M")
        pattern("get", image, 5, "4M", f"at={at + 12}M")

    @promise("two")
    def written_zeroes_read_as_zero_and_touch_nothing_else(g):
        at, image = PUNCHED, g.disks["main"]
        check(int(g.sh("cat /sys/block/vda/queue/write_zeroes_max_bytes")) > 0,
              "the guest does not know of write-zeroes")
        g.sh(f"pattern put /dev/vda 6 16M at={at}M direct sync")
        g.sh(f"pattern zero /dev/vda 8M at={at + 4}M; echo 3 >/proc/sys/vm/drop_caches; "
             f"dd if=/dev/vda bs=1M skip={at + 4} count=8 2>/dev/null | cmp -n $((8 << 20)) - /dev/zero")
        with open(image, "rb") as f:
            f.seek((at + 4) * MIB)
            check(not any(f.read(8 * MIB)), "the host sees other bytes than zeroes")
        pattern("get", image, 6, "4M", f"at={at}M")
        pattern("get", image, 6, "4M", f"at={at + 12}M")

    @promise("two")
    def read_only_disk_is_read_and_refuses_writes(g):
        check(g.sh("cat /sys/block/vdb/ro") == "1", "the guest thinks it can write")
        g.sh("pattern get /dev/vdb 4 4M")
        status, _ = g.try_sh("pattern put /dev/vdb 9 1M direct")
        check(status != 0, "a write to a read-only disk went well")
        pattern("get", g.disks["fixed"], 4, "4M")

    @promise("two")
    def block_device_serves_as_disk(g):
        _need(g, "small")
        _need(g, "loop")
        g.sh("pattern put /dev/vdd 7 16M direct sync; pattern get /dev/vdd 7 16M direct")
        pattern("get", g.disks["looped"], 7, "16M")

    @promise("two")
    def full_disk_of_the_host_stops_the_guest_until_there_is_room(g):
        _need(g, "small")
        image = g.disks["small-host/image"]
        with g.vm.qmp() as qmp:
            # Not before the shell has answered.
            g.sh("rm -f /tmp/put; (sleep 2; pattern put /dev/vdc 8 32M block=64K direct sync; echo $? >/tmp/put) "
                 ">/tmp/said 2>&1 & true")
            data = qmp.wait_event("BLOCK_IO_ERROR", device="small")["data"]
            check(data["action"] == "stop" and data["nospace"] is True, f"{data}")
            qmp.wait_event("STOP")
        g.vm.wait_status("io-error")
        done = run("mount", "-o", "remount,size=64M", os.path.dirname(image))
        check(done.returncode == 0, f"mount: {done.stderr}")
        check(g.vm.cli("resume").returncode == 0, "resume")
        g.sh("until [ -s /tmp/put ]; do sleep 0.2; done; cat /tmp/said; [ $(cat /tmp/put) = 0 ]")
        g.check_log()
        g.sh("pattern get /dev/vdc 8 32M direct")
        pattern("get", image, 8, "32M")

    @promise("two")
    def disk_that_grows_is_seen_at_once(g):
        _need(g, "small")
        sectors = 96 * MIB // 512
        done = g.vm.cli("resize", "small", "96M")
        check(done.returncode == 0, f"resize: {done.stderr}")
        g.sh(f"until [ $(cat /sys/block/vdc/size) = {sectors} ]; do sleep 0.2; done; "
             "pattern put /dev/vdc 9 1M at=95M direct sync")
        pattern("get", g.disks["small-host/image"], 9, "1M", "at=95M")

    @promise("two")
    def file_system_made_by_the_host_is_mounted_and_written(g):
        _need(g, "file-system")
        device = _by_serial(g, "FILES")
        g.sh(f"mkdir -p /mnt; mount -t ext4 {device} /mnt; pattern put /mnt/before 9 4M sync")


def after_restore_tests(stage):
    """Promises about what was begun before guest two was saved."""
    @promise("two", stage)
    def file_system_stays_mounted_and_is_whole_for_the_host_after_restore(g):
        _need(g, "file-system")
        if "/mnt" not in g.sh("cat /proc/mounts"):
            device = _by_serial(g, "FILES")
            raise Skip(f"{device} was not mounted before")
        g.sh("pattern get /mnt/before 9 4M; pattern put /mnt/after 10 4M; umount /mnt")
        image = g.disks["files"]
        done = run("e2fsck", "-fn", image)
        check(done.returncode == 0, f"e2fsck: {done.stdout}{done.stderr}")
        for name, seed in (("before", 9), ("after", 10)):
            path = g.place.path(name)
            run("debugfs", "-R", f"dump {name} {path}", image)
            pattern("get", path, seed, "4M")


def network_tests():
    @promise("two")
    def network_card_has_the_mac_address_that_was_given(g):
        g.need_network()
        check(g.sh("cat /sys/class/net/eth0/address") == g.mac, "another MAC address")
        check(g.sh("cat /sys/class/net/eth0/mtu") == "1500", "another MTU")

    @promise("two")
    def guest_pings_the_host(g):
        g.need_network()
        for size in (56, 1472, 20000):
            g.sh(f"ping -c 1 -W 30 -s {size} {g.host_address}")

    @promise("two")
    def tcp_from_guest_to_host_loses_nothing_and_uses_segmentation_offload(g):
        g.need_network()
        before = _counters(g, "rx")
        with Background("get", "listen:7001", 11, "48M") as host:
            g.sh(f"pattern put tcp:{g.host_address}:7001 11 48M")
            host.end()
        _check_segments(before, _counters(g, "rx"), "from the guest")

    @promise("two")
    def tcp_from_host_to_guest_loses_nothing_and_uses_segmentation_offload(g):
        g.need_network()
        before = _counters(g, "tx")
        with Background("put", f"tcp:{g.address}:7002", 12, "48M") as host:
            g.sh("pattern get listen:7002 12 48M")
            host.end()
        _check_segments(before, _counters(g, "tx"), "to the guest")

    @promise("two")
    def tcp_by_sendfile_from_the_guest_loses_nothing(g):
        g.need_network()
        with Background("get", "listen:7003", 13, "8M") as host:
            g.sh("pattern put /tmp/file 13 8M; "
                 f"pattern put tcp:{g.host_address}:7003 13 8M from=/tmp/file; rm /tmp/file")
            host.end()


def _counters(g, direction):
    def read(name):
        with open(f"/sys/class/net/{g.tap}/statistics/{direction}_{name}") as f:
            return int(f.read())
    return read("bytes"), read("packets")


def _check_segments(before, after, which):
    """Without offloads no packet is larger than 1514 bytes; with them most are."""
    bytes_, packets = after[0] - before[0], after[1] - before[1]
    check(bytes_ >= 48 * MIB and bytes_ > 3000 * packets,
          f"{packets} packets {which} hold {bytes_} bytes: they were cut on the way")


def channel_tests():
    @promise("two")
    def channel_carries_bytes_both_ways(g):
        socket = f"unix:{g.channel_path}"
        with Background("get", socket, 21, "4M") as host:
            g.sh(f"pattern put {PORT} 21 4M")
            host.end()
        with Background("put", socket, 22, "4M") as host:
            g.sh(f"pattern get {PORT} 22 4M")
            host.end()

    @promise("two")
    def channel_tells_the_guest_when_the_host_comes_and_goes(g):
        def connected():
            return g.sh(f"grep -l '^name: {CHANNEL}' /sys/kernel/debug/virtio-ports/* | "
                        "xargs grep host_connected | grep -o '[01]$'")
        for _ in range(2):
            wait_until(lambda: connected() == "0", "the guest sees that nobody is there", GUARD_S)
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.connect(g.channel_path)
            wait_until(lambda: connected() == "1", "the guest sees that somebody came", GUARD_S)
            client.close()


def other_tests():
    @promise("two")
    def guest_gets_entropy(g):
        check(g.sh("cat /sys/class/misc/hw_random/rng_current").startswith("virtio_rng"),
              "another source of random numbers")
        taken = [g.sh("dd if=/dev/hwrng bs=64 count=1 2>/dev/null | od -An -tx1 | tr -d ' \\n'")
                 for _ in range(2)]
        check(all(len(t) == 128 for t in taken), f"not 64 bytes: {taken}")
        check(taken[0] != taken[1] and len(set(taken[0])) > 4, f"not random: {taken}")

    @promise("two")
    def serial_port_loses_nothing_on_its_way_out(g):
        n = (6 if IN_TESTBED else 96) << 10
        said = g.sh(f"pattern put - 31 {n}; echo; echo end").removesuffix("\nend")
        done = subprocess.run([PATTERN, "get", "-", "31", str(n)], capture_output=True,
                              input=said.encode("latin-1"), timeout=GUARD_S)
        check(len(said) == n and done.returncode == 0,
              f"{len(said)} bytes of {n}: {done.stderr.decode()}")

    @promise("two")
    def serial_port_loses_nothing_on_its_way_in(g):
        n = (1 if IN_TESTBED else 48) << 10
        done = subprocess.run([PATTERN, "put", "-", "32", str(n)], capture_output=True,
                              timeout=GUARD_S)
        g.sh(f"echo @send; pattern get - 32 {n}", send=done.stdout.decode("latin-1"))


def tests():
    disk_tests()
    network_tests()
    channel_tests()
    other_tests()
