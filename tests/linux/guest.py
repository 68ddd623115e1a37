"""A Linux guest that several tests share: boot it, run commands in it, put load on it, save it.

The guest runs tests/linux/agent on its serial console: a line in is a shell command, its output and
"@NUMBER STATUS" come back. A guest goes through stages (booted, restored ...) in a fixed order, each
reached when the first test asks for it. When it is lost (a stage fails, a command does not end), the
tests that still wanted it fail at once with that reason.
"""
import collections
import itertools
import os
import re
import signal
import subprocess
import traceback

from godwit import Failed, Place, ROOT, Skip, check, test, wait_until

GUARD_S = 180.0
CACHE = os.environ.get("GODWIT_CACHE", os.path.join(ROOT, ".cache"))
MADE = os.path.join(CACHE, "linux")
PATTERN = os.path.join(ROOT, "build/guest/pattern")
CHANNEL = "org.qemu.guest_agent.0"
PORT = f"/dev/virtio-ports/{CHANNEL}"
MIB = 1 << 20

# What no log may hold, whatever its level.
COMPLAINTS = (r"soft lockup|hard LOCKUP|hung task|blocked for more than|rcu.*stall|unstable|"
              r"I/O error|Call Trace|BUG:|WARNING: CPU|Oops|timed out|not responding|backwards|"
              r"nobody cared|virtio.*(fail|error)|corrupt")
# What Linux says in good health: there is no PCI here; and of an AMD processor that does not promise
# a constant TSC it believes this from the start (its clock source is kvm-clock).
HARMLESS = (r"PCI: Fatal: No config space access function found|"
            r"Marking TSC unstable due to TSCs unsynchronized")
# Where much serial traffic makes the emulated machine stand still: see tests/README.md.
IN_TESTBED = "GODWIT_IN_TESTBED" in os.environ
# The testbed's emulated processor does not let KVM see that a guest sets XCR0 (QEMU 7.2).
CMDLINE = "console=ttyS0 panic=-1 quiet loglevel=1 godwit.run=agent" + (
    " noxsave" if IN_TESTBED else "")


def kernel_dir(kind):
    return os.path.join(CACHE, "kernels", kind)


def kernel_version(kind):
    with open(os.path.join(kernel_dir(kind), "version")) as f:
        return f.read().strip()


def run(*words, **options):
    """A program of the host -> CompletedProcess; its failure is for the caller to look at."""
    return subprocess.run(words, capture_output=True, text=True, timeout=GUARD_S, **options)


def pattern(*words):
    """The program pattern on the host; fails the test if it fails."""
    done = run(PATTERN, *map(str, words))
    check(done.returncode == 0, f"on the host, pattern {' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


class Background:
    """The program pattern on the host, running beside the test; prefix: words before it."""

    def __init__(self, *words, prefix=()):
        self.words = " ".join(map(str, words))
        self.process = subprocess.Popen([*prefix, PATTERN, *map(str, words)],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        start_new_session=True)

    def end(self):
        """Waits for its end; what it printed."""
        out, errors = self.process.communicate(timeout=GUARD_S)
        check(self.process.returncode == 0, f"on the host, pattern {self.words}: {errors}")
        return out

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Its children too: they hold the pipes that communicate() reads to their ends.
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


Load = collections.namedtuple("Load", "pid output")


class Guest:
    _numbers = itertools.count(80)

    def __init__(self, name, cpus=1, memory="256M", kernel=None, kind="cloud", setup=None):
        """setup(guest) -> further words for godwit run; it may fill guest.disks."""
        self.name, self.cpus, self.memory, self.kind = name, cpus, memory, kind
        self.kernel = kernel or os.path.join(kernel_dir(kind), "vmlinuz")
        self.initrd = os.path.join(MADE, f"{kind}.cpio")
        self.setup = setup
        self.disks, self.loads = {}, {}
        self.stages = [("booted", Guest.boot)]
        self.reached = 0
        self.lost = None
        self.place = self.vm = self.peer = self.channel_path = None
        self.network = None  # why there is none
        self.prefix = self.peer_prefix = ()  # before VMs, and before whom the guest talks to
        self.boot_id = None
        self.match = None  # of the last mark on the console
        self.commands = itertools.count(1)
        number = next(self._numbers)
        self.tap = f"gwt{os.getpid() % 100000}.{number}"
        self.number = number
        self.host_address, self.address = f"10.213.{number}.1", f"10.213.{number}.2"
        self.mac = f"52:54:00:67:77:{number:02x}"

    # -- stages --

    def reach(self, stage):
        target = [name for name, _ in self.stages].index(stage) + 1
        while self.reached < target:
            check(not self.lost, f"the guest is lost since: {self.lost}")
            name, step = self.stages[self.reached]
            try:
                step(self)
            except Skip:
                raise
            except Exception as why:
                self.lost = self.lost or f"{name}: {str(why)[:200]}"
                raise
            self.reached += 1
        check(not self.lost, f"the guest is lost since: {self.lost}")

    def boot(self):
        self.place = Place()
        self.channel_path = self.place.path("channel")
        words = ["--kernel", self.kernel, "--initrd", self.initrd,
                 "--cpus", self.cpus, "--memory", self.memory,
                 "--channel", f"{CHANNEL},socket={self.channel_path}"]
        cmdline = CMDLINE
        self.network = self.make_network()
        if not self.network:
            words += ["--net", f"tap={self.tap},mac={self.mac}"]
            cmdline += f" godwit.ip={self.address}/30"
        words += self.setup(self) if self.setup else []
        self.vm = self.place.run(*words, "--cmdline", cmdline, prefix=self.prefix)
        self.ready()

    def make_network(self):
        """A tap; None, or why there is none. It stays when a VM ends: a restored one goes on with it."""
        for words in (("tuntap", "add", "dev", self.tap, "mode", "tap"),
                      ("address", "add", f"{self.host_address}/30", "dev", self.tap),
                      ("link", "set", self.tap, "up")):
            done = run("ip", *words)
            if done.returncode:
                return f"ip {' '.join(words)}: {done.stderr.strip()}"
            if words[0] == "tuntap":
                self.place.on_close.append(lambda: run("ip", "link", "delete", self.tap))
        return None

    def need_network(self):
        if self.network:
            raise Skip(f"no network: {self.network}")

    def ready(self):
        """Waits for the agent; a boot id that was not seen before."""
        boot_id = self.vm.wait_console(r"^@ready ([-0-9a-f]+)\r?\n", GUARD_S).group(1)
        check(boot_id != self.boot_id, "the same boot id after a reboot")
        self.boot_id = boot_id
        self.loads.clear()

    # -- commands --

    def try_sh(self, command, send=None):
        """(status, output) of a shell command in the guest; send: what to type once it runs."""
        number = next(self.commands)
        check("\n" not in command, "a command is one line")
        stdin = "" if send else "</dev/null "
        try:
            self.vm.send(f"{{ {command}; }} {stdin}2>&1; s=$?; echo; echo \"@{number} $s\"\n")
            if send:
                self.said_before("@send")
                self.vm.send(send)
            output = self.said_before(f"@{number}", r" (\d+)")
        except (Failed, OSError) as why:
            # Whether it turns in a circle, sleeps, or only its console is silent.
            does = self.vm.activity()
            self.lost = self.lost or f"{command}: {str(why)[:200]}; its threads: {does}"
            raise Failed(f"{why}; its threads: {does}") from None
        return int(self.match.group(1)), output

    def said_before(self, mark, more=""):
        """What the console says before the next line that is mark and more (a regex)."""
        start = self.vm.output.position
        self.match = self.vm.wait_console(rf"^{mark}{more}\n", GUARD_S)
        return self.vm.output.text[start:self.match.start()].removesuffix("\n")

    def sh(self, command, send=None):
        """The same; fails the test when the command fails."""
        status, output = self.try_sh(command, send)
        check(status == 0, f"in the guest, {command}: status {status}: {output.strip()}")
        return output.strip("\n")

    def complaints(self):
        """The lines of the guest's log that should not be there."""
        # Picked out inside: a serial port is slow.
        status, log = self.try_sh(f"dmesg -r | grep -E '^<[0-3]>|{COMPLAINTS}'")
        check(status in (0, 1), f"the guest's log cannot be read: {log}")
        return [line for line in log.splitlines() if line and not re.search(HARMLESS, line)]

    def check_log(self):
        bad = self.complaints()
        check(not bad, "the guest's log complains: " + "; ".join(bad))

    # -- load --

    def talk_to(self, *words):
        """The program pattern where the guest's network has its other end."""
        return Background(*words, prefix=self.peer_prefix)

    def start(self, name, words, program="pattern"):
        """A program in the guest, beside what else it does."""
        output = f"/tmp/load-{name}.out"
        pid = int(self.sh(f"{program} {words} >{output} 2>&1 & pid_{name}=$!; echo $!"))
        self.loads[name] = Load(pid, output)

    def progress(self):
        """Asks all loads where they are, and waits for their answers; {name: the numbers in it}."""
        status, said = self.try_sh(f"progress {' '.join(self.loads)}")
        check(status == 0, f"in the guest, a load has ended: {said}")
        found = {}
        for name in self.loads:
            line = re.search(rf"^{name}: (.*)$", said, re.MULTILINE)
            found[name] = [int(n) for n in re.findall(r"\d+", line.group(1))] if line else []
            check(found[name], f"in the guest, {name} does not say where it is: {said}")
        return found

    def await_progress(self):
        """Every load does more than it has done up to now."""
        self.await_more(self.progress())

    def await_more(self, first):
        """Every load does more than that: what progress() said."""
        def all_go_on():
            now = self.progress()
            return all(b > a for name in first for a, b in zip(first[name], now[name]))

        wait_until(all_go_on, f"all loads go on from {first}", GUARD_S)

    def stop(self, name):
        """Ends it and checks that all was right; the numbers that it printed last."""
        load = self.loads.pop(name)
        self.sh(f"kill {load.pid}")
        status, _ = self.try_sh(f"wait {load.pid}")
        text = self.sh(f"cat {load.output}")
        check(status == 0, f"in the guest, {name} ended with {status}: {text}")
        return [int(n) for n in re.findall(r"\d+", text.splitlines()[-1])]

    # -- away and back --

    def save(self, paused=False):
        """The VM ends; the path of the file that holds it."""
        path = self.place.path(f"{self.name}.saved")
        if paused:
            done = self.vm.cli("pause")
            check(done.returncode == 0, f"pause: {done.stderr}")
        done = self.vm.cli("save", path, timeout=GUARD_S)
        check(done.returncode == 0, f"save ended with {done.returncode}: {done.stderr}")
        code = self.vm.wait(GUARD_S)
        check(code == 0, f"after save, run ended with {code}: {self.vm.stderr()}")
        return path

    def restore(self, path, *words, paused=False):
        self.vm = self.place.restore(path, *words)
        if paused:
            self.vm.wait_status("paused")
            done = self.vm.cli("resume")
            check(done.returncode == 0, f"resume: {done.stderr}")
        self.sh("true")
        os.unlink(path)

    def end(self):
        """Waits for the VM to end by itself; with 0."""
        code = self.vm.wait(GUARD_S)
        self.lost = "it is switched off"
        check(code == 0, f"it ended with {code}: {self.vm.stderr()}")

    def close(self):
        if self.peer:
            self.peer.__exit__()
            self.peer = None
        if self.place:
            self.place.close(clean=False)
            self.place = None


guests = {}


def promise(guest_name, stage="booted", name=None):
    """Registers a test of a shared guest: it is called with the guest, which has reached stage.

    Tests of guests that are left out this time (run.py --guests) are not registered.
    """
    if guest_name not in guests:
        return lambda function: function

    def register(function):
        def on_guest(_place):
            guest = guests[guest_name]
            already = guest.lost
            try:
                guest.reach(stage)
                function(guest)
            except Skip:
                raise
            except Exception as why:
                if already:
                    raise Failed(str(why)) from None
                at = [f"{os.path.basename(f.filename)}:{f.lineno}"
                      for f in traceback.extract_tb(why.__traceback__)]
                kind = "" if isinstance(why, Failed) else f"{type(why).__name__}: "
                said = guest.place.transcript() if guest.place else ""
                raise Failed(f"{kind}{why} ({' '.join(at)})\n{said}") from None
        on_guest.__name__ = name or function.__name__
        return test(on_guest)
    return register
