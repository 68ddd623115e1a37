"""Guests as users of clouds know them, moved by godwit over a link that is slower than they write, with each of the
means against that: how long it takes, and how much of its work the guest does not do meanwhile."""
import sys

from converge import GIVE_UP_S, migrate
from migrate import warm

MIB_PAGES = 256
BURST_MIB, REST_MS = 250, 500
MEASURE_S = 5  # how fast the guest works before

# What the guest does; its words; pages in a burst.
GUESTS = {
    "idle": ("1000 MiB in memory, asleep", "idle", 0),
    "loop": ("one word in each page of 128 MiB, round and round", "write=128 mode=sparse", 0),
    "stress": (f"allocates {BURST_MIB} MiB and fills it with new content, each time elsewhere in 1000 MiB; "
               f"{REST_MS} ms in between", f"write=1000 burst={BURST_MIB} rest={REST_MS}", BURST_MIB * MIB_PAGES),
}
MEANS = {"none": [], "xbzrle": ["xbzrle"], "auto-converge": ["auto-converge"], "both": ["xbzrle", "auto-converge"]}


def cell(r):
    if r["lost"] is not None:
        lost = f"{r['lost']:.1f} s lost"
    else:  # it has no work that could be missing
        lost = "nothing lost" if not r["throttle"] else f"throttled by up to {r['throttle']} %"
    if r["s"] is None:
        return f"never ({lost} in {GIVE_UP_S} s, {r['rounds']} rounds)"
    return f"{r['s']:.1f} s, {lost} ({r['mb']:.0f} MB, pause {r['downtime']:.0f} ms, throttle up to {r['throttle']} %)"


def main():
    print("bare guest, 1 vCPU, 1 GiB, link of 117 MiB/s (8.75 s send all once), downtime limit 300 ms, xbzrle cache 1 GiB")
    warm(2500)
    for name in [word for word in sys.argv[1:] if word in GUESTS] or GUESTS:
        what, words, burst_pages = GUESTS[name]
        print(f"{name}: {what}")
        for means, capabilities in MEANS.items():
            r = migrate("godwit", words, capabilities, GIVE_UP_S, burst_pages, MEASURE_S)
            print(f"    {means:14} {cell(r)}", flush=True)


main()
