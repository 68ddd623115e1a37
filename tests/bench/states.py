"""What the states of many vCPUs cost in the pause of a live migration over loopback: each side, a vCPU, and the
pause that was expected before it. The guest is idle, so there is nothing else in it."""
import sys
import tempfile
import time

from common import median
from migrate import pair_godwit

VCPUS = (1, 16, 64, 128, 254)
TURNS = 3


def move(vcpus):
    with tempfile.TemporaryDirectory(prefix="godwit-bench-") as d:
        source, destination, port = pair_godwit(d, 128, vcpus, f"fill=8 idle cpus={min(vcpus, 64)}")
        try:
            source.open_console()
            source.until(r"ready.*\n")
            qmp = source.qmp()
            qmp.execute("migrate", uri=f"tcp:127.0.0.1:{port}")
            while True:
                r = qmp.execute("query-migrate")
                if r.get("status") == "failed":
                    raise SystemExit(f"{vcpus} vCPUs: {r.get('error-desc')}")
                if r.get("status") == "completed" and "downtime" in r:
                    return {**r["x-godwit-downtime"], "expected-us": 1000 * r["expected-downtime"],
                            "setup-us": 1000 * r["setup-time"]}
                time.sleep(0.005)
        finally:
            source.end()
            destination.end()


def main():
    turns = 1 if "--quick" in sys.argv else TURNS
    print(f"an idle guest of so many vCPUs, medians of {turns}; us, beside some of them for each vCPU")
    print(f"{'vCPUs':>6}{'parked':>9}{'states collected':>20}{'loaded':>18}{'started':>9}{'pause':>9}"
          f"{'expected':>10}{'set up':>9}")
    for vcpus in VCPUS:
        runs = [move(vcpus) for _ in range(turns)]
        us = {part: median([run[part] for run in runs]) for part in runs[0]}
        print(f"{vcpus:6}{us['park-us']:9.0f}"
              f"{us['states-us']:11.0f} ({us['states-us'] / vcpus:6.1f})"
              f"{us['load-us']:9.0f} ({us['load-us'] / vcpus:6.1f})"
              f"{us['start-us']:9.0f}{us['total-us']:9.0f}{us['expected-us']:10.0f}"
              f"{us['setup-us']:9.0f}", flush=True)


main()
