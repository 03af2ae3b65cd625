"""The command line: what is taken, what is refused, with which exit code and which words."""

from __future__ import annotations

import functools
import os
import re
import subprocess

from inside import outside
from mayfly import BINARY, SCALE, TIMEOUT, Monitor, guest, tempdir

BAD_LEVEL, BAD_ARGUMENT = 152, 153


def call(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BINARY), *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIMEOUT * SCALE,
    )


def refused(*args: str, naming: str, code: int = BAD_ARGUMENT) -> None:
    done = call(*args)
    assert done.returncode == code, f"{args}: {done}"
    assert naming in done.stderr, f"{args}: {naming!r} is not named: {done.stderr!r}"
    assert not done.stdout or code == BAD_LEVEL, f"{args}: {done.stdout!r}"


def test_version():
    done = call("--version")
    assert done.returncode == 0
    first = done.stdout.splitlines()[0]
    assert re.fullmatch(r"Firecracker v\d+\.\d+\.\d+\S*", first), first


def test_version_is_the_one_the_api_reports():
    version = call("--version").stdout.splitlines()[0].removeprefix("Firecracker v")
    with Monitor() as m:
        assert m.api.get("/version").json == {"firecracker_version": version}
        assert m.api.get("/").json["vmm_version"] == version


def test_help_names_every_option():
    done = call("--help")
    assert done.returncode == 0
    options = "api-sock id config-file no-api boot-timer log-path level module show-level "
    options += "show-log-origin http-api-max-payload-size no-seccomp describe-snapshot "
    options += "snapshot-version version help"
    for option in options.split():
        assert f"--{option}" in done.stdout, option
    assert call("-h").stdout == done.stdout


def test_help_and_version_win_over_everything():
    assert call("--bogus", "--help").returncode == 0
    assert call("--id", "--version").returncode == 0
    assert call("--version", "--level", "nonsense").returncode == 0


@functools.cache
def state_file() -> bytes:
    """What a machine has really written."""
    directory = tempdir()
    with Monitor() as m:
        m.configure(guest("count"))
        m.start()
        m.pause()
        m.api.must("PUT", "/snapshot/create", {"snapshot_path": str(directory / "state"),
                                               "mem_file_path": str(directory / "mem")})
    return (directory / "state").read_bytes()


def described(content: bytes) -> subprocess.CompletedProcess[str]:
    path = tempdir() / "state"
    path.write_bytes(content)
    return call("--describe-snapshot", str(path))


def test_snapshots_written_here_have_the_version_that_is_told():
    version = call("--snapshot-version")
    assert (version.returncode, version.stderr) == (0, ""), version
    assert re.fullmatch(r"v\d+\.\d+\.\d+\n", version.stdout), version
    done = described(state_file())
    assert (done.returncode, done.stdout, done.stderr) == (0, version.stdout, ""), done


def test_files_that_are_no_snapshots_are_not_described():
    whole = state_file()
    future = whole[:8] + (1000).to_bytes(4, "little") * 2 + whole[16:]
    outdated = whole[:8] + bytes(8) + whole[16:]
    damaged = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
    for content, words in ((b"", "too short"), (whole[:20], "too short"), (whole[:-1], "damaged"),
                           (damaged, "damaged"), (b"#!/bin/sh\n" * 100, "not a snapshot"),
                           (future, "has format 1000"), (outdated, "has format 0")):
        done = described(content)
        assert (done.returncode, done.stdout) == (1, ""), f"{words}: {done}"
        assert words in done.stderr and done.stderr.count("\n") == 1, f"{words}: {done}"


def test_paths_that_are_no_files_are_not_described():
    directory = tempdir()
    os.mkfifo(directory / "fifo")
    for path, words in ((directory / "none", "No such file"), (directory, "not a regular file"),
                        (directory / "fifo", "not a regular file")):
        done = call("--describe-snapshot", str(path))
        assert (done.returncode, done.stdout) == (1, ""), done
        assert words in done.stderr and done.stderr.count("\n") == 1, done
    refused("--describe-snapshot", naming="--describe-snapshot")
    refused("--snapshot-version=1", naming="--snapshot-version")


def test_unknown_arguments():
    refused("--bogus", naming="bogus")
    refused("--bogus=1", naming="bogus")
    refused("bogus", naming="bogus")
    refused("-x", naming="-x")


def test_duplicate_arguments():
    refused("--id", "a", "--id", "b", naming="--id")
    refused("--no-api", "--no-api", naming="--no-api")
    refused("--level=Info", "--level", "Info", naming="--level")


def test_missing_values():
    refused("--id", naming="--id")
    refused("--id", "--no-api", naming="--id")
    refused("--api-sock", naming="--api-sock")
    refused("--config-file", "--boot-timer", naming="--config-file")


def test_values_that_do_not_fit():
    refused("--http-api-max-payload-size", "many", naming="http-api-max-payload-size")
    refused("--http-api-max-payload-size", "-1", naming="http-api-max-payload-size")
    refused("--http-api-max-payload-size", "1" * 30, naming="http-api-max-payload-size")
    refused("--boot-timer=yes", naming="boot-timer")


def test_no_api_needs_a_config_file():
    refused("--no-api", naming="--config-file")


def test_bad_level():
    refused("--level", "loud", "--api-sock", "/nowhere/x", naming="loud", code=BAD_LEVEL)
    refused("--level=", naming="level")


def test_levels_in_any_case():
    for level in ("Off", "error", "WARN", "warning", "Info", "dEbUg", "Trace"):
        with Monitor("--show-level", level=level) as m:
            m.assert_alive()


def test_level_decides_what_is_logged():
    with Monitor(level="Error") as m:
        m.assert_alive()
        assert m.log() == "", m.log()
    with Monitor(level="Info") as m:
        m.assert_alive()
        assert "API server started." in m.log()


@outside("chooses the id in a way the jail's own --id would clash with")
def test_equals_sign_is_as_good_as_a_space():
    directory = tempdir()
    socket = directory / "api.sock"
    m = Monitor(
        f"--api-sock={socket}", "--id=with-equals", api=False, directory=directory
    )
    m.wait_for_socket()
    assert m.api.get("/").json["id"] == "with-equals"


def test_id():
    with Monitor("--id", "abc-123") as m:
        assert m.api.get("/").json["id"] == "abc-123"
        assert "[abc-123:" in m.log(), m.log()
    with Monitor() as m:
        assert m.api.get("/").json["id"] == "anonymous-instance"


def test_ids_that_are_none():
    for bad in ("under_score", "a/b", "a b", "x" * 65, "ä"):
        done = call("--id", bad, "--api-sock", "/nowhere/x")
        assert done.returncode not in (0, None), bad
        assert "Invalid instance ID" in done.stderr, f"{bad}: {done.stderr}"
    with Monitor("--id", "x" * 64) as m:
        assert m.api.get("/").json["id"] == "x" * 64


def test_log_line_format():
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}"
    with Monitor("--id", "name", "--show-level", "--show-log-origin") as m:
        m.assert_alive()
        for line in m.log().splitlines():
            assert re.match(rf"{stamp} \[name:[^:]+:[A-Z]+:[^:]+:\d+\] ", line), line
    with Monitor("--id", "name") as m:
        m.assert_alive()
        for line in m.log().splitlines():
            assert re.match(rf"{stamp} \[name:[^:\]]+\] ", line), line


def test_log_begins_as_clients_expect():
    with Monitor() as m:
        lines = m.log().splitlines()
        assert "Running Firecracker v" in lines[0]
        assert any("Listening on API socket" in line for line in lines), lines
        m.wait_for_log("API server started.")


def test_log_goes_to_standard_output_by_default():
    with Monitor(log=False) as m:
        m.wait_for_console("API server started.")


def test_log_to_a_fifo_without_a_reader_never_blocks():
    directory = tempdir()
    fifo = directory / "fifo"
    os.mkfifo(fifo)
    with Monitor("--log-path", str(fifo), "--level", "Debug", log=False, directory=directory) as m:
        for _ in range(2000):  # more than a pipe holds
            m.api.must("GET", "/", status=200)
        m.configure(guest("console"), "do=hello")
        m.start()
        assert m.wait_exit() == 0


def test_log_to_a_full_device_does_not_matter():
    with Monitor("--log-path", "/dev/full", log=False) as m:
        m.assert_alive()


def test_log_path_that_cannot_be_opened():
    done = call("--log-path", "/nowhere/log", "--api-sock", "/nowhere/x")
    assert done.returncode == 1, done
    assert "/nowhere/log" in done.stderr, done.stderr


def test_log_file_is_appended_to_and_not_truncated():
    directory = tempdir()
    log = directory / "log"
    log.write_text("")
    with Monitor(directory=directory) as m:
        m.assert_alive()
    first = log.read_text()
    assert first


def test_payload_limit():
    for limit in (100, 1000):
        with Monitor("--http-api-max-payload-size", str(limit)) as m:
            body = {"kernel_image_path": "x" * limit}
            raw = m.raw()
            raw.send(
                b"PUT /boot-source HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (limit + 1)
            )
            answer = raw.response()
            assert answer.status == 400, answer
            assert f"limit of {limit} allowed" in answer.body.decode(), answer
            m.assert_alive()


@outside("the jailer gives these options itself")
def test_options_of_the_jailer_are_taken():
    with Monitor(
        "--start-time-us", "1", "--start-time-cpu-us", "2", "--parent-cpu-time-us", "3"
    ) as m:
        m.assert_alive()


def test_no_seccomp_is_taken():
    with Monitor("--no-seccomp") as m:
        m.assert_alive()
