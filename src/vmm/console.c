/*
 * console: see console.h.
 *
 * stdout's "never block" needs care: O_NONBLOCK belongs to the open file, which we share with whoever
 * started us (a shell that finds its terminal non-blocking misbehaves). So a terminal or pipe is
 * opened again through /proc, which gives an open file of our own. A regular file is used as it is:
 * it never blocks, and a second open file would have a second position.
 */
#include "console.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <termios.h>

static struct termios saved;
static volatile bool raw;

static bool in_foreground(int fd)
{
	return tcgetpgrp(fd) == getpgrp();
}

static void make_raw(int fd)
{
	struct termios t;

	if (raw || tcgetattr(fd, &saved) < 0)
		return;
	t = saved;
	cfmakeraw(&t);
	t.c_oflag |= OPOST | ONLCR; /* our own log lines share the screen */
	t.c_lflag |= ISIG;	    /* ctrl-c is for the monitor: it must stay killable */
	if (tcsetattr(fd, TCSANOW, &t) == 0)
		raw = true;
}

void console_restore(void)
{
	if (!raw)
		return;
	raw = false;
	tcsetattr(STDIN_FILENO, TCSANOW, &saved);
}

static int open_in(void)
{
	struct stat st;

	if (fstat(STDIN_FILENO, &st) < 0)
		return -1;
	if (S_ISFIFO(st.st_mode))
		return STDIN_FILENO;
	if (!isatty(STDIN_FILENO) || !in_foreground(STDIN_FILENO))
		return -1;
	make_raw(STDIN_FILENO);
	return STDIN_FILENO;
}

static void open_stdout(struct console *c)
{
	struct stat st;
	int fd = -1;

	c->out_fd = STDOUT_FILENO;
	if (fstat(STDOUT_FILENO, &st) < 0 || S_ISREG(st.st_mode))
		return;
	if (!S_ISSOCK(st.st_mode))
		fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0) {
		c->out_fd = fd;
		c->out_owned = true;
	} else {
		int flags = fcntl(STDOUT_FILENO, F_GETFL);

		if (flags >= 0)
			fcntl(STDOUT_FILENO, F_SETFL, flags | O_NONBLOCK);
	}
}

int console_open(struct console *c, const char *out_path, struct err *err)
{
	*c = (struct console){ .in_fd = -1, .out_fd = -1 };
	if (!out_path[0]) {
		open_stdout(c);
		c->in_fd = open_in();
		return 0;
	}
	/* Read and write, so that a FIFO nobody reads yet can be opened. */
	c->out_fd = open(out_path, O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
			 0600);
	if (c->out_fd < 0)
		return fail(err, -errno, "cannot open the serial output %s: " OS_ERR, out_path,
			    OS_ERR_ARGS(errno));
	c->out_owned = true;
	return 0;
}

void console_close(struct console *c)
{
	if (c->out_owned)
		close(c->out_fd);
	if (c->in_fd >= 0)
		console_restore();
	*c = (struct console){ .in_fd = -1, .out_fd = -1 };
}
