"""Who connects to a waiting receive, or has written a file for restore, is a stranger: what it may choose is its guest."""
import os
import socket
import stream
import bare
import godwit
from godwit import check, test
from live import MEMORY, WORDS, migrate, start, stays


def waiting(place, *args, listen="tcp:127.0.0.1:0", console=None):
    """A receive to which nothing is allowed, and where it listens."""
    vm = place.vm("receive", "--listen", listen, *args, console=console)
    match = vm.errors.wait(r"waiting for a guest on (\S+)\n", godwit.GUARD_S)
    check(match, f"it does not listen: {vm.stderr()}")
    return vm, match.group(1)


def connect(uri):
    if uri.startswith("unix:"):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.connect(uri[5:])
    else:
        host, port = uri[4:].rsplit(":", 1)
        s = socket.create_connection((host.strip("[]"), int(port)))
    s.settimeout(godwit.GUARD_S)
    return s


def saved(place, *args):
    """The records of a small machine, as a stranger who has a godwit of its own would make them."""
    vm = place.bare("fill=1", "--memory", "16M", *args, console=None if "--console" in args else "null")
    godwit.wait_until(lambda: os.path.exists(vm.socket_path), "its socket")
    done = vm.cli("save", place.path("made"))
    check(done.returncode == 0 and vm.wait() == 0, f"save: {done.stderr}")
    with open(place.path("made"), "rb") as f:
        return f.read()


def beginning(content, change=lambda body: body):
    """HELLO and MACHINE of such records, the tree changed without changing its length."""
    machine = next(r for r in stream.records(content) if r.name == "MACHINE")
    body = content[machine.body.offset:machine.body.offset + machine.body.size]
    return stream.with_body(content, machine, change(body))[:machine.end]


def answer(s):
    """What CHECKED says: "" for yes; None when the connection was closed without a word."""
    head = b""
    while len(head) < stream.HEAD.size:
        part = s.recv(stream.HEAD.size - len(head))
        if not part:
            return None
        head += part
    kind, _, _, _, body, _, _ = stream.HEAD.unpack(head)
    check(kind == 6, f"a record {kind}")
    text = b""
    while len(text) < body:
        text += s.recv(body - len(text))
    return text.decode()


@test
def stranger_opens_and_makes_no_file_of_the_host(place):
    disk = place.file("disk-a", b"\0" * (1 << 20))
    secret = place.file("disk-b", b"\0" * (1 << 20))
    content = saved(place, "--console", f"file:{place.path('console-a')}", "--disk", disk)
    plain = saved(place, "--console", f"file:{place.path('console-a')}")

    def elsewhere(body):
        return body.replace(b"/disk-a\0", b"/disk-b\0").replace(b"/console-a\0", b"/console-b\0")

    target, uri = waiting(place)
    with connect(uri) as s:
        s.sendall(beginning(content, elsewhere))
        said = answer(s)
    check(said and "disk0" in said and secret in said and "--disk disk0=PATH" in said, f"{said!r}")
    check(not os.path.exists(place.path("console-b")), "a stranger has made a file")
    target, uri = waiting(place)
    with connect(uri) as s:
        s.sendall(beginning(plain, elsewhere))
        check(answer(s) == "", "a guest that needs nothing of the host is refused")
        check("console is stdio here" in target.errors.wait(r"^.*console.*\n", godwit.GUARD_S).group(0), "not said")
    check(not os.path.exists(place.path("console-b")), "a stranger has made a file")


@test
def guest_moves_with_what_is_named_or_allowed_and_nothing_else(place):
    os.mkdir(place.path("in"))
    disk = place.file("in/disk", b"\0" * (1 << 20))
    source = start(place, WORDS, "--disk", disk, "--channel", f"a.0,socket={place.path('in/a')}")
    channel = f"a.0,socket={place.path('b')}"
    for options, missing in (([], "disk0: "), (["--disk", f"disk0={disk}"], "channel a.0: "),
                             (["--channel", channel], "disk0: "), (["--allow-path", place.runtime], "disk0: ")):
        target, uri = waiting(place, *options)
        reply = migrate(source, uri)
        check(reply["status"] == "failed" and f"refuses: {missing}" in reply["error-desc"]
              and "--same-paths" in reply["error-desc"], str(reply))
        stays(source, target)
    for options in (["--allow-path", place.path("in"), "--channel", channel],
                    ["--disk", f"disk0={disk}", "--channel", f"a.0,socket={place.path('c')}"]):
        target, uri = waiting(place, *options)
        reply = migrate(source, uri)
        check(reply["status"] == "completed" and source.wait() == 0, f"{options}: {reply}")
        check("will not be able to reboot" in target.stderr(), target.stderr())
        bare.works_on(target)
        source = target


@test
def file_that_others_can_write_is_not_taken_at_its_word(place):
    disk = place.file("disk", b"\0" * (1 << 20))
    vm = place.bare("fill=1", *MEMORY, "--disk", disk)
    bare.ready(vm)
    path = place.path("saved")
    check(vm.cli("save", path).returncode == 0 and vm.wait() == 0, "save")
    os.chmod(path, 0o622)
    done = place.godwit("restore", path, "--name", "again", "--console", "null")
    check(done.returncode == 1 and f"{path} can be written by other users (mode 0622)" in done.stderr
          and "disk0: the file has its image at" in done.stderr and "--same-paths" in done.stderr, done.stderr)
    for options in (["--disk", f"disk0={disk}"], ["--same-paths"], []):
        if not options:
            os.chmod(path, 0o600)
        vm = place.restore(path, *options, "--kernel", godwit.BARE)
        bare.works_on(vm)
        check(vm.cli("quit").returncode == 0 and vm.wait() == 0, "quit")
