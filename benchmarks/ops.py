#!/usr/bin/env python3
"""What one operation of a device costs the monitor: instructions, system calls, interrupts. See ops.c.

    ops.py               every row, alone and 32 at a time
    ops.py --where ROW   the functions in which the instructions of a row are spent (32 at a time)

Counts, not times: the same on a busy machine as on an idle one, and the same each time. Instructions
are the monitor's own, by callgrind; what the kernel does for it is counted in calls, by strace. Set-up
and first times fall out of the difference between two runs. Disks are served without io_uring.
"""

from __future__ import annotations

import collections
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import lib

OPS = lib.TOOLS / "ops"
KICKS = (20, 120)
BATCHES = (1, 32)
ALONE = {"vsock-to-guest-64"}  # a stream does not keep its messages apart
Counts = collections.Counter


def callgrind(directory: Path, *words: str) -> Path:
    out = directory / "callgrind"
    lib.run("valgrind", "-q", "--tool=callgrind", "--toggle-collect=served",
            f"--callgrind-out-file={out}", OPS, *words)
    return out


def instructions(directory: Path, *words: str) -> Counts:
    found = re.search(r"^(?:summary|totals): (\d+)", callgrind(directory, *words).read_text(), re.M)
    return Counts(instructions=int(found.group(1)) if found else 0)


def calls(directory: Path, *words: str) -> Counts:
    """System calls between the two getppid() of each turn, and interrupts."""
    out = directory / "strace"
    said = lib.run("strace", "-o", out, OPS, *words)
    names = re.findall(r"^(\w+)\(", out.read_text(), re.M)
    inside, counts = False, Counts(interrupts=int(said.split()[-1]))
    for name in names:
        if name == "getppid":
            inside = not inside
        elif inside:
            counts[name] += 1
    return counts


def per_operation(count, directory: Path, row: str, batch: int) -> dict[str, float]:
    few, many = (count(directory, row, str(batch), str(kicks)) for kicks in KICKS)
    operations = batch * (KICKS[1] - KICKS[0])
    return {name: round((many[name] - few[name]) / operations, 3) for name in many}


def measure(directory: Path, ways: list) -> dict[str, lib.Samples]:
    results: dict[str, lib.Samples] = {}
    print(f"\n  {'':22} {'batch':>5} {'instr.':>8} {'calls':>7} {'irqs':>6}   each, per operation")
    for row in lib.run(OPS).split():
        for batch in BATCHES[:1] if row in ALONE else BATCHES:
            counts: dict[str, float] = {}
            for way in ways:
                counts |= per_operation(way, directory, row, batch)
            irqs, instr = counts.pop("interrupts", 0), counts.pop("instructions", 0)
            print(f"  {row:22} {batch:5} {instr:8.0f} {sum(counts.values()):7.2f} {irqs:6.2f}   "
                  + ", ".join(f"{name} {n:g}" for name, n in sorted(counts.items()) if n))
            counts |= {"instructions": instr, "interrupts": irqs}
            results[f"{row}, {batch} at once"] = {name: [n] for name, n in counts.items()}
    return results


def main() -> None:
    tools = {"valgrind": instructions, "strace": calls}
    ways = [way for tool, way in tools.items() if shutil.which(tool)]
    for tool in tools:
        if not shutil.which(tool):
            print(f"  {tool} is not here: {tools[tool].__name__} are skipped")
    with tempfile.TemporaryDirectory() as name:
        if "--where" in sys.argv:
            words = (sys.argv[sys.argv.index("--where") + 1], "32", str(KICKS[1]))
            subprocess.run(["callgrind_annotate", "--threshold=95", callgrind(Path(name), *words)],
                           check=True)
            return
        host = lib.host(valgrind=lib.version_of("valgrind", "--version"))
        lib.describe(host)
        lib.save("ops", "none: counts per operation", host, measure(Path(name), ways))


main()
