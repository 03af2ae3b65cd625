"""Accesses to where nothing is."""

from __future__ import annotations

from mayfly import needs, run_guest, start_guest


def test_ports_without_a_device():
    run_guest("holes", "do=ports n=0x1000", timeout=120)


def test_all_ports_by_steps():
    run_guest("holes", "do=ports step=61", timeout=120)


def test_addresses_without_a_device():
    run_guest("holes", "do=mmio")
    run_guest("holes", "do=mmio", rng=True)


def test_string_instructions():
    output = run_guest("holes", "do=strings")
    assert "string output, whole" in output


def test_reads_never_show_what_was_written_before():
    run_guest("holes", "do=leak")


def test_boot_timer_page_without_boot_timer_is_a_hole():
    run_guest("holes", "do=timer")


def test_boot_timer_page_can_be_read():
    with start_guest("holes", "do=timer", "--boot-timer") as m:
        assert m.wait_exit() == 0


@needs("alone")
def test_a_storm_costs_no_memory_and_few_log_lines():
    with start_guest("holes", "do=storm n=20000", level="Debug") as m:
        m.wait_for_console("checks", 240)
        assert m.wait_exit() == 0
        assert len(m.log().splitlines()) < 200, "the log grows with what the guest does"
