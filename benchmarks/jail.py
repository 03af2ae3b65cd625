#!/usr/bin/env python3
"""What a jail costs: from exec of the jailer to an API that answers, and memory that is shared.

    jail.py [RUNS [TOGETHER]]

The clock is this script's: from before the program is started to the whole answer of GET /; the
socket is connected to once the monitor has said on its standard output that it listens. The lone
monitor is measured in the same way, taking turns. Then TOGETHER (10) jailed monitors at once: the
text of the program by /proc/<pid>/smaps, as Rss and as Pss, which counts a share of what is shared.
Needs root.
"""

import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lib

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 100
TOGETHER = int(sys.argv[2]) if len(sys.argv) > 2 else 10
JAILER = lib.BUILD / "mayfly-jailer"
UID = 54321
REQUEST = b"GET / HTTP/1.1\r\nAccept: application/json\r\n\r\n"


class Start:
    """One start, timed; `kill` and `clear` are not part of it."""

    def __init__(self, words: list[str], path: Path):
        begin = time.monotonic_ns()
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0)
        said = b""
        while b"API server started" not in said:
            chunk = self.process.stdout.read(4096)
            if not chunk:
                raise SystemExit(f"{words[0]} ended with {self.process.wait()}")
            said += chunk
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(path))
            s.sendall(REQUEST)
            answer = s.recv(4096)
        self.ns = time.monotonic_ns() - begin
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"unexpected: {answer!r}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def alone(base: Path) -> tuple[list[str], Path]:
    path = base / "alone.sock"
    path.unlink(missing_ok=True)
    return [str(lib.MAYFLY), "--api-sock", str(path)], path


def jailed(base: Path, name: str, *options: str) -> tuple[list[str], Path]:
    root = base / lib.MAYFLY.name / name / "root"
    words = [str(JAILER), "--id", name, "--exec-file", str(lib.MAYFLY), "--uid", str(UID), "--gid",
             str(UID), "--chroot-base-dir", str(base), *options, "--", "--api-sock", "/run/api"]
    return words, root / "run/api"


def text_kib(pid: int) -> dict[str, float]:
    """Rss and Pss of the executable mapping of the program file."""
    smaps = Path(f"/proc/{pid}/smaps").read_text()
    found = re.search(r"^\S+ r-xp \S+ \S+ [1-9]\d* +/.*\n((?:\w+:.*\n)+)", smaps, flags=re.M)
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB", found[1], flags=re.M))
    return {"text, Rss": float(fields["Rss"]), "text, Pss": float(fields["Pss"])}


def v1(*controllers: str) -> bool:
    mounts = Path("/proc/self/mounts").read_text()
    return all(re.search(rf"^\S+ \S+ cgroup \S*\b{c}\b", mounts, flags=re.M) for c in controllers)


def remove_cgroups(name: str) -> None:
    for path in Path("/sys/fs/cgroup").glob(f"*/{lib.MAYFLY.name}/{name}"):
        while (path / "cgroup.procs").read_text():
            pass
        path.rmdir()
        path.parent.rmdir()


def main() -> None:
    host = lib.host()
    lib.describe(host)
    results: dict[str, lib.Samples] = {"start": {}, "memory": {}}
    kinds: dict[str, list[str]] = {
        "jailed": [],
        "jailed, process and network namespace": ["--new-pid-ns", "--wait", "--new-net-ns"],
    }
    if v1("pids", "memory"):
        kinds["jailed, two cgroups (v1)"] = ["--cgroup", "pids.max=50", "--cgroup",
                                             "memory.limit_in_bytes=1000000000"]
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        for n in range(RUNS):
            one = Start(*alone(base))
            one.kill()
            results["start"].setdefault("alone", []).append(one.ns)
            for kind, options in kinds.items():
                jail = f"j{n}"
                one = Start(*jailed(base, jail, *options))
                one.kill()
                results["start"].setdefault(kind, []).append(one.ns)
                shutil.rmtree(base / lib.MAYFLY.name / jail)
                remove_cgroups(jail)
        lib.table(f"exec to the answer of GET / ({RUNS} starts)", results["start"], "ms", 1e-6)
        many = [Start(*jailed(base, f"m{n}")) for n in range(TOGETHER)]
        for one in many:
            for what, value in text_kib(one.process.pid).items():
                results["memory"].setdefault(what, []).append(value)
        for one in many:
            one.kill()
        lib.table(f"{TOGETHER} jailed monitors", results["memory"], "KiB", 1)
    lib.save("jail", "CLOCK_MONOTONIC of the client", host, results)


if __name__ == "__main__":
    main()
