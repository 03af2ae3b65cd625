"""Snapshots: a machine goes on elsewhere as if nothing had been; what is not whole is refused."""

from __future__ import annotations

import http.client
import os
import random
import re
import shutil
import struct
import threading
from pathlib import Path
from typing import Callable, Iterator

from counting import counted, create, goes_on, load, ok, saved, start
from inside import outside
from mayfly import Monitor, drive, guest, make_disk, tempdir

HEAD, FRAME = 16, 32


# ---- full ----------------------------------------------------------------------------------------------


def test_full_snapshot_goes_on_in_another_process():
    directory, n = saved()
    with Monitor() as m:
        ok(load(m, directory))
        goes_on(m, n)
        assert "generation changed" in m.output()


def test_source_goes_on_too():
    directory = tempdir()
    with start() as m:
        m.wait_for_console(r"count 500\n", 60)
        m.pause()
        ok(create(m, directory))
        n = counted(m)
        m.resume()
        goes_on(m, n)
        assert "generation changed" not in m.output()


def test_guest_is_told_that_it_was_stopped():
    """By its clock, or its watchdogs would take the time for a lock-up; not if it never was."""
    directory = tempdir()
    with start("clock=1") as m:
        m.wait_for_console(r"count 500\n", 60)
        assert "stopped" not in m.output()
        for times in range(1, 3):
            m.pause()
            n = counted(m)
            m.resume()
            goes_on(m, n)
            assert m.output().count("stopped\n") == times, m.output()
        m.pause()
        ok(create(m, directory))
    with Monitor() as m:
        ok(load(m, directory))
        goes_on(m, 500)
        assert m.output().count("stopped\n") == 1, m.output()


def test_memory_file_has_the_size_of_memory_and_holes():
    directory, _ = saved()
    st = (directory / "mem").stat()
    assert st.st_size == 128 << 20
    assert st.st_blocks * 512 < 16 << 20


def test_nothing_else_is_left_beside_the_files():
    directory, _ = saved()
    assert sorted(p.name for p in directory.iterdir()) == ["mem", "state"]


def test_load_without_resume_is_paused():
    directory, n = saved()
    with Monitor() as m:
        ok(load(m, directory, resume=False))
        assert m.api.get("/").json["state"] == "Paused"
        m.resume()
        goes_on(m, n)


def test_four_processors_and_a_hole():
    directory, n = saved(vcpus=4, mem_mib=3200)
    with Monitor() as m:
        ok(load(m, directory))
        goes_on(m, n)
        assert m.api.get("/machine-config").json["vcpu_count"] == 4


def test_twice_from_the_same_files_with_distinct_randomness():
    directory, n = saved()
    said = []
    for _ in range(2):
        with Monitor() as m:
            ok(load(m, directory))
            goes_on(m, n)
            said.append(re.findall(r"random.*", m.output())[1])
    assert said[0] != said[1]


def test_configuration_is_that_of_the_source():
    directory = tempdir()
    disk = make_disk(tempdir() / "disk", 1 << 20)
    with start(drives=[drive(disk)]) as m:
        m.wait_for_console(r"count 200\n", 60)
        m.pause()
        ok(create(m, directory))
        before = m.api.get("/vm/config").json
    with Monitor() as m:
        ok(load(m, directory))
        assert m.api.get("/vm/config").json == before


def test_a_restored_machine_is_saved_and_restored_again():
    directory, n = saved()
    for hop in range(3):
        with Monitor() as m:
            ok(load(m, directory))
            goes_on(m, n, 200)
            m.pause()
            directory = tempdir()
            ok(create(m, directory))
            n = counted(m)
    with Monitor() as m:
        ok(load(m, directory))
        goes_on(m, n)


def test_onto_the_very_files_it_was_restored_from():
    for kind in ("Full", "Diff"):
        directory, n = saved("pages=1024")
        with Monitor() as m:
            ok(load(m, directory))
            goes_on(m, n, 300)
            m.pause()
            ok(create(m, directory, kind))
            n = counted(m)
            m.resume()
            goes_on(m, n)
        with Monitor() as m:
            ok(load(m, directory))
            goes_on(m, n)


def test_deprecated_way_to_name_the_memory():
    directory, n = saved()
    body = {"snapshot_path": str(directory / "state"), "mem_file_path": str(directory / "mem"),
            "resume_vm": True}
    with Monitor() as m:
        answer = m.api.put("/snapshot/load", body)
        ok(answer)
        assert answer.headers.get("deprecation") == "true"
        goes_on(m, n)


def test_clock_that_goes_on_by_the_time_that_has_passed():
    directory, n = saved()
    with Monitor() as m:
        answer = load(m, directory, clock_realtime=True)
        assert answer.status == 204 or "clock_realtime" in answer.fault, answer
        if answer.status == 204:
            goes_on(m, n)


# ---- diff ----------------------------------------------------------------------------------------------


def test_a_diff_is_small_and_full_is_base_and_diff():
    base, n = saved("pages=1024 quiet=1")
    with Monitor() as m:
        ok(load(m, base))
        goes_on(m, n, 300)
        m.pause()
        diff = tempdir()
        ok(create(m, diff, "Diff"))
        full = tempdir()
        ok(create(m, full, "Full"))
        n = counted(m)
    blocks = (diff / "mem").stat().st_blocks
    assert blocks * 512 < 1 << 20, blocks
    merged = tempdir()
    shutil.copy(diff / "state", merged / "state")
    overlay(base / "mem", diff / "mem", merged / "mem")
    with Monitor() as m:
        ok(load(m, merged))
        goes_on(m, n)
    # All but the bytes by which each memory is known to belong to its state.
    assert without_pair(merged / "mem") == without_pair(full / "mem")


def overlay(base: Path, diff: Path, out: Path) -> None:
    shutil.copy(base, out)
    with open(diff, "rb") as f, open(out, "r+b") as to:
        at, end = 0, diff.stat().st_size
        while at < end:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            hole = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            f.seek(at)
            to.seek(at)
            to.write(f.read(hole - at))
            at = hole


def without_pair(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[0xDF800:0xDF810] = bytes(16)
    return bytes(data)


def test_a_chain_of_diffs():
    directory, n = saved("pages=512")
    for _ in range(5):
        with Monitor() as m:
            ok(load(m, directory))
            goes_on(m, n, 200)
            m.pause()
            ok(create(m, directory, "Diff"))
            n = counted(m)
    with Monitor() as m:
        ok(load(m, directory))
        goes_on(m, n, 1000)


# ---- overrides -------------------------------------------------------------------------------------------


def test_a_drive_of_its_own():
    directory = tempdir()
    disk = make_disk(tempdir() / "disk", 1 << 20)
    with start(drives=[drive(disk)]) as m:
        m.wait_for_console(r"count 200\n", 60)
        m.pause()
        ok(create(m, directory))
        n = counted(m)
    own = tempdir() / "own"
    shutil.move(disk, own)
    with Monitor() as m:
        answer = load(m, directory)
        assert answer.status == 400 and "No such file" in answer.fault, answer
        ok(load(m, directory, drive_overrides=[{"drive_id": "disk", "path_on_host": str(own)}]))
        goes_on(m, n)
        assert m.api.get("/vm/config").json["drives"][0]["path_on_host"] == str(own)


def test_a_balloon_with_all_it_can():
    balloon = {"amount_mib": 8, "deflate_on_oom": True, "stats_polling_interval_s": 5,
               "free_page_hinting": True, "free_page_reporting": True}
    directory = tempdir()
    with Monitor() as m:
        m.configure(guest("count"))
        m.api.must("PUT", "/balloon", balloon)
        m.start()
        m.wait_for_console(r"count 500\n", 60)
        m.pause()
        ok(create(m, directory))
        n = counted(m)
    with Monitor() as m:
        ok(load(m, directory))
        goes_on(m, n)
        assert m.api.get("/balloon").json == balloon


def test_a_vsock_of_its_own():
    directory, uds = tempdir(), tempdir()
    m = Monitor()
    m.configure(guest("count"))
    m.api.must("PUT", "/vsock", {"guest_cid": 3, "uds_path": str(uds / "a")})
    m.start()
    m.wait_for_console(r"count 200\n", 60)
    m.pause()
    ok(create(m, directory))
    n = counted(m)
    with Monitor() as other:
        answer = load(other, directory)
        assert answer.status == 400 and "vsock" in answer.fault, answer
        ok(load(other, directory, vsock_override={"uds_path": str(uds / "b")}))
        goes_on(other, n)
        assert (uds / "b").exists()
    m.resume()
    goes_on(m, n)


def test_overrides_for_what_is_not_there():
    directory, n = saved()
    with Monitor() as m:
        for more, text in (
            ({"network_overrides": [{"iface_id": "no", "host_dev_name": "tap0"}]},
             "Unknown Network Device"),
            ({"drive_overrides": [{"drive_id": "no", "path_on_host": "/x"}]}, "no drive no"),
            ({"vsock_override": {"uds_path": "/x"}}, "no vsock"),
        ):
            answer = load(m, directory, **more)
            assert answer.status == 400 and text in answer.fault, answer
        ok(load(m, directory))
        goes_on(m, n)


# ---- refusals --------------------------------------------------------------------------------------------


def test_create_needs_a_paused_machine():
    directory = tempdir()
    with Monitor() as m:
        assert "before starting" in create(m, directory).fault
    with start() as m:
        answer = create(m, directory)
        assert "save/restore unavailable while running" in answer.fault, answer
        assert not list(directory.iterdir())


def test_load_only_into_a_process_that_is_clean():
    directory, n = saved()
    with Monitor() as m:
        m.api.put("/machine-config", {"vcpu_count": 99, "mem_size_mib": 1})
        answer = load(m, directory)
        assert "not allowed after configuring boot-specific resources" in answer.fault, answer
    with Monitor() as m:
        ok(load(m, directory))
        answer = load(m, directory)
        assert "not supported after starting" in answer.fault, answer
        goes_on(m, n)


def bad_backends() -> Iterator[tuple[dict, str]]:
    yield {}, "missing field: either `mem_backend` or `mem_file_path` is required"
    both = {"mem_file_path": "/m", "mem_backend": {"backend_type": "File", "backend_path": "/m"}}
    yield both, "too many fields: either `mem_backend` or `mem_file_path`"
    yield {"mem_backend": {"backend_type": "Tape", "backend_path": "/m"}}, "unknown variant `Tape`"
    yield {"mem_backend": {"backend_type": "File"}}, "missing field `backend_path`"
    yield {"mem_file_path": "/m", "network_overrides": 3}, "expected a sequence"
    yield {"mem_file_path": "/m", "nonsense": 3}, "unknown field `nonsense`"


def test_bad_requests_leave_the_process_usable():
    directory, n = saved()
    with Monitor() as m:
        for more, text in bad_backends():
            answer = m.api.put("/snapshot/load", {"snapshot_path": str(directory / "state"), **more})
            assert answer.status == 400 and text in answer.fault, (more, answer)
        ok(load(m, directory))
        goes_on(m, n)


def test_bad_files_leave_the_process_usable():
    directory, n = saved()
    bad = tempdir()
    state, mem = directory / "state", directory / "mem"
    (bad / "empty").touch()
    (bad / "text").write_text("this is no snapshot\n" * 100)
    with open(bad / "short", "wb") as f:
        f.truncate((128 << 20) - 4096)
    with open(bad / "long", "wb") as f:
        f.truncate((128 << 20) + 4096)
    with open(bad / "other", "wb") as f:
        f.truncate(128 << 20)
    with open(bad / "huge", "wb") as f:
        f.truncate(1 << 40)
    os.mkfifo(bad / "fifo")
    with Monitor() as m:
        for s, memory, text in (
            (bad / "none", mem, "Failed to open snapshot file: No such file or directory"),
            (bad / "empty", mem, "too short"),
            (bad / "text", mem, "not a snapshot"),
            (bad / "huge", mem, "at most"),
            (bad / "fifo", mem, "not a regular file"),
            (bad, mem, "not a regular file"),
            (mem, mem, "at most"),
            (state, bad / "none", "Failed to load guest memory: No such file or directory"),
            (state, bad / "short", "the memory file has"),
            (state, bad / "long", "the memory file has"),
            (state, bad / "empty", "the memory file has"),
            (state, bad / "other", "of different snapshots"),
            (state, bad / "fifo", "not a regular file"),
            (state, bad, "not a regular file"),
        ):
            answer = m.api.put("/snapshot/load", {"snapshot_path": str(s),
                               "mem_backend": {"backend_type": "File", "backend_path": str(memory)}})
            assert answer.status == 400 and text in answer.fault, (s, memory, answer)
        # Not only another load: a start as well.
        assert m.api.get("/vm/config").json["drives"] == []
        ok(load(m, directory))
        goes_on(m, n)


def test_a_refused_load_does_not_forbid_a_start():
    with Monitor() as m:
        assert load(m, tempdir()).status == 400
        m.configure(guest("count"), "rng=1", rng=True)
        m.start()
        m.wait_for_console(r"count 200\n", 60)


# ---- hostile states ----------------------------------------------------------------------------------------


def crc64(data: bytes) -> int:
    table = []
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0xC96C5795D7870F42 if i & 1 else 0)
        table.append(i)
    value = (1 << 64) - 1
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 255]
    return value ^ (1 << 64) - 1


def frames(data: bytes) -> dict[str, tuple[int, int]]:
    """Where the bytes of each record are."""
    at, found = HEAD, {}
    while at < len(data) - 8:
        tag, _, length = struct.unpack_from("<24sII", data, at)
        found[tag.rstrip(b"\0").decode()] = (at + FRAME, length)
        at += FRAME + length
    return found


def seal(data: bytearray) -> bytes:
    struct.pack_into("<Q", data, len(data) - 8, crc64(bytes(data[:-8])))
    return bytes(data)


def poke(record: str, offset: int, form: str, value: int) -> Callable[[bytearray, dict], None]:
    def change(data: bytearray, where: dict) -> None:
        at, length = where[record]
        assert offset < length
        struct.pack_into("<" + form, data, at + offset, value)

    return change


def test_hostile_fields_are_refused_by_the_record_s_name():
    directory, n = saved()
    good = (directory / "state").read_bytes()
    where = frames(good)
    assert {"machine", "config", "cpuid", "clock", "ioapic", "serial", "i8042", "device0"} < set(where)
    assert {f"vcpu0.{p}" for p in "mp_state regs sregs xsave xcrs debugregs lapic msrs events tsc_khz"
            .split()} < set(where)
    cases = [
        (poke("machine", 8, "I", 0), "record machine"),
        (poke("machine", 8, "I", 33), "record machine"),
        (poke("machine", 8, "I", 2), "record vcpu1"),
        (poke("machine", 12, "I", 2), "record machine"),
        (poke("machine", 12, "I", 1 << 31), "record machine"),
        (poke("machine", 0, "Q", 0), "record machine"),
        (poke("machine", 0, "Q", 127 << 20), "machine"),
        (poke("machine", 0, "Q", (1 << 64) - 4096), "record machine"),
        (poke("config", 0, "B", 0), "record config"),
        (poke("config", 0, "B", ord("[")), "record config"),
        (poke("cpuid", 0, "I", 0x77), "record cpuid"),
        (poke("serial", 80, "I", 64), "record serial"),
        (poke("serial", 84, "I", 65), "record serial"),
        (poke("serial", 8, "B", 2), "record serial"),
        (poke("i8042", 24, "I", 17), "record i8042"),
        (poke("i8042", 20, "I", 1 << 31), "record i8042"),
        (poke("device0", 0, "I", 2), "record device0"),
        (poke("device0", 4, "I", 17), "record device0"),
        (poke("device0", 8, "Q", (1 << 64) - 1), "record device0"),
        (poke("device0", 16, "Q", (1 << 64) - 1), "record device0"),
        (poke("device0", 24, "I", 65), "record device0"),
        (poke("device0", 32, "I", 4), "record device0"),
        (poke("device0", 52, "B", 4), "record device0"),
        (poke("device0", 52, "B", 0xD), "record device0"),
        (poke("vcpu0.events", 1, "B", 200), "vcpu0.events"),
        (poke("vcpu0.msrs", 0, "I", 0xC0000080), "vcpu0.msrs"),
        (poke("vcpu0.msrs", 16, "I", 0x10), "vcpu0.msrs"),
        (poke("vcpu0.tsc_khz", 0, "I", (1 << 32) - 1), "vcpu0.tsc_khz"),
    ]
    with Monitor() as m:
        for change, expect in cases:
            data = bytearray(good)
            change(data, where)
            (directory / "state").write_bytes(seal(data))
            answer = load(m, directory)
            assert answer.status == 400 and expect in answer.fault, (expect, answer)
        (directory / "state").write_bytes(good)
        ok(load(m, directory))
        goes_on(m, n)


def test_hostile_lengths_of_every_record():
    directory, n = saved()
    good = (directory / "state").read_bytes()
    where = frames(good)
    with Monitor() as m:
        for tag, (at, length) in where.items():
            for value in (length + 1, length - 1, 0xFFFFFFFF):
                data = bytearray(good)
                struct.pack_into("<I", data, at - 4, value)
                (directory / "state").write_bytes(seal(data))
                answer = load(m, directory)
                assert answer.status == 400, (tag, value)
            data = bytearray(good)
            struct.pack_into("<I", data, at - 8, 77)
            (directory / "state").write_bytes(seal(data))
            answer = load(m, directory)
            assert answer.status == 400 and f"record {tag} has version 77" in answer.fault, answer
        (directory / "state").write_bytes(good)
        ok(load(m, directory))
        goes_on(m, n)


def test_random_damage_under_a_right_checksum():
    """Whatever is in the records: an answer, and a process that goes on."""
    directory, n = saved()
    good = (directory / "state").read_bytes()
    where = frames(good)
    dice = random.Random(5)
    with Monitor() as m:
        for _ in range(150):
            data = bytearray(good)
            tag = dice.choice(sorted(where))
            at, length = where[tag]
            for _ in range(dice.choice((1, 3, 20))):
                data[at + dice.randrange(length)] = dice.choice((0, 1, 0x7F, 0x80, 0xFF))
            (directory / "state").write_bytes(seal(data))
            answer = load(m, directory, resume=False)
            m.assert_alive()
            if answer.status == 204:
                m.kill()
                m = Monitor()
        (directory / "state").write_bytes(good)
        ok(load(m, directory))
        goes_on(m, n)
        m.kill()


# ---- what happens on the way ---------------------------------------------------------------------------------


def test_killed_at_any_moment_the_old_or_the_new_one_is_whole():
    directory, n = saved("pages=2048")
    dice = random.Random(7)
    for _ in range(200):
        with Monitor() as m:
            ok(load(m, directory))
            m.wait_for_console(r"count \d+\n", 60)
            m.pause()
            killer = threading.Timer(dice.random() * 0.06, m.process.kill)
            killer.start()
            try:
                create(m, directory)
            except (OSError, http.client.HTTPException):
                pass  # killed under our hands
            killer.join()
            m.kill()
    with Monitor() as m:
        ok(load(m, directory))
        m.wait_for_console(r"count \d+\n", 60)
        goes_on(m, counted(m))


def test_a_memory_file_that_is_cut_short_ends_this_machine():
    """By the guest's touch of a page that is gone, or by the monitor's."""
    for running in (True, False):
        directory, _ = saved("pages=2048")
        with Monitor() as m:
            ok(load(m, directory, resume=running))
            if running:
                m.wait_for_console(r"count \d+\n", 60)
            os.truncate(directory / "mem", 0)
            if not running:
                try:
                    m.api.patch("/vm", {"state": "Resumed"})
                except (OSError, http.client.HTTPException):
                    pass  # it may be over before it can answer
            assert m.wait_exit(60) == 149, m.errors()
            assert "cut short" in m.errors() or "signal 07" in m.errors(), m.errors()


def test_an_interrupted_change_of_names_is_found_out():
    directory, n = saved()
    other, _ = saved()
    os.rename(directory / "mem", directory / "mem.previous")
    shutil.copy(other / "mem", directory / "mem")
    with Monitor() as m:
        ok(load(m, directory))
        goes_on(m, n)


# ---- the working set --------------------------------------------------------------------------------------------


def prefetched(m: Monitor, directory: Path) -> bool:
    ok(load(m, directory, prefetch=True))
    return "'prefetch' took" in m.log()


def runs(directory: Path) -> list[tuple[int, int]]:
    data = (directory / "mem.touched").read_bytes()
    return list(struct.iter_unpack("<II", data[24:]))


@outside("what a machine has touched is told by /proc")
def test_a_working_set_is_recorded_once_and_used():
    directory, n = saved("pages=512")
    for end in ("pause", "terminate"):
        (directory / "mem.touched").unlink(missing_ok=True)
        with Monitor() as m:
            assert not prefetched(m, directory)
            goes_on(m, n)
            if end == "pause":
                m.pause()
            m.process.terminate()
            m.wait_exit()
        touched = runs(directory)
        assert touched == sorted(touched)
        assert 512 < sum(count for _, count in touched) < (64 << 20) // 4096, touched
    with Monitor() as m:
        assert prefetched(m, directory)
        goes_on(m, n)
        m.process.terminate()
        m.wait_exit()
    assert runs(directory) == touched


@outside("what a machine has touched is told by /proc")
def test_a_hostile_list_of_pages_is_of_no_use():
    directory, n = saved()
    with Monitor() as m:
        assert not prefetched(m, directory)
        goes_on(m, n, 100)
        m.pause()
    good = (directory / "mem.touched").read_bytes()
    lists = (b"", good[:20], b"\0" * 24, good[:23] + b"\xff" + good[24:])
    for data in lists:
        (directory / "mem.touched").write_bytes(data)
        with Monitor() as m:
            assert not prefetched(m, directory)
            goes_on(m, n)
    odd = [(0, 0), (0, 0xFFFFFFFF), (0xFFFFFFFF, 1), (32767, 2), (32768, 1), (5, 32768)]
    body = b"".join(struct.pack("<II", *run) for run in odd)
    for data in (body, body * 10000, body + b"x"):
        (directory / "mem.touched").write_bytes(good[:24] + data)
        with Monitor() as m:
            assert prefetched(m, directory)
            goes_on(m, n)


def test_prefetch_needs_a_file():
    with Monitor() as m:
        body = {"mem_backend": {"backend_type": "Template", "backend_path": "/x"}, "prefetch": True}
        answer = m.api.put("/snapshot/load", body)
        assert answer.status == 400 and "`prefetch` needs a memory file" in answer.fault
