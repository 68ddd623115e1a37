"""What a VM has from whoever started it: standard descriptors, readers that do not read, signals."""
import fcntl
import os
import re
import signal
import socket
import subprocess
import threading

import bare
import godwit
from godwit import check, test

SMALL = ("--memory", "32M")
STRAYS = ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPIPE", "SIGRTMIN")
ENDINGS = ("SIGQUIT", "SIGXCPU", "SIGPWR", "SIGINT", "SIGHUP")


def full_pipe(place):
    """A small pipe with nothing left to fill: (reader, writer)."""
    reader, writer = os.pipe()
    place.on_close.append(lambda: os.close(writer))
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b"." * 4095 + b"\n")
    return reader, writer


@test
def stderr_that_nobody_reads_holds_no_vm_up(place):
    reader, writer = full_pipe(place)
    options = {"preexec": lambda: os.dup2(writer, 2)}
    vm = place.bare("fill=4", *SMALL, "--verbose", **options)
    bare.ready(vm)
    qmp = vm.qmp()
    for _ in range(200):
        qmp.execute("stop")
        qmp.execute("cont")
    to = place.vm("receive", "--listen", f"unix:{place.path('s')}", "--verbose", **options)
    godwit.wait_until(lambda: os.path.exists(place.path("s")), "a listener")
    done = vm.cli("migrate", f"unix:{place.path('s')}")
    check(done.returncode == 0 and vm.wait() == 0, f"migrate: {done}")
    bare.works_on(to)
    to.signal(signal.SIGTERM)
    check(to.wait() == 0, f"exit {to.process.returncode}")
    # Who reads again gets whole lines, and how many are missing.
    vm = place.bare("fill=4", *SMALL, "--verbose", **options)
    bare.ready(vm)
    qmp = vm.qmp()
    for _ in range(1000):
        qmp.execute("stop")
        qmp.execute("cont")
    errors = godwit.Output(reader)
    errors.wait(r"^godwit: \d+ lines are missing here", godwit.GUARD_S)
    check(vm.cli("quit").returncode == 0 and vm.wait() == 0, "quit")
    errors.wait("host-qmp-quit", godwit.GUARD_S)
    bad = [line for line in errors.text.split("\n")[1:] if not re.match("godwit: |$", line)]
    check(not bad, f"lines that are not whole: {bad[:3]}")


@test
def verb_whose_output_nobody_reads_is_interrupted(place):
    _, writer = full_pipe(place)
    vm = place.bare("fill=24", *SMALL)
    bare.ready(vm)
    to = place.vm("receive", "--once", "--listen", f"unix:{place.path('s')}")
    to.errors.wait("waiting", godwit.GUARD_S)
    verb = subprocess.Popen([godwit.GODWIT, "migrate", vm.name, f"unix:{place.path('s')}",
                             "--bandwidth", "1M"], stdin=subprocess.DEVNULL, stdout=writer,
                            stderr=writer, env=place.environment())
    qmp = vm.qmp()
    godwit.wait_until(lambda: qmp.execute("query-migrate").get("status") == "active", "it moves")
    verb.send_signal(signal.SIGINT)
    check(verb.wait(godwit.GUARD_S) == 3, f"exit {verb.returncode}")
    bare.works_on(vm)
    check(to.wait() == 1, f"the destination: exit {to.process.returncode}")


@test
def report_onto_a_fifo_or_a_device_is_refused(place):
    vm = place.bare("fill=1", *SMALL)
    bare.ready(vm)
    os.mkfifo(place.path("fifo.html"))
    os.symlink("/dev/null", place.path("null.json"))
    for name in ("fifo.html", "null.json"):
        done = vm.cli("migrate", f"unix:{place.path('s')}", "--report", place.path(name))
        check(done.returncode == 1 and "not a regular file" in done.stderr, f"{name}: {done}")
    before = os.umask(0)
    vm.cli("migrate", f"unix:{place.path('s')}", "--report", place.path("new.json"))
    os.umask(before)
    mode = os.stat(place.path("new.json")).st_mode & 0o7777
    check(mode == 0o600, f"the report's mode is {mode:o}")
    bare.works_on(vm)


@test
def console_reader_that_stands_still_holds_no_vm_up(place):
    _, writer = full_pipe(place)

    def stdout_and_stderr():
        os.dup2(writer, 1)
        os.dup2(writer, 2)

    vm = place.bare("idle", *SMALL, preexec=stdout_and_stderr)
    qmp = vm.qmp()
    godwit.wait_until(lambda: qmp.execute("query-status")["running"], "it runs")
    vm.send("p" * 20)
    to = place.vm("receive", "--listen", f"unix:{place.path('s')}")
    to.errors.wait("waiting", godwit.GUARD_S)
    done = vm.cli("migrate", f"unix:{place.path('s')}")
    check(done.returncode == 0 and "has not ended" not in done.stderr, f"migrate: {done}")
    check(vm.wait() == 0, f"exit {vm.process.returncode}")
    bare.works_on(to)


class Typist:
    """Somebody at a unix console who goes along with the guest, and types again only what was told to be lost."""

    def __init__(self, vm):
        self.text, self.typed, self.repeated, self.socket = "", 0, 0, None
        self.follow(vm)

    def follow(self, vm):
        if self.socket:
            self.socket.close()
        self.vm, self.socket = vm, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(godwit.GUARD_S)

        def connect():
            try:
                self.socket.connect(vm.console_path)
                return True
            except (FileNotFoundError, ConnectionRefusedError):  # not there, or nobody listens at it yet
                return False

        godwit.wait_until(connect, f"a listener at {vm.console_path}")

    def answers(self):
        return re.findall(r"^progress [^\n]*\n", self.text, re.MULTILINE)

    def type(self, after):
        """One question, and its answer, which may come where the guest is `after`wards."""
        self.typed += 1
        self.socket.sendall(b"p")
        while len(self.answers()) < self.typed:
            try:
                if not self.read():
                    self.follow(after)
            except ConnectionResetError:
                self.repeated += 1
                self.follow(after)
                self.socket.sendall(b"p")

    def read(self):
        part = self.socket.recv(4096)
        self.text += part.decode()
        return part


@test
def typing_at_a_unix_console_goes_on_through_moves_without_gaps(place):
    vm = place.bare("fill=4", *SMALL, console="unix")
    typist = Typist(vm)
    while "\nready " not in typist.text:  # what is typed before the guest has set its port up is lost
        typist.read()
    for n in range(godwit.moves(5)):
        to = place.vm("receive", "--listen", f"unix:{place.path(f's{n}')}", console="unix")
        to.errors.wait("waiting", godwit.GUARD_S)
        done = []
        move = threading.Thread(
            target=lambda v=vm, m=n: done.append(v.cli("migrate", f"unix:{place.path(f's{m}')}")))
        move.start()
        while typist.vm is vm:
            typist.type(to)
        move.join()
        check(done[0].returncode == 0 and vm.wait() == 0, f"migrate: {done[0]}")
        vm = to
    typist.type(None)
    print(f"#   typed {typist.typed}, {typist.repeated} of them once more")
    whole = re.compile(r"bare 1|guest cpus=.* start=\d+|ready tsc=.* fill-us=\d+|progress tsc=.* back=0|")
    bad = [line for line in typist.text.split("\n") if not whole.fullmatch(line)]
    check(not bad, f"not as the guest has said it: {bad}")
    check(len(typist.answers()) == typist.typed, f"{len(typist.answers())} answers to {typist.typed}")
    check(typist.text.startswith("bare 1\nguest "), f"its first lines are missing: {typist.text[:80]}")


@test
def missing_standard_descriptors_are_dev_null(place):
    def closed():
        for fd in (0, 1, 2):
            os.close(fd)

    for console in ("file", "stdio"):
        vm = place.bare("fill=1", *SMALL, "--verbose", console=console, preexec=closed)
        qmp = vm.qmp()
        godwit.wait_until(lambda q=qmp: q.execute("query-status")["running"], "it runs")
        for fd in (0, 1, 2):
            is_at = os.readlink(f"/proc/{vm.pid}/fd/{fd}")
            check(is_at == "/dev/null", f"descriptor {fd} is {is_at}")
        if console == "file":
            bare.ready(vm)
            check("godwit" not in vm.output.text, f"the log is in the console: {vm.output.text}")
        check(vm.cli("quit").returncode == 0 and vm.wait() == 0, "quit")
    for words in (("list",), ("doctor",), ("--version",), ("status", "none"), ("run",)):
        done = place.godwit(*words, preexec_fn=closed)
        check(done.returncode in (0, 1, 2), f"{words}: {done}")


def ended_by(place, name, *args):
    vm = place.bare("fill=1", *SMALL, *args, console="unix", name="same")
    bare.ready(vm)  # also what it said before somebody came
    for stray in STRAYS:
        vm.signal(getattr(signal, stray))
    bare.works_on(vm)
    vm.signal(getattr(signal, name))
    check(vm.wait() == 0, f"{name}: exit {vm.process.returncode}; {vm.stderr()}")
    check(os.listdir(place.runtime) == [] and not os.path.exists(vm.console_path),
          f"{name}: sockets are left behind")


@test
def signals_end_a_vm_in_good_order_or_not_at_all(place):
    for name in ENDINGS:
        ended_by(place, name)


@test
def signals_reach_a_vm_of_another_user_in_good_order_or_not_at_all(place):
    godwit.need_root()
    for name in ENDINGS[:2]:
        ended_by(place, name, "--user", "nobody")
