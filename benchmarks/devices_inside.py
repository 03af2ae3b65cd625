#!/usr/bin/env python3
"""devices_inside.py ROUNDS IMAGES WHAT : the part of devices.py that runs where KVM is.

Starts a guest under each monitor in turn, with a script that measures and prints; answers it from the
host's side. Prints `MONITOR NAME NUMBER` lines, and `failed ...` for what did not come to an end.
"""

from __future__ import annotations

import base64
import json
import os
import platform
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS, IMAGES, WHAT = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(",")
BUILD = Path(os.environ.get("MAYFLY_BUILD", Path(__file__).resolve().parents[1] / "build"))
DIR = Path(tempfile.mkdtemp(prefix="mf-bench-", dir="/dev/shm"))
LOAD = DIR / "load"
ARGS = "console=ttyS0 quiet reboot=k panic=1 mitigations=off"
MEM_MIB = 512
LIMIT = 240.0  # seconds for one guest
CID = 42
HOST_IP, GUEST_IP, TAP = "10.77.0.1", "10.77.0.2", "mfbench0"
NET_BYTES, VSOCK_BYTES = 48 << 20, 32 << 20
BALLOON_MIB = MEM_MIB // 2
TICKS = os.sysconf("SC_CLK_TCK")

# What the guest does; `row NAME` lines tell the host where it is.
SCRIPTS = {
    "disk": """for bytes in 4096 131072; do for depth in 1 32; do for how in randread randwrite read write; do
        echo row=$how-$bytes-$depth; load disk /dev/vda $how $bytes $depth 2; done; done; done""",
    "net": f"""ip addr add {GUEST_IP}/24 dev eth0; ip link set eth0 up
        echo row=tcp-ping; load tcp:{HOST_IP}:7001 ping 300
        echo row=tcp-out; load tcp:{HOST_IP}:7002 send {NET_BYTES}
        echo row=tcp-in; load tcp:{HOST_IP}:7003 sink
        echo row=udp-out; load udp:{HOST_IP}:7004 flood 64 20000""",
    "vsock": f"""echo row=vsock-ping; load vsock:2:7001 ping 300
        echo row=vsock-out; load vsock:2:7002 send {VSOCK_BYTES}
        echo row=vsock-in; load vsock:2:7003 sink""",
    # All that is ballooned has been touched before: so memory is given back, and comes back as zeros.
    "balloon": f"load hog {BALLOON_MIB + 64}; echo row=ready; sleep 1000",
}


class Guest:
    """One machine and what its console says, line by line, with the time its monitor has used."""

    def __init__(self, command: list[str]):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)
        self.end = time.monotonic() + LIMIT
        self.data = b""
        self.tail: list[str] = []

    def line(self) -> str | None:
        """The next line, None at the end of the machine or of patience."""
        while b"\n" not in self.data:
            left = self.end - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, left))
            chunk = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not chunk:
                return None
            self.data += chunk
        line, self.data = self.data.split(b"\n", 1)
        text = line.decode(errors="replace").strip()
        self.tail = [*self.tail[-15:], text]
        return text

    def cpu_us(self) -> float:
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) * 1e6 / TICKS

    def rss_kib(self) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1])

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


# ---- monitors ---------------------------------------------------------------------------------------


def script_word(what: str) -> str:
    return "mayfly.do=sh:" + base64.b64encode(SCRIPTS[what].encode()).decode()


def mayfly(what: str) -> list[str]:
    config = {
        "boot-source": {"kernel_image_path": str(DIR / "vmlinux"), "initrd_path": str(DIR / "initrd"),
                        "boot_args": f"{ARGS} {script_word(what)}"},
        "machine-config": {"vcpu_count": 1, "mem_size_mib": MEM_MIB},
        "drives": [],
    }
    if what == "disk":
        config["drives"] = [{"drive_id": "d", "path_on_host": str(DIR / "disk"), "is_root_device": False,
                             "io_engine": "Async"}]
    if what == "net":
        config["network-interfaces"] = [{"iface_id": "n", "host_dev_name": TAP}]
    if what == "vsock":
        for stale in (DIR / "v", DIR / "v.seq"):  # a monitor that was killed leaves both
            stale.unlink(missing_ok=True)
        config["vsock"] = {"guest_cid": CID, "uds_path": str(DIR / "v")}
    if what == "balloon":
        config["balloon"] = {"amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": 3600}
    (DIR / "config.json").write_text(json.dumps(config))
    (DIR / "api").unlink(missing_ok=True)
    return [str(DIR / "mayfly"), "--config-file", str(DIR / "config.json"), "--level", "Error",
            "--api-sock", str(DIR / "api")]


def qemu(what: str) -> list[str]:
    devices = {
        "disk": ["-drive", f"if=none,id=d,file={DIR}/disk,format=raw,aio=io_uring",
                 "-device", "virtio-blk-device,drive=d"],
        "net": ["-netdev", f"tap,id=n,ifname={TAP},script=no,downscript=no",
                "-device", "virtio-net-device,netdev=n"],
        "vsock": ["-device", f"vhost-vsock-device,guest-cid={CID}"],
        "balloon": ["-device", "virtio-balloon-device", "-qmp", f"unix:{DIR}/qmp,server=on,wait=off"],
    }
    return ["qemu-system-x86_64", "-M",
            "microvm,accel=kvm,x-option-roms=off,rtc=off,pit=off,pic=off,isa-serial=on",
            "-cpu", "host", "-smp", "1", "-m", str(MEM_MIB), "-nodefaults", "-no-user-config",
            "-nographic", "-no-reboot", "-serial", "stdio", "-kernel", str(DIR / "vmlinux"),
            "-initrd", str(DIR / "initrd"), "-append", f"{ARGS} {script_word(what)}", *devices[what]]


MONITORS = {"mayfly": mayfly, "qemu": qemu}

# ---- the host's side ----------------------------------------------------------------------------------


def serve(who: str, what: str) -> list[subprocess.Popen]:
    """The peers of the guest's connections; each ends with its connection, or is killed."""

    def address(kind: str, port: int) -> str:
        if what == "net":
            return f"@{kind}:{HOST_IP}:{port}"
        return f"@unix:{DIR}/v_{port}" if who == "mayfly" else f"@vsock:4294967295:{port}"

    if what not in ("net", "vsock"):
        return []
    for stale in DIR.glob("v_*"):
        stale.unlink()
    size = NET_BYTES if what == "net" else VSOCK_BYTES
    peers = [(address("tcp", 7001), "echo"), (address("tcp", 7002), "sink"),
             (address("tcp", 7003), "send", str(size))]
    if what == "net":
        peers.append((address("udp", 7004), "sink"))
    return [subprocess.Popen([str(LOAD), *p], stdout=subprocess.DEVNULL) for p in peers]


def report(who: str, name: str, value: float) -> None:
    print(f"{who} {name} {value:.3f}", flush=True)


def report_row(who: str, row: str, facts: dict[str, float], cpu_us: float) -> None:
    us, amount = facts["us"], facts["bytes"]
    if row.endswith("-ping"):
        report(who, f"{row} us", us / 300)
    elif row == "udp-out":
        report(who, "udp-out kpps", 20000 / us * 1000)
    elif "ops" in facts:
        report(who, f"{row} kiops", facts["ops"] / us * 1000)
        report(who, f"{row} monitor us/op", cpu_us / max(1.0, facts["ops"]))
    else:
        report(who, f"{row} MiB/s", amount / us * 1e6 / (1 << 20))
        report(who, f"{row} monitor us/MiB", cpu_us / (amount / (1 << 20)))


def measure(who: str, what: str, guest: Guest) -> bool:
    """Follows the script; true if it came to its end."""
    row, facts, before = "", {}, 0.0
    while (line := guest.line()) is not None:
        if "mayfly guest: done" in line:
            return "done 0" in line
        name, _, value = line.partition("=")
        if name == "row":
            row, facts, before = value, {}, guest.cpu_us()
        elif value.isdigit():
            facts[name] = float(value)
            if name == "us" and row:
                report_row(who, row, facts, guest.cpu_us() - before)
    return False


# ---- balloon ----------------------------------------------------------------------------------------------


def ask(path: Path, text: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(30)
        s.connect(str(path))
        if path.name == "qmp":
            s.recv(65536)
            s.sendall(b'{"execute":"qmp_capabilities"}\n')
            s.recv(65536)
        s.sendall(text)
        return s.recv(65536)


def set_target(who: str, balloon_mib: int) -> None:
    if who == "mayfly":
        body = json.dumps({"amount_mib": balloon_mib}).encode()
        head = f"PATCH /balloon HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        answer = ask(DIR / "api", head + body)
        assert b" 204 " in answer, answer
    else:
        value = (MEM_MIB - balloon_mib) << 20
        ask(DIR / "qmp", b'{"execute":"balloon","arguments":{"value":%d}}\n' % value)


def held_mib(who: str) -> int:
    """What the guest says that the balloon holds: its driver tells after every handful of pages."""
    if who == "mayfly":
        answer = ask(DIR / "api", b"GET /balloon/statistics HTTP/1.1\r\n\r\n")
        return int(re.search(rb'"actual_mib":\s*(\d+)', answer)[1])
    answer = ask(DIR / "qmp", b'{"execute":"query-balloon"}\n')
    while not (actual := re.search(rb'"actual":\s*(\d+)', answer)):  # an event came first
        answer = ask(DIR / "qmp", b'{"execute":"query-balloon"}\n')
    return MEM_MIB - (int(actual[1]) >> 20)


def move(who: str, guest: Guest, mib: int) -> float | None:
    """Seconds until the balloon has that size; looked at five times a second, so seldom enough."""
    begin = time.monotonic()
    set_target(who, mib)
    while time.monotonic() < guest.end:
        if held_mib(who) == mib:
            return time.monotonic() - begin
        time.sleep(0.2)
    return None


def measure_balloon(who: str, guest: Guest) -> bool:
    while (line := guest.line()) != "row=ready":
        if line is None:
            return False
    for way, mib in (("in", BALLOON_MIB), ("out", 0)):
        rss, cpu = guest.rss_kib(), guest.cpu_us()
        took = move(who, guest, mib)
        if took is None:
            return False
        report(who, f"balloon {way} MiB/s", BALLOON_MIB / took)
        report(who, f"balloon {way} process us/MiB", (guest.cpu_us() - cpu) / BALLOON_MIB)
        if way == "in":
            report(who, "balloon in, resident MiB given back", (rss - guest.rss_kib()) / 1024)
    return True


# ---- all ----------------------------------------------------------------------------------------------------


def one(who: str, what: str) -> None:
    guest = Guest(MONITORS[who](what))
    peers = serve(who, what)
    try:
        ended = measure_balloon(who, guest) if what == "balloon" else measure(who, what, guest)
        if not ended:
            print(f"failed {who} {what}: {guest.tail}", flush=True)
    finally:
        guest.stop()
        for peer in peers:
            peer.kill()
            peer.wait()


def prepare() -> None:
    shutil.copy(BUILD / "mayfly", DIR / "mayfly")
    shutil.copy(BUILD / "bench" / "load", LOAD)
    shutil.copy(IMAGES / "vmlinux-smp", DIR / "vmlinux")
    shutil.copy(IMAGES / "initrd.cpio", DIR / "initrd")
    with open(DIR / "disk", "wb") as f:
        for _ in range(128):
            f.write(os.urandom(1 << 20))
    if "net" in WHAT:
        subprocess.run(["ip", "tuntap", "add", TAP, "mode", "tap", "vnet_hdr"], check=True)
        subprocess.run(["ip", "addr", "add", f"{HOST_IP}/24", "dev", TAP], check=True)
        subprocess.run(["ip", "link", "set", TAP, "up"], check=True)
    if "vsock" in WHAT:
        subprocess.run(["modprobe", "vhost_vsock"], check=False, stderr=subprocess.DEVNULL)


def main() -> None:
    # A network of our own: nothing of the host's is touched, and nothing stays.
    if "net" in WHAT and "MF_BENCH_NS" not in os.environ:
        os.environ["MF_BENCH_NS"] = "1"
        os.execvp("unshare", ["unshare", "-n", sys.executable, *sys.argv])
    try:
        prepare()
        print(f"host Linux {platform.release()}, {os.cpu_count()} processors")
        names = [n for n in MONITORS if n == "mayfly" or shutil.which("qemu-system-x86_64")]
        for _ in range(ROUNDS):
            for what in WHAT:
                for who in names:
                    one(who, what)
    finally:
        shutil.rmtree(DIR, ignore_errors=True)


main()
