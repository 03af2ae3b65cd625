"""The network card on a real tap, with small drivers of our own."""

from __future__ import annotations

import os
import struct
from typing import Any

from inside import outside
from mayfly import Monitor, guest, guest_verdict
from network import Wire, interface, ip, make_tap, private_network

MAC = "06:00:AC:10:00:02"


def machine(do: str, tap: str = "tap0", nets: list[dict] | None = None, **more: Any) -> Monitor:
    m = Monitor(stdin="pipe")
    for n in nets or [interface(tap, **more)]:
        m.api.must("PUT", f"/network-interfaces/{n['iface_id']}", n)
    m.configure(guest("net"), f"do={do}")
    m.start()
    return m


def test_frames_go_both_ways():
    private_network()
    wire = Wire(make_tap("tap0"))
    sizes = [46, 47, 60, 500, 1486]
    for merge in (0, 1):
        with machine(f"echo n={len(sizes)} mrg={merge}", guest_mac=MAC) as m:
            m.wait_for_console("up")
            for n, size in enumerate(sizes):
                sent = wire.send(bytes((n + i) % 256 for i in range(size)))
                got = wire.receive()
                assert got[14:] == sent[14:], f"{size} bytes came back as {got[14:]!r}"
                assert got[0:6] == sent[6:12] and got[6:12] == sent[0:6]
            guest_verdict(m)
            assert m.wait_exit() == 0


def test_every_frame_of_a_burst_arrives_in_order():
    private_network()
    wire = Wire(make_tap("tap0"))
    with machine("send n=200 len=700") as m:
        for n in range(200):
            frame = wire.receive()
            assert struct.unpack_from("<Q", frame, 14) == (n,) and len(frame) == 700
        guest_verdict(m)


def test_a_card_without_buffers_takes_frames_later_and_costs_nothing_meanwhile():
    private_network()
    wire = Wire(make_tap("tap0"))
    with machine("stall n=3") as m:
        m.wait_for_console("up")
        for n in range(3):
            wire.send(b"early" + bytes([n]) * 60)
        before = m.switches()
        for _ in range(5):
            m.api.get("/")
        # A loop that watches a tap it cannot read would have run thousands of times.
        assert m.switches() - before < 200
        m.type(b"x")
        for n in range(3):
            assert wire.receive()[14:19] == b"early"
        guest_verdict(m)


def test_pause_and_resume_lose_no_frame():
    private_network()
    wire = Wire(make_tap("tap0"))
    with machine("echo n=12") as m:
        m.wait_for_console("up")
        for n in range(12):
            if n % 3 == 0:
                m.pause()
            wire.send(bytes([n]) * 100)
            if n % 3 == 0:
                m.resume()
            assert wire.receive()[14:] == bytes([n]) * 100
        guest_verdict(m)


def test_a_driver_that_lies_breaks_its_own_card():
    private_network()
    wire = Wire(make_tap("tap0"))
    with machine("hostile") as m:
        guest_verdict(m)
        assert struct.unpack_from("<Q", wire.receive(), 14) == (7,)


def test_a_tap_that_vanishes_takes_the_link_down_and_nothing_else():
    private_network()
    make_tap("tap0")
    with machine("wait") as m:
        m.wait_for_console("link 1")
        ip("link", "del", "tap0")
        m.wait_for_console("link 0")
        m.wait_for_log("its tap is gone")
        before = m.switches()
        m.assert_alive()
        m.pause()
        m.resume()
        assert m.switches() - before < 200


def test_a_tap_that_vanishes_under_a_sender():
    private_network()
    make_tap("tap0")
    with machine("burst n=20000") as m:
        m.wait_for_console("up")
        ip("link", "del", "tap0")
        m.wait_for_console("sent", 120)
        guest_verdict(m)


def test_an_interface_that_is_down_drops_frames():
    private_network()
    make_tap("tap0")
    ip("link", "set", "tap0", "down")
    with machine("send n=20 len=60") as m:
        guest_verdict(m)


def test_limits_hold_frames_up_and_can_be_lifted():
    private_network()
    wire = Wire(make_tap("tap0"))
    slow = {"ops": {"size": 5, "refill_time": 3600000}}
    off = {"ops": {"size": 0, "refill_time": 0}}
    with machine("send n=20 len=60", tx_rate_limiter=slow) as m:
        for n in range(5):
            assert struct.unpack_from("<Q", wire.receive(), 14) == (n,)
        shown = m.api.get("/vm/config").json["network-interfaces"][0]["tx_rate_limiter"]
        assert shown["ops"]["size"] == 5
        assert "sent" not in m.output()
        m.api.must("PATCH", "/network-interfaces/eth0", {"iface_id": "eth0", "tx_rate_limiter": off})
        for n in range(5, 20):
            assert struct.unpack_from("<Q", wire.receive(), 14) == (n,)
        guest_verdict(m)
        assert m.wait_exit() == 0
    with machine("echo n=4", rx_rate_limiter={"ops": {"size": 1, "refill_time": 3600000}}) as m:
        m.wait_for_console("up")
        for n in range(4):
            wire.send(bytes([n]) * 60)
        assert wire.receive()[14] == 0
        m.pause()  # the frame that waits goes before the pause
        m.resume()
        assert wire.receive()[14] == 1
        m.api.must("PATCH", "/network-interfaces/eth0", {"iface_id": "eth0", "rx_rate_limiter": off})
        assert [wire.receive()[14] for _ in range(2)] == [2, 3]
        guest_verdict(m)


def test_several_queue_pairs():
    private_network()
    make_tap("tap0", queues=True)
    for n in (2, 8):
        with machine(f"pairs n={n}", queue_pairs=n) as m:
            guest_verdict(m)
            assert "its tap is gone" not in m.log()


@outside("a monitor without capabilities is told that it may not make a device")
def test_what_is_wrong_is_said_and_changes_nothing():
    private_network()
    make_tap("tap0")
    make_tap("tap1")
    make_tap("queues0", queues=True)
    busy = os.open("/dev/net/tun", os.O_RDWR)
    make_tap("busy")
    import fcntl
    fcntl.ioctl(busy, 0x400454CA, struct.pack("16sH22x", b"busy", 0x5002))
    rows = [
        ("eth1", interface("nosuchtap/x", "eth1"), "Invalid argument (os error 22)"),
        ("eth1", interface("", "eth1"), "Invalid argument"),
        ("eth1", interface("tap%d", "eth1"), "Invalid argument"),
        ("eth1", interface("busy", "eth1"), "Resource busy (os error 16)"),
        ("eth1", interface("tap0", "eth1"), "Resource busy (os error 16)"),
        ("eth1", interface("queues0", "eth1"), "Invalid argument (os error 22)"),
        ("eth1", interface("tap1", "eth1", queue_pairs=2), "Invalid argument (os error 22)"),
        ("eth1", interface("queues0", "eth1", queue_pairs=9), "queue_pairs"),
        ("eth1", interface("queues0", "eth1", queue_pairs=0), "queue_pairs"),
        ("eth1", interface("tap1", "eth1", guest_mac=MAC), "The MAC address is already in use: 06:00:ac"),
        ("eth1", interface("tap1", "eth1", guest_mac="06:00:AC:10:00"), "guest_mac"),
        ("eth1", interface("tap1", "eth1", guest_mac="06-00-AC-10-00-02"), "guest_mac"),
        ("eth1", interface("tap1", "eth1", guest_mac="0g:00:AC:10:00:02"), "guest_mac"),
        ("eth1", interface("tap1", "eth1", mtu=67), "MTU 67 is out of range [68, 65535]"),
        ("eth1", interface("tap1", "eth1", mtu=65536), "MTU 65536 is out of range"),
        ("eth1", interface("tap1", "eth2"), "The id from the path [eth1] does not match"),
        ("eth1", {"iface_id": "eth1"}, "missing field `host_dev_name`"),
        ("eth1", interface("a" * 16, "eth1"), "host_dev_name"),
        ("e-h", interface("tap1", "e-h"), "alphanumeric"),
        ("eth1", interface("tap1", "eth1", speed=1), "unknown field `speed`"),
    ]
    with Monitor() as m:
        m.api.must("PUT", "/network-interfaces/eth0", interface("tap0", guest_mac=MAC, mtu=1400))
        before = m.api.get("/vm/config").body
        for iface, body, word in rows:
            answer = m.api.put(f"/network-interfaces/{iface}", body)
            assert answer.status == 400 and word in answer.fault, (body, answer)
            assert m.api.get("/vm/config").body == before, f"{body} changed something"
        shown = m.api.get("/vm/config").json["network-interfaces"]
        assert shown == [{
            "iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": MAC.lower(), "mtu": 1400,
            "rx_rate_limiter": None, "tx_rate_limiter": None,
        }]
        # Again, with the same tap and with another one; the first is free then.
        m.api.must("PUT", "/network-interfaces/eth0", interface("tap0"))
        m.api.must("PUT", "/network-interfaces/eth0", interface("tap1"))
        m.api.must("PUT", "/network-interfaces/eth1", interface("tap0", "eth1"))
        assert m.api.patch("/network-interfaces/eth0", {"iface_id": "eth0"}).status == 400
    os.close(busy)


def test_patches_after_the_start():
    private_network()
    make_tap("tap0")
    with machine("wait") as m:
        m.wait_for_console("link 1")
        before = m.api.get("/vm/config").body
        answer = m.api.patch("/network-interfaces/eth9", {"iface_id": "eth9"})
        assert answer.status == 400 and "Device not found" in answer.fault, answer
        answer = m.api.put("/network-interfaces/eth1", interface("tap1", "eth1"))
        assert answer.status == 400 and answer.fault == "PCI is not enabled", answer
        assert m.api.get("/vm/config").body == before
