"""mayfly-jailer: what a jail looks like from outside, what a monitor finds inside, and what is refused.

Everything goes through the real program; most of it needs root, as the jailer does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import select
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from typing import Sequence

import mayfly
from jail import (
    GID, JAILER, UID, Jail, cgroup_mounts, cgroups_of, fresh_id, jailer, new_base, remove_cgroups,
)
from mayfly import BINARY, Deadline, guest, needs, skip, tempdir

SOAK = os.environ.get("MAYFLY_SOAK", "0") not in ("", "0")


def required(base: Path, **change: str) -> list[str]:
    values = {
        "id": fresh_id(), "exec-file": str(BINARY), "uid": str(UID), "gid": str(GID),
        "chroot-base-dir": str(base), **change,
    }
    return [word for k, v in values.items() for word in (f"--{k}", v)]


# ---- what it looks like -------------------------------------------------------------------------


@needs("root", "kvm")
def test_layout_owner_and_mode_of_everything():
    with Jail() as j:
        j.up()
        assert j.root == j.base / "mayfly" / j.id / "root"
        directories = {".": 0o700, "dev": 0o700, "dev/net": 0o700, "run": 0o700}
        devices = {"dev/kvm": (10, 232), "dev/net/tun": (10, 200), "dev/urandom": (1, 9)}
        minor = re.search(r"(\d+) userfaultfd", Path("/proc/misc").read_text())
        if minor:
            devices["dev/userfaultfd"] = (10, int(minor[1]))
        files = {"mayfly": (0o755, UID, GID), "mayfly.pid": (0o644, 0, 0)}
        there = {str(p.relative_to(j.root)) for p in j.root.rglob("*")} | {"."}
        assert there == {*directories, *devices, *files, "run/api.sock"}, there
        for name, mode in directories.items():
            st = (j.root / name).lstat()
            assert (st.st_mode, st.st_uid, st.st_gid) == (stat.S_IFDIR | mode, UID, GID), name
        for name, device in devices.items():
            st = (j.root / name).lstat()
            assert st.st_mode == stat.S_IFCHR | 0o600, name
            assert (st.st_uid, st.st_gid, st.st_nlink) == (UID, GID, 1), name
            assert (os.major(st.st_rdev), os.minor(st.st_rdev)) == device, name
        for name, (mode, uid, gid) in files.items():
            st = (j.root / name).lstat()
            assert (st.st_mode, st.st_uid, st.st_gid) == (stat.S_IFREG | mode, uid, gid), name
        for above in (j.root.parent, j.root.parent.parent):
            st = above.stat()
            assert (st.st_mode & 0o7777, st.st_uid, st.st_gid) == (0o755, 0, 0), above


@needs("root", "kvm")
def test_pid_file_is_the_process_that_was_started():
    with Jail() as j:
        j.up()
        assert (j.root / "mayfly.pid").read_text() == str(j.process.pid)
        assert j.proc("comm") == "mayfly\n"


@needs("root", "kvm")
def test_the_monitor_gets_what_the_contract_says():
    with Jail(extra=("--api-sock", "/run/api.sock", "--level", "Info")) as j:
        j.up()
        argv = j.proc("cmdline").rstrip("\0").split("\0")
        assert argv[:3] == ["/mayfly", "--id", j.id], argv
        assert argv[3::2][:3] == ["--start-time-us", "--start-time-cpu-us", "--parent-cpu-time-us"]
        assert all(a.isdigit() for a in argv[4:9:2]), argv
        assert argv[9:] == ["--api-sock", "/run/api.sock", "--level", "Info"], argv
        assert j.api.get("/").json["id"] == j.id
        assert j.proc("environ") == ""


# ---- what the monitor has left ------------------------------------------------------------------


@needs("root", "kvm")
def test_no_capabilities_no_groups_no_way_back():
    with Jail(extra_groups=[4, 20]) as j:
        s = j.up().status()
        assert s["Uid"].split() == [str(UID)] * 4 and s["Gid"].split() == [str(GID)] * 4
        assert s["Groups"] == ""
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(s[name], 16) == 0, name
        assert s["NoNewPrivs"] == "1"


@needs("root", "kvm")
def test_root_directory_mounts_and_files():
    directory = os.open("/", os.O_RDONLY)
    os.set_inheritable(directory, True)
    extra = [os.open("/dev/null", os.O_RDONLY) for _ in range(300)]
    for fd in extra:
        os.set_inheritable(fd, True)
    with Jail(close_fds=False) as j:
        j.up()
        for name in ("root", "cwd"):
            assert os.stat(f"/proc/{j.pid}/{name}").st_ino == j.root.stat().st_ino, name
        mounts = [line.split() for line in j.proc("mountinfo").splitlines()]
        where = {m[4]: set(m[5].split(",")) for m in mounts}
        assert set(where) == {"/", "/mayfly"}, where
        assert {"nosuid", "noexec"} <= where["/"] and "nodev" not in where["/"]
        assert {"ro", "nosuid", "nodev"} <= where["/mayfly"] and "noexec" not in where["/mayfly"]
        links = {os.readlink(f"/proc/{j.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{j.pid}/fd")}
        paths = {p for p in links if p.startswith("/")}
        assert paths <= {"/dev/null", "/dev/kvm"}, paths
        assert len(links) < 20, links
    for fd in (*extra, directory):
        os.close(fd)


@needs("root", "kvm")
def test_namespaces():
    def own(j: Jail) -> set[str]:
        names = ("mnt", "ipc", "uts", "cgroup", "pid", "net", "user")
        return {n for n in names
                if os.readlink(f"/proc/{j.pid}/ns/{n}") != os.readlink(f"/proc/self/ns/{n}")}

    with Jail() as j:
        assert own(j.up()) == {"mnt", "ipc", "uts", "cgroup"}
    with Jail("--new-pid-ns", "--new-net-ns") as j:
        assert own(j.up()) == {"mnt", "ipc", "uts", "cgroup", "pid", "net"}
        assert j.status()["NSpid"].split() == [str(j.pid), "1"]


@needs("root", "kvm")
def test_network_namespace_by_path():
    name = fresh_id("ns")
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with Jail("--netns", f"/run/netns/{name}") as j:
            j.up()
            assert os.stat(f"/proc/{j.pid}/ns/net").st_ino == os.stat(f"/run/netns/{name}").st_ino
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@needs("root", "kvm")
def test_limits():
    def limits(j: Jail) -> dict[str, list[str]]:
        lines = j.up().proc("limits").splitlines()[1:]
        return {line[:26].strip(): line[26:].split()[:2] for line in lines}

    with Jail() as j:
        now = limits(j)
        assert now["Max open files"] == ["2048", "2048"]
        assert now["Max core file size"] == ["0", "0"]
        assert now["Max file size"] == ["unlimited", "unlimited"]
    with Jail("--resource-limit", "no-file=500", "--resource-limit", "fsize=1048576") as j:
        now = limits(j)
        assert now["Max open files"] == ["500", "500"]
        assert now["Max file size"] == ["1048576", "1048576"]


@needs("root", "kvm")
def test_signals_and_umask_of_the_caller():
    def odd():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGINT})

    with Jail(preexec_fn=odd, umask=0o027) as j:
        s = j.up().status()
        blocked, ignored = int(s["SigBlk"], 16), int(s["SigIgn"], 16)
        assert not ignored & (1 << (signal.SIGCHLD - 1) | 1 << (signal.SIGTERM - 1)), s["SigIgn"]
        assert not blocked & 1 << (signal.SIGUSR1 - 1), s["SigBlk"]
        assert s["Umask"] == "0027"
        assert stat.S_IMODE(j.root.stat().st_mode) == 0o700
        assert stat.S_IMODE((j.root / "dev/kvm").stat().st_mode) == 0o600


@needs("root", "kvm")
def test_closed_standard_files():
    with Jail(wrap=["/bin/sh", "-c", 'exec "$0" "$@" <&- 2>&-']) as j:
        j.up()
        for fd in (0, 2):
            assert os.readlink(f"/proc/{j.pid}/fd/{fd}") == "/dev/null"


# ---- processes ----------------------------------------------------------------------------------


@needs("root", "kvm")
def test_daemonize():
    with Jail("--daemonize") as j:
        j.up()
        assert j.pid != j.process.pid
        fields = j.proc("stat").rsplit(")", 1)[1].split()
        parent, session = int(fields[1]), int(fields[3])
        assert parent != os.getpid() and session not in (os.getsid(0), j.pid)
        for fd in (0, 1, 2):
            assert os.readlink(f"/proc/{j.pid}/fd/{fd}") == "/dev/null"


@needs("root", "kvm")
def test_new_process_namespace():
    for more in ((), ("--daemonize",)):
        with Jail("--new-pid-ns", *more) as j:
            j.up()
            assert j.status()["NSpid"].split()[1] == "1"
            os.kill(j.pid, signal.SIGKILL)
            j.gone()


@needs("root", "kvm")
def test_wait_reports_how_the_monitor_ended():
    # The monitor has an exit code of its own for SIGSEGV; SIGUSR1 simply kills it.
    for options, number, code in (
        (("--new-pid-ns",), signal.SIGKILL, 128 + 9), ((), signal.SIGKILL, 128 + 9),
        ((), signal.SIGUSR1, 128 + 10), (("--new-pid-ns",), signal.SIGSEGV, 150),
    ):
        with Jail("--wait", *options) as j:
            j.detached = False
            j.up()
            assert j.pid != j.process.pid
            os.kill(j.pid, number)
            assert j.wait_exit() == code, (number, j.wait_exit())
    with Jail("--wait") as j:
        j.up()
        j.process.send_signal(signal.SIGTERM)
        assert j.wait_exit() == 128 + 15
    with Jail("--wait", extra=("--no-such-option",)) as j:
        assert j.wait_exit() == 153, j


@needs("root", "kvm")
def test_a_supervisor_that_is_killed_takes_the_monitor_along():
    with Jail("--wait") as j:
        j.up()
        j.process.kill()
        j.gone()


# ---- the program itself ---------------------------------------------------------------------------


def test_the_jailer_is_hardened():
    text = subprocess.run(["readelf", "-Wlds", JAILER], capture_output=True, text=True).stdout
    assert "INTERP" not in text and "DYN" in text.splitlines()[1], text.splitlines()[:3]
    assert "GNU_RELRO" in text and re.search(r"\bNOW\b", text) and re.search(r"\bPIE\b", text)
    assert re.search(r"GNU_STACK .* RW +0x", text)
    assert not re.search(r"(LOAD|GNU_STACK) .* (RWE|WE) ", text)
    assert "__stack_chk_fail" in text and "_chk" in text


# ---- printed, not done --------------------------------------------------------------------------


def test_dry_run_prints_and_does_nothing():
    base = new_base()
    before = mayfly.digest(base)
    done = jailer(*required(base, id="some-id"), "--cgroup", "cpuset.cpus=0", "--daemonize",
                  "--dry-run", "--", "--api-sock", "/run/x")
    assert done.returncode == 0 and done.stderr == "", done
    lines = done.stdout.splitlines()
    assert lines[0].startswith("new namespaces: mount ipc uts")
    assert f"mknod <root>/dev/kvm c 10:232 0600 {UID}:{GID}" in lines
    assert "write cgroup #0 cpuset.cpus = 0" in lines
    assert lines[-1] == "exec /mayfly --id some-id --api-sock /run/x"
    assert mayfly.digest(base) == before


def test_version_and_help():
    assert re.match(r"Jailer v\d+\.\d+\.\d+\n", jailer("--version").stdout)
    text = jailer("--help").stdout
    for name in ("id", "exec-file", "uid", "gid", "chroot-base-dir", "cgroup", "cgroup-version",
                 "parent-cgroup", "netns", "daemonize", "new-pid-ns", "resource-limit", "version"):
        assert f"--{name} " in text, name


# ---- what is refused ----------------------------------------------------------------------------


def refused(base: Path, args: list[str], argument: str, reason: str) -> None:
    before = mayfly.digest(base)
    done = jailer(*args)
    assert done.returncode == 1, (args, done)
    assert argument in done.stderr and reason in done.stderr, (argument, reason, done.stderr)
    assert mayfly.digest(base) == before, args


def test_odd_ids():
    base = new_base()
    for value in ("", "x" * 65, "a/b", "../x", "a b", "a\n", ".", "ä", "a_b", "%s", "-", "a"):
        if value in ("-", "a"):
            continue
        refused(base, required(base, id=value), "--id", "Invalid instance ID")
    refused(base, required(base)[2:], "--id", "is required")
    refused(base, [*required(base), "--id", "y"], "--id", "twice")


def test_odd_users_and_groups():
    base = new_base()
    for name in ("uid", "gid"):
        for value in ("", "-1", "+5", " 5", "5 ", "5x", "0x5", "1e3", "4294967295", "4294967296",
                      "99999999999999999999", "root", "5\n"):
            args = required(base)
            args[args.index(f"--{name}") + 1] = value
            reason = {"": "empty", "-1": "not a number"}.get(value, "")
            refused(base, args, f"--{name}", reason)
        at = required(base).index(f"--{name}")
        refused(base, required(base)[:at] + required(base)[at + 2:], f"--{name}", "is required")


def test_odd_cgroups_and_limits():
    base = new_base()
    for value in ("x", "=", "cpu=", "cpu.shares", "cpu.shares=", "cpu=1", ".x=1", "cpu.=1",
                  "../x.y=1", "cpu.sha/res=1", "cpu.shares=1\n2", "a" * 80 + ".x=1",
                  "cpu.shares=" + "1" * 2000):
        refused(base, [*required(base), "--cgroup", value], "--cgroup", "")
    for value in ("0", "3", "", "v2", "1 "):
        refused(base, [*required(base), "--cgroup-version", value], "--cgroup-version", "")
    for value in ("", "/abs", "..", "a/..", "a/../b", ".", "a/./b", "a//b", "a/", "a\nb", "x" * 600,
                  "a/b/c/d/e/f/g/h"):
        refused(base, [*required(base), "--parent-cgroup", value], "--parent-cgroup", "")
    for value in ("", "x", "fsize", "fsize=", "fsize=-1", "no-file=x", "no-file=1e3", "nofile=3",
                  "fsize=99999999999999999999"):
        refused(base, [*required(base), "--resource-limit", value], "--resource-limit", "")
    refused(base, [*required(base), "--cgroup", "cpu.shares=1", "--cgroup", "cpu.shares=2"],
            "--cgroup", "twice")


def test_odd_arguments():
    base = new_base()
    refused(base, [], "--id", "is required")
    refused(base, [*required(base), "--no-such"], "--no-such", "not an option")
    refused(base, [*required(base), "stray"], "stray", "not an option")
    refused(base, [*required(base), "--daemonize=yes"], "--daemonize", "takes no value")
    refused(base, [*required(base), "--daemonize", "--wait"], "--wait", "not together")
    refused(base, [*required(base), "--netns", "/x", "--new-net-ns"], "--new-net-ns", "not together")
    done = subprocess.run([""], executable=JAILER, capture_output=True)
    assert done.returncode == 1 and b"--id" in done.stderr


@needs("root")
def test_odd_monitors():
    base = new_base()
    d = tempdir()
    (d / "script").write_text("#!/bin/sh\n")
    (d / "empty").write_text("")
    for name in ("script", "empty"):
        (d / name).chmod(0o755)
    content = BINARY.read_bytes()
    for name, mode in (("setuid", 0o4755), ("open", 0o777), ("plain", 0o644)):
        (d / name).write_bytes(content)
        (d / name).chmod(mode)
    (d / "other").write_bytes(content[:18] + b"\xb7\0" + content[20:])
    (d / "other").chmod(0o755)
    (d / "odd name").write_bytes(content)
    os.mkfifo(d / "fifo")
    for path, reason in (
        (d / "missing", "Failed to canonicalize path"), (d / "missing", "os error 2"),
        (d, "is not a file"), (d / "fifo", "is not a file"), ("/dev/null", "is not a file"),
        (d / "script", "not an ELF"), (d / "empty", "not an ELF"), ("/bin/ls", "a dynamic program"),
        (d / "setuid", "set-user-id"), (d / "open", "written by anybody"),
        (d / "plain", "not executable"), (d / "other", "another machine"),
        (d / "odd name", "odd"), (f"{d}/", "not a file"), (f"{d}/..", "not a file"),
    ):
        refused(base, required(base, **{"exec-file": str(path)}), "--exec-file", reason)


@needs("root")
def test_odd_bases():
    base = new_base()
    (base / "file").write_text("")
    (base / "wide").mkdir()
    (base / "wide").chmod(0o777)
    (base / "theirs").mkdir()
    os.chown(base / "theirs", UID, GID)
    for path, reason in (
        (base / "missing", "os error 2"), (base / "file", "os error 20"),
        (base / "wide", "written by others"), (base / "theirs", "belongs to the user of the jail"),
    ):
        refused(base, required(base, **{"chroot-base-dir": str(path)}), "--chroot-base-dir", reason)


@needs("root")
def test_odd_network_namespaces():
    base = new_base()
    for path, reason in (
        ("/no/such", "os error 2"), ("/dev/null", "not a network namespace"),
        ("/proc/self/ns/mnt", "not a network namespace"), (str(base), "not a network namespace"),
    ):
        refused(base, [*required(base), "--netns", path], "--netns", reason)


# ---- a jail that is there already ---------------------------------------------------------------


def driver_made(base: Path, jail_id: str, owner: int = 0) -> Path:
    """The root directory as drivers make it beforehand, to put kernels and disks into it."""
    root = base / "mayfly" / jail_id / "root"
    root.mkdir(parents=True)
    os.chown(root, owner, owner)
    return root


@needs("root", "kvm")
def test_a_root_with_a_drivers_files_is_taken_as_it_is():
    base, name = new_base(), fresh_id()
    root = driver_made(base, name)
    shutil.copy(guest("console"), root / "kernel")
    (root / "run").mkdir()
    with Jail(base=base, id=name) as j:
        j.up()
        j.api.must("PUT", "/boot-source", {"kernel_image_path": "/kernel", "boot_args": "do=hello"})
        j.api.must("PUT", "/actions", {"action_type": "InstanceStart"})
        j.stdout.wait(lambda d: b"hello" in d, Deadline(None, "the guest"))
        assert (root / "run").stat().st_uid == UID and root.stat().st_uid == UID


@needs("root", "kvm")
def test_a_jail_is_made_once():
    with Jail() as j:
        j.up()
        refused(j.base, required(j.base, id=j.id), "--id", "File exists")
        j.api.must("GET", "/", status=200)
    refused(j.base, required(j.base, id=j.id), "--id", "File exists")


@needs("root")
def test_a_jail_prepared_by_somebody_else():
    outside = tempdir()
    (outside / "file").write_text("secret")
    (outside / "directory").mkdir()

    def link(name: str, to: str):
        return lambda root: (root / name).symlink_to(to)

    def make(name: str, what):
        def do(root: Path) -> None:
            (root / name).parent.mkdir(exist_ok=True)
            what(root / name)
        return do

    cases = (
        # All of them lead to temporary directories, should they ever be followed.
        (link("dev", "../../.."), "dev"),
        (link("dev", str(outside / "directory")), "dev"),
        (link("run", str(outside)), "run"),
        (link("mayfly", str(outside / "file")), "mayfly"),
        (link("mayfly", str(outside / "dangling")), "mayfly"),
        (link("mayfly.pid", str(outside / "file")), "mayfly.pid"),
        (make("dev/kvm", lambda p: p.symlink_to(outside / "file")), "kvm"),
        (make("dev/net", lambda p: p.symlink_to(outside)), "net"),
        (make("mayfly", lambda p: os.link(outside / "file", p)), "mayfly"),
        (make("dev/kvm", lambda p: os.link(outside / "file", p)), "kvm"),
        (make("dev/urandom", lambda p: p.write_text("")), "urandom"),
        (make("mayfly", lambda p: p.mkdir()), "mayfly"),
        (make("run", lambda p: p.write_text("")), "run"),
        (make("dev", lambda p: p.write_text("")), "dev"),
        (lambda root: os.chown(root, UID + 1, 0), "belongs to another user"),
        (lambda root: os.chown(root.parent, UID, 0), "belongs to the user of the jail"),
        (lambda root: root.parent.chmod(0o777), "written by others"),
    )
    for prepare, named in cases:
        base, name = new_base(), fresh_id()
        prepare(driver_made(base, name))
        before = everything(outside)
        refused(base, required(base, id=name), "--id", named)
        assert everything(outside) == before, named
    for component in ("mayfly", "id"):
        base, name = new_base(), fresh_id()
        if component == "mayfly":
            (base / "mayfly").symlink_to(outside)
        else:
            (base / "mayfly").mkdir()
            (base / "mayfly" / name).symlink_to(outside)
        before = everything(outside)
        refused(base, required(base, id=name), "--id", "jail cannot be made")
        assert everything(outside) == before


def everything(directory: Path) -> str:
    """A hash of every name, kind, mode, owner, size and content below a directory."""
    total = hashlib.sha256()
    for entry in (directory, *sorted(directory.rglob("*"))):
        st = entry.lstat()
        total.update(f"{entry} {st.st_mode:o} {st.st_uid} {st.st_gid} {st.st_rdev}\n".encode())
        if stat.S_ISREG(st.st_mode):
            total.update(entry.read_bytes())
    return total.hexdigest()


# ---- somebody who races ---------------------------------------------------------------------------


def swap_for_ever(root: Path, outside: Path, names: Sequence[str]) -> None:
    """The jail's user, who owns the root beforehand, puts links where the jailer makes things."""
    os.setgroups([])
    os.setresgid(GID, GID, GID)
    os.setresuid(UID, UID, UID)
    dice = random.Random(os.getpid())
    away = root / f"away{os.getpid()}"
    while True:
        # One name at a time, and mostly nothing: a jailer that looks must often find all in order.
        name = root / dice.choice(names)
        for _ in range(dice.randrange(3000)):
            pass
        with contextlib.suppress(OSError):
            match dice.randrange(5):
                case 0: name.symlink_to(outside / "directory")
                case 1: os.link(outside / "file", name)
                case 2:  # what the jailer has just made, exchanged for something else
                    name.rename(away)
                    os.link(outside / "file", name)
                case 3:
                    name.rename(away)
                    name.symlink_to(outside / "directory")
                case 4: name.mkdir()
        for _ in range(dice.randrange(1000)):
            pass
        for made in (name, away):
            with contextlib.suppress(OSError):
                made.unlink()
            with contextlib.suppress(OSError):
                made.rmdir()


@needs("root", "kvm")
def test_links_swapped_in_while_jails_start():
    base, outside, name = new_base(), tempdir(), fresh_id()
    outside.chmod(0o777)  # so that nothing but the jailer's care protects it
    (outside / "file").write_text("secret")
    (outside / "file").chmod(0o666)
    (outside / "directory").mkdir()
    before = everything(outside)
    root = driver_made(base, name, UID)
    attackers = []
    for names in (("dev", "run", "dev/net"), ("dev/kvm", "dev/net/tun", "dev/urandom"),
                  ("mayfly", "mayfly.pid", "mayfly.pid")):
        pid = os.fork()
        if pid == 0:
            try:
                swap_for_ever(root, outside, names)
            finally:
                os._exit(1)
        attackers.append(pid)
    codes: dict[int, int] = {}
    # Half of the jailers hesitate before each step, which gives the attackers all the time they need.
    slow = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=mkdirat,mknodat,openat2,fchownat",
            "-e", "inject=mkdirat,mknodat,openat2,fchownat:delay_enter=1000"]
    slow = slow if shutil.which("strace") else []
    try:
        for n in range(1000 if SOAK else 100):
            done = jailer(*required(base, id=name), "--", "--version", wrap=slow if n % 2 else ())
            codes[done.returncode] = codes.get(done.returncode, 0) + 1
            assert done.returncode in (0, 1), done
            assert everything(outside) == before, f"start {n}: {done}"
            # Made where the attackers do not look: this test would follow their links.
            fresh = driver_made(base, "next", UID)
            if n % 4 > 1:  # theirs too, so that they can get at what is made in it
                (fresh / "dev/net").mkdir(parents=True)
                os.chown(fresh / "dev/net", UID, GID)
                os.chown(fresh / "dev", UID, GID)
            root.parent.rename(base / f"old{n}")
            fresh.parent.rename(root.parent)
            shutil.rmtree(base / f"old{n}", ignore_errors=True)
    finally:
        for pid in attackers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert len(codes) == 2, f"the attackers were always in the way, or never: {codes}"


@needs("root", "kvm")
def test_a_file_exchanged_between_two_steps():
    """The same, at the very moment: the jailer is held up in a system call."""
    if not shutil.which("strace"):
        skip("strace is not installed")
    outside = tempdir()
    (outside / "file").write_text("secret")
    before = everything(outside)

    def exchange(name: str):
        def do(root: Path) -> None:
            (root / name).unlink(missing_ok=True)
            os.link(outside / "file", root / name)
        return do

    for call, there, swap, reason in (
        ("mknodat:delay_exit=300000:when=1", "dev/net/tun", exchange("dev/net/tun"), "exchanged"),
        ("move_mount:delay_enter=300000:when=1", "run", exchange("mayfly"), "exchanged"),
        ("move_mount:delay_enter=300000:when=1", "run", exchange("mayfly.pid"), "File exists"),
        ("fchmod:delay_exit=300000:when=1", "mayfly", exchange("dev"), "File exists"),
    ):
        slow = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call.split(':')[0]}", "-e",
                f"inject={call}"]
        with Jail(wrap=slow) as j:
            deadline = Deadline(None, f"{there} to be made")
            while not (j.root / there).exists():
                deadline.left()
            swap(j.root)
            assert j.wait_exit() == 1, (call, j)
            assert reason in j.errors(), (reason, j)
        assert everything(outside) == before, call


# ---- somebody who kills ---------------------------------------------------------------------------


def processes_of(jail_id: str) -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if jail_id.encode() in path.read_bytes().split(b"\0"):
                found.add(int(path.parent.name))
    return found


def limits_here() -> list[str]:
    """Options that put a jail into a cgroup of this host; none if it has none that will do."""
    for version, mount, options in cgroup_mounts():
        if version == 1 and "pids" in options:
            return ["--cgroup", "pids.max=100"]
        if version == 2 and "pids" in (mount / "cgroup.controllers").read_text().split():
            return ["--cgroup-version", "2", "--cgroup", "pids.max=100"]
    return []


def mounts_named(name: str) -> list[str]:
    """Other tests mount things meanwhile; those of a jail have its name in them."""
    return [m for m in Path("/proc/self/mounts").read_text().splitlines() if name in m]


@needs("root", "kvm")
def test_killed_at_any_moment():
    """What SIGKILL leaves is what a monitor leaves that has ended: a directory, an empty cgroup."""
    dice = random.Random(4)
    for n in range(400 if SOAK else 60):
        options = [[], ["--new-pid-ns"], ["--daemonize"], ["--wait"]][n % 4]
        name = fresh_id("k")
        with Jail(*options, *limits_here(), "--new-net-ns", id=name) as j:
            with contextlib.suppress(subprocess.TimeoutExpired):
                j.process.wait(dice.uniform(0, 0.008))
            j.process.kill()
            j.process.wait()
            deadline = Deadline(3, f"the processes of {name}")
            while (left := processes_of(name)):
                # A monitor that was up is on record, and is the only one.
                with contextlib.suppress(OSError, ValueError):
                    if left == {j.pid} and options in (["--new-pid-ns"], ["--daemonize"]):
                        os.kill(j.pid, signal.SIGKILL)
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        fd = os.pidfd_open(pid)
                        ended, _, _ = select.select([fd], [], [], deadline.left())
                        os.close(fd)
                        assert ended, f"{options}: {pid} of {left} lives on"
        assert not mounts_named(name)
        assert not cgroups_of(name)  # kill() could remove it: it was empty
        shutil.rmtree(j.root.parent, ignore_errors=True)
        assert not j.root.parent.exists()


@needs("root", "kvm")
def test_interrupted_at_any_moment():
    """A polite signal leaves nothing at all, or comes to a monitor that is up."""
    base = new_base()
    dice = random.Random(5)
    interrupted = 0
    for n in range(400 if SOAK else 60):
        name = fresh_id("i")
        with Jail(*limits_here(), id=name, base=base) as j:
            with contextlib.suppress(subprocess.TimeoutExpired):
                j.process.wait(dice.uniform(0, 0.004))
            j.process.send_signal(signal.SIGTERM)
            code = j.wait_exit()
            if code == 1:
                interrupted += 1
                assert "interrupted by signal 15" in j.errors(), j
                assert not j.root.parent.exists() and not cgroups_of(name), j
            else:
                assert code == -signal.SIGTERM, j
    assert interrupted, "no start was interrupted in the middle"


@needs("root", "kvm")
def test_of_many_with_one_id_one_wins():
    base, name = new_base(), fresh_id()
    jails = [Jail(base=base, id=name, extra=("--api-sock", "/run/api.sock")) for _ in range(6)]
    deadline = Deadline(None, "all but one to give up")
    while sum(j.process.poll() is None for j in jails) > 1:
        deadline.left()
    winners = [j for j in jails if j.alive()]
    assert len(winners) == 1, jails
    winners[0].up()
    assert winners[0].pid == winners[0].process.pid
    for j in jails:
        if j is not winners[0]:
            assert j.wait_exit() == 1 and "--id" in j.errors(), j


@needs("root", "kvm")
def test_a_failure_in_the_middle_leaves_nothing():
    base = new_base()
    (base / "mayfly").mkdir()
    limits = limits_here()
    if not limits:
        skip("no cgroups here")
    for bad in (["--cgroup", "pids.max=nonsense"], ["--cgroup", "pids.no_such_file=1"]):
        name = fresh_id()
        args = [*required(base, id=name), *limits[:-2], *bad]
        refused(base, args, "--cgroup", bad[1].split("=")[0])
        assert not cgroups_of(name)
    # A program that the kernel refuses at the very end, when root has been given up.
    content = BINARY.read_bytes()
    broken = tempdir() / "mayfly"
    broken.write_bytes(content[:56] + b"\0\0" + content[58:])  # no program headers
    broken.chmod(0o755)
    for options in (["--new-pid-ns"], ["--daemonize"], ["--wait"]):
        name = fresh_id()
        args = required(base, id=name, **{"exec-file": str(broken)})
        refused(base, [*args, *limits, *options], "--exec-file", "cannot be executed")
        assert not cgroups_of(name), options


# ---- cgroups ------------------------------------------------------------------------------------


@needs("root", "kvm")
def test_cgroups_v1():
    mounts = {o: m for v, m, options in cgroup_mounts() if v == 1 for o in options}
    wanted = {"cpuset": ("cpus", "0"), "pids": ("max", "77"), "cpu": ("shares", "512")}
    usable = {c: fv for c, fv in wanted.items() if c in mounts}
    if not usable:
        skip("no cgroup v1 hierarchy here")
    args = [w for c, (f, v) in usable.items() for w in ("--cgroup", f"{c}.{f}={v}")]
    for parent in (None, "mayfly-test/deep"):
        more = ["--parent-cgroup", parent] if parent else []
        with Jail(*args, *more) as j:
            j.up()
            for controller, (file, value) in usable.items():
                path = mounts[controller] / (parent or "mayfly") / j.id
                assert (path / f"{controller}.{file}").read_text().strip() == value
                assert str(j.pid) in (path / "tasks").read_text().split()
                if controller == "cpuset":
                    assert (path / "cpuset.mems").read_text().strip()
            assert len(cgroups_of(j.id)) == len(usable)
    with Jail() as j:
        j.up()
        assert not cgroups_of(j.id)


@needs("root", "kvm")
def test_cgroups_v2():
    mounts = [m for v, m, _ in cgroup_mounts() if v == 2]
    if not mounts:
        skip("no cgroup v2 hierarchy here")
    there = (mounts[0] / "cgroup.controllers").read_text().split()
    wanted = {"pids": ("pids.max", "77"), "memory": ("memory.high", "1073741824"),
              "hugetlb": ("hugetlb.2MB.max", "0")}
    usable = [fv for c, fv in wanted.items() if c in there]
    if not usable:
        skip("cgroup v2 has no controller to test with")
    args = ["--cgroup-version", "2", *(w for f, v in usable for w in ("--cgroup", f"{f}={v}"))]
    for more in ((), ("--new-pid-ns",), ("--daemonize",), ("--parent-cgroup", "mayfly-test/deep")):
        with Jail(*args, *more) as j:
            j.up()
            parent = more[1] if more and more[0] == "--parent-cgroup" else "mayfly"
            path = mounts[0] / parent / j.id
            for file, value in usable:
                assert (path / file).read_text().strip() == value
            assert (path / "cgroup.procs").read_text().split() == [str(j.pid)]
    bad = ["--cgroup-version", "2", "--cgroup", "nosuch.max=1"]
    refused(base := new_base(), [*required(base), *bad], "--cgroup", "'nosuch' is not available")


@needs("root", "kvm")
def test_cgroup_v2_parent_alone():
    mounts = [m for v, m, _ in cgroup_mounts() if v == 2]
    if not mounts:
        skip("no cgroup v2 hierarchy here")
    name = fresh_id("parent")
    parent = mounts[0] / name
    with Jail("--cgroup-version", "2", "--parent-cgroup", name) as j:
        j.up()
        assert not parent.exists()
    parent.mkdir()
    try:
        with Jail("--cgroup-version", "2", "--parent-cgroup", name) as j:
            j.up()
            assert (parent / "cgroup.procs").read_text().split() == [str(j.pid)]
    finally:
        remove_cgroups(name)


@needs("root", "kvm")
def test_a_supervisor_removes_the_cgroups():
    limits = limits_here()
    if not limits:
        skip("no cgroups here")
    with Jail("--wait", *limits) as j:
        j.up()
        assert cgroups_of(j.id)
        os.kill(j.pid, signal.SIGKILL)
        assert j.wait_exit() == 128 + signal.SIGKILL
        assert not cgroups_of(j.id)


# ---- without root -------------------------------------------------------------------------------


@needs("root", "kvm")
def test_without_root_in_a_user_namespace():
    """The caller is a plain user; what he makes is his outside and the jail's user's inside."""
    user = 23456
    base, tools = new_base(), tempdir()
    tools.chmod(0o755)
    os.chown(base, user, user)
    for program in (JAILER, BINARY):
        shutil.copy(program, tools)
    plain = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    test = subprocess.run([*plain, "unshare", "--user", "true"], capture_output=True, text=True)
    if test.returncode:
        skip(f"users may not make user namespaces here: {test.stderr.strip()}")
    with Jail("--userns", "--new-net-ns", wrap=plain, base=base, program=tools / "mayfly-jailer",
              exec_file=tools / "mayfly") as j:
        s = j.up().status()
        assert s["Uid"].split() == [str(user)] * 4
        assert int(s["CapEff"], 16) == int(s["CapBnd"], 16) == 0 and s["NoNewPrivs"] == "1"
        assert Path(f"/proc/{j.pid}/uid_map").read_text().split() == [str(UID), str(user), "1"]
        assert {p.lstat().st_uid for p in j.root.rglob("*")} == {user}
        where = {line.split()[4] for line in j.proc("mountinfo").splitlines()}
        assert {"/", "/mayfly", "/dev/kvm"} <= where, where
        again = ["nsenter", f"--user=/proc/{j.pid}/ns/user", "--preserve-credentials",
                 "unshare", "--user", "true"]
        more = subprocess.run(again, capture_output=True, text=True)
        assert more.returncode and "No space left" in more.stderr, more
    refused(base := new_base(), [*required(base), "--userns"], "--userns", "without root")


# ---- the program is shared and stays as it is ---------------------------------------------------


@needs("root", "kvm")
def test_jails_share_the_program_and_cannot_write_it():
    jails = [Jail().up() for _ in range(4)]
    shared = os.stat(BINARY)
    for j in jails:
        inside = os.stat(f"/proc/{j.pid}/root/mayfly")
        assert (inside.st_dev, inside.st_ino) == (shared.st_dev, shared.st_ino)
        mapped = [line.split() for line in j.proc("maps").splitlines() if " r-xp " in line]
        assert any(int(m[4]) == shared.st_ino for m in mapped), mapped
        for how in (os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
            with contextlib.suppress(OSError):
                os.close(os.open(f"/proc/{j.pid}/root/mayfly", how))
                raise AssertionError("the program can be opened for writing, even by root")


@needs("root", "kvm")
def test_a_kernel_that_cannot_restrict_mounts_beforehand():
    if not shutil.which("strace"):
        skip("strace is not installed")
    old = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=mount_setattr", "-e",
           "inject=mount_setattr:error=ENOSYS"]
    with Jail(wrap=old) as j:
        j.up()
        flags = {m.split()[4]: set(m.split()[5].split(",")) for m in j.proc("mountinfo").splitlines()}
        assert {"nosuid", "noexec"} <= flags["/"] and {"ro", "nosuid", "nodev"} <= flags["/mayfly"]


@needs("root", "kvm")
def test_mounts_enter_but_do_not_leave():
    """What was mounted in the root beforehand is seen inside; nothing of the jail is seen outside."""
    base, name, disk = new_base(), fresh_id(), tempdir()
    root = driver_made(base, name)
    (root / "disk").mkdir()
    (disk / "file").write_text("content")
    subprocess.run(["mount", "--bind", str(disk), str(root / "disk")], check=True)
    try:
        before = mounts_named(name)
        with Jail(base=base, id=name) as j:
            j.up()
            assert Path(f"/proc/{j.pid}/root/disk/file").read_text() == "content"
            flags = {m.split()[4]: m.split()[5] for m in j.proc("mountinfo").splitlines()}
            assert "noexec" in flags["/disk"] and "nosuid" in flags["/disk"], flags
            assert mounts_named(name) == before
    finally:
        subprocess.run(["umount", str(root / "disk")], check=True)
