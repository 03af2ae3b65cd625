"""The serial port and its two ends: the guest's registers, the host's files, pipes and terminals."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import termios

from counting import create, load, ok
from mayfly import (
    Deadline, Monitor, Output, guest, guest_verdict, needs, run_guest, start_guest, tempdir,
)


def test_guest_says_hello():
    assert "hello from the guest: do=hello" in run_guest("console", "do=hello")


def test_uart_registers():
    run_guest("console", "do=uart")


def test_typed_bytes_reach_the_guest_and_come_back():
    with start_guest("console", "do=echo", stdin="pipe") as m:
        m.wait_for_console("listening")
        m.type(b"mayfly ")
        m.wait_for_console("MAYFLY ")
        m.type(b"lives")
        m.wait_for_console("LIVES")
        m.type(b"q")
        guest_verdict(m)
        assert m.wait_exit() == 0


def test_a_long_line_arrives_whole():
    text = bytes(97 + i % 26 for i in range(5000))
    total = 0
    for byte in text:
        total = (total * 31 + byte) & 0xFFFFFFFF
    with start_guest("console", "do=line", stdin="pipe") as m:
        m.wait_for_console("listening")
        m.type(text + b"\n")
        found = m.wait_for_console(r"line (\d+) ([0-9a-f]+)\n", 120)
        assert int(found[1]) == len(text), f"{found[1]} of {len(text)} bytes"
        assert int(found[2], 16) == total, "the bytes are not the ones that were typed"


def test_input_before_the_guest_listens_is_not_lost():
    with start_guest("console", "do=echo", stdin="pipe") as m:
        m.type(b"early")
        m.wait_for_console("EARLY")


def test_input_interrupts_a_halting_guest():
    with start_guest("irq", "do=input", stdin="pipe") as m:
        m.wait_for_console("listening")
        for character in b"abc":
            m.type(bytes([character]))
            m.wait_for_console(b"got " + bytes([character]))
        m.type(b"q")
        guest_verdict(m)


def test_end_of_input_does_not_end_the_guest():
    with start_guest("console", "do=echo", stdin="pipe") as m:
        m.wait_for_console("listening")
        m.type(b"last")
        m.wait_for_console("LAST")
        m.process.stdin.close()
        assert m.alive()


@needs("alone")
def test_input_nobody_reads_is_not_buffered_without_limit():
    with start_guest("console", "do=deaf", stdin="pipe") as m:
        m.wait_for_console("deaf")
        before = m.rss_kib()
        fd = m.process.stdin.fileno()
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
        written = 0
        # The pipe must fill up: then the writer waits, as it should, and the monitor does not grow.
        while select.select([], [fd], [], 1.0)[1] and written < 16 << 20:
            try:
                written += os.write(fd, b"x" * 65536)
            except BlockingIOError:
                break
        assert written < 1 << 20, f"{written} bytes were taken for a guest that reads none"
        assert m.rss_kib() < before + 1024
        assert m.alive()


def test_output_nobody_reads_does_not_stop_the_guest():
    read_end, write_end = os.pipe()
    try:
        with start_guest("console", "do=flood n=2000", stdout=write_end) as m:
            # 128 KiB into a pipe of 64 KiB that is never read: the guest goes on to its end.
            assert m.wait_exit(120) == 0
    finally:
        os.close(read_end)
        os.close(write_end)


def test_output_to_a_closed_pipe_does_not_end_the_monitor():
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        with start_guest("console", "do=flood n=100", stdout=write_end) as m:
            assert m.wait_exit() == 0
    finally:
        os.close(write_end)


def test_output_that_is_read_arrives_whole():
    with start_guest("console", "do=flood n=200") as m:
        guest_verdict(m)
        m.wait_exit()
        lines = m.output().splitlines()
        expected = ["".join(chr(97 + (i + c) % 26) for c in range(63)) for i in range(200)]
        assert lines[:200] == expected


# ---- from one process to another -------------------------------------------------------------------


def test_a_machine_that_moves_loses_no_output():
    """Each process is killed as soon as its machine is saved; what they said makes one text."""
    directory, said = tempdir(), ""
    m = Monitor()
    m.configure(guest("console"), "do=chatter")
    m.start()
    for _ in range(12):
        m.wait_for_console(r"\d+ \d+ ")
        m.pause()
        ok(create(m, directory))
        m.kill()
        said += m.output()
        m = Monitor()
        ok(load(m, directory))
    numbers = [int(word) for word in said.split(" ")[:-1]]
    assert numbers == list(range(len(numbers))), said


def test_what_is_typed_at_a_paused_machine_is_for_whoever_goes_on():
    directory = tempdir()
    read_end, write_end = os.pipe()
    with Monitor(stdin=read_end) as m:
        m.configure(guest("console"), "do=echo")
        m.start()
        m.wait_for_console("listening")
        m.pause()
        ok(create(m, directory))
        os.write(write_end, b"kept")
        m.assert_alive()  # it had time to look
    with Monitor(stdin=read_end) as m:
        ok(load(m, directory, resume=False))
        m.assert_alive()
        m.resume()
        m.wait_for_console("KEPT")
    os.close(read_end)
    os.close(write_end)


def test_last_words_are_not_lost():
    # What was sent right before the end must still come out.
    for _ in range(5):
        with start_guest("console", "do=hello") as m:
            assert m.wait_exit() == 0
            assert m.output().endswith("checks 1 failed 0\n"), repr(m.output())


def test_serial_output_to_a_file():
    with Monitor() as m:
        out = m.dir / "serial.out"
        m.api.must("PUT", "/serial", {"serial_out_path": str(out)})
        m.configure(guest("console"), "do=hello")
        m.start()
        assert m.wait_exit() == 0
        assert "hello from the guest" in out.read_text()
        assert "hello" not in m.output()


class Terminal:
    """A guest whose console is a pseudo terminal, which it owns as a shell's child would."""

    def __init__(self, word: str):
        self.ours, self.theirs = pty.openpty()
        self.before = termios.tcgetattr(self.theirs)
        self.monitor = start_guest(
            "console", f"do={word}", stdin=self.theirs, stdout=self.theirs, preexec_fn=self._own
        )
        self.screen = Output(self.ours)
        self.wait_for(b"listening")

    def _own(self) -> None:
        os.setsid()
        fcntl.ioctl(self.theirs, termios.TIOCSCTTY, 0)

    def wait_for(self, text: bytes) -> None:
        self.screen.wait(lambda data: text in data, Deadline(None, repr(text)))

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self.theirs) == self.before


def test_terminal_is_raw_while_running_and_restored_after():
    t = Terminal("echo")
    raw = termios.tcgetattr(t.theirs)
    assert not raw[3] & (termios.ICANON | termios.ECHO), "the terminal is not raw"
    os.write(t.ours, b"abc")
    t.wait_for(b"ABC")
    os.write(t.ours, b"q")
    assert t.monitor.wait_exit() == 0
    assert t.is_as_before(), "the terminal was not given back as it was"


def test_terminal_is_restored_when_terminated():
    t = Terminal("echo")
    t.monitor.signal(signal.SIGTERM)
    assert t.monitor.wait_exit() == -signal.SIGTERM
    assert t.is_as_before(), "the terminal was not given back as it was"


def test_terminal_is_restored_when_the_monitor_crashes():
    t = Terminal("echo")
    t.monitor.signal(signal.SIGSEGV)
    assert t.monitor.wait_exit() == 150
    assert t.is_as_before(), "the terminal was not given back as it was"
