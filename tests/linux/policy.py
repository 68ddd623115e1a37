"""A Linux guest that rewrites memory at full speed is moved under migration policies, over a link far too slow for it.

It is the guest that live.py has moved before. The writers are rewrite.c, which compares what it reads
back. How fast they are is measured, and the link made slower by as much as tells.
"""
import re
import time

from godwit import check
from guest import GUARD_S, MIB, promise

SETS_MIB = (1, 4, 8)
# The link is slower than the guest by this factor at least, and so slow that the working sets take this long: a round
# then counts by itself (1 s), and the working sets do not fit in the 500 ms that a policy goes up to before its last item.
SLOWER = 4
ROUND_S = 1.5
# What a policy may take from the vCPUs, in percent, so that it is not enough.
LITTLE = 10


# -- stages --

def start_writers(g):
    g.ping = None
    g.start("clock", "clock")
    g.start("rewrite", " ".join(f"{mib}M" for mib in SETS_MIB), program="rewrite")
    g.await_progress()
    before, began = sum(g.progress()["rewrite"]), time.monotonic()
    time.sleep(2)
    speed = 4096 * (sum(g.progress()["rewrite"]) - before) / (time.monotonic() - began)
    g.link = int(min(speed / SLOWER, sum(SETS_MIB) * MIB / ROUND_S))
    print(f"# the guest rewrites {speed / MIB:.1f} MiB/s; the link: {g.link / MIB:.1f} MiB/s")


def destination(g):
    """Where the guest is not, on the same host: another tap."""
    return g.destination(g.other_tap(), g.prefix, "127.0.0.1")


def migrate(g, uri, policy, *words):
    return g.vm.cli("migrate", uri, "--policy", policy, "--bandwidth", g.link, *words, timeout=GUARD_S)


def move(g, policy, *words):
    """Under that policy; what godwit migrate has said."""
    before = g.progress()
    target, uri = destination(g)
    done = migrate(g, uri, policy, *words)
    check(done.returncode == 0, f"migrate ended with {done.returncode}: {done.stdout}{done.stderr}")
    g.arrived(target, g.other_tap(), before)
    return done.stdout


def allow(g, percent):
    """So much may be taken from the vCPUs; 0: what is needed."""
    done = g.vm.cli("set", f"max-cpu-throttle={percent}")
    check(done.returncode == 0, f"set: {done.stderr}")


def query(g):
    with g.vm.qmp() as qmp:
        return qmp.execute("query-migrate")


def check_unslowed(g):
    percent = query(g).get("cpu-throttle-percentage", 0)
    check(percent == 0, f"it is still slowed by {percent} %")


def give_up(g):
    allow(g, LITTLE)
    target, uri = destination(g)
    g.given_up = migrate(g, uri, "minimal-downtime")
    check(target.wait(GUARD_S) == 1, f"the destination ended with {target.process.returncode}")
    allow(g, 0)
    g.await_progress()


def slow_down(g):
    g.report = g.place.path("report.html")
    g.slowed = move(g, "minimal-downtime", "--report", g.report)


def suspend(g):
    allow(g, LITTLE)
    g.suspended = move(g, "suspend-workload-if-needed")


STAGES = [("rewritten", start_writers), ("given up", give_up), ("slowed", slow_down), ("suspended", suspend)]


# -- tests --

def limits(said):
    """The downtime limits that a migration went through, ms."""
    return [int(ms) for ms in re.findall(r"^downtime: .* (\d+) ms$", said, re.MULTILINE)]


def tests():
    @promise("moving", "rewritten")
    def post_copy_policy_is_refused_by_name_and_the_guest_runs_on(g):
        before, last = g.progress(), query(g)
        done = g.vm.cli("migrate", "tcp:127.0.0.1:1", "--policy", "post-copy")
        check(done.returncode == 1 and "'Post-copy migration' goes over to post-copy: post-copy is not there yet" in
              done.stderr, str(done))
        # What it tells is still how the guest came here.
        check(last["x-godwit-incoming"] and query(g) == last, f"a migration was begun: {query(g)}")
        g.await_more(before)

    @promise("moving", "given up")
    def policy_gives_up_where_slowing_is_bounded_and_the_guest_runs_on_unslowed(g):
        done = g.given_up
        check(done.returncode == 1 and "given up; the guest runs on here" in done.stderr, str(done))
        check(f"throttle: {LITTLE}.0 % taken from the vCPUs" in done.stdout, str(done))
        check(limits(done.stdout) == [100, 150, 200, 300, 400, 500], str(done))
        check_unslowed(g)

    @promise("moving", "slowed")
    def minimal_downtime_slows_a_guest_that_writes_too_much_until_it_arrives(g):
        check("throttle: " in g.slowed, g.slowed)
        with open(g.report) as f:
            text = f.read()
        for word in ("<svg", "Throttle", "the policy &#39;Minimal downtime&#39; begins with 100 ms"):
            check(word in text, f"no '{word}' in the report")

    @promise("moving", "suspended")
    def suspend_workload_moves_it_by_a_long_pause_where_slowing_is_not_enough(g):
        check(limits(g.suspended) == [100, 150, 200, 300, 400, 500, 5000], g.suspended)

    @promise("moving", "suspended")
    def memory_that_was_rewritten_all_the_while_is_whole(g):
        g.stop("rewrite")

    @promise("moving", "suspended")
    def time_only_goes_forward_under_policies(g):
        g.stop("clock")

    @promise("moving", "suspended")
    def log_has_no_complaint_after_policies(g):
        g.check_log()
