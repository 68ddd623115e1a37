"""Who connects to a waiting receive, or has written a file for restore, is a stranger: what it may choose is its guest."""
import os
import re
import socket
import stream
import termios
import bare
import godwit
from godwit import check, test
from live import MEMORY, WORDS, migrate, start, stays


def waiting(place, *args, listen="tcp:127.0.0.1:0", **options):
    """A receive to which nothing is allowed, and where it listens."""
    vm = place.vm("receive", "--listen", listen, *args, **{"console": None, **options})
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
    return "" if text[:4] == bytes(4) else text.decode()  # no text begins so: features and costs


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
    check(not os.path.exists(place.path("console-b")), "a stranger has made a file")


@test
def guest_moves_with_what_is_named_or_allowed_and_nothing_else(place):
    os.mkdir(place.path("in"))
    disk = place.file("in/disk", b"\0" * (1 << 20))
    source = start(place, WORDS, "--disk", disk, "--channel", f"a.0,socket={place.path('in/a')}")
    channel = f"a.0,socket={place.path('b')}"
    for options, missing in (([], "disk0: "), (["--disk", f"disk0={disk}"], "channel a.0: "),
                             (["--channel", channel], "disk0: "), (["--allow-path", place.runtime], "disk0: ")):
        target, uri = waiting(place, "--once", *options)
        reply = migrate(source, uri)
        check(reply["status"] == "failed" and f"refuses: {missing}" in reply["error-desc"]
              and "--same-paths" in reply["error-desc"], str(reply))
        stays(source, target)
    for options in (["--allow-path", place.path("in"), "--channel", channel],
                    ["--disk", f"disk0={disk}", "--channel", f"a.0,socket={place.path('c')}"]):
        target, uri = waiting(place, *options)
        reply = migrate(source, uri)
        check(reply["status"] == "completed" and source.wait() == 0, f"{options}: {reply}")
        check("will not be able to reboot" in target.stderr() and "console is stdio" not in target.stderr(), target.stderr())
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


class Stranger:
    """One that is connected; it is gone with the test."""

    def __init__(self, place, uri, words=b""):
        self.place, self.uri, self.words = place, uri, words
        self.call()

    def call(self):
        self.socket = connect(self.uri)
        self.place.to_close.append(self.socket)
        self.socket.sendall(self.words)

    def is_sent_away(self):
        """Whatever it is told: the connection ends."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        self.socket.close()

    def is_made_a_machine(self):
        """One that speaks just while another's arrival ends may be cut off, and calls again (README)."""
        for _ in range(5):
            try:
                said = answer(self.socket)
            except ConnectionError:
                said = None
            if said is not None:
                break
            self.call()
        check(said == "", f"refused: {said!r}")
        return self

    def says(self, words):
        self.socket.sendall(words)
        return self


def bad_callers(place, uri, content):
    """All kinds of callers that bring no guest; each is over before the next one comes."""
    start_ = beginning(content)
    pages = next(r for r in stream.records(content) if r.name == "PAGES")
    Stranger(place, uri).socket.close()
    Stranger(place, uri, b"GET / HTTP/1.0\r\n\r\n and a bit more of it").is_sent_away()
    Stranger(place, uri, start_[:len(start_) // 2]).socket.close()
    Stranger(place, uri, beginning(content, lambda body: body.replace(b"virtio-rng\0", b"virtio-gpu\0"))).is_sent_away()
    Stranger(place, uri, start_).is_made_a_machine().socket.close()
    Stranger(place, uri, start_).is_made_a_machine().says(b"x" * 64).is_sent_away()
    Stranger(place, uri, start_).is_made_a_machine().says(content[pages.offset:pages.data.offset]).socket.close()
    return Stranger(place, uri, start_).is_made_a_machine()  # and then nothing


def receives_still(place, vm, target, uri):
    before = bare.progress(vm)
    with vm.qmp() as qmp:
        for _ in range(5):
            qmp.execute("migrate", {"uri": uri})
            reply = godwit.wait_until(lambda: (r := qmp.execute("query-migrate"))["status"] in
                                      ("completed", "failed") and r, "the end")
            if "waiting for CHECKED" not in reply.get("error-desc", "") or "closed" not in reply["error-desc"]:
                break
    check(reply["status"] == "completed" and vm.wait() == 0, f"{reply} {target.stderr()}")
    check(bare.works_on(target)["tsc"] > before["tsc"], "time")


@test
def callers_without_a_guest_neither_end_nor_occupy_a_waiting_receive(place):
    godwit.need_real_time()  # within the silence that is allowed
    content = saved(place)
    vm = start(place)
    target, uri = waiting(place, "--silence", "2")
    silent = bad_callers(place, uri, content)
    # It still is there when the real one comes; nobody has to do anything.
    receives_still(place, vm, target, uri)
    silent.is_sent_away()
    lines = target.stderr().splitlines()
    # Strangers do not fill the log, nor do those who never send a guest keep out the line of one that failed.
    for about in "godwit: a connection", r"godwit: (a guest was refused|the guest did not arrive)":
        check(len([line for line in lines if re.match(about, line)]) == 1, f"not one line of {about}: {lines}")
    check(target.cli("quit").returncode == 0 and target.wait() == 0, target.stderr())


@test
def silent_source_is_given_up_and_a_cancelled_one_is_not_the_last(place):
    content = saved(place)
    vm = start(place)
    target, uri = waiting(place, "--silence", "1", "--verbose", listen=f"unix:{place.path('s')}")
    silent = Stranger(place, uri, beginning(content)).is_made_a_machine()
    check("sent nothing for" in target.errors.wait(r"^.*did not arrive.*\n", godwit.GUARD_S).group(0), target.stderr())
    silent.is_sent_away()
    with vm.qmp() as qmp:
        qmp.execute("migrate-set-parameters", {"max-bandwidth": 1 << 20})
        qmp.execute("migrate", {"uri": uri})
        # It takes as long as it takes, whoever else comes.
        godwit.wait_until(lambda: qmp.execute("query-migrate")["ram"]["transferred"] > 1 << 20, "a second's bytes")
        said = answer(Stranger(place, uri, beginning(content)).socket)
        check(said == "another guest is just coming in here", f"{said!r}")
        qmp.execute("migrate_cancel")
        godwit.wait_until(lambda: qmp.execute("query-migrate")["status"] == "cancelled", "cancelled")
        qmp.execute("migrate-set-parameters", {"max-bandwidth": 0})
    check(target.errors.wait(r"^.*did not arrive.*waiting for the next one.*\n", godwit.GUARD_S), target.stderr())
    receives_still(place, vm, target, uri)
    check(not os.path.exists(place.path("s")), "its socket is left")


@test
def machine_that_is_too_large_is_refused(place):
    content = saved(place)
    for options, why in ((["--memory-max", "8M"], "the machine has 16 MiB of memory, --memory-max allows 8 MiB"),
                         (["--memory-max", "16M"], "")):
        target, uri = waiting(place, *options)
        with connect(uri) as s:
            s.sendall(beginning(content))
            check(answer(s) == why, why)
    done = place.godwit("restore", place.path("made"), "--memory-max", "8M", "--name", "x", "--console", "null")
    check(done.returncode == 1 and "16 MiB" in done.stderr, done.stderr)


@test
def rights_are_there_again_for_the_next_guest(place):
    godwit.need_root()
    disk = place.file("disk", b"\0" * (1 << 20))
    os.chmod(disk, 0o600)
    content = saved(place, "--disk", disk)
    vm = start(place, WORDS, "--disk", disk)
    target, uri = waiting(place, "--silence", "2", "--user", "nobody", "--disk", f"disk0={disk}")
    with vm.qmp() as qmp:  # the lock of the image would keep a stranger out
        qmp.execute("migrate-set-parameters", {"max-bandwidth": 1 << 20})
        qmp.execute("migrate", {"uri": uri})
        godwit.wait_until(lambda: qmp.execute("query-migrate")["ram"]["transferred"] > 1 << 20, "it has begun")
        qmp.execute("migrate_cancel")
        godwit.wait_until(lambda: qmp.execute("query-migrate")["status"] == "cancelled", "cancelled")
        qmp.execute("migrate-set-parameters", {"max-bandwidth": 0})
    check(target.errors.wait(r"^.*waiting for the next one.*\n", godwit.GUARD_S), target.stderr())
    receives_still(place, vm, target, uri)
    check(target.status("Uid").split()[0] != "0", "it is root")
    check(target.cli("quit").returncode == 0 and target.wait() == 0, target.stderr())


@test
def receiver_that_crashes_before_its_guest_is_there_is_followed_by_another(place):
    godwit.need_root()
    content = saved(place)
    vm = start(place)
    target, uri = waiting(place)
    Stranger(place, uri, beginning(content)).is_made_a_machine()
    os.kill(target.machine_pid(), 6)
    check(target.errors.wait(r"^.*ended by signal 6.*\n", godwit.GUARD_S), target.stderr())
    receives_still(place, vm, target, uri)
    os.kill(target.machine_pid(), 9)
    check(target.wait() == 1, "the end of its guest is its end")


@test
def terminal_of_a_receive_is_raw_only_while_a_guest_is_there(place):
    godwit.need_root()
    content = saved(place)
    vm = start(place)
    master, slave = os.openpty()
    place.on_close.extend((lambda: os.close(master), lambda: os.close(slave)))
    before = termios.tcgetattr(slave)
    target, uri = waiting(place, console="stdio", preexec=lambda: os.dup2(slave, 0))
    os.dup2(master, target.input)
    stranger = Stranger(place, uri, beginning(content)).is_made_a_machine()
    check(termios.tcgetattr(slave) == before, "a stranger's machine has it")
    stranger.socket.close()
    receives_still(place, vm, target, uri)
    check(not termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ISIG), "it is not raw")
    os.kill(target.machine_pid(), 9)
    check(target.wait() == 1 and termios.tcgetattr(slave) == before, "it was left raw")


@test
def migration_takes_no_descriptor_but_a_connection_that_the_vm_was_started_with(place):
    listener = socket.create_server(("127.0.0.1", 0))
    target, uri = waiting(place)
    connection = connect(uri)
    extra = (listener.fileno(), connection.fileno())
    vm = place.bare("fill=1", *MEMORY, pass_fds=extra)
    bare.ready(vm)
    listener.close()
    with vm.qmp() as qmp:
        for number in range(64):
            if number == extra[1]:
                continue
            try:
                qmp.execute("migrate", {"uri": f"fd:{number}"})
                check(False, f"fd:{number} is taken")
            except godwit.QmpError as error:
                check("no connection that this VM was started with" in error.desc, error.desc)
        # It is there still, for the one that it was meant for, and once only.
        qmp.execute("migrate", {"uri": f"fd:{extra[1]}"})
        connection.close()
    check(vm.wait() == 0, vm.stderr())
    bare.works_on(target)
