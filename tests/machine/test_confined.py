"""What a monitor has given up, seen from outside: filters, privileges, the binary itself."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess

from mayfly import BINARY, Monitor, guest, run_to_end, skip, start_guest, tempdir


def status(m: Monitor, tid: int | None = None) -> dict[str, str]:
    text = m.proc(f"task/{tid or m.pid}/status")
    return dict(re.findall(r"^(\w+):\s+(.*)$", text, re.M))


def test_filters_are_on_before_the_first_request():
    """The socket is there a moment before the filter is; the answer to a client comes after it."""
    with Monitor() as m:
        m.api.must("GET", "/version", status=200)
        seen = status(m)
        assert (seen["Seccomp"], seen["Seccomp_filters"]) == ("2", "1"), seen
        assert seen["NoNewPrivs"] == "1"


def test_every_thread_has_its_own_filter_once_the_machine_runs():
    with Monitor() as m:
        m.configure(guest("smp"), "do=count n=3", vcpus=3)
        m.start()
        for cpu in (1, 2):  # the first one prints
            m.wait_for_console(rf"cpu {cpu} at [1-9]")
        seen = {m.threads()[t]: status(m, t) for t in m.threads()}
        vcpus = [name for name in seen if name.startswith("fc_vcpu")]
        assert len(vcpus) == 3, seen.keys()
        for name, s in seen.items():
            if name.startswith("iou-"):
                continue  # the kernel's own
            assert (s["Seccomp"], s["Seccomp_filters"]) == ("2", "2"), (name, s["Seccomp_filters"])


def test_no_core_and_nobody_may_look():
    with Monitor() as m:
        m.api.must("GET", "/version", status=200)
        limits = m.proc("limits")
        assert re.search(r"Max core file size\s+0\s+0", limits), limits


def test_without_a_filter_there_is_a_warning():
    with Monitor("--no-seccomp") as m:
        assert status(m)["Seccomp"] == "0"
        m.wait_for_log("not for production")


def test_a_call_that_is_not_allowed_ends_the_process():
    """A filter of the user's that allows nothing: the parent sees SIGSYS."""
    kill_all = struct.pack("<HBBI", 0x06, 0, 0, 0x80000000)

    def entry(name: bytes, program: bytes) -> bytes:
        return struct.pack("<Q", len(name)) + name + struct.pack("<Q", len(program) // 8) + program

    path = tempdir() / "filter"
    path.write_bytes(struct.pack("<Q", 3) + entry(b"vmm", kill_all) + entry(b"api", kill_all)
                     + entry(b"vcpu", kill_all))
    with start_guest("console", "do=echo", "--seccomp-filter", str(path)) as m:
        assert m.wait_exit() == -31, m


def test_filter_files_that_are_none():
    def u64(n: int) -> bytes:
        return struct.pack("<Q", n)

    rows = [
        (b"", "not a compiled filter"),
        (b"{}", "not a compiled filter"),
        (u64(3), "not vmm, api or vcpu"),
        (u64(3) + u64(1 << 63) + b"vmm", "not vmm, api or vcpu"),
        (u64(3) + u64(3) + b"abc" + u64(0), "not vmm, api or vcpu"),
        (u64(3) + u64(3) + b"vmm" + u64(1 << 61), "at most"),
        (u64(3) + u64(3) + b"vmm" + u64(4096) + bytes(8), "cut short"),
        (u64(3) + (u64(3) + b"vmm" + u64(0)) * 3, "twice"),
        (bytes(100001), "more than"),
        (u64(3) + b"".join(u64(len(n)) + n + u64(0) for n in (b"vmm", b"api", b"vcpu")) + b"x",
         "behind its end"),
    ]
    directory = tempdir()
    path = directory / "filter"
    for content, word in rows:
        path.write_bytes(content)
        m = run_to_end("--api-sock", str(directory / "s"), "--seccomp-filter", str(path))
        assert m.exit_code == 1 and word in m.errors() and str(path) in m.errors(), (content, m)
        (directory / "s").unlink(missing_ok=True)
    m = run_to_end("--api-sock", str(directory / "s"), "--seccomp-filter", str(directory / "none"))
    assert m.exit_code == 1 and "No such file" in m.errors(), m


def readelf(*options: str) -> str:
    if not shutil.which("readelf"):
        skip("needs readelf (binutils)")
    return subprocess.run(["readelf", "-W", *options, str(BINARY)], stdout=subprocess.PIPE,
                          text=True, check=True).stdout


def test_the_binary_is_hardened():
    head, segments, dynamic = readelf("-h"), readelf("-l"), readelf("-d")
    assert "DYN" in head and "INTERP" not in segments, "static-pie"
    assert "GNU_RELRO" in segments and "BIND_NOW" in dynamic, "all of the GOT is read-only"
    stack = re.search(r"GNU_STACK.* (R\w*) ", segments)
    assert stack and "E" not in stack[1], "the stack is not executable"
    for flags in re.findall(r"^\s+LOAD\s.*?\s([R ][W ][E ])\s+0x", segments, re.M):
        assert not ("W" in flags and "E" in flags), segments
    assert "NEEDED" not in dynamic, "no libraries"
    symbols = readelf("-s")
    assert "__stack_chk_fail" in symbols and "_chk" in symbols, "canaries, fortified functions"
    exported = re.findall(r"GLOBAL DEFAULT +\d+ (\S+)", readelf("--dyn-syms"))
    assert not exported, f"exported: {exported[:5]}"
