"""Rings that lie: the device answers or breaks, the monitor lives, nothing else changes."""

from __future__ import annotations

import resource
from typing import Callable

from mayfly import digest, drive, make_disk, needs, start_guest, tempdir, guest_verdict

WORDS = (
    "index cycle jump address direction header indirect twice inside scribble rewrite sum early"
).split()
RNG, BLOCK = 4, 2
SIZE = 64 * 512
# 10^5 kicks: a million would be an hour where the guest is interpreted.
KICKS = 100_000


def attack(word: str, kind: int, *extra: str, vcpus: int = 1) -> None:
    args = f"do={word} id={kind} mem_mib=128 {' '.join(extra)}"
    path = make_disk(tempdir() / "disk.img", SIZE)
    base = make_disk(tempdir() / "other.img", SIZE, seed=9)
    before = digest(base), path.stat().st_size
    # A second drive that nobody talks to: what happens to the first must not touch it.
    drives = [drive(path, "victim"), drive(base, "other")]
    with start_guest(
        "hostile", args, drives=drives, rng=True, vcpus=vcpus, level="Debug"
    ) as m:
        guest_verdict(m, 240)
        assert m.wait_exit() == 0
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        assert peak < 200 << 10, f"the monitor grew to {peak} KiB"
        assert (digest(base), path.stat().st_size) == before, "files changed that must not"
        # At most 10 lines in 5 seconds from one place, whatever the guest does.
        assert len(m.log().splitlines()) < 300, "the guest can flood the log"


def attack_test(word: str, kind: int) -> Callable[[], None]:
    return lambda: attack(word, kind)


for _word in WORDS:
    globals()[f"test_rng_{_word}"] = attack_test(_word, RNG)
    globals()[f"test_blk_{_word}"] = attack_test(_word, BLOCK)


@needs("alone")
def test_rng_kicks():
    attack("kicks", RNG, f"n={KICKS}")


@needs("alone")
def test_blk_kicks():
    attack("kicks", BLOCK, f"n={KICKS}")


def test_rng_race():
    attack("race", RNG, "n=400", vcpus=2)


def test_blk_race():
    attack("race", BLOCK, "n=400", vcpus=2)
