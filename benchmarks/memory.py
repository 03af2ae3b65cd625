#!/usr/bin/env python3
"""What a monitor costs in memory beside its guest's RAM.

    memory.py [TOGETHER]

After the boot of a flat guest that touches next to nothing of its RAM: /proc/<pid>/smaps without the
mapping that is guest RAM. Private is what no other process maps (for a lone monitor that includes the
pages of the program itself, which a second one would share); anonymous is the part that can never be
shared; Pss counts a share of what several have in common. With no devices, with a disk
and an entropy device, and for TOGETHER (10) monitors at once. The kernel's own memory for a machine is
not in it: what could tell, MemAvailable, moves more with whatever else the host does.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import lib

TOGETHER = int(sys.argv[1]) if len(sys.argv) > 1 else 10
RAM_MIB = 128
RUNS = 5


def command(directory: Path, devices: bool) -> list[str]:
    config = {
        "boot-source": {"kernel_image_path": str(lib.TOOLS / "first.elf"), "boot_args": "-"},
        "machine-config": {"vcpu_count": 1, "mem_size_mib": RAM_MIB},
        "drives": [],
    }
    if devices:
        disk = directory / "disk"
        disk.write_bytes(bytes(1 << 20))
        config["drives"] = [{"drive_id": "d", "path_on_host": str(disk), "is_root_device": False}]
        config["entropy"] = {}
    path = directory / "machine.json"
    path.write_text(json.dumps(config))
    return [str(lib.MAYFLY), "--no-api", "--config-file", str(path), "--level", "Error"]


def start(words: list[str]) -> subprocess.Popen:
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    while (byte := process.stdout.read(1)) != b"~":
        if not byte:
            raise SystemExit(f"{words[0]} ended with {process.wait()}")
    return process


def stop(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def kib(pid: int) -> dict[str, int]:
    """Sums over all mappings but guest RAM, which is known by its size."""
    total = {"private": 0, "anonymous": 0, "pss": 0, "guest RAM, resident": 0}
    text = Path(f"/proc/{pid}/smaps").read_text()
    for block in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", text, flags=re.M)[1:]:
        value = {k: int(v) for k, v in re.findall(r"^(\w+):\s+(\d+) kB", block, flags=re.M)}
        if value["Size"] == RAM_MIB * 1024:
            total["guest RAM, resident"] += value["Rss"]
            continue
        total["private"] += value["Private_Clean"] + value["Private_Dirty"]
        total["anonymous"] += value["Anonymous"]
        total["pss"] += value["Pss"]
    if not total["guest RAM, resident"]:
        raise SystemExit("guest RAM is not one mapping of its own: this script must be told how it is")
    return total


def add(samples: lib.Samples, values: dict[str, int]) -> None:
    for name, value in values.items():
        samples.setdefault(name, []).append(float(value))


def main() -> None:
    host = lib.host()
    lib.describe(host)
    results: dict[str, lib.Samples] = {}
    with tempfile.TemporaryDirectory() as name:
        for what, devices in (("no devices", False), ("disk and entropy", True)):
            words = command(Path(name), devices)
            for _ in range(RUNS):
                one = start(words)
                add(results.setdefault(what, {}), kib(one.pid))
                stop([one])
            many = [start(words) for _ in range(TOGETHER)]
            samples = results.setdefault(f"{what}, {TOGETHER} together, each", {})
            for process in many:
                add(samples, kib(process.pid))
            stop(many)
    for what, samples in results.items():
        lib.table(what, samples, "KiB", 1)
    lib.save("memory", "KiB after the first line of a flat guest; smaps without guest RAM", host,
             results)


main()
