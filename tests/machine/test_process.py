"""The monitor as a process: socket, signals, threads, idleness, what it needs from the host."""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import subprocess

from mayfly import (
    BINARY, Deadline, Monitor, Watch, config_file, digest, guest, needs, run_to_end, start_guest,
    tempdir,
)

EXIT_HANGUP = 156


def running(word: str = "wait", **more) -> Monitor:
    m = Monitor(**more)
    m.configure(guest("ends"), f"do={word}")
    m.start()
    m.wait_for_console("now")
    return m


# ---- the API socket ------------------------------------------------------------------------------


@needs("alone")
def test_the_socket_appears_only_when_it_accepts():
    # Clients connect at the first sight of the file and do not try again. Watch for the file and
    # connect in the very same moment, many times over.
    for _ in range(20):
        directory = tempdir()
        path = directory / "api.sock"
        watch = Watch(directory)
        process = subprocess.Popen(
            [str(BINARY), "--api-sock", str(path), "--level", "Off"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )
        try:
            deadline = Deadline(None, "the socket")
            while not path.exists():
                watch.wait(watch.fd, min(deadline.left(), 0.1))
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(path))  # ConnectionRefusedError if it came too early
            client.close()
        finally:
            process.kill()
            process.wait()
            watch.close()


def test_nothing_but_the_socket_is_left_beside_it():
    with Monitor() as m:
        assert {p.name for p in m.dir.iterdir()} == {"api.sock", "log"}
        assert stat.S_ISSOCK(m.socket.stat().st_mode)


def test_socket_mode_follows_the_umask():
    with Monitor(umask=0o022) as m:
        assert m.socket.stat().st_mode & 0o777 == 0o755
    with Monitor(umask=0o077) as m:
        assert m.socket.stat().st_mode & 0o777 == 0o700


def test_socket_in_use():
    with Monitor() as m:
        done = run_to_end("--api-sock", str(m.socket), log=False)
        assert done.exit_code == 1
        expected = f"Failed to open the API socket at: {m.socket}."
        assert expected in done.errors() + done.output(), done
        assert "Check that it is not already used." in done.errors() + done.output()
        m.assert_alive()  # the first one has not noticed


def test_socket_path_taken_by_a_file():
    directory = tempdir()
    path = directory / "api.sock"
    path.write_text("precious")
    done = run_to_end("--api-sock", str(path))
    assert done.exit_code == 1
    assert path.read_text() == "precious", "a file that is not ours was removed"


def test_socket_path_that_cannot_be():
    for path in ("/nowhere/api.sock", "/tmp/" + "x" * 120):
        done = run_to_end("--api-sock", path)
        assert done.exit_code == 1, path
        assert path in done.errors(), done.errors()


def test_no_api_means_no_socket():
    directory = tempdir()
    path = config_file(directory, guest("ends"), "do=wait")
    with Monitor("--no-api", "--config-file", str(path), api=False, directory=directory) as m:
        m.wait_for_console("now")
        assert not any(p.is_socket() for p in directory.iterdir())


# ---- signals -------------------------------------------------------------------------------------


def test_signals_that_kill():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        for m in (Monitor(), running()):
            m.signal(number)
            assert m.wait_exit() == -number, m.exit_code


def test_hangup_ends_it():
    for m in (Monitor(), running()):
        m.signal(signal.SIGHUP)
        assert m.wait_exit() == EXIT_HANGUP, m.exit_code


def test_the_log_is_complete_when_terminated():
    with running() as m:
        m.signal(signal.SIGTERM)
        m.wait_exit()
        assert "Shutting down VM after intercepting signal 15, code 0." in m.log(), m.log()


def test_last_output_survives_termination():
    with start_guest("console", "do=flood n=50") as m:
        m.wait_for_console("flood over")
        m.wait_exit()
    with start_guest("console", "do=deaf") as m:
        m.wait_for_console("deaf")
        m.signal(signal.SIGTERM)
        m.wait_exit()
        assert "deaf" in m.output()


def test_signals_that_do_not_matter():
    with running() as m:
        for number in (35, signal.SIGPIPE, signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG):
            for _ in range(20):
                m.signal(number)
            m.assert_alive()
        m.wait_for_log("Received signal 13, code 0")


def test_stop_and_continue():
    with running("spin") as m:
        m.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, m.pid, os.WSTOPPED | os.WNOWAIT)
        m.signal(signal.SIGCONT)
        m.assert_alive()


def test_ignored_signals_that_are_inherited_still_work():
    def ignore():
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)

    with running(preexec_fn=ignore) as m:
        m.signal(signal.SIGTERM)
        assert m.wait_exit() == -signal.SIGTERM


def test_fault_signals_end_with_their_codes():
    codes = {
        signal.SIGSYS: 148, signal.SIGBUS: 149, signal.SIGSEGV: 150, signal.SIGXCPU: 154,
        signal.SIGILL: 157,
    }
    for number, code in codes.items():
        with running() as m:
            m.signal(number)
            assert m.wait_exit() == code, f"{number.name}: {m.exit_code}"


# ---- idleness ------------------------------------------------------------------------------------


def wakeups(m: Monitor) -> int:
    return sum(m.switches(tid) for tid in m.threads())


def assert_idle(m: Monitor, seconds: float = 2.0) -> None:
    """Hardly a wake-up in a while: counted, because processor time of others does not matter then.

    The span is only how long to look; a spinning thread would show thousands of ticks or switches.
    """
    ticks, switches = m.cpu_ticks(), wakeups(m)
    select.select([m.pidfd], [], [], seconds)
    assert m.alive(), "it ended"
    spent, woken = m.cpu_ticks() - ticks, wakeups(m) - switches
    assert spent <= 10, f"{spent} ticks of processor time while idle"
    assert woken <= 100, f"{woken} wake-ups while idle"


def test_idle_before_the_start():
    with Monitor() as m:
        assert_idle(m)


def test_idle_with_a_halting_guest():
    with running("wait") as m:
        assert_idle(m)
    with running("halt") as m:
        assert_idle(m)


def test_idle_when_stdin_is_at_its_end():
    closed, other = os.pipe()
    os.close(other)
    for stdin in (None, closed):
        with running("wait", stdin=stdin) as m:
            assert_idle(m)
    os.close(closed)


def test_idle_when_stdin_is_closed_altogether():
    def close():
        os.close(0)

    with running("wait", preexec_fn=close) as m:
        assert_idle(m)


def test_idle_when_paused():
    with running("spin") as m:
        m.pause()
        assert_idle(m)


def test_idle_with_a_silent_client():
    with running("wait") as m:
        clients = [m.raw() for _ in range(5)]
        clients[0].send(b"GET / HT")
        assert_idle(m)
        for client in clients:
            client.close()


# ---- threads and descriptors ---------------------------------------------------------------------


def test_main_thread_is_named_after_the_program():
    with Monitor() as m:
        assert m.threads()[m.pid] == BINARY.name[:15]


def test_stderr_stays_open_until_the_end():
    with running() as m:
        assert not m.stderr.ended
        m.signal(signal.SIGTERM)
        m.wait_exit()
        assert m.stderr.ended


def test_standard_descriptors_closed_at_start():
    # No file of ours may land on 0, 1 or 2: a guest's output would end up on its disk.
    directory = tempdir()
    path = config_file(directory, guest("console"), "do=hello")
    before = digest(path)
    log = directory / "log"
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', str(BINARY), "--no-api",
         "--config-file", str(path), "--log-path", str(log)],
        timeout=60,
    )
    assert done.returncode == 0, log.read_text()
    assert digest(path) == before
    assert "hello from the guest" not in log.read_text()


def test_api_connections_are_not_inherited_limits():
    with Monitor("--standby") as m:
        before = m.fds()
        for _ in range(200):
            client = m.raw()
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            assert client.response().status == 200
            client.close()
        m.assert_alive()
        assert m.fds() <= before + 2, f"{m.fds()} descriptors, {before} before"


# ---- what the host must offer --------------------------------------------------------------------


def private_dev(script: str) -> list[str]:
    """Runs what follows in a mount namespace of its own, after `script`."""
    return ["unshare", "--mount", "/bin/sh", "-c", f'{script}; exec "$0" "$@"']


@needs("root")
def test_no_kvm_device():
    hide = "mount -t tmpfs none /dev"
    with Monitor(wrap=private_dev(hide)) as m:
        m.configure(guest("console"), "do=hello")
        answer = m.api.put("/actions", {"action_type": "InstanceStart"})
        assert answer.status == 400, answer
        assert "/dev/kvm" in answer.fault and "No such file" in answer.fault, answer
        assert "\n" not in answer.fault
        m.assert_alive()


@needs("root")
def test_kvm_device_is_something_else():
    for make in ("touch /dev/kvm", "mknod /dev/kvm c 1 3", "mkdir /dev/kvm", "mkfifo /dev/kvm"):
        with Monitor(wrap=private_dev(f"mount -t tmpfs none /dev; {make}")) as m:
            m.configure(guest("console"), "do=hello")
            answer = m.api.put("/actions", {"action_type": "InstanceStart"})
            assert answer.status == 400, f"{make}: {answer}"
            assert "kvm" in answer.fault.lower(), f"{make}: {answer}"
            m.assert_alive()


@needs("root")
def test_kvm_device_is_forbidden():
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    directory = tempdir()
    directory.chmod(0o777)
    kernel = directory / "kernel"
    kernel.write_bytes(guest("console").read_bytes())
    node = os.stat("/dev/kvm")
    if node.st_mode & 0o006 == 0o006:
        hide = "mount -t tmpfs none /dev && mknod -m 660 /dev/kvm c 10 232"
        nobody = private_dev(hide) + nobody
    with Monitor(wrap=nobody, directory=directory) as m:
        m.configure(kernel, "do=hello")
        answer = m.api.put("/actions", {"action_type": "InstanceStart"})
        assert answer.status == 400, answer
        assert "/dev/kvm" in answer.fault and "Permission denied" in answer.fault, answer
        m.assert_alive()


@needs("root")
def test_no_kvm_device_with_a_config_file():
    directory = tempdir()
    path = config_file(directory, guest("console"), "do=hello")
    done = run_to_end(
        "--no-api", "--config-file", str(path),
        wrap=private_dev("mount -t tmpfs none /dev"), directory=directory,
    )
    assert done.exit_code == 1
    assert "/dev/kvm" in done.errors(), done
    assert len(done.errors().strip().splitlines()) == 1, done.errors()


def test_few_file_descriptors():
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))

    with Monitor(preexec_fn=limit) as m:
        m.configure(guest("ends"), "do=wait", vcpus=8, rng=True)
        answer = m.api.put("/actions", {"action_type": "InstanceStart"})
        assert answer.status in (204, 400), answer
        if answer.status == 400:
            assert "os error 24" in answer.fault, answer
        m.assert_alive()


def test_it_needs_no_writable_directory_and_no_environment():
    directory = tempdir()
    path = config_file(directory, guest("console"), "do=hello")
    done = run_to_end(
        "--no-api", "--config-file", str(path), log=False, env={}, cwd="/", directory=directory
    )
    assert done.exit_code == 0, done
