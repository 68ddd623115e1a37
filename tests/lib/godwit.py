"""Starting, driving and watching godwit from tests: Place, VM, Qmp, and a small runner.

A test is a function that takes a Place (a temporary directory with a runtime directory of its own)
and is registered with @test; see tests/README.md. Waiting is for an event (console text, QMP, the
end of a process); every timeout is only a guard against hanging. Python's standard library only.
"""
import collections
import ctypes
import fcntl
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GODWIT = os.path.abspath(os.environ.get("GODWIT_BINARY", os.path.join(ROOT, "build/godwit")))
BARE = os.path.join(ROOT, "build/guest/bare.elf")
PAGE = 4096
GUARD_S = float(os.environ.get("GODWIT_TEST_GUARD_S", "120"))


class Failed(AssertionError):
    """The promise is not kept."""


class Skip(Exception):
    """The test cannot be made here; the text says why."""


def check(condition, why):
    if not condition:
        raise Failed(why)


def wait_until(condition, what, timeout=GUARD_S):
    """For states that send no event (a line of /proc): looks until condition() is true."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"waited {timeout:g} s in vain: {what}")
        time.sleep(0.005)


def alive(pid):
    """Also a dead process has a directory until somebody has asked for its exit code."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


class Output:
    """What an fd says until its end, read by a thread so that no pipe is ever full."""

    def __init__(self, fd=None):
        self.text = ""
        self.ended = fd is None
        self.position = 0  # wait() has looked at everything before it
        self.news = threading.Condition()
        self.thread = None
        if fd is not None:
            self.thread = threading.Thread(target=self._read, args=(fd,), daemon=True)
            self.thread.start()

    def _read(self, fd):
        while True:
            try:
                part = os.read(fd, 65536)
            except OSError:
                part = b""
            with self.news:
                self.text += part.decode("latin-1")
                self.ended = not part
                self.news.notify_all()
            if not part:
                os.close(fd)
                return
            # A serial port says a byte at a time; looking at each would take longer than it does.
            time.sleep(0.002)

    def wait(self, regex, timeout):
        """The next match, from where the last one ended; None when the output ended before."""
        pattern = re.compile(regex, re.MULTILINE)
        end = time.monotonic() + timeout
        with self.news:
            while True:
                match = pattern.search(self.text, self.position)
                if match:
                    self.position = match.end()
                    return match
                if self.ended:
                    return None
                if not self.news.wait(max(0, end - time.monotonic())):
                    raise Failed(f"no /{regex}/ on the console within {timeout:g} s; it ends with "
                                 f"{self.text[-200:]!r}")

    def skip(self):
        """Everything said so far is passed over."""
        with self.news:
            self.position = len(self.text)


class FileOutput(Output):
    """The same of a file that grows (--console file:PATH) as long as a process lives."""

    def __init__(self, path, process):
        super().__init__()
        self.ended = False
        self.path, self.process = path, process

    def _look(self):
        ended = self.process.poll() is not None  # asked first: then the file is complete
        try:
            with open(self.path, "rb") as f:
                self.text = f.read().decode("latin-1")
        except FileNotFoundError:
            pass
        self.ended = ended

    def wait(self, regex, timeout):
        pattern = re.compile(regex, re.MULTILINE)

        def look():
            self._look()
            return pattern.search(self.text, self.position) or (True if self.ended else None)

        match = wait_until(look, f"/{regex}/ in {self.path}", timeout)
        if match is True:
            return None
        self.position = match.end()
        return match

    def skip(self):
        self._look()
        self.position = len(self.text)


class QmpError(Exception):
    def __init__(self, error):
        super().__init__(error.get("desc", ""))
        self.kind = error.get("class")
        self.desc = error.get("desc", "")


class Qmp:
    """A client of a control socket."""

    def __init__(self, path, alive=lambda: True, timeout=GUARD_S):
        def connect():
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                s.connect(path)
                return s
            except (FileNotFoundError, ConnectionRefusedError):
                s.close()
                check(alive(), f"the VM ended before it listened at {path}")
                return None

        self.socket = wait_until(connect, f"a listener at {path}", timeout)
        self.buffer = b""
        self.events = collections.deque()
        self.greeting = self._object(timeout)
        self.execute("qmp_capabilities")

    def _object(self, timeout):
        end = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.socket], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise Failed(f"nothing on the control socket within {timeout:g} s")
            try:
                part = self.socket.recv(65536)
            except ConnectionResetError:
                part = b""
            if not part:
                raise EOFError("the VM has closed the control connection")
            self.buffer += part
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def execute(self, command, arguments=None, timeout=GUARD_S):
        """Its "return"; QmpError for an "error"; events that come meanwhile are kept."""
        request = {"execute": command}
        if arguments is not None:
            request["arguments"] = arguments
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            reply = self._object(timeout)
            if "event" in reply:
                self.events.append(reply)
            elif "error" in reply:
                raise QmpError(reply["error"])
            else:
                return reply["return"]

    def next_event(self, timeout=GUARD_S):
        return self.events.popleft() if self.events else self._object(timeout)

    def wait_event(self, name, timeout=GUARD_S, **data):
        """The next event of this name whose data contain these; others before it are dropped."""
        while True:
            event = self.next_event(timeout)
            if event.get("event") == name and data.items() <= event.get("data", {}).items():
                return event

    def wait_end(self, timeout=GUARD_S):
        """Until the VM closes the connection; returns the events that still came."""
        try:
            while True:
                self.events.append(self._object(timeout))
        except EOFError:
            return list(self.events)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


Thread = collections.namedtuple("Thread", "tid name ticks voluntary state")


def _stat(path):
    with open(path) as f:
        text = f.read()
    name, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
    return name, rest


class VM:
    """A `godwit run` or `godwit restore`, from its start to its end.

    VM("run", "--kernel", BARE, ..., place=P, name="a", console="stdio", prefix=[], env={})
    console: stdio (pipes), file, unix, null, or None (say nothing about it; stdin and stdout are
    pipes then, too). prefix: words before the command (setpriv ...), which must exec it, so that
    its process id is the VM's. keep_name: name is the one in the file, so it is not said.
    program: another one that takes the same words.
    """

    def __init__(self, verb, *args, place=None, name=None, keep_name=False, console="stdio",
                 prefix=(), env=None, preexec=None, program=GODWIT, pass_fds=()):
        self.own_place = place is None
        self.killed = False
        self.place = place or Place()
        self.name = name or self.place.new_name()
        self.socket_path = self.place.socket_path(self.name)
        self.console_path = self.place.path(f"{self.name}.console")
        self.console_kind = console
        words = [program, verb, *map(str, args)]
        if "--control" not in words and not keep_name:
            words += ["--name", self.name]
        if console in ("file", "unix"):
            words += ["--console", f"{console}:{self.console_path}"]
        elif console is not None:
            words += ["--console", console]
        self.words = [*prefix, *words]
        stdio = console in ("stdio", None)
        self.process = subprocess.Popen(
            self.words, stdin=subprocess.PIPE if stdio else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, preexec_fn=preexec, pass_fds=pass_fds,
            env=self.place.environment(env))
        self.pid = self.process.pid
        self.stdout = Output(os.dup(self.process.stdout.fileno()))
        self.errors = Output(os.dup(self.process.stderr.fileno()))
        self.process.stdout.close()
        self.process.stderr.close()
        self.input = None
        if stdio:
            self.output = self.stdout
            self.input = os.dup(self.process.stdin.fileno())
            self.process.stdin.close()
        elif console == "file":
            self.output = FileOutput(self.console_path, self.process)
        elif console == "unix":
            self.output = None  # connect_console()
        else:
            self.output = Output()
        self.place.vms.append(self)

    # -- console --

    def connect_console(self):
        """console="unix": waits for the socket; done by itself at the first use."""
        def connect():
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                s.connect(self.console_path)
                return s
            except (FileNotFoundError, ConnectionRefusedError):
                s.close()
                check(self.process.poll() is None, self._ended("before its console listened"))
                return None

        s = wait_until(connect, f"a listener at {self.console_path}")
        self.input = s.detach()
        self.output = Output(os.dup(self.input))

    def wait_console(self, regex, timeout=GUARD_S):
        """The next match of regex (lines: ^ and $) on the console; each text is matched once."""
        if self.output is None:
            self.connect_console()
        match = self.output.wait(regex, timeout)
        if match is None:
            if self.process.poll() is None and self.input is not None:
                try:
                    self.process.wait(5)  # its output has ended, so it is about to
                except subprocess.TimeoutExpired:
                    pass
            raise Failed(self._ended(f"before its console said /{regex}/"))
        return match

    def send(self, text):
        if self.output is None:
            self.connect_console()
        check(self.input is not None, f"console {self.console_kind} takes no input")
        bytes_ = text.encode("latin-1")
        while bytes_:
            bytes_ = bytes_[os.write(self.input, bytes_):]

    def _ended(self, when):
        code = self.process.poll()
        return f"{self.name} ended (exit {code}) {when}; stderr: {self.stderr()!r}"

    def stderr(self):
        """What it said, but for what every VM of root says that has no --user."""
        return re.sub(r"^godwit: this VM stays root: .*\n", "", self.errors.text, flags=re.MULTILINE)

    # -- control --

    def cli(self, verb, *args, **options):
        """godwit VERB NAME ARGS -> CompletedProcess (text)."""
        return self.place.godwit(verb, self.name, *args, **options)

    def qmp(self):
        client = Qmp(self.socket_path, alive=lambda: self.process.poll() is None)
        self.place.to_close.append(client)
        return client

    def wait(self, timeout=GUARD_S):
        """Its exit code, when it has ended and all it said has been read."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} has not ended within {timeout:g} s") from None
        for output in (self.stdout, self.errors):
            if output.thread:
                output.thread.join(timeout)
        if self.input is not None:
            os.close(self.input)
            self.input = None
        return code

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """At once, like a crash (SIGKILL); leaves what a crash leaves."""
        if self.process.poll() is None:
            inner = self.machine_pid()
            self.killed = True
            self.process.kill()
            wait_until(lambda: inner == self.pid or not alive(inner), f"the end of {self.name}")
        return self.wait()

    def running(self):
        return self.process.poll() is None

    # -- what the host sees of it --

    def machine_pid(self):
        """The process with the guest in it: with --user, a child of the one that was started."""
        with open(f"/proc/{self.pid}/task/{self.pid}/children") as f:
            children = f.read().split()
        return int(children[0]) if children else self.pid

    def threads(self):
        found = []
        tasks = f"/proc/{self.machine_pid()}/task"
        for tid in sorted(os.listdir(tasks), key=int):
            directory = f"{tasks}/{tid}"
            name, fields = _stat(directory + "/stat")
            with open(directory + "/status") as f:
                voluntary = int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", f.read(),
                                          re.MULTILINE).group(1))
            found.append(Thread(int(tid), name, int(fields[11]) + int(fields[12]), voluntary,
                                fields[0]))
        return found

    def activity(self, seconds=2.0):
        """What its threads do for so long, for a sentence on one that says nothing any more: "vcpu0 R 97 %, ..."."""
        try:
            before = {t.tid: t.ticks for t in self.threads()}
            time.sleep(seconds)
            ticks = seconds * os.sysconf("SC_CLK_TCK")
            return ", ".join(f"{t.name} {t.state} {(t.ticks - before.get(t.tid, 0)) / ticks:.0%}"
                             for t in self.threads())
        except (OSError, IndexError) as why:
            return f"it has ended ({why})"

    def wait_status(self, status):
        """Waits until query-status says so: "running", "paused"..."""
        qmp = self.qmp()
        wait_until(lambda: qmp.execute("query-status")["status"] == status, f"status {status}")

    def status(self, field):
        """A field of /proc/PID/status, as text."""
        with open(f"/proc/{self.machine_pid()}/status") as f:
            return re.search(rf"^{field}:[ \t]*(.*)$", f.read(),
                             re.MULTILINE).group(1).strip()

    def memory_kib(self, field="Pss"):
        """A field of smaps_rollup."""
        with open(f"/proc/{self.machine_pid()}/smaps_rollup") as f:
            return int(re.search(rf"^{field}:\s+(\d+) kB", f.read(), re.MULTILINE).group(1))

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.kill()
        if self.own_place:
            self.place.close(clean=kind is None)


class Place:
    """A temporary directory and a runtime directory for a test; VMs in it end with it."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="godwit-test-")
        os.chmod(self.dir, 0o755)
        self.runtime = self.path("run")
        os.mkdir(self.runtime)
        self.vms, self.to_close, self.on_close = [], [], []
        self.names = 0

    def path(self, name):
        return os.path.join(self.dir, name)

    def file(self, name, content=b""):
        """A new file with this content; its path."""
        with open(self.path(name), "wb") as f:
            f.write(content if isinstance(content, bytes) else content.encode())
        return self.path(name)

    def new_name(self):
        self.names += 1
        return f"vm{self.names}"

    def socket_path(self, name):
        return os.path.join(self.runtime, f"{name}.sock")

    def environment(self, more=None):
        return {**os.environ, "GODWIT_RUNTIME_DIR": self.runtime, "LC_ALL": "C", **(more or {})}

    def vm(self, verb, *args, **options):
        return VM(verb, *args, place=self, **options)

    def run(self, *args, **options):
        return VM("run", *args, place=self, **options)

    def restore(self, file, *args, **options):
        return VM("restore", file, *args, place=self, **options)

    def bare(self, words="", *args, **options):
        """The bare guest; words are its command line (guest/bare/README.md)."""
        return self.run("--kernel", BARE, "--cmdline", words, *args, **options)

    def godwit(self, *args, prefix=(), timeout=GUARD_S, env=None, **options):
        """A godwit command that ends -> CompletedProcess (text)."""
        try:
            return subprocess.run([*prefix, GODWIT, *map(str, args)], stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, timeout=timeout,
                                  env=self.environment(env), **options)
        except subprocess.TimeoutExpired:
            words = " ".join(map(str, args))
            raise Failed(f"godwit {words}: no end within {timeout:g} s") from None

    def leftovers(self):
        """What should not be there once all VMs have ended: sockets, temporary files, processes."""
        found = []
        for directory, _, names in os.walk(self.dir):
            for name in names:
                if directory.startswith(self.runtime) or name.startswith(".godwit-"):
                    found.append(os.path.join(directory, name))
        mark = f"GODWIT_RUNTIME_DIR={self.runtime}".encode()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as f:
                    if mark in f.read().split(b"\0"):
                        found.append(f"process {pid}")
            except OSError:
                pass
        return found

    def transcript(self):
        """What the VMs said, for a person who looks for the reason of a failure."""
        lines = []
        for vm in self.vms:
            lines.append(f"--- {' '.join(vm.words)} (exit {vm.process.poll()})")
            for title, output in (("console", vm.output), ("stderr", vm.errors)):
                if output is not None and output.text:
                    lines.append(f"{title}: ...{output.text[-2000:]}")
        return "\n".join(lines)

    def close(self, clean=True):
        """Ends everything. clean: also a check that VMs which ended by themselves left nothing."""
        for vm in self.vms:
            vm.kill()
        for client in self.to_close:
            client.close()
        for vm in self.vms:
            # A killed one cannot clean up.
            if vm.killed:
                for path in (vm.socket_path, vm.console_path, os.path.join(self.runtime, "migrations")):
                    if os.path.exists(path):
                        os.unlink(path)
        for undo in reversed(self.on_close):
            undo()
        left = self.leftovers() if clean else []
        shutil.rmtree(self.dir)
        check(not left, f"left behind: {', '.join(left)}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close(clean=kind is None)


# -- what this host can do --

def doctor():
    """`godwit doctor --json`."""
    done = subprocess.run([GODWIT, "doctor", "--json"], capture_output=True, text=True,
                          timeout=GUARD_S)
    return json.loads(done.stdout)


def need_root():
    if os.geteuid() != 0:
        raise Skip("needs root")


def need_real_time():
    """For guests that must be so fast, or get so much of their processor, or be done within a time-out."""
    if "GODWIT_IN_TESTBED" in os.environ:
        raise Skip("the testbed is too slow for what this compares with the clock")


def need_program(name):
    if not shutil.which(name):
        raise Skip(f"{name} is not installed")


def mount(source, target, kind, options=""):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), 0, options.encode()):
        raise Skip(f"cannot mount a {kind} here ({os.strerror(ctypes.get_errno())})")


def unmount(target):
    ctypes.CDLL(None).umount2(target.encode(), 2)


def moves(usual):
    """How often a test moves its guest: make soak asks for more than is usual."""
    return int(os.environ.get("GODWIT_TEST_MOVES", usual))


# -- the runner --

_tests = []


def test(function):
    """Registers a test; its name is the promise that it guards."""
    _tests.append((function.__name__, function))
    return function


def add_test(name, function):
    """The same for rows of a table."""
    _tests.append((name, function))


def _run_one(name, function):
    """ok, FAIL or skip, and why."""
    place = Place()
    try:
        function(place)
        place.close()
        return "ok", ""
    except Skip as why:
        place.close(clean=False)
        return "skip", str(why)
    except Exception as why:  # every way to fail counts and ends only this test
        at = traceback.extract_tb(why.__traceback__)
        lines = [f.lineno for f in at if f.filename == function.__code__.co_filename]
        kind = "" if isinstance(why, Failed) else f"{type(why).__name__}: "
        text = f"{kind}{why} (line {lines[-1] if lines else at[-1].lineno})\n{place.transcript()}"
        if os.path.isdir(place.dir):
            place.close(clean=False)
        return "FAIL", text.rstrip()


def _taken(chosen, path):
    """Those that no other process has taken: the file's size is how many were."""
    while True:
        with open(path, "ab") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            at = os.fstat(f.fileno()).st_size
            if at >= len(chosen):
                return
            f.write(b".")
        yield chosen[at]


def main(requirement=None):
    """Runs the tests whose names contain one of the words of the command line (none: all).

    --list: their names; --times: how long each took; --part I/N: only each Nth of them, from the Ith on;
    --share FILE: with others that run at the same time: each test is taken by one of them, as it comes to it.

    Exit status 1 when one failed, or when none ran at all: nothing tested is no success.
    requirement(): a reason why none of them can be made here, or None.
    """
    words = sys.argv[1:]
    part, parts, shared = 1, 1, None
    for option in ("--part", "--share"):
        if option in words:
            at = words.index(option)
            if option == "--part":
                part, parts = map(int, words[at + 1].split("/"))
            else:
                shared = words[at + 1]
            del words[at:at + 2]
    filters = [word for word in words if word != "--times"]
    if filters == ["--list"]:
        print("\n".join(name for name, _ in _tests))
        sys.exit(0)
    chosen = [(n, f) for n, f in _tests if not filters or any(word in n for word in filters)][part - 1::parts]
    counts, took = collections.Counter(), {}
    reason = requirement() if requirement else None
    for name, function in _taken(chosen, shared) if shared else chosen:
        begin = time.monotonic()
        verdict, why = ("skip", reason) if reason else _run_one(name, function)
        counts[verdict] += 1
        took[name] = time.monotonic() - begin
        if "--times" in sys.argv:
            print(f"# {took[name]:.1f} s")
        print(f"{verdict} {name}" + (f": {why}" if why else ""), flush=True)
    longest = sorted(took, key=took.get, reverse=True)[:5]
    if took:
        print(f"# {sum(took.values()):.0f} s, of which " + ", ".join(f"{name} {took[name]:.0f}" for name in longest))
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped", flush=True)
    sys.exit(1 if counts["FAIL"] or not counts["ok"] else 0)
