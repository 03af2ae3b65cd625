/*
 * console: the host's end of the serial port: stdin and stdout, or a file.
 *
 * Loop thread; console_restore() also from a signal handler.
 */
#ifndef CONSOLE_H
#define CONSOLE_H

#include "base.h"
#include "err.h"

struct console {
	int in_fd;  /* -1: no input */
	int out_fd; /* writes to it do not block */
	bool out_owned;
};

/*
 * Output goes to `out_path`, or to stdout if that is empty. Input comes from stdin if it is a
 * terminal (switched to raw mode, if we are in its foreground) or a pipe, and there is no path.
 */
int console_open(struct console *console, const char *out_path, struct err *err) MUST_CHECK;
void console_close(struct console *console);

/* Gives the terminal back as it was found; nothing to do is fine. Async-signal-safe. */
void console_restore(void);

#endif
