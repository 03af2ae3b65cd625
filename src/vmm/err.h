/*
 * err: an error as a value: a negative errno, and one line for the person who has to mend it.
 *
 * The caller owns the struct (usually on its stack); the callee fills it once, where the failure
 * happened. The line reaches the API client (`fault_message`) or stderr unchanged, so it names the
 * file, field or device and the reason. Any thread, no allocation.
 *
 *	if (fd < 0)
 *		return fail(err, -errno, "The kernel file cannot be opened: " OS_ERR, OS_ERR_ARGS(errno));
 *
 * Text is clipped, never overrun. For the guest's mistakes there is no err: the device is marked
 * NEEDS_RESET (device.h). For our own there is assert().
 */
#ifndef ERR_H
#define ERR_H

#include "base.h"

struct err {
	char msg[1024];
};

/* Formats the line and returns `ret` (a negative errno), so that it can be used in a return. */
int fail(struct err *err, int ret, const char *fmt, ...) PRINTF(3, 4);

/* Puts context in front of the line that is already there. Returns `ret` again. */
int fail_prefix(struct err *err, int ret, const char *fmt, ...) PRINTF(3, 4);

/* The wording of operating system errors that clients match on: "No such file ... (os error 2)". */
#define OS_ERR		  "%s (os error %d)"
#define OS_ERR_ARGS(errn) err_text(errn), (errn)

/* A constant string for an errno (positive); never allocates, never NULL. */
const char *err_text(int errnum);

#endif
