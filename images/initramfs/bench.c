/*
 * The guest of the boot benchmark: one static program, nothing else in the RAM disk.
 *
 * Writes the byte 123 to the boot timer (the page at guest physical 0xc0000000, where Firecracker
 * and mayfly have it), so that the monitor can stop its clock at the first instruction of user
 * space; prints a marker for monitors without one; ends the machine.
 *
 * Must not depend on anything being mounted but /dev.
 */
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define BOOT_TIMER_GPA 0xc0000000
#define BOOT_TIMER_MAGIC 123
#define SYSLOG_READ_ALL 3

static char log_text[1 << 20];

static void stop_the_clock(void)
{
	volatile uint8_t *timer;
	int fd;

	mknod("/mem", S_IFCHR | 0600, makedev(1, 1));
	fd = open("/mem", O_RDWR | O_SYNC | O_CLOEXEC);
	if (fd < 0)
		return;
	timer = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, BOOT_TIMER_GPA);
	if (timer != MAP_FAILED)
		*timer = BOOT_TIMER_MAGIC;
	close(fd);
}

/* Asked to power off, a machine that cannot would halt and never end: such a one is reset. */
static int can_power_off(void)
{
	int len = klogctl(SYSLOG_READ_ALL, log_text, sizeof(log_text) - 1);
	const char *states;

	if (len <= 0)
		return 0;
	log_text[len] = '\0';
	states = strstr(log_text, "ACPI: PM: (supports");
	return states && memmem(states, strcspn(states, "\n"), " S5", 3);
}

int main(void)
{
	static const char marker[] = "mayfly-init\n";

	stop_the_clock();
	if (write(STDOUT_FILENO, marker, sizeof(marker) - 1) < 0) {
		/* No console: the boot timer has said it. */
	}
	if (can_power_off())
		reboot(RB_POWER_OFF);
	reboot(RB_AUTOBOOT);
	return 1;
}
