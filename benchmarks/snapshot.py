#!/usr/bin/env python3
"""Snapshots: how long a machine stands still, how soon a copy runs, what a copy costs in memory.

    snapshot.py [RUNS] [CLONES]      RUNS (20) loads of each kind; up to CLONES (1000) alive at once

The guest is build/bench/wake.elf: it spins, and says "~" with its first instructions in a copy. 1 vCPU,
the /dev/kvm of this machine; files are where TMPDIR says. `drive` reads the clocks of loads; the pause is
what the monitor tells. Firecracker, if on PATH, loads a snapshot of its own in the same run.
"""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import lib

NUMBERS = [int(a) for a in sys.argv[1:]]
RUNS = NUMBERS[0] if NUMBERS else 20
CLONES = NUMBERS[1] if len(NUMBERS) > 1 else 1000
GUEST = lib.TOOLS / "wake.elf"
PAUSES = ((128, 64), (512, 384), (1024, 896), (2048, 1792), (4096, 2816))


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path):
        super().__init__("localhost")
        self.path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Machine:
    """A monitor's process and its API; nothing started."""

    count = 0

    def __init__(self, directory: Path, binary: str | Path = lib.MAYFLY):
        Machine.count += 1
        self.socket = directory / f"{Machine.count}.sock"
        words = [str(binary), "--api-sock", str(self.socket), "--level", "Error"]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL)

    def ready(self) -> None:
        while True:
            try:
                self.ask("GET", "/")
                return
            except (FileNotFoundError, ConnectionRefusedError):
                if self.process.poll() is not None:
                    raise SystemExit("the monitor does not run here")
                time.sleep(0.002)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = Connection(self.socket)
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {text.decode()}")
        return json.loads(text) if text else None

    def boot(self, mib: int, resident: int, **machine: Any) -> None:
        self.ready()
        self.ask("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": mib, **machine})
        boot = {"kernel_image_path": str(GUEST), "boot_args": str(resident)}
        self.ask("PUT", "/boot-source", boot)
        self.ask("PUT", "/actions", {"action_type": "InstanceStart"})
        self.wait()

    def wait(self) -> None:
        while (byte := self.process.stdout.read(1)) != b"~":
            if not byte:
                raise SystemExit("the monitor ended")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.socket.unlink(missing_ok=True)


def files(directory: Path, **more: Any) -> dict:
    return {"snapshot_path": str(directory / "state"), "mem_file_path": str(directory / "mem"), **more}


# ---- standing still --------------------------------------------------------------------------------


def live(machine: Machine, directory: Path) -> float:
    pause = machine.ask("PUT", "/snapshot/create", files(directory, live=True))["pause_us"]
    while machine.ask("GET", "/snapshot/status")["state"] == "Writing":
        time.sleep(0.005)
    return pause


def pauses(directory: Path) -> lib.Samples:
    samples: lib.Samples = {}
    for mib, resident in PAUSES:
        name = f"{mib} MiB, {resident} resident"
        for _ in range(3):
            machine = Machine(directory)
            machine.boot(mib, resident, shareable=True)
            samples.setdefault(f"{name}: live", []).append(live(machine, directory))
            samples.setdefault(f"{name}: live again", []).append(live(machine, directory))
            machine.end()
        machine = Machine(directory)
        machine.boot(mib, resident)
        samples.setdefault(f"{name}: live, not shareable", []).append(live(machine, directory))
        machine.ask("PATCH", "/vm", {"state": "Paused"})
        begin = time.monotonic_ns()
        machine.ask("PUT", "/snapshot/create", files(directory, snapshot_type="Full"))
        samples.setdefault(f"{name}: paused", []).append((time.monotonic_ns() - begin) / 1000)
        machine.end()
    return samples


# ---- loads -------------------------------------------------------------------------------------------


def load_body(backend: str, path: Path, state: Path | None = None) -> dict:
    body = {"mem_backend": {"backend_type": backend, "backend_path": str(path)}, "resume_vm": True}
    return body if state is None else {"snapshot_path": str(state), **body}


def drive(directory: Path, body: dict, into: lib.Samples, *command: str | Path) -> None:
    path = directory / "drive.sock"
    text = lib.run(lib.TOOLS / "drive", "-n", str(max(1, RUNS // 10)), "-m", "~", "-a", path, "-p",
                   f"/snapshot/load {json.dumps(body)}", "--", *command, "--api-sock", path,
                   "--level", "Error")
    lib.parse(text, into)


def loads(directory: Path) -> tuple[dict[str, lib.Samples], Machine, dict]:
    """From files and from a source, taking turns; the source goes on."""
    source = Machine(directory)
    source.boot(128, 64, shareable=True)
    live(source, directory)
    source.ask("PUT", "/snapshot/share", {"socket_path": str(directory / "source")})
    template = load_body("Template", directory / "source")
    kinds = {
        "File": (load_body("File", directory / "mem", directory / "state"), lib.MAYFLY),
        "Template": (template, lib.MAYFLY),
        "Template, standby": (template, lib.MAYFLY, "--standby"),
    }
    if firecracker := shutil.which("firecracker"):
        (directory / "fc").mkdir()
        peer = Machine(directory, firecracker)
        peer.boot(128, 64)
        peer.ask("PATCH", "/vm", {"state": "Paused"})
        peer.ask("PUT", "/snapshot/create", files(directory / "fc"))
        peer.end()
        kinds["Firecracker, File"] = (
            load_body("File", directory / "fc" / "mem", directory / "fc" / "state"), firecracker)
    results: dict[str, lib.Samples] = {}
    for _ in range(10):
        for name, (body, *command) in kinds.items():
            drive(directory, body, results.setdefault(name, {}), *command)
    return results, source, template


# ---- many ---------------------------------------------------------------------------------------------


def kib(pid: int, key: str) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(n) for n in re.findall(rf"^{key}:\s+(\d+) kB", text, flags=re.M))


def available() -> int:
    return int(lib.first("/proc/meminfo", r"MemAvailable:\s+(\d+)"))


def together(directory: Path, template: dict, n: int, into: lib.Samples) -> None:
    """n clones asked for at once, by eight clients; then what they cost."""
    before = available()
    machines = [Machine(directory) for _ in range(n)]
    for machine in machines:
        machine.ready()
    shells = available()
    todo, took = list(machines), []

    def client() -> None:
        while todo:
            try:
                machine = todo.pop()
            except IndexError:
                return
            begin = time.monotonic_ns()
            machine.ask("PUT", "/snapshot/load", {**template, "resume_vm": n <= 10})
            took.append((time.monotonic_ns() - begin) / 1000)

    threads = [threading.Thread(target=client) for _ in range(min(8, n))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    into[f"{n} at once: request to answer, us"] = took
    pids = [m.process.pid for m in machines]
    into[f"{n} alive: private, KiB"] = [
        float(kib(p, "Private_Dirty") + kib(p, "Private_Clean")) for p in pids[:100]]
    into[f"{n} alive: Pss, KiB"] = [float(kib(p, "Pss")) for p in pids[:100]]
    into[f"{n} alive: the host's memory, each, KiB"] = [(before - available()) / n]
    into[f"{n} shells before the load: the host's memory, each, KiB"] = [(before - shells) / n]
    for machine in machines:
        machine.process.kill()
    for machine in machines:
        machine.end()


def main() -> None:
    host = lib.host(firecracker=lib.version_of("firecracker", "--version"))
    lib.describe(host)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        results = {"pause": pauses(directory)}
        lib.table("the machine stands still", results["pause"], "us", 1)
        found, source, template = loads(directory)
        for who, samples in found.items():
            results[f"load, {who}"] = samples
            lib.table(f"load, {who}; start is the request", samples)
        source.ask("PATCH", "/vm", {"state": "Paused"})
        many = results["many"] = {}
        for n in (1, 10, 100, 1000):
            if n <= CLONES:
                together(directory, template, n, many)
        lib.table("clones of one source", many, "as named", 1)
        source.end()
    lib.save("snapshot", "the monitor's pause_us; CLOCK_MONOTONIC of the client", host, results)


main()
