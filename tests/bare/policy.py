"""Migrations that do not finish by themselves: policies, force, and whose turn it is."""
import json

import bare
import live
from godwit import check, need_real_time, test, wait_until

# Over this link a guest that rewrites 16 MiB flat out needs a second a round, for ever.
ENDLESS = "fill=6 write=4"
LINK = "4M"


def policy(place, convergence, last, maximum=2, first=50):
    """A file with a policy called 'mine' among others; the word for it."""
    def item(ms):
        return {"action": "setDowntime", "params": [str(ms)]} if ms else {"action": "abort", "params": []}
    mine = {"id": {"uuid": "80554327-0569-496b-bdeb-fcbbf52b827d"}, "name": "mine", "maxMigrations": maximum,
            "autoConvergence": False, "migrationCompression": False, "enableGuestEvents": False,
            "config": {"initialItems": [item(first)], "lastItems": [item(ms) for ms in last],
                       "convergenceItems": [{"stallingLimit": n, "convergenceItem": item(ms)} for n, ms in convergence]}}
    return place.file("policies.json", json.dumps([{"name": "another"}, mine])) + "#mine"


@test
def minimal_downtime_moves_an_idle_guest(place):
    vm = live.start(place, "fill=24 idle")
    target, uri = live.destination(place, vm)
    done = vm.cli("migrate", uri, "--policy", "minimal-downtime")
    check(done.returncode == 0 and "downtime: the policy 'Minimal downtime' begins with 100 ms" in done.stdout, str(done))
    check(vm.wait() == 0, "the source did not end with 0")
    bare.verify(target)


@test
def guest_without_an_agent_is_moved_all_the_same_and_it_is_said_why(place):
    channel = f"org.qemu.guest_agent.0,socket={place.path('agent')}"
    moved_channel = f"org.qemu.guest_agent.0,socket={place.path('moved-agent')}"
    for words, why in (((), "the VM has no channel org.qemu.guest_agent.0"),
                       (("--channel", channel), "no program in the guest has opened the channel org.qemu.guest_agent.0")):
        vm = live.start(place, "fill=24 idle", *words)
        target, uri = live.destination(place, vm, *(("--channel", moved_channel) if words else ()))
        done = vm.cli("migrate", uri, "--policy", "minimal-downtime")
        check(done.returncode == 0 and f"guest-event: before_migration: {why}\n" in done.stdout, str(done))
        check("after_migration" not in done.stdout, str(done))
        check(vm.wait() == 0, "the source did not end with 0")
        bare.verify(target)


@test
def policy_gives_up_on_a_guest_that_never_converges_and_it_runs_on(place):
    need_real_time()
    vm = live.start(place, ENDLESS)
    target, uri = live.destination(place, vm)
    words = ("--policy", policy(place, [(1, 60)], [None]), "--bandwidth", LINK)
    done = vm.cli("migrate", uri, *words)
    check(done.returncode == 1, str(done))
    for word in ("policy 'mine': round ", " stalled (2 in all): ", "given up; the guest runs on here"):
        check(word in done.stderr, str(done))
    for word in ("downtime: the policy 'mine' begins with 50 ms\n", "downtime limit 50 -> 60 ms\n", "abort: round ",
                 "forecast: will not converge: the guest writes at least ", "what would help: --auto-converge, --downtime "):
        check(word in done.stdout, f"no '{word}' in {done}")
    live.stays(vm, target)
    # What was set for this migration is as it was before.
    parameters = vm.qmp().execute("query-migrate-parameters")
    check(parameters["x-godwit-policy"] == "" and parameters["downtime-limit"] == 300, str(parameters))


@test
def policy_that_raises_the_downtime_far_enough_moves_it(place):
    need_real_time()
    vm = live.start(place, ENDLESS)
    before = bare.progress(vm)
    target, uri = live.destination(place, vm)
    done = vm.cli("migrate", uri, "--policy", policy(place, [(1, 20000)], [None]), "--bandwidth", LINK)
    check(done.returncode == 0 and "downtime limit 50 -> 20000 ms\n" in done.stdout, str(done))
    live.moved(vm, target, before)


@test
def what_is_chosen_beside_a_policy_goes_before_it(place):
    need_real_time()
    vm = live.start(place, ENDLESS)
    before = bare.progress(vm)
    target, uri = live.destination(place, vm)
    words = ("--policy", "suspend-workload-if-needed", "--compress", "none", "--downtime", 20000, "--bandwidth", LINK)
    done = vm.cli("migrate", uri, *words, "--json")
    answer = json.loads(done.stdout)
    check(done.returncode == 0 and answer["x-godwit-downtime-limit"] == 20000, str(done))
    check("xbzrle-cache" not in answer, str(done))
    live.moved(vm, target, before)


@test
def force_moves_a_guest_that_never_converges(place):
    need_real_time()
    for timeout in ("--timeout=1", "--timeout=1/GiB"):  # in the first round
        vm = live.start(place, ENDLESS)
        before = bare.progress(vm)
        target, uri = live.destination(place, vm)
        done = vm.cli("migrate", uri, timeout, "--timeout-action", "force", "--bandwidth", LINK)
        check(done.returncode == 0 and "force: the timeout of 1 s " in done.stdout, str(done))
        live.moved(vm, target, before)


@test
def force_after_no_progress_moves_it_too(place):
    need_real_time()
    vm = live.start(place, ENDLESS)
    before = bare.progress(vm)
    target, uri = live.destination(place, vm)
    done = vm.cli("migrate", uri, "--progress-timeout", 2, "--timeout-action", "force", "--bandwidth", LINK)
    check(done.returncode == 0 and "force: no progress for 2 s: in round " in done.stdout, str(done))
    live.moved(vm, target, before)


@test
def post_copy_is_refused_by_name_before_anything_moves(place):
    vm = live.start(place)
    target, uri = live.destination(place, vm)
    for words in (("--policy", "post-copy"), ("--timeout", 5, "--timeout-action", "post-copy")):
        done = vm.cli("migrate", uri, *words)
        check(done.returncode == 1 and "post-copy" in done.stderr and "not implemented" in done.stderr, str(done))
    check(vm.qmp().execute("query-migrate") == {}, "a migration was begun")
    live.stays(vm)
    check(target.running(), "the destination is gone")


@test
def migration_waits_for_its_turn_and_says_for_whom(place):
    first, second = live.start(place), live.start(place)
    _, uri = live.destination(place, first)
    target, other_uri = live.destination(place, second)
    qmp, other = first.qmp(), second.qmp()
    qmp.execute("migrate-set-parameters", {"max-bandwidth": 1 << 20})
    qmp.execute("migrate", {"uri": uri})
    wait_until(lambda: qmp.execute("query-migrate").get("ram", {}).get("transferred", 0) > 1 << 19, "some bytes")
    other.execute("migrate-set-parameters", {"x-godwit-policy": "suspend-workload-if-needed"})
    other.execute("migrate", {"uri": other_uri})
    other.wait_event("GODWIT_DECISION")  # how it begins
    data = other.wait_event("GODWIT_DECISION")["data"]
    check(data["action"] == "wait" and data["reason"].endswith(f"under way: {first.name}"), str(data))
    answer = other.execute("query-migrate")
    check(answer["status"] == "setup" and answer["x-godwit-waiting"] == data["reason"], f"it does not wait: {answer}")
    done = second.cli("status")
    check(f", waits: {data['reason']}\n" in done.stdout, str(done))
    # A cancel is taken, and it may ask again.
    other.execute("migrate_cancel")
    check(live.follow(other)["status"] == "cancelled", "not cancelled")
    live.stays(second)
    before = bare.progress(second)
    other.execute("migrate", {"uri": other_uri})
    first.kill()  # however the first one ends
    check(live.follow(other)["status"] == "completed", "not completed")
    live.moved(second, target, before)
