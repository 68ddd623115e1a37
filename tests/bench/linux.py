"""A stock kernel: time to init, disk and network throughput, godwit against QEMU's microvm with the
same virtio-mmio devices. Run where KVM runs kernel-mode code at hardware speed."""
import base64
import hashlib
import os
import re
import subprocess
import sys
import tempfile

from common import MICROVM_ACPI, Run, godwit, median, qemu, row

KERNEL, INITRD, PATTERN = sys.argv[1:4]
RUNS = 3
DISK_MIB = 64
NET_MIB = 48
HOST, GUEST = "10.213.78.1", "10.213.78.2"


def command_line(script, words=""):
    text = base64.b64encode(script.encode()).decode()
    return f"console=ttyS0 panic=-1 quiet {words} godwit.cmd={text}"


def ours(cmdline, disk=None, tap=None):
    extra = ["--initrd", INITRD]
    if disk:
        extra += ["--disk", disk]
    if tap:
        extra += ["--net", f"tap={tap}"]
    return godwit(KERNEL, cmdline, "256M", 1, extra)


def theirs(cmdline, disk=None, tap=None):
    extra = ["-initrd", INITRD]
    if disk:
        extra += ["-drive", f"file={disk},if=none,id=d,format=raw,aio=io_uring,cache=writeback",
                  "-device", "virtio-blk-device,drive=d"]
    if tap:
        extra += ["-netdev", f"tap,id=n,ifname={tap},script=no,downscript=no,vhost=off",
                  "-device", "virtio-net-device,netdev=n"]
    return qemu(KERNEL, cmdline, "256M", 1, ["-global", "virtio-mmio.force-legacy=false", *extra],
                MICROVM_ACPI)


def both(measure):
    a, b = [], []
    for _ in range(RUNS):
        a.append(measure(ours))
        b.append(measure(theirs))
    return median(a), median(b)


def boot_time(machine):
    with Run(machine(command_line("echo init-$((40+2))"))) as vm:
        return vm.until(b"init-42")


def timed(text, name):
    return float(re.search(rf"{name}=([0-9.]+)", text).group(1))


def disk_speed(machine, disk, results):
    """The guest writes random data it can check, reads it back, and the host checks the image."""
    script = (
        f"dd if=/dev/urandom of=/tmp/r bs=1M count=4 2>/dev/null; s=$(sha256sum </tmp/r)\n"
        "t() { cut -d' ' -f1 /proc/uptime; }\n"
        f"a=$(t); i=0; while [ $i -lt {DISK_MIB // 4} ]; do "
        "dd if=/tmp/r of=/dev/vda bs=1M seek=$((i*4)) conv=notrunc oflag=direct 2>/dev/null; "
        "i=$((i+1)); done; sync; b=$(t)\n"
        "dd if=/dev/vda of=/dev/null bs=1M iflag=direct 2>/dev/null; c=$(t)\n"
        "dd if=/dev/vda of=/dev/null bs=4k count=2000 iflag=direct 2>/dev/null; d=$(t)\n"
        "echo sum=${s%% *} wr=$(echo $b $a | awk '{print $1-$2}') "
        "rd=$(echo $c $b | awk '{print $1-$2}') small=$(echo $d $c | awk '{print $1-$2}') end-$((40+2))\n")
    with Run(machine(command_line(script), disk=disk)) as vm:
        vm.until(b"end-42")
        text = vm.text.decode(errors="replace")
    expected = re.search(r"sum=([0-9a-f]{64})", text).group(1)
    with open(disk, "rb") as f:
        for _ in range(DISK_MIB // 4):
            if hashlib.sha256(f.read(4 << 20)).hexdigest() != expected:
                raise SystemExit("the image does not hold what the guest wrote")
    results["write"] = DISK_MIB / timed(text, "wr")
    results["read"] = DISK_MIB / timed(text, "rd")
    results["small"] = 2000 / timed(text, "small")


def net_speed(machine, tap):
    """The guest sends so many MiB by TCP, then receives as many; every byte is checked, afterwards."""
    port = 7010
    mib = f"{NET_MIB}M"
    script = (
        f"t() {{ cut -d' ' -f1 /proc/uptime; }}; P=/programs/pattern\n"
        f"$P put /tmp/sent 41 {mib}; a=$(t); $P put tcp:{HOST}:{port} 41 {mib} from=/tmp/sent; b=$(t)\n"
        f"rm /tmp/sent; c=$(t); $P get tcp:{HOST}:{port + 1} 42 {mib} into=/tmp/got; d=$(t)\n"
        f"$P get /tmp/got 42 {mib} && echo got=right; "
        "echo snd=$(echo $b $a | awk '{print $1-$2}') rcv=$(echo $d $c | awk '{print $1-$2}') end-$((40+2))\n")
    with tempfile.TemporaryDirectory() as directory:
        received, sent = os.path.join(directory, "received"), os.path.join(directory, "sent")
        subprocess.run([PATTERN, "put", sent, "42", mib], check=True)
        here = [subprocess.Popen([PATTERN, "get", f"listen:{port}", "41", mib, f"into={received}"]),
                subprocess.Popen([PATTERN, "put", f"listen:{port + 1}", "42", mib, f"from={sent}"])]
        try:
            with Run(machine(command_line(script, f"godwit.ip={GUEST}/24"), tap=tap)) as vm:
                vm.until(b"end-42")
                text = vm.text.decode(errors="replace")
            if any(p.wait(60) for p in here) or \
                    subprocess.run([PATTERN, "get", received, "41", mib], check=False).returncode:
                raise SystemExit("the host did not receive what the guest sent")
        finally:
            for p in here:
                p.kill()
    if "got=right" not in text:
        raise SystemExit("the guest did not receive what the host sent")
    return NET_MIB / timed(text, "snd"), NET_MIB / timed(text, "rcv")


def bench_boot():
    a, b = both(boot_time)
    row("exec to init", a, b, "s", limit=1)


def bench_disk():
    with tempfile.TemporaryDirectory() as d:
        disk = os.path.join(d, "disk")
        with open(disk, "wb") as f:
            f.truncate(DISK_MIB << 20)
        runs = [({}, {}) for _ in range(RUNS)]
        for mine, other in runs:
            disk_speed(ours, disk, mine)
            disk_speed(theirs, disk, other)
        for key, what, unit in (("write", "disk: 1 MiB writes", "MiB/s"), ("read", "disk: 1 MiB reads", "MiB/s"),
                                ("small", "disk: 4 KiB reads, one at a time", "a sec")):
            row(what, median([m[key] for m, _ in runs]), median([o[key] for _, o in runs]), unit, 1, 1, False)


def bench_net():
    tap = "godwitbench"
    subprocess.run(["ip", "tuntap", "add", tap, "mode", "tap"], check=True)
    try:
        subprocess.run(["ip", "addr", "add", f"{HOST}/24", "dev", tap], check=True)
        subprocess.run(["ip", "link", "set", tap, "up"], check=True)
        nets = [(net_speed(ours, tap), net_speed(theirs, tap)) for _ in range(RUNS)]
    finally:
        subprocess.run(["ip", "link", "delete", tap], check=True)
    for i, what in enumerate(("network: guest sends by TCP", "network: guest receives by TCP")):
        row(what, median([m[i] for m, _ in nets]), median([o[i] for _, o in nets]), "MiB/s", 1, 1, False)


{"boot": bench_boot, "disk": bench_disk, "net": bench_net}[sys.argv[4]]()
