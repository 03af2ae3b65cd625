"""How Linux ends: power-off, reboot, panic, ctrl-alt-del, with and without ACPI."""

from __future__ import annotations

from linuxguest import ARGS, BOOT_TIMEOUT, BZIMAGE, DEBIAN, PVH, Flavour, script_word, start_linux
from mayfly import Monitor


def ends(flavour: Flavour, do: str, args: str = "", said: str = "", code: int = 0, **more) -> None:
    with start_linux(flavour, do, args, **more) as m:
        m.wait_for_console("mayfly guest: up", BOOT_TIMEOUT)
        assert m.wait_exit(BOOT_TIMEOUT) == code, f"{flavour.name}: {m}"
        assert said in m.log(), f"{flavour.name}: {m.log()}"


def test_power_off():
    for flavour in (DEBIAN, PVH):
        ends(flavour, "poweroff", said="ACPI S5")


def test_power_off_with_many_processors():
    for flavour in (DEBIAN, PVH):
        ends(flavour, "poweroff", said="ACPI S5", vcpus=4)


def test_power_off_without_acpi_still_ends():
    ends(PVH, "poweroff", "acpi=off", said="keyboard controller")


def test_reboot_by_the_keyboard_controller():
    for flavour in (DEBIAN, PVH):
        ends(flavour, "reboot", said="keyboard controller")


def test_reboot_by_acpi():
    # The last reboot= on the command line counts.
    for flavour in (DEBIAN, PVH):
        ends(flavour, "reboot", "reboot=a", said="ACPI reset register")


def test_reboot_by_triple_fault():
    ends(PVH, "reboot", "reboot=t", said="triple", code=1)


def test_panic():
    for flavour in (DEBIAN, PVH):
        with start_linux(flavour, "panic") as m:
            m.wait_for_console("Kernel panic", BOOT_TIMEOUT)
            assert m.wait_exit(BOOT_TIMEOUT) == 0, f"{flavour.name}: {m}"


def test_panic_for_want_of_a_root():
    with start_linux(PVH, "poweroff", "root=/dev/vdz", initrd=False) as m:
        m.wait_for_console("Kernel panic", BOOT_TIMEOUT)
        assert m.wait_exit(BOOT_TIMEOUT) == 0


def press_ctrl_alt_del(flavour: Flavour, args: str, script: str) -> Monitor:
    """A guest that runs `script`, which says `waiting`, and has then got the three keys."""
    kernel, ramdisk = flavour.files()
    m = Monitor()
    line = f"{ARGS} {args} mayfly.do={script_word(script)}"
    m.configure(kernel, line, initrd=ramdisk, mem_mib=256)
    m.start()
    m.wait_for_console("waiting", BOOT_TIMEOUT)
    m.api.must("PUT", "/actions", {"action_type": "SendCtrlAltDel"})
    return m


def test_ctrl_alt_del_restarts_debian():
    with press_ctrl_alt_del(DEBIAN, "", "echo waiting; sleep 1000") as m:
        assert m.wait_exit(BOOT_TIMEOUT) == 0


def test_ctrl_alt_del_reaches_a_kernel_without_terminals():
    # Nobody in there acts on it, but the keyboard's driver takes an interrupt for each scan code.
    count = "awk '/i8042/ { print $2 }' /proc/interrupts"
    script = f"""old=$({count}); echo waiting
    while [ $({count}) -lt $((old + 4)) ]; do sleep 0.1; done; echo keys=came"""
    for args in ("", "acpi=off"):
        with press_ctrl_alt_del(PVH, args, script) as m:
            m.wait_for_console("keys=came", BOOT_TIMEOUT)
            assert m.wait_exit(BOOT_TIMEOUT) == 0


def test_terminated_while_booting():
    for flavour in (DEBIAN, PVH, BZIMAGE):
        with start_linux(flavour, "poweroff", "ignore_loglevel") as m:
            m.wait_for_console("Linux version", BOOT_TIMEOUT)
            m.signal(15)
            assert m.wait_exit() == -15
