/*
 * load: what tests and measurements want of a guest, in one static program.
 *
 *	load ADDRESS echo		give back all that comes, until its end
 *	load ADDRESS send BYTES		send so many, say their checksum
 *	load ADDRESS sink		take all that comes, say how much it was and its checksum
 *	load ADDRESS ping COUNT		so many round trips of 64 bytes
 *	load ADDRESS flood BYTES COUNT	so many messages (datagrams) of that size
 *	load ADDRESS many COUNT		so many connections at once, an echo over each
 *	load disk PATH read|write|randread|randwrite BYTES DEPTH SECONDS
 *	load hog MIB [COMMAND...]	hold so much touched memory while COMMAND runs
 *
 * ADDRESS: tcp:IP:PORT udp:IP:PORT vsock:CID:PORT seq:CID:PORT (vsock, SOCK_SEQPACKET)
 * unix:PATH; a leading @
 * listens there: one connection after the other for echo, one for the rest.
 *
 * Results are name=value lines; us= is the time it took in microseconds, crc= is zlib's crc32. What
 * is sent is told by its place: blocks of 64 KiB, each begins with its number (8 bytes, little
 * endian) and goes on with 0, 1, ... 255, 0, ...
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/vm_sockets.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK	       65536
#define DISK_DEPTH_MAX 64

static uint8_t block[BLOCK] __attribute__((aligned(4096)));
static uint32_t crc_table[8][256];

static void die(const char *what)
{
	printf("load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	if (*end || end == text) {
		printf("load: not a number: %s\n", text);
		exit(2);
	}
	return n;
}

/* ---- checksum: CRC-32 (IEEE 802.3), eight bytes a step --------------------------------------- */

static void crc_init(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int bit = 0; bit < 8; bit++)
			c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
		crc_table[0][i] = c;
	}
	for (int t = 1; t < 8; t++)
		for (int i = 0; i < 256; i++)
			crc_table[t][i] =
				crc_table[0][crc_table[t - 1][i] & 0xff] ^ crc_table[t - 1][i] >> 8;
}

static uint32_t crc_add(uint32_t crc, const uint8_t *p, size_t len)
{
	crc = ~crc;
	for (; len >= 8; p += 8, len -= 8) {
		uint64_t w;

		memcpy(&w, p, 8);
		w ^= crc;
		crc = 0;
		for (int t = 0; t < 8; t++)
			crc ^= crc_table[7 - t][w >> 8 * t & 0xff];
	}
	while (len--)
		crc = crc >> 8 ^ crc_table[0][(crc ^ *p++) & 0xff];
	return ~crc;
}

/* ---- addresses ------------------------------------------------------------------------------- */

struct address {
	int family, type;
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_vm vm;
		struct sockaddr_un un;
	} to;
	socklen_t len;
	bool listens;
};

static struct address parse(char *text)
{
	static const struct {
		const char *name;
		int family, type;
	} kinds[] = {
		{ "tcp", AF_INET, SOCK_STREAM },
		{ "udp", AF_INET, SOCK_DGRAM },
		{ "vsock", AF_VSOCK, SOCK_STREAM },
		{ "seq", AF_VSOCK, SOCK_SEQPACKET },
		{ "unix", AF_UNIX, SOCK_STREAM },
	};
	struct address a = { .listens = *text == '@' };
	char *kind = strtok(text + a.listens, ":"), *host = strtok(NULL, ":"),
	     *port = strtok(NULL, ":");

	for (size_t i = 0; host && i < sizeof kinds / sizeof kinds[0]; i++) {
		if (strcmp(kind, kinds[i].name))
			continue;
		a.family = kinds[i].family;
		a.type = kinds[i].type;
	}
	if (a.family == AF_UNIX) {
		a.to.un.sun_family = AF_UNIX;
		snprintf(a.to.un.sun_path, sizeof a.to.un.sun_path, "%s", host);
		a.len = sizeof a.to.un;
	} else if (port && a.family == AF_INET) {
		a.to.in = (struct sockaddr_in){ .sin_family = AF_INET,
						.sin_port = htons((uint16_t)number(port)) };
		inet_pton(AF_INET, host, &a.to.in.sin_addr);
		a.len = sizeof a.to.in;
	} else if (port && a.family == AF_VSOCK) {
		a.to.vm = (struct sockaddr_vm){ .svm_family = AF_VSOCK,
						.svm_cid = (unsigned)number(host),
						.svm_port = (unsigned)number(port) };
		a.len = sizeof a.to.vm;
	} else {
		printf("load: not an address\n");
		exit(2);
	}
	return a;
}

/* A connected socket, or with a listening address the listening one. */
static int open_socket(const struct address *a)
{
	int fd = socket(a->family, a->type, 0), one = 1;

	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (!a->listens) {
		if (connect(fd, &a->to.any, a->len) < 0)
			die("connect");
		return fd;
	}
	if (bind(fd, &a->to.any, a->len) < 0)
		die("bind");
	if (a->type != SOCK_DGRAM && listen(fd, 1024) < 0)
		die("listen");
	printf("listening=yes\n");
	fflush(stdout);
	return fd;
}

static int open_peer(const struct address *a)
{
	int fd = open_socket(a), peer;

	if (!a->listens || a->type == SOCK_DGRAM)
		return fd;
	peer = accept(fd, NULL, NULL);
	if (peer < 0)
		die("accept");
	close(fd);
	return peer;
}

/* ---- verbs on a connection ------------------------------------------------------------------- */

static void write_all(int fd, const void *from, size_t len)
{
	const char *p = from;

	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("send");
		p += n;
		len -= (size_t)n;
	}
}

static void read_all(int fd, void *to, size_t len)
{
	char *p = to;

	while (len) {
		ssize_t n = recv(fd, p, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("recv");
		p += n;
		len -= (size_t)n;
	}
}

static void report(uint64_t bytes, uint32_t crc, uint64_t begin_us)
{
	printf("bytes=%llu\ncrc=%u\nus=%llu\n", (unsigned long long)bytes, crc,
	       (unsigned long long)(now_us() - begin_us));
	fflush(stdout);
}

static void fill_block(void)
{
	for (size_t i = 0; i < BLOCK; i++)
		block[i] = (uint8_t)i;
}

static void verb_send(int fd, uint64_t bytes)
{
	uint64_t begin = now_us(), left = bytes;
	uint32_t crc = 0;

	for (uint64_t n = 0; left; n++) {
		size_t len = left < BLOCK ? (size_t)left : BLOCK;

		memcpy(block, &n, sizeof n);
		crc = crc_add(crc, block, len);
		write_all(fd, block, len);
		left -= len;
	}
	shutdown(fd, SHUT_WR);
	/* The other side closes when it has everything; until then it is not over. */
	while (recv(fd, block, sizeof block, 0) > 0)
		;
	report(bytes, crc, begin);
}

static void verb_sink(int fd)
{
	uint64_t begin = now_us(), bytes = 0;
	uint32_t crc = 0;
	ssize_t n;

	while ((n = recv(fd, block, sizeof block, 0)) > 0) {
		crc = crc_add(crc, block, (size_t)n);
		bytes += (uint64_t)n;
	}
	if (n < 0)
		die("recv");
	report(bytes, crc, begin);
}

static void echo_one(int fd)
{
	ssize_t n;

	while ((n = recv(fd, block, sizeof block, 0)) > 0)
		write_all(fd, block, (size_t)n);
	close(fd);
}

static void echo_datagrams(int fd)
{
	struct sockaddr_in from;
	socklen_t len = sizeof from;
	ssize_t n;

	while ((n = recvfrom(fd, block, sizeof block, 0, (struct sockaddr *)&from, &len)) >= 0)
		sendto(fd, block, (size_t)n, 0, (struct sockaddr *)&from, len);
}

/* A child for each connection, so that one that stands still does not hold up the others. */
static void verb_echo(const struct address *a)
{
	int fd = open_socket(a), peer;

	if (!a->listens) {
		echo_one(fd);
		return;
	}
	if (a->type == SOCK_DGRAM) {
		echo_datagrams(fd);
		return;
	}
	signal(SIGCHLD, SIG_IGN);
	while ((peer = accept(fd, NULL, NULL)) >= 0) {
		if (fork() == 0) {
			close(fd);
			echo_one(peer);
			_exit(0);
		}
		close(peer);
	}
	die("accept");
}

static void verb_ping(int fd, uint64_t count)
{
	uint64_t begin = now_us();
	uint8_t word[64] = { 0 };

	for (uint64_t i = 0; i < count; i++) {
		write_all(fd, word, sizeof word);
		read_all(fd, word, sizeof word);
	}
	report(count * sizeof word, 0, begin);
}

static void verb_flood(int fd, uint64_t bytes, uint64_t count)
{
	uint64_t begin = now_us(), refused = 0;

	if (bytes > BLOCK)
		bytes = BLOCK;
	for (uint64_t i = 0; i < count; i++)
		refused += send(fd, block, (size_t)bytes, 0) < 0;
	printf("refused=%llu\n", (unsigned long long)refused);
	report(count * bytes, 0, begin);
}

static void verb_many(const struct address *a, uint64_t count)
{
	uint64_t begin = now_us();
	int *fd = calloc(count, sizeof *fd);
	uint64_t word;

	for (uint64_t i = 0; i < count; i++)
		fd[i] = open_socket(a);
	for (uint64_t i = 0; i < count; i++)
		write_all(fd[i], &i, sizeof i);
	for (uint64_t i = 0; i < count; i++) {
		read_all(fd[i], &word, sizeof word);
		if (word != i) {
			printf("load: connection %llu answered %llu\n", (unsigned long long)i,
			       (unsigned long long)word);
			exit(1);
		}
	}
	printf("connections=%llu\n", (unsigned long long)count);
	report(count * sizeof word, 0, begin);
}

/* ---- disk: io_uring, O_DIRECT ---------------------------------------------------------------- */

struct ring {
	int fd;
	unsigned *sq_tail, *sq_array, sq_mask;
	unsigned *cq_head, *cq_tail, cq_mask;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
};

static void *ring_map(int fd, size_t len, off_t what)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);

	if (p == MAP_FAILED)
		die("mapping the ring");
	return p;
}

static void ring_open(struct ring *r)
{
	struct io_uring_params p = { 0 };
	char *sq, *cq;

	r->fd = (int)syscall(SYS_io_uring_setup, DISK_DEPTH_MAX, &p);
	if (r->fd < 0)
		die("io_uring_setup");
	sq = ring_map(r->fd, p.sq_off.array + p.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
	cq = ring_map(r->fd, p.cq_off.cqes + p.cq_entries * sizeof *r->cqe, IORING_OFF_CQ_RING);
	r->sqe = ring_map(r->fd, p.sq_entries * sizeof *r->sqe, IORING_OFF_SQES);
	r->sq_tail = (unsigned *)(sq + p.sq_off.tail);
	r->sq_array = (unsigned *)(sq + p.sq_off.array);
	r->sq_mask = *(unsigned *)(sq + p.sq_off.ring_mask);
	r->cq_head = (unsigned *)(cq + p.cq_off.head);
	r->cq_tail = (unsigned *)(cq + p.cq_off.tail);
	r->cq_mask = *(unsigned *)(cq + p.cq_off.ring_mask);
	r->cqe = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
}

struct disk {
	struct ring ring;
	int fd;
	bool writes, random;
	uint64_t size, bytes, at, seed;
	uint8_t *buffer;
};

static uint64_t next_place(struct disk *d)
{
	uint64_t places = d->size / d->bytes;

	if (d->random) {
		d->seed ^= d->seed << 13;
		d->seed ^= d->seed >> 7;
		d->seed ^= d->seed << 17;
		return d->seed % places * d->bytes;
	}
	return d->at++ % places * d->bytes;
}

static void disk_submit(struct disk *d, unsigned slot)
{
	struct ring *r = &d->ring;
	unsigned tail = *r->sq_tail, i = tail & r->sq_mask;

	r->sqe[i] = (struct io_uring_sqe){
		.opcode = d->writes ? IORING_OP_WRITE : IORING_OP_READ,
		.fd = d->fd,
		.addr = (uintptr_t)(d->buffer + slot * d->bytes),
		.len = (unsigned)d->bytes,
		.off = next_place(d),
		.user_data = slot,
	};
	r->sq_array[i] = i;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
}

static uint64_t disk_run(struct disk *d, unsigned depth, uint64_t end_us)
{
	struct ring *r = &d->ring;
	unsigned queued = depth;
	uint64_t ops = 0;

	for (unsigned slot = 0; slot < depth; slot++)
		disk_submit(d, slot);
	while (now_us() < end_us) {
		if (syscall(SYS_io_uring_enter, r->fd, queued, 1, IORING_ENTER_GETEVENTS, NULL, 0) <
		    0)
			die("io_uring_enter");
		queued = 0;
		while (*r->cq_head != __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE)) {
			struct io_uring_cqe *c = &r->cqe[*r->cq_head & r->cq_mask];

			if (c->res != (int)d->bytes) {
				errno = c->res < 0 ? -c->res : EIO;
				die("transfer");
			}
			disk_submit(d, (unsigned)c->user_data);
			__atomic_store_n(r->cq_head, *r->cq_head + 1, __ATOMIC_RELEASE);
			queued++;
			ops++;
		}
	}
	return ops;
}

static void verb_disk(char **argv)
{
	struct disk d = { .writes = strstr(argv[1], "write") != NULL,
			  .random = strncmp(argv[1], "rand", 4) == 0,
			  .bytes = number(argv[2]),
			  .seed = 88172645463325252u };
	unsigned depth = (unsigned)number(argv[3]);
	uint64_t begin, ops;

	if (!depth || depth > DISK_DEPTH_MAX)
		depth = DISK_DEPTH_MAX;
	d.fd = open(argv[0], (d.writes ? O_RDWR : O_RDONLY) | O_DIRECT);
	if (d.fd < 0)
		die(argv[0]);
	d.size = (uint64_t)lseek(d.fd, 0, SEEK_END);
	d.buffer = mmap(NULL, depth * d.bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (d.buffer == MAP_FAILED || d.size < d.bytes)
		die("no room");
	ring_open(&d.ring);
	begin = now_us();
	ops = disk_run(&d, depth, begin + number(argv[4]) * 1000000);
	printf("ops=%llu\n", (unsigned long long)ops);
	report(ops * d.bytes, 0, begin);
}

/* ---- memory ------------------------------------------------------------------------------------ */

static void verb_hog(int argc, char **argv)
{
	size_t len = (size_t)number(argv[0]) << 20;
	uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int status = 0;

	if (p == MAP_FAILED)
		die("mmap");
	for (size_t at = 0; at < len; at += 4096)
		memcpy(p + at, &at, sizeof at);
	printf("held=%zu\n", len >> 20);
	fflush(stdout);
	if (argc > 1 && fork() == 0) {
		execvp(argv[1], argv + 1);
		_exit(127);
	}
	wait(&status);
	for (size_t at = 0; at < len; at += 4096)
		if (memcmp(p + at, &at, sizeof at)) {
			printf("load: page at %zu is not what it was\n", at);
			exit(1);
		}
	printf("kept=yes\n");
}

int main(int argc, char **argv)
{
	const char *verb = argc > 2 ? argv[2] : "";
	struct address a;

	crc_init();
	fill_block();
	if (argc > 6 && !strcmp(argv[1], "disk")) {
		verb_disk(argv + 2);
		return 0;
	}
	if (argc > 2 && !strcmp(argv[1], "hog")) {
		verb_hog(argc - 2, argv + 2);
		return 0;
	}
	if (argc < 3) {
		printf("load: ADDRESS VERB, disk or hog\n");
		return 2;
	}
	a = parse(argv[1]);
	if (!strcmp(verb, "echo"))
		verb_echo(&a);
	else if (!strcmp(verb, "sink"))
		verb_sink(open_peer(&a));
	else if (!strcmp(verb, "send") && argc > 3)
		verb_send(open_peer(&a), number(argv[3]));
	else if (!strcmp(verb, "ping") && argc > 3)
		verb_ping(open_peer(&a), number(argv[3]));
	else if (!strcmp(verb, "many") && argc > 3)
		verb_many(&a, number(argv[3]));
	else if (!strcmp(verb, "flood") && argc > 4)
		verb_flood(open_peer(&a), number(argv[3]), number(argv[4]));
	else
		return printf("load: no such verb: %s\n", verb), 2;
	return 0;
}
