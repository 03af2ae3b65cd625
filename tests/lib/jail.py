"""Drives one mayfly-jailer the way a test wants it, and clears up behind it.

The jail itself (a directory below a temporary base) goes with the test's other temporary
directories; cgroups are removed here, once what lived in them is gone.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import Any, Sequence

import mayfly
from mayfly import BUILD, Api, Deadline, Output, Watch, tempdir

JAILER = BUILD / "mayfly-jailer"
UID, GID = 12345, 12346

_numbers = itertools.count(1)


def fresh_id(word: str = "t") -> str:
    return f"{word}-{os.getpid()}-{next(_numbers)}"


def jailer(*args: Any, wrap: Sequence[str] = (), **popen: Any) -> subprocess.CompletedProcess:
    """Runs the jailer to its end with exactly these arguments."""
    popen.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        [*wrap, str(JAILER), *map(str, args)],
        capture_output=True, text=True, timeout=mayfly.TIMEOUT * mayfly.SCALE, **popen,
    )


def new_base(mode: int = 0o755) -> Path:
    base = tempdir()
    base.chmod(mode)
    return base


class Jail:
    """A jailer and what becomes of it. `args` go to the jailer, `extra` to the monitor."""

    def __init__(
        self,
        *args: Any,
        extra: Sequence[Any] = ("--api-sock", "/run/api.sock"),
        id: str | None = None,
        uid: int = UID,
        gid: int = GID,
        base: Path | None = None,
        exec_file: Path = mayfly.BINARY,
        wrap: Sequence[str] = (),
        program: Path = JAILER,
        **popen: Any,
    ):
        self.id = id or fresh_id()
        self.base = base or new_base()
        self.name = exec_file.name
        self.uid, self.gid = uid, gid
        self.root = self.base / self.name / self.id / "root"
        self.socket = self.root / "run" / "api.sock"
        self.detached = any(a in ("--daemonize", "--new-pid-ns") for a in args)
        self.command = [
            *wrap, str(program), "--id", self.id, "--exec-file", str(exec_file), "--uid", str(uid),
            "--gid", str(gid), "--chroot-base-dir", str(self.base), *map(str, args), "--",
            *map(str, extra),
        ]
        popen.setdefault("stdin", subprocess.DEVNULL)
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **popen
        )
        self.stdout, self.stderr = Output(self.process.stdout), Output(self.process.stderr)
        self.exit_code: int | None = None
        self.pidfd = -1
        self.clients: list[Api] = []
        mayfly._monitors.append(self)

    def __enter__(self) -> Jail:
        return self

    def __exit__(self, *_: Any) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return int((self.root / f"{self.name}.pid").read_text())

    def up(self) -> Jail:
        """Waits until the monitor answers."""
        if self.detached:
            assert self.wait_exit() == 0, self
            self._wait_for_socket()
        else:
            self.stdout.wait(lambda d: b"API server started" in d, Deadline(None, "the jailed API"))
        self.pidfd = os.pidfd_open(self.pid)
        self.api.must("GET", "/", status=200)
        return self

    def _wait_for_socket(self) -> None:
        deadline = Deadline(None, f"the API socket {self.socket}")
        watch = Watch(self.socket.parent)
        never, ours = os.pipe()
        try:
            while not self.socket.exists():
                watch.wait(never, deadline.left())
        finally:
            watch.close()
            os.close(never)
            os.close(ours)

    @property
    def api(self) -> Api:
        if not self.clients:
            self.clients.append(Api(self.socket))
        return self.clients[0]

    def wait_exit(self, timeout: float | None = None) -> int:
        """The exit code of the process that was the jailer."""
        if self.exit_code is None:
            deadline = Deadline(timeout, "the jailer to end")
            self.exit_code = self.process.wait(deadline.left())
        return self.exit_code

    def gone(self) -> None:
        """Waits for the end of the monitor itself, whoever its parent is."""
        if self.pidfd >= 0:
            seconds = Deadline(None, "the monitor to end").left()
            ended, _, _ = select.select([self.pidfd], [], [], seconds)
            assert ended, f"the monitor {self.pid} lives on"

    def alive(self) -> bool:
        return self.exit_code is None and self.process.poll() is None

    def errors(self) -> str:
        self.stderr.finish()
        return self.stderr.data.decode(errors="replace")

    def proc(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_text()

    def status(self) -> dict[str, str]:
        lines = self.proc("status").splitlines()
        return {k: v.strip() for k, v in (line.split(":", 1) for line in lines)}

    def kill(self) -> None:
        for client in self.clients:
            client.close()
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.gone()
            os.close(self.pidfd)
            self.pidfd = -1
        elif self.detached and (self.root / f"{self.name}.pid").exists():
            try:
                os.kill(self.pid, signal.SIGKILL)
            except (ProcessLookupError, ValueError):
                pass
        if self.exit_code is None:
            if self.process.poll() is None:
                self.process.kill()
            self.exit_code = self.process.wait()
        remove_cgroups(self.id)

    def __repr__(self) -> str:
        out = self.stdout.data.decode(errors="replace")
        err = self.stderr.data.decode(errors="replace")
        return f"$ {' '.join(self.command)}\nexit code: {self.exit_code}\nstdout:\n{out}\nstderr:\n{err}"


# ---- cgroups ------------------------------------------------------------------------------------


def cgroup_mounts() -> list[tuple[int, Path, set[str]]]:
    """(version, mount point, options) of every cgroup hierarchy."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind in ("cgroup", "cgroup2"):
            found.append((2 if kind == "cgroup2" else 1, Path(where), set(options.split(","))))
    return found


def cgroups_of(jail_id: str) -> list[Path]:
    """Every cgroup that is named like a jail."""
    walks = (os.walk(mount) for _, mount, _ in cgroup_mounts())  # which bears that others vanish
    return [Path(at) / jail_id for walk in walks for at, names, _ in walk if jail_id in names]


def remove_cgroups(jail_id: str) -> None:
    """With the parents that are empty then; a group whose last process is just ending is waited for."""
    deadline = Deadline(None, f"the cgroups of {jail_id} to be empty")
    for path in cgroups_of(jail_id):
        while (path / "cgroup.procs").read_text():
            deadline.left()
        while True:
            try:
                path.rmdir()
                break
            except OSError:
                deadline.left()
        for parent in path.parents:
            if (parent / "cgroup.procs").exists() and parent not in {m for _, m, _ in cgroup_mounts()}:
                try:
                    parent.rmdir()
                except OSError:
                    break
            else:
                break
