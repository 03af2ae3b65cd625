/* fdpass: see fdpass.h. */
#include "fdpass.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define BACKLOG 1024

static int address(const char *path, struct sockaddr_un *addr, struct err *err)
{
	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (!*path || strlen(path) >= sizeof addr->sun_path)
		return fail(err, -ENAMETOOLONG, "a socket's path must have 1 to %zu bytes: %.200s",
			    sizeof addr->sun_path - 1, path);
	memcpy(addr->sun_path, path, strlen(path) + 1);
	return 0;
}

static int make(int type, struct err *err)
{
	int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return fd < 0 ? fail(err, -errno, "cannot make a socket: " OS_ERR, OS_ERR_ARGS(errno)) : fd;
}

/* SEQPACKET: a message comes whole or not at all. */
int fdpass_listen(const char *path, struct err *err)
{
	struct sockaddr_un addr;
	CLEANUP_FD int fd = make(SOCK_SEQPACKET, err);
	int r = fd < 0 ? fd : address(path, &addr, err);

	if (r < 0)
		return r;
	if (bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
		return fail(err, -errno, "Failed to bind %s: " OS_ERR, path, OS_ERR_ARGS(errno));
	if (listen(fd, BACKLOG) < 0) {
		r = -errno;
		unlink(path);
		return fail(err, r, "Failed to listen at %s: " OS_ERR, path, OS_ERR_ARGS(-r));
	}
	return steal_fd(&fd);
}

static bool wait_for(int fd, short events, int timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, timeout_ms) == 1;
}

int fdpass_connect(const char *path, int type, int timeout_ms, struct err *err)
{
	struct sockaddr_un addr;
	CLEANUP_FD int fd = make(type, err);
	int r = fd < 0 ? fd : address(path, &addr, err);

	if (r < 0)
		return r;
	/* A full backlog answers EAGAIN at once; it is not worth waiting for. */
	if (connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0 &&
	    !(errno == EINPROGRESS && wait_for(fd, POLLOUT, timeout_ms)))
		return fail(err, -errno, "Failed to connect to %s: " OS_ERR, path, OS_ERR_ARGS(errno));
	return steal_fd(&fd);
}

union control {
	struct cmsghdr head;
	char room[CMSG_SPACE(sizeof(int) * FDPASS_MAX)];
};

int fdpass_send(int sock, const void *data, size_t len, const int *fds, unsigned n)
{
	struct iovec iov = { (void *)(uintptr_t)data, len };
	union control control = { 0 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = CMSG_SPACE(sizeof(int) * n) };

	assert(n && n <= FDPASS_MAX);
	control.head = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
					 .cmsg_type = SCM_RIGHTS,
					 .cmsg_len = CMSG_LEN(sizeof(int) * n) };
	memcpy(CMSG_DATA(&control.head), fds, sizeof(int) * n);
	return sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len ? 0 : -errno;
}

/* Everything that came, whatever it is: what is not wanted is closed. */
static unsigned take_fds(struct msghdr *msg, int *fds, unsigned max)
{
	unsigned n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (n < max)
				fds[n] = fd;
			else
				close(fd);
			n++;
		}
	}
	return n;
}

int fdpass_recv(int sock, void *data, size_t len, int *fds, unsigned n, int timeout_ms,
		struct err *err)
{
	struct iovec iov = { data, len };
	union control control = { 0 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof control };
	unsigned got;
	ssize_t bytes;

	assert(n && n <= FDPASS_MAX);
	if (!wait_for(sock, POLLIN, timeout_ms))
		return fail(err, -ETIMEDOUT, "no answer within %d ms", timeout_ms);
	bytes = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT | MSG_TRUNC);
	if (bytes < 0)
		return fail(err, -errno, "no answer: " OS_ERR, OS_ERR_ARGS(errno));
	got = take_fds(&msg, fds, n);
	if (bytes == (ssize_t)len && got == n && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return 0;
	for (unsigned i = 0; i < MIN(got, n); i++)
		close(fds[i]);
	return fail(err, -EPROTO, "an answer of %zd bytes and %u descriptors, not %zu and %u", bytes, got,
		    len, n);
}
