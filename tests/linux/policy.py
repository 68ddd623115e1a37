"""A Linux guest that rewrites memory at full speed is moved under migration policies, over a link far too slow for it.

It is the guest that live.py has moved before. The writers are rewrite.c, which compares what it reads
back. What they do not write is sent first, faster; then the link is made so slow that they outrun it on every host:
each first write to a page after a look costs an exit, and where KVM itself is emulated that makes a guest
whose memory is watched many times slower than it is by itself.
"""
import re
import threading
import time

from godwit import check, wait_until
from guest import GUARD_S, MIB, promise

SETS_MIB = (1, 1, 1)
FIRST_BPS = 20 * MIB
# A round over the working sets counts by itself then (1 s), and none of them fits in the 500 ms that a policy goes up
# to before its last item.
SLOW_BPS = 3 * MIB // 2
# The working sets fit in those 500 ms, though not in the 100 ms that a policy begins with.
ENOUGH_BPS = 6 * MIB
# What a policy may take from the vCPUs, in percent, so that it is not enough.
LITTLE = 10


# -- stages --

def start_writers(g):
    g.ping = None
    g.start("clock", "clock")
    g.start("rewrite", " ".join(f"{mib}M" for mib in SETS_MIB), program="rewrite")
    g.await_progress()


def destination(g):
    """Where the guest is not, on the same host: another tap."""
    return g.destination(g.other_tap(), g.prefix, "127.0.0.1")


def migrate(g, uri, policy, *words, slow_bps=SLOW_BPS):
    """The link gets slow when little more than the working sets is left."""
    done = []
    with g.vm.qmp() as qmp:
        thread = threading.Thread(target=lambda: done.append(
            g.vm.cli("migrate", uri, "--policy", policy, "--bandwidth", FIRST_BPS, *words, timeout=GUARD_S)))
        thread.start()

        def late():
            said = qmp.execute("query-migrate") if thread.is_alive() else None
            if said and (said.get("status") != "active" or said.get("x-godwit-incoming")):
                return False
            return not said or 0 < said["ram"]["remaining"] < 12 * MIB or said["ram"]["dirty-sync-count"] > 1

        try:
            wait_until(late, "the working sets are left", GUARD_S)
            qmp.execute("migrate-set-parameters", {"max-bandwidth": slow_bps})
        finally:
            thread.join()
    return done[0]


def move(g, policy, *words, **link):
    """Under that policy; what godwit migrate has said."""
    before = g.progress()
    target, uri = destination(g)
    done = migrate(g, uri, policy, *words, **link)
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
    check(g.given_up.returncode == 1, f"it has not given up: {g.given_up.stdout}{g.given_up.stderr}")
    check(target.wait(GUARD_S) == 1, f"the destination ended with {target.process.returncode}")
    allow(g, 0)
    g.await_progress()


def slow_down(g):
    g.report = g.place.path("report.html")
    g.slowed = move(g, "minimal-downtime", "--report", g.report, slow_bps=ENOUGH_BPS)


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
        check(done.returncode == 1 and "'Post-copy migration' switches to post-copy, which is not implemented" in
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
