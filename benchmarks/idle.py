#!/usr/bin/env python3
"""What an idle machine costs: how often the monitor's threads wake, and their processor time.

    idle.py [SECONDS]

The guest has halted, interrupts on, in a machine with every kind of device and limits on them; it
drives none of them, so this is what the monitor does by itself. (A balloon whose driver was asked for
statistics wakes once in the interval that was asked for.) Voluntary switches: the thread went to
sleep, so it had woken. Ticks are 10 ms, user and system. Needs root, for the tap.
"""

import os
import re
import select
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "lib"))

import mayfly  # noqa: E402

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
TAP = f"idle{os.getpid()}"[:15]
LIMIT = {"bandwidth": {"size": 1 << 20, "refill_time": 100}, "ops": {"size": 1000, "refill_time": 100}}


def voluntary(m: mayfly.Monitor, tid: int) -> int:
    return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", m.proc(f"task/{tid}/status"), re.M)[1])


def ticks(m: mayfly.Monitor, tid: int) -> int:
    return sum(int(n) for n in m.thread_stat(tid)[11:13])


def measure(m: mayfly.Monitor, what: str) -> None:
    select.select([m.pidfd], [], [], 1.0)  # the start is over
    names = m.threads()
    before = {tid: (voluntary(m, tid), ticks(m, tid)) for tid in names}
    select.select([m.pidfd], [], [], SECONDS)
    m.assert_alive()
    for tid, name in m.threads().items():
        woken, spent = voluntary(m, tid) - before[tid][0], ticks(m, tid) - before[tid][1]
        print(f"{what:12} {name:16} {woken / SECONDS:8.1f} wake-ups/s {spent:4} ticks in {SECONDS:g} s")


def configure(m: mayfly.Monitor) -> None:
    disk = mayfly.make_disk(mayfly.tempdir() / "disk", 1 << 20)
    m.configure(mayfly.guest("ends"), "do=wait", vcpus=2)
    for path, body in {
        "/drives/d": mayfly.drive(disk, "d", rate_limiter=LIMIT),
        "/network-interfaces/n": {"iface_id": "n", "host_dev_name": TAP, "rx_rate_limiter": LIMIT,
                                  "tx_rate_limiter": LIMIT},
        "/vsock": {"guest_cid": 3, "uds_path": str(mayfly.tempdir() / "vsock")},
        "/balloon": {"amount_mib": 0, "deflate_on_oom": False, "stats_polling_interval_s": 1,
                     "free_page_hinting": True, "free_page_reporting": True},
        "/entropy": {"rate_limiter": LIMIT},
    }.items():
        m.api.must("PUT", path, body)


def main() -> None:
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())[1]
    print(f"{os.cpu_count()} x {cpu}, Linux {os.uname().release}, load {os.getloadavg()[0]:.1f}")
    subprocess.run(["ip", "tuntap", "add", TAP, "mode", "tap"], check=True)
    try:
        with mayfly.Monitor() as m:
            configure(m)
            measure(m, "configured")
            m.start()
            measure(m, "halted")
            m.pause()
            measure(m, "paused")
    finally:
        subprocess.run(["ip", "link", "del", TAP], check=True)


main()
