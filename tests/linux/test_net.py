"""Linux's network driver on our card: ping, TCP with checksums, floods, jumbo frames, many cards."""

from __future__ import annotations

import socket
import time

from linuxguest import BOOT_TIMEOUT, DEBIAN, PVH, Flavour, facts, run_linux, script_word, start_linux
from mayfly import Api
from network import interface, make_tap, private_network
from peers import Peer, checksum, sink, source, tcp

HOST, GUEST = "10.9.0.1", "10.9.0.2"
SIZE = 24 << 20

TRAFFIC = f"""set -e
ip addr add {GUEST}/24 dev eth0; ip link set eth0 up
ping -c 3 -w 20 {HOST} >/dev/null && echo ping=yes
load tcp:{HOST}:7002 send {SIZE} | sed 's/^/out_/'
load tcp:{HOST}:7003 sink | sed 's/^/in_/'
load udp:{HOST}:7004 flood 1400 3000 >/dev/null
ping -c 3 -w 20 {HOST} >/dev/null && echo after=yes
echo mac=$(cat /sys/class/net/eth0/address)
echo offloads=$(cat /sys/class/net/eth0/device/features)"""


def serve() -> Peer:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((HOST, 7004))
    serve.keep = (Peer(tcp(HOST, 7003), source(SIZE)), udp)
    return Peer(tcp(HOST, 7002), sink)


def traffic(flavour: Flavour) -> None:
    private_network()
    make_tap("tap0", f"{HOST}/24")
    received = serve()
    nets = [interface("tap0", guest_mac="06:00:ac:10:00:02")]
    seen = facts(run_linux(flavour, TRAFFIC, config={"network-interfaces": nets}))
    crc = checksum(SIZE)
    assert seen["ping"] == seen["after"] == "yes", seen
    assert received.result() == (SIZE, crc), "what the guest sent is not what came"
    assert (int(seen["in_bytes"]), int(seen["in_crc"])) == (SIZE, crc), seen
    assert seen["mac"] == "06:00:ac:10:00:02"
    taken = [i for i, bit in enumerate(seen["offloads"]) if bit == "1"]
    assert {0, 1, 7, 8, 11, 12, 15, 29, 32} <= set(taken), f"features taken: {taken}"


def test_traffic_tuned():
    traffic(PVH)


def test_traffic_debian():
    traffic(DEBIAN)


def test_four_cards_jumbo_frames_two_queues():
    private_network()
    nets = []
    for n in range(4):
        tap = make_tap(f"tap{n}", f"10.9.{n}.1/24", queues=n == 1, mtu=9000 if n == 0 else 0)
        more = {"mtu": 9000} if n == 0 else {"queue_pairs": 2} if n == 1 else {}
        nets.append(interface(tap, f"eth{n}", **more))
    received = Peer(tcp("10.9.0.1", 7002), sink)
    both = [Peer(tcp("10.9.1.1", port), sink) for port in (7005, 7006, 7007, 7008)]
    script = f"""set -e
    for n in 0 1 2 3; do
        ip addr add 10.9.$n.2/24 dev eth$n; ip link set eth$n up
        ping -c 2 -w 20 10.9.$n.1 >/dev/null && echo ping$n=yes
    done
    echo mtu=$(cat /sys/class/net/eth0/mtu)
    ping -c 2 -w 20 -s 8900 10.9.0.1 >/dev/null && echo jumbo=yes
    load tcp:10.9.0.1:7002 send {SIZE} >/dev/null
    echo queues=$(ls -d /sys/class/net/eth1/queues/rx-* | wc -l)
    for p in 7005 7006 7007 7008; do load tcp:10.9.1.1:$p send 2000000 >/dev/null & done; wait
    echo irqs=$(grep -c virtio /proc/interrupts)"""
    seen = facts(run_linux(PVH, script, vcpus=2, config={"network-interfaces": nets}))
    assert [seen[f"ping{n}"] for n in range(4)] == ["yes"] * 4, seen
    assert seen["mtu"] == "9000" and seen["jumbo"] == "yes", seen
    assert seen["queues"] == "2", seen
    assert received.result() == (SIZE, checksum(SIZE))
    assert [p.result()[0] for p in both] == [2000000] * 4


SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>; Python has no name for it
FRAME, PAYLOAD = 1442, 1400  # what the limit counts of a datagram, and what arrives of it


def test_limits_are_kept_within_five_percent_and_change_live():
    """128 KiB/s, then 256 KiB/s, by the host's clock, over seconds, once the bucket is empty.

    Datagrams, because a sender of TCP paces itself by its round trips, and here those are slow.
    """
    private_network()
    make_tap("tap0", f"{HOST}/24")
    rate = 128 << 10
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    udp.bind((HOST, 7004))
    udp.settimeout(BOOT_TIMEOUT * 4)

    def limit(bytes_per_second: int) -> dict:
        return {"bandwidth": {"size": bytes_per_second // 10, "refill_time": 100}}

    def measured(seconds: float) -> float:
        """Bytes of frames a second; the first second and a half is the bucket's."""
        begin = time.monotonic()
        while time.monotonic() < begin + 1.5:
            udp.recv(2000)
        begin, count = time.monotonic(), 0
        while (now := time.monotonic()) < begin + seconds:
            count += len(udp.recv(2000)) == PAYLOAD
        return count * FRAME / (now - begin)

    nets = [interface("tap0", tx_rate_limiter=limit(rate))]
    script = f"""ip addr add {GUEST}/24 dev eth0; ip link set eth0 up
    ping -c 2 -w 20 {HOST} >/dev/null
    echo sending=yes; load udp:{HOST}:7004 flood {PAYLOAD} 1000000"""
    with start_linux(PVH, script_word(script), config={"network-interfaces": nets}, api=True) as m:
        m.wait_for_console("sending=yes", BOOT_TIMEOUT)
        first = measured(6)
        Api(m.socket).must("PATCH", "/network-interfaces/eth0",
                           {"iface_id": "eth0", "tx_rate_limiter": limit(2 * rate)})
        second = measured(6)
    for seen, wanted in ((first, rate), (second, 2 * rate)):
        assert 0.95 * wanted <= seen <= 1.05 * wanted, f"{seen:.0f} bytes/s of {wanted}"
