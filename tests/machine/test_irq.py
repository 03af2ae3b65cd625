"""Interrupts, the IOAPIC's registers, the keyboard controller."""

from __future__ import annotations

from mayfly import Monitor, guest, guest_verdict, run_guest


def test_ioapic_registers():
    run_guest("irq", "do=ioapic")


def test_transmitter_interrupts():
    run_guest("irq", "do=serial n=20")


def test_every_completion_interrupts_once():
    run_guest("irq", "do=device n=50", rng=True)


def test_keyboard_controller_commands():
    run_guest("keyboard", "do=commands")


def test_keyboard_controller_takes_any_bytes():
    run_guest("keyboard", "do=fuzz n=3000", timeout=120)


def press(word: str, times: int) -> str:
    with Monitor() as m:
        m.configure(guest("keyboard"), f"do={word} n={6 * times}")
        m.start()
        m.wait_for_console("listening")
        for n in range(times):
            m.api.must("PUT", "/actions", {"action_type": "SendCtrlAltDel"})
            # The guest has taken these six: the next ones find room.
            m.wait_for_console(rf"(?s)(key .*?){{{6 * (n + 1)}}}")
        return guest_verdict(m)


def test_ctrl_alt_del_types_three_keys():
    keys = [line for line in press("keys", 1).splitlines() if line.startswith("key ")]
    # Set 1 scan codes: down ctrl, alt, del; then up again in any order.
    codes = [int(k.split()[1], 16) for k in keys]
    assert len(codes) == 6, codes
    assert codes[:3] == [0x1D, 0x38, 0x53] or codes[:3] == [0x14, 0x11, 0x71], codes


def test_ctrl_alt_del_interrupts_and_can_be_repeated():
    press("irq", 3)


def test_ctrl_alt_del_without_a_reader_is_refused_when_full():
    with Monitor() as m:
        m.configure(guest("ends"), "do=wait")
        m.start()
        m.wait_for_console("now")
        answers = [m.api.put("/actions", {"action_type": "SendCtrlAltDel"}) for _ in range(10)]
        assert answers[0].status == 204
        assert {a.status for a in answers} <= {204, 400}, answers
        m.assert_alive()
