/*
 * share: see share.h. The message is a head of 16 bytes and two descriptors, state and memory.
 */
#include "share.h"

#include "fdpass.h"
#include "log.h"
#include "mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define MAGIC	   0x4552414853594d00ull /* "\0MYSHARE" */
#define VERSION	   1u
#define PATIENCE_MS 5000
#define TURN	   64

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

struct head {
	u64 magic;
	u32 version, n_fds;
};

struct share {
	struct loop *loop;
	struct loop_source listener;
	int state_fd, mem_fd;
	char path[108];
};

static void waits(void *owner, u32 events)
{
	const struct head head = { MAGIC, VERSION, 2 };
	struct share *share = owner;
	const int fds[2] = { share->state_fd, share->mem_fd };

	(void)events;
	for (int turn = 0; turn < TURN; turn++) {
		CLEANUP_FD int fd = accept4(share->listener.fd, NULL, NULL,
					    SOCK_NONBLOCK | SOCK_CLOEXEC);
		int r;

		if (fd < 0 && (errno == EMFILE || errno == ENFILE))
			/* Whoever waits has to come again: else this would wake us for ever. */
			loop_del(share->loop, &share->listener);
		if (fd < 0)
			return;
		r = fdpass_send(fd, &head, sizeof head, fds, 2);
		if (r < 0)
			log_guest("a machine could not be handed over: " OS_ERR, OS_ERR_ARGS(-r));
	}
}

static int state_file(struct vm *vm, const char *config, struct err *err)
{
	static const u8 no_pair[STATE_PAIR_LEN];
	CLEANUP_FD int fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct stream stream;
	int r = fd < 0 ? fail(err, -errno, "no memory for the state: " OS_ERR, OS_ERR_ARGS(errno))
		       : stream_create(&stream, err);

	if (r < 0)
		return r;
	r = vm_send(vm, config, no_pair, &stream, err);
	if (!r) {
		r = stream_store(&stream, fd);
		if (r < 0)
			fail(err, r, "the state cannot be kept: " OS_ERR, OS_ERR_ARGS(-r));
	}
	stream_destroy(&stream);
	if (!r && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		r = fail(err, -errno, "sealing the state: " OS_ERR, OS_ERR_ARGS(errno));
	return r < 0 ? r : steal_fd(&fd);
}

static int set_up(struct share *share, struct vm *vm, const char *config, const char *path,
		  struct err *err)
{
	int r;

	share->listener.fd = fdpass_listen(path, err);
	if (share->listener.fd < 0)
		return share->listener.fd;
	snprintf(share->path, sizeof share->path, "%s", path);
	share->state_fd = state_file(vm, config, err);
	if (share->state_fd < 0)
		return share->state_fd;
	r = vm_freeze(vm, false, err);
	if (r < 0)
		return r;
	share->mem_fd = fcntl(vm_mem(vm)->fd, F_DUPFD_CLOEXEC, 0);
	if (share->mem_fd < 0)
		return fail(err, -errno, "the frozen memory: " OS_ERR, OS_ERR_ARGS(errno));
	r = loop_add(share->loop, &share->listener);
	return r < 0 ? fail(err, r, "cannot watch %s: " OS_ERR, path, OS_ERR_ARGS(-r)) : 0;
}

int share_create(struct share **out, struct vm *vm, const char *config, const char *path,
		 struct loop *loop, struct err *err)
{
	struct share *share = calloc(1, sizeof *share);
	int r;

	*out = NULL;
	if (!share)
		return fail(err, -ENOMEM, "no memory to share a machine");
	*share = (struct share){ .loop = loop, .state_fd = -1, .mem_fd = -1 };
	share->listener = (struct loop_source){
		.fd = -1, .events = EPOLLIN, .ready = waits, .owner = share
	};
	r = set_up(share, vm, config, path, err);
	if (r < 0) {
		share_destroy(share);
		return r;
	}
	*out = share;
	return 0;
}

void share_destroy(struct share *share)
{
	if (!share)
		return;
	if (share->listener.fd >= 0) {
		loop_del(share->loop, &share->listener);
		close(share->listener.fd);
	}
	if (share->path[0])
		unlink(share->path);
	cleanup_fd_fn(&share->state_fd);
	cleanup_fd_fn(&share->mem_fd);
	free(share);
}

/* Nobody can cut it short under us, or write to it. */
static bool is_sealed(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & F_SEAL_SHRINK) && (seals & F_SEAL_GROW) &&
	       (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE));
}

int share_take(const char *path, int *state_fd, int *mem_fd, struct err *err)
{
	CLEANUP_FD int sock = fdpass_connect(path, SOCK_SEQPACKET, PATIENCE_MS, err);
	struct head head;
	int fds[2], r;

	if (sock < 0)
		return sock;
	r = fdpass_recv(sock, &head, sizeof head, fds, 2, PATIENCE_MS, err);
	if (r < 0)
		return fail_prefix(err, r, "%.200s: ", path);
	if (head.magic != MAGIC || head.version != VERSION || !is_sealed(fds[0]) || !is_sealed(fds[1])) {
		close(fds[0]);
		close(fds[1]);
		return fail(err, -EPROTO, "%.200s: what answers there does not share a machine", path);
	}
	*state_fd = fds[0];
	*mem_fd = fds[1];
	return 0;
}
