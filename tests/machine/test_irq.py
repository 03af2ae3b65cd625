"""Interrupts, the IOAPIC's registers, the keyboard controller."""

from __future__ import annotations

import re

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


# Scan codes of set 2: ctrl, alt and delete go down.
CODES = ["14", "11", "e0", "71"]


def press(word: str, times: int) -> list[str]:
    """Types ctrl-alt-del so often; the codes the guest has read."""
    with Monitor() as m:
        m.configure(guest("keyboard"), f"do={word} n={len(CODES) * times}")
        m.start()
        m.wait_for_console("listening")
        for n in range(times):
            m.api.must("PUT", "/actions", {"action_type": "SendCtrlAltDel"})
            # Once the guest has taken these, there is room for the next.
            m.wait_for_console(rf"(?s)(key .*?){{{len(CODES) * (n + 1)}}}")
        return re.findall(r"key ([0-9a-f]+)", guest_verdict(m))


def test_ctrl_alt_del_types_three_keys():
    assert press("keys", 1) == CODES


def test_ctrl_alt_del_interrupts_and_can_be_repeated():
    assert press("irq", 3) == 3 * CODES


def test_ctrl_alt_del_without_a_reader_is_refused_when_full():
    with Monitor() as m:
        m.configure(guest("ends"), "do=wait")
        m.start()
        m.wait_for_console("now")
        answers = [m.api.put("/actions", {"action_type": "SendCtrlAltDel"}) for _ in range(10)]
        assert answers[0].status == 204
        assert {a.status for a in answers} <= {204, 400}, answers
        m.assert_alive()
