"""What all benchmarks share: the samples, the host they were taken on, the table and the file.

The measuring programs print `<name> <number>` lines. Here they become medians. Nothing here decides
whether a figure is good: that is for people, who know what else the host was doing.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Iterable, Sequence

ROOT = Path(__file__).resolve().parents[1]
BUILD = Path(os.environ.get("MAYFLY_BUILD", ROOT / "build")).resolve()
MAYFLY = Path(os.environ.get("MAYFLY_BIN", BUILD / "mayfly"))
TOOLS = BUILD / "bench"
IN_TESTBED = "MAYFLY_TESTBED" in os.environ

Samples = dict[str, list[float]]


def run(*command: str | Path, **popen) -> str:
    """The output of a command that must succeed; its errors are shown as they come."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True, **popen)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


def attempt(*command: str | Path) -> str | None:
    """The output of a command that may fail, as a peer on a host it does not know: then None."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True)
    return done.stdout if done.returncode == 0 else None


def parse(text: str, into: Samples | None = None) -> Samples:
    samples: Samples = {} if into is None else into
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if re.fullmatch(r"[0-9.]+", value):
            samples.setdefault(name, []).append(float(value))
    return samples


def summary(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "n": len(ordered),
        "min": ordered[0],
        "p50": statistics.median(ordered),
        "p90": ordered[min(len(ordered) - 1, len(ordered) * 9 // 10)],
        "max": ordered[-1],
    }


def median(samples: Samples, name: str) -> float | None:
    return statistics.median(samples[name]) if samples.get(name) else None


def table(title: str, samples: Samples, unit: str = "us", scale: float = 1e-3) -> None:
    print(f"\n{title}  [{unit}]")
    width = max(map(len, samples), default=0)
    print(f"  {'':{width}}  {'n':>4} {'min':>10} {'p50':>10} {'p90':>10} {'max':>10}")
    for name, values in samples.items():
        s = summary(values)
        figures = " ".join(f"{s[k] * scale:10.3f}" for k in ("min", "p50", "p90", "max"))
        print(f"  {name:{width}}  {s['n']:4} {figures}")


# ---- the host -------------------------------------------------------------------------------------


def first(path: str, pattern: str = "(.*)") -> str:
    try:
        found = re.search(pattern, Path(path).read_text())
    except OSError:
        return ""
    return found.group(1).strip() if found else ""


def version_of(*command: str | Path) -> str:
    """The first line a program says about itself; empty if it is not to be had."""
    if not shutil.which(str(command[0])):
        return ""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=30)
    return done.stdout.splitlines()[0] if done.stdout else ""


def kvm_speed() -> str:
    """How fast /dev/kvm here runs guest code: a figure without it says nothing about another host."""
    probe = ROOT / "tests/testbed/testbed.sh"
    done = subprocess.run([str(probe), "probe"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True)
    if done.returncode not in (0, 1):
        return "unusable"
    kind = "native" if done.returncode == 0 else "the guest is interpreted"
    return f"{done.stdout.strip()} million guest instructions/s ({kind})"


def host(**more: str) -> dict[str, str]:
    return {
        "cpu": first("/proc/cpuinfo", r"model name\s*: (.*)"),
        "cpus": str(os.cpu_count()),
        "kernel": platform.release(),
        "kvm": kvm_speed(),
        "thp": first("/sys/kernel/mm/transparent_hugepage/enabled", r"\[(.*)\]"),
        "load": first("/proc/loadavg", r"(\S+ \S+)"),
        "date": datetime.date.today().isoformat(),
        "mayfly": run("git", "-C", ROOT, "describe", "--always", "--dirty").strip(),
        **more,
    }


def describe(facts: dict[str, str]) -> None:
    for name, value in facts.items():
        print(f"  {name:8} {value}")


def save(name: str, clock: str, facts: dict[str, str], results: dict[str, Samples],
         ratios: dict[str, float] | None = None) -> None:
    """build/bench/<name>.json: who, where, which clock from where to where, and every median."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    out = {
        "benchmark": name,
        "clock": clock,
        "host": facts,
        "results": {
            who: {what: summary(values) for what, values in samples.items()}
            for who, samples in results.items()
        },
        "ratios": ratios or {},
    }
    path = TOOLS / f"{name}.json"
    path.write_text(json.dumps(out, indent=1) + "\n")
    print(f"\n-> {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")


def ratio(mine: float | None, theirs: float | None) -> float | None:
    return round(mine / theirs, 3) if mine and theirs else None


def on_path(names: Iterable[str]) -> dict[str, str]:
    return {name: path for name in names if (path := shutil.which(name))}
