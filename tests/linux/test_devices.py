"""Linux's own drivers on our devices: root file systems, hot swap, entropy, many drives, pause."""

from __future__ import annotations

import os
import re

from linuxguest import (
    ARGS, BOOT_TIMEOUT, BZIMAGE, DEBIAN, PVH, Flavour, facts, rootfs, run_linux, script_word,
    start_linux,
)
from mayfly import Monitor, digest, drive, make_disk, skip, tempdir

WRITE = """
set -e
dd if=/dev/urandom of=/root/data bs=64k count=40 conv=fsync 2>/dev/null
sha256sum /root/data >/root/sum
sync
mount -o remount,ro /
mount -o remount,rw /
echo 3 >/proc/sys/vm/drop_caches
sha256sum -c /root/sum
echo written=yes
"""

CHECK = """
set -e
sha256sum -c /root/sum
echo root=$(mount | awk '$3 == "/" { print $5 }')
echo verified=yes
dmesg | grep -E 'EXT4-fs error|I/O error|Buffer I/O' && exit 1
rm /root/data
"""


def root_survives_a_restart(flavour: Flavour, engine: str, cache: str, args: str = "") -> None:
    path = rootfs()
    root = drive(path, "root", is_root_device=True, io_engine=engine, cache_type=cache)
    initrd = flavour is DEBIAN  # its drivers are modules
    output = run_linux(flavour, WRITE, args, drives=[root], initrd=initrd)
    assert facts(output)["written"] == "yes", output
    output = run_linux(flavour, CHECK, args, drives=[root], initrd=initrd)
    assert facts(output)["verified"] == "yes", output
    checked = os.system(f"e2fsck -fn {path} >/dev/null 2>&1")
    assert checked == 0, "the file system is damaged"


def test_root_on_debian():
    root_survives_a_restart(DEBIAN, "Sync", "Unsafe")


def test_root_without_initrd():
    root_survives_a_restart(PVH, "Async", "Writeback")


def test_root_synchronous_and_unsafe():
    root_survives_a_restart(BZIMAGE, "Sync", "Unsafe")


def test_root_without_acpi():
    root_survives_a_restart(PVH, "Sync", "Writeback", "acpi=off")


def test_read_only_root_stays_as_it_is():
    path = rootfs()
    before = digest(path)
    script = "mount -o remount,rw / && exit 1; touch /root/x && exit 1; echo still=readonly"
    root = drive(path, "root", is_root_device=True, is_read_only=True)
    output = run_linux(PVH, script, drives=[root], initrd=False)
    assert facts(output)["still"] == "readonly", output
    assert digest(path) == before, "a read-only drive was written"


def test_killed_after_a_sync_nothing_is_lost():
    path = rootfs()
    script = "echo precious >/root/file; sync; echo synced=yes; sleep 1000"
    root = drive(path, "root", is_root_device=True, cache_type="Writeback")
    with start_linux(PVH, script_word(script), drives=[root], initrd=False) as m:
        m.wait_for_console("synced=yes", BOOT_TIMEOUT)
        m.signal(9)
        m.wait_exit()
    output = run_linux(PVH, "cat /root/file", drives=[root], initrd=False)
    assert "precious" in output


def test_order_of_drives_is_the_order_of_names():
    drives = []
    for n in range(8):
        path = tempdir() / f"{n}.img"
        path.touch()
        os.truncate(path, (n + 1) * 1 << 20)
        drives.append(drive(path, f"d{n}"))
    script = "for d in a b c d e f g h; do echo vd$d=$(cat /sys/block/vd$d/size); done"
    for flavour in (PVH, DEBIAN):
        seen = facts(run_linux(flavour, script, drives=drives))
        for n, letter in enumerate("abcdefgh"):
            assert seen[f"vd{letter}"] == str((n + 1) * 2048), seen


def test_raw_io_is_right_and_stays_within():
    path = make_disk(tempdir() / "disk.img", 8 << 20)
    expected = digest(path)
    script = """set -e
    echo first=$(sha256sum /dev/vda | cut -c1-64)
    dd if=/dev/zero of=/dev/vda bs=1M seek=2 count=1 oflag=direct 2>/dev/null
    dd if=/dev/zero of=/dev/vda bs=1M seek=8 count=1 2>/dev/null && exit 1
    echo second=$(sha256sum /dev/vda | cut -c1-64)"""
    seen = facts(run_linux(PVH, script, drives=[drive(path)]))
    assert seen["first"] == expected
    assert path.stat().st_size == 8 << 20, "the file grew"
    assert seen["second"] == digest(path)


def test_discard_frees_space_on_the_host():
    path = tempdir() / "disk.img"
    path.write_bytes(os.urandom(8 << 20))
    before = path.stat().st_blocks
    script = "blkdiscard /dev/vda 2>/dev/null || echo discard=no; sync"
    output = run_linux(PVH, script, drives=[drive(path, cache_type="Writeback")])
    if facts(output).get("discard") == "no":
        skip("the guest has no blkdiscard or the drive offers no discard")
    assert path.stat().st_blocks < before // 4, "nothing was given back"


# ---- hot swap ------------------------------------------------------------------------------------

SEE = """
old=$(cat /sys/block/vda/size)
echo size=$old
while [ "$(cat /sys/block/vda/size)" = $old ]; do sleep 0.1; done
echo now=$(cat /sys/block/vda/size)
echo 3 >/proc/sys/vm/drop_caches
echo word=$(dd if=/dev/vda bs=8 count=1 2>/dev/null | od -An -tu8 | tr -d ' ')
"""


def test_a_swapped_drive_is_seen():
    for flavour in (PVH, DEBIAN):
        kernel, ramdisk = flavour.files()
        with Monitor() as m:
            first = make_disk(m.dir / "first.img", 1 << 20, seed=1)
            second = make_disk(m.dir / "second.img", 3 << 20, seed=2)
            m.configure(
                kernel, f"{ARGS} mayfly.do={script_word(SEE)}", initrd=ramdisk, mem_mib=256,
                drives=[drive(first, "d1")],
            )
            m.start()
            m.wait_for_console("size=2048", BOOT_TIMEOUT)
            m.api.must("PATCH", "/drives/d1", {"drive_id": "d1", "path_on_host": str(second)})
            m.wait_for_console("now=6144", BOOT_TIMEOUT)
            m.wait_for_console(f"word={2 << 40}", BOOT_TIMEOUT)
            assert m.wait_exit(60) == 0


# ---- entropy, interrupts, pause -----------------------------------------------------------------


def test_entropy_device():
    script = """set -e
    echo rng=$(cat /sys/class/misc/hw_random/rng_current)
    echo bytes=$(dd if=/dev/hwrng bs=64 count=16 2>/dev/null | wc -c)
    echo sum=$(dd if=/dev/hwrng bs=64 count=1 2>/dev/null | sha256sum | cut -c1-16)"""
    sums = set()
    for flavour in (PVH, DEBIAN):
        seen = facts(run_linux(flavour, script, rng=True))
        assert seen["rng"].startswith("virtio_rng"), seen
        assert seen["bytes"] == "1024", seen
        sums.add(seen["sum"])
    assert len(sums) == 2, "two machines got the same entropy"


def test_interrupts_arrive_on_lines_of_their_own():
    path = make_disk(tempdir() / "disk.img", 4 << 20)
    script = """cat /dev/vda /dev/vdb >/dev/null
    grep virtio /proc/interrupts | sed 's/^ */line /'"""
    drives = [drive(path, "d1"), drive(path, "d2", is_read_only=True)]
    for args in ("", "acpi=off"):
        output = run_linux(PVH, script, args, drives=drives, rng=True)
        lines = re.findall(r"^line (\d+): +(\d+)", output, re.M)
        assert len({number for number, _ in lines}) == len(lines) >= 3, output
        assert all(int(count) > 0 for _, count in lines[:2]), output


def test_pause_and_resume_under_load():
    path = rootfs()
    script = """n=0
    while :; do
        dd if=/dev/urandom of=/root/f bs=16k count=8 conv=fsync 2>/dev/null
        n=$((n + 1)); echo round=$n
    done"""
    root = drive(path, "root", is_root_device=True, cache_type="Writeback")
    kernel, _ = PVH.files()
    with Monitor() as m:
        args = f"{ARGS} mayfly.do={script_word(script)}"
        m.configure(kernel, args, mem_mib=256, vcpus=2, drives=[root], rng=True)
        m.start()
        m.wait_for_console("round=3", BOOT_TIMEOUT)
        for _ in range(5):
            m.pause()
            before = digest(path)
            m.api.must("GET", "/", status=200)
            assert digest(path) == before, "the drive is written while the machine is paused"
            m.resume()
            at = int(re.findall(r"round=(\d+)", m.output())[-1])
            m.wait_for_console(rf"round={at + 2}\D", BOOT_TIMEOUT)
        for word in ("lockup", "I/O error", "hung", "BUG"):
            assert word not in m.output(), m.output()
