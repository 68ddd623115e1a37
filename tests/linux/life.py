"""A Linux guest's life: it boots, runs under load, is saved, restored and goes on, reboots, ends."""
import re

from devices import CHURNED, CHURNED_CACHED, after_restore_tests
from godwit import check
from guest import Background, GUARD_S, PORT, pattern, promise

BLOB_MIB = 24
DISK_MIB = 128
TURN = "1M"  # what is written and read back again and again


def load_disk(guest):
    path = guest.place.path("disk")
    with open(path, "wb") as f:
        f.truncate(DISK_MIB << 20)
    guest.disks["main"] = path
    return ["--disk", path]


# -- stages --

def start_load(g):
    """Every device works, and what is in memory is known."""
    g.sh(f"pattern put /tmp/blob 41 {BLOB_MIB}M")
    g.start("clock", "clock")
    g.start("direct", f"churn /dev/vda 1000 {TURN} at={CHURNED}M block=64K direct")
    g.start("cached", f"churn /dev/vda 2000 {TURN} at={CHURNED_CACHED}M block=256K sync")
    if not g.network:
        g.peer = g.talk_to("talk", "listen:7010", 42, 43)
        g.start("talk", f"talk tcp:{g.host_address}:7010 43 42")
    g.await_progress()


def save_and_restore(g):
    g.restore(g.save())
    g.await_progress()


def save_paused_and_restore(g):
    path = g.save(paused=True)
    g.restore(path, paused=True)
    g.await_progress()


def add_stages(guest, times):
    guest.stages += [("loaded", start_load), ("restored", save_and_restore)]
    if times > 1:
        guest.stages += [("restored twice", save_paused_and_restore)]


# -- tests --

def boots_with(name, cpus):
    @promise(name, name=f"boots_with_{cpus}_vcpus_in_one_socket")
    def boots(g):
        info = g.sh("cat /proc/cpuinfo")

        def field(text):
            return re.findall(rf"^{text}\s*: (\d+)", info, re.MULTILINE)
        check(int(g.sh("nproc")) == cpus, f"nproc says {g.sh('nproc')}")
        # A kernel that sees one processor leaves these lines out.
        if cpus > 1 or field("physical id"):
            check(set(field("physical id")) == {"0"}, f"sockets: {field('physical id')}")
            check(field("cpu cores") == [str(cpus)] * cpus, f"cores: {field('cpu cores')}")
            check(field("siblings") == [str(cpus)] * cpus, f"siblings: {field('siblings')}")
            check(len(set(field("core id"))) == cpus, f"core ids: {field('core id')}")
        # Linux calls one without a name by its family and model: "17/01".
        names = set(re.findall(r"^model name\s*: (.+)", info, re.MULTILINE))
        check(len(names) == 1 and re.search("[A-Za-z]{2}", " ".join(names)), f"names: {names}")
        g.check_log()


def goes_on(name, stage, how):
    """The promises of a restored guest."""
    def after(what):
        return f"{what}_after_{how}"

    @promise(name, stage, after("same_boot"))
    def same_boot(g):
        check(g.sh("cat /proc/sys/kernel/random/boot_id") == g.boot_id, "it has booted again")

    @promise(name, stage, after("memory_is_whole"))
    def memory_is_whole(g):
        g.sh(f"pattern get /tmp/blob 41 {BLOB_MIB}M")

    @promise(name, stage, after("disk_work_goes_on"))
    def disk_work_goes_on(g):
        for load, seed, at in (("direct", 1000, CHURNED), ("cached", 2000, CHURNED_CACHED)):
            turns, = g.stop(load)
            pattern("get", g.disks["main"], seed + turns - 1, TURN, f"at={at}M")

    @promise(name, stage, after("tcp_connection_goes_on"))
    def tcp_connection_goes_on(g):
        g.need_network()
        g.peer.process.terminate()
        sent, received = g.stop("talk")
        there = [int(n) for n in re.findall(r"\d+", g.peer.end().splitlines()[-1])]
        check(there == [received, sent], f"guest sent {sent}, received {received}; host: {there}")

    @promise(name, stage, after("time_only_goes_forward"))
    def time_only_goes_forward(g):
        g.stop("clock")

    @promise(name, stage, after("channel_works"))
    def channel_works(g):
        with Background("get", f"unix:{g.channel_path}", 45, "256K") as host:
            g.sh(f"pattern put {PORT} 45 256K")
            host.end()
        with Background("put", f"unix:{g.channel_path}", 46, "256K") as host:
            g.sh(f"pattern get {PORT} 46 256K")
            host.end()

    @promise(name, stage, after("log_has_no_complaint"))
    def log_has_no_complaint(g):
        g.check_log()


def reboot(g, command):
    g.vm.send(command + "\n")
    g.ready()
    g.sh("true")


def tests(kind, other, before_restore):
    boots_with("one", 1)
    goes_on("one", "restored", "restore_with_1_vcpu")

    @promise("one")
    def panic_reboots_in_place(g):
        reboot(g, "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger")
        g.check_log()

    @promise("one")
    def poweroff_ends_run_with_0(g):
        g.vm.send("poweroff -f\n")
        g.end()

    boots_with("two", 2)
    before_restore()
    goes_on("two", "restored twice", "two_restores_with_2_vcpus")
    after_restore_tests("restored twice")

    @promise("two", "restored twice")
    def reboot_after_restore_boots_again(g):
        reboot(g, "reboot -f")
        g.check_log()
        g.vm.send("poweroff -f\n")
        g.end()

    boots_with("four", 4)

    @promise("four")
    def memory_above_4_gib_is_used(g):
        top = [int(end, 16) for end in re.findall(r"-([0-9a-f]+) : System RAM", g.sh("cat /proc/iomem"))]
        check(max(top) + 1 == 6 << 30, f"RAM ends at {max(top):#x}")
        kib = int(re.search(r"MemTotal:\s+(\d+)", g.sh("cat /proc/meminfo")).group(1))
        check(kib > 4.5 * (1 << 20), f"{kib} KiB in all")

    goes_on("four", "restored", "restore_with_4_vcpus")

    @promise("four", "restored")
    def power_button_after_restore_ends_the_guest(g):
        done = g.vm.cli("shutdown", timeout=GUARD_S)
        check(done.returncode == 0, f"shutdown ended with {done.returncode}: {done.stderr}")
        g.end()

    @promise("elf", name="vmlinux_boots_by_pvh")
    def vmlinux_boots(g):
        check(g.sh("uname -r").endswith("amd64"), "another kernel")
        g.check_log()

    @promise("elf")
    def reboot_in_place_boots_again(g):
        for _ in range(2):
            reboot(g, "reboot -f")
        g.check_log()

    @promise("elf")
    def power_button_ends_the_guest(g):
        done = g.vm.cli("shutdown", timeout=GUARD_S)
        check(done.returncode == 0, f"shutdown ended with {done.returncode}: {done.stderr}")
        g.end()

    @promise("other", name=f"{other}_kernel_boots_with_disk_and_network")
    def other_boots(g):
        g.sh("pattern put /dev/vda 51 8M direct sync; pattern get /dev/vda 51 8M")
        if not g.network:
            g.sh(f"ping -c 1 -W 30 {g.host_address}")
        g.check_log()
        g.vm.send("poweroff -f\n")
        g.end()
