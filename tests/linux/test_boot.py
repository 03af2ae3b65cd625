"""Linux to user space: every way to start it, processors, memory, and no complaint on the way."""

from __future__ import annotations

import os
import re
from typing import Callable

from linuxguest import (
    ARGS, BOOT_TIMEOUT, BZIMAGE, DEBIAN, ENTRY_64, IMAGES, PVH, UP, UP_BZIMAGE, Flavour, facts, run_linux,
    script_word, start_linux,
)
from mayfly import Monitor, skip

FLAVOURS = {
    "debian": DEBIAN, "pvh": PVH, "entry_64": ENTRY_64, "bzimage": BZIMAGE, "up": UP,
    "up_bzimage": UP_BZIMAGE,
}

# What a kernel says when something is wrong with the machine it was given.
COMPLAINTS = "BUG|WARNING|Oops|Call Trace|unchecked MSR|nobody cared|Firmware Bug|soft lockup"

# What it says of the processor itself is not ours: what it is not safe from, and, where QEMU emulates
# the host, a size of its register file that does not fit (QEMU's own guests are told the same).
OF_THE_CPU = "-e '/mitigation options/d'"
if os.environ.get("MAYFLY_TESTBED"):
    OF_THE_CPU += " -e '/XSAVE consistency/,/end trace/d'"

LOOK = f"""
echo cpus=$(cat /sys/devices/system/cpu/online)
echo mem=$(awk '/MemTotal/ {{ print $2 }}' /proc/meminfo)
echo clock=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)
dmesg | sed {OF_THE_CPU} | grep -E '{COMPLAINTS}' >/tmp/complaints
echo complaints=$(wc -l </tmp/complaints)
cat /tmp/complaints
"""


def look(flavour: Flavour, vcpus: int = 1, mem_mib: int = 256, args: str = "") -> dict[str, str]:
    output = run_linux(flavour, LOOK, args, vcpus=vcpus, mem_mib=mem_mib)
    seen = facts(output)
    assert seen["complaints"] == "0", output
    expected = "0" if vcpus == 1 else f"0-{vcpus - 1}"
    assert seen["cpus"] == expected, f"{vcpus} processors, online: {seen['cpus']}"
    return seen


def boots(flavour: Flavour, vcpus: int) -> Callable[[], None]:
    def test() -> None:
        seen = look(flavour, vcpus)
        assert seen["clock"] == "kvm-clock", seen

    test.__module__ = __name__
    return test


for _name, _flavour in FLAVOURS.items():
    for _vcpus in (1, 2, 4) if _flavour.smp else (1,):
        globals()[f"test_{_name}_with_{_vcpus}_cpus"] = boots(_flavour, _vcpus)


def test_entries_are_what_they_are_called():
    for flavour in (DEBIAN, PVH, ENTRY_64, BZIMAGE):
        with start_linux(flavour, "poweroff") as m:
            assert m.wait_exit(BOOT_TIMEOUT) == 0
            assert flavour.entry in m.log(), f"{flavour.name}: {m.log()}"


def memory(flavour: Flavour, mib: int) -> None:
    kib = int(look(flavour, mem_mib=mib)["mem"])
    # What the kernel takes for itself is not in MemTotal.
    assert mib * 1024 * 0.65 < kib < mib * 1024, f"{kib} KiB of {mib} MiB"


def test_128_mib():
    for flavour in (DEBIAN, PVH, BZIMAGE):
        memory(flavour, 128)


def test_3_gib_up_to_the_hole():
    memory(PVH, 3072)


def test_4_gib_beyond_the_hole():
    for flavour in (DEBIAN, PVH, ENTRY_64):
        memory(flavour, 4096)


def test_without_acpi():
    # Then only the MP table and the command line say what there is.
    for flavour in (PVH, BZIMAGE):
        look(flavour, vcpus=2, args="acpi=off")


def test_by_the_api():
    kernel, ramdisk = PVH.files()
    with Monitor() as m:
        m.configure(
            kernel, f"{ARGS} mayfly.do={script_word('echo by=api')}", initrd=ramdisk, mem_mib=256
        )
        m.start()
        m.wait_for_console("by=api", BOOT_TIMEOUT)
        assert m.wait_exit(60) == 0


def test_boot_timer():
    kernel, _ = PVH.files()
    if not (IMAGES / "bench.cpio").exists():
        skip("bench.cpio is not built (make images)")
    with Monitor("--boot-timer") as m:
        m.configure(kernel, ARGS, initrd=IMAGES / "bench.cpio", mem_mib=128)
        m.start()
        m.wait_exit(BOOT_TIMEOUT)
        assert re.search(r"Guest-boot-time = +\d+ us", m.log()), m.log()


def test_a_guest_can_be_typed_to():
    for flavour in (PVH, DEBIAN):
        with start_linux(flavour, "shell", stdin="pipe") as m:
            m.wait_for_console("mayfly guest: up", BOOT_TIMEOUT)
            m.wait_for_console(r"[#$] ", BOOT_TIMEOUT)
            m.type(b"echo $((6 * 7))=answer\n")
            m.wait_for_console("42=answer", BOOT_TIMEOUT)
            m.type(b"exit\n")
            assert m.wait_exit(60) == 0
