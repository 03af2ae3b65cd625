/*
 * listen: see listen.h.
 *
 * bind() makes the name before listen() makes the socket work, so the socket is bound beside its
 * place and moved there. It is moved by link(): that never replaces anything, and to those who
 * watch the directory it looks like the creation that they wait for.
 */
#include "listen.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

#define BACKLOG SOMAXCONN /* a burst of clients waits rather than being refused */
#define TRIES	4

static int bind_at(int fd, const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof addr.sun_path)
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	return bind(fd, (const struct sockaddr *)&addr, sizeof addr) < 0 ? -errno : 0;
}

/* A name of our own in the directory of `path`; false if there is no room for one. */
static bool name_beside(const char *path, char *out, size_t size)
{
	const char *slash = strrchr(path, '/');
	int dir = slash ? (int)(slash - path) + 1 : 0;
	u32 tag;

	if (getrandom(&tag, sizeof tag, GRND_NONBLOCK) != sizeof tag)
		tag = (u32)getpid();
	return (size_t)snprintf(out, size, "%.*s.api-%08x", dir, path, tag) < size;
}

static int move_into_place(const char *from, const char *to)
{
	int r = 0;

	if (link(from, to) == 0) {
		unlink(from);
		return 0;
	}
	/* File systems without hard links; what exists stays here too. */
	if (errno == EEXIST || renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) < 0)
		r = -errno;
	if (r)
		unlink(from);
	return r;
}

static int listen_at(int fd, const char *path)
{
	char beside[sizeof(struct sockaddr_un) - offsetof(struct sockaddr_un, sun_path)];
	int r = -EADDRINUSE;

	for (int i = 0; i < TRIES && r == -EADDRINUSE; i++) {
		/* A path at the limit of length: in place at once, the window being the price. */
		if (!name_beside(path, beside, sizeof beside)) {
			r = bind_at(fd, path);
			return r < 0 ? r : listen(fd, BACKLOG) < 0 ? -errno : 0;
		}
		r = bind_at(fd, beside);
	}
	if (r < 0)
		return r;
	if (listen(fd, BACKLOG) < 0) {
		r = -errno;
		unlink(beside);
		return r;
	}
	return move_into_place(beside, path);
}

int listen_open(const char *path, struct err *err)
{
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r = -ENAMETOOLONG;

	if (fd < 0)
		return fail(err, -errno, "cannot make the API socket: " OS_ERR, OS_ERR_ARGS(errno));
	if (strlen(path) < sizeof(((struct sockaddr_un *)0)->sun_path))
		r = listen_at(fd, path);
	if (r == -EEXIST || r == -EADDRINUSE)
		return fail(
			err, r,
			"Failed to open the API socket at: %s. Check that it is not already used.",
			path);
	if (r < 0)
		return fail(err, r, "Failed to open the API socket at: %s. " OS_ERR, path,
			    OS_ERR_ARGS(-r));
	return steal_fd(&fd);
}
