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

const char *err_text(int errnum)
{
	const char *text = strerrordesc_np(errnum);

	return text ? text : "Unknown error";
}
