/* disk: what becomes of a request, with io_uring and without, on files that behave and that do not.
 */
#include "tests/unit/test.h"
#include "tests/unit/sandbox.h"

#include "src/virtio/disk_ask.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#define SIZE MIB(4)

static char dir[] = "/tmp/test_disk.XXXXXX";
static char path[64];
static struct loop *loop;
static struct disk *disk;
static int fd;
static bool uring;
static struct err err;

/* ---- a user of the disk ----------------------------------------------------------------- */

static unsigned n_done, settled_at;
static unsigned want_done;

static void done(struct disk_io *io)
{
	(void)io;
	n_done++;
}

static void settled(void *owner)
{
	assert_ptr_equal(owner, &n_done);
	settled_at = n_done;
	if (n_done >= want_done)
		loop_stop(loop, 0);
}

static void too_late(void *owner)
{
	(void)owner;
	loop_stop(loop, 1);
}

/* The loop turns until `n` requests are done and settled. */
static void wait_for(unsigned n)
{
	struct loop_timer timer;

	if (n_done >= n)
		return;
	want_done = n;
	timer.expired = too_late;
	timer.owner = NULL;
	assert_int_equal(loop_timer_init(loop, &timer), 0);
	loop_timer_set(&timer, 20000000000ull, 0);
	assert_int_equal(loop_run(loop), 0);
	loop_timer_destroy(loop, &timer);
	assert_true(n_done >= n);
	assert_int_equal(settled_at, n_done);
}

static struct disk_io request(enum disk_op op, u64 offset, u64 length)
{
	return (struct disk_io){ .op = op, .offset = offset, .length = length, .done = done };
}

static int finish(struct disk_io *io)
{
	unsigned before = n_done;

	disk_submit(disk, io);
	disk_kick(disk);
	wait_for(before + 1);
	assert_int_equal(n_done, before + 1);
	return io->result;
}

static int transfer(enum disk_op op, u64 offset, void *data, size_t len)
{
	struct iovec iov = { data, len };
	struct disk_io io = request(op, offset, len);

	io.iov = &iov;
	io.n_iov = 1;
	return finish(&io);
}

static int simple(enum disk_op op, u64 offset, u64 length)
{
	struct disk_io io = request(op, offset, length);

	return finish(&io);
}

static int zero(u64 offset, u64 length, bool unmap)
{
	struct disk_io io = request(DISK_WRITE_ZEROES, offset, length);

	io.unmap = unmap;
	return finish(&io);
}

/* ---- files ------------------------------------------------------------------------------ */

static u8 pattern(u64 at)
{
	return (u8)(at * 31 + at / 512 * 7 + 1);
}

static void fill(int file, u64 size)
{
	u8 *data = malloc(size);

	for (u64 i = 0; i < size; i++)
		data[i] = pattern(i);
	assert_int_equal(pwrite(file, data, size, 0), size);
	free(data);
}

static bool has_pattern(const u8 *data, u64 at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (data[i] != pattern(at + i))
			return false;
	return true;
}

static bool is_zero(const u8 *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (data[i])
			return false;
	return true;
}

static bool file_zero(u64 at, size_t len)
{
	u8 *data = malloc(len);
	bool yes = pread(fd, data, len, (off_t)at) == (ssize_t)len && is_zero(data, len);

	free(data);
	return yes;
}

static bool file_pattern(u64 at, size_t len)
{
	u8 *data = malloc(len);
	bool yes = pread(fd, data, len, (off_t)at) == (ssize_t)len && has_pattern(data, at, len);

	free(data);
	return yes;
}

/* Nothing of the file stays in the page cache. */
static void cool(void)
{
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), 0);
}

static u64 allocated(void)
{
	struct stat st;

	assert_int_equal(fsync(fd), 0); /* delayed allocation */
	assert_int_equal(fstat(fd, &st), 0);
	return (u64)st.st_blocks * 512;
}

static void use(int file)
{
	if (disk)
		disk_destroy(disk);
	fd = file;
	assert_int_equal(disk_create(&disk, loop, fd, uring, settled, &n_done, &err), 0);
	assert_string_equal(disk_engine(disk), uring ? "io_uring" : "sync");
}

static int set_up(void)
{
	n_done = settled_at = 0;
	disk = NULL;
	assert_int_equal(loop_create(&loop, &err), 0);
	snprintf(path, sizeof path, "%s/disk", dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	fill(fd, SIZE);
	use(fd);
	return 0;
}

static int with_uring(void **state)
{
	(void)state;
	uring = true;
	return set_up();
}

static int with_sync(void **state)
{
	(void)state;
	uring = false;
	return set_up();
}

static int tear_down(void **state)
{
	(void)state;
	disk_destroy(disk);
	disk_destroy(NULL);
	loop_destroy(loop);
	close(fd);
	unlink(path);
	return 0;
}

/* ---- opening ---------------------------------------------------------------------------- */

static void an_open_disk_is_closed_on_exec_and_blocks(void **state)
{
	int file = disk_open(path, false, &err);

	(void)state;
	assert_true(file >= 0);
	assert_int_equal(fcntl(file, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fcntl(file, F_GETFL) & (O_NONBLOCK | O_ACCMODE), O_RDWR);
	close(file);
	file = disk_open(path, true, &err);
	assert_int_equal(fcntl(file, F_GETFL) & (O_NONBLOCK | O_ACCMODE), O_RDONLY);
	close(file);
}

static void a_missing_file_is_named_with_the_reason(void **state)
{
	(void)state;
	assert_int_equal(disk_open("/no/such/disk", false, &err), -ENOENT);
	assert_string_equal(err.msg, "No such file or directory (os error 2) /no/such/disk");
}

static void refused(const char *what)
{
	assert_true(disk_open(what, true, &err) < 0);
	assert_non_null(strstr(err.msg, what));
	assert_non_null(strstr(err.msg, "(os error "));
	assert_true(disk_open(what, false, &err) < 0);
	assert_non_null(strstr(err.msg, what));
}

static void what_is_no_disk_is_refused_without_waiting(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char fifo[64], link[64];
	int sock = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)state;
	snprintf(fifo, sizeof fifo, "%s/fifo", dir);
	snprintf(link, sizeof link, "%s/link", dir);
	snprintf(addr.sun_path, sizeof addr.sun_path, "%s/sock", dir);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(symlink(fifo, link), 0);
	assert_int_equal(bind(sock, (struct sockaddr *)&addr, sizeof addr), 0);
	alarm(10);
	refused(fifo);
	refused(link);
	refused(addr.sun_path);
	refused(dir);
	refused("/dev/null");
	refused("/dev/zero");
	refused("/dev/tty");
	alarm(0);
	close(sock);
	unlink(fifo);
	unlink(link);
	unlink(addr.sun_path);
}

static void a_read_only_file_is_no_writable_disk(void **state)
{
	int file;

	(void)state;
	chmod(path, 0444);
	chmod(dir, 0755);
	if (geteuid() == 0)
		assert_int_equal(seteuid(65534), 0);
	assert_int_equal(disk_open(path, false, &err), -EACCES);
	file = disk_open(path, true, &err);
	if (getuid() == 0)
		assert_int_equal(seteuid(0), 0);
	assert_true(file >= 0);
	close(file);
}

static void a_size_is_rounded_down_to_whole_sectors(void **state)
{
	u64 bytes;

	(void)state;
	assert_int_equal(ftruncate(fd, 1023), 0);
	assert_int_equal(disk_size(fd, &bytes, &err), 0);
	assert_true(bytes == 512);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(disk_size(fd, &bytes, &err), 0);
	assert_true(bytes == 0);
	assert_int_equal(ftruncate(fd, (off_t)GIB(16 * 1024) - 4096), 0);
	assert_int_equal(disk_size(fd, &bytes, &err), 0);
	assert_true(bytes == GIB(16 * 1024) - 4096);
}

static void a_size_that_is_not_to_be_had_is_an_error(void **state)
{
	u64 bytes;
	int pipes[2];

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(disk_size(pipes[0], &bytes, &err), -ESPIPE);
	close(pipes[0]);
	close(pipes[1]);
}

/* ---- the state machine, with a kernel of our own ------------------------------------------ */

#define MINI 24

/* Transfers at most `first` bytes in the first call and `second` in each one after. */
static void split_transfer(enum disk_op op, size_t first, size_t second)
{
	u8 file[MINI], memory[MINI + 2] = { 0 };
	struct iovec iov[] = { { memory + 1, 5 }, { memory + 6, 1 }, { memory + 7, MINI - 6 } };
	struct disk_io io = { .op = op, .length = MINI, .iov = iov, .n_iov = 3 };
	u8 *from = op == DISK_READ ? file : memory + 1, *to = op == DISK_READ ? memory + 1 : file;
	int flush_error = 0;
	size_t at = 0, most = first;
	bool over;

	for (size_t i = 0; i < MINI; i++)
		from[i] = (u8)(i + 1);
	do {
		struct disk_ask ask = disk_ask_next(&io);
		size_t n = MIN(most, MINI - at), left = n;

		assert_int_equal(ask.pos, at);
		assert_ptr_equal(ask.base, ask.iov->iov_base);
		assert_int_equal(ask.len, ask.iov->iov_len);
		for (int i = 0; i < ask.n_iov && left; i++) {
			size_t k = MIN(left, ask.iov[i].iov_len);
			u8 *host = ask.iov[i].iov_base;

			if (op == DISK_READ)
				memcpy(host, file + at, k);
			else
				memcpy(file + at, host, k);
			at += k;
			left -= k;
		}
		most = second;
		over = disk_ask_answer(&io, (int)n, &flush_error);
	} while (!over);
	assert_int_equal(at, MINI);
	assert_int_equal(io.result, 0);
	assert_memory_equal(from, to, MINI);
	assert_int_equal(memory[0] | memory[MINI + 1], 0);
}

static void a_short_transfer_goes_on_where_it_stopped_at_every_split(void **state)
{
	(void)state;
	for (size_t first = 1; first <= MINI; first++)
		for (size_t second = 1; second <= MINI; second++) {
			split_transfer(DISK_READ, first, second);
			split_transfer(DISK_WRITE, first, second);
		}
}

static void an_interrupted_call_is_made_again_but_not_for_ever(void **state)
{
	u8 byte[512];
	struct iovec iov = { byte, sizeof byte };
	struct disk_io io = { .op = DISK_WRITE, .length = 512, .iov = &iov, .n_iov = 1 };
	struct disk_io flush = { .op = DISK_FLUSH };
	int flush_error = 0, turns = 0;

	(void)state;
	for (int i = 0; i < 900; i++)
		assert_false(disk_ask_answer(&io, i % 2 ? -EINTR : -EAGAIN, &flush_error));
	assert_int_equal(io.moved, 0);
	assert_false(disk_ask_answer(&io, 256, &flush_error));
	while (!disk_ask_answer(&io, -EAGAIN, &flush_error))
		turns++;
	assert_in_range(turns, 901, 10000);
	assert_int_equal(io.result, -EAGAIN);
	assert_false(disk_ask_answer(&flush, -EINTR, &flush_error));
	assert_true(disk_ask_answer(&flush, 0, &flush_error));
	assert_int_equal(flush.result, 0);
}

static void a_flush_beside_one_that_failed_fails_too(void **state)
{
	struct disk_io first = { .op = DISK_FLUSH }, second = { .op = DISK_FLUSH };
	int flush_error = 0;

	(void)state;
	assert_true(disk_ask_answer(&first, -ENOSPC, &flush_error));
	assert_true(disk_ask_answer(&second, 0, &flush_error));
	assert_int_equal(first.result, -EIO);
	assert_int_equal(second.result, -EIO);
}

/* The flags of what is asked for while everything is refused with EOPNOTSUPP. */
static void ways(enum disk_op op, bool unmap, const int *flags, int n, enum disk_ask_kind last)
{
	struct disk_io io = { .op = op, .length = MIB(1), .unmap = unmap };
	int flush_error = 0;

	for (int i = 0; i < n; i++) {
		struct disk_ask ask = disk_ask_next(&io);

		assert_int_equal(ask.kind, ASK_FALLOCATE);
		assert_int_equal(ask.flags, flags[i]);
		assert_false(disk_ask_answer(&io, -EOPNOTSUPP, &flush_error));
	}
	assert_int_equal(disk_ask_next(&io).kind, last);
}

static void each_way_of_clearing_a_range_has_its_substitute(void **state)
{
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	const int flat = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;

	(void)state;
	ways(DISK_DISCARD, false, (int[]){ punch }, 1, ASK_NOTHING);
	ways(DISK_WRITE_ZEROES, false, (int[]){ flat }, 1, ASK_WRITE);
	ways(DISK_WRITE_ZEROES, true, (int[]){ punch, flat }, 2, ASK_WRITE);
}

static void a_refused_range_fails_when_the_reason_is_real(void **state)
{
	struct disk_io io = { .op = DISK_WRITE_ZEROES, .length = MIB(1) };
	int flush_error = 0;

	(void)state;
	assert_true(disk_ask_answer(&io, -ENOSPC, &flush_error));
	assert_int_equal(io.result, -ENOSPC);
}

/* ---- transfers -------------------------------------------------------------------------- */

static void what_is_written_is_read_back(void **state)
{
	u8 out[8192], in[8192];

	(void)state;
	for (size_t i = 0; i < sizeof out; i++)
		out[i] = (u8)(i * 13);
	assert_int_equal(transfer(DISK_WRITE, KIB(64), out, sizeof out), 0);
	assert_int_equal(transfer(DISK_READ, KIB(64), in, sizeof in), 0);
	assert_memory_equal(in, out, sizeof in);
	assert_true(file_pattern(0, KIB(64)));
	assert_true(file_pattern(KIB(64) + 8192, 512));
}

static void read_segments(bool cold)
{
	u8 data[3][2048];
	struct iovec iov[3] = { { data[2], 1 }, { data[0], 2048 }, { data[1], 511 + 512 } };
	struct disk_io io = request(DISK_READ, 1536, 3072);

	if (cold)
		cool();
	memset(data, 0, sizeof data);
	io.iov = iov;
	io.n_iov = 3;
	assert_int_equal(finish(&io), 0);
	assert_true(has_pattern(data[2], 1536, 1));
	assert_true(has_pattern(data[0], 1537, 2048));
	assert_true(has_pattern(data[1], 1537 + 2048, 1023));
}

static void segments_are_filled_in_order(void **state)
{
	(void)state;
	read_segments(false);
	read_segments(true);
}

static void segments_are_written_in_order(void **state)
{
	u8 data[2][1024];
	struct iovec iov[2] = { { data[1], 100 }, { data[0], 924 } };
	struct disk_io io = request(DISK_WRITE, 512, 1024);

	(void)state;
	memset(data[0], 4, sizeof data[0]);
	memset(data[1], 9, sizeof data[1]);
	io.iov = iov;
	io.n_iov = 2;
	assert_int_equal(finish(&io), 0);
	assert_int_equal(pread(fd, data, 1024, 512), 1024);
	for (size_t i = 0; i < 1024; i++)
		assert_int_equal(data[0][i], i < 100 ? 9 : 4);
	assert_true(file_pattern(0, 512));
	assert_true(file_pattern(1536, 512));
}

static void nothing_is_transferred_at_once(void **state)
{
	(void)state;
	assert_int_equal(transfer(DISK_READ, 0, NULL, 0), 0);
	assert_int_equal(transfer(DISK_WRITE, 0, NULL, 0), 0);
	assert_int_equal(simple(DISK_DISCARD, 0, 0), 0);
	assert_true(file_pattern(0, SIZE));
}

static void a_cold_read_comes_through_the_loop(void **state)
{
	u8 data[4096];

	(void)state;
	cool();
	assert_int_equal(transfer(DISK_READ, MIB(1), data, sizeof data), 0);
	assert_true(has_pattern(data, MIB(1), sizeof data));
	cool();
	assert_int_equal(transfer(DISK_READ, MIB(2), data, 512), 0);
	/* Half of this one is in the page cache now: a short count first. */
	assert_int_equal(transfer(DISK_READ, MIB(2) - 2048, data, sizeof data), 0);
	assert_true(has_pattern(data, MIB(2) - 2048, sizeof data));
}

static void a_large_read_is_not_made_in_the_call(void **state)
{
	static u8 data[MIB(3)];
	struct iovec iov = { data, sizeof data };
	struct disk_io io = request(DISK_READ, 512, sizeof data);

	(void)state;
	assert_true(file_pattern(0, SIZE)); /* in the page cache now */
	io.iov = &iov;
	io.n_iov = 1;
	disk_submit(disk, &io);
	assert_int_equal(n_done, uring ? 0 : 1);
	disk_kick(disk);
	wait_for(1);
	assert_int_equal(io.result, 0);
	assert_true(has_pattern(data, 512, sizeof data));
}

static void a_read_beyond_the_end_is_zeros_and_an_error(void **state)
{
	u8 data[2048];

	(void)state;
	assert_int_equal(ftruncate(fd, 4096 + 700), 0);
	memset(data, 0xee, sizeof data);
	assert_int_equal(transfer(DISK_READ, 4096, data, sizeof data), -EIO);
	assert_true(has_pattern(data, 4096, 700));
	assert_true(is_zero(data + 700, sizeof data - 700));
	memset(data, 0xee, sizeof data);
	assert_int_equal(transfer(DISK_READ, MIB(1), data, sizeof data), -EIO);
	assert_true(is_zero(data, sizeof data));
	assert_int_equal(transfer(DISK_READ, 0, data, sizeof data), 0);
}

static void a_durable_write_is_a_write(void **state)
{
	u8 data[512] = "durable";
	struct iovec iov = { data, sizeof data };
	struct disk_io io = request(DISK_WRITE, 512, 512);

	(void)state;
	io.iov = &iov;
	io.n_iov = 1;
	io.durable = true;
	assert_int_equal(disk_ask_next(&io).flags, RWF_DSYNC);
	assert_int_equal(finish(&io), 0);
	assert_int_equal(transfer(DISK_READ, 512, data, 512), 0);
	assert_string_equal((char *)data, "durable");
}

static void a_full_queue_is_finished_in_full(void **state)
{
	static u8 data[DISK_DEPTH][1024];
	static struct iovec iov[DISK_DEPTH];
	static struct disk_io io[DISK_DEPTH];

	(void)state;
	for (int round = 0; round < 8; round++) {
		n_done = settled_at = 0;
		for (u64 i = 0; i < DISK_DEPTH; i++) {
			bool write = (i + (u64)round) % 2;

			memset(data[i], (int)i, sizeof data[i]);
			iov[i] = (struct iovec){ data[i], sizeof data[i] };
			io[i] = request(write ? DISK_WRITE : DISK_READ, i * 1024, 1024);
			io[i].iov = &iov[i];
			io[i].n_iov = 1;
			disk_submit(disk, &io[i]);
		}
		disk_kick(disk);
		if (round % 2)
			disk_drain(disk);
		else
			wait_for(DISK_DEPTH);
		assert_int_equal(n_done, DISK_DEPTH);
		for (u64 i = 0; i < DISK_DEPTH; i++)
			assert_int_equal(io[i].result, 0);
	}
	for (u64 i = 0; i < DISK_DEPTH; i++) {
		assert_int_equal(pread(fd, data[0], 1024, (off_t)(i * 1024)), 1024);
		for (size_t k = 0; k < 1024; k++)
			assert_int_equal(data[0][k], (u8)i);
	}
}

/* ---- trouble ---------------------------------------------------------------------------- */

/* The same number, another file behind it. */
static void put_behind(int file)
{
	assert_int_equal(dup2(file, fd), fd);
	close(file);
}

static void a_flush_that_failed_stays_failed_until_the_file_is_swapped(void **state)
{
	u8 data[512] = { 0 };
	int good = open(path, O_RDWR | O_CLOEXEC), other = open(path, O_RDWR | O_CLOEXEC);

	(void)state;
	assert_int_equal(simple(DISK_FLUSH, 0, 0), 0);
	put_behind(open("/dev/null", O_RDWR)); /* fsync: EINVAL */
	assert_int_equal(simple(DISK_FLUSH, 0, 0), -EIO);
	put_behind(good);
	assert_int_equal(simple(DISK_FLUSH, 0, 0), -EIO);
	assert_int_equal(transfer(DISK_WRITE, 0, data, sizeof data), 0);
	assert_int_equal(transfer(DISK_READ, 0, data, sizeof data), 0);
	assert_int_equal(simple(DISK_FLUSH, 0, 0), -EIO);
	disk_swap(disk, other);
	assert_int_equal(simple(DISK_FLUSH, 0, 0), 0);
	disk_swap(disk, fd);
	close(other);
}

static void a_write_that_does_not_fit_fails_and_the_next_one_works(void **state)
{
	struct rlimit was, limit;
	u8 data[8192] = { 0 };

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	limit = was;
	limit.rlim_cur = MIB(2);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	/* First a short count, then EFBIG. */
	assert_int_equal(transfer(DISK_WRITE, MIB(2) - 4096, data, sizeof data), -EFBIG);
	assert_int_equal(transfer(DISK_WRITE, MIB(1), data, sizeof data), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	assert_true(file_zero(MIB(2) - 4096, 4096));
	assert_true(file_pattern(MIB(2), 4096));
	assert_int_equal(transfer(DISK_WRITE, MIB(2) - 4096, data, sizeof data), 0);
}

static void a_full_file_system_fails_the_write_until_there_is_room(void **state)
{
	static u8 data[KIB(64)];
	char mountpoint[64], name[80];
	int file, ballast;

	(void)state;
	snprintf(mountpoint, sizeof mountpoint, "%s/mnt", dir);
	mkdir(mountpoint, 0700);
	if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("test", mountpoint, "tmpfs", 0, "size=128k") < 0)
		skip();
	snprintf(name, sizeof name, "%s/ballast", mountpoint);
	ballast = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(pwrite(ballast, data, KIB(64), 0), KIB(64));
	snprintf(name, sizeof name, "%s/disk", mountpoint);
	file = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(file, MIB(1)), 0);
	disk_swap(disk, file);
	memset(data, 7, sizeof data);
	assert_int_equal(transfer(DISK_WRITE, 0, data, KIB(32)), 0);
	assert_int_equal(transfer(DISK_WRITE, KIB(32), data, KIB(64)), -ENOSPC);
	assert_int_equal(transfer(DISK_READ, 0, data, KIB(32)), 0);
	assert_int_equal(simple(DISK_FLUSH, 0, 0), 0);
	assert_int_equal(ftruncate(ballast, 0), 0);
	assert_int_equal(transfer(DISK_WRITE, KIB(32), data, KIB(64)), 0);
	disk_swap(disk, fd);
	close(file);
	close(ballast);
	umount2(mountpoint, MNT_DETACH);
	rmdir(mountpoint);
}

static void a_dead_descriptor_fails_every_request_and_nothing_else(void **state)
{
	u8 data[512];

	(void)state;
	disk_swap(disk, 9999);
	assert_int_equal(transfer(DISK_READ, 0, data, 512), -EBADF);
	assert_int_equal(transfer(DISK_WRITE, 0, data, 512), -EBADF);
	assert_int_equal(simple(DISK_DISCARD, 0, 4096), -EBADF);
	assert_int_equal(zero(0, 4096, false), -EBADF);
	assert_int_equal(simple(DISK_FLUSH, 0, 0), -EIO);
	disk_swap(disk, fd);
	assert_int_equal(transfer(DISK_READ, 0, data, 512), 0);
	assert_true(has_pattern(data, 0, 512));
}

/* ---- ranges ----------------------------------------------------------------------------- */

static void a_discarded_range_gives_its_room_back(void **state)
{
	u64 before = allocated();

	(void)state;
	assert_true(disk_can_discard(disk));
	assert_int_equal(simple(DISK_DISCARD, MIB(1), MIB(1)), 0);
	assert_true(allocated() <= before - MIB(1));
	assert_true(file_zero(MIB(1), MIB(1)));
	assert_true(file_pattern(0, MIB(1)));
	assert_true(file_pattern(MIB(2), MIB(2)));
}

static void zeroes_are_written_without_giving_room_back(void **state)
{
	u64 before = allocated();

	(void)state;
	assert_int_equal(zero(MIB(1) + 512, MIB(1), false), 0);
	assert_true(file_zero(MIB(1) + 512, MIB(1)));
	assert_true(file_pattern(0, MIB(1) + 512));
	assert_true(file_pattern(MIB(2) + 512, MIB(2) - 512));
	assert_true(allocated() >= before);
}

static void zeroes_may_leave_a_hole_if_asked(void **state)
{
	u64 before = allocated();

	(void)state;
	assert_int_equal(zero(MIB(1), MIB(1), true), 0);
	assert_true(file_zero(MIB(1), MIB(1)));
	assert_true(allocated() <= before - MIB(1));
}

static void zeroes_are_written_by_hand_where_the_file_system_cannot(void **state)
{
	int file = memfd_create("disk", MFD_CLOEXEC); /* knows holes, but no zero range */

	(void)state;
	fill(file, SIZE);
	close(fd);
	use(file);
	assert_true(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0);
	assert_int_equal(zero(512, MIB(1) + 512, false), 0);
	assert_true(file_zero(512, MIB(1) + 512));
	assert_true(file_pattern(0, 512));
	assert_true(file_pattern(MIB(1) + 1024, MIB(1)));
}

static void clearing_past_the_end_does_not_grow_the_file(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(zero(SIZE - 4096, 8192, false), 0);
	assert_int_equal(simple(DISK_DISCARD, SIZE - 4096, 8192), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, SIZE);
}

/* ---- swapping, cancelling, doing without -------------------------------------------------- */

static void a_swap_waits_for_the_writes_to_the_old_file(void **state)
{
	static u8 data[64][KIB(16)];
	struct iovec iov[64];
	struct disk_io io[64];
	int other = memfd_create("other", MFD_CLOEXEC);

	(void)state;
	memset(data, 0, sizeof data);
	assert_int_equal(ftruncate(other, (off_t)SIZE), 0);
	for (u64 i = 0; i < 64; i++) {
		iov[i] = (struct iovec){ data[i], sizeof data[i] };
		io[i] = request(DISK_WRITE, i * sizeof data[i], sizeof data[i]);
		io[i].iov = &iov[i];
		io[i].n_iov = 1;
		disk_submit(disk, &io[i]);
	}
	disk_swap(disk, other);
	assert_int_equal(n_done, 64);
	assert_true(file_zero(0, sizeof data));
	memset(data, 1, 512);
	assert_int_equal(transfer(DISK_WRITE, 0, data, 512), 0);
	assert_true(file_zero(0, 512));
	assert_int_equal(pread(other, data[1], 512, 0), 512);
	assert_memory_equal(data[0], data[1], 512);
	disk_swap(disk, fd);
	close(other);
}

static void *cancel_with_little(void *arg)
{
	/* One is ours; the rest is how a thread ends, and what the sanitizer does meanwhile. */
	const int allowed[] = { SYS_io_uring_enter, SYS_exit,	     SYS_madvise,
				SYS_munmap,	    SYS_mmap,	     SYS_mprotect,
				SYS_rt_sigprocmask, SYS_sigaltstack, SYS_gettid,
				SYS_futex };

	(void)arg;
	if (!sandbox(allowed, ARRAY_SIZE(allowed), false, SECCOMP_RET_KILL_PROCESS))
		return NULL;
	disk_cancel(disk);
	return disk;
}

static void another_thread_can_cancel_with_little_more_than_waiting(void **state)
{
	static u8 data[DISK_DEPTH][4096];
	static struct iovec iov[DISK_DEPTH];
	static struct disk_io io[DISK_DEPTH];
	pthread_t thread;
	void *result;

	(void)state;
	cool();
	for (u64 i = 0; i < DISK_DEPTH; i++) {
		iov[i] = (struct iovec){ data[i], sizeof data[i] };
		io[i] = request(i % 4 ? DISK_READ : DISK_WRITE, i * 8192, sizeof data[i]);
		io[i].iov = &iov[i];
		io[i].n_iov = 1;
		disk_submit(disk, &io[i]);
	}
	disk_kick(disk);
	assert_int_equal(pthread_create(&thread, NULL, cancel_with_little, NULL), 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_ptr_equal(result, disk);
	assert_int_equal(n_done, DISK_DEPTH);
	/* And the disk is as good as new. */
	assert_int_equal(transfer(DISK_READ, 4096, data[0], 4096), 0);
	assert_true(has_pattern(data[0], 4096, 4096));
}

static void a_cancel_does_not_go_on_with_what_is_half_done(void **state)
{
	static u8 data[64][8192];
	struct rlimit was, limit;
	struct iovec iov[64];
	struct disk_io io[64];

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	limit = was;
	limit.rlim_cur = MIB(2); /* in the middle of each write: a short count */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	for (u64 i = 0; i < 64; i++) {
		iov[i] = (struct iovec){ data[i], sizeof data[i] };
		io[i] = request(DISK_WRITE, MIB(2) - 4096, sizeof data[i]);
		io[i].iov = &iov[i];
		io[i].n_iov = 1;
		disk_submit(disk, &io[i]);
	}
	disk_kick(disk);
	alarm(20);
	disk_cancel(disk);
	alarm(0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	assert_int_equal(n_done, 64);
	for (int i = 0; i < 64; i++)
		assert_true(io[i].result == -EFBIG || (uring && io[i].result == -ECANCELED));
}

static int exit_code(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void without_io_uring_the_disk_works_all_the_same(void **state)
{
	const int errnos[] = { EPERM, ENOSYS, ENOMEM };
	const int calls[] = { SYS_io_uring_setup };
	u8 data[512];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(errnos); i++) {
		pid_t pid = fork();

		if (pid == 0) {
			struct disk *poor = NULL;
			struct iovec iov = { data, sizeof data };
			struct disk_io io = request(DISK_READ, 512, 512);

			io.iov = &iov;
			io.n_iov = 1;
			if (!sandbox(calls, 1, true, SECCOMP_RET_ERRNO | (u32)errnos[i]))
				_exit(2);
			if (disk_create(&poor, loop, fd, true, settled, &n_done, &err) < 0)
				_exit(3);
			disk_submit(poor, &io);
			_exit(strcmp(disk_engine(poor), "sync") || io.result || n_done != 1 ||
			      !has_pattern(data, 512, 512));
		}
		assert_int_equal(exit_code(pid), 0);
	}
}

static int everything_once(void)
{
	static u8 data[KIB(64)];

	for (int op = DISK_READ; op < DISK_OPS; op++) {
		struct iovec iov[2] = { { data, 512 }, { data + 1024, sizeof data - 1024 } };
		struct disk_io io = request((enum disk_op)op, KIB(64), sizeof data - 512);

		io.iov = iov;
		io.n_iov = 2;
		disk_submit(disk, &io);
		disk_kick(disk);
		disk_drain(disk);
		if (io.result)
			return op + 1;
	}
	return n_done == DISK_OPS ? 0 : 100;
}

static void at_run_time_only_the_promised_system_calls_are_made(void **state)
{
	/* The last two are of the process's end. */
	const int allowed[] = { SYS_io_uring_enter, SYS_preadv2,     SYS_pwritev2,  SYS_fsync,
				SYS_fallocate,	    SYS_sigaltstack, SYS_exit_group };
	pid_t pid;

	(void)state;
	pid = fork();
	if (pid == 0) {
		if (!sandbox(allowed, ARRAY_SIZE(allowed), false, SECCOMP_RET_KILL_PROCESS))
			_exit(99);
		_exit(everything_once());
	}
	assert_int_equal(exit_code(pid), 0);
}

/* ---- a block device --------------------------------------------------------------------- */

static void a_block_device_is_a_disk(void **state)
{
	char command[160], name[64] = "";
	u8 data[4096] = { 0 };
	u64 bytes;
	FILE *losetup;
	int file;

	(void)state;
	snprintf(command, sizeof command, "losetup -f --show %s 2>/dev/null", path);
	losetup = popen(command, "r");
	if (!losetup || !fgets(name, sizeof name, losetup) || strncmp(name, "/dev/", 5)) {
		if (losetup)
			pclose(losetup);
		skip();
	}
	pclose(losetup);
	name[strcspn(name, "\n")] = 0;
	file = disk_open(name, false, &err);
	assert_true(file >= 0);
	assert_int_equal(disk_size(file, &bytes, &err), 0);
	assert_int_equal(bytes, SIZE);
	close(fd);
	use(file);
	assert_int_equal(transfer(DISK_WRITE, MIB(1), data, sizeof data), 0);
	assert_true(file_zero(MIB(1), sizeof data));
	if (disk_can_discard(disk))
		assert_int_equal(simple(DISK_DISCARD, 0, MIB(1)), 0);
	assert_int_equal(zero(MIB(2), 4096 + 512, false), 0);
	assert_int_equal(zero(MIB(3), 4096, true), 0);
	assert_int_equal(simple(DISK_FLUSH, 0, 0), 0);
	assert_true(file_zero(MIB(2), 4096 + 512));
	assert_true(file_zero(MIB(3), 4096));
	assert_true(file_pattern(MIB(2) + 4096 + 512, 4096));
	snprintf(command, sizeof command, "losetup -d %s", name);
	assert_int_equal(system(command), 0);
}

#define PLAIN(test) cmocka_unit_test_setup_teardown(test, with_sync, tear_down)
#define BOTH(test)                                                                                 \
	{ #test " (io_uring)", test, with_uring, tear_down, NULL },                                \
	{                                                                                          \
#test " (sync)", test, with_sync, tear_down, NULL                                  \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(an_open_disk_is_closed_on_exec_and_blocks),
		PLAIN(a_missing_file_is_named_with_the_reason),
		PLAIN(what_is_no_disk_is_refused_without_waiting),
		PLAIN(a_read_only_file_is_no_writable_disk),
		PLAIN(a_size_is_rounded_down_to_whole_sectors),
		PLAIN(a_size_that_is_not_to_be_had_is_an_error),
		cmocka_unit_test(a_short_transfer_goes_on_where_it_stopped_at_every_split),
		cmocka_unit_test(an_interrupted_call_is_made_again_but_not_for_ever),
		cmocka_unit_test(a_flush_beside_one_that_failed_fails_too),
		cmocka_unit_test(each_way_of_clearing_a_range_has_its_substitute),
		cmocka_unit_test(a_refused_range_fails_when_the_reason_is_real),
		BOTH(what_is_written_is_read_back),
		BOTH(segments_are_filled_in_order),
		BOTH(segments_are_written_in_order),
		BOTH(nothing_is_transferred_at_once),
		BOTH(a_cold_read_comes_through_the_loop),
		BOTH(a_large_read_is_not_made_in_the_call),
		BOTH(a_read_beyond_the_end_is_zeros_and_an_error),
		BOTH(a_durable_write_is_a_write),
		BOTH(a_full_queue_is_finished_in_full),
		BOTH(a_flush_that_failed_stays_failed_until_the_file_is_swapped),
		BOTH(a_write_that_does_not_fit_fails_and_the_next_one_works),
		BOTH(a_full_file_system_fails_the_write_until_there_is_room),
		BOTH(a_dead_descriptor_fails_every_request_and_nothing_else),
		BOTH(a_discarded_range_gives_its_room_back),
		BOTH(zeroes_are_written_without_giving_room_back),
		BOTH(zeroes_may_leave_a_hole_if_asked),
		BOTH(zeroes_are_written_by_hand_where_the_file_system_cannot),
		BOTH(clearing_past_the_end_does_not_grow_the_file),
		BOTH(a_swap_waits_for_the_writes_to_the_old_file),
		BOTH(another_thread_can_cancel_with_little_more_than_waiting),
		BOTH(a_cancel_does_not_go_on_with_what_is_half_done),
		BOTH(without_io_uring_the_disk_works_all_the_same),
		BOTH(at_run_time_only_the_promised_system_calls_are_made),
		BOTH(a_block_device_is_a_disk),
	};
	int failed;

	if (!mkdtemp(dir))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return failed;
}
