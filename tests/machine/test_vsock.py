"""The vsock device: Unix sockets of the host, and small drivers of our own."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

from mayfly import SCALE, TIMEOUT, Monitor, guest, guest_verdict

CID = 3


def machine(do: str, stdin: Any = None, **more: Any) -> Monitor:
    m = Monitor(stdin=stdin)
    m.uds = m.dir / "v.sock"
    m.api.must("PUT", "/vsock", {"guest_cid": CID, "uds_path": str(m.uds), **more})
    m.configure(guest("vsock"), f"do={do}")
    return m


def unix(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    s = socket.socket(socket.AF_UNIX, kind)
    s.settimeout(TIMEOUT * SCALE)
    s.connect(str(path))
    return s


def read_all(s: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = s.recv(size - len(data))
        if not piece:
            break
        data += piece
    return data


def dial(m: Monitor, port: int = 52, words: bytes = b"") -> socket.socket:
    s = unix(m.uds)
    s.sendall(words or b"CONNECT %d\n" % port)
    line = b""
    while not line.endswith(b"\n"):
        byte = s.recv(1)
        if not byte:
            return s
        line += byte
    assert line.startswith(b"OK "), line
    return s


def hung_up(s: socket.socket) -> bool:
    """Whether the monitor closes; what it has not read of ours makes that a reset."""
    try:
        return s.recv(100) == b""
    except ConnectionResetError:
        return True


class Server:
    """Listens where the guest's connections to `port` come out; each is served by `serve`."""

    def __init__(self, m: Monitor, port: int, serve: Any):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(f"{m.uds}_{port}")
        self.socket.listen(512)
        self.serve = serve
        self.served = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            self.served += 1
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()


def echo(peer: socket.socket) -> None:
    while data := peer.recv(65536):
        peer.sendall(data)
    peer.close()


def test_the_host_calls_the_guest():
    with machine("serve n=3") as m:
        m.start()
        m.wait_for_console("serving")
        for n in range(3):
            s = dial(m, words=b"connect 52\n" if n else b"")
            data = os.urandom(20000 * n + 5)
            threading.Thread(target=s.sendall, args=(data,), daemon=True).start()
            assert read_all(s, len(data)) == data
            s.close()
        guest_verdict(m)
        assert m.wait_exit() == 0
        assert not m.uds.exists() and not list(m.dir.glob("v.sock*")), "a socket was left behind"


def test_bytes_behind_the_first_line_are_the_guests():
    with machine("serve n=1") as m:
        m.start()
        m.wait_for_console("serving")
        s = unix(m.uds)
        s.sendall(b"CONNECT 7\nhello")
        assert read_all(s, len(b"OK 1073741824\nhello")) == b"OK 1073741824\nhello"
        s.close()
        guest_verdict(m)


def test_half_of_a_connection_is_closed():
    with machine("serve n=1") as m:
        m.start()
        m.wait_for_console("serving")
        s = dial(m)
        s.sendall(b"last words")
        s.shutdown(socket.SHUT_WR)
        assert read_all(s, 100) == b"last words"
        guest_verdict(m)


def test_the_guest_calls_the_host():
    with machine("connect port=5000 n=4 bytes=30000") as m:
        server = Server(m, 5000, echo)
        m.start()
        guest_verdict(m)
        assert server.served == 4
        assert m.wait_exit() == 0


def test_two_hundred_connections_at_once():
    with machine("connect port=5000 n=200 bytes=100") as m:
        server = Server(m, 5000, echo)
        m.start()
        guest_verdict(m, 120)
        assert server.served == 200


def test_nobody_is_there():
    with machine("refused port=5001") as m:
        m.start()
        guest_verdict(m)


def test_peers_that_leave_at_every_stage():
    with machine("serve n=3") as m:
        m.start()
        m.wait_for_console("serving")
        for words in (b"", b"C", b"CONNECT", b"CONNECT \n", b"CONNECT x\n", b"HELLO 5\n",
                      b"CONNECT 4294967296\n", b"CONNECT 1" + b"0" * 40, b"\n"):
            s = unix(m.uds)
            s.sendall(words)
            s.shutdown(socket.SHUT_WR)
            assert hung_up(s), words
            s.close()
        for stage in range(3):
            s = dial(m)
            if stage:
                s.sendall(b"x" * 5000)
            if stage == 2:
                s.recv(1)
            s.close()
        guest_verdict(m, 60)


def test_a_line_that_never_ends_is_hung_up_on():
    with machine("serve n=1") as m:
        m.start()
        m.wait_for_console("serving")
        s = unix(m.uds)
        s.sendall(b"CONNECT 5")
        assert hung_up(s), "nobody answered"
        s = dial(m)
        s.close()
        guest_verdict(m)


def test_a_guest_that_does_not_answer_is_hung_up_on():
    with machine("mute accept=0") as m:
        m.start()
        m.wait_for_console("mute")
        s = dial(m)
        assert s.recv(10) == b""
        m.assert_alive()


def test_a_guest_that_reads_nothing_stalls_only_itself():
    with machine("mute") as m:
        m.start()
        m.wait_for_console("mute")
        s = dial(m)
        s.setblocking(False)
        sent = 0
        try:
            while sent < 64 << 20:
                sent += s.send(bytes(65536))
        except BlockingIOError:
            pass
        assert sent < 64 << 20, "the monitor took everything"
        before = m.switches()
        m.assert_alive()
        assert m.switches() - before < 200
        dial(m).close()


def test_a_guest_that_is_slow_hears_every_end():
    """More ends than it has buffers, for longer than the monitor has patience with a connection."""
    with machine("late n=40 port=5000", stdin="pipe") as m:
        Server(m, 5000, echo)
        m.start()
        m.wait_for_console("late")
        s = unix(m.uds)
        s.sendall(b"CONNECT 52\n")  # for which the guest has no buffer: given up in its turn
        assert hung_up(s)
        m.type(b"\n")
        guest_verdict(m)


def test_pause_and_resume_keep_connections():
    with machine("serve n=1") as m:
        m.start()
        m.wait_for_console("serving")
        s = dial(m)
        for n in range(4):
            m.pause()
            s.sendall(b"%d" % n * 3000)
            m.resume()
            assert read_all(s, 3000) == b"%d" % n * 3000
        s.close()
        guest_verdict(m)


def test_a_flood_of_refused_connections():
    with machine("flood n=3000") as m:
        m.start()
        guest_verdict(m, 120)
        assert m.wait_exit() == 0


def test_a_guest_that_breaks_every_rule():
    with machine("hostile port=5000") as m:
        held = []
        Server(m, 5000, held.append)  # reads nothing
        m.start()
        guest_verdict(m, 120)
        assert "survived" in m.output()


def test_as_many_connections_as_configured():
    with machine("mute", max_connections=3) as m:
        m.start()
        m.wait_for_console("mute")
        held = [dial(m) for _ in range(3)]
        extra = unix(m.uds)
        try:
            extra.sendall(b"CONNECT 5\n")
        except BrokenPipeError:  # even before we could speak
            pass
        assert hung_up(extra)
        held[0].close()
        m.assert_alive()


def test_what_is_wrong_is_said_and_changes_nothing():
    with Monitor() as m:
        taken = m.dir / "taken"
        taken.touch()
        good = {"guest_cid": 3, "uds_path": str(m.dir / "good")}
        rows = [
            ({**good, "uds_path": str(taken)}, "Address in use (os error 98)"),
            ({**good, "uds_path": str(m.dir / "no" / "where")}, "No such file or directory"),
            ({**good, "uds_path": str(m.dir / ("x" * 108))}, "uds_path"),
            ({**good, "uds_path": ""}, "path"),
            ({**good, "guest_cid": 2}, "guest_cid"),
            ({**good, "guest_cid": 1 << 32}, "u32"),
            ({**good, "guest_cid": "3"}, "u32"),
            ({"guest_cid": 3}, "missing field `uds_path`"),
            ({**good, "max_connections": 0}, "max_connections"),
            ({**good, "max_connections": 65536}, "max_connections"),
            ({**good, "speed": 1}, "unknown field `speed`"),
        ]
        m.api.must("PUT", "/vsock", good)
        before = m.api.get("/vm/config").body
        names = sorted(p.name for p in m.dir.iterdir())
        for body, word in rows:
            answer = m.api.put("/vsock", body)
            assert answer.status == 400 and word in answer.fault, (body, answer)
            assert m.api.get("/vm/config").body == before, f"{body} changed something"
            assert sorted(p.name for p in m.dir.iterdir()) == names, f"{body} left a file"
        assert m.api.get("/vm/config").json["vsock"] == good
        # Again, and elsewhere: the old name goes.
        m.api.must("PUT", "/vsock", {**good, "guest_cid": 4})
        answer = m.api.must("PUT", "/vsock", {"guest_cid": 4, "uds_path": str(m.dir / "other"),
                                              "vsock_id": "v"})
        assert answer.headers.get("deprecation") == "true"
        assert not (m.dir / "good").exists() and (m.dir / "other").exists()
        m.signal(15)
        m.wait_exit()
        assert not (m.dir / "other").exists(), "the socket was left behind"
