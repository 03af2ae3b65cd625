"""The REST API as its clients see it: every endpoint before and after the start, every text.

Clients match on these texts, so they are spelled out here. What can go wrong below the level of a
request is in test_api_bytes.py.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from mayfly import Monitor, Response, drive, guest, make_disk, needs, start_guest, tempdir

JSON = "An error occurred when deserializing the json body of a request: "
BEFORE = "The requested operation is not supported before starting the microVM."
AFTER = "The requested operation is not supported after starting the microVM."
START = {"action_type": "InstanceStart"}


def send(m: Monitor, method: str, path: str, body: str | None = None) -> Response:
    """A request whose body need not be JSON."""
    raw = m.raw()
    data = (body or "").encode()
    length = f"Content-Length: {len(data)}\r\n" if body is not None else ""
    raw.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n".encode() + data)
    answer = raw.response()
    raw.close()
    return answer


def state(m: Monitor) -> bytes:
    return m.api.get("/vm/config").body + m.api.get("/").body


def refused(m: Monitor, method: str, path: str, body: Any, fault: str) -> None:
    """The exact text; and nothing has changed."""
    before = state(m)
    answer = m.api.request(method, path, body)
    assert answer.status == 400, f"{method} {path} {body}: {answer}"
    assert answer.fault == fault, f"{method} {path} {body}:\n  {answer.fault}\nnot\n  {fault}"
    assert state(m) == before, f"{method} {path} {body} was refused and changed something"


def running(**more: Any) -> Monitor:
    m = Monitor(**more)
    m.configure(guest("ends"), "do=wait")
    m.start()
    m.wait_for_console("now")
    return m


# ---- answers -------------------------------------------------------------------------------------


def test_answers_look_as_clients_expect():
    with Monitor("--id", "an-id") as m:
        raw = m.raw()
        raw.send(b"GET / HTTP/1.1\r\n\r\n")
        answer = raw.response()
        assert answer.head == (
            b"HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer.body)
        )
        assert answer.body == (
            b'{"id":"an-id","state":"Not started","vmm_version":"1.16.0",'
            b'"app_name":"Firecracker"}'
        )
        raw.send(b"PUT /entropy HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        answer = raw.response()
        assert answer.head == (
            b"HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"
        )
        assert answer.body == b""
        raw.send(b"PUT /entropy HTTP/1.1\r\nContent-Length: 1\r\n\r\n{")
        answer = raw.response()
        assert answer.status == 400
        assert answer.body == (
            b'{"fault_message":"' + JSON.encode() + b'EOF while parsing an object at line 1 column 1."}'
        )


def test_a_captured_go_request():
    # H10: byte for byte what the Go client sends, twice on one connection.
    request = (
        b"PUT /machine-config HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Go-http-client/1.1\r\n"
        b"Content-Length: 47\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
        b'Accept-Encoding: gzip\r\n\r\n{"mem_size_mib":64,"smt":false,"vcpu_count":1}\n'
    )
    with Monitor() as m:
        raw = m.raw()
        for _ in range(2):
            raw.send(request)
            answer = raw.response()
            assert (answer.status, answer.body) == (204, b""), answer
        assert m.api.get("/machine-config").json["mem_size_mib"] == 64


def test_versions_agree():
    # H1: the version behind `Firecracker v` is the one in /version, and a strict semver.
    from mayfly import BINARY

    first = subprocess.run([BINARY, "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    with Monitor() as m:
        version = m.api.get("/version").json["firecracker_version"]
        assert first == f"Firecracker v{version}"
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert m.api.get("/").json["vmm_version"] == version


@needs("alone")
def test_the_first_answer_comes_soon():
    # H8: 250 ms from spawning to the first answer, of which we take a tenth.
    best = 1.0
    for _ in range(5):
        begin = time.monotonic()
        with Monitor() as m:
            m.api.must("GET", "/machine-config", status=200)
            best = min(best, time.monotonic() - begin)
    assert best < 0.25, f"{best * 1000:.0f} ms"


def test_curl():
    if not shutil.which("curl"):
        from mayfly import skip

        skip("no curl")
    with Monitor() as m:
        body = '{"vcpu_count":2,"mem_size_mib":64}'
        done = subprocess.run(
            ["curl", "-sS", "--http1.1", "--unix-socket", m.socket, "-X", "PUT", "-d", body,
             "-w", "%{http_code}", "http://localhost/machine-config"],
            capture_output=True, text=True, timeout=30,
        )
        assert (done.stdout, done.stderr) == ("204", ""), done
        done = subprocess.run(
            ["curl", "-sS", "--unix-socket", m.socket, "http://localhost/machine-config",
             "http://localhost/version"],
            capture_output=True, text=True, timeout=30,
        )
        assert done.stdout.startswith('{"vcpu_count":2,') and "1.16.0" in done.stdout, done


# ---- before the start ----------------------------------------------------------------------------


def test_defaults():
    # H7: answers before anything is configured.
    with Monitor() as m:
        assert m.api.get("/machine-config").json == {
            "vcpu_count": 1, "mem_size_mib": 128, "smt": False, "track_dirty_pages": False,
            "huge_pages": "None",
        }
        assert list(m.api.get("/vm/config").json.items()) == [
            ("balloon", None), ("drives", []), ("boot-source", None), ("cpu-config", None),
            ("logger", None),
            ("machine-config", m.api.get("/machine-config").json), ("metrics", None),
            ("mmds-config", None), ("network-interfaces", []), ("vsock", None), ("entropy", None),
            ("pmem", []), ("memory-hotplug", None),
        ]


def test_what_is_put_is_shown():
    with Monitor() as m:
        disk = make_disk(m.dir / "disk", 4096)
        m.api.must("PUT", "/boot-source", {
            "kernel_image_path": str(guest("console")), "initrd_path": None, "boot_args": "a b",
        })
        m.api.must("PUT", "/machine-config", {
            "vcpu_count": 4, "mem_size_mib": 256, "smt": True, "track_dirty_pages": True,
            "huge_pages": "2M",
        })
        limit = {"bandwidth": {"size": 1, "one_time_burst": None, "refill_time": 100}, "ops": None}
        m.api.must("PUT", "/drives/data", drive(disk, "data", rate_limiter=limit))
        m.api.must("PUT", "/drives/root", drive(
            disk, "root", is_root_device=True, is_read_only=True, partuuid="0eaa91a0-01",
            cache_type="Writeback", io_engine="Async"))
        m.api.must("PUT", "/entropy", {"rate_limiter": limit})
        config = m.api.get("/vm/config").json
        assert config["boot-source"] == {
            "kernel_image_path": str(guest("console")), "initrd_path": None, "boot_args": "a b",
        }
        assert config["machine-config"] == {
            "vcpu_count": 4, "mem_size_mib": 256, "smt": True, "track_dirty_pages": True,
            "huge_pages": "2M",
        }
        assert config["drives"] == [
            {"drive_id": "root", "partuuid": "0eaa91a0-01", "is_root_device": True,
             "cache_type": "Writeback", "is_read_only": True, "path_on_host": str(disk),
             "rate_limiter": None, "io_engine": "Async", "socket": None},
            {"drive_id": "data", "partuuid": None, "is_root_device": False,
             "cache_type": "Unsafe", "is_read_only": False, "path_on_host": str(disk),
             "rate_limiter": limit, "io_engine": "Sync", "socket": None},
        ]
        assert config["entropy"] == {"rate_limiter": limit}


def test_null_and_empty_mean_absent():
    # H14, H24: what Kata and others write for "not set"; an empty file is a valid drive.
    with Monitor() as m:
        empty = m.dir / "empty"
        empty.touch()
        m.api.must("PUT", "/boot-source", {
            "kernel_image_path": str(guest("console")), "initrd_path": None, "boot_args": None,
        })
        m.api.must("PUT", "/drives/d", drive(
            empty, "d", rate_limiter=None, partuuid=None, cache_type=None, is_read_only=None,
            io_engine=None, socket=None))
        m.api.must("PUT", "/drives/d", drive(empty, "d", rate_limiter={}))
        m.api.must("PUT", "/drives/d", drive(
            empty, "d", rate_limiter={"ops": {"size": 0, "refill_time": 0}}))
        assert m.api.get("/vm/config").json["drives"][0]["rate_limiter"] is None
        m.api.must("PUT", "/entropy", {})
        m.api.must("PUT", "/entropy", {"rate_limiter": None})
        m.api.must("PUT", "/serial", {"serial_out_path": None, "rate_limiter": None})
        m.api.must("PUT", "/machine-config", {
            "vcpu_count": 1, "mem_size_mib": 128, "cpu_template": None, "huge_pages": None,
        })
        m.api.must("PATCH", "/machine-config", {"vcpu_count": 2, "mem_size_mib": None})
        assert m.api.get("/machine-config").json["vcpu_count"] == 2


def test_machine_config_texts():
    cpus = ("Machine config error: The number of vCPUs must be greater than 0, less than 32 and must "
            "be 1 or an even number if SMT is enabled.")
    memory = ("Machine config error: The memory size (MiB) is either 0, or not a multiple of the "
              "configured page size.")
    path = "/machine-config"
    with Monitor() as m:
        for verb in ("PUT", "PATCH"):
            refused(m, verb, path, {"vcpu_count": 0, "mem_size_mib": 1}, cpus)
            refused(m, verb, path, {"vcpu_count": 33, "mem_size_mib": 1}, cpus)
            refused(m, verb, path, {"vcpu_count": 3, "mem_size_mib": 1, "smt": True}, cpus)
            refused(m, verb, path, {"vcpu_count": 1, "mem_size_mib": 0}, memory)
            refused(m, verb, path, {"vcpu_count": 1, "mem_size_mib": 7, "huge_pages": "2M"}, memory)
        refused(m, "PATCH", path, {}, "Empty PATCH request.")
        refused(m, "PUT", path, {}, JSON + "missing field `vcpu_count` at line 1 column 2.")
        refused(m, "PUT", path, {"vcpu_count": 1},
                JSON + "missing field `mem_size_mib` at line 1 column 17.")
        refused(m, "PUT", path, {"vcpu_count": "-2", "mem_size_mib": 1},
                JSON + 'invalid type: string "-2", expected u8 at line 1 column 19.')
        refused(m, "PUT", path, {"vcpu_count": -2, "mem_size_mib": 1},
                JSON + "invalid value: integer `-2`, expected u8 at line 1 column 17.")
        refused(m, "PUT", path, {"vcpu_count": 256, "mem_size_mib": 1},
                JSON + "invalid value: integer `256`, expected u8 at line 1 column 18.")
        refused(m, "PUT", path, {"vcpu_count": 1, "mem_size_mib": "1"},
                JSON + 'invalid type: string "1", expected usize at line 1 column 37.')
        refused(m, "PUT", path, {"vcpu_count": 1, "mem_size_mib": 1, "huge_pages": "7M"},
                JSON + "unknown variant `7M`, expected one of `None`, `Transparent`, `2M` at line 1 "
                "column 55.")
        refused(m, "PUT", path, {"ht_enabled": False},
                JSON + "unknown field `ht_enabled`, expected one of `vcpu_count`, `mem_size_mib`, "
                "`smt`, `cpu_template`, `track_dirty_pages`, `shareable`, `huge_pages` at line 1 column 13.")


def test_deprecated_template():
    with Monitor() as m:
        answer = m.api.must("PUT", "/machine-config", {
            "vcpu_count": 1, "mem_size_mib": 128, "cpu_template": "T2",
        })
        assert answer.headers["deprecation"] == "true"
        m.wait_for_log("PUT /machine-config: cpu_template field is deprecated.")
        answer = m.api.must("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 64})
        assert "deprecation" not in answer.headers
        assert m.api.get("/machine-config").json["cpu_template"] == "T2"
        answer = m.api.must("PATCH", "/machine-config", {"cpu_template": "None"})
        assert answer.headers["deprecation"] == "true"
        assert "cpu_template" not in m.api.get("/machine-config").json
        answer = m.api.put("/machine-config", {
            "vcpu_count": 0, "mem_size_mib": 128, "cpu_template": "T2",
        })
        assert answer.status == 400 and answer.headers["deprecation"] == "true"


def test_boot_source_texts():
    missing = "No such file or directory (os error 2)"
    good = str(guest("console"))
    with Monitor() as m:
        m.api.must("PUT", "/boot-source", {"kernel_image_path": good})
        refused(m, "PUT", "/boot-source", {"kernel_image_path": "/nowhere"},
                f"Boot source error: The kernel file cannot be opened: {missing}")
        refused(m, "PUT", "/boot-source", {"kernel_image_path": good, "initrd_path": "/nowhere"},
                "Boot source error: The initrd file cannot be opened due to invalid path or invalid "
                f"permissions. {missing}")
        refused(m, "PUT", "/boot-source", {"kernel_image_path": good, "boot_args": "a\u00e9"},
                "Boot source error: The kernel command line is invalid: String contains a "
                "non-printable ASCII character.")
        refused(m, "PUT", "/boot-source", {"kernel_image_path": "/a\0b"},
                JSON + "field `kernel_image_path` contains a NUL character at line 1 column 33.")
        refused(m, "PUT", "/boot-source", {"kernel_image_path": "/" * 5000},
                JSON + "field `kernel_image_path` is too long, expected at most 4095 bytes at line 1 "
                "column 5024.")


def test_drive_texts():
    with Monitor() as m:
        disk = make_disk(m.dir / "disk", 4096)
        m.api.must("PUT", "/drives/root", drive(disk, "root", is_root_device=True))
        create = "Drive config error: Unable to create the virtio block device: "
        refused(m, "PUT", "/drives/b", drive(disk, "b", is_root_device=True),
                "Drive config error: A root block device already exists!")
        refused(m, "PUT", "/drives/b", drive(Path("/nowhere"), "b"),
                create + "Virtio backend error: Error manipulating the backing file: No such file or "
                "directory (os error 2) /nowhere")
        refused(m, "PUT", "/drives/b", {"drive_id": "b", "is_root_device": False},
                create + "Invalid block config.")
        refused(m, "PUT", "/drives/b", drive(disk, "b", socket="/s"),
                create + "Invalid block config.")
        refused(m, "PUT", "/drives/b", {"drive_id": "b", "is_root_device": False, "socket": "/s"},
                create + "vhost-user drives (`socket`) are not supported yet.")
        refused(m, "PUT", "/drives/b", drive(disk, "c"),
                "The id from the path does not match the id from the body!")
        refused(m, "PUT", "/drives/b-b", drive(disk, "b-b"),
                "API Resource IDs can only contain alphanumeric characters and underscores.")
        refused(m, "PUT", "/drives/", drive(disk, ""), "The ID cannot be empty.")
        refused(m, "PUT", "/drives/" + "d" * 65, drive(disk, "d" * 65),
                "The ID is too long: at most 64 characters.")
        refused(m, "PUT", "/drives/b", {"is_root_device": False},
                JSON + "missing field `drive_id` at line 1 column 25.")
        refused(m, "PUT", "/drives/b", drive(disk, "b", io_engine="Fast"),
                JSON + "unknown variant `Fast`, expected `Sync` or `Async` at line 1 column "
                f"{len(json.dumps(drive(disk, 'b', io_engine='Fast'))) - 1}.")
        refused(m, "PATCH", "/drives/root", {"drive_id": "root"}, BEFORE)
        refused(m, "DELETE", "/drives/root", None, BEFORE)


def test_drives_are_replaced_in_place():
    with Monitor() as m:
        one, two = make_disk(m.dir / "one", 4096), make_disk(m.dir / "two", 8192)
        for name in ("a", "b", "c"):
            m.api.must("PUT", f"/drives/{name}", drive(one, name))
        m.api.must("PUT", "/drives/b", drive(two, "b"))
        shown = m.api.get("/vm/config").json["drives"]
        assert [d["drive_id"] for d in shown] == ["a", "b", "c"]
        assert shown[1]["path_on_host"] == str(two)
        m.api.must("PUT", "/drives/c", drive(two, "c", is_root_device=True))
        shown = m.api.get("/vm/config").json["drives"]
        assert [d["drive_id"] for d in shown] == ["c", "a", "b"]
        fds = m.fds()
        for _ in range(50):
            m.api.must("PUT", "/drives/a", drive(one, "a"))
        assert m.fds() == fds


def test_requests_that_nobody_knows():
    rows = [
        ("GET", "/", "{}", "GET request cannot have a body."),
        ("PUT", "/machine-config", None, "Empty PUT request."),
        ("PUT", "/foo", None, "Empty PUT request."),
        ("PATCH", "/vm", None, "Empty PATCH request."),
        ("DELETE", "/drives/a", "{}", "Empty Delete request."),
        ("PUT", "/foo", "{}", "Invalid request method and/or path: PUT foo."),
        ("PUT", "/foo/bar", "{}", "Invalid request method and/or path: PUT foo."),
        ("GET", "/foo", None, "Invalid request method and/or path: GET foo."),
        ("PATCH", "/entropy", "{}", "Invalid request method and/or path: PATCH entropy."),
        ("DELETE", "/vm", None, "Invalid request method and/or path: DELETE vm."),
        ("PUT", "/snapshot", "{}", "Missing snapshot operation type."),
        ("PUT", "/snapshot/x", "{}", "Invalid request method and/or path: PUT /snapshot/x."),
        ("GET", "/version?a=b", None, "Invalid request method and/or path: GET version?a=b."),
        ("GET", "/%76ersion", None, "Invalid request method and/or path: GET %76ersion."),
        ("GET", "/vm/../version", None, "Invalid request method and/or path: GET vm."),
        ("GET", "//version", None, "Invalid request method and/or path: GET ."),
    ]
    with Monitor() as m:
        for method, path, body, fault in rows:
            answer = send(m, method, path, body)
            assert answer.status == 400 and answer.fault == fault, f"{method} {path}: {answer}"
        assert send(m, "GET", "/version/").status == 200


def test_what_is_not_there_yet_says_so():
    rows = [
        ("PUT", "/metrics"),
        ("GET", "/mmds"), ("PUT", "/mmds"), ("PATCH", "/mmds"), ("PUT", "/mmds/config"),
        ("PUT", "/cpu-config"),
        ("PUT", "/pmem/a"), ("PATCH", "/pmem/a"), ("PUT", "/hotplug/memory"),
        ("PATCH", "/hotplug/memory"), ("GET", "/hotplug/memory"),
    ]
    for m in (Monitor(), running()):
        for method, path in rows:
            answer = m.api.request(method, path, None if method == "GET" else {})
            assert answer.status == 400, answer
            assert re.fullmatch(
                rf"The requested operation is not supported: {method} /\S+ is not implemented yet\.",
                answer.fault), answer
        m.kill()


def test_broken_json():
    rows = [
        ("", "Empty PUT request."),
        (" ", JSON + "EOF while parsing a value at line 1 column 1."),
        ("{", JSON + "EOF while parsing an object at line 1 column 1."),
        ('{"vcpu_count":1,}', JSON + "trailing comma at line 1 column 17."),
        ("{} x", JSON + "trailing characters at line 1 column 4."),
        ("{}{}", JSON + "trailing characters at line 1 column 3."),
        ("// hi\n{}", JSON + "expected value at line 1 column 1."),
        ('{"vcpu_count":NaN}', JSON + "expected value at line 1 column 15."),
        ('{"vcpu_count":01}', JSON + "invalid number at line 1 column 16."),
        ('{"vcpu_count":1.0}',
         JSON + "invalid type: floating point `1.0`, expected u8 at line 1 column 17."),
        ('{"vcpu_count":1e999}',
         JSON + "invalid type: floating point `1e999`, expected u8 at line 1 column 19."),
        ('{"vcpu_count":1,"mem_size_mib":18446744073709551616}',
         JSON + "invalid type: floating point `18446744073709551616.0`, expected usize at line 1 "
         "column 51."),
        ('{"vcpu_count":1,"vcpu_count":1}', JSON + "duplicate field `vcpu_count` at line 1 column 28."),
        ('{"vcpu_count":1,\n"mem_size_mib":x}', JSON + "expected value at line 2 column 16."),
        ("[1,2]", JSON + "invalid type: sequence, expected struct MachineConfig at line 1 column 0."),
        ("[" * 33, JSON + "recursion limit exceeded at line 1 column 33."),
        ("[" * 50000, JSON + "recursion limit exceeded at line 1 column 33."),
        ("null", JSON + "invalid type: null, expected struct MachineConfig at line 1 column 4."),
        ("\ufeff{}", JSON + "expected value at line 1 column 1."),
        ('{"\\ud800":1}', JSON + "unexpected end of hex escape at line 1 column 9."),
    ]
    with Monitor() as m:
        before = state(m)
        for body, fault in rows:
            answer = send(m, "PUT", "/machine-config", body)
            assert answer.status == 400 and answer.fault == fault, f"{body[:60]}: {answer}"
        raw = m.raw()
        for body in (b'"\xff"', b'"\xc0\x80"', '{"a":"é"}'.encode("utf-16"), b'{"a":"\0"}'):
            raw.send(b"PUT /entropy HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert raw.response().fault.startswith(JSON)
        assert state(m) == before


def test_a_great_many_keys():
    with Monitor() as m:
        keys = ",".join(f'"k{i}":0' for i in range(900))
        answer = send(m, "PUT", "/entropy", "{" + keys + "}")
        assert answer.fault.startswith(JSON + "unknown field `k0`"), answer
        answer = send(m, "PUT", "/entropy", "{" + ",".join(f'"k{i}":0' for i in range(4000)) + "}")
        assert "too many values" in answer.fault, answer
        m.assert_alive()


# ---- the start -----------------------------------------------------------------------------------


def test_nothing_to_start():
    with Monitor() as m:
        refused(m, "PUT", "/actions", START,
                "Start microvm error: Cannot start microvm without kernel configuration.")
        for action in ("SendCtrlAltDel", "FlushMetrics"):
            refused(m, "PUT", "/actions", {"action_type": action}, BEFORE)
        for wanted in ("Paused", "Resumed"):
            refused(m, "PATCH", "/vm", {"state": wanted}, BEFORE)
        refused(m, "PUT", "/actions", {"action_type": "foo"},
                JSON + "unknown variant `foo`, expected one of `FlushMetrics`, `InstanceStart`, "
                "`SendCtrlAltDel` at line 1 column 21.")
        refused(m, "PATCH", "/vm", {"state": "Off"},
                JSON + "unknown variant `Off`, expected `Paused` or `Resumed` at line 1 column 15.")


def test_a_start_that_fails_can_be_mended():
    with Monitor() as m:
        not_a_kernel = make_disk(m.dir / "junk", 8192)
        m.configure(not_a_kernel)
        before = state(m)
        fds = m.fds()
        for _ in range(3):
            answer = m.api.put("/actions", START)
            assert answer.status == 400 and answer.fault.startswith("Start microvm error: "), answer
        # Fewer than before: what was made ahead for the start went with the first attempt.
        assert state(m) == before and m.fds() <= fds
        assert len(m.threads()) == 1
        m.configure(guest("ends"), "do=wait")
        m.start()
        m.wait_for_console("now")
        assert m.api.get("/").json["state"] == "Running"


def test_after_the_start():
    with running() as m:
        disk = make_disk(m.dir / "disk", 4096)
        machine = {"vcpu_count": 1, "mem_size_mib": 128}
        boot = {"kernel_image_path": str(guest("console"))}
        refused(m, "PUT", "/machine-config", machine, AFTER)
        refused(m, "PATCH", "/machine-config", {"vcpu_count": 1}, AFTER)
        refused(m, "PUT", "/boot-source", boot, AFTER)
        refused(m, "PUT", "/entropy", {}, AFTER)
        refused(m, "PUT", "/serial", {}, AFTER)
        refused(m, "PUT", "/logger", {"level": "Off"}, AFTER)
        refused(m, "PUT", "/actions", START, AFTER)
        refused(m, "PUT", "/drives/d", drive(disk, "d"), "PCI is not enabled")
        refused(m, "DELETE", "/drives/d", None, "PCI is not enabled")
        # The body is looked at first, as ever.
        refused(m, "PUT", "/machine-config", {},
                JSON + "missing field `vcpu_count` at line 1 column 2.")
        assert m.api.get("/").json["state"] == "Running"
        m.api.must("PUT", "/actions", {"action_type": "FlushMetrics"})
        for path in ("/", "/version", "/vm/config", "/machine-config"):
            m.api.must("GET", path, status=200)


def test_pause_and_resume_are_idempotent():
    # H12
    with running() as m:
        for wanted, shown in (("Resumed", "Running"), ("Paused", "Paused"), ("Paused", "Paused"),
                              ("Resumed", "Running"), ("Resumed", "Running")):
            m.api.must("PATCH", "/vm", {"state": wanted})
            assert m.api.get("/").json["state"] == shown
        m.wait_for_log(r"'pause vm' VMM action took \d+ us\.")


def test_patching_drives_of_a_running_machine():
    directory = tempdir()
    one, two = make_disk(directory / "one", 4096), make_disk(directory / "two", 8192)
    bucket = {"size": 1000, "one_time_burst": None, "refill_time": 100}
    wrong = "Please verify the request arguments."
    with Monitor() as m:
        m.configure(guest("ends"), "do=wait", drives=[drive(one, "d")])
        m.start()
        m.wait_for_console("now")
        fds = m.fds()
        m.api.must("PATCH", "/drives/d", {"drive_id": "d", "path_on_host": str(two)})
        shown = m.api.get("/vm/config").json["drives"][0]
        assert shown["path_on_host"] == str(two)
        assert m.fds() == fds
        refused(m, "PATCH", "/drives/d", {"drive_id": "d", "path_on_host": "/nowhere"},
                "Drive config error: Unable to patch the block device: Virtio backend error: Error "
                f"manipulating the backing file: No such file or directory (os error 2) /nowhere {wrong}")
        refused(m, "PATCH", "/drives/d", {"drive_id": "d"},
                "Drive config error: Unable to patch the block device: Running method expected "
                f"different backend. {wrong}")
        refused(m, "PATCH", "/drives/x", {"drive_id": "x", "path_on_host": str(one)},
                f"Drive config error: Unable to patch the block device: Device not found {wrong}")
        refused(m, "PATCH", "/drives/x", {"drive_id": "d", "path_on_host": str(one)},
                "The id from the path does not match the id from the body!")
        # Not half: a bad path leaves the limit alone (H-04); H28: an empty bucket takes it away.
        m.api.must("PATCH", "/drives/d", {"drive_id": "d", "rate_limiter": {"ops": bucket}})
        refused(m, "PATCH", "/drives/d", {
            "drive_id": "d", "path_on_host": "/nowhere", "rate_limiter": {"bandwidth": bucket},
        }, "Drive config error: Unable to patch the block device: Virtio backend error: Error "
            f"manipulating the backing file: No such file or directory (os error 2) /nowhere {wrong}")
        m.api.must("PATCH", "/drives/d", {"drive_id": "d", "rate_limiter": {"bandwidth": bucket}})
        assert m.api.get("/vm/config").json["drives"][0]["rate_limiter"] == {
            "bandwidth": bucket, "ops": bucket,
        }
        off = {"size": 0, "refill_time": 0}
        m.api.must("PATCH", "/drives/d",
                   {"drive_id": "d", "rate_limiter": {"bandwidth": off, "ops": off}})
        assert m.api.get("/vm/config").json["drives"][0]["rate_limiter"] is None
        m.pause()
        m.api.must("PATCH", "/drives/d",
                   {"drive_id": "d", "path_on_host": str(one), "rate_limiter": None})
        m.resume()
        m.assert_alive()


def test_api_beside_a_configuration_file():
    # H16
    with start_guest("ends", "do=wait", api=True) as m:
        m.wait_for_console("now")
        assert m.api.get("/").json["state"] == "Running"
        assert m.api.get("/vm/config").json["boot-source"]["boot_args"] == "do=wait"
        m.wait_for_log("Successfully started microvm that was configured from one single json")


def test_the_last_answer_is_delivered():
    # The answer to the request that lets the guest end itself is flushed before the exit.
    for _ in range(10):
        with Monitor() as m:
            m.configure(guest("ends"), "do=off")
            assert m.api.put("/actions", START).status == 204
            assert m.wait_exit() == 0


# ---- the log -------------------------------------------------------------------------------------


def test_requests_are_logged():
    with Monitor(level="Debug") as m:
        m.api.must("PUT", "/entropy", {})
        m.api.must("GET", "/version", status=200)
        m.api.patch("/vm", {"state": "x\n"})
        m.api.put("/entropy", "a\"b")
        log = m.log()
        for line in (
            'The API server received a Put request on "/entropy" with body "{}".',
            "The request was executed successfully. Status code: 204 No Content.",
            'The API server received a Get request on "/version".',
            "The request was executed successfully. Status code: 200 OK.",
            'The API server received a Patch request on "/vm" with body '
            '"{\\"state\\": \\"x\\\\n\\"}".',
            "Received Error. Status code: 400 Bad Request. Message: " + JSON + "unknown variant",
        ):
            assert line in log, f"{line}\nis not in\n{log}"
        received = len(re.findall("The API server received a ", log))
        assert received == len(re.findall(r"Total previous API call duration: \d+ us\.", log)) == 4


def test_logger():
    with Monitor(log=False) as m:
        path = m.dir / "new.log"
        m.api.must("PUT", "/logger", {"log_path": str(path), "level": "dEbug", "show_level": True,
                                      "show_log_origin": True})
        m.api.must("GET", "/version", status=200)
        assert re.search(
            r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9} \[anonymous-instance:main:DEBUG:api/\w+\.c:\d+\] "
            r"Total previous API call duration", path.read_text(), re.M), path.read_text()
        # Repeated: what is left out stays, but for the level.
        m.api.must("PUT", "/logger", {"show_log_origin": False})
        size = path.stat().st_size
        m.api.must("GET", "/version", status=200)
        fresh = path.read_text()[size:]
        assert ":INFO] The API server received" in fresh and "Total previous" not in fresh, fresh
        m.api.must("PUT", "/logger", {"level": "Warning"})
        size = path.stat().st_size
        m.api.must("GET", "/version", status=200)
        assert path.stat().st_size == size
        refused(m, "PUT", "/logger", {"log_path": "/nowhere/log"},
                "Logger error: Failed to open target file: No such file or directory (os error 2): "
                "/nowhere/log")
        answer = m.api.put("/logger", {"level": "Loud"})
        assert answer.fault.startswith(JSON + "unknown variant `Loud`, expected one of `Off`"), answer


def test_log_to_a_fifo_that_nobody_reads():
    # H17: neither the missing reader nor the full pipe may hold anything up.
    with Monitor(log=False) as m:
        fifo = m.dir / "fifo"
        os.mkfifo(fifo)
        m.api.must("PUT", "/logger", {"log_path": str(fifo), "level": "Trace"})
        for _ in range(1500):
            m.api.must("GET", "/vm/config", status=200)
        with open(fifo, "rb", buffering=0) as reader:
            os.set_blocking(reader.fileno(), False)
            while reader.read(65536):
                pass
            m.api.must("GET", "/version", status=200)
            text = reader.read(65536).decode()
            assert 'request on "/version"' in text, text
        for _ in range(10):
            m.api.must("GET", "/version", status=200)
        m.assert_alive()


# ---- many ----------------------------------------------------------------------------------------


def test_clients_side_by_side():
    from mayfly import Api

    def work(number: int) -> None:
        client = Api(m.socket)
        for i in range(50):
            client.must("PUT", "/machine-config", {"vcpu_count": 1 + i % 32, "mem_size_mib": 64})
            client.must("GET", "/vm/config", status=200)
        client.close()

    with Monitor() as m:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        m.assert_alive()


def test_a_long_configuration_is_shown_whole():
    with Monitor() as m:
        deep = m.dir
        while len(str(deep)) < 3700:
            deep = deep / ("x" * 200)
        os.makedirs(m.dir / "y", exist_ok=True)
        try:
            os.makedirs(deep)
        except OSError:
            return
        disk = make_disk(deep / "disk", 512)
        for i in range(31):
            m.api.must("PUT", f"/drives/d{i}", drive(disk, f"d{i}"))
        m.api.must("PUT", "/entropy", {})
        config = m.api.get("/vm/config")
        assert len(config.body) > 110000
        assert [d["drive_id"] for d in config.json["drives"]] == [f"d{i}" for i in range(31)]
        # Ten clients that do not read at once get it whole too.
        slow = [m.raw() for _ in range(9)]
        for client in slow:
            client.send(b"GET /vm/config HTTP/1.1\r\n\r\n" * 5)
        for client in slow:
            for _ in range(5):
                assert client.response().body == config.body
            client.close()
