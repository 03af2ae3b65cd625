"""The virtio-mmio transport and the two devices, by drivers of good faith and by curious ones."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path
from typing import Callable

from mayfly import digest, drive, make_disk, run_guest, start_guest, tempdir

RNG, BLOCK = 4, 2
SIZE = 64 * 512


def disk(size: int = SIZE, seed: int = 1) -> Path:
    return make_disk(tempdir() / "disk.img", size, seed)


# ---- registers, of either device -----------------------------------------------------------------


def poke(word: str, kind: int) -> None:
    args = f"do={word} id={kind}"
    if kind == RNG:
        run_guest("regs", args, rng=True, timeout=120)
        return
    path = disk()
    before = digest(path)
    run_guest("regs", args, drives=[drive(path)], timeout=120)
    assert digest(path) == before, "the drive's contents changed"


def register_test(word: str, kind: int) -> Callable[[], None]:
    return lambda: poke(word, kind)


for _word in (
    "identify widths selectors features status queue frozen config resets random".split()
):
    globals()[f"test_registers_rng_{_word}"] = register_test(_word, RNG)
    globals()[f"test_registers_blk_{_word}"] = register_test(_word, BLOCK)


def test_registers_of_many_devices():
    drives = [drive(disk(), f"d{n}") for n in range(5)]
    run_guest("regs", "do=identify n=6", drives=drives, rng=True)


def test_registers_random_with_other_seeds():
    for seed in (2, 3, 4):
        run_guest("regs", f"do=random id=4 n=1500 seed={seed}", rng=True, timeout=120)


# ---- entropy -------------------------------------------------------------------------------------


def test_rng_reads_of_many_sizes():
    run_guest("rng", "do=read", rng=True)


def test_rng_split_request():
    run_guest("rng", "do=split", rng=True)


def test_rng_many_in_flight():
    run_guest("rng", "do=many n=500", rng=True)


def test_rng_event_index():
    run_guest("rng", "do=events n=500", rng=True)


# ---- drives --------------------------------------------------------------------------------------

ENGINES = ("Sync", "Async")
CACHES = ("Unsafe", "Writeback")


def on_disk(args: str, path: Path, **more) -> str:
    return run_guest("blk", args, drives=[drive(path, **more)], timeout=120)


def test_blk_reads_are_right():
    for engine in ENGINES:
        path = disk()
        before = digest(path)
        on_disk("do=read seed=1", path, io_engine=engine)
        assert digest(path) == before


def test_blk_writes_land():
    expected = digest(disk(seed=7))
    for engine in ENGINES:
        for cache in CACHES:
            path = disk()
            on_disk("do=write seed=7", path, io_engine=engine, cache_type=cache)
            assert digest(path) == expected, f"{engine} {cache}"


def test_blk_split_request():
    for engine in ENGINES:
        on_disk("do=split", disk(), io_engine=engine)


def test_blk_sectors_that_do_not_exist():
    path = disk()
    on_disk("do=limits", path)
    assert path.stat().st_size == SIZE, "a write beyond the end made the file grow"


def test_blk_unknown_requests():
    on_disk("do=types", disk())


def test_blk_id():
    # The contract: st_dev, st_rdev and st_ino in decimal, cut to 20 bytes.
    path = disk()
    output = on_disk("do=id", path)
    st = path.stat()
    found = re.search(r"id \[(.*)\]", output)[1]
    assert found == f"{st.st_dev}{st.st_rdev}{st.st_ino}"[:20], found


def test_blk_read_only():
    for mode in (0o644, 0o444):
        path = disk()
        path.chmod(mode)
        before = digest(path)
        on_disk("do=readonly", path, is_read_only=True)
        assert digest(path) == before, "a read-only drive was written"


def test_blk_discard_and_write_zeroes():
    for cache in CACHES:
        path = disk()
        on_disk("do=discard", path, cache_type=cache)
        assert path.stat().st_size == SIZE


def test_blk_flush():
    for engine in ENGINES:
        on_disk("do=flush n=20", disk(), io_engine=engine, cache_type="Writeback")


def test_blk_flush_is_offered_only_with_writeback():
    for cache in CACHES:
        output = on_disk("do=id", disk(), cache_type=cache)
        features = int(re.search(r"features ([0-9a-f]+)", output)[1], 16)
        assert bool(features >> 9 & 1) == (cache == "Writeback"), f"{cache}: {features:x}"


def test_blk_many_in_flight():
    for engine in ENGINES:
        on_disk("do=depth n=200", disk(), io_engine=engine)


def test_blk_size_is_rounded_down():
    path = disk(SIZE + 511)
    before = digest(path)
    output = run_guest("blk", "do=order n=1", drives=[drive(path)])
    assert f"capacity {SIZE // 512} " in output, output
    assert digest(path) == before


def test_blk_empty_file_is_a_drive():
    path = tempdir() / "empty"
    path.touch()
    output = run_guest("blk", "do=order n=1", drives=[drive(path)])
    assert "drive 0: capacity 0 " in output


def test_blk_huge_sparse_file():
    path = tempdir() / "sparse"
    path.touch()
    os.truncate(path, 1 << 40)
    output = run_guest("blk", "do=order n=1", drives=[drive(path)])
    assert f"capacity {(1 << 40) // 512} " in output


def test_blk_order_is_the_order_of_configuration():
    drives = [drive(disk(seed=n + 1), f"d{n}") for n in range(4)]
    output = run_guest("blk", "do=order n=4", drives=drives)
    for n in range(4):
        assert f"drive {n}: capacity 64 seed {n + 1}" in output, output


def test_blk_root_drive_is_first():
    drives = [drive(disk(seed=n + 1), f"d{n}") for n in range(3)]
    drives[2]["is_root_device"] = True
    output = run_guest("blk", "do=order n=3", drives=drives)
    for n, seed in enumerate((3, 1, 2)):
        assert f"drive {n}: capacity 64 seed {seed}" in output, output


def test_blk_error_on_the_host_is_an_error_in_the_guest():
    # A file that loses its end under us: reads beyond it must fail, not invent data.
    path = disk()
    with start_guest("blk", "do=again seed=1", drives=[drive(path)]) as m:
        m.wait_for_console("pass 1\n", 60)
        assert "FAILED" not in m.output()
        os.truncate(path, SIZE // 2)
        m.wait_for_console("FAILED read at", 60)
        assert m.alive()
        make_disk(path, SIZE)  # and once it is whole again, so is the drive
        m.console.data = b""
        m.wait_for_console(r"(?s)pass \d+\n[^F]*pass \d+\n", 60)


def test_blk_full_host_disk_is_an_error_in_the_guest():
    # RLIMIT_FSIZE stands in for a full disk: writes come up short, then fail; SIGXFSZ must not kill.
    path = disk()
    os.truncate(path, 0)
    os.truncate(path, SIZE)  # nothing allocated: writing has to grow it

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, SIZE // 2))

    with start_guest(
        "blk", "do=write seed=2", drives=[drive(path)], log=False, preexec_fn=limit
    ) as m:
        m.wait_for_console("FAILED write at 32", 60)
        m.wait_for_console("checks", 120)
        assert m.wait_exit() == 0
