"""Linux under load, saved and gone on from: disk, network, vsock, balloon, clock, randomness."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from linuxguest import BOOT_TIMEOUT, PVH, facts, script_word, start_linux
from mayfly import Api, Deadline, Monitor, drive, make_disk, tempdir
from network import interface, make_tap, private_network
from peers import Peer, echo, unix
from teleport import stays

HOST, GUEST = "10.9.0.1", "10.9.0.2"
BLOCKS, BLOCK = 16, 65536
ROUNDS = 6
BALLOON = {"amount_mib": 32, "deflate_on_oom": False, "stats_polling_interval_s": 1}

# Each round writes random bytes to the disk and reads them from there, and calls the host on both
# its lines. What is on the disk is remembered in memory: at the end the two must still agree. A call
# over vsock that was cut by the save may be made once more.
SCRIPT = f"""ip addr add {GUEST}/24 dev eth0; ip link set eth0 up
(load vsock:2:7005 sink >/dev/null 2>&1; echo cut=yes) &
call() {{ load vsock:2:7001 ping 1 >/dev/null 2>&1; }}
get() {{ dd if=/dev/vda bs=64k skip=$1 count=1 2>/dev/null | cmp - /run/b$1 || echo BAD disk; }}
(i=0
while [ ! -e /run/stop ]; do
i=$((i+1)) o=$((i%{BLOCKS}))
dd if=/dev/urandom of=/run/b$o bs=64k count=1 2>/dev/null
dd if=/run/b$o of=/dev/vda bs=64k seek=$o conv=notrunc,fsync 2>/dev/null
echo 1 >/proc/sys/vm/drop_caches
get $o
ping -c 1 -w 20 {HOST} >/dev/null || echo BAD net
call || call || echo BAD vsock
read u rest </proc/uptime
echo "round $i $u $(sha256sum </run/b$o)"
done) & loop=$!
read line
touch /run/stop; wait $loop
echo 1 >/proc/sys/vm/drop_caches
for b in /run/b*; do get ${{b#/run/b}}; done
echo forks=$(dmesg | grep -c 'virtual machine fork')
echo trouble=$(dmesg | grep -ciE 'lockup|stall|i/o error|bug:')
echo blocks=$(ls /run/b* | wc -l)"""


# Copies that run beside each other would have one address.
ALONE = SCRIPT.replace(SCRIPT[:SCRIPT.index("\n") + 1], "").replace(
    f"ping -c 1 -w 20 {HOST} >/dev/null || echo BAD net\n", "")


def hold(peer) -> None:
    """Says nothing, and stays until the guest leaves."""
    while peer.recv(1):
        pass


@dataclass
class Saved:
    """A snapshot, the disk as it was then, and the rounds that the guest had done."""

    dir: Path
    rounds: list[tuple[int, float, str]] = field(default_factory=list)
    moves: int = 0


def serve(uds: Path) -> None:
    serve.keep += [Peer(unix(f"{uds}_7001"), echo), Peer(unix(f"{uds}_7005"), hold)]
    for peer in uds.parent.glob("v_*"):
        peer.chmod(0o777)


serve.keep = []


def rounds_of(m: Monitor) -> list[tuple[int, float, str]]:
    found = re.findall(r"round (\d+) (\d+\.\d+) ([0-9a-f]{64})", m.output())
    return [(int(n), float(uptime), digest) for n, uptime, digest in found]


def check_rounds(rounds: list[tuple[int, float, str]]) -> None:
    """None is missing, none came twice, and the clock never went back."""
    for before, after in zip(rounds, rounds[1:]):
        assert after[0] == before[0] + 1, f"{before} is followed by {after}"
        assert after[1] >= before[1], f"the clock went back: {before}, {after}"


def goes_on(m: Monitor, after: int) -> list[tuple[int, float, str]]:
    m.wait_for_console(rf"round {after + ROUNDS} .*\n", BOOT_TIMEOUT * 3)
    assert "BAD" not in m.output(), m.output()
    return rounds_of(m)


def create(api: Api, kind: str, state: Path, mem: Path) -> None:
    api.must("PUT", "/snapshot/create", {"snapshot_type": kind, "snapshot_path": str(state),
                                         "mem_file_path": str(mem)})


def blocks(path: Path) -> int:
    return path.stat().st_blocks


def save(m: Monitor, api: Api, disk: Path, base: Path | None = None, done=()) -> Saved:
    """Full, or, on top of a copy of `base`, what differs from it."""
    saved = Saved(tempdir())
    api.must("PATCH", "/vm", {"state": "Paused"})
    if base:
        create(api, "Diff", saved.dir / "part_state", saved.dir / "part")
        assert blocks(saved.dir / "part") < blocks(base) * 3 // 4, "the difference is everything"
        shutil.copyfile(base, saved.dir / "mem")
    create(api, "Diff" if base else "Full", saved.dir / "state", saved.dir / "mem")
    shutil.copyfile(disk, saved.dir / "disk")
    saved.rounds, saved.moves = [*done, *rounds_of(m)], m.moves
    check_rounds(saved.rounds)
    return saved


def first() -> Saved:
    """Boots, works for a while under an inflated balloon, is saved, and is gone."""
    directory = tempdir()
    disk, uds = make_disk(directory / "disk", BLOCKS * BLOCK), directory / "v"
    serve(uds)
    config = {"network-interfaces": [interface("tap0")], "balloon": BALLOON,
              "vsock": {"guest_cid": 42, "uds_path": str(uds)}}
    with start_linux(PVH, script_word(SCRIPT), mem_mib=192, drives=[drive(disk, "disk")],
                     config=config, api=True, stdin="pipe") as m:
        goes_on(m, 0)
        assert m.moves or "cut=" not in m.output(), m.output()
        return save(m, Api(m.socket), disk)


def load(saved: Saved, source: Path | None = None) -> tuple[Monitor, Path]:
    """A copy with a disk and a socket of its own, from its files or a running one's; the disk's file."""
    directory = tempdir()
    disk, uds = directory / "disk", directory / "v"
    shutil.copyfile(saved.dir / "disk", disk)
    serve(uds)
    m = Monitor(stdin="pipe")
    m.moves = saved.moves
    files = {
        "snapshot_path": str(saved.dir / "state"),
        "mem_backend": {"backend_type": "File", "backend_path": str(saved.dir / "mem")},
    }
    template = {"mem_backend": {"backend_type": "Template", "backend_path": str(source)}}
    m.api.must("PUT", "/snapshot/load", {
        **(template if source else files),
        "drive_overrides": [{"drive_id": "disk", "path_on_host": str(disk)}],
        "vsock_override": {"uds_path": str(uds)},
        "resume_vm": True,
    })
    return m, disk


def ends_well(m: Monitor, forks: int) -> None:
    """The guest compares all it knows of its disk, and how often it was told that it is another."""
    m.type(b"\n")
    m.wait_for_console(r"mayfly guest: done 0", BOOT_TIMEOUT * 2)
    assert m.wait_exit(60) == 0
    seen = facts(m.output().replace("\r", ""))
    assert "BAD" not in m.output(), m.output()
    assert seen["trouble"] == "0", seen
    # Moved once more before it has looked, it finds one new identity where there were two.
    assert int(seen["forks"]) == forks or 1 <= int(seen["forks"]) <= forks + m.moves, seen
    assert 1 <= int(seen["blocks"]) <= BLOCKS, seen


def test_two_copies_of_a_busy_guest():
    private_network()
    make_tap("tap0", f"{HOST}/24")
    saved = first()
    said = []
    for _ in range(2):
        m, _ = load(saved)
        with m:
            said.append(goes_on(m, saved.rounds[-1][0]))
            check_rounds([*saved.rounds, *said[-1]])
            if not saved.moves:
                m.wait_for_console("cut=yes", BOOT_TIMEOUT)
            assert m.api.get("/balloon/statistics").json["actual_mib"] == 32
            m.api.must("PATCH", "/balloon", {"amount_mib": 0})
            goes_on(m, said[-1][-1][0])
            assert m.api.get("/balloon/statistics").json["actual_mib"] == 0
            ends_well(m, forks=1)
    # Bytes of the first round may have been in memory already; those of the others were not.
    assert not {r[2] for r in said[0][1:]} & {r[2] for r in said[1][1:]}, said


@stays("a diff is against the file that the test itself has loaded")
def test_a_chain_of_three_diffs():
    private_network()
    make_tap("tap0", f"{HOST}/24")
    saved = first()
    for _ in range(3):
        m, disk = load(saved)
        with m:
            goes_on(m, saved.rounds[-1][0])
            saved = save(m, m.api, disk, base=saved.dir / "mem", done=saved.rounds)
    m, _ = load(saved)
    with m:
        goes_on(m, saved.rounds[-1][0])
        ends_well(m, forks=4)


def shareable(disk: Path, uds: Path) -> Monitor:
    serve(uds)
    config = {"balloon": BALLOON, "vsock": {"guest_cid": 42, "uds_path": str(uds)},
              "machine-config": {"vcpu_count": 1, "mem_size_mib": 192, "shareable": True}}
    return start_linux(PVH, script_word(ALONE), drives=[drive(disk, "disk")], config=config, api=True,
                       stdin="pipe")


def share(m: Monitor, api: Api, disk: Path) -> tuple[Saved, Path]:
    """What copies are made of, and of what moment; the machine goes on."""
    saved, path = Saved(tempdir()), tempdir() / "source"
    api.must("PATCH", "/vm", {"state": "Paused"})
    api.must("PUT", "/snapshot/share", {"socket_path": str(path)}, 200)
    shutil.copyfile(disk, saved.dir / "disk")
    saved.rounds, saved.moves = rounds_of(m), m.moves
    api.must("PATCH", "/vm", {"state": "Resumed"})
    return saved, path


def test_forks_of_a_running_guest_and_a_fork_of_a_fork():
    directory = tempdir()
    disk = make_disk(directory / "disk", BLOCKS * BLOCK)
    with shareable(disk, directory / "v") as m:
        goes_on(m, 0)
        api = Api(m.socket)
        saved, path = share(m, api, disk)
        copies = [load(saved, path) for _ in range(3)]
        said = [goes_on(c, saved.rounds[-1][0]) for c, _ in copies]
        for rounds in said:
            check_rounds([*saved.rounds, *rounds])
        goes_on(m, saved.rounds[-1][0])
        # Of a copy in turn, while all the others run.
        first_copy, its_disk = copies[0]
        second, second_path = share(first_copy, first_copy.api, its_disk)
        grandchild, _ = load(second, second_path)
        goes_on(grandchild, second.rounds[-1][0])
        ends_well(grandchild, forks=2)
        for c, _ in copies:
            ends_well(c, forks=1)
        ends_well(m, forks=0)
    digests = [{r[2] for r in rounds[1:]} for rounds in said]
    assert not digests[0] & digests[1] and not digests[1] & digests[2] and not digests[0] & digests[2]


@stays("a live snapshot is written by the process that took it")
def test_a_live_snapshot_of_a_running_guest():
    """The disk goes on as well, so only the machine itself is saved here: the copy has no disk to compare."""
    directory = tempdir()
    disk = make_disk(directory / "disk", BLOCKS * BLOCK)
    saved = Saved(tempdir())
    with shareable(disk, directory / "v") as m:
        goes_on(m, 0)
        api = Api(m.socket)
        for _ in range(2):
            answer = api.must("PUT", "/snapshot/create", {
                "snapshot_path": str(saved.dir / "state"), "mem_file_path": str(saved.dir / "mem"),
                "live": True}, 200)
            assert answer.json["pause_us"] > 0
            goes_on(m, rounds_of(m)[-1][0])
            deadline = Deadline(BOOT_TIMEOUT, "the live snapshot")
            while (status := api.get("/snapshot/status").json)["state"] == "Writing":
                deadline.left()
            assert status["state"] == "Done", status
        check_rounds(rounds_of(m))
        ends_well(m, forks=0)
    shutil.copyfile(disk, saved.dir / "disk")
    m, _ = load(saved)
    with m:
        # A round that was under way may find the other disk's block; the machine goes on.
        m.wait_for_console(r"round \d+ .*\n(.*\n)*round \d+ .*\n", BOOT_TIMEOUT * 3)
        m.assert_alive()
