#!/usr/bin/env python3
"""From exec to an API that answers; from InstanceStart to the guest's first instruction.

    start.py [RUNS]      medians, against every peer on PATH, taking turns
    start.py --trace     one start with every system call and its time, by strace (which slows it)

The guest is build/bench/first.elf: it writes to the serial port at once. 1 vCPU, 128 MiB, no devices,
the /dev/kvm of this machine. Clocks: drive.c.
"""

import json
import sys
import tempfile
from pathlib import Path

import lib

TRACE = "--trace" in sys.argv
RUNS = 1 if TRACE else int(sys.argv[1]) if len(sys.argv) > 1 else 50
ROUNDS = 1 if TRACE else 10
GUEST = lib.TOOLS / "first.elf"
ARGS = "console=ttyS0"
MARKER = "~"


def through_api(directory: Path, *command: str | Path, **machine: str) -> list[str | Path]:
    """Firecracker's API, whoever speaks it."""
    socket = directory / "api.sock"
    put = {
        "/machine-config": {"vcpu_count": 1, "mem_size_mib": 128, **machine},
        "/boot-source": {"kernel_image_path": str(GUEST), "boot_args": ARGS},
        "/actions": {"action_type": "InstanceStart"},
    }
    puts = [word for path, body in put.items() for word in ("-p", f"{path} {json.dumps(body)}")]
    return ["-a", socket, *puts, "--", *command, "--api-sock", socket, "--level", "Error"]


def monitors(directory: Path) -> dict[str, list[str | Path]]:
    """Name -> the words for drive. Peers without that API are given the machine as arguments."""
    peers = lib.on_path(("firecracker", "qemu-system-x86_64", "lkvm", "cloud-hypervisor"))
    found = {"mayfly": through_api(directory, lib.MAYFLY, "--boot-timer")}
    found["mayfly, 4 KiB pages"] = through_api(directory, lib.MAYFLY, "--boot-timer",
                                               huge_pages="None")
    # A static program that returns from main at once: what exec and the C library cost here.
    found["nothing"] = ["-w", "--", lib.TOOLS / "touch", "0"]
    if "firecracker" in peers:
        found["firecracker"] = through_api(directory, "firecracker", "--boot-timer")
    if "qemu-system-x86_64" in peers:
        found["qemu microvm"] = [
            "--", "qemu-system-x86_64", "-M",
            "microvm,accel=kvm,x-option-roms=off,rtc=off,acpi=off,pit=off,pic=off,isa-serial=on",
            "-cpu", "host,-arch-capabilities", "-smp", "1", "-m", "128", "-nodefaults", "-no-user-config",
            "-nographic", "-no-reboot", "-serial", "stdio", "-kernel", GUEST, "-append", ARGS,
        ]
    if "cloud-hypervisor" in peers:
        found["cloud-hypervisor"] = [
            "--", "cloud-hypervisor", "--kernel", GUEST, "--cmdline", ARGS, "--cpus", "boot=1",
            "--memory", "size=128M", "--serial", "tty", "--console", "off",
        ]
    return found


def trace(directory: Path) -> None:
    out = directory / "strace"
    words = through_api(directory, "strace", "-f", "-ttt", "-T", "-o", out, lib.MAYFLY)
    lib.run(lib.TOOLS / "drive", "-m", MARKER, *words)
    begin, rows = 0.0, []
    for line in out.read_text().splitlines():
        thread, at, call = line.split(maxsplit=2)
        if not begin and "PUT /actions" in call:
            begin = float(at)
        if begin:
            rows.append(f"{(float(at) - begin) * 1e6:9.0f}  {thread}  {call[:120]}  {call[-11:]}")
    print("       us  thread  system calls since the start request")
    print("\n".join(rows))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if TRACE:
            trace(directory)
            return
        host = lib.host(qemu=lib.version_of("qemu-system-x86_64", "--version"),
                        firecracker=lib.version_of("firecracker", "--version"))
        lib.describe(host)
        results: dict[str, lib.Samples] = {}
        found = monitors(directory)
        for _ in range(ROUNDS):
            for who in list(found):
                many = ["-n", str(max(1, RUNS // ROUNDS))]
                wait = ["-m", MARKER] if who != "nothing" else []
                done = lib.attempt(lib.TOOLS / "drive", *many, *wait, *found[who])
                if done is None and not who.startswith("mayfly"):
                    print(f"  {who} does not run here")
                    del found[who]
                elif done is None:
                    raise SystemExit("mayfly does not run here")
                else:
                    lib.parse(done, results.setdefault(who, {}))
        for who, samples in results.items():
            lib.table(f"{who} ({RUNS} starts)", samples)
        mine = results["mayfly"]
        ratios = {
            f"{what}, mayfly / {who}": r
            for who, theirs in results.items() if not who.startswith("mayfly")
            for what in mine if (r := lib.ratio(lib.median(mine, what), lib.median(theirs, what)))
        }
        lib.save("start", "CLOCK_MONOTONIC of the client; processor time of the monitor's process",
                 host, results, ratios)
        print("\n".join(f"  {k}: {v}" for k, v in ratios.items()))


main()
