/*
 * io: reading, writing and sending in the few system calls that the filter of a running machine
 * has for it (src/jail/filter.c). Each is what the call of the same name does.
 *
 * After the start use these instead of pread(), pwrite(), readv(), writev(), recv(), send() and
 * poll(), each of which would be one more way into the kernel. Any thread; errors are in errno.
 */
#ifndef IO_H
#define IO_H

#include "base.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

static inline ssize_t io_pread(int fd, void *to, size_t len, u64 at)
{
	const struct iovec iov = { to, len };

	return preadv2(fd, &iov, 1, (off_t)at, 0);
}

static inline ssize_t io_pwrite(int fd, const void *from, size_t len, u64 at)
{
	const struct iovec iov = { (void *)(uintptr_t)from, len };

	return pwritev2(fd, &iov, 1, (off_t)at, 0);
}

/* Offset -1: where the file is, if it has such a thing (preadv2(2)). */
static inline ssize_t io_readv(int fd, const struct iovec *iov, int n)
{
	return preadv2(fd, iov, n, -1, 0);
}

static inline ssize_t io_writev(int fd, const struct iovec *iov, int n)
{
	return pwritev2(fd, iov, n, -1, 0);
}

/* Never waits. Descriptors that come along are closed by the kernel: there is no room for them. */
static inline ssize_t io_recv(int sock, void *to, size_t len, int flags)
{
	struct iovec iov = { to, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	return recvmsg(sock, &msg, flags | MSG_DONTWAIT);
}

/* Never waits, never raises SIGPIPE. */
static inline ssize_t io_send(int sock, const void *from, size_t len)
{
	struct iovec iov = { (void *)(uintptr_t)from, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	return sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/*
 * Which of `events` (EPOLLHUP and EPOLLERR always) there are on `fd`, within `ms`; 0: none. `epoll`
 * is an instance to ask with that watches nothing.
 */
static inline u32 io_poll(int epoll, int fd, u32 events, int ms)
{
	struct epoll_event event = { .events = events };
	int n;

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		return errno == EPERM ? events : 0; /* a file that knows no waiting */
	n = epoll_wait(epoll, &event, 1, ms);
	epoll_ctl(epoll, EPOLL_CTL_DEL, fd, &event);
	return n == 1 ? event.events : 0;
}

#endif
