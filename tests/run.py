#!/usr/bin/env python3
"""Runs one tier of the tests, or adds the tiers up.

    run.py unit [pattern]       every build/unit/test_* (cmocka)
    run.py machine [pattern]    tests/machine: the monitor with small guests of our own
    run.py linux [pattern]      tests/linux: the monitor with Linux guests
    run.py summary [tier...]    one closing line over build/check/<tier>.json

One line per test: `ok NAME (s)`, `skipped NAME: why`, `FAILED NAME: why` and what the monitor said.
In the testbed a Linux test that failed gets a second chance, because the emulated SVM sometimes stops
delivering interrupts (to QEMU's own guests too); the line then says so.
The last line counts. Exit status 1 if a test failed, or if not one ran. Each test is a process of
its own, so that none can hang or break the next; two run at a time unless a test wants to be alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Callable, Iterator

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "lib"), str(HERE)]
sys.dont_write_bytecode = True

import mayfly  # noqa: E402

TIERS = ("unit", "machine", "linux")
TEST_LIMIT = 300.0  # seconds for one test as a whole, scaled like every other wait


@dataclass
class Result:
    name: str
    outcome: str  # "ok", "FAILED" or "skipped"
    seconds: float
    why: str = ""  # of a test that is ok: what was wrong the first time
    output: str = ""

    def line(self) -> str:
        if self.outcome == "ok":
            again = f" at the second attempt; the first: {self.why}" if self.why else ""
            return f"ok {self.name} ({self.seconds:.1f} s){again}"
        return f"{self.outcome} {self.name}: {self.why}"


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
    return Result(test.name, outcome, time.monotonic() - begin, why, output)


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
            result.why = self.first.why
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


def run_all(tests: list[Test], jobs: int, second_chance: bool) -> Iterator[Result]:
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
                running.append(Running(test))
        for r, result in collect(running) if running else []:
            if second_chance and result.outcome == "FAILED" and not r.first:
                running.append(Running(r.test, result))
            else:
                yield result


# ---- finding tests --------------------------------------------------------------------------------


def discover(tier: str, pattern: str) -> list[Test]:
    tests = []
    for path in sorted((HERE / tier).glob("test_*.py")):
        module = importlib.import_module(f"{tier}.{path.stem}")
        for name, function in vars(module).items():
            full = f"{path.stem.removeprefix('test_')}.{name.removeprefix('test_')}"
            ours = callable(function) and getattr(function, "__module__", "") == module.__name__
            if name.startswith("test_") and ours and re.search(pattern, full):
                tests.append(Test(full, function, getattr(function, "needs", frozenset())))
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


# ---- counting --------------------------------------------------------------------------------------


def count(results: list[Result]) -> dict[str, int]:
    outcomes = [r.outcome for r in results]
    return {"passed": outcomes.count("ok"), "failed": outcomes.count("FAILED"),
            "skipped": outcomes.count("skipped")}


def closing_line(counts: dict[str, int]) -> str:
    return "{passed} passed, {failed} failed, {skipped} skipped".format(**counts)


def write_result(tier: str, results: list[Result]) -> None:
    # What is written elsewhere in the testbed is gone with it.
    directory = Path(os.environ.get("MAYFLY_OUT", mayfly.BUILD)) / "check"
    directory.mkdir(parents=True, exist_ok=True)
    content = {"tier": tier, "counts": count(results), "tests": [asdict(r) for r in results]}
    new = directory / f"{tier}.json.new"
    new.write_text(json.dumps(content, indent=1) + "\n")
    new.rename(directory / f"{tier}.json")


def summary(tiers: list[str]) -> int:
    """Adds up what the tiers left behind; a tier without a result counts as one failure."""
    total = {"passed": 0, "failed": 0, "skipped": 0}
    for tier in tiers or TIERS:
        path = mayfly.BUILD / "check" / f"{tier}.json"
        try:
            counts = json.loads(path.read_text())["counts"]
            note = closing_line(counts)
        except (OSError, ValueError, KeyError):
            counts, note = {"failed": 1}, "left no result: counted as 1 failed"
        print(f"{tier}: {note}")
        for key in total:
            total[key] += counts.get(key, 0)
    print(closing_line(total))
    return 1 if total["failed"] or not total["passed"] else 0


def run_tier(tier: str, pattern: str, jobs: int) -> int:
    emulated = tier == "linux" and "MAYFLY_TESTBED" in os.environ
    if tier == "unit":
        found = run_unit(pattern)
    else:
        found = run_all(discover(tier, pattern), jobs, second_chance=emulated)
    results = []
    for result in found:
        results.append(result)
        print(result.line(), flush=True)
        if result.outcome == "FAILED" and result.output:
            print("  " + result.output.replace("\n", "\n  "), flush=True)
    write_result(tier, results)
    counts = count(results)
    print(closing_line(counts))
    return 1 if counts["failed"] or not (counts["passed"] + counts["failed"]) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tier", choices=[*TIERS, "summary"])
    parser.add_argument("pattern", nargs="*", default=[], help="regular expression on test names")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("-l", "--list", action="store_true", help="only print the names")
    options = parser.parse_args()
    if options.tier == "summary":
        return summary(options.pattern)
    pattern = "|".join(options.pattern)
    if options.list:
        print(*(t.name for t in discover(options.tier, pattern)), sep="\n")
        return 0
    return run_tier(options.tier, pattern, max(1, options.jobs))


if __name__ == "__main__":
    sys.exit(main())
