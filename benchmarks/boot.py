#!/usr/bin/env python3
"""From exec, and from InstanceStart, to the guest's init: mayfly beside its peers, by instructions.

    boot.py [RUNS] [--images DIR]

The same kernel (one processor, uncompressed), RAM disk and command line, 1 vCPU and 128 MiB, in the
testbed's deterministic mode: an emulated AMD host on which one instruction takes one nanosecond. So
"ms" here are millions of instructions, of the monitor, the host's kernel and the guest together, and
runs agree to a percent on the noisiest of machines. What that clock does not price: world switches
(an exit costs its instructions and no more), caches, TLBs. A monitor that exits more often than its
peer is therefore flattered; the exits are counted in docs/performance.md.

wall includes what the host's kernel waits for (RCU in KVM); cpu does not. When everything in the testbed
waits, for a file of the machine outside say, its clock leaps: so wall times are compared by their
minima, processor times by their medians.
"""

import sys
from pathlib import Path

import lib

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 30
IMAGES = Path(sys.argv[sys.argv.index("--images") + 1] if "--images" in sys.argv
              else lib.BUILD / "images").resolve()
MINE = ("mayfly", "mayfly-4k", "mayfly-thp", "mayfly-acpi", "mayfly-api")
PEERS = {"qemu": "qemu-system-x86_64", "lkvm": "lkvm", "firecracker": "firecracker"}


def images() -> None:
    for script, made in ((("images/kernel/build.sh", "up"), "vmlinux-up"),
                         (("images/initramfs/build.sh",), "bench.cpio")):
        if not (IMAGES / made).exists():
            lib.run(lib.ROOT / script[0], *script[1:], IMAGES)


def pick(samples: lib.Samples, what: str) -> float | None:
    return min(samples[what]) if what.endswith("wall") else lib.median(samples, what)


def main() -> None:
    images()
    names = [*MINE, *(name for name, program in PEERS.items() if lib.on_path((program,)))]
    text = lib.run(lib.ROOT / "tests/testbed/testbed.sh", "run", "--deterministic", "--",
                   "benchmarks/boot_inside.sh", str(RUNS), IMAGES, *names, cwd=lib.ROOT)
    results: dict[str, lib.Samples] = {}
    facts: dict[str, str] = {}
    who = ""
    for line in text.splitlines():
        if line.startswith("== "):
            who = line[3:]
        elif who:
            lib.parse(line, results.setdefault(who, {}))
        else:
            word, _, rest = line.partition(" ")
            facts[word] = rest
    host = lib.host(testbed=f"QEMU TCG, SVM, 1 instruction = 1 ns; Linux {facts.get('host', '?')}",
                    testbed_thp=facts.get("thp", "?"), args=facts.get("args", text[-500:]),
                    qemu=lib.version_of("qemu-system-x86_64", "--version"))
    lib.describe(host)
    for who, samples in results.items():
        lib.table(who, samples, "million instructions", 1e-6)
    ratios = {
        f"{what}, {mine} / {peer}": r
        for mine in MINE for peer in PEERS if peer in results
        for what in ("exec to marker, wall", "exec to marker, cpu")
        if (r := lib.ratio(pick(results[mine], what), pick(results[peer], what)))
    }
    lib.save("boot", "instructions, from the monitor's fork to the first line of init", host, results,
             ratios)
    print("\n".join(f"  {k}: {v}" for k, v in ratios.items()))


main()
