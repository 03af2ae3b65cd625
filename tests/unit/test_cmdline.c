/* cmdline: the user's words stay as they are, the machine's come after them and before init's. */
#include "test.h"

#include "src/boot/cmdline.h"

#include <stdlib.h>

static char line[LAYOUT_CMDLINE_MAX];
static size_t len;
static struct err err;

static int build(const char *args, const struct boot_machine *machine, bool list_devices)
{
	memset(line, '#', sizeof line);
	err.msg[0] = '\0';
	return cmdline_build(line, &len, args, machine, list_devices, &err);
}

static void assert_line(const char *args, const struct boot_machine *machine, bool list_devices,
			const char *expected)
{
	assert_int_equal(build(args, machine, list_devices), 0);
	assert_string_equal(line, expected);
	assert_int_equal(len, strlen(expected));
}

static const struct boot_machine bare = { .n_vcpus = 1 };
static const struct boot_machine two_devices = { .n_vcpus = 1, .n_devices = 2 };

static void the_users_words_come_first_and_unchanged(void **state)
{
	(void)state;
	assert_line("console=ttyS0  a=\"b  c\"", &bare, 0, "console=ttyS0  a=\"b  c\" pci=off");
	assert_line("", &bare, 0, "pci=off");
	assert_line(" x ", &bare, 0, " x pci=off");
}

static void pci_off_is_said_once(void **state)
{
	(void)state;
	assert_line("pci=off", &bare, 0, "pci=off");
	assert_line("a pci=off b", &bare, 0, "a pci=off b");
	/* Other words than that one. */
	assert_line("pci=offset", &bare, 0, "pci=offset pci=off");
	assert_line("xpci=off", &bare, 0, "xpci=off pci=off");
	assert_line("a=\"x pci=off y\"", &bare, 0, "a=\"x pci=off y\" pci=off");
	assert_line("-- pci=off", &bare, 0, "pci=off -- pci=off");
}

static void a_root_drive_is_named(void **state)
{
	struct boot_machine m = { .n_vcpus = 1, .root_drive = true };

	(void)state;
	assert_line("a", &m, 0, "a pci=off root=/dev/vda rw");
	m.root_read_only = true;
	assert_line("a", &m, 0, "a pci=off root=/dev/vda ro");
	m.root_partuuid = "";
	assert_line("a", &m, 0, "a pci=off root=/dev/vda ro");
	m.root_partuuid = "0eaa91a0-01";
	assert_line("a", &m, 0, "a pci=off root=PARTUUID=0eaa91a0-01 ro");
	m.root_read_only = false;
	assert_line("a", &m, 0, "a pci=off root=PARTUUID=0eaa91a0-01 rw");
	m.root_drive = false;
	assert_line("a", &m, 0, "a pci=off");
}

static void devices_are_listed_in_their_order(void **state)
{
	(void)state;
	assert_line("a", &two_devices, true,
		    "a pci=off virtio_mmio.device=4K@0xc0001000:6 "
		    "virtio_mmio.device=4K@0xc0002000:7");
	assert_line("a", &two_devices, 0, "a pci=off");
}

static void everything_is_added_before_inits_arguments(void **state)
{
	struct boot_machine m = { .root_drive = true, .n_devices = 1 };

	(void)state;
	assert_line("a -- init --flag", &m, true,
		    "a pci=off root=/dev/vda rw virtio_mmio.device=4K@0xc0001000:6 "
		    "-- init --flag");
	assert_line("a --", &bare, 0, "a pci=off --");
	assert_line("-- x", &bare, 0, "pci=off -- x");
	assert_line("a   --  x  y ", &bare, 0, "a pci=off --  x  y ");
	assert_line("a -- b -- c", &bare, 0, "a pci=off -- b -- c");
	/* Not that word. */
	assert_line("a --b", &bare, 0, "a --b pci=off");
	assert_line("a--", &bare, 0, "a-- pci=off");
	assert_line("a=\"x -- y\" b", &bare, 0, "a=\"x -- y\" b pci=off");
}

static void acpi_is_off_when_the_kernel_reads_so(void **state)
{
	(void)state;
	assert_true(cmdline_acpi_off("acpi=off"));
	assert_true(cmdline_acpi_off("a acpi=off b"));
	assert_true(cmdline_acpi_off("acpi=force acpi=off"));
	assert_false(cmdline_acpi_off("acpi=off acpi=force"));
	assert_false(cmdline_acpi_off("acpi=noirq noapic"));
	assert_false(cmdline_acpi_off("acpi=offline"));
	assert_false(cmdline_acpi_off("-- acpi=off"));
	assert_false(cmdline_acpi_off(""));
}

/* A line of `n` bytes of the user's; the machine adds " pci=off", 8 bytes. */
static char *long_args(size_t n)
{
	char *args = malloc(n + 1);

	assert_non_null(args);
	memset(args, 'a', n);
	args[n] = '\0';
	return args;
}

static void the_longest_line_fits_with_its_terminator(void **state)
{
	const size_t most = LAYOUT_CMDLINE_MAX - 1 - strlen(" pci=off");
	char *args;

	(void)state;
	for (size_t n = most - 1; n <= most; n++) {
		args = long_args(n);
		assert_int_equal(build(args, &bare, 0), 0);
		assert_int_equal(len, n + 8);
		assert_int_equal(strlen(line), n + 8);
		assert_string_equal(line + n, " pci=off");
		free(args);
	}
	args = long_args(most + 1);
	assert_int_equal(build(args, &bare, 0), -E2BIG);
	assert_string_equal(err.msg, "kernel command line: 2040 bytes given and 2048 with what "
				     "the machine adds, but at most 2047 fit");
	free(args);
}

static void a_line_of_64_kib_is_refused(void **state)
{
	char *args = long_args(65536);

	(void)state;
	assert_int_equal(build(args, &two_devices, true), -E2BIG);
	assert_non_null(strstr(err.msg, "65536 bytes given"));
	free(args);
}

static void inits_arguments_count_too(void **state)
{
	char args[LAYOUT_CMDLINE_MAX];

	(void)state;
	memset(args, 'i', sizeof args);
	memcpy(args, "-- ", 3);
	args[LAYOUT_CMDLINE_MAX - 1 - strlen("pci=off ")] = '\0';
	assert_int_equal(build(args, &bare, 0), 0);
	assert_int_equal(len, LAYOUT_CMDLINE_MAX - 1);
	args[strlen(args)] = 'i';
	args[LAYOUT_CMDLINE_MAX - strlen("pci=off ")] = '\0';
	assert_int_equal(build(args, &bare, 0), -E2BIG);
}

static void all_devices_fit_beside_the_default_arguments(void **state)
{
	struct boot_machine m = { .n_vcpus = 32,
				  .root_drive = true,
				  .n_devices = LAYOUT_DEVICES_MAX };

	(void)state;
	assert_int_equal(build(BOOT_ARGS_DEFAULT, &m, true), 0);
	assert_non_null(strstr(line, " virtio_mmio.device=4K@0xc0020000:37"));
}

static void only_printable_ascii_is_passed_on(void **state)
{
	(void)state;
	assert_int_equal(build("a\nb", &bare, 0), -EINVAL);
	assert_non_null(strstr(err.msg, "byte 1 (0x0a)"));
	assert_int_equal(build("abc\xc3\xa4", &bare, 0), -EINVAL);
	assert_non_null(strstr(err.msg, "byte 3 (0xc3)"));
	assert_int_equal(build("\x7f", &bare, 0), -EINVAL);
}

static void defaults_are_used_only_if_nothing_was_given(void **state)
{
	struct boot_config cfg = { .args = "given" };

	(void)state;
	assert_string_equal(cmdline_args(&cfg), BOOT_ARGS_DEFAULT);
	cfg.args_given = true;
	assert_string_equal(cmdline_args(&cfg), "given");
	cfg.args[0] = '\0';
	assert_string_equal(cmdline_args(&cfg), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_users_words_come_first_and_unchanged),
		cmocka_unit_test(pci_off_is_said_once),
		cmocka_unit_test(a_root_drive_is_named),
		cmocka_unit_test(devices_are_listed_in_their_order),
		cmocka_unit_test(everything_is_added_before_inits_arguments),
		cmocka_unit_test(acpi_is_off_when_the_kernel_reads_so),
		cmocka_unit_test(the_longest_line_fits_with_its_terminator),
		cmocka_unit_test(a_line_of_64_kib_is_refused),
		cmocka_unit_test(inits_arguments_count_too),
		cmocka_unit_test(all_devices_fit_beside_the_default_arguments),
		cmocka_unit_test(only_printable_ascii_is_passed_on),
		cmocka_unit_test(defaults_are_used_only_if_nothing_was_given),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
