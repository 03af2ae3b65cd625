"""Linux guests: which kernels there are, how each is started, and scripts that run inside.

Kernels and RAM disks come from images/ (make images, make kernel); MAYFLY_IMAGES names another
place. A flavour that is not built makes the tests that want it say so and skip.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Mapping

from mayfly import BUILD, Monitor, skip, tempdir

IMAGES = Path(os.environ.get("MAYFLY_IMAGES", BUILD / "images"))
BOOT_TIMEOUT = 60.0
# Quiet, because every byte on the console costs; a panic is printed all the same.
ARGS = "console=ttyS0 quiet reboot=k panic=1"
PT_NOTE, PT_NULL = 4, 0


@dataclass(frozen=True)
class Flavour:
    name: str
    kernel: str
    initrd: str
    entry: str  # what the monitor's log says of the entry
    strip_note: bool = False
    smp: bool = True

    def files(self) -> tuple[Path, Path]:
        for name in (self.kernel, self.initrd):
            if not (IMAGES / name).exists():
                skip(f"{name} is not built (make images; our own kernels: make kernel)")
        kernel = IMAGES / self.kernel
        return (without_note(kernel) if self.strip_note else kernel), IMAGES / self.initrd


DEBIAN = Flavour("debian", "debian-vmlinuz", "debian-initrd.cpio", "bzImage")
PVH = Flavour("tuned, PVH", "vmlinux-smp", "initrd.cpio", "PVH")
ENTRY_64 = Flavour("tuned, 64-bit entry", "vmlinux-smp", "initrd.cpio", "64-bit", strip_note=True)
BZIMAGE = Flavour("tuned, bzImage", "bzImage-smp", "initrd.cpio", "bzImage")
UP = Flavour("tuned for one processor, PVH", "vmlinux-up", "initrd.cpio", "PVH", smp=False)
UP_BZIMAGE = Flavour("the same, bzImage", "bzImage-up", "initrd.cpio", "bzImage", smp=False)


def without_note(vmlinux: Path) -> Path:
    """A copy whose PVH note no loader can find, so that the 64-bit entry is what is left."""
    copy = tempdir() / vmlinux.name
    shutil.copyfile(vmlinux, copy)
    with open(copy, "r+b") as f:
        head = f.read(64)
        phoff, = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        for n in range(count):
            f.seek(phoff + n * size)
            if struct.unpack("<I", f.read(4))[0] == PT_NOTE:
                f.seek(phoff + n * size)
                f.write(struct.pack("<I", PT_NULL))
    return copy


def rootfs() -> Path:
    """A root file system of the test's own, to write to."""
    source = IMAGES / "rootfs.ext4"
    if not source.exists():
        skip("rootfs.ext4 is not built (make images)")
    copy = tempdir() / "rootfs.ext4"
    shutil.copyfile(source, copy)
    return copy


def start_linux(
    flavour: Flavour,
    do: str,
    args: str = "",
    *options: str,
    vcpus: int = 1,
    mem_mib: int = 256,
    drives: Iterable[Mapping[str, Any]] = (),
    rng: bool = False,
    initrd: bool = True,
    config: Mapping[str, Any] | None = None,
    **more: Any,
) -> Monitor:
    """Boots from a configuration file. `do` is the guest's mayfly.do= word, `config` more
    sections for the file."""
    kernel, ramdisk = flavour.files()
    directory = tempdir()
    line = f"{ARGS} {args} mayfly.do={do}"
    boot = {"kernel_image_path": str(kernel), "boot_args": line}
    if initrd:
        boot["initrd_path"] = str(ramdisk)
    content = {
        "boot-source": boot,
        "drives": list(drives),
        "machine-config": {"vcpu_count": vcpus, "mem_size_mib": mem_mib},
    }
    if rng:
        content["entropy"] = {}
    content.update(config or {})
    path = directory / "config.json"
    path.write_text(json.dumps(content))
    if not more.get("api"):
        options = ("--no-api", *options)
    more.setdefault("api", False)
    return Monitor("--config-file", str(path), *options, directory=directory, **more)


def script_word(script: str) -> str:
    encoded = base64.b64encode(script.encode()).decode()
    assert len(encoded) < 1700, "the script does not fit on a kernel command line"
    return f"sh:{encoded}"


def script_drive(script: str) -> tuple[str, dict[str, Any]]:
    """For a script that no command line holds: its drive, which is to be the second, and the word."""
    path = tempdir() / "script"
    text = script.encode() + b"\n"
    path.write_bytes(text + b"\n" * (-len(text) % 512))
    drive = {"drive_id": "script", "path_on_host": str(path), "is_root_device": False,
             "is_read_only": True}
    return script_word("cat /dev/vdb >/run/script; . /run/script"), drive


def run_linux(flavour: Flavour, script: str, args: str = "", **more: Any) -> str:
    """Runs a shell script in a guest; it must succeed and the machine end well. Its output."""
    with start_linux(flavour, script_word(script), args, **more) as m:
        m.wait_for_console(r"mayfly guest: up", BOOT_TIMEOUT)
        status = m.wait_for_console(r"mayfly guest: done (\d+)", BOOT_TIMEOUT)
        assert status[1] == b"0", f"{flavour.name}: the script ended with {status[1].decode()}"
        assert m.wait_exit(60) == 0, f"{flavour.name}: exit code {m.exit_code}"
        return m.output().replace("\r", "")


def facts(output: str) -> dict[str, str]:
    """`name=value` lines that a script has printed."""
    pairs = (line.split("=", 1) for line in output.splitlines() if "=" in line)
    return {name: value for name, value in pairs if name.isidentifier()}
