"""Guests that write faster than the link carries arrive all the same, where that is allowed."""
import bare
import live
from godwit import check, need_real_time, test, wait_until
from throttle import Meter

# Over this link a guest that rewrites 16 MiB flat out needs a second a round, for ever.
LINK = "16M"
WRITES = "fill=24 write=16"


def move(place, guest, *words):
    vm = live.start(place, guest)
    before = bare.progress(vm)
    target, uri = live.destination(place, vm)
    done = vm.cli("migrate", uri, "--bandwidth", LINK, *words)
    check(done.returncode == 0, str(done))
    live.moved(vm, target, before)
    return done


@test
def auto_converge_slows_a_guest_that_writes_too_much_until_it_arrives(place):
    need_real_time()
    for guest in (WRITES, "fill=24 write=8"):
        done = move(place, guest, "--auto-converge")
        check("throttle: " in done.stdout and "taken from the vCPUs: they dirty " in done.stdout, str(done))


@test
def throttle_is_gone_however_the_migration_ends(place):
    need_real_time()
    vm = place.bare(WRITES, *live.MEMORY)
    khz = bare.ready(vm)["khz"]
    for end in ("cancelled", "failed", "completed"):
        target, uri = live.destination(place, vm)
        qmp = vm.qmp()
        most = 99 if end == "completed" else 50
        qmp.execute("migrate-set-parameters", {"max-bandwidth": 16 << 20, "max-cpu-throttle": most})
        qmp.execute("migrate-set-capabilities", {"capabilities": [{"capability": "auto-converge", "state": True}]})
        qmp.execute("migrate", {"uri": uri})
        wait_until(lambda: qmp.execute("query-migrate").get("cpu-throttle-percentage", 0) >= 40, "a throttle")
        if end == "cancelled":
            qmp.execute("migrate_cancel")
        elif end == "failed":
            target.kill()
        check(live.follow(qmp)["status"] == end, f"not {end}")
        here = target if end == "completed" else vm
        share = Meter(here, khz, here.qmp(), 0).share(0.5)
        check(share > 0.9, f"{end}: the vCPU runs for {share:.2f} of its time")
    bare.verify(target)


@test
def dirty_limit_holds_a_guest_that_writes_too_much_until_it_arrives(place):
    need_real_time()
    live.need_dirty_ring()
    vm = live.start(place, f"{WRITES} compute=1", "--cpus", 2, "--dirty-ring", 1024)
    target, uri = live.destination(place, vm)
    before = bare.progress(vm)
    check(vm.cli("set", "dirty-limit=on").returncode == 0, "dirty-limit is refused")
    done = vm.cli("migrate", uri, "--bandwidth", LINK)
    check(done.returncode == 0, str(done))
    check("dirty-limit: the vCPUs may dirty " in done.stdout and "throttle: " not in done.stdout, str(done))
    live.moved(vm, target, before)


@test
def dirty_limit_without_a_dirty_ring_is_refused(place):
    vm = live.start(place, "fill=1 write=1")
    done = vm.cli("set", "bandwidth=1M", "dirty-limit=on")
    check(done.returncode == 1 and "run the VM with --dirty-ring" in done.stderr, str(done))
    check(vm.qmp().execute("query-migrate-parameters")["max-bandwidth"] == 0, "half of it was set")
    bare.works_on(vm)


@test
def guest_that_converges_by_itself_is_not_slowed(place):
    for rate in (2, 11):
        done = move(place, f"{WRITES} rate={rate}", "--auto-converge")
        check("throttle: " not in done.stdout, str(done))
    move(place, f"{WRITES} rate=11")


@test
def xbzrle_moves_a_guest_that_changes_little_of_each_page(place):
    done = move(place, f"{WRITES} mode=sparse", "--compress", "xbzrle")
    check("throttle: " not in done.stdout and "xbzrle-off" not in done.stdout, str(done))


@test
def xbzrle_that_gains_nothing_is_left_out(place):
    done = move(place, WRITES, "--compress", "xbzrle", "--auto-converge", "--channels", 2)
    check("xbzrle-off: " in done.stdout and "throttle: " in done.stdout, str(done))


@test
def compressed_pages_arrive_as_they_were(place):
    for codec in ("zlib", "zstd"):
        move(place, "fill=8 zero=8 write=1 rate=1", "--compress", codec)
