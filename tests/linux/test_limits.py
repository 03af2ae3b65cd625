"""A drive's rate limits, as Linux sees them: kept within 5 %, changed and lifted while it reads."""

from __future__ import annotations

from linuxguest import ARGS, BOOT_TIMEOUT, DEBIAN, PVH, Flavour, facts, script_word
from mayfly import Monitor, drive, make_disk
from teleport import moves_before_it_is_up

RATE = 2 << 20  # bytes a second, far below what even an emulated host can do
OPS = 48  # a second
SECONDS = 6
REFILL_MS = 250

# Every measurement begins with a full bucket: nobody has read the drive for longer than a refill.
SCRIPT = f"""
load disk /dev/vda randread 16384 4 {SECONDS} | sed 's/^/bytes_/'
load disk /dev/vdb randread 4096 4 {SECONDS} | sed 's/^/ops_/'
echo first=measured
read -t 60 line
load disk /dev/vda randread 16384 4 {SECONDS} | sed 's/^/doubled_/'
dd if=/dev/vdc of=/dev/null bs=64k count=1 iflag=direct 2>/dev/null
dd if=/dev/vdc of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null &
sleep 2
kill -0 $! && echo closed=yes
wait
echo opened=yes
"""


def bucket(per_second: int) -> dict[str, int]:
    return {"size": per_second * REFILL_MS // 1000, "refill_time": REFILL_MS}


def close_to(seen: dict[str, str], name: str, count: str, per_second: int) -> None:
    """Of what was counted, the bucket that was full at first is a gift and no rate."""
    amount = int(seen[f"{name}_{count}"]) - bucket(per_second)["size"]
    rate = amount / (int(seen[f"{name}_us"]) / 1e6)
    assert abs(rate / per_second - 1) <= 0.05, f"{name}: {rate:.0f} a second, not {per_second}"


def limits_are_kept(flavour: Flavour) -> None:
    kernel, ramdisk = flavour.files()
    never = {"size": 65536, "refill_time": 1 << 40}
    off = {"size": 0, "refill_time": 0}
    with Monitor(stdin="pipe") as m:
        path = make_disk(m.dir / "disk.img", 8 << 20)
        limits = {"d1": {"bandwidth": bucket(RATE)}, "d2": {"ops": bucket(OPS)}, "d3": None}
        drives = [
            drive(path, name, is_read_only=True, rate_limiter=limit)
            for name, limit in limits.items()
        ]
        args = f"{ARGS} mayfly.do={script_word(SCRIPT)}"
        m.configure(kernel, args, initrd=ramdisk, mem_mib=256, drives=drives)
        m.start()

        def patch(name: str, **limit: dict[str, int]) -> None:
            m.api.must("PATCH", f"/drives/{name}", {"drive_id": name, "rate_limiter": limit})

        m.wait_for_console("first=measured", BOOT_TIMEOUT * 2)
        patch("d1", bandwidth=bucket(2 * RATE))
        patch("d3", bandwidth=never)  # which is full: it lets pass as much as one bucket
        m.type(b"go on\n")
        m.wait_for_console("closed=yes", BOOT_TIMEOUT)
        assert "opened=yes" not in m.output(), "an empty bucket that is never refilled let it pass"
        patch("d3", bandwidth=off)
        m.wait_for_console("opened=yes", BOOT_TIMEOUT)
        assert m.wait_exit(60) == 0
        seen = facts(m.output().replace("\r", ""))
    close_to(seen, "bytes", "bytes", RATE)
    close_to(seen, "ops", "ops", OPS)
    close_to(seen, "doubled", "bytes", 2 * RATE)


# Rates: a machine that was just moved is slow, for it touches its memory anew.
@moves_before_it_is_up
def test_drive_limits_tuned():
    limits_are_kept(PVH)


@moves_before_it_is_up
def test_drive_limits_debian():
    limits_are_kept(DEBIAN)
