"""The words and lines of the bare guest (guest/bare/README.md), for tests and benchmarks."""
import re

from godwit import GUARD_S, check


def numbers(line):
    """name=value words of a line; lists with commas become lists."""
    found = {}
    for name, value in re.findall(r"([\w-]+)=(\S+)", line):
        if re.fullmatch(r"\d+,(\d+,?)*|\d+,", value):
            found[name] = [int(v) for v in value.split(",") if v]
        else:
            found[name] = int(value) if value.isdigit() else value
    return found


def line(vm, first, timeout=GUARD_S):
    """The numbers of the next whole line that begins with these words."""
    return numbers(vm.wait_console(rf"^{first}\b[^\n]*\n", timeout).group(0))


def ready(vm):
    """Waits until it works; the numbers of its lines `guest` and `ready`."""
    vm.wait_console(r"^bare 1\r?\n")
    return {**line(vm, "guest"), **line(vm, "ready")}


def progress(vm):
    """Asks for a progress line. Lists have one number a CPU."""
    vm.send("p")
    found = line(vm, "progress")
    for name in ("work", "gap", "max"):
        if not isinstance(found[name], list):
            found[name] = [found[name]]
    return found


def worked(vm, before):
    """A progress line after which every CPU has done more than in `before` ("work" of another)."""
    while True:
        now = progress(vm)
        if all(new > old for new, old in zip(now["work"], before)):
            return now


def verify(vm):
    """Has the guest check its memory; fails with the guest's own words."""
    vm.send("c")
    match = vm.wait_console(r"^check (ok|bad)[^\n]*\n")
    check(match.group(1) == "ok", f"the guest finds its memory changed: {match.group(0).strip()}")
    return numbers(match.group(0))


def works_on(vm):
    """It makes progress, its memory is whole and time has never gone backwards."""
    before = progress(vm)
    after = progress(vm)
    check(after["tsc"] > before["tsc"], f"time stands still: {before} {after}")
    check(after["back"] == 0, f"time has gone backwards: {after}")
    verify(vm)
    return after
