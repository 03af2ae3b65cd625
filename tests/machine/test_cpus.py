"""More than one processor."""

from __future__ import annotations

import re

from mayfly import run_guest, start_guest


def test_two_processors_start():
    run_guest("smp", "do=start n=2", vcpus=2)


def test_four_processors_work_together():
    run_guest("smp", "do=work n=4", vcpus=4, timeout=120)


def test_all_32_processors_start():
    output = run_guest("smp", "do=start n=32", vcpus=32, timeout=240)
    assert "processors 32" in output


def test_processors_that_are_never_started():
    run_guest("smp", "do=spare", vcpus=8)


def test_an_interrupt_to_the_second_processor():
    run_guest("irq", "do=cpu1", vcpus=2, rng=True)


def test_all_processors_run_at_once():
    with start_guest("smp", "do=count n=4", vcpus=4) as m:
        for cpu in (1, 2, 3):
            m.wait_for_console(rf"cpu {cpu} at \d*[1-9]\d*\n", 120)
            # ... and again with another number: it goes on counting.
            found = re.search(rf"cpu {cpu} at (\d+)\n", m.output())
            m.wait_for_console(rf"cpu {cpu} at (?!{found[1]}\n)\d*[1-9]\d*\n", 120)


def test_threads_are_named_after_their_processors():
    with start_guest("smp", "do=count n=4", vcpus=4) as m:
        for cpu in (1, 2, 3):  # a thread names itself
            m.wait_for_console(rf"cpu {cpu} at [1-9]", 120)
        names = sorted(m.threads().values())
        for n in range(4):
            assert f"fc_vcpu {n}" in names, names


def test_the_second_processor_can_end_the_machine():
    for word in ("off", "reset", "i8042"):
        with start_guest("ends", f"do={word} ap=1", vcpus=2) as m:
            assert m.wait_exit() == 0, word


def test_the_second_processor_can_crash_the_machine():
    with start_guest("ends", "do=triple ap=1", vcpus=2) as m:
        assert m.wait_exit() == 1
