"""Linux's vsock on our device: checksummed transfers both ways, many connections, messages."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from linuxguest import BOOT_TIMEOUT, DEBIAN, PVH, Flavour, facts, script_word, start_linux
from mayfly import Monitor, tempdir
from peers import Peer, checksum, echo, pattern, sink, source, unix
from teleport import moves_before_it_is_up

SIZE = 64 << 20

SCRIPT = f"""
load @vsock:4294967295:52 sink >/run/in & load @vsock:4294967295:53 echo >/dev/null &
load vsock:2:7002 send {SIZE} | sed 's/^/out_/'
load vsock:2:7003 sink | sed 's/^/back_/'
load vsock:2:7001 many 200
load vsock:2:7999 ping 1 || echo nobody=refused
load seq:2:7004 ping 5 | sed 's/^/seq_/'
echo ready=yes
wait %1; sed 's/^/in_/' /run/in
echo listening=yes
read -t 60 line; echo goodbye=$line"""


def dial(uds: Path, port: int) -> socket.socket:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(240)
    s.connect(str(uds))
    s.sendall(b"CONNECT %d\n" % port)
    line = b""
    while not line.endswith(b"\n"):
        byte = s.recv(1)
        assert byte, f"no answer from port {port}"
        line += byte
    return s


def talk(m: Monitor, uds: Path) -> None:
    """The host calls: one long transfer, fifty small talks, peers that leave at every stage."""
    s = dial(uds, 52)
    for piece in pattern(SIZE):
        s.sendall(piece)
    s.shutdown(socket.SHUT_WR)
    assert s.recv(10) == b""
    s.close()
    m.wait_for_console("listening=yes", BOOT_TIMEOUT * 2)
    for stage in range(4):
        s = dial(uds, 53)
        if stage > 0:
            s.sendall(b"x" * 10000)
        if stage > 1:
            s.shutdown(socket.SHUT_WR)
        if stage > 2:
            while s.recv(65536):
                pass
        s.close()
    talks = [dial(uds, 53) for _ in range(20)]
    for n, s in enumerate(talks):
        s.sendall(b"%05d" % n)
    for n, s in enumerate(talks):
        assert s.recv(5, socket.MSG_WAITALL) == b"%05d" % n
        s.close()


def transfers(flavour: Flavour) -> None:
    uds = tempdir() / "v"
    config = {"vsock": {"guest_cid": 42, "uds_path": str(uds)}}
    received = Peer(unix(f"{uds}_7002"), sink)
    many = Peer(unix(f"{uds}_7001"), echo)
    Peer(unix(f"{uds}_7003"), source(SIZE))
    Peer(unix(f"{uds}_7004", socket.SOCK_SEQPACKET), echo)
    for peer in Path(uds.parent).glob("v_*"):
        peer.chmod(0o777)
    with start_linux(flavour, script_word(SCRIPT), config=config, stdin="pipe") as m:
        m.wait_for_console("ready=yes", BOOT_TIMEOUT * 3)
        talk(m, uds)
        m.type(b"bye\n")
        m.wait_for_console("goodbye=bye", BOOT_TIMEOUT)
        assert m.wait_exit(60) == 0
        seen = facts(m.output().replace("\r", ""))
    crc = checksum(SIZE)
    assert received.result() == (SIZE, crc), "what the guest sent is not what came"
    assert (int(seen["back_bytes"]), int(seen["back_crc"])) == (SIZE, crc), seen
    assert (int(seen["in_bytes"]), int(seen["in_crc"])) == (SIZE, crc), seen
    assert seen["connections"] == "200" and many.served == 200, seen
    assert seen["nobody"] == "refused" and seen["seq_bytes"] == "320", seen


# Connections do not survive a load.
@moves_before_it_is_up
def test_transfers_tuned():
    transfers(PVH)


@moves_before_it_is_up
def test_transfers_debian():
    transfers(DEBIAN)
