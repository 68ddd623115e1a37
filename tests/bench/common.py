"""What the benchmarks share: command lines of godwit and QEMU for the same guest, medians, tables."""
import os
import statistics
import subprocess
import tempfile
import time

GODWIT = os.path.abspath("build/godwit")
BARE = os.path.abspath("build/guest/bare.elf")
QEMU = [
    "qemu-system-x86_64", "-accel", "kvm", "-nodefaults", "-no-user-config", "-display", "none",
]
MICROVM = ["-M", "microvm,pit=on,rtc=on,x-option-roms=on,auto-kernel-cmdline=off"]
# With ACPI and without the firmware's option ROMs: how QEMU's own documentation boots Linux fastest.
MICROVM_ACPI = ["-cpu", "host", "-M", "microvm,acpi=on,pit=off,pic=off,rtc=off,auto-kernel-cmdline=off"]


def godwit(kernel, cmdline, memory="128M", cpus=1, extra=(), console="stdio"):
    return [GODWIT, "run", "--kernel", kernel, "--cmdline", cmdline, "--memory", memory,
            "--cpus", str(cpus), "--console", console, *extra]


def qemu(kernel, cmdline, memory="128M", cpus=1, extra=(), machine=MICROVM):
    return [*QEMU, *machine, "-m", memory, "-smp", str(cpus), "-kernel", kernel, "-append",
            cmdline or " ", "-serial", "stdio", *extra]


class Run:
    """A VM whose console is a pipe; its name and socket live in a directory of its own."""

    def __init__(self, command):
        self.dir = tempfile.TemporaryDirectory(prefix="godwit-bench-")
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "GODWIT_RUNTIME_DIR": self.dir.name})
        self.text = b""

    def until(self, marker, count=1):
        """Seconds from exec until the console has shown marker so many times."""
        while self.text.count(marker) < count:
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise SystemExit(f"the VM ended before it showed {marker!r}:\n"
                                 f"{self.text.decode(errors='replace')}")
            self.text += more
        return time.monotonic() - self.start

    def send(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stdin.close()
        self.dir.cleanup()


def pss_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Pss:"))


def guest_ram_kib(pid, size):
    """Resident memory of the mapping that is the guest's RAM: the one of its size."""
    total, inside = 0, False
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            first = line.split()[0]
            if "-" in first and not first.endswith(":"):
                start, end = (int(x, 16) for x in first.split("-"))
                inside = inside_range(pid, start, end, size)
            elif inside and line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def inside_range(pid, start, end, size):
    """Whether a mapping belongs to a run of neighbours (split by madvise) that adds up to size."""
    runs = RUNS.get(pid)
    if runs is None:
        runs, last = [], None
        with open(f"/proc/{pid}/maps") as f:
            for line in f:
                words = line.split()
                a, b = (int(x, 16) for x in words[0].split("-"))
                if len(words) > 5 or "w" not in words[1]:
                    last = None
                    continue
                if last and last[1] == a:
                    last[1] = b
                else:
                    last = [a, b]
                    runs.append(last)
        RUNS[pid] = runs
    return any(a <= start and end <= b and b - a >= size for a, b in runs)


RUNS = {}


def row(what, ours, theirs, unit, digits=2, limit=None, lower_is_better=True):
    ratio = ours / theirs if theirs else float("nan")
    wanted = "" if limit is None else f"   (wanted: {'at most' if lower_is_better else 'at least'} {limit})"
    print(f"{what:<44} godwit {ours:9.{digits}f} {unit:<6} QEMU {theirs:9.{digits}f} {unit:<6}"
          f" ratio {ratio:6.3f}{wanted}", flush=True)


def median(values):
    return statistics.median(values)
