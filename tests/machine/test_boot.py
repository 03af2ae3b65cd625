"""What a guest finds when it starts: memory, tables, RAM disk, command line, processor state."""

from __future__ import annotations

import os
from pathlib import Path

from mayfly import Monitor, guest, run_guest, start_guest, guest_verdict, tempdir

KINDS = ("boot", "boot-pvh")


def both(args: str, **more) -> None:
    """The same question to a guest entered at its 64-bit entry and to one entered by PVH."""
    for kind in KINDS:
        run_guest(kind, args, **more)


def test_processor_state_at_the_64_bit_entry():
    run_guest("boot", "do=state")


def test_memory_map_128_mib():
    both("do=memory mem_mib=128")


def test_memory_map_small_and_odd():
    for mib in (16, 127, 129, 1023):
        both(f"do=memory mem_mib={mib}", mem_mib=mib)


def test_memory_map_up_to_the_hole():
    both("do=memory mem_mib=3072", mem_mib=3072)


def test_memory_map_beyond_the_hole():
    for mib in (3073, 4096):
        both(f"do=memory mem_mib={mib}", mem_mib=mib)


def initrd_file(size: int) -> tuple[Path, int]:
    path = tempdir() / "initrd"
    data = os.urandom(size)
    path.write_bytes(data)
    total = 0
    for at in range(0, size, 64):
        total = (total * 31 + data[at]) & 0xFFFFFFFF
    return path, total


def test_initrd_arrives_byte_for_byte():
    for size in (1, 4095, 4096, 4097, 300000):
        path, total = initrd_file(size)
        both(f"do=initrd size={size} sum={total}", initrd=path)


def test_initrd_in_a_machine_beyond_the_hole():
    path, total = initrd_file(100000)
    both(f"do=initrd size=100000 sum={total}", initrd=path, mem_mib=4096)


def test_acpi_tables():
    both("do=acpi cpus=1 devices=0")
    both("do=acpi cpus=4 devices=1", vcpus=4, rng=True)


def test_mp_table():
    both("do=mp cpus=1")
    both("do=mp cpus=8", vcpus=8)


def test_tables_of_the_largest_machine():
    both("do=tables cpus=32 devices=1", vcpus=32, rng=True)


def test_cpuid():
    both("do=cpuid cpus=1")
    both("do=cpuid cpus=4", vcpus=4)


def command_line(kind: str, args: str, **more) -> str:
    output = run_guest(kind, args, **more)
    return output.split("[", 1)[1].split("]", 1)[0]


def test_command_line_is_what_was_asked_for():
    for kind in KINDS:
        line = command_line(kind, "do=args a=b quiet")
        assert line.startswith("do=args a=b quiet"), line
        assert "pci=off" in line, line


def test_command_line_names_the_devices():
    for kind in KINDS:
        line = command_line(kind, "do=args", rng=True)
        assert line.count("virtio_mmio.device=") == 1, line
        assert "virtio_mmio.device=4K@0xc0001000:" in line, line


def test_command_line_may_be_as_long_as_it_may():
    # 2048 bytes with the terminator and what the monitor appends.
    filler = "x" * 1900
    for kind in KINDS:
        assert filler in command_line(kind, f"do=args {filler}")


def test_words_after_two_dashes_stay_last_or_whole():
    # What follows ` -- ` belongs to the guest's init: nothing may be put between its words.
    line = command_line("boot", "do=args -- one two")
    assert "-- one two" in line, line


def test_default_command_line():
    with Monitor() as m:
        m.api.must("PUT", "/boot-source", {"kernel_image_path": str(guest("boot"))})
        m.start()
        guest_verdict(m)
        assert m.wait_exit() == 0
    # The guest does nothing without do=; what it was given is in the configuration.


def test_log_says_how_the_kernel_was_entered():
    for kind, how in (("boot", "64-bit"), ("boot-pvh", "PVH")):
        with start_guest(kind, "do=args") as m:
            assert m.wait_exit() == 0
            assert how in m.log(), m.log()
