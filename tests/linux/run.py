"""Stock Debian kernels in godwit: what a user's guest does. Called by tests/linux/run.

  run.py [--kernel cloud|generic] [--guests NAME,...] [--list] [NAME...]

One guest boot proves many promises: the guests are in guest.py, each test says whose it is and which
stage of its life it wants. Between the tests of a file the order is that of a guest's life.
"""
import os
import sys

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)),
                os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib")]
import godwit  # noqa: E402
from guest import Guest, guests, kernel_dir, kernel_version, MADE, PATTERN  # noqa: E402


def option(name, default):
    """The value of an option, which is taken out of the command line."""
    if name not in sys.argv:
        return default
    at = sys.argv.index(name)
    value = sys.argv[at + 1]
    del sys.argv[at:at + 2]
    return value


def missing():
    """A reason why nothing can be tested, or None."""
    if not godwit.doctor().get("kvm"):
        return "this host has no KVM"
    if not (os.path.exists(PATTERN) and os.path.isdir(MADE)):
        return "its guests are not prepared; start it by tests/linux/run"
    return None


def main():
    kind = option("--kernel", "cloud")
    only = option("--guests", None)
    other = "generic" if kind == "cloud" else "cloud"
    import devices
    import life
    import live
    guests.update(
        one=Guest("one", cpus=1, kind=kind, setup=life.load_disk),
        two=Guest("two", cpus=2, kind=kind, setup=devices.disks),
        four=Guest("four", cpus=4, memory="5G", kind=kind, setup=life.load_disk),
        elf=Guest("elf", cpus=2, kind=kind,
                  kernel=os.path.join(MADE, f"vmlinux-{kernel_version(kind)}")),
        moving=live.Moving("moving", cpus=2, memory="192M", kind=kind, setup=life.load_disk),
        other=Guest("other", cpus=2, kind=other, setup=life.load_disk))
    for name, times in (("one", 1), ("two", 2), ("four", 1)):
        life.add_stages(guests[name], times)
    for name in set(guests) - set(only.split(",") if only else guests):
        del guests[name]
    life.tests(kind, other, before_restore=devices.tests)
    live.tests()
    try:
        godwit.main(missing)
    finally:
        for guest in guests.values():
            guest.close()


if __name__ == "__main__":
    assert os.path.isdir(kernel_dir("cloud"))
    main()
