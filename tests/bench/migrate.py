"""Live migration of the bare guest over loopback, godwit against QEMU: time, data rate, CPU, pause."""
import json
import mmap
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

from common import BARE, MICROVM, QEMU, GODWIT, median, row

MIB = 1 << 20
RUNS = int(os.environ.get("GODWIT_BENCH_RUNS", "5"))


with open("/proc/cpuinfo") as cpuinfo:
    TSC_KHZ = float(re.search(r"cpu MHz\s*: ([\d.]+)", cpuinfo.read()).group(1)) * 1000


def touched(mib):
    """So much private memory, each page of it touched."""
    m = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    m.madvise(mmap.MADV_HUGEPAGE)
    for at in range(0, mib * MIB, 4096):
        m[at] = 1
    return m


def warm(mib):
    """Memory that this machine has not touched since it booted is dear: touch so much, and free it."""
    touched(mib).close()


class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        self.events = []
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            reply = json.loads(self.file.readline())
            if "error" in reply:
                raise SystemExit(f"{command}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]
            self.events.append(reply)


class Vm:
    """One end of a migration: a process, its console as a unix socket, its QMP."""

    def __init__(self, directory, role, command, qmp, console):
        self.directory, self.role = directory, role
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE,
                                        env={**os.environ, "GODWIT_RUNTIME_DIR": directory})
        self.console_path, self.qmp_path = console, qmp
        self.text, self.console = "", None

    def open_console(self):
        self.console = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.console.connect(self.console_path)
                break
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise SystemExit(f"{self.role}: {self.process.stderr.read().decode()}")
                time.sleep(0.005)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while data := self.console.recv(65536):
            self.text += data.decode(errors="replace")

    def until(self, pattern, ask=None):
        """Until the console shows it; `ask` is sent now and then: a byte too early is lost."""
        last = 0
        while not (found := re.search(pattern, self.text)):
            if ask and time.monotonic() - last > 0.1:
                last = time.monotonic()
                self.send(ask)
            if self.process.poll() is not None:
                raise SystemExit(f"{self.role} ended: {self.process.stderr.read().decode()}")
            time.sleep(0.005)
        return found

    def gap_ms(self):
        """The longest that the guest did not run, as it saw it."""
        line = self.until(r"progress tsc=\d+.* max=([\d,]+).*\n", "p")
        return max(int(x) for x in line.group(1).split(",")) / TSC_KHZ

    def send(self, text):
        self.console.sendall(text.encode())

    def qmp(self):
        return Qmp(self.qmp_path)

    def cpu_s(self):
        """User and system time without the vCPU threads'."""
        def ticks(path):
            with open(path) as f:
                fields = f.read().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])
        total = ticks(f"/proc/{self.process.pid}/stat")
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            try:
                with open(f"/proc/{self.process.pid}/task/{task}/comm") as f:
                    name = f.read()
            except (FileNotFoundError, ProcessLookupError):
                continue  # a thread of the migration, which has ended meanwhile
            if re.match(r"vcpu\d|CPU \d", name):
                total -= ticks(f"/proc/{self.process.pid}/task/{task}/stat")
        return total / os.sysconf("SC_CLK_TCK")

    def rss_mib(self):
        with open(f"/proc/{self.process.pid}/statm") as f:
            return int(f.read().split()[1]) * 4096 / MIB

    def end(self):
        self.process.kill()
        self.process.wait()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def pair_godwit(d, memory_mib, cpus, cmdline, *extra):
    port = free_port()
    source = Vm(d, "source", [GODWIT, "run", "--name", "source", "--kernel", BARE, "--cmdline", cmdline,
                              "--memory", f"{memory_mib}M", "--cpus", str(cpus),
                              "--console", f"unix:{d}/source.console", *extra],
                f"{d}/source.sock", f"{d}/source.console")
    return source, pair_destination(d, port), port


def pair_destination(d, port):
    return Vm(d, "destination", [GODWIT, "receive", "--name", "destination", "--listen", f"tcp:127.0.0.1:{port}", "--same-paths", "--once",
                                 "--console", f"unix:{d}/destination.console"],
              f"{d}/destination.sock", f"{d}/destination.console")


def pair_qemu(d, memory_mib, cpus, cmdline):
    port = free_port()

    def command(role, *extra):
        return [*QEMU, *MICROVM, "-m", f"{memory_mib}M", "-smp", str(cpus), "-kernel", BARE,
                "-append", cmdline or " ", "-serial", f"unix:{d}/{role}.console,server=on,wait=off",
                "-qmp", f"unix:{d}/{role}.qmp,server=on,wait=off", *extra]
    source = Vm(d, "source", command("source"), f"{d}/source.qmp", f"{d}/source.console")
    destination = Vm(d, "destination", command("destination", "-incoming", "defer"),
                     f"{d}/destination.qmp", f"{d}/destination.console")
    return source, destination, port


def migrate(which, memory_mib, cmdline, channels=1, cpus=1, bandwidth=0):
    """One migration of a guest that is ready; what it took."""
    with tempfile.TemporaryDirectory(prefix="godwit-bench-") as d:
        source, destination, port = (pair_godwit if which == "godwit" else pair_qemu)(
            d, memory_mib, cpus, cmdline)
        try:
            source.open_console()
            source.until(r"progress tsc=.*\n", "p")  # answered when the fill is done
            qmp = source.qmp()
            if which == "qemu":
                other = destination.qmp()
                if channels > 1:
                    for q in (qmp, other):
                        q.execute("migrate-set-capabilities",
                                  capabilities=[{"capability": "multifd", "state": True}])
                        q.execute("migrate-set-parameters", **{"multifd-channels": channels})
                other.execute("migrate-incoming", uri=f"tcp:127.0.0.1:{port}")
                qmp.execute("migrate-set-parameters", **{"max-bandwidth": bandwidth or 1 << 50})
            else:
                qmp.execute("migrate-set-parameters", **{"max-bandwidth": bandwidth})
                if channels > 1:
                    qmp.execute("migrate-set-capabilities",
                                capabilities=[{"capability": "multifd", "state": True}])
                    qmp.execute("migrate-set-parameters", **{"multifd-channels": channels})
            before_cpu, before_rss = source.cpu_s(), source.rss_mib()
            start = time.monotonic()
            qmp.execute("migrate", uri=f"tcp:127.0.0.1:{port}")
            while True:
                r = qmp.execute("query-migrate")
                if r.get("status") == "failed":
                    raise SystemExit(f"{which}: migration failed: {r.get('error-desc')}")
                if r.get("status") == "completed" and "downtime" in r:
                    break
                time.sleep(0.002)
            took = time.monotonic() - start
            result = {"s": r["total-time"] / 1000, "wall": took, "mib": r["ram"]["transferred"] / MIB,
                      "cpu": source.cpu_s() - before_cpu + destination.cpu_s(),
                      "downtime_ms": r["downtime"], "rounds": r["ram"]["dirty-sync-count"],
                      "rss_grown": source.rss_mib() - before_rss, "rss_dest": destination.rss_mib(),
                      "parts": r.get("x-godwit-downtime")}
            destination.open_console()
            time.sleep(0.3)
            result["gap_ms"] = destination.gap_ms()
            return result
        finally:
            source.end()
            destination.end()


def work_rate(vm, seconds):
    """What a computing guest does in a tick of its own clock, over so long."""
    def look():
        vm.text = ""
        found = vm.until(r"progress tsc=(\d+).* work=(\d+).*\n", "p")
        return int(found.group(1)), int(found.group(2))
    start = look()
    time.sleep(seconds)
    end = look()
    return (end[1] - start[1]) / (end[0] - start[0])


def dirty_log_loss(turns):
    """How much of its work a computing guest loses while its dirty log is on and hardly a byte is sent, in
    percent: with and without a log by turns, in one VM."""
    with tempfile.TemporaryDirectory(prefix="godwit-bench-") as d:
        source, destination, port = pair_godwit(d, 1024, 1, "fill=900 progress=0")
        try:
            source.open_console()
            source.until(r"progress tsc=.*\n", "p")
            qmp = source.qmp()
            qmp.execute("migrate-set-parameters", **{"max-bandwidth": 4 * MIB})
            losses = []
            for _ in range(turns):
                before = work_rate(source, 1)
                qmp.execute("migrate", uri=f"tcp:127.0.0.1:{port}")
                while not qmp.execute("query-migrate")["ram"]["transferred"]:
                    time.sleep(0.002)
                logged = work_rate(source, 1)
                qmp.execute("migrate_cancel")
                while qmp.execute("query-migrate")["status"] != "cancelled":
                    time.sleep(0.002)
                losses.append(100 * (1 - logged / before))
                destination.end()
                destination = pair_destination(d, port)
            return median(losses)
        finally:
            source.end()
            destination.end()


def loopback(memory_mib):
    """Plain TCP over loopback in 1 MiB writes over a buffer of that size, beside a spinning guest: MiB/s, and
    the largest gap in that guest. What it shows is the machine's own, whoever migrates: where both CPUs are
    busy, some hosts of nested machines let them stand still for tens of milliseconds."""
    with tempfile.TemporaryDirectory(prefix="godwit-bench-") as d:
        guest = Vm(d, "guest", [GODWIT, "run", "--name", "guest", "--kernel", BARE, "--cmdline", "progress=0",
                                "--memory", "64M", "--console", f"unix:{d}/c"], f"{d}/guest.sock", f"{d}/c")
        try:
            guest.open_console()
            guest.until("progress", "p")
            server = socket.create_server(("127.0.0.1", 0))
            child = os.fork()
            if child == 0:
                view, at = memoryview(touched(memory_mib)), 0
                conn, _ = server.accept()
                conn.sendall(b"r")
                while n := conn.recv_into(view[at:at + MIB]):
                    at = (at + n) % (memory_mib * MIB - MIB)
                os._exit(0)
            view = memoryview(touched(memory_mib))
            conn = socket.create_connection(server.getsockname())
            conn.recv(1)
            start = time.monotonic()
            for at in range(0, memory_mib * MIB, MIB):
                conn.sendall(view[at:at + MIB])
            conn.close()
            os.waitpid(child, 0)
            rate = memory_mib / (time.monotonic() - start)
            guest.text = ""
            return rate, guest.gap_ms()
        finally:
            guest.end()


def compare(memory_mib, fill_mib, channels, runs=RUNS, cpus=1):
    cmdline = f"fill={fill_mib} progress=0" + (f" cpus={cpus}" if cpus > 1 else "")
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(migrate("godwit", memory_mib, cmdline, channels, cpus))
        theirs.append(migrate("qemu", memory_mib, cmdline, channels, cpus))
    return ours, theirs


def of(results, key):
    return median([r[key] for r in results])


def main():
    quick = "--quick" in sys.argv
    print("live migration of the bare guest over loopback, all memory incompressible, guest spinning")
    warm(9000 if not quick else 2500)
    for gib, limits in ((1, (0.75, 0.9)), (4, (0.5, 0.6))):
        if quick and gib > 1:
            continue
        memory = gib * 1024
        plain = [loopback(memory) for _ in range(3)]
        rate, gap = median([r for r, _ in plain]), median([g for _, g in plain])
        print(f"{gib} GiB, plain loopback: {rate:.0f} MiB/s, largest gap in the guest beside it {gap:.1f} ms",
              flush=True)
        for channels, limit in ((1, limits[0]), (2, limits[1])):
            ours, theirs = compare(memory, memory - 8, channels, 2 if quick else RUNS)
            what = f"{gib} GiB, {channels} channel{'s' * (channels > 1)}"
            row(f"{what}: total time", of(ours, "s"), of(theirs, "s"), "s", 3, limit)
            row(f"{what}: CPU of both processes", of(ours, "cpu"), of(theirs, "cpu"), "s", 2, 0.85)
            row(f"{what}: largest gap in the guest", of(ours, "gap_ms"), of(theirs, "gap_ms"), "ms", 1)
            print(f"    data rate {of(ours, 'mib') / of(ours, 's'):.0f} MiB/s, "
                  f"{of(ours, 'mib') / of(ours, 's') / rate:.2f} of loopback's {rate:.0f}"
                  f"{' (wanted: at least 0.8)' if channels == 1 else ''}; pause {ours[0]['parts']}", flush=True)
    ours, theirs = compare(8192, 64, 1, 1 if quick else 3)
    row("8 GiB of which 64 MiB are touched: time", of(ours, "s"), of(theirs, "s"), "s", 3, 0.1)
    print(f"    source grew by {of(ours, 'rss_grown'):.1f} MiB, destination has {of(ours, 'rss_dest'):.0f} MiB "
          f"(QEMU: {of(theirs, 'rss_grown'):.1f}, {of(theirs, 'rss_dest'):.0f})")
    print(f"dirty log on, nothing dirty: the guest loses {dirty_log_loss(3 if quick else 7):.2f} % of its work "
          "(wanted: under 1)", flush=True)
    two = [migrate("godwit", 1024, "fill=900 cpus=1 compute=1 progress=0", 1, 2) for _ in range(2 if quick else RUNS)]
    print(f"two vCPUs: largest gap {of(two, 'gap_ms'):.1f} ms (wanted: at most 10)", flush=True)
    dirty = [migrate("godwit", 1024, "fill=900 write=16 progress=0", 1, 1, 1 << 30) for _ in range(2 if quick else RUNS)]
    print(f"16 MiB rewritten flat out, link of 1 GiB/s: {of(dirty, 'rounds'):.0f} rounds, gap {of(dirty, 'gap_ms'):.1f} ms "
          f"(wanted: at most 4 rounds and the pause)", flush=True)
    if not quick:
        print("cost grows with touched memory, not with RAM: 256 MiB touched of")
        for gib in (1, 2, 4, 8):
            r = migrate("godwit", gib * 1024, "fill=256 progress=0")
            print(f"    {gib} GiB: {r['s']:.3f} s, {r['cpu']:.2f} s CPU")


if __name__ == "__main__":
    main()
