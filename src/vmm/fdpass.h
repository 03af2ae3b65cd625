/*
 * fdpass: descriptors from one process to another over a Unix socket (SCM_RIGHTS, unix(7)), one
 * message of them and no more. Neither end blocks longer than it says.
 */
#ifndef FDPASS_H
#define FDPASS_H

#include "base.h"
#include "err.h"

#define FDPASS_MAX 4

/* A listening socket at `path`, which must not exist; its name is the caller's to remove. */
int fdpass_listen(const char *path, struct err *err) MUST_CHECK;

/* Connects (SOCK_SEQPACKET or SOCK_STREAM) within `timeout_ms`, or a negative errno with a line. */
int fdpass_connect(const char *path, int type, int timeout_ms, struct err *err) MUST_CHECK;

/* `len` bytes and `n` descriptors, now or not at all. */
int fdpass_send(int sock, const void *data, size_t len, const int *fds, unsigned n);

/*
 * Exactly `len` bytes and `n` descriptors, within `timeout_ms`; more or fewer, or a peer that closes
 * or stays silent, is an error with a line. The descriptors are the caller's, and close on exec.
 */
int fdpass_recv(int sock, void *data, size_t len, int *fds, unsigned n, int timeout_ms,
		struct err *err) MUST_CHECK;

#endif
