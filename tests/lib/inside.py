"""Runs a monitor of any test in a jail, without the test noticing (MAYFLY_JAIL=1).

The jailer is the real one. So that the paths a test gives to the API mean the same inside, the
directories tests work with are mounted in the jail under their own names, in a mount namespace that
ends with the monitor. What belongs to root outside belongs to the jail's user inside (an idmapped
mount); where the file system cannot do that, the monitor keeps the number 0, without capabilities.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import tempfile
from pathlib import Path
from typing import Any, Callable, Sequence

import mayfly

UID = GID = 54321

OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
OPEN_TREE_CLONE, AT_EMPTY_PATH, AT_RECURSIVE, CLOEXEC = 1, 0x1000, 0x8000, os.O_CLOEXEC
ATTR_IDMAP = 0x100000
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_REC, MS_SLAVE = 0x4000, 0x80000

libc = ctypes.CDLL(None, use_errno=True)


def wanted() -> bool:
    return os.environ.get("MAYFLY_JAIL", "0") not in ("", "0")


class MountAttr(ctypes.Structure):
    _fields_ = [(n, ctypes.c_uint64) for n in ("set", "clear", "propagation", "userns")]


def _check(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def _syscall(number: int, what: str, *args: Any) -> int:
    return _check(libc.syscall(ctypes.c_long(number), *args), what)


def private_mounts() -> None:
    """What this process mounts from now on is seen by it and those it starts, and ends with them."""
    _check(libc.unshare(CLONE_NEWNS), "unshare")
    _check(libc.mount(None, b"/", None, MS_REC | MS_SLAVE, None), "slave")


def _userns() -> int:
    """A user namespace in which root is the jail's user."""
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        # Not to be had in a chroot, as which the testbed runs.
        os.write(ready[1], b"." if libc.unshare(CLONE_NEWUSER) == 0 else b"!")
        os.close(go[1])
        os.read(go[0], 1)
        os._exit(0)
    made = os.read(ready[0], 1) == b"."
    try:
        if not made:
            raise PermissionError("no user namespaces here")
        Path(f"/proc/{pid}/uid_map").write_text(f"0 {UID} 1")
        Path(f"/proc/{pid}/gid_map").write_text(f"0 {GID} 1")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for fd in (*ready, *go):
            os.close(fd)
        os.waitpid(pid, 0)


def _tree(path: Path, userns: int | None) -> int:
    """A detached mount of a directory."""
    flags = OPEN_TREE_CLONE | CLOEXEC
    tree = _syscall(OPEN_TREE, f"open_tree {path}", -100, bytes(path), flags)
    if userns is not None:
        attr = MountAttr(set=ATTR_IDMAP, userns=userns)
        try:
            _syscall(MOUNT_SETATTR, "idmap", tree, b"", AT_EMPTY_PATH, ctypes.byref(attr),
                     ctypes.sizeof(attr))
        except OSError:
            os.close(tree)
            raise
    return tree


def shared() -> list[Path]:
    """What tests and monitors have in common: temporary files, and what was built."""
    return [Path(os.environ.get("MAYFLY_TMP", "/tmp")).resolve(), mayfly.BUILD]


@functools.cache
def _numbers() -> tuple[int, int]:
    """The user and group of jails here."""
    if platform.machine() != "x86_64":
        return 0, 0
    try:
        userns = _userns()
    except OSError:
        return 0, 0
    try:
        for path in shared():
            os.close(_tree(path, userns))
    except OSError:
        return 0, 0
    finally:
        os.close(userns)
    return UID, GID


class Inside:
    """One jail for one monitor: its command line, and what its process does before."""

    def __init__(self, args: Sequence[str], popen: dict[str, Any]):
        if "preexec_fn" in popen:
            mayfly.skip("the test prepares the process itself")
        args = list(args)
        jail_id = "anonymous-instance"
        if "--id" in args:
            at = args.index("--id")
            jail_id = args[at + 1]
            del args[at:at + 2]
        self.base = Path(tempfile.mkdtemp(prefix="mf-", dir=shared()[0]))
        mayfly._tempdirs.append(self.base)
        root = self.base / mayfly.BINARY.name / jail_id / "root"
        uid, gid = _numbers()
        self.targets = [root / str(path).lstrip("/") for path in shared()]
        for target in self.targets:
            target.mkdir(parents=True, mode=0o755)
        root.chmod(0o700)
        userns = _userns() if uid else None
        self.trees = [_tree(path, userns) for path in shared()]
        if userns is not None:
            os.close(userns)
        popen["preexec_fn"] = self._enter
        self.command = [
            str(mayfly.BUILD / "mayfly-jailer"), "--id", jail_id, "--exec-file", str(mayfly.BINARY),
            "--uid", str(uid), "--gid", str(gid), "--chroot-base-dir", str(self.base), "--", *args,
        ]

    def _enter(self) -> None:
        private_mounts()
        for tree, target in zip(self.trees, self.targets):
            _syscall(MOVE_MOUNT, f"move_mount {target}", tree, b"", -100, bytes(target), 4)

    def started(self) -> None:
        for tree in self.trees:
            os.close(tree)


def outside(reason: str) -> Callable:
    """Marks a test that cannot have its monitor in a jail, and says why."""

    def mark(function: Callable) -> Callable:
        function.outside = reason
        return function

    return mark
