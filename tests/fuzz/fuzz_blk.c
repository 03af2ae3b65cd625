/*
 * The disk. Its file is a memfd behind system calls of our own, which look at what is asked for (no
 * byte beyond the capacity, no address outside guest memory) and can be told to be short, to be
 * interrupted or to fail. Besides whatever the guest of virtio.h offers there are requests composed
 * here, whose status, data and effect on the file are known beforehand and compared.
 *
 * MAYFLY_FUZZ_URING in the environment: with io_uring, which goes past those calls, so that only
 * crashes are found, and requests are waited for by draining.
 */
#include "src/virtio/blk_request.h"
#include "tests/fuzz/virtio.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define FILE_SIZE KIB(64)
#define HEADER	  0xa000u
#define LIST	  0xa100u
#define STATUS_AT 0xb000u
#define OURS	  0x2000u /* bytes from HEADER on */
#define DATA	  MEM_HOLE_END

enum fault { NO_FAULT, SHORT, INTERRUPTED, UNSUPPORTED, HARD, FAULTS };

static struct guest guest;
static struct blk *blk;
static struct blk_config cfg;
static int file;
static bool uring;
static bool cut;	   /* the file is shorter than the disk: data is not foreseen */
static bool flush_failed;  /* since the last swap */
static enum fault fault;   /* of the next calls */
static unsigned fault_for; /* this many */
static u32 chaos;	   /* what data is made of */
static unsigned failed;	   /* calls since the composed request was offered */

/* ---- the system calls ----------------------------------------------------------------------- */

/* -1: fail, with errno. Else the most that may be transferred. */
static ssize_t next_fault(size_t len)
{
	if (!fault_for)
		return (ssize_t)len;
	fault_for--;
	switch (fault) {
	case SHORT:
		return (ssize_t)(len / 2 + 1);
	case INTERRUPTED:
		errno = fault_for % 2 ? EINTR : EAGAIN;
		return -1;
	case HARD:
		failed++;
		errno = fault_for % 2 ? ENOSPC : EIO;
		return -1;
	default:
		return (ssize_t)len;
	}
}

static bool all_zero(const u8 *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i])
			return false;
	return true;
}

static size_t check_call(int fd, const struct iovec *iov, int n, off_t off, bool read)
{
	size_t len = 0;

	REQUIRE(fd == file && n > 0 && n <= CHAIN_IOV_MAX && off >= 0);
	for (int i = 0; i < n; i++) {
		len += iov[i].iov_len;
		REQUIRE(in_ram(&guest, iov[i].iov_base, iov[i].iov_len) ||
			(!read && all_zero(iov[i].iov_base, iov[i].iov_len)));
	}
	REQUIRE(range_ok((u64)off, len, blk->sectors * DISK_SECTOR));
	REQUIRE(read || !cfg.read_only);
	return len;
}

/* At most `most` bytes, one segment after the other. */
static ssize_t move(int fd, const struct iovec *iov, int n, off_t off, size_t most, bool read)
{
	size_t sum = 0;

	for (int i = 0; i < n && sum < most; i++) {
		size_t len = MIN(iov[i].iov_len, most - sum);
		ssize_t got = read ? pread(fd, iov[i].iov_base, len, off + (off_t)sum)
				   : pwrite(fd, iov[i].iov_base, len, off + (off_t)sum);

		REQUIRE(got >= 0);
		sum += (size_t)got;
		if ((size_t)got < len)
			break;
	}
	return (ssize_t)sum;
}

ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	ssize_t most = next_fault(check_call(fd, iov, n, off, true));

	(void)flags;
	return most < 0 ? -1 : move(fd, iov, n, off, (size_t)most, true);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	ssize_t most = next_fault(check_call(fd, iov, n, off, false));

	(void)flags;
	return most < 0 ? -1 : move(fd, iov, n, off, (size_t)most, false);
}

int fsync(int fd)
{
	REQUIRE(fd == file && cfg.cache == BLK_WRITEBACK);
	return next_fault(1) < 0 ? -1 : 0;
}

/* The memfd has no zero range of its own: here it does, half of the time. */
int fallocate(int fd, int mode, off_t off, off_t len)
{
	const int keep = FALLOC_FL_KEEP_SIZE;

	REQUIRE(fd == file && off >= 0 && len > 0 && !cfg.read_only);
	REQUIRE(range_ok((u64)off, (u64)len, blk->sectors * DISK_SECTOR));
	REQUIRE(mode == (FALLOC_FL_PUNCH_HOLE | keep) || mode == (FALLOC_FL_ZERO_RANGE | keep));
	if (next_fault(1) < 0)
		return -1;
	if (fault == UNSUPPORTED && off & 512) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return (int)syscall(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | keep, off, len);
}

/* ---- composed requests ------------------------------------------------------------------------
 */

struct composed {
	u32 type, len; /* bytes of data */
	u64 sector;
	u32 n_ranges;
	struct {
		u64 sector;
		u32 n, flags;
	} range[4];
};

static u8 before[FILE_SIZE], after[FILE_SIZE];

static void snapshot(u8 *to)
{
	memset(to, 0, FILE_SIZE);
	REQUIRE(pread(file, to, FILE_SIZE, 0) >= 0);
}

static bool apart(u64 ring, u64 len)
{
	return ring < GUEST_REGION && !ranges_overlap(ring, len, HEADER, OURS);
}

/* The rings leave our buffers alone and nothing is pending: the next request is ours alone. */
static bool quiet(const struct guest *g)
{
	const struct vq *vq = &g->dev->vq[0];

	return device_active(g->dev) && vq_active(vq) && vq->size >= 16 && !vq_has_work(vq) &&
	       vq->last_avail == g->avail[0] && apart(vq->desc_gpa, 16u * vq->size) &&
	       apart(vq->avail_gpa, 6 + 2u * vq->size) && apart(vq->used_gpa, 6 + 8u * vq->size) &&
	       !g->dev->paused;
}

static void compose(struct guest *g, struct composed *c)
{
	static const u8 types[] = { 0, 0, 1, 1, 4, 8, 11, 13, 2 };
	u8 what = (u8)take(g, 1);

	c->type = types[what % ARRAY_SIZE(types)];
	c->sector = take(g, 1) % 136;
	c->len = (u32)(take(g, 1) % 66) * 512;
	if (what >= 0xe0) /* rarely: what does not fit */
		c->len += (u32)take(g, 1) * 4;
	if (what >= 0xf0)
		c->sector = take(g, 8);
	if (c->type == 4)
		c->len = 0;
	if (c->type != 11 && c->type != 13)
		return;
	c->n_ranges = 1 + what % 4;
	c->len = 16 * c->n_ranges;
	for (u32 i = 0; i < c->n_ranges; i++) {
		c->range[i].sector = take(g, 1) % 136;
		c->range[i].n = (u32)take(g, 1) % 40;
		c->range[i].flags = what >= 0xe0 ? (u32)take(g, 1) % 4 : c->type == 13 && what & 1;
	}
}

static u64 link_desc(u16 i, u64 gpa, u32 len, u16 flags)
{
	u64 at = guest.dev->vq[0].desc_gpa + 16u * i;

	poke(&guest, at, gpa, 8);
	poke(&guest, at + 8, len, 4);
	poke(&guest, at + 12, flags, 2);
	poke(&guest, at + 14, i + 1u, 2);
	return gpa + len;
}

/* The header in one or two buffers, the data in up to four, the status. */
static void offer(struct guest *g, const struct composed *c)
{
	u32 split = (u32)take(g, 1) % 16, piece = c->len / (1 + (u32)take(g, 1) % 4) + 1;
	bool write = c->type == 0 || c->type == 8;
	u64 at = c->n_ranges ? LIST : DATA;
	u16 i = 0;

	poke(g, HEADER, c->type, 8);
	poke(g, HEADER + 8, c->sector, 8);
	for (u32 k = 0; k < c->n_ranges; k++)
		memcpy(mem_at(&g->mem, LIST + 16 * k, 16), &c->range[k], 16);
	poke(g, STATUS_AT, 0xaa, 1);
	if (split)
		link_desc(i++, HEADER, split, 1);
	link_desc(i++, HEADER + split, 16 - split, 1);
	for (u32 left = c->len; left; left -= MIN(left, piece))
		at = link_desc(i++, at, MIN(left, piece), 1 | (write ? 2 : 0));
	link_desc(i++, STATUS_AT, 1, 2);
	poke(g, g->dev->vq[0].avail_gpa + 4 + 2u * (g->avail[0] % g->dev->vq[0].size), 0, 2);
	poke(g, g->dev->vq[0].avail_gpa + 2, ++g->avail[0], 2);
}

static bool inside(u64 sector, u64 n)
{
	return sector <= blk->sectors && n <= blk->sectors - sector;
}

/* What has to come of it; applies its effect to before[]. */
static u8 foresee(const struct composed *c, const u8 *data)
{
	u64 offered = guest.dev->features_offered;
	u64 bytes = c->sector * 512; /* used only where it does not wrap */

	switch (c->type) {
	case 0:
		return c->len % 512 || !inside(c->sector, c->len / 512);
	case 1:
		if (cfg.read_only || c->len % 512 || !inside(c->sector, c->len / 512))
			return 1;
		memcpy(before + bytes, data, c->len);
		return 0;
	case 4:
		return offered >> 9 & 1 ? flush_failed : 2;
	case 8:
		return c->len < 20;
	case 11:
	case 13:
		if (!(offered >> c->type >> (c->type == 11 ? 2 : 1) & 1))
			return 2;
		for (u32 i = 0; i < c->n_ranges; i++) {
			if (c->range[i].flags & ~(c->type == 13 ? 1u : 0))
				return 2;
			if (!inside(c->range[i].sector, c->range[i].n))
				return 1;
			memset(before + c->range[i].sector * 512, 0, c->range[i].n * 512);
		}
		return 0;
	default:
		return 2;
	}
}

static void compare(const struct composed *c, u8 want, const u8 *data)
{
	u8 got = *(u8 *)mem_at(&guest.mem, STATUS_AT, 1);

	if (failed || cut) { /* a failed call must show, and nothing else is known */
		REQUIRE(got <= 2 && (got || !failed));
		flush_failed |= c->type == 4 && got == 1;
		return;
	}
	REQUIRE(got == want);
	snapshot(after);
	/* A discard that is not supported leaves the data. */
	if (c->type != 11 || fault != UNSUPPORTED)
		REQUIRE(memcmp(before, after, FILE_SIZE) == 0);
	if (c->type == 0 && got == 0)
		REQUIRE(memcmp(data, before + c->sector * 512, c->len) == 0);
}

/* Different everywhere, and from one call to the next. */
static void scramble(u8 *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		chaos = chaos * 1664525 + 1013904223;
		p[i] = (u8)(chaos >> 24);
	}
}

static void request(struct guest *g)
{
	struct composed c = { 0 };
	u16 used = g->dev->vq[0].used_idx;
	u8 want, *data;

	compose(g, &c);
	if (!quiet(g) || c.len > GUEST_REGION)
		return;
	data = mem_at(&g->mem, DATA, MAX(c.len, 1));
	scramble(data, c.len);
	failed = 0;
	snapshot(before);
	offer(g, &c);
	want = foresee(&c, data);
	reg_write(g, QUEUE_NOTIFY, 0, 4);
	guest_serve(g);
	if (uring)
		g->dev->type->drain(g->dev);
	REQUIRE(g->dev->vq[0].used_idx == (u16)(used + 1));
	REQUIRE(blk->n_free == DISK_DEPTH);
	compare(&c, want, data);
}

/* ---- what happens behind the device -----------------------------------------------------------
 */

static void set_fault(struct guest *g)
{
	if (uring)
		return;
	fault = (enum fault)(take(g, 1) % FAULTS);
	fault_for = (unsigned)take(g, 1) % 32;
}

static void swap(struct guest *g)
{
	u64 size = take(g, 2) * 2;
	struct err err;

	REQUIRE(ftruncate(file, (off_t)MIN(size, FILE_SIZE)) == 0);
	REQUIRE(blk_swap(blk, file, &err) == 0);
	flush_failed = cut = false;
}

static void truncate_under_it(struct guest *g)
{
	REQUIRE(ftruncate(file, (off_t)take(g, 2)) == 0);
	cut = true;
}

static void backend(struct guest *g)
{
	u8 what = (u8)take(g, 1);

	if (what < 0xd0)
		request(g);
	else if (what < 0xe8)
		set_fault(g);
	else if (what < 0xf8)
		swap(g);
	else
		truncate_under_it(g);
}

/* Without io_uring nothing is in flight between two operations. */
static void is_whole(void)
{
	REQUIRE(uring || blk->n_free == DISK_DEPTH || guest.dev->status & DEVICE_NEEDS_RESET);
	REQUIRE(lseek(file, 0, SEEK_END) <= (off_t)FILE_SIZE);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct loop *loop = guest_begin(&guest, data, size);
	u8 shape = (u8)take(&guest, 1);
	struct err err;

	uring = getenv("MAYFLY_FUZZ_URING");
	if (!file)
		file = memfd_create("disk", MFD_CLOEXEC);
	chaos = 1;
	scramble(before, FILE_SIZE);
	REQUIRE(file > 0 && pwrite(file, before, FILE_SIZE, 0) == (ssize_t)FILE_SIZE);
	REQUIRE(ftruncate(file, (off_t)(FILE_SIZE - (shape & 4 ? 100 : 0))) == 0);
	cfg = (struct blk_config){ .id = "fuzz", .fd = file, .no_uring = !uring };
	cfg.cache = shape & 1 ? BLK_WRITEBACK : BLK_UNSAFE;
	cfg.read_only = shape & 2;
	fault = NO_FAULT;
	fault_for = 0;
	cut = flush_failed = false;
	REQUIRE(blk_create(&blk, &cfg, &guest.mem, loop, &err) == 0);
	guest_attach(&guest, blk_device(blk));
	guest.backend = backend;
	guest.check = is_whole;
	guest_run(&guest);
	blk_destroy(blk);
	return 0;
}
