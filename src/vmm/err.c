/* err: see err.h. */
#include "err.h"

#include <stdarg.h>
#include <stdio.h>

int fail(struct err *err, int ret, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof err->msg, fmt, ap);
	va_end(ap);
	return ret;
}

int fail_prefix(struct err *err, int ret, const char *fmt, ...)
{
	char tail[sizeof err->msg];
	va_list ap;
	size_t n;

	memcpy(tail, err->msg, sizeof tail);
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof err->msg, fmt, ap);
	va_end(ap);
	n = strlen(err->msg);
	snprintf(err->msg + n, sizeof err->msg - n, "%s", tail);
	return ret;
}

/* Firecracker is linked with musl, and clients match on its wording: where the two differ. */
static const struct {
	int errnum;
	const char *text;
} musl[] = {
	{ ENOMEM, "Out of memory" },
	{ EBUSY, "Resource busy" },
	{ EADDRINUSE, "Address in use" },
	{ EMFILE, "No file descriptors available" },
	{ ELOOP, "Symbolic link loop" },
};

const char *err_text(int errnum)
{
	const char *text = strerrordesc_np(errnum);

	for (unsigned i = 0; i < ARRAY_SIZE(musl); i++)
		if (musl[i].errnum == errnum)
			return musl[i].text;
	return text ? text : "Unknown error";
}
