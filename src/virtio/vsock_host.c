/*
 * vsock_host: the host's side of the vsock device: listening sockets, the first line, connecting,
 * the table of connections, deadlines. Part of vsock.c.
 *
 * Invariant: a slot is free, or owns its fd until it hung up; n counts those that are not
 * free, n_timed those with a deadline, and the timer ticks only while there are any.
 */
#include "vsock_parts.h"

#include "../vmm/io.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define LINE_MAX    32 /* of "CONNECT <port>\n", contract 3.5 */
#define PATIENCE_NS 2000000000u
#define TICK_NS	    500000000u
#define ACCEPT_TURN 32
#define BACKLOG	    128
#define SEQ_SUFFIX  ".seq"

/* ---- listening ------------------------------------------------------------------------------- */

/* The name is removed again if anything fails after it was made. */
static int listen_at(const char *path, const char *suffix, int type, struct err *err)
{
	CLEANUP_FD int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int len = snprintf(addr.sun_path, sizeof addr.sun_path, "%s%s", path, suffix);

	if (fd < 0)
		return fail(err, -errno, "Error creating a Unix socket: " OS_ERR,
			    OS_ERR_ARGS(errno));
	if (!*path || len >= (int)sizeof addr.sun_path)
		return fail(
			err, -ENAMETOOLONG,
			"Error binding to the host-side Unix socket: the path %s%s must have 1 to "
			"%zu bytes",
			path, suffix, sizeof addr.sun_path - 1);
	if (bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
		return fail(err, -errno, "Error binding to the host-side Unix socket: " OS_ERR,
			    OS_ERR_ARGS(errno));
	if (listen(fd, BACKLOG) < 0) {
		int r = -errno;

		unlink(addr.sun_path);
		return fail(err, r, "Error listening at the host-side Unix socket: " OS_ERR,
			    OS_ERR_ARGS(-r));
	}
	return steal_fd(&fd);
}

static void unlink_at(const char *path, const char *suffix)
{
	char name[VSOCK_PATH_MAX + sizeof SEQ_SUFFIX];

	snprintf(name, sizeof name, "%s%s", path, suffix);
	unlink(name);
}

int vsock_listen(struct vsock_config *cfg, struct err *err)
{
	cfg->seq_fd = -1;
	cfg->listen_fd = listen_at(cfg->uds_path, "", SOCK_STREAM, err);
	if (cfg->listen_fd < 0)
		return cfg->listen_fd;
	/* A path that has no room for the suffix has streams only. */
	if (strlen(cfg->uds_path) + sizeof SEQ_SUFFIX > VSOCK_PATH_MAX)
		return 0;
	cfg->seq_fd = listen_at(cfg->uds_path, SEQ_SUFFIX, SOCK_SEQPACKET, err);
	if (cfg->seq_fd < 0) {
		int r = cfg->seq_fd;

		close(cfg->listen_fd);
		cfg->listen_fd = -1;
		unlink_at(cfg->uds_path, "");
		return r;
	}
	return 0;
}

void vsock_unlisten(struct vsock_config *cfg)
{
	if (cfg->listen_fd >= 0) {
		close(cfg->listen_fd);
		unlink_at(cfg->uds_path, "");
	}
	if (cfg->seq_fd >= 0) {
		close(cfg->seq_fd);
		unlink_at(cfg->uds_path, SEQ_SUFFIX);
	}
	cfg->listen_fd = cfg->seq_fd = -1;
}

static void listen_again(struct vsock *vsock, bool again)
{
	struct loop_source *const sources[] = { &vsock->listener, &vsock->seq_listener };

	if (vsock->deaf == !again)
		return;
	vsock->deaf = !again;
	for (size_t i = 0; i < ARRAY_SIZE(sources); i++)
		if (sources[i]->fd >= 0)
			loop_mod(vsock->dev.loop, sources[i], again ? EPOLLIN : 0);
}

static void accept_all(struct vsock *vsock, int listener, u16 type)
{
	for (int turn = 0; turn < ACCEPT_TURN; turn++) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct vsock_conn *conn;

		/* Whoever waits there would wake us for ever. */
		if (fd < 0 &&
		    (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS))
			listen_again(vsock, false);
		if (fd < 0)
			return;
		conn = vsock_add(vsock, fd, type, VSOCK_GREETING);
		if (conn)
			vsock_set_deadline(conn, true);
	}
}

static void stream_waits(void *owner, u32 events)
{
	struct vsock *vsock = owner;

	(void)events;
	accept_all(vsock, vsock->listener.fd, VSOCK_STREAM);
}

static void seq_waits(void *owner, u32 events)
{
	struct vsock *vsock = owner;

	(void)events;
	accept_all(vsock, vsock->seq_listener.fd, VSOCK_SEQPACKET);
}

/* ---- the first line ----------------------------------------------------------------------------
 */

/* "CONNECT <decimal>", the keyword in any case. */
static bool parse_greeting(const char *line, size_t len, u32 *port)
{
	static const char word[] = "CONNECT ";
	const size_t skip = sizeof word - 1;
	u64 n = 0;

	if (len <= skip || strncasecmp(line, word, skip) != 0)
		return false;
	for (size_t i = skip; i < len; i++) {
		if (!isdigit((unsigned char)line[i]))
			return false;
		n = n * 10 + (u64)(line[i] - '0');
		if (n > UINT32_MAX)
			return false;
	}
	*port = (u32)n;
	return true;
}

/* Ports that are in use are few, and four billion there are. */
static u32 take_port(struct vsock *vsock, u32 guest_port)
{
	while (vsock_find(vsock, vsock->state.next_port, guest_port))
		vsock->state.next_port++;
	return vsock->state.next_port++;
}

void vsock_greet(struct vsock_conn *conn)
{
	struct vsock *vsock = conn->vsock;
	bool stream = conn->type == VSOCK_STREAM;
	char line[LINE_MAX];
	ssize_t n = io_recv(conn->fd, line, sizeof line, MSG_PEEK);
	const char *end;
	u32 port;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	end = n > 0 ? memchr(line, '\n', (size_t)n) : NULL;
	if (!end && n > 0 && n < LINE_MAX && stream)
		return; /* the rest will come, or the deadline */
	/* What follows the line belongs to the guest; a message is consumed whole. */
	if (!end ||
	    io_recv(conn->fd, line, stream ? (size_t)(end - line) + 1 : sizeof line, 0) < 0 ||
	    !parse_greeting(line, (size_t)(end - line), &port) || !device_active(&vsock->dev)) {
		vsock_remove(conn);
		return;
	}
	vsock_name(conn, take_port(vsock, port), port);
	conn->phase = VSOCK_ASKED;
	vsock_ready(conn, VSOCK_SAY_REQUEST);
	vsock_conn_watch(conn);
	vsock_pump(vsock);
}

int vsock_connect(const struct vsock *vsock, u32 port, u16 type)
{
	int kind = type == VSOCK_STREAM ? SOCK_STREAM : SOCK_SEQPACKET;
	CLEANUP_FD int fd = socket(AF_UNIX, kind | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int len = snprintf(addr.sun_path, sizeof addr.sun_path, "%s_%u", vsock->path, port);

	if (fd < 0)
		return -errno;
	if (len >= (int)sizeof addr.sun_path)
		return -ENAMETOOLONG;
	if (connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
		return -errno;
	return steal_fd(&fd);
}

/* ---- the table ----------------------------------------------------------------------------------
 */

static u32 *bucket(struct vsock *vsock, u32 host_port, u32 guest_port)
{
	return &vsock->hash[(host_port * 2654435761u ^ guest_port * 40503u) % VSOCK_HASH];
}

struct vsock_conn *vsock_find(struct vsock *vsock, u32 host_port, u32 guest_port)
{
	for (u32 i = *bucket(vsock, host_port, guest_port); i; i = vsock->conn[i - 1].next_hash) {
		struct vsock_conn *conn = &vsock->conn[i - 1];

		if (conn->host_port == host_port && conn->guest_port == guest_port)
			return conn;
	}
	return NULL;
}

static u32 number_of(const struct vsock_conn *conn)
{
	return (u32)(conn - conn->vsock->conn) + 1;
}

void vsock_name(struct vsock_conn *conn, u32 host_port, u32 guest_port)
{
	u32 *first = bucket(conn->vsock, host_port, guest_port);

	conn->host_port = host_port;
	conn->guest_port = guest_port;
	conn->next_hash = *first;
	*first = number_of(conn);
}

static void unname(struct vsock_conn *conn)
{
	u32 *link = bucket(conn->vsock, conn->host_port, conn->guest_port);

	for (; *link; link = &conn->vsock->conn[*link - 1].next_hash)
		if (*link == number_of(conn)) {
			*link = conn->next_hash;
			return;
		}
}

static u32 take_slot(struct vsock *vsock)
{
	u32 slot = vsock->free;

	if (slot)
		vsock->free = vsock->conn[slot - 1].next_hash;
	else if (vsock->high < vsock->max)
		slot = ++vsock->high;
	return slot;
}

struct vsock_conn *vsock_add(struct vsock *vsock, int fd, u16 type, enum vsock_phase phase)
{
	u32 slot = take_slot(vsock);
	struct vsock_conn *conn = slot ? &vsock->conn[slot - 1] : NULL;

	if (!conn) {
		close(fd);
		return NULL;
	}
	*conn = (struct vsock_conn){ .vsock = vsock, .phase = phase, .type = type, .fd = fd };
	conn->source = (struct loop_source){
		.fd = fd, .events = EPOLLIN, .ready = vsock_conn_event, .owner = conn
	};
	vsock->n++;
	vsock->metrics.conns_added++;
	if (loop_add(vsock->dev.loop, &conn->source) < 0) {
		conn->source.fd = -1;
		vsock_remove(conn);
		return NULL;
	}
	return conn;
}

static void leave_ready_list(struct vsock_conn *conn)
{
	struct vsock *vsock = conn->vsock;
	u32 *link = &vsock->ready_first, last = 0;

	if (!conn->ready)
		return;
	for (; *link != number_of(conn); link = &vsock->conn[*link - 1].next_ready)
		last = *link;
	*link = conn->next_ready;
	if (vsock->ready_last == number_of(conn))
		vsock->ready_last = last;
	conn->ready = false;
}

void vsock_hang_up(struct vsock_conn *conn)
{
	if (conn->fd < 0)
		return;
	if (conn->source.fd >= 0)
		loop_del(conn->vsock->dev.loop, &conn->source);
	close(conn->fd);
	conn->fd = conn->source.fd = -1;
	listen_again(conn->vsock, true);
}

void vsock_remove(struct vsock_conn *conn)
{
	struct vsock *vsock = conn->vsock;

	vsock_set_deadline(conn, false);
	leave_ready_list(conn);
	vsock_hang_up(conn);
	if (conn->phase != VSOCK_GREETING)
		unname(conn);
	free(conn->to_host.data);
	free(conn->to_guest.data);
	conn->phase = VSOCK_FREE;
	conn->next_hash = vsock->free;
	vsock->free = number_of(conn);
	vsock->n--;
	vsock->metrics.conns_removed++;
}

void vsock_drop_all(struct vsock *vsock)
{
	for (u32 i = 0; i < vsock->high; i++)
		if (vsock->conn[i].phase != VSOCK_FREE)
			vsock_remove(&vsock->conn[i]);
	vsock->n_rst = 0;
}

/* ---- deadlines
 * -------------------------------------------------------------------------------------- */

static void tick(struct vsock *vsock)
{
	if (vsock->ticking == (vsock->n_timed > 0))
		return;
	vsock->ticking = vsock->n_timed > 0;
	loop_timer_set(&vsock->timer, vsock->ticking ? TICK_NS : 0, vsock->ticking ? TICK_NS : 0);
}

void vsock_set_deadline(struct vsock_conn *conn, bool on)
{
	if (on == (conn->deadline_ns != 0))
		return;
	conn->deadline_ns = on ? loop_now_ns() + PATIENCE_NS : 0;
	conn->vsock->n_timed += on ? 1u : -1u;
	tick(conn->vsock);
}

static void sweep(void *owner)
{
	struct vsock *vsock = owner;
	u64 now_ns = loop_now_ns();

	/* A guest that stands still cannot answer: its time stands still too. */
	if (vsock->dev.paused)
		return;
	for (u32 i = 0; i < vsock->high; i++) {
		struct vsock_conn *conn = &vsock->conn[i];

		if (conn->phase == VSOCK_FREE || !conn->deadline_ns || conn->deadline_ns > now_ns)
			continue;
		vsock->metrics.conns_killed++;
		/* A guest that has not heard of it need not hear of its end. */
		if (conn->phase == VSOCK_GREETING || conn->say & VSOCK_SAY_REQUEST)
			vsock_remove(conn);
		else
			vsock_conn_reset(conn);
	}
	vsock_pump(vsock);
}

/* ---- life
 * -------------------------------------------------------------------------------------------- */

static int watch(struct vsock *vsock, struct loop_source *source, int fd,
		 void (*ready)(void *owner, u32 events))
{
	int r;

	*source =
		(struct loop_source){ .fd = fd, .events = EPOLLIN, .ready = ready, .owner = vsock };
	if (fd < 0)
		return 0;
	r = loop_add(vsock->dev.loop, source);
	if (r < 0)
		source->fd = -1;
	return r;
}

int vsock_host_create(struct vsock *vsock, const struct vsock_config *cfg, struct err *err)
{
	void *p = mmap(NULL, cfg->max_connections * sizeof(struct vsock_conn),
		       PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int r;

	vsock->listener.fd = vsock->seq_listener.fd = vsock->ask_epoll = -1;
	vsock->timer = (struct loop_timer){ .source.fd = -1, .expired = sweep, .owner = vsock };
	if (p == MAP_FAILED)
		return fail(err, -errno, "no memory for %u connections", cfg->max_connections);
	vsock->conn = p;
	vsock->max = cfg->max_connections;
	vsock->ask_epoll = epoll_create1(EPOLL_CLOEXEC);
	r = vsock->ask_epoll < 0 ? -errno : loop_timer_init(vsock->dev.loop, &vsock->timer);
	if (!r)
		r = watch(vsock, &vsock->listener, cfg->listen_fd, stream_waits);
	if (!r)
		r = watch(vsock, &vsock->seq_listener, cfg->seq_fd, seq_waits);
	return r < 0 ? fail(err, r, "cannot watch the vsock device's sockets: " OS_ERR,
			    OS_ERR_ARGS(-r))
		     : 0;
}

void vsock_host_destroy(struct vsock *vsock)
{
	if (!vsock->conn)
		return;
	vsock_drop_all(vsock);
	if (vsock->listener.fd >= 0)
		loop_del(vsock->dev.loop, &vsock->listener);
	if (vsock->seq_listener.fd >= 0)
		loop_del(vsock->dev.loop, &vsock->seq_listener);
	if (vsock->ask_epoll >= 0)
		close(vsock->ask_epoll);
	loop_timer_destroy(vsock->dev.loop, &vsock->timer);
	munmap(vsock->conn, vsock->max * sizeof(struct vsock_conn));
}
