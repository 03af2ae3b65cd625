"""One machine from configuration to end: pause, resume, hot swap, failed starts, retries."""

from __future__ import annotations

import os
import re
import signal

from mayfly import (
    Monitor, config_file, digest, drive, guest, guest_verdict, make_disk, start_guest, tempdir,
)

SIZE = 64 * 512


def last_number(m: Monitor, pattern: str) -> int:
    return int(re.findall(pattern, m.output())[-1])


def guest_ticks(m: Monitor) -> int:
    """Processor time of all vCPU threads, in clock ticks."""
    tids = [tid for tid, name in m.threads().items() if name.startswith("fc_vcpu")]
    return sum(int(m.thread_stat(t)[11]) + int(m.thread_stat(t)[12]) for t in tids)


def test_states():
    with Monitor() as m:
        assert m.api.get("/").json["state"] == "Not started"
        m.configure(guest("ends"), "do=wait")
        assert m.api.get("/").json["state"] == "Not started"
        m.start()
        assert m.api.get("/").json["state"] == "Running"
        m.pause()
        assert m.api.get("/").json["state"] == "Paused"
        m.resume()
        assert m.api.get("/").json["state"] == "Running"


def test_pause_and_resume_are_idempotent():
    with Monitor() as m:
        m.configure(guest("console"), "do=count")
        m.start()
        m.wait_for_console("count 5\n")
        for _ in range(3):
            m.pause()
        for _ in range(3):
            m.resume()
        m.assert_alive()


def test_a_paused_guest_stands_still_and_goes_on_where_it_was():
    with Monitor() as m:
        m.configure(guest("console"), "do=count")
        m.start()
        for round_ in range(5):
            at = 20 * (round_ + 1)
            m.wait_for_console(f"count {at}\n", 60)
            m.pause()
            ticks, state = guest_ticks(m), m.api.get("/").json["state"]
            total = m.console.total
            for _ in range(200):  # something goes on meanwhile, but not the guest
                m.api.must("GET", "/machine-config", status=200)
            assert state == "Paused"
            # One tick may be what it took to lie down.
            assert guest_ticks(m) <= ticks + 1, "a paused vCPU used processor time"
            assert m.console.total - total <= 65536, "a paused guest prints"
            m.resume()
        m.wait_for_console("count 120\n", 60)
        numbers = [int(n) for n in re.findall(r"count (\d+)\n", m.output())]
        assert numbers == list(range(len(numbers))), "the guest lost or repeated something"


def test_pause_while_drive_and_entropy_are_busy():
    path = make_disk(tempdir() / "disk.img", SIZE)
    for name, word, line in (("blk", "busy", "rounds"), ("rng", "loop", "requests")):
        with Monitor() as m:
            m.configure(guest(name), f"do={word}", drives=[drive(path)], rng=True)
            m.start()
            m.wait_for_console(rf"{line} \d+\n", 60)
            for _ in range(200):
                m.pause()
                m.resume()
            m.pause()
            before = digest(path)
            m.api.must("GET", "/", status=200)
            assert digest(path) == before, "the drive is written while paused"
            m.resume()
            at = last_number(m, rf"{line} (\d+)\n")
            m.wait_for_console(rf"{line} {at + 100}\n", 60)
            assert "FAILED" not in m.output(), m.output()


def test_pause_with_many_processors():
    with Monitor() as m:
        m.configure(guest("smp"), "do=count n=4", vcpus=4)
        m.start()
        m.wait_for_console("cpu 3 at [1-9]", 120)
        for _ in range(20):
            m.pause()
            m.resume()
        m.console.data = b""
        m.wait_for_console("cpu 3 at [1-9]", 120)


def test_pause_before_the_start_is_refused():
    with Monitor() as m:
        answer = m.api.patch("/vm", {"state": "Paused"})
        assert answer.status == 400
        assert "before starting" in answer.fault


def test_configuration_after_the_start_is_refused():
    with Monitor() as m:
        m.configure(guest("ends"), "do=wait")
        m.start()
        for path, body in (
            ("/boot-source", {"kernel_image_path": str(guest("ends"))}),
            ("/machine-config", {"vcpu_count": 2, "mem_size_mib": 256}),
            ("/actions", {"action_type": "InstanceStart"}),
            ("/entropy", {}),
        ):
            answer = m.api.put(path, body)
            assert answer.status == 400, path
            assert "not supported after starting" in answer.fault, answer


def test_config_file_and_api_together():
    directory = tempdir()
    path = config_file(directory, guest("ends"), "do=wait")
    with Monitor("--config-file", str(path), directory=directory) as m:
        m.wait_for_console("now")
        assert m.api.get("/").json["state"] == "Running"
        m.wait_for_log("Successfully started microvm that was configured from one single json")


# ---- starts that fail, and their repair ----------------------------------------------------------


def test_start_without_a_kernel():
    with Monitor() as m:
        answer = m.api.put("/actions", {"action_type": "InstanceStart"})
        assert answer.status == 400
        expected = "Start microvm error: Cannot start microvm without kernel configuration."
        assert answer.fault == expected
        m.assert_alive()
        m.configure(guest("console"), "do=hello")
        m.start()
        guest_verdict(m)


def test_more_memory_than_the_host_has_can_be_corrected():
    with Monitor() as m:
        m.configure(guest("console"), "do=hello", mem_mib=1 << 27)
        answer = m.api.put("/actions", {"action_type": "InstanceStart"})
        assert answer.status == 400, answer
        reason = "Cannot create mmap region: Out of memory (os error 12)"
        assert answer.fault == f"Start microvm error: Invalid Memory Configuration: {reason}"
        m.assert_alive()
        m.api.must("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 128})
        m.start()
        guest_verdict(m)
        assert m.wait_exit() == 0


def test_a_bad_kernel_can_be_replaced():
    with Monitor() as m:
        bad = m.dir / "bad-kernel"
        bad.write_bytes(b"\0" * 4096)
        m.configure(bad, "do=hello")
        for _ in range(3):
            answer = m.api.put("/actions", {"action_type": "InstanceStart"})
            assert answer.status == 400, answer
        m.assert_alive()
        m.api.must(
            "PUT",
            "/boot-source",
            {"kernel_image_path": str(guest("console")), "boot_args": "do=hello"},
        )
        m.start()
        guest_verdict(m)


def settle(m: Monitor) -> None:
    """After a failed start the next request has one prepared: while the second is answered at the latest."""
    for _ in range(3):
        m.api.must("GET", "/", status=200)


def test_failed_starts_leak_nothing():
    with Monitor() as m:
        bad = m.dir / "bad-kernel"
        bad.write_bytes(b"\0" * 4096)
        path = make_disk(m.dir / "disk.img", SIZE)
        m.configure(bad, "", drives=[drive(path)], rng=True, vcpus=4)
        m.api.put("/actions", {"action_type": "InstanceStart"})
        settle(m)
        fds, threads = m.fds(), len(m.threads())
        for _ in range(20):
            assert m.api.put("/actions", {"action_type": "InstanceStart"}).status == 400
        settle(m)
        assert m.fds() == fds, f"{m.fds()} file descriptors, {fds} before"
        assert len(m.threads()) == threads


# ---- hot swap ------------------------------------------------------------------------------------


def test_a_swapped_drive_is_seen_by_the_guest():
    with Monitor() as m:
        first = make_disk(m.dir / "first.img", SIZE, seed=1)
        second = make_disk(m.dir / "second.img", 3 * SIZE, seed=2)
        third = make_disk(m.dir / "third.img", SIZE // 2, seed=3)
        m.configure(guest("blk"), "do=swap n=2", drives=[drive(first, "d1")])
        m.start()
        m.wait_for_console("drive 0: capacity 64 seed 1\n")
        m.api.must("PATCH", "/drives/d1", {"drive_id": "d1", "path_on_host": str(second)})
        m.wait_for_console("drive 1: capacity 192 seed 2\n")
        config = m.api.get("/vm/config").json
        assert config["drives"][0]["path_on_host"] == str(second)
        m.api.must("PATCH", "/drives/d1", {"drive_id": "d1", "path_on_host": str(third)})
        m.wait_for_console("drive 2: capacity 32 seed 3\n")
        guest_verdict(m)


def test_a_drive_that_grew_is_announced_by_patching_its_own_path():
    with Monitor() as m:
        path = make_disk(m.dir / "disk.img", SIZE)
        m.configure(guest("blk"), "do=swap n=1", drives=[drive(path, "d1")])
        m.start()
        m.wait_for_console("drive 0: capacity 64 ")
        os.truncate(path, 2 * SIZE)
        m.api.must("PATCH", "/drives/d1", {"drive_id": "d1", "path_on_host": str(path)})
        m.wait_for_console("drive 1: capacity 128 ")


def test_a_swap_while_paused_is_seen_after_the_resume():
    with Monitor() as m:
        first = make_disk(m.dir / "first.img", SIZE, seed=1)
        second = make_disk(m.dir / "second.img", 2 * SIZE, seed=2)
        m.configure(guest("blk"), "do=swap n=1", drives=[drive(first, "d1")])
        m.start()
        m.wait_for_console("drive 0: ")
        m.pause()
        m.api.must("PATCH", "/drives/d1", {"drive_id": "d1", "path_on_host": str(second)})
        m.resume()
        m.wait_for_console("drive 1: capacity 128 seed 2\n")


def test_a_swap_under_load_loses_no_request():
    with Monitor() as m:
        paths = [make_disk(m.dir / f"{n}.img", SIZE, seed=n) for n in (1, 2)]
        m.configure(guest("blk"), "do=busy", drives=[drive(paths[0], "d1")])
        m.start()
        m.wait_for_console(r"rounds \d+\n", 60)
        m.pause()  # between a write and its read the file must stay the same: copy it over
        for n in range(6):
            paths[(n + 1) % 2].write_bytes(paths[n % 2].read_bytes())
            body = {"drive_id": "d1", "path_on_host": str(paths[(n + 1) % 2])}
            m.api.must("PATCH", "/drives/d1", body)
            m.resume()
            at = last_number(m, r"rounds (\d+)\n")
            m.wait_for_console(rf"rounds {at + 100}\n", 60)
            m.pause()
        assert "FAILED" not in m.output(), m.output()


def test_a_failed_swap_changes_nothing():
    with Monitor() as m:
        path = make_disk(m.dir / "disk.img", SIZE)
        os.mkfifo(m.dir / "fifo")
        m.configure(guest("blk"), "do=swap n=1", drives=[drive(path, "d1")])
        m.start()
        m.wait_for_console("drive 0: ")
        before = m.api.get("/vm/config").body
        fds = m.fds()
        for bad in ("missing", "fifo", "."):
            body = {"drive_id": "d1", "path_on_host": str(m.dir / bad)}
            answer = m.api.patch("/drives/d1", body)
            assert answer.status == 400, f"{bad}: {answer}"
            assert "Drive config error" in answer.fault and bad in answer.fault, answer
        body = {"drive_id": "d2", "path_on_host": str(path)}
        assert m.api.patch("/drives/d2", body).status == 400
        assert m.api.get("/vm/config").body == before
        assert m.fds() == fds, "a failed swap leaks a file descriptor"
        # And the drive still works.
        os.truncate(path, 2 * SIZE)
        m.api.must("PATCH", "/drives/d1", {"drive_id": "d1", "path_on_host": str(path)})
        m.wait_for_console("drive 1: capacity 128 ")


# ---- ends from outside -----------------------------------------------------------------------------


def test_kill_leaves_what_was_flushed():
    path = make_disk(tempdir() / "disk.img", SIZE)
    with start_guest(
        "blk", "do=write seed=5", drives=[drive(path, cache_type="Writeback")]
    ) as m:
        m.wait_for_console("features", 120)
        m.signal(signal.SIGKILL)
        m.wait_exit()
    assert digest(path) == digest(make_disk(tempdir() / "expected", SIZE, seed=5))
