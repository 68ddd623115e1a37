"""What a VM has from whoever started it: standard descriptors, readers that do not read, signals."""
import fcntl
import os
import re
import signal

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
    vm = place.bare("fill=1 progress=20", *SMALL, *args, console="unix", name="same")
    bare.line(vm, "progress")
    for stray in STRAYS:
        vm.signal(getattr(signal, stray))
    bare.verify(vm)
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
