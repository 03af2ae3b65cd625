"""Snapshots onto disks that are too small, or broken: the one that was there stays."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import struct
import subprocess
from pathlib import Path

from counting import counted, create, goes_on, load, ok, saved, start
from inside import outside, private_mounts
from mayfly import Monitor, digest, needs, skip, tempdir

LOOP_CONFIGURE, LOOP_CTL_GET_FREE, LO_FLAGS_AUTOCLEAR = 0x4C0A, 0x4C82, 4  # <linux/loop.h>
F_SEAL_WRITE, MFD_ALLOW_SEALING = 8, 2
NOT_SEEN = "what is mounted below a directory is not seen in the jail"


@outside("the limits of a process in a jail are not ours to change")
def test_an_error_in_the_middle_of_writing_leaves_the_previous_snapshot():
    """The host gives an error for every byte of a file beyond its first mebibyte."""
    directory, n = saved("pages=1024")
    before = digest(directory / "mem"), digest(directory / "state")
    with Monitor() as m:
        ok(load(m, directory))
        goes_on(m, n)
        m.pause()
        hard = resource.prlimit(m.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(m.process.pid, resource.RLIMIT_FSIZE, (1 << 20, hard))
        for kind in ("Full", "Diff"):
            answer = create(m, directory, kind)
            assert answer.status == 400 and "File too large" in answer.fault, answer
            assert (digest(directory / "mem"), digest(directory / "state")) == before
            assert sorted(p.name for p in directory.iterdir()) == ["mem", "state"]
        resource.prlimit(m.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        ok(create(m, directory))
        m.resume()
        goes_on(m, n)

@needs("root")
@outside(NOT_SEEN)
def test_a_full_disk_leaves_the_previous_snapshot():
    directory = tempdir()
    small = directory / "small"
    small.mkdir()
    private_mounts()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(small)], check=True)
    try:
        with start("pages=64") as m:
            m.wait_for_console(r"count 500\n", 60)
            m.pause()
            ok(create(m, small))
            n = counted(m)
            before = digest(small / "mem"), digest(small / "state")
            with open(small / "filler", "wb", buffering=0) as f:
                try:
                    while f.write(bytes(4096)) == 4096:
                        pass
                except OSError:
                    pass
            answer = create(m, small)
            assert answer.status == 400 and "No space left on device" in answer.fault, answer
            assert (digest(small / "mem"), digest(small / "state")) == before
            assert sorted(p.name for p in small.iterdir()) == ["filler", "mem", "state"]
            m.resume()
            assert create(m, small, live=True).status in (200, 400)
            while (status := m.api.get("/snapshot/status").json)["state"] == "Writing":
                pass
            assert status["state"] != "Done", status
            assert (digest(small / "mem"), digest(small / "state")) == before
            assert sorted(p.name for p in small.iterdir()) == ["filler", "mem", "state"]
            goes_on(m, n)
        (small / "filler").unlink()
        with Monitor() as m:
            ok(load(m, small))
            goes_on(m, n)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)

class Disk:
    """A file system on a block device of ours, which after `breaks` has an error for every write.

    Behind the loop device is a file in memory; sealed, it takes no more writes, and the device has
    no other word for that than EIO. Without a journal what was not synced can still be given up.
    Mounted where only this process and the monitors it starts see it, so that it ends with them.
    """

    def __init__(self, size: int):
        self.memory = os.memfd_create("disk", MFD_ALLOW_SEALING)
        os.ftruncate(self.memory, size)
        image = f"/proc/{os.getpid()}/fd/{self.memory}"
        subprocess.run(["mkfs.ext4", "-qF", "-O", "^has_journal", image], check=True)
        self.mounted = tempdir()
        private_mounts()
        device = self._attach()
        try:
            name = os.readlink(f"/proc/self/fd/{device}")
            done = subprocess.run(["mount", "-t", "ext4", name, str(self.mounted)],
                                  capture_output=True)
        finally:
            os.close(device)  # from here on it ends with its last user
        if done.returncode != 0:
            skip(f"no ext4 here: {done.stderr.decode().strip()}")

    def _attach(self) -> int:
        """The block device, which belongs to nobody else."""
        info = struct.pack("<52xI176x", LO_FLAGS_AUTOCLEAR)
        request = struct.pack("<II", self.memory, 0) + info + bytes(64)
        with open("/dev/loop-control", "rb", buffering=0) as control:
            while True:
                number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
                device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.ioctl(device, LOOP_CONFIGURE, request)
                    return device
                except OSError as error:
                    os.close(device)
                    if error.errno != errno.EBUSY:  # somebody was quicker
                        raise

    def breaks(self) -> None:
        os.sync()
        fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, F_SEAL_WRITE)

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_) -> None:
        subprocess.run(["umount", "-l", str(self.mounted)], check=True)
        os.close(self.memory)


def content(directory: Path) -> dict[str, str]:
    return {p.name: digest(p) for p in directory.iterdir() if p.is_file()}


@needs("root")
@outside(NOT_SEEN)
def test_a_broken_disk_leaves_the_previous_snapshot():
    """It is found out when the files are synced, before either has its name."""
    if not Path("/dev/loop-control").exists():
        skip("the host has no loop devices")
    with Disk(64 << 20) as disk:
        with start("pages=64") as m:
            m.wait_for_console(r"count 500\n", 60)
            m.pause()
            ok(create(m, disk.mounted))
            n = counted(m)
            before = content(disk.mounted)
            disk.breaks()
            for kind in ("Full", "Diff"):
                answer = create(m, disk.mounted, kind)
                assert answer.status == 400, answer
                assert "cannot be synced: Input/output error" in answer.fault, answer
                assert content(disk.mounted) == before
            m.resume()
            answer = create(m, disk.mounted, live=True)
            assert answer.status == 200, answer
            m.wait_for_log("The live snapshot failed", 60)
            status = m.api.get("/snapshot/status").json
            assert status["state"] == "Failed", status
            assert "cannot be synced: Input/output error" in status["fault_message"], status
            assert content(disk.mounted) == before
            goes_on(m, n)
            m.pause()
            other = tempdir()
            ok(create(m, other))
            later = counted(m)
        for directory, count in ((disk.mounted, n), (other, later)):
            with Monitor() as m:
                ok(load(m, directory))
                goes_on(m, count)
