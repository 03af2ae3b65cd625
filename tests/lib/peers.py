"""The host's end of what `load` does in a guest: the same bytes, the same checksum, in threads."""

from __future__ import annotations

import socket
import threading
import zlib
from typing import Callable, Iterator

from mayfly import SCALE, TIMEOUT

BLOCK = 65536


def pattern(size: int) -> Iterator[bytes]:
    """What `load ... send SIZE` sends: blocks that begin with their number."""
    block = bytearray(range(256)) * (BLOCK // 256)
    for n in range((size + BLOCK - 1) // BLOCK):
        block[0:8] = n.to_bytes(8, "little")
        yield bytes(block[: min(BLOCK, size - n * BLOCK)])


def checksum(size: int) -> int:
    crc = 0
    for piece in pattern(size):
        crc = zlib.crc32(piece, crc)
    return crc


class Peer:
    """A listening socket whose every connection is served in a thread of its own."""

    def __init__(self, listener: socket.socket, serve: Callable[[socket.socket], None]):
        self.listener = listener
        self.serve = serve
        self.served = 0
        self.results: list[tuple[int, int]] = []  # bytes and checksum of each sink
        self.changed = threading.Condition()
        listener.listen(1024)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.served += 1
            threading.Thread(target=self._one, args=(peer,), daemon=True).start()

    def _one(self, peer: socket.socket) -> None:
        try:
            result = self.serve(peer)
        except OSError:
            result = None
        finally:
            peer.close()
        if result:
            with self.changed:
                self.results.append(result)
                self.changed.notify_all()

    def result(self) -> tuple[int, int]:
        with self.changed:
            assert self.changed.wait_for(lambda: self.results, TIMEOUT * SCALE), "nobody sent anything"
            return self.results[0]


def sink(peer: socket.socket) -> tuple[int, int]:
    size = crc = 0
    while data := peer.recv(1 << 20):
        size += len(data)
        crc = zlib.crc32(data, crc)
    return size, crc


def echo(peer: socket.socket) -> None:
    while data := peer.recv(65536):
        peer.sendall(data)


def source(size: int) -> Callable[[socket.socket], None]:
    def serve(peer: socket.socket) -> None:
        for piece in pattern(size):
            peer.sendall(piece)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass

    return serve


def tcp(address: str, port: int) -> socket.socket:
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port))
    return s


def unix(path: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
    s = socket.socket(socket.AF_UNIX, kind)
    s.bind(path)
    return s
