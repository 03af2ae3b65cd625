"""Linux under load, saved and gone on from: disk, TCP, vsock, balloon, clocks, randomness."""

from __future__ import annotations

import re
import shutil
import socket
import threading
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterable

from linuxguest import BOOT_TIMEOUT, DEBIAN, PVH, Flavour, facts, script_drive, start_linux
from mayfly import SCALE, Api, Monitor, drive, make_disk, tempdir
from network import interface, make_tap, private_network
from peers import Peer, checksum, echo, sink, tcp, unix
from teleport import stays

ITSELF = "it saves its machines and loads them again itself"
HOST, GUEST = "10.9.0.1", "10.9.0.2"
BLOCKS, BLOCK = 16, 65536  # of each of the two writers
ROUNDS = 4  # one by each processor's clock
VCPUS = 4
STREAM = 8 << 20  # more than the host reads of it before it is asked for all
STEP = 64 << 10
BULK = 1 << 20
LOW, HIGH = 16, 40  # MiB, between which the balloon moves
BALLOON = {"amount_mib": LOW, "deflate_on_oom": False, "stats_polling_interval_s": 1}
TROUBLE = "lockup|stall|i/o error|bug:|blocked for more|nobody cared|timed out"

# Each round, two writers put random bytes on the disk, as good as at once, and read them from
# there; the host is called on both lines; and the clock is looked at by one processor after the
# other. What is on the disk is remembered in memory: at the end the two must still agree. A call
# that was cut by the save may be made once more.
ROUND = f"""call() {{ load vsock:2:7001 ping 1 >/dev/null 2>&1; }}
reach() {{ ping -c 1 -W 5 {HOST} >/dev/null; }}
get() {{ dd if=/dev/vda bs=64k skip=$1 count=1 2>/dev/null | cmp - /run/b$1 || echo BAD disk $1; }}
put() {{
dd if=/dev/urandom of=/run/b$1 bs=64k count=1 2>/dev/null
dd if=/run/b$1 of=/dev/vda bs=64k seek=$1 conv=notrunc,fsync 2>/dev/null
echo 1 >/proc/sys/vm/drop_caches
get $1
}}
(i=0 cpus=$(nproc)
while [ ! -e /run/stop ]; do
i=$((i+1)) o=$((i%{BLOCKS}))
put $((o+{BLOCKS})) & put $o; wait $!
NET
call || call || echo BAD vsock
u=$(taskset $((1<<i%cpus)) cat /proc/uptime)
echo "round $i ${{u% *}} $(sha256sum </run/b$o)"
done) & loop=$!
"""
END = f"""for b in /run/b*; do get ${{b#/run/b}}; done
echo forks=$(dmesg | grep -c 'virtual machine fork')
dmesg | grep -iE '{TROUBLE}' | sed 's/^/BAD dmesg /'
echo blocks=$(ls /run/b* | wc -l)"""

# A stream to the host, which outlives every load; and a transfer over vsock, the next as soon as
# one is over or cut. Here clocks that disagree are trouble too: of machines beside each other any
# can have been put aside by the host between the settings of the two.
SCRIPT = f"""ip addr add {GUEST}/24 dev eth0; ip link set eth0 up
load tcp:{HOST}:7002 send {STREAM} >/run/tcp 2>&1 & tcp=$!
(while :; do
if load vsock:2:7006 send {BULK} >/run/vs; then echo bulk=whole; else echo bulk=cut; fi
done) &
{ROUND.replace("NET", "reach || reach || echo BAD net")}
read line
touch /run/stop; wait $loop
wait $tcp; sed 's/^/tcp_/' /run/tcp
echo 1 >/proc/sys/vm/drop_caches
{END.replace(TROUBLE, TROUBLE + "|skew")}"""

# Copies that run beside each other would have one address.
ALONE = f"""{ROUND.replace("NET", ":")}
read line
touch /run/stop; wait $loop
echo 1 >/proc/sys/vm/drop_caches
{END}"""

# A round whenever it is asked for, so that many can be alive and few are busy.
ASKED = f"""get() {{
dd if=/dev/vda bs=4k skip=$1 count=1 2>/dev/null | cmp - /run/b$1 || echo BAD disk $1
}}
i=0
while read line && [ "$line" != end ]; do
i=$((i+1))
dd if=/dev/urandom of=/run/b$i bs=4k count=1 2>/dev/null
dd if=/run/b$i of=/dev/vda bs=4k seek=$i conv=notrunc,fsync 2>/dev/null
echo 1 >/proc/sys/vm/drop_caches
get $i
read u rest </proc/uptime
echo "round $i $u $(sha256sum </run/b$i)"
done
{END}"""


# ---- the host's ends -----------------------------------------------------------------------------


class Stream:
    """The host's end of the TCP stream, which takes a step with each call that the guest makes."""

    def __init__(self):
        listener = tcp(HOST, 7002)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STEP)
        self.steps = threading.Semaphore(0)
        self.rest = False
        self.peer = Peer(listener, self._take)

    def _take(self, peer: socket.socket) -> tuple[int, int]:
        size = crc = 0
        while True:
            if not self.rest:
                self.steps.acquire()
            data = peer.recv(STEP)
            if not data:
                return size, crc
            size, crc = size + len(data), zlib.crc32(data, crc)

    def take_the_rest(self) -> None:
        assert not self.peer.results, "the stream was over before its end was asked for"
        self.rest = True
        self.steps.release()


class Calls:
    """Who answers the guest's vsock calls at one place: echoes, and of bulk transfers the first is
    taken, the next held up in its middle until somebody cuts it."""

    def __init__(self, uds: Path, stream: Stream | None = None):
        self.stream = stream
        self.held = threading.Event()
        self.calls = Peer(unix(f"{uds}_7001"), self._call)
        self.bulk = Peer(unix(f"{uds}_7006"), self._bulk)
        for peer in uds.parent.glob("v_*"):
            peer.chmod(0o777)

    def _call(self, peer: socket.socket) -> None:
        if self.stream:
            self.stream.steps.release()
        echo(peer)

    def _bulk(self, peer: socket.socket) -> tuple[int, int] | None:
        if self.bulk.served == 1:
            return sink(peer)
        peer.recv(1)
        self.held.set()
        threading.Event().wait()
        return None

    def one_came_and_one_is_under_way(self) -> None:
        assert self.bulk.result() == (BULK, checksum(BULK)), "what the guest sent is not what came"
        assert self.held.wait(BOOT_TIMEOUT * SCALE), "no other transfer began"


# ---- the guest -----------------------------------------------------------------------------------

Round = tuple[int, float, str]


@dataclass
class Saved:
    """A snapshot, the disk as it was then, and the rounds that the guest had done."""

    dir: Path
    rounds: list[Round] = field(default_factory=list)
    stream: Stream | None = None


def rounds_of(m: Monitor) -> list[Round]:
    found = re.findall(r"round (\d+) (\d+\.\d+) ([0-9a-f]{64})", m.output())
    return [(int(n), float(uptime), digest) for n, uptime, digest in found]


def check_rounds(rounds: list[Round]) -> None:
    """None is missing, none came twice, and no processor's clock was behind the one before."""
    for before, after in zip(rounds, rounds[1:]):
        assert after[0] == before[0] + 1, f"{before} is followed by {after}"
        assert after[1] >= before[1], f"the clock went back: {before}, {after}"


def no_two_are_alike(said: Iterable[list[Round]]) -> None:
    digests = [r[2] for rounds in said for r in rounds]
    assert digests and len(set(digests)) == len(digests), digests


def goes_on(m: Monitor, after: int, rounds: int = ROUNDS) -> list[Round]:
    """So many rounds more; with each the balloon is told to be of another size."""
    api = Api(m.socket)
    for n in range(after + 1, after + rounds + 1):
        m.wait_for_console(rf"round {n} .*\n")
        api.must("PATCH", "/balloon", {"amount_mib": HIGH if n % 2 else LOW})
    api.close()
    assert "BAD" not in m.output(), m.output()
    return rounds_of(m)


def balloon_becomes(m: Monitor, mib: int) -> None:
    """After some rounds more."""
    api = Api(m.socket)
    for _ in range(20):
        api.must("PATCH", "/balloon", {"amount_mib": mib})
        m.wait_for_console(rf"round {rounds_of(m)[-1][0] + 1} .*\n")
        is_now = api.get("/balloon/statistics").json["actual_mib"]
        if is_now == mib:
            break
    assert is_now == mib, f"the balloon has {is_now} MiB and not {mib}"
    api.close()


def create(api: Api, kind: str, state: Path, mem: Path) -> None:
    api.must("PUT", "/snapshot/create", {"snapshot_type": kind, "snapshot_path": str(state),
                                         "mem_file_path": str(mem)})


def blocks(path: Path) -> int:
    return path.stat().st_blocks


def save(m: Monitor, saved: Saved, disk: Path, base: Path | None = None) -> Saved:
    """Full, or, on top of a copy of `base`, what differs from it. The balloon is on its way."""
    api = Api(m.socket)
    api.must("PATCH", "/balloon", {"amount_mib": (LOW + HIGH) // 2})
    api.must("PATCH", "/vm", {"state": "Paused"})
    if base:
        create(api, "Diff", saved.dir / "part_state", saved.dir / "part")
        assert blocks(saved.dir / "part") < blocks(base) * 3 // 4, "the difference is everything"
        shutil.copyfile(base, saved.dir / "mem")
    create(api, "Diff" if base else "Full", saved.dir / "state", saved.dir / "mem")
    shutil.copyfile(disk, saved.dir / "disk")
    saved.rounds += rounds_of(m)
    check_rounds(saved.rounds)
    api.close()
    return saved


def first(flavour: Flavour = PVH, mem_mib: int = 160, vcpus: int = VCPUS) -> Saved:
    """Boots, works for a while with everything it has, is saved, and is gone."""
    private_network()
    make_tap("tap0", f"{HOST}/24")
    directory = tempdir()
    disk, uds = make_disk(directory / "disk", 2 * BLOCKS * BLOCK), directory / "v"
    stream = Stream()
    calls = Calls(uds, stream)
    word, script = script_drive(SCRIPT)
    drives = [drive(disk, "disk"), script]
    config = {"network-interfaces": [interface("tap0")], "balloon": BALLOON,
              "vsock": {"guest_cid": 42, "uds_path": str(uds)}}
    with start_linux(flavour, word, vcpus=vcpus, mem_mib=mem_mib, drives=drives,
                     config=config, api=True, stdin="pipe") as m:
        m.wait_for_console("mayfly guest: up", BOOT_TIMEOUT)
        goes_on(m, 0)
        calls.one_came_and_one_is_under_way()
        assert "bulk=cut" not in m.output(), m.output()
        return save(m, Saved(tempdir(), stream=stream), disk)


@dataclass
class Copy:
    m: Monitor
    disk: Path
    calls: Calls | None


def load(saved: Saved, source: Path | None = None, vsock: bool = True) -> Copy:
    """With a disk and a socket of its own, from its files or a running one's."""
    directory = tempdir()
    disk, uds = directory / "disk", directory / "v"
    shutil.copyfile(saved.dir / "disk", disk)
    calls = Calls(uds, saved.stream) if vsock else None
    m = Monitor(stdin="pipe")
    files = {
        "snapshot_path": str(saved.dir / "state"),
        "mem_backend": {"backend_type": "File", "backend_path": str(saved.dir / "mem")},
    }
    template = {"mem_backend": {"backend_type": "Template", "backend_path": str(source)}}
    m.api.must("PUT", "/snapshot/load", {
        **(template if source else files),
        "drive_overrides": [{"drive_id": "disk", "path_on_host": str(disk)}],
        **({"vsock_override": {"uds_path": str(uds)}} if vsock else {}),
        "resume_vm": True,
    })
    return Copy(m, disk, calls)


def stays_busy(copy: Copy, saved: Saved) -> list[Round]:
    """It goes on where it was; the transfer that was under way is cut, and others arrive."""
    rounds = goes_on(copy.m, saved.rounds[-1][0])
    check_rounds([*saved.rounds, *rounds])
    copy.m.wait_for_console("bulk=cut")
    copy.calls.one_came_and_one_is_under_way()
    return rounds


def ends_well(m: Monitor, forks: int, last: bytes = b"\n") -> dict[str, str]:
    """The guest compares all it knows of its disk, and how often it was told that it is another."""
    m.type(last)
    m.wait_for_console(r"mayfly guest: done 0", BOOT_TIMEOUT * 2)
    assert m.wait_exit(60) == 0
    seen = facts(m.output().replace("\r", ""))
    assert "BAD" not in m.output(), m.output()
    assert seen["forks"] == str(forks), seen
    assert 1 <= int(seen["blocks"]) <= 2 * BLOCKS, seen
    return seen


def ends_with_its_stream(m: Monitor, stream: Stream, forks: int) -> None:
    """Every byte of what has been under way since before the first save."""
    stream.take_the_rest()
    seen = ends_well(m, forks)
    crc = checksum(STREAM)
    assert stream.peer.result() == (STREAM, crc), "what the guest sent is not what came"
    assert (int(seen["tcp_bytes"]), int(seen["tcp_crc"])) == (STREAM, crc), seen


# ---- one after the other -------------------------------------------------------------------------


@stays(ITSELF)
def test_two_copies_of_a_busy_guest():
    """The stream is the first one's: to its end, after which the other's is no more."""
    saved = first()
    said = []
    for n in range(2):
        copy = load(saved)
        with copy.m as m:
            said.append(stays_busy(copy, saved))
            balloon_becomes(m, 0)
            if n == 0:
                ends_with_its_stream(m, saved.stream, forks=1)
            else:
                assert "tcp_crc" not in ends_well(m, forks=1)
    # Bytes of the first round may have been in memory already; those of the others were not.
    no_two_are_alike(r[1:] for r in said)


def chain(saved: Saved, length: int, forks: int) -> None:
    for _ in range(length):
        copy = load(saved)
        with copy.m as m:
            stays_busy(copy, saved)
            saved = save(m, Saved(tempdir(), saved.rounds, saved.stream), copy.disk,
                         base=saved.dir / "mem")
    copy = load(saved)
    with copy.m as m:
        stays_busy(copy, saved)
        ends_with_its_stream(m, saved.stream, forks)


@stays(ITSELF)
def test_a_chain_of_five_diffs():
    """One processor, because an emulated host stood still in two of four runs with four."""
    chain(first(vcpus=1), 5, forks=6)


@stays(ITSELF)
def test_a_diff_of_debian():
    """Whose kernel watches for lock-ups; it does not know of generations. One processor, because an
    emulated host took minutes for four of them beside other load, or stood still."""
    chain(first(DEBIAN, mem_mib=256, vcpus=1), 1, forks=0)


# ---- beside each other ---------------------------------------------------------------------------


def shareable(script: str, disk: Path, vcpus: int, mem_mib: int, **config) -> Monitor:
    config["machine-config"] = {"vcpu_count": vcpus, "mem_size_mib": mem_mib, "shareable": True}
    word, script = script_drive(script)
    return start_linux(PVH, word, drives=[drive(disk, "disk"), script], config=config, api=True,
                       stdin="pipe")


def busy(disk: Path, uds: Path, vcpus: int) -> Monitor:
    Calls(uds)
    return shareable(ALONE, disk, vcpus, 160, balloon=BALLOON,
                     vsock={"guest_cid": 42, "uds_path": str(uds)})


def share(m: Monitor, disk: Path) -> tuple[Saved, Path]:
    """What copies are made of, and of what moment; the machine goes on."""
    saved, path = Saved(tempdir()), tempdir() / "source"
    api = Api(m.socket)
    api.must("PATCH", "/vm", {"state": "Paused"})
    api.must("PUT", "/snapshot/share", {"socket_path": str(path)}, 200)
    shutil.copyfile(disk, saved.dir / "disk")
    saved.rounds = rounds_of(m)
    api.must("PATCH", "/vm", {"state": "Resumed"})
    api.close()
    return saved, path


@stays(ITSELF)
def test_forks_of_a_running_guest_and_a_fork_of_a_fork():
    """One processor each, because five guests of two were more than an emulated host stood."""
    directory = tempdir()
    disk = make_disk(directory / "disk", 2 * BLOCKS * BLOCK)
    with busy(disk, directory / "v", vcpus=1) as m:
        goes_on(m, 0)
        saved, path = share(m, disk)
        copies = [load(saved, path) for _ in range(3)]
        said = [goes_on(c.m, saved.rounds[-1][0]) for c in copies]
        for rounds in said:
            check_rounds([*saved.rounds, *rounds])
        goes_on(m, saved.rounds[-1][0])
        # Of a copy in turn, while all the others run.
        second, second_path = share(copies[0].m, copies[0].disk)
        grandchild = load(second, second_path)
        check_rounds([*saved.rounds, *second.rounds,
                      *goes_on(grandchild.m, second.rounds[-1][0])])
        ends_well(grandchild.m, forks=2)
        for c in copies:
            ends_well(c.m, forks=1)
        ends_well(m, forks=0)
    # Bytes of the first round may have been in memory already; those of the others were not.
    no_two_are_alike(r[1:] for r in said)


def ask(machines: list[Monitor], n: int) -> None:
    """All at once for their round n."""
    for m in machines:
        m.type(b"go\n")
    for m in machines:
        m.wait_for_console(rf"round {n} .*\n", BOOT_TIMEOUT)
        assert "BAD" not in m.output(), m.output()


@stays(ITSELF)
def test_twenty_forks():
    disk = make_disk(tempdir() / "disk", 1 << 20)
    with shareable(ASKED, disk, vcpus=1, mem_mib=64) as m:
        m.wait_for_console("mayfly guest: up", BOOT_TIMEOUT)
        for n in (1, 2):
            ask([m], n)
        saved, path = share(m, disk)
        copies = [load(saved, path, vsock=False).m for _ in range(20)]
        for n in (3, 4):
            ask([m, *copies], n)
        said = [rounds_of(c) for c in copies]
        for rounds in said:
            check_rounds([*saved.rounds, *rounds])
        no_two_are_alike([*said, rounds_of(m)])
        for c in copies:
            ends_well(c, forks=1, last=b"end\n")
        ends_well(m, forks=0, last=b"end\n")


@stays(ITSELF)
def test_a_live_snapshot_of_a_running_guest():
    """The disk goes on as well: what is saved is the machine, and its copy has none to compare."""
    directory = tempdir()
    disk = make_disk(directory / "disk", 2 * BLOCKS * BLOCK)
    saved = Saved(tempdir())
    with busy(disk, directory / "v", VCPUS) as m:
        goes_on(m, 0)
        api = Api(m.socket)
        for n in (1, 2):
            answer = api.must("PUT", "/snapshot/create", {
                "snapshot_path": str(saved.dir / "state"), "mem_file_path": str(saved.dir / "mem"),
                "live": True}, 200)
            assert answer.json["pause_us"] > 0
            goes_on(m, rounds_of(m)[-1][0])
            m.wait_for_log(rf"(?s)(The live snapshot is complete.*){{{n}}}", BOOT_TIMEOUT)
            assert api.get("/snapshot/status").json["state"] == "Done"
        check_rounds(rounds_of(m))
        ends_well(m, forks=0)
    shutil.copyfile(disk, saved.dir / "disk")
    with load(saved).m as m:
        # A round that was under way may find the other disk's block; the machine goes on.
        m.wait_for_console(r"round \d+ .*\n(.*\n)*round \d+ .*\n", BOOT_TIMEOUT)
        m.assert_alive()
