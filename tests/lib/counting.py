"""A guest that counts for ever, checks its memory and asks a device, across saves and loads of it."""

from __future__ import annotations

import re
from pathlib import Path

from mayfly import Monitor, guest, tempdir


def start(args: str = "", shareable: bool = False, **more) -> Monitor:
    more.setdefault("rng", True)
    m = Monitor()
    m.configure(guest("count"), "rng=1 " * more["rng"] + args, **more)
    if shareable:
        m.api.must("PATCH", "/machine-config", {"shareable": True})
    m.start()
    return m


def create(m: Monitor, directory: Path, kind: str = "Full", name: str = "", **more):
    body = {
        "snapshot_path": str(directory / f"{name}state"),
        "mem_file_path": str(directory / f"{name}mem"),
        "snapshot_type": kind,
        **more,
    }
    return m.api.put("/snapshot/create", body)


def load(m: Monitor, directory: Path, resume: bool = True, name: str = "", **more):
    body = {
        "snapshot_path": str(directory / f"{name}state"),
        "mem_backend": {"backend_type": "File", "backend_path": str(directory / f"{name}mem")},
        "resume_vm": resume,
        **more,
    }
    return m.api.put("/snapshot/load", body)


def ok(answer) -> None:
    assert answer.status == 204, answer


def counted(m: Monitor) -> int:
    return int(re.findall(r"count (\d+)\n", m.output())[-1])


def goes_on(m: Monitor, after: int, rounds: int = 500) -> None:
    """The guest counts on from there, and misses nothing of its memory and its devices."""
    m.wait_for_console(r"count \d+\n", 60)
    now = counted(m)  # what the guest had said last may have been later than what was read of it
    assert now >= after, m.output()
    m.wait_for_console(rf"count {now + rounds}\n", 60)
    assert "FAILED" not in m.output(), m.output()
    m.assert_alive()


def saved(args: str = "", **more) -> tuple[Path, int]:
    """A snapshot in a fresh directory, and how far the guest had counted."""
    directory = tempdir()
    with start(args, **more) as m:
        m.wait_for_console(r"count 500\n", 60)
        m.pause()
        ok(create(m, directory))
        return directory, counted(m)
