"""godwit migrate --check: says what would become of it, and changes nothing, here or there."""
import json
import signal
import subprocess

import bare
import godwit
import live
from godwit import check, need_real_time, test

# Over this link a guest that rewrites 16 MiB flat out needs a second a round, for ever.
LINK = ("--bandwidth", "16M")
ENDLESS = "fill=24 write=16"


def ask(vm, uri, *words):
    """A check over that link: exit code, answer, and what was said. The guest works on and query-migrate is as it was."""
    before = bare.progress(vm)
    told = vm.qmp().execute("query-migrate")
    done = vm.cli("migrate", uri, "--check", "--json", *LINK, *words)
    bare.worked(vm, before["work"])
    bare.works_on(vm)
    qmp = vm.qmp()
    check(qmp.execute("query-status")["status"] == "running", "the guest does not run")
    check(qmp.execute("query-migrate") == told, "the check is taken for a migration")
    check(qmp.execute("query-migrate-parameters")["max-bandwidth"] == 0, "its bandwidth was kept")
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


@test
def check_tells_guests_that_converge_from_those_that_do_not(place):
    need_real_time()
    vm = live.start(place, ENDLESS)
    target, uri = live.destination(place, vm)
    code, answer, said = ask(vm, uri)
    check(code == 1 and answer["prediction"]["answer"] == "never", f"{answer} {said}")
    for word in ("would not be moved", "will not converge", "what would help: --auto-converge"):
        check(word in said, said)
    code, answer, said = ask(vm, uri, "--auto-converge")
    check(code == 0 and answer["prediction"]["cpu-throttle-percentage"] > 0 and not said, f"{answer} {said}")
    code, answer, said = ask(vm, uri, "--timeout", "5")
    check(code == 1 and answer["prediction"]["answer"] == "given-up", f"{answer} {said}")
    # The destination has waited through all that.
    before = bare.progress(vm)
    done = vm.cli("migrate", uri, "--auto-converge", *LINK)
    check(done.returncode == 0, str(done))
    live.moved(vm, target, before)


@test
def check_of_a_slow_writer_then_its_migration(place):
    vm = live.start(place, f"{ENDLESS} rate=2")
    target, uri = live.destination(place, vm)
    code, answer, said = ask(vm, uri)
    check(code == 0 and answer["prediction"]["answer"] == "converges" and not said, f"{answer} {said}")
    check(answer["prediction"]["cpu-throttle-percentage"] == 0, str(answer))
    check(answer["sample"]["rate"] <= 16 << 20, str(answer))
    check(answer["sample"]["touched-bytes"] >= 24 << 20, str(answer))
    text = vm.cli("migrate", uri, "--check", *LINK)
    check(text.returncode == 0 and "can be moved to" in text.stdout and "Pause:" in text.stdout, str(text))
    before = bare.progress(vm)
    check(vm.cli("migrate", uri, *LINK).returncode == 0, "it was not moved")
    live.moved(vm, target, before)


@test
def check_with_dirty_rings_sees_as_much(place):
    need_real_time()
    live.need_dirty_ring()
    vm = live.start(place, ENDLESS, "--dirty-ring", "4096")
    target, uri = live.destination(place, vm)
    code, answer, said = ask(vm, uri)
    check(code == 1 and answer["sample"]["dirty"][-1]["bytes"] >= 16 << 20, f"{answer} {said}")
    before = bare.progress(vm)
    check(vm.cli("migrate", uri, *LINK, "--auto-converge").returncode == 0, "it was not moved")
    live.moved(vm, target, before)


@test
def check_of_a_destination_that_is_not_there_fails(place):
    vm = live.start(place)
    code, answer, said = ask(vm, f"unix:{place.path('nobody')}")
    check(code == 1 and answer["status"] == "failed" and "cannot be checked" in said, f"{answer} {said}")


@test
def migration_is_refused_during_a_check_and_interrupt_ends_it(place):
    vm = live.start(place)
    target, uri = live.destination(place, vm)
    qmp = vm.qmp()
    # In one piece, so that the check is under way; twice, as the destination goes on waiting.
    for _ in range(2):
        qmp.execute("x-godwit-check", {"uri": uri})
        try:
            qmp.execute("migrate", {"uri": uri})
            raise AssertionError("a migration was begun")
        except godwit.QmpError as error:
            check("a check of this VM is under way" in str(error), str(error))
        qmp.execute("migrate_cancel")
        godwit.wait_until(lambda: qmp.execute("x-godwit-query-check")["status"] == "cancelled", "the end of the check")
    before = bare.progress(vm)
    check(live.migrate(vm, uri)["status"] == "completed", "it was not moved")
    live.moved(vm, target, before)


@test
def interrupted_check_is_cancelled(place):
    vm = live.start(place)
    _, uri = live.destination(place, vm)
    command = [godwit.GODWIT, "migrate", vm.name, uri, "--check"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=place.environment())
    qmp = vm.qmp()
    godwit.wait_until(lambda: qmp.execute("x-godwit-query-check")["status"] == "active", "the check")
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=godwit.GUARD_S)
    check(running.returncode == 3 and "was cancelled" in said, f"{running.returncode} {said}")
    bare.works_on(vm)
