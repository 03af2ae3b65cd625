"""Bad kernels, RAM disks, drives, sizes and configuration files.

Each is answered by one line that names the field or the file and the reason; the process lives on
where there is an API to try again; and no file is touched.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any, Iterator

from mayfly import Monitor, Response, digest, drive, guest, make_disk, needs, run_to_end, tempdir

PT_LOAD, PT_NOTE = 1, 4


def one_line(text: str) -> None:
    assert text and "\n" not in text.strip(), f"not one line: {text!r}"


def refused(answer: Response, *naming: str) -> None:
    assert answer.status == 400, answer
    one_line(answer.fault)
    for word in naming:
        assert word in answer.fault, f"{word!r} is not named: {answer.fault}"


# ---- kernels -------------------------------------------------------------------------------------


class Elf:
    """An ELF file that can be bent field by field."""

    HEADER = "<16sHHIQQQIHHHHHH"
    NAMES = "ident type machine version entry phoff shoff flags ehsize phentsize phnum shentsize"
    PROGRAM = "<IIQQQQQQ"

    def __init__(self, **changes: Any):
        self.fields = dict(
            ident=b"\x7fELF\x02\x01\x01" + b"\0" * 9, type=2, machine=62, version=1,
            entry=0x100000, phoff=64, shoff=0, flags=0, ehsize=64, phentsize=56, phnum=None,
            shentsize=0, shnum=0, shstrndx=0,
        )
        self.segments: list[dict[str, int]] = []
        self.fields.update(changes)

    def load(self, **changes: int) -> Elf:
        segment = dict(type=PT_LOAD, flags=7, offset=0x1000, vaddr=0x100000, paddr=0x100000,
                       filesz=0x1000, memsz=0x1000, align=0x1000)
        self.segments.append({**segment, **changes})
        return self

    def bytes(self) -> bytes:
        fields = dict(self.fields)
        if fields["phnum"] is None:
            fields["phnum"] = len(self.segments)
        head = struct.pack(self.HEADER, *fields.values())
        table = b"".join(struct.pack(self.PROGRAM, *s.values()) for s in self.segments)
        return (head + table).ljust(0x1000, b"\0") + b"\xf4" * 0x1000


def bent_kernels() -> Iterator[tuple[str, bytes]]:
    top = (1 << 64) - 1
    yield "empty", b""
    yield "one byte", b"\x7f"
    yield "63 bytes", Elf().load().bytes()[:63]
    yield "cut inside the program headers", Elf().load().bytes()[:100]
    yield "cut inside a segment", Elf().load().bytes()[:0x1800]
    yield "zeros", b"\0" * 8192
    yield "text", b"#!/bin/sh\necho hello\n" * 100
    yield "gzip", b"\x1f\x8b\x08\0" + b"\0" * 4096
    yield "PE", b"MZ" + b"\0" * 4096
    yield "32-bit", Elf(ident=b"\x7fELF\x01\x01\x01" + b"\0" * 9).load().bytes()
    yield "big endian", Elf(ident=b"\x7fELF\x02\x02\x01" + b"\0" * 9).load().bytes()
    yield "aarch64", Elf(machine=183).load().bytes()
    yield "no architecture", Elf(machine=0).load().bytes()
    yield "relocatable", Elf(type=1).load().bytes()
    yield "core dump", Elf(type=4).load().bytes()
    yield "no program headers", Elf().bytes()
    yield "program headers of no size", Elf(phentsize=0).load().bytes()
    yield "program headers of one byte", Elf(phentsize=1).load().bytes()
    yield "program headers of 64 KiB", Elf(phentsize=65535).load().bytes()
    yield "65535 program headers", Elf(phnum=65535).load().bytes()
    yield "program headers beyond the end", Elf(phoff=1 << 40).load().bytes()
    yield "program headers that wrap", Elf(phoff=top - 15).load().bytes()
    yield "segment beyond the end of file", Elf().load(offset=0x4000).bytes()
    yield "segment offset that wraps", Elf().load(offset=top - 0xFFF).bytes()
    yield "segment larger than the file", Elf().load(filesz=1 << 40, memsz=1 << 40).bytes()
    yield "more in the file than in memory", Elf().load(memsz=0x10).bytes()
    yield "memory size that wraps", Elf().load(memsz=top - 0x100).bytes()
    yield "segment larger than memory", Elf().load(memsz=1 << 30).bytes()
    yield "segment beyond memory", Elf().load(paddr=1 << 30).bytes()
    yield "segment in the hole", Elf().load(paddr=0xC0000000).bytes()
    yield "segment over the boot structures", Elf().load(paddr=0x7000).bytes()
    yield "segment over the tables", Elf().load(paddr=0x9F000).bytes()
    yield "segment at the top", Elf().load(paddr=top - 0xFFF).bytes()
    yield "segments that overlap", Elf().load().load(paddr=0x100800).bytes()
    yield "entry outside", Elf(entry=0x200000).load().bytes()
    yield "entry in the hole", Elf(entry=0xC0000000).load().bytes()
    yield "entry at zero", Elf(entry=0).load().bytes()


def start_with_kernel(m: Monitor, kernel: Path) -> Response:
    body = {"kernel_image_path": str(kernel), "boot_args": "do=hello"}
    answer = m.api.put("/boot-source", body)
    if answer.status != 204:
        return answer
    return m.api.put("/actions", {"action_type": "InstanceStart"})


def test_bent_kernels():
    with Monitor() as m:
        for what, content in bent_kernels():
            kernel = m.dir / "kernel"
            kernel.write_bytes(content)
            answer = start_with_kernel(m, kernel)
            assert answer.status == 400, f"{what}: {answer}"
            one_line(answer.fault)
            assert str(kernel) in answer.fault, f"{what}: the file is not named: {answer.fault}"
        m.assert_alive()
        # None of that stuck: a good kernel starts.
        assert start_with_kernel(m, guest("console")).status == 204
        m.wait_for_console("hello")


def test_the_bent_kernel_unbent():
    # The control: the very same builder, nothing bent. It must not be refused by the loader.
    with Monitor() as m:
        kernel = m.dir / "kernel"
        kernel.write_bytes(Elf().load().bytes())
        assert start_with_kernel(m, kernel).status == 204
        m.assert_alive()


def bzimage(**changes: int) -> bytes:
    """The header of a bzImage of protocol 2.15 with a body that halts."""
    fields = dict(setup_sects=1, boot_flag=0xAA55, magic=0x53726448, version=0x020F,
                  loadflags=1, code32=0x100000, kernel_alignment=0x200000, relocatable=1,
                  min_alignment=21, xloadflags=1, pref_address=0x1000000, init_size=0x10000,
                  syssize=0x100, cmdline_size=2047)
    fields.update(changes)
    data = bytearray(1024 + 0x1000)
    data[1024:] = b"\xf4" * 0x1000
    for at, form, name in (
        (0x1F1, "<B", "setup_sects"), (0x1F4, "<I", "syssize"), (0x1FE, "<H", "boot_flag"),
        (0x202, "<I", "magic"), (0x206, "<H", "version"), (0x211, "<B", "loadflags"),
        (0x214, "<I", "code32"), (0x230, "<I", "kernel_alignment"), (0x234, "<B", "relocatable"),
        (0x235, "<B", "min_alignment"), (0x236, "<H", "xloadflags"), (0x258, "<Q", "pref_address"),
        (0x238, "<I", "cmdline_size"), (0x260, "<I", "init_size"),
    ):
        struct.pack_into(form, data, at, fields[name])
    struct.pack_into("<BB", data, 0x200, 0xEB, 0x6A)  # the header ends at 0x26c
    return bytes(data)


def bent_bzimages() -> Iterator[tuple[str, bytes]]:
    yield "old protocol", bzimage(version=0x020B)
    yield "ancient protocol", bzimage(version=0)
    yield "no 64-bit entry", bzimage(xloadflags=0)
    yield "loaded low", bzimage(loadflags=0)
    yield "more setup than file", bzimage(setup_sects=255)
    yield "needs more memory than there is", bzimage(init_size=0xFFFFFFFF)
    yield "wants to be where no memory is", bzimage(pref_address=0xC0000000, relocatable=0)
    yield "wants to be at the top", bzimage(pref_address=(1 << 64) - 4096, relocatable=0)
    yield "nothing but a header", bzimage()[:1024]
    yield "takes no command line", bzimage(cmdline_size=1)
    yield "half a header", bzimage()[:0x210]


def test_bent_bzimages():
    with Monitor() as m:
        for what, content in bent_bzimages():
            kernel = m.dir / "kernel"
            kernel.write_bytes(content)
            answer = start_with_kernel(m, kernel)
            assert answer.status == 400, f"{what}: {answer}"
            one_line(answer.fault)
            named = str(kernel) in answer.fault or "kernel command line" in answer.fault
            assert named, f"{what}: {answer.fault}"
        m.assert_alive()


def test_the_bent_bzimage_unbent():
    with Monitor() as m:
        kernel = m.dir / "kernel"
        kernel.write_bytes(bzimage())
        assert start_with_kernel(m, kernel).status == 204
        assert "(bzImage)" in m.log(), m.log()


def special_files(directory: Path) -> dict[str, str]:
    """Paths that are no regular files, by what is to be said about them."""
    os.mkfifo(directory / "fifo")
    (directory / "dir").mkdir()
    (directory / "loop").symlink_to("loop")
    (directory / "dangling").symlink_to("nowhere")
    return {
        str(directory / "missing"): "No such file or directory (os error 2)",
        str(directory / "fifo"): "",
        str(directory / "dir"): "",
        str(directory / "loop"): "Symbolic link loop (os error 40)",
        str(directory / "dangling"): "No such file or directory (os error 2)",
        str(directory / "log" / "x"): "Not a directory (os error 20)",
        "/dev/zero": "",
        "/dev/null": "",
        "": "",
    }


def test_kernel_paths():
    with Monitor() as m:
        for path, reason in special_files(m.dir).items():
            answer = m.api.put("/boot-source", {"kernel_image_path": path})
            refused(answer, "kernel", reason)
        answer = m.api.put("/boot-source", {"kernel_image_path": str(m.dir / "missing")})
        expected = "Boot source error: The kernel file cannot be opened"
        assert answer.fault.startswith(expected), answer
        m.assert_alive()


def test_initrd_paths():
    with Monitor() as m:
        for path, reason in special_files(m.dir).items():
            if not path:
                continue
            body = {"kernel_image_path": str(guest("console")), "initrd_path": path}
            refused(m.api.put("/boot-source", body), "initrd", reason)
        m.assert_alive()


@needs("root")
def test_unreadable_kernel():
    directory = tempdir()
    directory.chmod(0o777)
    kernel = directory / "kernel"
    kernel.write_bytes(guest("console").read_bytes())
    kernel.chmod(0o000)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with Monitor(wrap=nobody, directory=directory) as m:
        answer = m.api.put("/boot-source", {"kernel_image_path": str(kernel)})
        refused(answer, "kernel", "Permission denied (os error 13)")
        m.assert_alive()


def test_initrds_that_do_not_fit():
    with Monitor() as m:
        for what, size in (("larger than memory", 200 << 20), ("1 TiB", 1 << 40),
                           ("all of memory", 128 << 20)):
            initrd = m.dir / "initrd"
            initrd.touch()
            os.truncate(initrd, size)
            m.configure(guest("console"), "do=hello", initrd=initrd)
            answer = m.api.put("/actions", {"action_type": "InstanceStart"})
            assert answer.status == 400, f"{what}: {answer}"
            refused(answer, "initrd", str(initrd))
        m.assert_alive()


def test_kernels_that_do_not_fit():
    with Monitor() as m:
        kernel = m.dir / "kernel"
        kernel.write_bytes(Elf().load(memsz=64 << 20).bytes())
        m.configure(kernel, "", mem_mib=32)
        refused(m.api.put("/actions", {"action_type": "InstanceStart"}), str(kernel))
        m.assert_alive()


# ---- sizes ---------------------------------------------------------------------------------------


def test_memory_sizes():
    with Monitor() as m:
        before = m.api.get("/machine-config").body
        for bad in (0, -1, 1.5, "128", None, 1 << 64, 10**30):
            body = {"vcpu_count": 1, "mem_size_mib": bad}
            answer = m.api.put("/machine-config", body)
            assert answer.status == 400, f"{bad}: {answer}"
            one_line(answer.fault)
        body = {"vcpu_count": 1, "mem_size_mib": 127, "huge_pages": "2M"}
        refused(m.api.put("/machine-config", body), "multiple of the configured page size")
        assert m.api.get("/machine-config").body == before, "a refused request changed something"


def test_memory_that_no_host_has():
    for mib in (1 << 30, (1 << 44) - 1, 1 << 44, (1 << 64) - 1):
        with Monitor() as m:
            answer = m.api.put("/machine-config", {"vcpu_count": 1, "mem_size_mib": mib})
            if answer.status == 204:
                body = {"kernel_image_path": str(guest("console"))}
                m.api.must("PUT", "/boot-source", body)
                answer = m.api.put("/actions", {"action_type": "InstanceStart"})
            refused(answer, "emory")
            m.assert_alive()


def test_processor_counts():
    with Monitor() as m:
        for bad in (0, 33, 255, 256, -1, 1 << 32, "2", 1.0):
            answer = m.api.put("/machine-config", {"vcpu_count": bad, "mem_size_mib": 128})
            assert answer.status == 400, f"{bad}: {answer}"
        m.api.must("PUT", "/machine-config", {"vcpu_count": 32, "mem_size_mib": 128})


def test_command_line_too_long():
    with Monitor() as m:
        body = {"kernel_image_path": str(guest("console")), "boot_args": "x" * 2048}
        answer = m.api.put("/boot-source", body)
        if answer.status == 204:
            answer = m.api.put("/actions", {"action_type": "InstanceStart"})
        assert answer.status == 400, answer
        one_line(answer.fault)
        m.assert_alive()


def test_command_line_that_grows_too_long():
    # It fits, until the monitor has added what describes the devices.
    with Monitor() as m:
        m.configure(guest("console"), "x" * 2040, rng=True)
        answer = m.api.put("/actions", {"action_type": "InstanceStart"})
        assert answer.status == 400, answer
        one_line(answer.fault)
        m.assert_alive()


# ---- drives --------------------------------------------------------------------------------------


def test_drive_paths():
    with Monitor() as m:
        for path, reason in special_files(m.dir).items():
            answer = m.api.put("/drives/d1", drive(Path(path), "d1") | {"path_on_host": path})
            assert answer.status == 400, f"{path!r}: {answer}"
            refused(answer, "Drive config error", reason)
        assert m.api.get("/vm/config").json["drives"] == []
        m.assert_alive()


@needs("root")
def test_drive_that_may_not_be_written():
    directory = tempdir()
    directory.chmod(0o777)
    path = make_disk(directory / "disk.img", 4096)
    path.chmod(0o444)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with Monitor(wrap=nobody, directory=directory) as m:
        refused(m.api.put("/drives/d1", drive(path, "d1")), "Permission denied (os error 13)")
        m.api.must("PUT", "/drives/d1", drive(path, "d1", is_read_only=True))
        m.assert_alive()


def test_too_many_drives():
    with Monitor() as m:
        path = make_disk(m.dir / "disk.img", 4096)
        refusal = None
        for n in range(40):
            answer = m.api.put(f"/drives/d{n}", drive(path, f"d{n}"))
            if answer.status != 204:
                refusal = answer
                break
        if refusal is None:
            m.api.must("PUT", "/boot-source", {"kernel_image_path": str(guest("console"))})
            refusal = m.api.put("/actions", {"action_type": "InstanceStart"})
        assert refusal.status == 400, refusal
        one_line(refusal.fault)
        m.assert_alive()


# ---- configuration files -------------------------------------------------------------------------


def good_config() -> dict[str, Any]:
    return {
        "boot-source": {"kernel_image_path": str(guest("console")), "boot_args": "do=hello"},
        "drives": [],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
    }


def run_config(content: bytes | dict[str, Any]) -> Monitor:
    directory = tempdir()
    path = directory / "config.json"
    data = json.dumps(content).encode() if isinstance(content, dict) else content
    path.write_bytes(data)
    return run_to_end("--no-api", "--config-file", str(path), directory=directory)


def config_refused(content: bytes | dict[str, Any], *naming: str) -> None:
    done = run_config(content)
    assert done.exit_code == 1, f"{content}: {done}"
    one_line(done.errors())
    for word in naming:
        assert word in done.errors(), f"{word!r} is not named: {done.errors()}"
    assert "Configuration for VMM from one single json failed" in done.log() + done.errors(), done


def test_the_good_configuration():
    done = run_config(good_config())
    assert done.exit_code == 0, done
    assert "hello" in done.output()


def test_config_file_unknown_fields():
    for section in ("boot-source", "machine-config"):
        content = good_config()
        content[section]["bogus_field"] = 1
        config_refused(content, "bogus_field")
    content = good_config()
    content["drives"] = [drive(Path("/x"), "d1", bogus_field=True)]
    config_refused(content, "bogus_field")
    # Stricter than Firecracker on purpose: there a misspelt section is passed over in silence.
    config_refused(good_config() | {"unknown-section": 1}, "unknown-section")


def test_config_file_wrong_types():
    for section, field, value in (
        ("machine-config", "vcpu_count", "two"), ("machine-config", "mem_size_mib", -5),
        ("machine-config", "smt", 1), ("boot-source", "kernel_image_path", 7),
        ("machine-config", "huge_pages", "1G"),
    ):
        content = good_config()
        content[section][field] = value
        config_refused(content)


def test_config_file_missing_fields():
    content = good_config()
    del content["boot-source"]
    config_refused(content, "boot-source")
    content = good_config()
    del content["boot-source"]["kernel_image_path"]
    config_refused(content, "kernel_image_path")
    content = good_config()
    del content["drives"]
    config_refused(content, "drives")


def test_config_file_names_a_missing_file():
    content = good_config()
    content["boot-source"]["kernel_image_path"] = "/nowhere/kernel"
    config_refused(content, "The kernel file cannot be opened", "No such file")
    content = good_config()
    content["drives"] = [drive(Path("/nowhere/disk"), "d1")]
    config_refused(content, "/nowhere/disk")


def test_config_file_is_not_json():
    good = json.dumps(good_config()).encode()
    for bad in (b"", b"{", b"null", b"[]", b"7", good[:-1], good + b"x", b"\xff\xfe" + good,
                b"[" * 100000, b'{"boot-source":' * 50):
        config_refused(bad)


def test_config_file_that_cannot_be_read():
    directory = tempdir()
    os.mkfifo(directory / "fifo")
    for path in (directory / "missing", directory, directory / "fifo", Path("/dev/zero")):
        done = run_to_end("--no-api", "--config-file", str(path))
        assert done.exit_code == 1, f"{path}: {done}"
        assert str(path) in done.errors(), done.errors()
        one_line(done.errors())


def test_bad_input_touches_no_file():
    directory = tempdir()
    disk = make_disk(directory / "disk.img", 65536)
    kernel = directory / "kernel"
    kernel.write_bytes(Elf(machine=183).load().bytes())
    initrd = make_disk(directory / "initrd", 5000, seed=3)
    before = digest(directory)
    with Monitor() as m:
        m.configure(kernel, "x", drives=[drive(disk)], initrd=initrd)
        assert m.api.put("/actions", {"action_type": "InstanceStart"}).status == 400
        m.api.put("/drives/missing", drive(directory / "missing", "missing"))
        m.api.put("/boot-source", {"kernel_image_path": str(directory / "none")})
    assert digest(directory) == before, "a file was created, changed or lost"
