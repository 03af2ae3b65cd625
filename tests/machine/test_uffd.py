"""Memory from a page fault handler, by Firecracker's handshake: here the handler is a process of the test."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import http.client
import json
import mmap
import os
import signal
import socket
import struct
import threading
from pathlib import Path
from typing import Callable, Iterator

from counting import counted, create, goes_on, load, ok, saved
from mayfly import Monitor, skip, tempdir

PAGEFAULT, REMOVE = 0x12, 0x15
COPY, ZERO = 0xC028AA03, 0xC020AA04
PAGE = 4096


class Memory:
    """What a handler does: the pages of a memory file, or zeros where they were given back."""

    def __init__(self, path: Path, peer: socket.socket):
        text, fds, _, _ = socket.recv_fds(peer, 65536, 4)
        self.regions = json.loads(text)
        self.uffd, = fds
        os.set_blocking(self.uffd, True)
        with open(path, "rb") as f:
            self.file = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE,
                                  prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.file))
        self.removed: set[int] = set()

    def offset_of(self, address: int) -> int:
        for r in self.regions:
            if r["base_host_virt_addr"] <= address < r["base_host_virt_addr"] + r["size"]:
                return address - r["base_host_virt_addr"] + r["offset"]
        raise ValueError(hex(address))

    def one(self) -> bool:
        """Answers one event; false once the machine is gone."""
        try:
            message = os.read(self.uffd, 32)
        except OSError:
            return False
        event, a, b = struct.unpack("<B7xQQ8x", message)
        if event == REMOVE:
            self.removed.update(range(a // PAGE, b // PAGE))
        elif event == PAGEFAULT:
            at = b & -PAGE
            if at // PAGE in self.removed:
                request = bytearray(struct.pack("<QQQq", at, PAGE, 0, 0))
                code = ZERO
            else:
                source = self.base + self.offset_of(at)
                request = bytearray(struct.pack("<QQQQq", at, source, PAGE, 0, 0))
                code = COPY
            with contextlib.suppress(FileExistsError):
                fcntl.ioctl(self.uffd, code, request)
        return True


def serves(path: Path) -> Callable[[socket.socket], None]:
    def serve(peer: socket.socket) -> None:
        memory = Memory(path, peer)
        while memory.one():
            pass

    return serve


@contextlib.contextmanager
def handler(serve: Callable[[socket.socket], None]) -> Iterator[tuple[Path, int]]:
    """A process that accepts one machine; its socket, and its number."""
    path = tempdir() / "uffd"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    # The process that listens is the one that the monitor sees at the other end.
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            listener.listen()
            os.write(go, b".")
            peer, _ = listener.accept()
            listener.close()
            serve(peer)
        finally:
            os._exit(0)
    os.read(ready, 1)
    os.close(ready)
    os.close(go)
    listener.close()
    try:
        yield path, pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def load_from(m: Monitor, directory: Path, path: Path, resume: bool = True, **more):
    body = {
        "snapshot_path": str(directory / "state"),
        "mem_backend": {"backend_type": "Uffd", "backend_path": str(path)},
        "resume_vm": resume,
        **more,
    }
    answer = m.api.put("/snapshot/load", body)
    if answer.status == 400 and "Failed to create userfaultfd" in answer.fault:
        skip("no userfaultfd for this process here")
    return answer


def load_quietly(m: Monitor, directory: Path, path: Path) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        load_from(m, directory, path)


def test_a_machine_goes_on_with_pages_from_a_handler():
    directory, n = saved("pages=1024")
    with handler(serves(directory / "mem")) as (path, _), Monitor() as m:
        ok(load_from(m, directory, path))
        goes_on(m, n, 2000)
        assert "generation changed" in m.output()


def test_two_regions_and_four_processors():
    directory, n = saved(vcpus=4, mem_mib=3200)
    with handler(serves(directory / "mem")) as (path, _), Monitor() as m:
        ok(load_from(m, directory, path))
        goes_on(m, n)


def test_the_message_is_as_handlers_know_it():
    directory, _ = saved(mem_mib=3200)
    told, tell = os.pipe()

    def show(peer: socket.socket) -> None:
        text, fds, _, _ = socket.recv_fds(peer, 65536, 4)
        os.write(tell, text + b" %d" % len(fds))
        os.close(tell)
        signal.pause()

    with handler(show) as (path, _), Monitor() as m:
        os.close(tell)
        # No page will come: there is no answer to wait for.
        asking = threading.Thread(target=load_quietly, args=(m, directory, path))
        asking.start()
        with os.fdopen(told, "rb") as f:
            text, _, count = f.read().rpartition(b" ")
        m.kill()
        asking.join()
    regions = json.loads(text)
    assert count == b"1"
    assert [(r["offset"], r["size"]) for r in regions] == [(0, 3 << 30), (3 << 30, 128 << 20)]
    for r in regions:
        assert list(r) == ["base_host_virt_addr", "size", "offset", "page_size", "page_size_kib"]
        assert r["page_size"] == r["page_size_kib"] == PAGE


def test_saved_again_it_is_whole():
    directory, n = saved("pages=512")
    for kind in ("Full", "Diff"):
        with handler(serves(directory / "mem")) as (path, _), Monitor() as m:
            ok(load_from(m, directory, path))
            goes_on(m, n)
            m.pause()
            again = tempdir()
            if kind == "Diff":  # goes on top of what the handler serves
                (again / "mem").write_bytes((directory / "mem").read_bytes())
            ok(create(m, again, kind))
            after = counted(m)
        with Monitor() as m:
            ok(load(m, again))
            goes_on(m, after)


def test_a_live_snapshot_asks_for_all_of_it():
    directory, n = saved("pages=512")
    again = tempdir()
    with handler(serves(directory / "mem")) as (path, _), Monitor() as m:
        ok(load_from(m, directory, path))
        goes_on(m, n)
        n = counted(m)
        assert create(m, again, live=True).status == 200
        while m.api.get("/snapshot/status").json["state"] == "Writing":
            pass
        goes_on(m, n)
    with Monitor() as m:
        ok(load(m, again))
        goes_on(m, n)


def test_a_handler_that_is_gone_ends_the_machine():
    directory, _ = saved("pages=4096")
    with handler(serves(directory / "mem")) as (path, pid), Monitor() as m:
        ok(load_from(m, directory, path))
        m.wait_for_console(r"count \d+\n", 60)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert m.wait_exit(60) == 1
        assert "page fault handler" in m.errors(), m.errors()


def test_a_handler_that_closes_its_connection_serves_on():
    directory, n = saved("pages=512")

    def serve(peer: socket.socket) -> None:
        memory = Memory(directory / "mem", peer)
        peer.close()
        while memory.one():
            pass

    with handler(serve) as (path, _), Monitor() as m:
        ok(load_from(m, directory, path))
        goes_on(m, n)


def test_killed_while_it_waits_for_a_page():
    directory, _ = saved("pages=512")

    def stalls(peer: socket.socket) -> None:
        memory = Memory(directory / "mem", peer)
        for _ in range(40):
            memory.one()
        signal.pause()

    with handler(stalls) as (path, _), Monitor() as m:
        asking = threading.Thread(target=load_quietly, args=(m, directory, path))
        asking.start()
        asking.join(1)  # answered or not: the machine or the monitor waits by then
        m.process.kill()
        assert m.wait_exit(60) == -signal.SIGKILL
        asking.join()


def test_where_nobody_listens_the_process_stays_usable():
    directory, n = saved()
    nowhere = tempdir() / "nowhere"
    prefix = ("Load snapshot error: Failed to restore from snapshot: Failed to load guest memory: "
              "Error creating guest memory from uffd: Failed to connect to UDS Unix stream: ")
    with Monitor() as m:
        answer = load_from(m, directory, nowhere)
        assert answer.fault == prefix + "No such file or directory (os error 2)", answer
        deaf = socket.socket(socket.AF_UNIX)
        deaf.bind(str(nowhere))
        answer = load_from(m, directory, nowhere)
        assert answer.fault == prefix + "Connection refused (os error 111)", answer
        deaf.close()
        ok(load(m, directory))
        goes_on(m, n)
