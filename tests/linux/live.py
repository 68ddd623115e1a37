"""A Linux guest is moved while it works: back and forth on one host, and over a slow link to another.

Two hosts are two network namespaces. What the guest talks to is in a third:

    peer            host a                             host b
    peer ---------- host, tap0, tap1 + bridge          tap0 + bridge
                                       | lan -------- lan |
                    wire 10.214.N.1 --- LINK --- wire 10.214.N.2

The guest's network is the bridges; it does not notice which tap it is behind. Memory goes over wire, a
veth pair of limited rate.
"""
import collections
import os
import re
import signal
import socket
import subprocess

from godwit import Failed, Output, Skip, check, moves, wait_until
from guest import CHANNEL, GUARD_S, MADE, MIB, PORT, Guest, promise, run
import life
import policy

LINK = ("rate", "200mbit", "burst", "256kb", "latency", "200ms")
PING_S = 0.2
MOVES = 6
FREED_MIB = 48
FREED_LEAST_MIB = 36  # of them in pieces that are large enough to be reported
BALLOON_MIB = 64
BALLOON_LEAST_MIB = 32  # of them were in use

Pause = collections.namedtuple("Pause", "begin end")  # of the guest, by the host's clock


class Ping:
    """Echo requests, several a second, until it is ended; what became of each."""

    def __init__(self, prefix, address):
        # -D: lines have times, -O: it says so when a request is sent and the one before has no answer.
        self.process = subprocess.Popen([*prefix, "ping", "-n", "-D", "-O", "-i", str(PING_S), address],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)
        self.output = Output(os.dup(self.process.stdout.fileno()))
        self.process.stdout.close()

    def await_answer(self):
        """Two more: the guest answers now."""
        self.output.skip()
        for _ in range(2):
            check(self.output.wait(r"icmp_seq=\d+ ttl", GUARD_S), f"ping has ended: {self.output.text}")

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(GUARD_S)
            self.output.thread.join(GUARD_S)

    def answers(self):
        """{number: (when it was sent, when the answer came)}, and all that came twice."""
        found, twice = {}, []
        for at, number, ms in re.findall(r"^\[([\d.]+)\] \d+ bytes .*icmp_seq=(\d+) .*time=([\d.]+) ms",
                                         self.output.text, re.MULTILINE):
            if int(number) in found:
                twice.append(int(number))
            found[int(number)] = (float(at) - float(ms) / 1000, float(at))
        return found, twice

    def check(self, pauses):
        """Nothing is lost but what was on its way while the guest stood still. A sentence on it."""
        found, twice = self.answers()
        check(found and not twice, f"answers came twice: {twice}")
        # What -O says of a request, it says when the next one is sent.
        after = {int(number): float(at) for at, number in re.findall(
            r"^\[([\d.]+)\] no answer yet for icmp_seq=(\d+)", self.output.text, re.MULTILINE)}
        # Those after the last answer were on their way when it was ended.
        lost = sorted(set(range(1, max(found))) - set(found))
        for number in lost:
            # Not before then; and requests overtake none: once a later one is answered, it is lost.
            sent = found[number - 1][0] if number - 1 in found else after.get(number - 1, 0)
            overtaken = min(came for later, (_, came) in found.items() if later > number)
            check(any(sent <= p.end and overtaken >= p.begin for p in pauses),
                  f"echo request {number}, sent after {sent:.3f}, was lost by {overtaken:.3f}, and the "
                  f"guest ran then; it stood still {pauses}")
        longest = max(came - sent for sent, came in found.values())
        return f"{len(found)} answered, {len(lost)} lost, {longest:.3f} s the longest"


def migrate(vm, uri, policy=None):
    """To a waiting godwit; the Pause when that has gone well, what was decided, what query-migrate said of memory."""
    times, decisions = {}, []
    with vm.qmp() as qmp:
        if policy:
            qmp.execute("migrate-set-parameters", {"x-godwit-policy": policy})
        qmp.execute("migrate", {"uri": uri})
        while "completed" not in times:
            event = qmp.next_event(GUARD_S)
            if event["event"] == "GODWIT_DECISION":
                decisions.append(f"{event['data']['action']}: {event['data']['reason']}")
            if event["event"] != "MIGRATION":
                continue
            status, at = event["data"]["status"], event["timestamp"]
            times[status] = at["seconds"] + at["microseconds"] / 1e6
            if status in ("failed", "cancelled", "x-godwit-undecided"):
                why = qmp.execute("query-migrate").get("error-desc")
                raise Failed(f"the migration to {uri} has {status}: {why}")
        ram = qmp.execute("query-migrate")["ram"]
    return Pause(times["device"], times["completed"]), decisions, ram


class Moving(Guest):
    """A guest with two hosts, one of them with two taps."""

    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        self.a, self.b, self.peer_name = (f"gwt{os.getpid()}.{name}" for name in ("a", "b", "peer"))
        self.tap = "tap0"
        self.moved = 0
        self.pauses = []
        self.ping = None
        self.ram = None  # what query-migrate said of the last move
        with_agent = os.path.join(MADE, "with-agent.cpio")
        self.has_agent = os.path.exists(with_agent)
        if self.has_agent:
            self.initrd = with_agent
        self.stages += [("loaded", Moving.work), ("moved", Moving.move_about),
                        ("loaded again", Moving.work), ("crossed", Moving.cross_over),
                        *policy.STAGES, ("served", Moving.start_agent)]

    def make_network(self):
        """None, or why there is none."""
        a, b, peer = self.a, self.b, self.peer_name
        link = f"10.214.{self.number}"
        for name in (a, b, peer):
            words = ("netns", "add", name)
            done = run("ip", *words)
            if done.returncode:
                return f"ip {' '.join(words)}: {done.stderr.strip()}"
            self.place.on_close.append(lambda name=name: run("ip", "netns", "delete", name))
        words = [f"ip -n {host} link set lo up" for host in (a, b)]
        words += [f"ip -n {host} link add bridge type bridge" for host in (a, b)]
        words += [f"ip -n {a} link add host type veth peer name peer netns {peer}",
                  f"ip -n {a} link add lan type veth peer name lan netns {b}",
                  f"ip -n {a} link add wire type veth peer name wire netns {b}"]
        ports = [(a, "tap0"), (a, "tap1"), (b, "tap0"), (a, "host"), (a, "lan"), (b, "lan")]
        words += [f"ip -n {host} tuntap add dev {port} mode tap" for host, port in ports[:3]]
        words += [f"ip -n {host} link set {port} master bridge up" for host, port in ports]
        words += [f"ip -n {host} link set bridge up" for host in (a, b)]
        words += [f"ip -n {a} address add {link}.1/30 dev wire",
                  f"ip -n {b} address add {link}.2/30 dev wire",
                  f"ip -n {peer} address add {self.host_address}/30 dev peer",
                  f"ip -n {peer} link set peer up"]
        words += [f"ip -n {host} link set wire up" for host in (a, b)]
        words += [f"tc -n {host} qdisc add dev wire root tbf {' '.join(LINK)}" for host in (a, b)]
        for line in words:
            done = run(*line.split())
            if done.returncode:
                return f"{line}: {done.stderr.strip()}"
        self.prefix = ("ip", "netns", "exec", a)
        self.peer_prefix = ("ip", "netns", "exec", peer)
        return None

    # -- stages --

    def work(self):
        life.start_load(self)
        if not self.network:
            self.ping = Ping(self.peer_prefix, self.address)
            self.ping.await_answer()
        self.pauses = []

    def move_about(self):
        """Between two taps of one host."""
        for i in range(moves(MOVES)):
            self.move(f"tap{(i + 1) % 2}", self.prefix, "127.0.0.1")
        self.end_ping()

    def cross_over(self):
        """To the other host and back."""
        self.need_network()
        link = f"10.214.{self.number}"
        self.move("tap0", ("ip", "netns", "exec", self.b), f"{link}.2")
        self.move("tap1", self.prefix, f"{link}.1")
        self.end_ping()

    def start_agent(self):
        """qemu-guest-agent, and a hook that writes down what it is told, and waits while there is /tmp/wait."""
        if not self.has_agent:
            raise Skip("no qemu-guest-agent (scripts/fetch-agent)")
        hook = "/etc/qemu/migration-hook.d/note"
        self.sh(f"printf '#!/bin/sh\\necho $1 >>/tmp/told\\nwhile [ -e /tmp/wait ]; do sleep 0.1; done\\n' >{hook}; "
                f"chmod +x {hook}; /usr/sbin/qemu-ga -m virtio-serial -p {PORT} -t /run >/tmp/agent.out 2>&1 & agent=$!")
        # As a program of the host, which then leaves the channel to others.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(GUARD_S)
            client.connect(self.channel_path)
            client.sendall(b'{"execute": "guest-ping"}\n')
            said = client.recv(4096)
            check(said == b'{"return": {}}\n', f"the agent says {said} and {self.sh('cat /tmp/agent.out')}")

    def told(self, *events):
        """What the hook has heard, when it has heard so many."""
        def heard():
            return self.try_sh("cat /tmp/told 2>/dev/null")[1].split()
        wait_until(lambda: len(heard()) >= len(events), f"the hook hears {events}, heard {heard()}", GUARD_S)
        check(heard() == list(events), f"the hook has heard {heard()}")
        return True

    def link_limits(self):
        """How often each end of the slow link had to hold packets back."""
        said = [run("tc", "-n", host, "-s", "qdisc", "show", "dev", "wire").stdout
                for host in (self.a, self.b)]
        return [int(re.search(r"overlimits (\d+)", text).group(1)) for text in said]

    def destination(self, tap, prefix, address):
        """A godwit there that waits for the guest, and the URI to reach it."""
        number = self.moved + 1
        words = ["--channel", f"{CHANNEL},socket={self.channel_of(number)}"]
        if not self.network:
            words += ["--net", f"net0=tap:{tap}"]
        target = self.place.vm("receive", "--listen", f"tcp:{address}:0", "--same-paths", "--once", "--verbose", *words, prefix=prefix)
        said = target.errors.wait(r"waiting for a guest on (\S+)\n", GUARD_S)
        check(said, f"move {number}: the destination does not listen: {target.stderr()}")
        return target, said.group(1)

    def channel_of(self, number):
        return self.place.path(f"channel{number}")

    def move(self, tap, prefix, address, policy=None):
        """Live, to a new godwit there; its decisions."""
        before = self.progress()
        target, uri = self.destination(tap, prefix, address)
        pause, decisions, self.ram = migrate(self.vm, uri, policy)
        self.pauses.append(pause)
        self.arrived(target, tap, before)
        return decisions

    def arrived(self, target, tap, before):
        """Every load goes on from before, at the target, and the source has ended with 0."""
        source, number = self.vm, self.moved + 1
        self.vm, self.channel_path, self.tap, self.moved = target, self.channel_of(number), tap, number
        self.await_more(before)
        if self.ping and self.ping.process.poll() is None:
            self.ping.await_answer()
        code = source.wait(GUARD_S)
        check(code == 0, f"move {number}: the source ended with {code}: {source.stderr()}")
        # Of no interest any more, and there may be hundreds of them.
        self.place.vms.remove(source)

    def other_tap(self):
        return "tap1" if self.tap == "tap0" else "tap0"

    def end_ping(self):
        if self.ping:
            self.ping.end()

    def close(self):
        self.end_ping()
        super().close()

    def leftovers(self):
        """What should not be there once it has ended."""
        left = self.place.leftovers()
        left += [name for name in os.listdir(self.place.dir) if name.startswith("channel")]
        for name in (self.a, self.b, self.peer_name) if not self.network else ():
            left += [f"process {pid} in {name}" for pid in run("ip", "netns", "pids", name).stdout.split()]
        return left


def tests():
    count = moves(MOVES)

    @promise("moving", "moved")
    def guest_moves_back_and_forth_while_it_works(g):
        check(g.moved == count, f"it has moved {g.moved} times, not {count}")

    kept("moved", "moves_back_and_forth")

    @promise("moving", "crossed")
    def guest_moves_to_another_host_over_a_slow_link_while_it_works(g):
        check(g.moved == count + 2, f"it has moved {g.moved} times, not {count + 2}")
        check(all(g.link_limits()), "the link was never the limit")

    kept("crossed", "moves_between_two_hosts")
    free_memory_tests()
    policy.tests()

    @promise("moving", "served")
    def agent_hears_before_the_guest_is_parked_and_after_it_has_moved(g):
        ran = "/etc/qemu/migration-hook has run in the guest, and ended with 0"
        decisions = g.move(g.other_tap(), g.prefix, "127.0.0.1", policy="minimal-downtime")
        kinds = [d for d in decisions if d.startswith(("guest-event", "switchover"))]
        check(len(kinds) == 2 and kinds[0] == f"guest-event: before_migration: {ran}", str(decisions))
        g.told("before_migration", "after_migration")
        said = f"decision: guest-event: after_migration: {ran}"
        check(g.vm.errors.wait(re.escape(said), GUARD_S), f"no '{said}' in {g.vm.stderr()}")

    @promise("moving", "served")
    def agent_of_a_cancelled_migration_hears_that_it_is_over(g):
        g.sh("rm -f /tmp/told; touch /tmp/wait")
        target = g.place.vm("receive", "--listen", "tcp:127.0.0.1:0", "--same-paths", "--once", "--channel",
                            f"{CHANNEL},socket={g.place.path('elsewhere')}",
                            *(() if g.network else ("--net", f"net0=tap:{g.other_tap()}")), prefix=g.prefix)
        said = target.errors.wait(r"waiting for a guest on (\S+)\n", GUARD_S)
        check(said, f"the destination does not listen: {target.stderr()}")
        with g.vm.qmp() as qmp:
            qmp.execute("migrate-set-parameters", {"x-godwit-policy": "minimal-downtime"})
            qmp.execute("migrate", {"uri": said.group(1)})
            g.told("before_migration")
            qmp.execute("migrate_cancel")
            qmp.wait_event("MIGRATION", GUARD_S, status="cancelled")
        g.sh("rm /tmp/wait")
        g.told("before_migration", "after_migration")
        check(target.wait(GUARD_S) == 1, f"the destination: {target.stderr()}")

    @promise("moving")
    def nothing_is_left_behind_when_a_moved_guest_has_ended(g):
        g.vm.send("poweroff -f\n")
        g.end()
        left = g.leftovers()
        check(not left, f"left behind: {', '.join(left)}")


def resident(vm):
    """Bytes of the host's memory that the VM has."""
    with open(f"/proc/{vm.process.pid}/status") as f:
        return int(re.search(r"^VmRSS:\s+(\d+) kB", f.read(), re.MULTILINE).group(1)) << 10


def ballooned(vm):
    """Bytes of its RAM that the guest has left."""
    with vm.qmp() as qmp:
        return qmp.execute("query-balloon")["actual"]


def balloon(vm, left):
    """Asks the guest to have so many bytes of its RAM, and waits until it has."""
    with vm.qmp() as qmp:
        qmp.execute("balloon", {"value": left})
    wait_until(lambda: ballooned(vm) == left, f"the guest has {left} bytes", GUARD_S)


def free_memory_tests():
    """Of the same guest, which has no load any more."""
    @promise("moving", "crossed")
    def memory_that_the_guest_has_freed_is_not_sent(g):
        g.ping = None
        g.sh(f"pattern put /tmp/freed 61 {FREED_MIB}M")
        full = resident(g.vm)
        check(full > FREED_MIB * MIB, f"{full} bytes are resident")
        g.sh("rm /tmp/freed")
        wait_until(lambda: resident(g.vm) < full - FREED_LEAST_MIB * MIB,
                   f"the host has back what is free, of {full} bytes", GUARD_S)
        g.move(g.other_tap(), g.prefix, "127.0.0.1")
        sent = g.ram["normal-bytes"]
        print(f"# {full >> 20} MiB were in use, {FREED_MIB} of them freed, {sent >> 20} MiB sent")
        check(sent < full - FREED_LEAST_MIB * MIB, f"{sent} bytes were sent, of {full}")
        g.sh(f"pattern get /tmp/blob 41 {life.BLOB_MIB}M")

    @promise("moving", "crossed")
    def balloon_takes_memory_moves_along_and_gives_it_back(g):
        ram = ballooned(g.vm)
        check(ram == 192 * MIB, f"the guest has {ram} bytes of its 192 MiB")
        # What caches hold is in use, and no report tells of it.
        g.sh("dd if=/dev/vda of=/dev/null bs=1M count=64")
        full = resident(g.vm)
        balloon(g.vm, ram - BALLOON_MIB * MIB)
        left = resident(g.vm)
        check(left < full - BALLOON_LEAST_MIB * MIB, f"of {full} resident bytes {left} are left")
        g.move(g.other_tap(), g.prefix, "127.0.0.1")
        check(ballooned(g.vm) == ram - BALLOON_MIB * MIB, f"it has {ballooned(g.vm)} bytes now")
        arrived = resident(g.vm)
        print(f"# {full >> 20} MiB were in use, {left >> 20} with {BALLOON_MIB} less, {arrived >> 20} there")
        check(arrived < full - BALLOON_LEAST_MIB * MIB, f"of {full} bytes {arrived} have come")
        balloon(g.vm, ram)
        # It is used again, and nothing else has suffered.
        g.sh(f"pattern put /tmp/again 62 {FREED_MIB}M; pattern get /tmp/again 62 {FREED_MIB}M; rm /tmp/again")
        g.sh(f"pattern get /tmp/blob 41 {life.BLOB_MIB}M")
        g.check_log()


def kept(stage, how):
    life.goes_on("moving", stage, how)

    @promise("moving", stage, f"echo_requests_are_lost_only_while_the_guest_stands_still_in_{how}")
    def echo_requests(g):
        g.need_network()
        said = g.ping.check(g.pauses)
        print(f"# {len(g.pauses)} pauses, {max(p.end - p.begin for p in g.pauses):.3f} s the longest; ping: {said}")
