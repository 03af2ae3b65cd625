"""Drives one monitor process the way a test wants it: start, talk, watch, end.

Nothing here knows a particular test. Two rules hold throughout: a test never sleeps for a fixed
time, it waits for something to happen (a line, a file, an exit); and every wait has an end, which
is generous because some hosts interpret the guest. MAYFLY_TIMEOUT_SCALE stretches all of them.

    with Monitor() as m:
        m.configure(guest("console"), "do=hello")
        m.start()
        m.wait_for_console("hello")
        assert m.wait_exit() == 0
"""

from __future__ import annotations

import array
import copy
import ctypes
import ctypes.util
import fcntl
import hashlib
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import threading
import time
import weakref
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Callable, Iterable, Mapping, Sequence

if TYPE_CHECKING:
    import teleport

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("MAYFLY_BUILD", ROOT / "build")).resolve()
BINARY = Path(os.environ.get("MAYFLY_BIN", BUILD / "mayfly"))
SCALE = float(os.environ.get("MAYFLY_TIMEOUT_SCALE", "1"))
TIMEOUT = 30.0
CONSOLE_KEEP = 4 << 20


class Skip(Exception):
    """Raised by skip(): the test does not apply here."""


class Timeout(AssertionError):
    """Something that had to happen did not."""


def skip(reason: str) -> None:
    raise Skip(reason)


def needs(*what: str) -> Callable:
    """Marks what a test cannot do without: "root", "kvm", "linux", "alone" (no test beside it)."""

    def mark(function: Callable) -> Callable:
        function.needs = getattr(function, "needs", frozenset()) | frozenset(what)
        return function

    return mark


class Deadline:
    """A bounded wait; `left()` raises once it is over."""

    def __init__(self, seconds: float | None, what: str):
        self.seconds = (TIMEOUT if seconds is None else seconds) * SCALE
        self.end = time.monotonic() + self.seconds
        self.what = what

    def left(self) -> float:
        left = self.end - time.monotonic()
        if left <= 0:
            raise Timeout(f"waited {self.seconds:g} s for {self.what}")
        return left

    def before(self, end: float) -> Deadline:
        """The same wait, over at that moment if that is earlier."""
        part = copy.copy(self)
        part.end = min(self.end, end)
        return part


# ---- things of one test that must go away again ---------------------------------------------------

_monitors: list[Monitor] = []
_tempdirs: list[Path] = []


def tempdir() -> Path:
    """A fresh directory that is removed after the test. Short: socket paths have 108 bytes."""
    path = Path(tempfile.mkdtemp(prefix="mf-", dir=os.environ.get("MAYFLY_TMP", "/tmp")))
    _tempdirs.append(path)
    return path


def monitors() -> Sequence[Monitor]:
    """Every monitor the current test has made, for the report of a failure."""
    return _monitors


def clean_up_processes() -> None:
    for monitor in _monitors:
        monitor.kill()


def clean_up() -> None:
    clean_up_processes()
    for path in _tempdirs:
        shutil.rmtree(path, ignore_errors=True)
    _monitors.clear()
    _tempdirs.clear()


# ---- files ----------------------------------------------------------------------------------------


def guest(name: str) -> Path:
    path = BUILD / "guest" / f"{name}.elf"
    if not path.exists():
        raise AssertionError(f"{path} is not built (make guests)")
    return path


def make_disk(path: Path, size: int, seed: int = 1) -> Path:
    """A file whose every 8 bytes tell their own place, so that misplaced data shows."""
    with open(path, "wb") as f:
        for at in range(0, size, 65536):
            n = min(65536, size - at)
            words = range(at // 8, (at + n + 7) // 8)
            f.write(b"".join(struct.pack("<Q", seed << 40 | w) for w in words)[:n])
    return path


def digest(path: Path) -> str:
    """A hash of a file, or of every name, mode and content below a directory."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    total = hashlib.sha256()
    for entry in sorted(path.rglob("*")):
        total.update(f"{entry.relative_to(path)} {entry.lstat().st_mode:o}\n".encode())
        if entry.is_file() and not entry.is_symlink():
            total.update(entry.read_bytes())
    return total.hexdigest()


class Watch:
    """Tells when something below one directory was created or changed (inotify)."""

    CREATE_MOVE_MODIFY = 0x100 | 0x80 | 0x2
    _libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)

    def __init__(self, directory: Path):
        self.fd = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._libc.inotify_add_watch(self.fd, bytes(directory), self.CREATE_MOVE_MODIFY) < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch {directory}")

    def wait(self, other_fd: int, seconds: float) -> None:
        """Returns when something changed, when `other_fd` is readable, or after `seconds`."""
        ready, _, _ = select.select([self.fd, other_fd], [], [], seconds)
        if self.fd in ready:
            os.read(self.fd, 65536)

    def close(self) -> None:
        os.close(self.fd)


# ---- HTTP over a Unix socket ------------------------------------------------------------------------


class Response:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes, head: bytes = b""):
        self.status = status
        self.headers = {k.lower(): v for k, v in headers.items()}
        self.body = body
        self.head = head  # the bytes before the body, as they came

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def fault(self) -> str:
        """The error text of a refused request; empty if there is none."""
        try:
            return self.json.get("fault_message", "")
        except (ValueError, AttributeError):
            return ""

    def __repr__(self) -> str:
        return f"<{self.status} {self.body.decode(errors='replace')}>"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Api:
    """A well-behaved client: one kept-alive connection, JSON in and out."""

    known: weakref.WeakSet[Api] = weakref.WeakSet()

    def __init__(self, path: Path, timeout: float = TIMEOUT):
        self.path = path
        self.known.add(self)
        self.connection = _UnixConnection(path, timeout * SCALE)

    def request(self, method: str, path: str, body: Any = None) -> Response:
        data = None if body is None else json.dumps(body)
        headers = {"Accept": "application/json"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        self.connection.request(method, path, data, headers)
        answer = self.connection.getresponse()
        return Response(answer.status, dict(answer.getheaders()), answer.read())

    def get(self, path: str) -> Response:
        return self.request("GET", path)

    def put(self, path: str, body: Any = None) -> Response:
        return self.request("PUT", path, body)

    def patch(self, path: str, body: Any = None) -> Response:
        return self.request("PATCH", path, body)

    def must(self, method: str, path: str, body: Any = None, status: int = 204) -> Response:
        answer = self.request(method, path, body)
        assert answer.status == status, f"{method} {path} {body}: {answer}, expected {status}"
        return answer

    def close(self) -> None:
        self.connection.close()


def forget_connections(path: Path) -> None:
    """The process at that socket is gone: every client connects anew at its next request."""
    for api in Api.known:
        if api.path == path:
            api.close()


class Raw:
    """A client that sends exactly the bytes it is told to."""

    def __init__(self, path: Path, timeout: float = TIMEOUT):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout * SCALE)
        self.sock.connect(str(path))
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def _more(self) -> bool:
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def response(self) -> Response:
        """The next answer. ConnectionError if the peer closes first, TimeoutError if it is mute."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                raise ConnectionError(f"closed after {self.buffer!r}")
        head, rest = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, v in (x.split(":", 1) for x in lines[1:])}
        length = int(headers.get("content-length", "0"))
        while len(rest) < length:
            if not self._more():
                raise ConnectionError(f"closed inside a body: {rest!r}")
            rest = self.buffer.split(b"\r\n\r\n", 1)[1]
        self.buffer = rest[length:]
        return Response(int(lines[0].split()[1]), headers, rest[:length], head + b"\r\n\r\n")

    def closed(self) -> bool:
        """Whether the peer has closed; waits for it, and fails if it says something instead."""
        try:
            more = self._more()
        except ConnectionResetError:
            return True
        assert not more, f"expected the connection to close, got {self.buffer!r}"
        return True

    def close(self) -> None:
        self.sock.close()


# ---- the process ------------------------------------------------------------------------------------


class Output:
    """Everything a file descriptor delivers, collected by a thread so that no pipe fills up."""

    def __init__(self, stream: IO[bytes] | int):
        self.fd = stream if isinstance(stream, int) else os.dup(stream.fileno())
        self.data = b""
        self.total = 0
        self.ended = False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        while True:
            select.select([self.fd], [], [])
            with self.changed:
                try:
                    chunk = os.read(self.fd, 65536)
                except OSError:  # the other side of a pty has gone
                    chunk = b""
                self.total += len(chunk)
                self.data = (self.data + chunk)[-CONSOLE_KEEP:]
                self.ended = not chunk
                self.changed.notify_all()
            if not chunk:
                os.close(self.fd)
                return

    def wait(self, condition: Callable[[bytes], Any], deadline: Deadline) -> Any:
        """The first true value of `condition(all bytes so far)`."""
        with self.changed:
            while True:
                value = condition(self.data)
                if value:
                    return value
                if self.ended:
                    raise AssertionError(f"output ended without {deadline.what}")
                self.changed.wait(deadline.left())

    def everything(self) -> bytes:
        """Also what is still in the pipe; its writers stand still."""
        unread = array.array("i", [1])
        with self.changed:
            while not self.ended and not fcntl.ioctl(self.fd, termios.FIONREAD, unread) and unread[0]:
                self.changed.wait()
            return self.data

    def finish(self) -> bytes:
        """Everything, once the writer has closed its end."""
        self.thread.join(TIMEOUT * SCALE)
        return self.data


class Monitor:
    """One monitor process, its temporary directory, socket, log and console.

    `api`: pass --api-sock and wait until the socket is there. `log`: write the log to a file of
    its own, so that standard output carries the guest's console and nothing else.
    `stdin`: None is /dev/null, "pipe" lets the test type, or any file object.
    """

    def __init__(
        self,
        *args: str,
        api: bool = True,
        log: bool = True,
        level: str = "Info",
        stdin: Any = None,
        stdout: Any = None,
        wrap: Sequence[str] = (),
        directory: Path | None = None,
        **popen: Any,
    ):
        self.dir = directory or tempdir()
        self.socket = self.dir / "api.sock"
        self.log_path = self.dir / "log"
        self.clients: list[Api] = []
        command = [*args]
        if api:
            command += ["--api-sock", str(self.socket)]
        if log:
            command += ["--log-path", str(self.log_path), "--level", level]
        self.exit_code: int | None = None
        self.moves = 0  # how often its machine has gone to another process
        self.traveller: teleport.Traveller | None = None
        command = self._ticket(command, wrap, popen)
        self._spawn(command, wrap, stdin, stdout, popen)
        _monitors.append(self)
        if api:
            self.wait_for_socket()

    def _ticket(
        self, args: list[str], wrap: Sequence[str], popen: dict[str, Any]
    ) -> list[str]:
        """Whether its machine is to be moved into other processes; the arguments for the first."""
        import teleport

        if not teleport.wanted():
            return args
        self.traveller = teleport.Traveller(self, wrap, popen)
        return self.traveller.prepare(args, self.socket)

    def _place(
        self, args: Sequence[str], wrap: Sequence[str], popen: dict[str, Any]
    ) -> tuple[dict[str, Any], Callable[[], None]]:
        """In a jail or not; what is to be done once the process runs."""
        import inside

        if not inside.wanted():
            self.command = [*wrap, str(BINARY), *args]
            return popen, lambda: None
        if wrap:
            skip("the test prepares the process itself")
        jail = inside.Inside(args, popen)
        self.command = jail.command
        return popen, jail.started

    def launch(
        self, args: Sequence[str], wrap: Sequence[str], popen: dict[str, Any], **streams: Any
    ) -> None:
        """The process, or one that takes the place of the one before."""
        popen, started = self._place(args, wrap, popen)
        self.process = subprocess.Popen(self.command, bufsize=0, **streams, **popen)
        started()
        self.pid = self.process.pid
        self.pidfd = os.pidfd_open(self.pid)

    def _spawn(
        self, args: Sequence[str], wrap: Sequence[str], stdin: Any, stdout: Any,
        popen: dict[str, Any],
    ) -> None:
        if not BINARY.exists():
            raise AssertionError(f"{BINARY} is not built (make)")
        first = {None: subprocess.DEVNULL, "pipe": subprocess.PIPE}
        self.launch(
            args, wrap, popen,
            stdin=first.get(stdin, stdin) if isinstance(stdin, (str, type(None))) else stdin,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
        )
        self.console = Output(self.process.stdout) if stdout is None else None
        self.stderr = Output(self.process.stderr)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        # A test that fails wants to look at the monitor as it was: kill() keeps what it said.
        self.kill()

    # -- waiting

    def _wait(self, deadline: Deadline, wait: Callable[[Deadline], Any]) -> Any:
        return self.traveller.wait(deadline, wait) if self.traveller else wait(deadline)

    def wait_for_socket(self) -> None:
        deadline = Deadline(None, f"the API socket {self.socket}")
        watch = Watch(self.dir)
        try:
            while not self.socket.exists():
                if not self.alive():
                    raise AssertionError(f"ended with {self.wait_exit()} before the socket: {self}")
                watch.wait(self.pidfd, deadline.left())
        finally:
            watch.close()

    def wait_for_console(self, pattern: str | bytes, timeout: float | None = None) -> re.Match:
        expression = re.compile(pattern.encode() if isinstance(pattern, str) else pattern)
        deadline = Deadline(timeout, f"{expression.pattern!r} on the console")
        return self._wait(deadline, lambda until: self.console.wait(expression.search, until))

    def wait_for_log(self, pattern: str, timeout: float | None = None) -> re.Match:
        deadline = Deadline(timeout, f"{pattern!r} in the log")
        watch = Watch(self.dir)
        try:
            while True:
                over = not self.alive()
                found = re.search(pattern, self.log())
                if found:
                    return found
                if over:
                    raise AssertionError(f"ended without {pattern!r} in the log")
                watch.wait(self.pidfd, deadline.left())
        finally:
            watch.close()

    def wait_exit(self, timeout: float | None = None) -> int:
        """The exit code; minus the signal's number if it died by one."""
        if self.exit_code is None:
            self._wait(Deadline(timeout, "the monitor to end"), self._wait_exit)
            self._ended()
        return self.exit_code

    def _wait_exit(self, deadline: Deadline) -> None:
        select.select([self.pidfd], [], [], deadline.left())
        if self.process.poll() is None:
            raise Timeout(f"waited {deadline.seconds:g} s for the monitor to end")

    def _ended(self) -> None:
        self.exit_code = self.process.wait()
        os.close(self.pidfd)
        for output in (self.console, self.stderr):
            if output:
                output.finish()

    # -- looking

    def alive(self) -> bool:
        return self.exit_code is None and self.process.poll() is None

    def assert_alive(self) -> None:
        """It runs, and it still answers: a process that hangs is not alive."""
        assert self.alive(), f"the monitor ended with {self.wait_exit()}"
        fresh = Api(self.socket)
        try:
            fresh.must("GET", "/", status=200)
        finally:
            fresh.close()

    def log(self) -> str:
        try:
            return self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def output(self) -> str:
        return self.console.data.decode(errors="replace") if self.console else ""

    def errors(self) -> str:
        return self.stderr.data.decode(errors="replace")

    def proc(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_text()

    def threads(self) -> dict[int, str]:
        tasks = Path(f"/proc/{self.pid}/task")
        return {int(t.name): (t / "comm").read_text().rstrip("\n") for t in tasks.iterdir()}

    def thread_stat(self, tid: int) -> list[str]:
        text = Path(f"/proc/{self.pid}/task/{tid}/stat").read_text()
        return text.rsplit(")", 1)[1].split()

    def cpu_ticks(self) -> int:
        """Processor time of the whole process so far, in clock ticks (10 ms)."""
        fields = self.proc("stat").rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def switches(self, tid: int | None = None) -> int:
        """How often a thread (default: main) went to sleep or was put aside: 0 more means idle."""
        text = self.proc(f"task/{tid or self.pid}/status")
        return sum(int(n) for n in re.findall(r"ctxt_switches:\s+(\d+)", text))

    def rss_kib(self) -> int:
        return int(re.search(r"VmRSS:\s+(\d+)", self.proc("status")).group(1))

    def fds(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    # -- doing

    @property
    def api(self) -> Api:
        if not self.clients:
            self.clients.append(Api(self.socket))
        return self.clients[0]

    def raw(self) -> Raw:
        return Raw(self.socket)

    def configure(
        self,
        kernel: Path | str,
        args: str = "",
        *,
        vcpus: int = 1,
        mem_mib: int = 128,
        initrd: Path | None = None,
        drives: Iterable[Mapping[str, Any]] = (),
        rng: bool = False,
    ) -> None:
        """The usual way to a bootable machine; each step must succeed."""
        boot = {"kernel_image_path": str(kernel), "boot_args": args}
        if initrd:
            boot["initrd_path"] = str(initrd)
        self.api.must("PUT", "/machine-config", {"vcpu_count": vcpus, "mem_size_mib": mem_mib})
        self.api.must("PUT", "/boot-source", boot)
        for d in drives:
            self.api.must("PUT", f"/drives/{d['drive_id']}", d)
        if rng:
            self.api.must("PUT", "/entropy", {})

    def start(self) -> None:
        self.api.must("PUT", "/actions", {"action_type": "InstanceStart"})

    def pause(self) -> None:
        self.api.must("PATCH", "/vm", {"state": "Paused"})

    def resume(self) -> None:
        self.api.must("PATCH", "/vm", {"state": "Resumed"})

    def type(self, data: bytes) -> None:
        self.process.stdin.write(data)

    def signal(self, number: int) -> None:
        if self.traveller:
            self.traveller.stay()  # it is this process that is meant
        signal.pidfd_send_signal(self.pidfd, number)

    def kill(self) -> None:
        """Ends the process if it still runs, and keeps what it said for the report."""
        for client in self.clients:
            client.close()
        if self.exit_code is None:
            if self.process.poll() is None:
                self.signal(signal.SIGKILL)
            self._ended()

    def __repr__(self) -> str:
        parts = [f"$ {' '.join(self.command)}", f"exit code: {self.exit_code}"]
        for name, text in (
            ("stdout", self.output()),
            ("stderr", self.errors()),
            ("log", self.log()),
        ):
            if text.strip():
                parts.append(f"{name}:\n{_tail(text)}")
        return "\n".join(parts)


def _tail(text: str, lines: int = 40) -> str:
    kept = text.splitlines()[-lines:]
    return "\n".join(f"  | {line[:300]}" for line in kept)


# ---- conveniences for whole tests -------------------------------------------------------------------


def drive(path: Path, drive_id: str = "disk", **more: Any) -> dict[str, Any]:
    base = {"drive_id": drive_id, "path_on_host": str(path), "is_root_device": False}
    return {**base, **more}


def config_file(directory: Path, kernel: Path | str, args: str = "", **more: Any) -> Path:
    """A configuration file for --config-file; `more` are further top-level keys (a_b means a-b)."""
    content: dict[str, Any] = {
        "boot-source": {"kernel_image_path": str(kernel), "boot_args": args},
        "drives": [],
    }
    content.update({k.replace("_", "-"): v for k, v in more.items()})
    path = directory / "config.json"
    path.write_text(json.dumps(content))
    return path


def run_to_end(*args: str, timeout: float | None = None, **more: Any) -> Monitor:
    """Starts the monitor without an API, waits for its end; exit_code, errors() etc. are set."""
    more.setdefault("api", False)
    monitor = Monitor(*args, **more)
    monitor.wait_exit(timeout)
    return monitor


def guest_verdict(monitor: Monitor, timeout: float | None = None) -> str:
    """Waits for a guest that checks things itself; fails with its own words. Returns its output.

    The guests print `FAILED <what>` for each check that does not hold and end with
    `checks <n> failed <m>`; no verdict, or no check at all, is a failure too.
    """
    match = monitor.wait_for_console(r"checks (\d+) failed (\d+)", timeout)
    output = monitor.output()
    complaints = [line for line in output.splitlines() if "FAILED" in line]
    assert int(match[2]) == 0 and not complaints, "; ".join(complaints) or output
    assert int(match[1]) > 0, "the guest checked nothing"
    return output


def start_guest(
    name: str,
    args: str = "",
    *options: str,
    vcpus: int = 1,
    mem_mib: int = 128,
    drives: Iterable[Mapping[str, Any]] = (),
    rng: bool = False,
    initrd: Path | None = None,
    **more: Any,
) -> Monitor:
    """A guest of ours, from a configuration file and without an API: the quickest way to one."""
    directory = tempdir()
    boot = {"kernel_image_path": str(guest(name)), "boot_args": args}
    if initrd:
        boot["initrd_path"] = str(initrd)
    content = {
        "boot-source": boot,
        "drives": list(drives),
        "machine-config": {"vcpu_count": vcpus, "mem_size_mib": mem_mib},
    }
    if rng:
        content["entropy"] = {}
    path = directory / "config.json"
    path.write_text(json.dumps(content))
    if not more.get("api"):
        options = ("--no-api", *options)
    more.setdefault("api", False)
    return Monitor("--config-file", str(path), *options, directory=directory, **more)


def run_guest(name: str, args: str = "", timeout: float | None = None, **more: Any) -> str:
    """Runs a guest that checks things itself to its good end; returns what it printed."""
    with start_guest(name, args, **more) as m:
        output = guest_verdict(m, timeout)
        assert m.wait_exit() == 0, f"the monitor ended with {m.exit_code}"
        # By the guest's own last act, and by nothing that it did before.
        assert "keyboard controller" in m.log(), m.log()
        return output
