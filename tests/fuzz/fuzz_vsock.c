/* The vsock device: packets of every kind, with peers on the host that come, talk and go. */
#include "src/virtio/vsock.h"
#include "tests/fuzz/virtio.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define PEERS 4
static char path[64];
static int peer[PEERS] = { -1, -1, -1, -1 };
static int server = -1; /* where the guest's connections to port 1 come out */
static struct loop *loop;

static int unix_socket(const char *suffix, bool listens)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	snprintf(addr.sun_path, sizeof addr.sun_path, "%s%s", path, suffix);
	if (listens) {
		unlink(addr.sun_path);
		REQUIRE(bind(fd, (struct sockaddr *)&addr, sizeof addr) == 0 && listen(fd, 16) == 0);
	} else {
		(void)!connect(fd, (struct sockaddr *)&addr, sizeof addr);
	}
	return fd;
}

static void stop(void *owner)
{
	(void)owner;
	loop_stop(loop, 0);
}

/* One turn of the loop: whatever is ready. */
static void turn(void)
{
	struct loop_timer soon = { .expired = stop };

	REQUIRE(loop_timer_init(loop, &soon) == 0);
	for (int i = 0; i < 1; i++) {
		loop_timer_set(&soon, 1, 0);
		loop_run(loop);
	}
	loop_timer_destroy(loop, &soon);
}

static void talk(struct guest *g)
{
	static u8 bytes[70000];
	u64 what = take(g, 1), n = take(g, 2);
	int *fd = &peer[what % PEERS];

	switch (what / PEERS % 6) {
	case 0:
		if (*fd < 0)
			*fd = unix_socket("", false);
		break;
	case 1:
		(void)!send(*fd, "CONNECT 7\n", 10, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case 2:
		(void)!send(*fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case 3:
		(void)!recv(*fd, bytes, n, MSG_DONTWAIT);
		break;
	case 4:
		shutdown(*fd, (int)(n % 3));
		break;
	default:
		if (*fd >= 0)
			close(*fd);
		*fd = accept4(server, NULL, NULL, SOCK_NONBLOCK);
	}
	turn();
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct guest guest;
	struct vsock_config cfg = { .guest_cid = 3, .max_connections = 8 };
	struct vsock *vsock;
	struct err err;

	loop = guest_begin(&guest, data, size);
	snprintf(path, sizeof path, "/tmp/mf-fuzz-vsock-%d", (int)getpid());
	snprintf(cfg.uds_path, sizeof cfg.uds_path, "%s", path);
	REQUIRE(vsock_listen(&cfg, &err) == 0);
	server = unix_socket("_1", true);
	REQUIRE(vsock_create(&vsock, &cfg, &guest.mem, loop, &err) == 0);
	guest_attach(&guest, vsock_device(vsock));
	guest.backend = talk;
	guest_run(&guest);
	turn();
	REQUIRE(vsock_connections(vsock) <= cfg.max_connections);
	vsock_destroy(vsock);
	vsock_unlisten(&cfg);
	for (unsigned i = 0; i < PEERS; i++) {
		if (peer[i] >= 0)
			close(peer[i]);
		peer[i] = -1;
	}
	close(server);
	snprintf(cfg.uds_path, sizeof cfg.uds_path, "%s_1", path);
	unlink(cfg.uds_path);
	return 0;
}
