"""Moves machines into fresh processes at random moments, without the test noticing (MAYFLY_TELEPORT).

A move: the machine is paused and saved, its process killed, and a fresh one loads it and goes on. It
happens within the waits of a test's Monitor, so that nobody talks to a process that is going away.
The new process has the standard streams of the old one, its log, its API socket's path, its network,
and a jail like the old one's, where the paths of the saved state mean the same.

MAYFLY_TELEPORT is the seed: what is drawn is a matter of it, of the test's name and of how many
monitors the test had before. Moments are drawn so that early ones are as likely as late ones.
"""

from __future__ import annotations

import os
import random
import select
import signal
import time
from pathlib import Path
from typing import Any, Callable, Sequence, TypeVar

from mayfly import SCALE, Api, Deadline, Monitor, Timeout, forget_connections, tempdir

MOVES = (1, 3)  # of a machine, if it lives long enough
LARGE_MIB = 1024  # takes so long to save that it moves once only
FIRST, LATER = (0.02, 0.4), (0.02, 2.0)  # seconds of running until the next, scaled
NOT_MOVED = "not moved"
GONE = 5.0  # seconds for the end of a process that does not answer any more

T = TypeVar("T")


def wanted() -> bool:
    return bool(os.environ.get("MAYFLY_TELEPORT"))


def stays(reason: str) -> Callable:
    """Marks a test whose machines cannot be moved, and says why."""

    def mark(function: Callable) -> Callable:
        function.stays = reason
        return function

    return mark


def moves_before_it_is_up(function: Callable) -> Callable:
    """Marks a test whose machines are moved only before their script begins."""
    function.moves_until = b"mayfly guest: up"
    return function


class _Test:
    """What is known of the one test that this process performs."""

    name = ""
    until: bytes | None = None
    monitors = 0
    moments: list[float] = []  # of moves, each since the start of its machine's first process


def begin(name: str, function: Callable) -> None:
    _Test.name, _Test.until = name, getattr(function, "moves_until", None)


def told() -> str:
    """What became of it, for the test's line."""
    if not wanted():
        return ""
    after = ", ".join(f"{moment:.2f}" for moment in _Test.moments)
    seed = f"MAYFLY_TELEPORT={os.environ['MAYFLY_TELEPORT']}"
    return f"moved after {after} s; {seed}" if after else f"{NOT_MOVED}; {seed}"


def _without(args: Sequence[str], flags: Sequence[str], options: Sequence[str]) -> list[str]:
    left, words = [], iter(args)
    for word in words:
        if word in options:
            next(words)
        elif word not in flags:
            left.append(word)
    return left


class Traveller:
    """The moves of one monitor's machine."""

    def __init__(self, monitor: Monitor, wrap: Sequence[str], popen: dict[str, Any]):
        self.monitor = monitor
        self.wrap, self.popen = wrap, dict(popen)
        _Test.monitors += 1
        seed = os.environ["MAYFLY_TELEPORT"]
        self.random = random.Random(f"{seed} {_Test.name} {_Test.monitors}")
        self.left = self.random.randint(*MOVES)
        self.args: list[str] = []
        self.begin = time.monotonic()
        self._draw(FIRST)

    def _draw(self, span: tuple[float, float]) -> None:
        low, high = span
        seconds = low * (high / low) ** self.random.random()
        self.due = time.monotonic() + seconds * SCALE

    def prepare(self, args: Sequence[str], socket: Path) -> list[str]:
        """The first process's arguments: it has an API in any case."""
        here = ["--api-sock", str(socket)]
        first = _without(args, ["--no-api"], ["--api-sock"])
        self.args = _without(first, [], ["--config-file"]) + here
        return first + here

    def wait(self, deadline: Deadline, wait: Callable[[Deadline], T]) -> T:
        """A wait of the test's, which a move interrupts and does not shorten."""
        while self.left:
            begin = time.monotonic()
            if begin >= self.due and not self.monitor.alive():
                break
            if begin >= self.due:
                self._move()
                deadline.end += time.monotonic() - begin
            try:
                return wait(deadline.before(self.due))
            except Timeout:
                deadline.left()
        return wait(deadline)

    def stay(self) -> None:
        self.left = 0

    # -- a move

    def _move(self) -> None:
        moment = time.monotonic() - self.begin
        directory = tempdir()
        config = self._save(directory)
        if config is not None:
            self._replace(config, directory)
            large = config["machine-config"]["mem_size_mib"] > LARGE_MIB
            self.left = 0 if large else self.left - 1
            self.monitor.moves += 1
            _Test.moments.append(moment)
        self._draw(LATER)

    def _save(self, directory: Path) -> dict[str, Any] | None:
        """What the machine is made of; None if it cannot be moved now, or has ended by itself."""
        api = Api(self.monitor.socket)
        try:
            self.monitor.wait_for_socket()
            if api.must("GET", "/", status=200).json["state"] != "Running":
                return None  # not yet, or the test has stopped it
            api.must("PATCH", "/vm", {"state": "Paused"})
            if self._arrived():
                api.must("PATCH", "/vm", {"state": "Resumed"})
                self.stay()
                return None
            config = api.must("GET", "/vm/config", status=200).json
            api.must("PUT", "/snapshot/create", {"snapshot_type": "Full", **_files(directory)})
            return config
        except (ConnectionError, FileNotFoundError, AssertionError):
            if not self._ends():
                raise
            self.stay()
            return None
        finally:
            api.close()

    def _arrived(self) -> bool:
        """Whether the machine, which stands still, has come to where it is to stay."""
        return _Test.until is not None and _Test.until in self.monitor.console.everything()

    def _ends(self) -> bool:
        return bool(select.select([self.monitor.pidfd], [], [], GONE * SCALE)[0])

    def _replace(self, config: dict[str, Any], directory: Path) -> None:
        m = self.monitor
        # Opened anew while the old process has them, they are the same pipes.
        streams = {
            name: os.open(f"/proc/{m.pid}/fd/{fd}", os.O_WRONLY if fd else os.O_RDONLY)
            for fd, name in enumerate(("stdin", "stdout", "stderr"))
        }
        typing, pidfd = m.process.stdin, m.pidfd
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        m.process.wait()
        forget_connections(m.socket)
        for path in _sockets(m.socket, config):
            path.unlink(missing_ok=True)
        m.launch(self.args, self.wrap, dict(self.popen), **streams)
        os.close(pidfd)
        for fd in streams.values():
            os.close(fd)
        m.process.stdin = typing
        m.wait_for_socket()
        self._load(directory)

    def _load(self, directory: Path) -> None:
        files = _files(directory)
        backend = {"backend_type": "File", "backend_path": files["mem_file_path"]}
        api = Api(self.monitor.socket)
        try:
            api.must("PUT", "/snapshot/load", {
                "snapshot_path": files["snapshot_path"], "mem_backend": backend, "resume_vm": True})
        finally:
            api.close()
        # The machine has the memory file open for as long as it needs it.
        for path in files.values():
            os.unlink(path)


def _files(directory: Path) -> dict[str, str]:
    return {"snapshot_path": str(directory / "state"), "mem_file_path": str(directory / "mem")}


def _sockets(api: Path, config: dict[str, Any]) -> list[Path]:
    """What a process that is killed leaves in the way of the next."""
    uds = (config.get("vsock") or {}).get("uds_path")
    return [api, *([Path(uds), Path(f"{uds}.seq")] if uds else [])]
