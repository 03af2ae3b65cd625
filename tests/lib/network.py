"""A network of a test's own: a namespace that ends with the test's process, taps, raw frames."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from pathlib import Path

from mayfly import SCALE, TIMEOUT, skip

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
EXPERIMENT = b"\x88\xb5"  # an EtherType for experiments


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stdout}"


def private_network() -> None:
    """This process, and all it starts from now on, is alone in a network of its own."""
    if os.geteuid() != 0:
        skip("needs root: a network namespace")
    if not Path("/dev/net/tun").exists():
        skip("the host has no /dev/net/tun")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    ip("link", "set", "lo", "up")


def make_tap(name: str, address: str = "", queues: bool = False, mtu: int = 0) -> str:
    ip("tuntap", "add", name, "mode", "tap", "vnet_hdr", *(["multi_queue"] if queues else []))
    # Nobody but the test is to speak there.
    quiet = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    if quiet.exists():
        quiet.write_text("1")
    if mtu:
        ip("link", "set", name, "mtu", str(mtu))
    if address:
        ip("addr", "add", address, "dev", name)
    ip("link", "set", name, "up")
    return name


class Wire:
    """The host's end of a tap: frames as they are."""

    def __init__(self, tap: str):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind((tap, 0))
        self.socket.settimeout(TIMEOUT * SCALE)

    def send(self, payload: bytes, to: bytes = b"\xff" * 6, source: bytes = b"\2\0\0\0\0\1") -> bytes:
        frame = to + source + EXPERIMENT + payload
        self.socket.send(frame)
        return frame

    def receive(self) -> bytes:
        """The next frame of ours that comes from the guest."""
        while True:
            frame, (_, _, kind, _, _) = self.socket.recvfrom(70000)
            if kind != socket.PACKET_OUTGOING and frame[12:14] == EXPERIMENT:
                return frame


def interface(tap: str, iface_id: str = "eth0", **more) -> dict:
    return {"iface_id": iface_id, "host_dev_name": tap, **more}
