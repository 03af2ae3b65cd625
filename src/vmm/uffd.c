/* uffd: see uffd.h. */
#include "uffd.h"

#include "fdpass.h"
#include "json.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PATIENCE_MS 5000
#define FLAGS	    (O_CLOEXEC | O_NONBLOCK)

/* Linux 6.1 */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

void uffd_init(struct uffd *uffd)
{
	*uffd = (struct uffd){ .fd = -1, .sock = -1, .process = -1, .gone.fd = -1 };
}

/* KVM's own faults have to be told too, which the system call alone allows to root only. */
static int create(struct err *err)
{
	CLEANUP_FD int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd = device < 0 ? (int)syscall(__NR_userfaultfd, FLAGS)
			    : ioctl(device, USERFAULTFD_IOC_NEW, FLAGS);

	return fd < 0 ? fail(err, -errno, "Failed to create userfaultfd: " OS_ERR, OS_ERR_ARGS(errno))
		      : fd;
}

static int watch_memory(int fd, const struct mem *mem, struct err *err)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE };

	if (ioctl(fd, UFFDIO_API, &api) < 0)
		return fail(err, -errno, "userfaultfd cannot tell of pages that are given back: " OS_ERR,
			    OS_ERR_ARGS(errno));
	for (unsigned i = 0; i < mem->n_regions; i++) {
		const struct mem_region *r = &mem->region[i];
		struct uffdio_register reg = { .range = { (uintptr_t)r->host, r->size },
					       .mode = UFFDIO_REGISTER_MODE_MISSING };

		if (ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
			return fail(err, -errno, "Failed to register memory address range with the "
				    "userfaultfd object: " OS_ERR, OS_ERR_ARGS(errno));
	}
	return 0;
}

/* `page_size_kib` is in bytes too, as handlers have come to expect. */
static void describe(const struct mem *mem, struct json_out *out)
{
	u64 page = mem->pages == MEM_PAGES_2M ? MIB(2) : KIB(4);

	json_put(out, "[");
	for (unsigned i = 0; i < mem->n_regions; i++) {
		const struct mem_region *r = &mem->region[i];

		json_put(out, i ? ",{\"base_host_virt_addr\":" : "{\"base_host_virt_addr\":");
		json_put_u64(out, (uintptr_t)r->host);
		json_put(out, ",\"size\":");
		json_put_u64(out, r->size);
		json_put(out, ",\"offset\":");
		json_put_u64(out, r->offset);
		json_put(out, ",\"page_size\":");
		json_put_u64(out, page);
		json_put(out, ",\"page_size_kib\":");
		json_put_u64(out, page);
		json_put(out, "}");
	}
	json_put(out, "]");
}

static int hand_over(const struct uffd *uffd, const struct mem *mem, struct err *err)
{
	char text[512];
	struct json_out out = { .buf = text, .size = sizeof text };
	int r;

	describe(mem, &out);
	assert(!out.overflow);
	r = fdpass_send(uffd->sock, text, out.len, &uffd->fd, 1);
	return r < 0 ? fail(err, r, "Failed to send file descriptor: " OS_ERR, OS_ERR_ARGS(-r)) : 0;
}

/* ---- the handler's end ----------------------------------------------------------------------------- */

static bool is_closed(int sock)
{
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n = recvmsg(sock, &msg, MSG_PEEK | MSG_DONTWAIT);

	return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/* Somebody else may have its connection, and serve on. */
static void process_ended(void *owner, u32 events)
{
	struct uffd *uffd = owner;

	(void)events;
	loop_del(uffd->loop, &uffd->gone);
	if (is_closed(uffd->sock))
		uffd->lost(uffd->owner);
}

/* Whose process is not seen from here (another pid namespace) is not watched. */
static int watch_handler(struct uffd *uffd, struct err *err)
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof peer;
	int r;

	if (getsockopt(uffd->sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.pid <= 0)
		return 0;
	uffd->process = (int)syscall(__NR_pidfd_open, peer.pid, 0);
	if (uffd->process < 0)
		return 0;
	uffd->gone = (struct loop_source){
		.fd = uffd->process, .events = EPOLLIN, .ready = process_ended, .owner = uffd
	};
	r = loop_add(uffd->loop, &uffd->gone);
	return r < 0 ? fail(err, r, "cannot watch the page fault handler: " OS_ERR, OS_ERR_ARGS(-r)) : 0;
}

int uffd_serve(struct uffd *uffd, const struct mem *mem, const char *path, struct loop *loop,
	       void (*lost)(void *owner), void *owner, struct err *err)
{
	int r;

	uffd->loop = loop;
	uffd->lost = lost;
	uffd->owner = owner;
	uffd->sock = fdpass_connect(path, SOCK_STREAM, PATIENCE_MS, err);
	if (uffd->sock < 0)
		return fail(err, uffd->sock, "Failed to connect to UDS Unix stream: " OS_ERR,
			    OS_ERR_ARGS(-uffd->sock));
	uffd->fd = create(err);
	if (uffd->fd < 0)
		return uffd->fd;
	r = watch_memory(uffd->fd, mem, err);
	if (!r)
		r = hand_over(uffd, mem, err);
	return r < 0 ? r : watch_handler(uffd, err);
}

void uffd_destroy(struct uffd *uffd)
{
	if (uffd->gone.fd >= 0)
		loop_del(uffd->loop, &uffd->gone);
	cleanup_fd_fn(&uffd->process);
	cleanup_fd_fn(&uffd->sock);
	cleanup_fd_fn(&uffd->fd);
	uffd_init(uffd);
}
