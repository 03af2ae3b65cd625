"""How a guest ends, and what the monitor's exit code and last words then are."""

from __future__ import annotations

import re
import signal

from mayfly import Monitor, guest, guest_verdict, run_guest, start_guest


def end_of(word: str, *options: str, **more) -> tuple[int, str, str]:
    with start_guest("ends", f"do={word}", *options, **more) as m:
        code = m.wait_exit()
        assert "now" in m.output(), "the guest never came to it"
        return code, m.log(), m.errors()


def test_power_off():
    code, log, errors = end_of("off")
    assert code == 0
    assert "Firecracker exiting successfully. exit_code=0" in log
    assert errors == ""


def test_nothing_runs_after_the_power_is_off():
    with start_guest("ends", "do=undead") as m:
        assert m.wait_exit() == 0
        assert "now" in m.output() and "!" not in m.output(), m.output()


def test_acpi_reset():
    code, log, _ = end_of("reset")
    assert code == 0
    assert "Firecracker exiting successfully. exit_code=0" in log


def test_i8042_reset():
    code, log, _ = end_of("i8042")
    assert code == 0
    assert "Vmm is stopping" in log
    assert "Firecracker exiting successfully. exit_code=0" in log


def test_triple_fault():
    code, log, errors = end_of("triple")
    assert code == 1
    assert "triple" in log.lower()
    assert "Firecracker exiting with error. exit_code=1" in log
    assert len(errors.strip().splitlines()) == 1, errors


def test_a_guest_kvm_cannot_run():
    # Where KVM runs natively, fetching from an address without memory is an internal error too.
    code, log, errors = end_of("lost")
    assert code == 1
    assert "Firecracker exiting with error. exit_code=1" in log
    assert len(errors.strip().splitlines()) == 1, errors


def test_other_sleep_states_do_nothing():
    run_guest("ends", "do=sleep")


def test_other_reset_values_do_nothing():
    run_guest("ends", "do=noreset")


def test_halt_for_good_keeps_the_machine():
    # Nothing more will happen in there, yet the API must answer and the end must be ours.
    for word in ("halt", "wait", "spin"):
        with Monitor() as m:
            m.configure(guest("ends"), f"do={word}")
            m.start()
            m.wait_for_console("now")
            assert m.api.get("/").json["state"] == "Running"
            m.pause()
            m.resume()
            m.signal(signal.SIGTERM)
            assert m.wait_exit() == -signal.SIGTERM


def test_the_api_client_gets_its_answer_before_the_end():
    for _ in range(5):
        with Monitor() as m:
            m.configure(guest("ends"), "do=off")
            m.start()
            assert m.wait_exit() == 0


def test_boot_timer():
    _, log, _ = end_of("timer", "--boot-timer")
    found = re.findall(r"Guest-boot-time = +\d+ us \d+ ms, +\d+ CPU us \d+ CPU ms", log)
    assert len(found) == 1, log


def test_boot_timer_takes_no_other_value():
    for magic in (0, 1):
        with start_guest("ends", f"do=timer n=300 magic={magic}", "--boot-timer") as m:
            guest_verdict(m)
            assert m.wait_exit() == 0
            assert m.log().count("Guest-boot-time") == magic, m.log()


def test_no_boot_timer_no_line():
    _, log, _ = end_of("timer")
    assert "Guest-boot-time" not in log
