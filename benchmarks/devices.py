#!/usr/bin/env python3
"""Devices under load: mayfly beside QEMU's microvm, the same Linux guest, taking turns in one run.

    devices.py [ROUNDS] [--images DIR] [--only disk,net,vsock,balloon] [--smp N]

Where /dev/kvm runs Linux at speed it is this machine's; else the testbed's, an emulated AMD server on
which every figure is some hundred times too slow and only the ratios mean anything. The guest's own
clock is the clock, and for the processor time /proc: all of the monitor's process, the guest's share
too, but not the kernel threads that work for vhost. Disks are files in memory, so that the devices are
measured and not a disk; QEMU has io_uring, vhost-vsock and its own virtio-net, and a cache mode that
answers from the page cache, as ours does.
"""

import subprocess
import sys
from pathlib import Path

import lib

MONITORS = ("mayfly", "qemu")
ROUNDS = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1].isdigit() else "3"


def option(name: str, default: str) -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def group(what: str, images: Path) -> str:
    """What one group measured, in a testbed of its own: a guest that hangs costs no other group its
    figures, and its own group only those that were still to come."""
    done = subprocess.run([lib.ROOT / "tests/testbed/testbed.sh", "exec", "--smp", option("--smp", "2"),
                           "--mem", "8192", "--timeout", "3000", "--stall", "300", "--",
                           "benchmarks/devices_inside.py", ROUNDS, str(images), what],
                          stdout=subprocess.PIPE, text=True, cwd=lib.ROOT)
    return done.stdout + (f"failed {what}: ended with {done.returncode}\n" if done.returncode else "")


def main() -> None:
    images = Path(option("--images", str(lib.BUILD / "images"))).resolve()
    results: dict[str, lib.Samples] = {}
    facts = {}
    for what in option("--only", "disk,net,vsock,balloon").split(","):
        for line in group(what, images).splitlines():
            who, _, rest = line.partition(" ")
            if who == "host":
                facts["testbed"] = rest
            elif who in MONITORS:
                lib.parse(rest, results.setdefault(who, {}))
            else:
                print(f"  {line}")
    host = lib.host(**facts, qemu=lib.version_of("qemu-system-x86_64", "--version"))
    lib.describe(host)
    for who, samples in results.items():
        lib.table(who, samples, "as named", 1)
    ratios = {}
    for what in results.get("mayfly", {}):
        for peer in results:
            r = lib.ratio(lib.median(results["mayfly"], what), lib.median(results[peer], what))
            if peer != "mayfly" and r:
                ratios[f"{what}, mayfly / {peer}"] = r
    lib.save("devices", "the guest's clock", host, results, ratios)
    print("\n".join(f"  {k}: {v}" for k, v in ratios.items()))


main()
