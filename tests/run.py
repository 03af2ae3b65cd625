#!/usr/bin/env python3
"""Runs one tier of the tests, or adds the tiers up.

    run.py unit [pattern]       every build/unit/test_* (cmocka)
    run.py fuzz [pattern]       every build/fuzz/fuzz_* for ten seconds, from the corpus in the tree
    run.py machine [pattern]    tests/machine: the monitor with small guests of our own
    run.py jailed [pattern]     the same once more, with every monitor in a jail
    run.py linux [pattern]      tests/linux: the monitor with Linux guests, in a jail
    run.py teleport [pattern]   the same once more, with every machine moved into other processes
    run.py summary [tier...]    one closing line over build/check/<tier>.json

One line per test: `ok NAME (s)`, `skipped NAME: why`, `FAILED NAME: why` and what the monitor said.
In the testbed a Linux test that failed gets a second chance, because the emulated SVM sometimes stops
delivering interrupts (to QEMU's own guests too); the line then says so.
The last line counts. Exit status 1 if a test failed, or if not one ran. Each test is a process of
its own, so that none can hang or break the next; two run at a time unless a test wants to be alone.

What is known is written down after each test. An emulated host can die under its tests: --resume takes
up where it left, and a test that was running at the death of three hosts cannot be run there: skipped.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Callable, Iterator

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "lib"), str(HERE)]
sys.dont_write_bytecode = True

import inside  # noqa: E402
import mayfly  # noqa: E402
import teleport  # noqa: E402

TIERS = ("unit", "fuzz", "machine", "jailed", "linux", "teleport")
AGAIN = {"jailed": "machine", "teleport": "linux"}  # tiers that are the tests of another one
FUZZ_SECONDS = int(os.environ.get("MAYFLY_FUZZ_SECONDS", "10"))  # for each harness
TEST_LIMIT = 75.0  # seconds for one test as a whole, scaled like every other wait


@dataclass
class Result:
    name: str
    outcome: str  # "ok", "FAILED" or "skipped"
    seconds: float
    why: str = ""  # of a test that is ok: what was wrong the first time
    output: str = ""
    note: str = ""

    def line(self) -> str:
        note = f" ({self.note})" if self.note else ""
        if self.outcome == "ok":
            again = f" at the second attempt; the first: {self.why}" if self.why else ""
            return f"ok {self.name} ({self.seconds:.1f} s){note}{again}"
        return f"{self.outcome} {self.name}{note}: {self.why}"


@dataclass
class Test:
    name: str
    function: Callable[[], None]
    needs: frozenset[str] = field(default_factory=frozenset)


# ---- one test in a process of its own -----------------------------------------------------------


def missing(test: Test) -> str:
    """Why the test cannot run here; empty if it can."""
    if "root" in test.needs and os.geteuid() != 0:
        return "needs root"
    if "kvm" in test.needs and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "needs /dev/kvm"
    if inside.wanted() and hasattr(test.function, "outside"):
        return test.function.outside
    if teleport.wanted():
        return getattr(test.function, "stays", "")
    return ""


def where(error: BaseException) -> str:
    """The test's own line, which says more than the helper's in which it failed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if Path(f.filename).name.startswith("test_")] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"


def explain(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    if isinstance(error, AssertionError) and not str(error).strip():
        frame = [f for f in traceback.extract_tb(error.__traceback__)][-1]
        text = f"not so: {frame.line}"
    elif not isinstance(error, AssertionError):
        text = f"{type(error).__name__}: {text}"
    return f"{where(error)}: {text}"


def perform(test: Test) -> Result:
    begin = time.monotonic()
    outcome, why, output = "ok", "", ""
    teleport.begin(test.name, test.function)
    try:
        test.function()
    except mayfly.Skip as reason:
        outcome, why = "skipped", str(reason)
    except BaseException as error:  # a test may fail in any way whatever
        outcome, why = "FAILED", explain(error)
    try:
        mayfly.clean_up_processes()
        if outcome == "FAILED":
            output = "\n".join(repr(m) for m in mayfly.monitors())
        mayfly.clean_up()
    except BaseException as error:
        outcome, why = "FAILED", f"{why} (clean-up: {error!r})"
    note = teleport.told() if outcome != "skipped" else ""
    return Result(test.name, outcome, time.monotonic() - begin, why, output, note)


class Running:
    """A forked child that performs one test and sends its result through a pipe."""

    def __init__(self, test: Test, first: Result | None = None):
        self.test = test
        self.first = first  # of a second attempt
        self.begin = time.monotonic()
        self.pipe, theirs = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.setpgid(0, 0)
            os.close(self.pipe)
            result = perform(test)
            with os.fdopen(theirs, "w") as f:
                json.dump(asdict(result), f)
            os._exit(0)
        os.close(theirs)
        self.data = b""

    def left(self) -> float:
        return self.begin + TEST_LIMIT * mayfly.SCALE - time.monotonic()

    def read(self) -> bool:
        """Takes what is there; True once the child has said everything."""
        chunk = os.read(self.pipe, 65536)
        self.data += chunk
        return not chunk

    def finish(self, why: str = "") -> Result:
        try:
            os.killpg(self.pid, signal.SIGKILL)  # and whatever the test has left behind
        except ProcessLookupError:
            pass
        os.close(self.pipe)
        _, status = os.waitpid(self.pid, 0)
        if self.data and not why:
            result = Result(**json.loads(self.data))
        else:
            why = why or f"the test process died: {os.waitstatus_to_exitcode(status)}"
            result = Result(self.test.name, "FAILED", time.monotonic() - self.begin, why)
        if self.first and result.outcome == "ok":
            note = f" ({self.first.note})" if self.first.note else ""
            result.why = f"{self.first.why}{note}"
        return result


def take_next(waiting: list[Test], running: list[Running], jobs: int) -> Test | None:
    """The next test that may start now, given those that run."""
    if len(running) >= jobs or any("alone" in r.test.needs for r in running):
        return None
    for test in waiting:
        if "alone" not in test.needs or not running:
            return test
    return None


def collect(running: list[Running]) -> list[tuple[Running, Result]]:
    """Waits for something to happen; what has ended is taken out of `running`."""
    limit = max(0.0, min(r.left() for r in running))
    ready, _, _ = select.select([r.pipe for r in running], [], [], limit)
    over = []
    for r in list(running):
        if r.pipe in ready and r.read():
            over.append((r, r.finish()))
        elif r.left() <= 0:
            over.append((r, r.finish(f"not over after {TEST_LIMIT * mayfly.SCALE:g} s")))
    for r, _ in over:
        running.remove(r)
    return over


def run_all(
    tests: list[Test], jobs: int, second_chance: bool, started: Callable[[Test], None]
) -> Iterator[Result]:
    # Tests that want to be alone come last, so that they do not hold up the others.
    waiting = sorted(tests, key=lambda t: "alone" in t.needs)
    running: list[Running] = []
    while waiting or running:
        while (test := take_next(waiting, running, jobs)) is not None:
            waiting.remove(test)
            reason = missing(test)
            if reason:
                yield Result(test.name, "skipped", 0.0, reason)
            else:
                started(test)
                running.append(Running(test))
        for r, result in collect(running) if running else []:
            if second_chance and result.outcome == "FAILED" and not r.first:
                running.append(Running(r.test, result))
            else:
                yield result


# ---- finding tests --------------------------------------------------------------------------------


def discover(tier: str, pattern: str) -> list[Test]:
    tests = []
    directory = AGAIN.get(tier, tier)
    for path in sorted((HERE / directory).glob("test_*.py")):
        if tier == "jailed" and path.stem == "test_jailer":
            continue  # makes its own jails
        module = importlib.import_module(f"{directory}.{path.stem}")
        for name, function in vars(module).items():
            full = f"{path.stem.removeprefix('test_')}.{name.removeprefix('test_')}"
            ours = callable(function) and getattr(function, "__module__", "") == module.__name__
            if name.startswith("test_") and ours and re.search(pattern, full):
                needs = getattr(function, "needs", frozenset())
                needs |= {"root"} if tier in AGAIN else set()
                tests.append(Test(full, function, needs))
    return tests


# ---- the unit tier: cmocka programs -------------------------------------------------------------

TAP = re.compile(r"(not ok|ok) \d+ (-|# SKIP) (.*)$")


def tap_results(program: str, text: str) -> tuple[list[Result], int]:
    """What a program reported, and how many of its planned tests it never came to report."""
    results, planned = [], 0
    for line in text.splitlines():
        plan = re.search(r"^1\.\.(\d+)$", line)
        planned += int(plan[1]) if plan else 0
        found = TAP.search(line)
        if not found:
            continue
        outcome = "skipped" if found[2] != "-" else "ok" if found[1] == "ok" else "FAILED"
        results.append(Result(f"{program}.{found[3]}", outcome, 0.0))
    return results, planned - len(results)


def run_unit_program(path: Path) -> list[Result]:
    """All results of one program. A crash fails every test it kept from reporting."""
    name = path.name.removeprefix("test_")
    environment = {**os.environ, "CMOCKA_MESSAGE_OUTPUT": "TAP"}
    begin = time.monotonic()
    try:
        done = subprocess.run(
            [str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=TEST_LIMIT * mayfly.SCALE,
        )
        code, text = done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as late:
        code, text = None, (late.stdout or b"").decode(errors="replace")
    seconds = time.monotonic() - begin
    results, lost = tap_results(name, text)
    reason = {"ok": "", "FAILED": f"in {name}", "skipped": "by the test itself"}
    for result in results:
        result.why = reason[result.outcome]
        result.seconds = seconds / len(results)
    ending = "not over in time" if code is None else f"exit code {code}"
    for n in range(max(lost, 0)):
        results.append(Result(f"{name}.(unreported {n + 1})", "FAILED", 0.0, ending))
    if not results or (code != 0 and all(r.outcome != "FAILED" for r in results)):
        results.append(Result(f"{name}.(program)", "FAILED", seconds, ending))
    failed = [r for r in results if r.outcome == "FAILED"]
    if failed:
        failed[-1].output = "\n".join(text.splitlines()[-60:])
    return results


def run_unit(pattern: str) -> Iterator[Result]:
    for path in sorted((mayfly.BUILD / "unit").glob("test_*")):
        if path.suffix or not os.access(path, os.X_OK) or not re.search(pattern, path.name):
            continue
        yield from run_unit_program(path)


# ---- the fuzz tier: libFuzzer harnesses -----------------------------------------------------------


def run_fuzz_program(path: Path) -> Result:
    """Ten seconds from the corpus; what it finds is kept in build/fuzz."""
    name = path.name.removeprefix("fuzz_")
    artifacts = mayfly.BUILD / "fuzz" / f"crash-{name}-"
    found = mayfly.BUILD / "fuzz" / "corpus" / name
    found.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    done = subprocess.run(
        [str(path), f"-max_total_time={FUZZ_SECONDS}", f"-artifact_prefix={artifacts}",
         "-rss_limit_mb=4096", str(found), str(HERE / "fuzz" / "corpus" / name)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "MAYFLY_FUZZ": "1"},
    )
    text = done.stdout.decode(errors="replace")
    seconds = time.monotonic() - begin
    ran = re.search(r"Done (\d+) runs", text)
    if done.returncode == 0 and ran:
        return Result(f"fuzz_{name}.{ran[1]}_inputs_are_survived", "ok", seconds)
    return Result(f"fuzz_{name}", "FAILED", seconds, f"exit code {done.returncode}",
                  "\n".join(text.splitlines()[-60:]))


def run_fuzz(pattern: str, jobs: int) -> Iterator[Result]:
    paths = [p for p in sorted((mayfly.BUILD / "fuzz").glob("fuzz_*"))
             if not p.suffix and os.access(p, os.X_OK) and p.is_file() and re.search(pattern, p.name)]
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(run_fuzz_program, paths)


# ---- counting --------------------------------------------------------------------------------------


def count(results: list[Result]) -> dict[str, int]:
    outcomes = [r.outcome for r in results]
    return {"passed": outcomes.count("ok"), "failed": outcomes.count("FAILED"),
            "skipped": outcomes.count("skipped")}


def closing_line(counts: dict[str, int]) -> str:
    return "{passed} passed, {failed} failed, {skipped} skipped".format(**counts)


class Record:
    """What a tier has come to know, in build/check/<tier>.json, whole at every moment."""

    def __init__(self, tier: str, resume: bool, shard: int = 0):
        # What is written elsewhere in the testbed is gone with it.
        directory = Path(os.environ.get("MAYFLY_OUT", mayfly.BUILD)) / "check"
        directory.mkdir(parents=True, exist_ok=True)
        self.tier = tier
        self.path = directory / (f"{tier}.{shard}.json" if shard else f"{tier}.json")
        self.results: list[Result] = []
        self.starts: dict[str, int] = {}  # of tests without a result
        self.whole = False
        if resume and self.path.exists():
            content = json.loads(self.path.read_text())
            self.results = [Result(**r) for r in content["tests"]]
            self.starts = content["starts"]

    def write(self) -> None:
        content = {
            "tier": self.tier, "whole": self.whole, "counts": count(self.results),
            "starts": self.starts, "tests": [asdict(r) for r in self.results],
        }
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(content, indent=1) + "\n")
        new.rename(self.path)

    def started(self, test: Test) -> None:
        self.starts[test.name] = self.starts.get(test.name, 0) + 1
        self.write()

    def add(self, result: Result) -> None:
        self.starts.pop(result.name, None)
        self.results.append(result)
        self.write()
        print(result.line(), flush=True)
        if result.outcome == "FAILED" and result.output:
            print("  " + result.output.replace("\n", "\n  "), flush=True)

    def left_of(self, tests: list[Test]) -> list[Test]:
        """The tests to run, without those that were there when three hosts died."""
        known = {r.name for r in self.results}
        for test in tests:
            if test.name not in known and self.starts.get(test.name, 0) >= 3:
                self.add(Result(test.name, "skipped", 0.0, "its emulated host stood still, three times"))
                known.add(test.name)
        return [t for t in tests if t.name not in known]


def summary(tiers: list[str]) -> int:
    """Adds up what the tiers left behind; a tier without a result counts as one failure."""
    total = {"passed": 0, "failed": 0, "skipped": 0}
    for tier in tiers or TIERS:
        path = mayfly.BUILD / "check" / f"{tier}.json"
        try:
            content = json.loads(path.read_text())
            counts = content["counts"]
            if not content["whole"]:
                counts["failed"] += 1
            note = closing_line(counts) + ("" if content["whole"] else " (did not end: 1 failed)")
        except (OSError, ValueError, KeyError):
            counts, note = {"failed": 1}, "left no result: counted as 1 failed"
        print(f"{tier}: {note}")
        for key in total:
            total[key] += counts.get(key, 0)
    print(closing_line(total))
    return 1 if total["failed"] or not total["passed"] else 0


def merge(tier: str, shards: int) -> int:
    """One result of those that several hosts have left behind."""
    whole = Record(tier, False)
    whole.whole = True
    for n in range(1, shards + 1):
        part = Record(tier, True, n)
        whole.results += part.results
        whole.whole &= part.path.exists() and json.loads(part.path.read_text())["whole"]
    whole.write()
    counts = count(whole.results)
    print(closing_line(counts))
    return 1 if counts["failed"] or not whole.whole else 0


def nothing_moved(results: list[Result]) -> bool:
    notes = [r.note for r in results if r.outcome == "ok"]
    return bool(notes) and all(note.startswith(teleport.NOT_MOVED) for note in notes)


def run_tier(tier: str, pattern: str, jobs: int, resume: bool, shard: tuple[int, int]) -> int:
    # Jails need root; without it the Linux tests are run as they are.
    if tier in AGAIN or (tier == "linux" and os.geteuid() == 0):
        os.environ.setdefault("MAYFLY_JAIL", "1")
    if tier == "teleport":
        os.environ.setdefault("MAYFLY_TELEPORT", str(random.randrange(1000000)))
    emulated = AGAIN.get(tier, tier) == "linux" and "MAYFLY_TESTBED" in os.environ
    record = Record(tier, resume, shard[0])
    if tier == "unit":
        found = run_unit(pattern)
    elif tier == "fuzz":
        found = run_fuzz(pattern, jobs)
    else:
        # Neighbours are alike, and take alike long: every host gets some of each kind.
        tests = discover(tier, pattern)[max(0, shard[0] - 1)::shard[1]]
        tests = record.left_of(tests)
        found = run_all(tests, jobs, second_chance=emulated, started=record.started)
    for result in found:
        record.add(result)
    if tier == "teleport" and nothing_moved(record.results):
        record.add(Result("teleport", "FAILED", 0.0, "not one machine was moved"))
    record.whole = True
    record.write()
    counts = count(record.results)
    print(closing_line(counts))
    return 1 if counts["failed"] or not (counts["passed"] + counts["failed"]) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tier", choices=[*TIERS, "summary"])
    parser.add_argument("pattern", nargs="*", default=[], help="regular expression on test names")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="go on where a dead host left")
    parser.add_argument("--shard", default="0/1", help="N/M: every M-th test, from the N-th on")
    parser.add_argument("--merge", type=int, default=0, help="one result of so many shards")
    parser.add_argument("-l", "--list", action="store_true", help="only print the names")
    options = parser.parse_args()
    if options.tier == "summary":
        return summary(options.pattern)
    pattern = "|".join(options.pattern)
    if options.merge:
        return merge(options.tier, options.merge)
    if options.list:
        print(*(t.name for t in discover(options.tier, pattern)), sep="\n")
        return 0
    return run_tier(options.tier, pattern, max(1, options.jobs), options.resume,
                    tuple(int(n) for n in options.shard.split("/")))


if __name__ == "__main__":
    sys.exit(main())
