"""Migrations that must converge: the bare guest writes faster than the link carries, godwit against QEMU."""
import os
import re
import sys
import tempfile
import time

from common import median
from migrate import MIB, TSC_KHZ, of, pair_godwit, pair_qemu, warm

RUNS = int(os.environ.get("GODWIT_BENCH_RUNS", "3"))
LINK = 117 * MIB
DOWNTIME_MS = 300
GIVE_UP_S = 60  # of a migration that is not expected to end

# What the guest does; capabilities; what is wanted: at most so much of QEMU's time, lost work and bytes; no throttle;
# a vCPU that computes loses at most so many percent; says so many seconds after the first stalled round that it will
# not converge. The pause is within the limit in all of them.
ROWS = {
    "pages-256": ("whole pages of 256 MiB flat out, auto-converge",
                  "write=256", ["auto-converge"], {"s": 0.33, "lost": 0.15, "mb": 0.33}),
    "sparse-256": ("8 bytes a page of 256 MiB flat out, xbzrle",
                   "write=256 mode=sparse", ["xbzrle"], {"s": 0.95, "lost": 1, "throttle": 0}),
    "pages-256-both": ("whole pages of 256 MiB flat out, xbzrle and auto-converge",
                       "write=256", ["xbzrle", "auto-converge"], {"s": 0.33, "lost": 0.15, "mb": 0.33}),
    "pages-683": ("whole pages of 683 MiB flat out, auto-converge",
                  "write=683", ["auto-converge"], {"s": 0.2, "lost": 0.15}),
    "sparse-683": ("8 bytes a page of 683 MiB flat out, xbzrle",
                   "write=683 mode=sparse", ["xbzrle"], {"s": 0.9}),
    "paced-50": ("whole pages of 256 MiB at 50 MiB/s, nothing allowed",
                 "write=256 rate=50", [], {"s": 1, "throttle": 0}),
    "paced-100": ("whole pages of 256 MiB at 100 MiB/s, nothing allowed",
                  "write=256 rate=100", [], {"s": 1, "throttle": 0}),
    "limit-256": ("two vCPUs, one as in the first row, one that computes and writes nothing; dirty limit",
                  "write=256 compute=1", ["dirty-limit"], {"s": 0.33, "computing": 5}),
    "never": ("whole pages of 256 MiB flat out, nothing allowed", "write=256", [], {"told": 5}),
}


# QEMU knows it from 8.1 on.
INSTEAD = {"dirty-limit": "auto-converge"}


# What is left falls by less than this in a round that has stalled, as policies have it.
STALLED = 0.95


def told_late(qmp, left):
    """Seconds from the end of the first stalled round to the forecast that it will never end; `left` is what each
    round began with, by its number. None: there was no forecast."""
    passes, forecast = {}, None
    for event in qmp.events:
        when = event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6
        if event["event"] == "MIGRATION_PASS":
            passes[event["data"]["pass"]] = when
        elif event["event"] == "GODWIT_DECISION" and event["data"]["action"] == "forecast" and not forecast:
            forecast = when
            print(f"    says: {event['data']['reason']}")
    rounds = sorted(n for n in left if n and n > 1 and n in passes)
    for n in rounds[1:]:  # the end of a round is the beginning of the next
        if left[n] > STALLED * min(left[k] for k in rounds if k < n) and forecast:
            return max(0, forecast - passes[n])
    return None


PROGRESS = re.compile(r"progress tsc=(\d+).* work=([\d,]+) .*\n")


def look(vm, burst_pages=0):
    """(TSC, work of each CPU) now; of a guest that writes in bursts when its next rest begins."""
    was_at_work = False
    while True:
        vm.text = ""
        found = vm.until(PROGRESS, "p")
        now = int(found.group(1)), [int(x) for x in found.group(2).split(",")]
        at_work = burst_pages and now[1][0] % burst_pages
        if not burst_pages or was_at_work and not at_work:
            return now
        was_at_work = at_work


class Computing:
    """What a vCPU that only computes loses at the source. The time that its thread waited for a processor, which the
    migration's own work takes from it here, is not counted."""

    def __init__(self, vm, qmp, cpu):
        self.vm, self.cpu, self.at = vm, cpu, 0
        self.stat = f"/proc/{vm.process.pid}/task/{qmp.execute('query-cpus-fast')[cpu]['thread-id']}/schedstat"
        self.seen = []  # (TSC, work, TSC ticks waited)

    def look(self):
        """Takes what the guest has said since, and asks it again; the guest answers when it can."""
        found = list(PROGRESS.finditer(self.vm.text, self.at))
        if found or not self.seen:
            self.vm.send("p")
        if found:
            self.at = found[-1].end()
            with open(self.stat) as f:
                waited = int(f.read().split()[1]) * TSC_KHZ / 1e6
            self.seen.append((int(found[-1].group(1)), int(found[-1].group(2).split(",")[self.cpu]), waited))

    def for_a_while(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            time.sleep(0.02)

    def speed(self):
        """Work for each tick of the TSC in which it could have worked."""
        first, last = self.seen[0], self.seen[-1]
        return (last[1] - first[1]) / (last[0] - first[0] - (last[2] - first[2]))


def set_up(qmp, capabilities, is_source):
    if capabilities:
        qmp.execute("migrate-set-capabilities",
                    capabilities=[{"capability": c, "state": True} for c in capabilities])
    if is_source:
        limits = {"max-bandwidth": LINK, "downtime-limit": DOWNTIME_MS}
        if "xbzrle" in capabilities:
            limits["xbzrle-cache-size"] = 1 << 30
        qmp.execute("migrate-set-parameters", **limits)


def predict(qmp, uri):
    """What godwit migrate --check says of the migration that comes next."""
    qmp.execute("x-godwit-check", uri=uri)
    while (answer := qmp.execute("x-godwit-query-check"))["status"] == "active":
        time.sleep(0.05)
    if answer["status"] != "completed":
        raise SystemExit(f"check: {answer}")
    return {**answer["prediction"], "compression": answer["compression-left-out"]}


def told_beside(prediction, result):
    """A prediction beside what became of it."""
    left_out = " (compression is not reckoned with)" if prediction["compression"] else ""
    if not prediction["moves"]:
        return f"predicted: {prediction['answer']}{left_out}"
    most, least = prediction["total-time"] / 1000, prediction["total-time-least"] / 1000
    text = f"predicted: {least:.2f} to {most:.2f} s, {prediction['lost-time'] / 1000:.2f} s lost, " \
           f"pause {prediction['downtime']} ms, throttle {prediction['cpu-throttle-percentage']} %{left_out}"
    if result["s"] is None:
        return text
    return f"{text}; of the real time {least / result['s']:.2f} to {most / result['s']:.2f}, of the pause " \
           f"{prediction['downtime'] / max(result['downtime'], 1):.2f}"


def migrate(which, words, capabilities, patience_s=None, burst_pages=0, measure_s=1):
    """What it took; "s" is None where it has not ended after patience_s."""
    with tempfile.TemporaryDirectory(prefix="godwit-bench-") as d:
        cpus = 2 if "compute" in words else 1
        if which == "godwit":
            rings = ["--dirty-ring", "4096"] if "dirty-limit" in capabilities else []
            source, destination, port = pair_godwit(d, 1024, cpus, f"fill=1000 progress=0 {words}", *rings)
        else:
            capabilities = [INSTEAD.get(c, c) for c in capabilities]
            source, destination, port = pair_qemu(d, 1024, cpus, f"fill=1000 progress=0 {words}")
        try:
            source.open_console()
            source.until(r"progress tsc=.*\n", "p")
            qmp = source.qmp()
            if which == "qemu":
                other = destination.qmp()
                set_up(other, capabilities, False)
                other.execute("migrate-incoming", uri=f"tcp:127.0.0.1:{port}")
            set_up(qmp, capabilities, True)
            prediction = predict(qmp, f"tcp:127.0.0.1:{port}") if which == "godwit" else None
            free = Computing(source, qmp, cpus - 1)
            free.for_a_while(2 if cpus > 1 else 0)
            before = look(source, burst_pages)
            time.sleep(measure_s)
            start = look(source, burst_pages)
            speed = (start[1][0] - before[1][0]) / (start[0] - before[0])
            source.text = ""
            slowed = Computing(source, qmp, cpus - 1)
            began = time.monotonic()
            qmp.execute("migrate", uri=f"tcp:127.0.0.1:{port}")
            throttle, left = 0, {}

            def lost(end):
                """Seconds of work that was not done since the start; of a guest that does none, None."""
                spent = end[0] - start[0]
                return (spent - (end[1][0] - start[1][0]) / speed) / TSC_KHZ / 1000 if speed else None
            while True:
                r = qmp.execute("query-migrate")
                throttle = max(throttle, r.get("cpu-throttle-percentage", 0))
                if r.get("status") == "failed":
                    raise SystemExit(f"{which}: {r.get('error-desc')}")
                if r.get("status") == "completed" and "downtime" in r:
                    break
                left.setdefault(r.get("ram", {}).get("dirty-sync-count"), r.get("ram", {}).get("remaining"))
                if cpus > 1 and r.get("status") == "active":
                    slowed.look()
                if patience_s and time.monotonic() - began > patience_s:
                    return {"s": None, "rounds": r["ram"]["dirty-sync-count"], "lost": lost(look(source)),
                            "throttle": throttle, "prediction": prediction,
                            "told": told_late(qmp, left) if which == "godwit" else None}
                time.sleep(0.02)
            destination.open_console()
            end = look(destination, burst_pages)
            result = {"prediction": prediction, "s": r["total-time"] / 1000, "mb": r["ram"]["transferred"] / 1e6,
                      "downtime": r["downtime"], "rounds": r["ram"]["dirty-sync-count"],
                      "throttle": throttle, "gap": destination.gap_ms(),
                      "lost": lost(end)}
            if cpus > 1:
                result["computing"] = 100 * (1 - slowed.speed() / free.speed())
            if "--check" in sys.argv:
                destination.text = ""
                destination.send("c")
                destination.until(r"check ok.*\n")
            return result
        finally:
            source.end()
            destination.end()


NAMES = {"s": "time", "lost": "lost work", "mb": "bytes"}


def verdicts(ours, theirs, wanted):
    """What is wanted of a row: (words, whether it is so)."""
    out = []
    for key, most in wanted.items():
        if key == "told":
            told = [r["told"] for r in ours]
            late = None if None in told else max(told)
            out.append(("does not say that it will not converge" if late is None else
                        f"says {late:.2f} s after the first stalled round that it will not (wanted: within {most})",
                        late is not None and late <= most))
        elif key == "throttle":
            out.append((f"throttle {of(ours, key)} % (wanted: none)", of(ours, key) == most))
        elif key == "computing":
            out.append((f"the vCPU that computes loses {of(ours, key):.1f} % (wanted: below {most})", of(ours, key) < most))
        elif theirs:
            r = of(ours, key) / of(theirs, key) if of(theirs, key) > 0 else float("inf")
            out.append((f"{NAMES[key]} {r:.3f} of QEMU's (wanted: at most {most})", r <= most))
    if ours[0]["s"] is not None:
        pause = max(r["downtime"] for r in ours)
        out.append((f"longest pause {pause} ms (wanted: at most {DOWNTIME_MS})", pause <= DOWNTIME_MS))
    return out


def print_results(who, results):
    if results[0]["s"] is None:
        print(f"    {who:7} never ({results[0]['rounds']} rounds in {GIVE_UP_S} s)", flush=True)
        return
    print(f"    {who:7} {of(results, 's'):.2f} s, {of(results, 'lost'):.2f} s lost, "
          f"{of(results, 'mb'):.0f} MB, pause {of(results, 'downtime'):.0f} ms, largest gap "
          f"{of(results, 'gap'):.0f} ms, throttle {of(results, 'throttle')} %, "
          f"{of(results, 'rounds')} rounds", flush=True)
    if "computing" in results[0]:
        print(f"    {who:7} the vCPU that computes loses {of(results, 'computing'):.1f} %", flush=True)


def main():
    chosen = [w for w in sys.argv[1:] if w in ROWS] or list(ROWS)
    runs = 1 if "--quick" in sys.argv else RUNS
    missed = []
    print(f"bare guest, 1 GiB incompressible, link of 117 MiB/s, downtime limit {DOWNTIME_MS} ms; 8.75 s send all once",
          flush=True)
    warm(2500)
    for name in chosen:
        what, words, capabilities, wanted = ROWS[name]
        patience_s = GIVE_UP_S if "told" in wanted else None
        ours = [migrate("godwit", words, capabilities, patience_s) for _ in range(runs)]
        theirs = [] if "--alone" in sys.argv else [migrate("qemu", words, capabilities, patience_s)
                                                   for _ in range(runs)]
        print(f"{name}: {what}")
        for one in ours:
            print(f"    {told_beside(one['prediction'], one)}")
        print_results("godwit", ours)
        if theirs:
            print_results("QEMU", theirs)
        for words, holds in verdicts(ours, theirs, wanted):
            print(f"    {'holds' if holds else 'MISSED':7} {words}", flush=True)
            if not holds:
                missed.append(name)
    print(f"missed: {', '.join(missed)}" if missed else "every row holds" + ("" if "--alone" not in sys.argv else
                                                                             ", as far as godwit alone shows it"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
