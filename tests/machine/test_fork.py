"""Live snapshots, and machines that others are made from: a counting guest goes on through both."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from pathlib import Path
from typing import Callable, Iterator

from counting import counted, create, goes_on, load, ok, saved, start
from mayfly import Deadline, Monitor, drive, guest, make_disk, tempdir


def live(m: Monitor, directory: Path):
    return create(m, directory, live=True)


def finished(m: Monitor) -> dict:
    """Asks until the files are written; every answer is a round trip, so nothing spins."""
    deadline = Deadline(60, "the live snapshot")
    while (status := m.api.get("/snapshot/status").json)["state"] == "Writing":
        deadline.left()
    return status


def share(m: Monitor, path: Path):
    return m.api.put("/snapshot/share", {"socket_path": str(path)})


def from_template(m: Monitor, path: Path, resume: bool = True, **more):
    memory = {"backend_type": "Template", "backend_path": str(path)}
    return m.api.put("/snapshot/load", {"mem_backend": memory, "resume_vm": resume, **more})


def paused_for(answer) -> int:
    assert answer.status == 200 and set(answer.json) == {"pause_us"}, answer
    return answer.json["pause_us"]


def shared(**more) -> tuple[Monitor, Path, int]:
    """A running machine that others can be made from, and how far it had counted before."""
    m = start(shareable=True, **more)
    m.wait_for_console(r"count 500\n", 60)
    n = counted(m)
    path = tempdir() / "source"
    paused_for(share(m, path))
    return m, path, n


def random_bytes(m: Monitor) -> list[str]:
    return re.findall(r"random.*", m.output())


# ---- live ---------------------------------------------------------------------------------------------


def test_a_running_machine_is_saved_and_goes_on():
    for shareable in (True, False):
        directory = tempdir()
        with start("pages=512", shareable=shareable) as m:
            m.wait_for_console(r"count 500\n", 60)
            n = counted(m)
            assert paused_for(live(m, directory)) > 0
            assert m.api.get("/").json["state"] == "Running"
            assert finished(m)["state"] == "Done"
            goes_on(m, n, 800)
        assert sorted(p.name for p in directory.iterdir()) == ["mem", "state"]
        with Monitor() as m:
            ok(load(m, directory))
            goes_on(m, n)


def test_status_before_and_after():
    directory = tempdir()
    with start() as m:
        none = {"pause_us": 0, "bytes": 0, "state": "None"}
        assert m.api.get("/snapshot/status").json == none
        m.wait_for_console(r"count 100\n", 60)
        pause = paused_for(live(m, directory))
        assert finished(m) == {"pause_us": pause, "bytes": 128 << 20, "state": "Done"}


def test_a_paused_machine_stays_paused():
    directory = tempdir()
    with start() as m:
        m.wait_for_console(r"count 100\n", 60)
        m.pause()
        n = counted(m)
        assert paused_for(live(m, directory)) == 0
        assert finished(m)["state"] == "Done"
        assert m.api.get("/").json["state"] == "Paused"
        m.resume()
        goes_on(m, n)


def test_again_and_again_and_diffs_in_between():
    """Each is whole; a diff after one goes on top of that one."""
    with start("pages=1024", shareable=True) as m:
        m.wait_for_console(r"count 300\n", 60)
        for _ in range(3):
            directory = tempdir()
            n = counted(m)
            paused_for(live(m, directory))
            assert finished(m)["state"] == "Done"
            goes_on(m, n, 300)
        m.pause()
        ok(create(m, directory, "Diff"))
        n = counted(m)
        m.resume()
        goes_on(m, n)
    with Monitor() as m:
        ok(load(m, directory))
        goes_on(m, n)


def test_only_whole_and_one_at_a_time():
    directory = tempdir()
    with start() as m:
        m.wait_for_console(r"count 100\n", 60)
        answer = create(m, directory, "Diff", live=True)
        assert answer.status == 400 and "a live snapshot is always a full one" in answer.fault
        fifo = directory / "mem"
        os.mkfifo(fifo)
        answer = live(m, directory)
        assert answer.status == 400 and "mem: not a regular file" in answer.fault
        fifo.unlink()
        n = counted(m)
        assert live(m, directory / "nowhere").status == 400
        assert m.api.get("/snapshot/status").json["state"] == "None"
        goes_on(m, n)
        assert list(directory.iterdir()) == []


def test_a_device_works_across_the_freeze():
    disk = make_disk(tempdir() / "disk", 1 << 20)
    with start(drives=[drive(disk)], vcpus=2, mem_mib=3200, shareable=True) as m:
        m.wait_for_console(r"count 300\n", 60)
        for _ in range(3):
            n, before = counted(m), len(random_bytes(m))
            paused_for(live(m, tempdir()))
            assert finished(m)["state"] == "Done"
            goes_on(m, n, 600)
            assert len(random_bytes(m)) > before


def test_ended_while_it_is_being_written():
    directory = tempdir()
    with start("pages=2048") as m:
        m.wait_for_console(r"count 100\n", 60)
        paused_for(live(m, directory))
        m.process.terminate()
        m.wait_exit()
    assert all(p.name in ("mem", "state") for p in directory.iterdir())


# ---- shared ---------------------------------------------------------------------------------------------


def test_clones_of_a_running_machine():
    source, path, n = shared()
    said = set()
    with source:
        clones = [Monitor() for _ in range(20)]
        answers: list = []
        threads = [threading.Thread(target=lambda m=m: answers.append(from_template(m, path)))
                   for m in clones]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert [a.status for a in answers] == [204] * 20, answers
        for m in clones:
            goes_on(m, n)
            assert "generation changed" in m.output()
            said.add(random_bytes(m)[1])
        goes_on(source, n, 2000)
        assert "generation changed" not in source.output()
        for m in clones:
            m.kill()
        source.process.terminate()
        source.wait_exit()
    assert len(said) == 20
    assert not path.exists()


def test_a_source_that_stays_a_template():
    with start("pages=256") as source:
        source.wait_for_console(r"count 500\n", 60)
        source.pause()
        n = counted(source)
        path = tempdir() / "source"
        assert paused_for(share(source, path)) == 0
        for _ in range(3):
            with Monitor() as m:
                ok(from_template(m, path))
                goes_on(m, n)
        assert counted(source) == n
        source.resume()
        goes_on(source, n)


def test_clones_outlive_their_source():
    source, path, n = shared()
    with Monitor() as m:
        with source:
            ok(from_template(m, path, resume=False))
            source.process.terminate()
            source.wait_exit()
        assert not path.exists()
        m.resume()
        goes_on(m, n)


def test_a_fork_of_a_fork():
    source, path, n = shared()
    with source, Monitor() as child, Monitor() as grandchild:
        ok(from_template(child, path))
        goes_on(child, n)
        n = counted(child)
        second = tempdir() / "source"
        paused_for(share(child, second))
        goes_on(child, n)
        ok(from_template(grandchild, second))
        goes_on(grandchild, n)


def test_a_clone_is_saved_whole_even_as_a_diff():
    """No file holds what it was made from, so everything is in its diff."""
    source, path, n = shared()
    directory = tempdir()
    with source, Monitor() as m:
        ok(from_template(m, path))
        goes_on(m, n)
        m.pause()
        ok(create(m, directory, "Diff"))
        n = counted(m)
    with Monitor() as m:
        ok(load(m, directory))
        goes_on(m, n)


def test_a_machine_from_a_file_is_shared_and_saved_as_a_diff():
    directory, n = saved("pages=256")
    with Monitor() as m:
        ok(load(m, directory))
        goes_on(m, n, 300)
        paused_for(share(m, tempdir() / "source"))
        goes_on(m, n, 300)
        m.pause()
        ok(create(m, directory, "Diff"))
        n = counted(m)
    with Monitor() as m:
        ok(load(m, directory))
        goes_on(m, n)


def test_sharing_again_replaces_what_was_shared():
    source, path, n = shared()
    with source:
        answer = share(source, path)
        assert answer.status == 400 and str(path) in answer.fault, answer
        goes_on(source, n, 1000)
        n = counted(source)
        later = tempdir() / "source"
        paused_for(share(source, later))
        assert not path.exists()
        with Monitor() as m:
            ok(from_template(m, later))
            goes_on(m, n)


# ---- bad input ----------------------------------------------------------------------------------------------


def test_only_after_the_start():
    with Monitor() as m:
        path = tempdir() / "source"
        assert share(m, path).status == 400
        assert m.api.get("/snapshot/status").status == 400
        assert not path.exists()


def test_shareable_memory_is_of_ordinary_pages():
    with Monitor() as m:
        body = {"vcpu_count": 1, "mem_size_mib": 128, "huge_pages": "2M", "shareable": True}
        answer = m.api.put("/machine-config", body)
        assert answer.status == 400 and "shareable" in answer.fault


def memfd(data: bytes, seal: bool) -> int:
    import fcntl

    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    if seal:
        fcntl.fcntl(fd, 1033, 2 | 4 | 8)
    return fd


HEAD = (0x4552414853594D00).to_bytes(8, "little") + b"\1\0\0\0\2\0\0\0"


def sources() -> Iterator[tuple[str, Callable[[socket.socket], None], str]]:
    """What a socket may answer instead of a machine, and a part of what is said of it."""
    page = bytes(4096)

    def send(data: bytes, *fds: int) -> Callable[[socket.socket], None]:
        return lambda peer: socket.send_fds(peer, [data], list(fds))

    yield "closes", lambda peer: None, "an answer of 0 bytes and 0 descriptors"
    yield "nothing but noise", send(b"HTTP/1.1 200 OK\r\n\r\n"), ""
    yield "no descriptors", send(HEAD), ""
    yield "one descriptor", send(HEAD, memfd(page, True)), ""
    yield "three", send(HEAD, *(memfd(page, True) for _ in range(3))), ""
    yield "not sealed", send(HEAD, memfd(page, False), memfd(page, False)), "does not share"
    yield "no memfds", send(HEAD, *(os.open("/dev/null", os.O_RDWR) for _ in range(2))), "does not"
    yield "no state", send(HEAD, memfd(page, True), memfd(page, True)), ""
    yield "foreign", send(bytes(16), memfd(page, True), memfd(page, True)), "does not share"
    yield "silence", lambda peer: peer.recv(1), ""
    yield "a stream", lambda peer: None, "Protocol wrong type for socket"


def test_whatever_answers_the_process_stays_usable():
    path = tempdir() / "bad"
    directory, n = saved()
    with Monitor() as m:
        for what, answer_with, text in sources():
            stream = what == "a stream"
            kind = socket.SOCK_STREAM if stream else socket.SOCK_SEQPACKET
            listener = socket.socket(socket.AF_UNIX, kind)
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(0.2 if stream else 60)

            def serve() -> None:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return  # nobody came: the test finds out
                with peer:
                    answer_with(peer)

            thread = threading.Thread(target=serve)
            thread.start()
            answer = from_template(m, path)
            thread.join()
            listener.close()
            path.unlink()
            assert answer.status == 400 and text in answer.fault, (what, answer)
            m.assert_alive()
        answer = from_template(m, path)
        assert answer.status == 400 and str(path) in answer.fault, answer
        answer = m.api.put("/snapshot/load", {"mem_backend": {"backend_type": "File",
                                                             "backend_path": "/x"}})
        assert answer.status == 400 and "missing field `snapshot_path`" in answer.fault
        ok(load(m, directory))
        goes_on(m, n)


def test_a_monitor_in_standby_is_a_clone_or_anything_else():
    source, path, n = shared()
    with source, Monitor("--standby") as m:
        ok(from_template(m, path))
        goes_on(m, n)
    with Monitor("--standby") as m:
        m.configure(guest("count"), vcpus=4)
        m.start()
        m.wait_for_console(r"count 100\n", 60)


def test_a_load_that_is_refused_leaves_standby_usable():
    directory, n = saved()
    bad = tempdir()
    shutil.copyfile(directory / "state", bad / "state")
    (bad / "mem").write_bytes(bytes(4096))
    with Monitor("--standby") as m:
        for _ in range(2):
            answer = load(m, bad)
            assert answer.status == 400 and "the memory file has 4096 bytes" in answer.fault, answer
        ok(load(m, directory))
        goes_on(m, n)
