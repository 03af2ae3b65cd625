/* blk: the virtio disk as its driver sees it, from the ring to the file, with both engines. */
#include "tests/unit/test.h"
#include "tests/unit/hear.h"
#include "tests/unit/ring.h"

#include "src/virtio/blk_request.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define RINGS	0x10000
#define HEADERS 0x20000 /* 16 bytes for each descriptor */
#define STATUS	0x30000 /* one byte for each descriptor */
#define DATA	0x100000
#define SIZE	MIB(4)
#define SECTORS (SIZE / 512)

#define IN     0
#define OUT    1
#define FLUSH  4
#define GET_ID 8
#define TRIM   11
#define ZEROES 13

#define OK     0
#define IOERR  1
#define UNSUPP 2
#define UNSET  0xaa

static char dir[] = "/tmp/test_blk.XXXXXX";
static struct mem mem;
static struct loop *loop;
static struct blk *blk;
static struct device *dev;
static struct ring ring;
static struct blk_config cfg;
static struct err err;
static u16 next_desc;

/* ---- a driver --------------------------------------------------------------------------- */

struct part {
	u64 gpa;
	u32 len;
	u16 flags;
};

static u8 *at(u64 gpa, u64 len)
{
	u8 *p = mem_at(&mem, gpa, len);

	assert_non_null(p);
	return p;
}

/* All offered features but those in `declined`. */
static void go_live(u64 declined)
{
	u64 features = dev->features_offered & ~declined;

	device_set_status(dev, 0);
	device_set_status(dev, DEVICE_ACKNOWLEDGE);
	device_set_status(dev, DEVICE_ACKNOWLEDGE | DEVICE_DRIVER);
	device_set_features(dev, 0, (u32)features);
	device_set_features(dev, 1, (u32)(features >> 32));
	device_set_status(dev, 11);
	ring = ring_at(&mem, RINGS, 256);
	ring_program(&ring, &dev->vq[0]);
	device_set_status(dev, 15);
	assert_int_equal(dev->status, 15);
	next_desc = 0;
}

/* Links the parts and makes them available; no kick. */
static u16 offer(const struct part *parts, int n)
{
	u16 head = next_desc;

	for (int i = 0; i < n; i++) {
		u16 more = i + 1 < n ? R_NEXT : 0;

		ring_set(&ring, next_desc, parts[i].gpa, parts[i].len, parts[i].flags | more,
			 (u16)((next_desc + 1) % 256));
		next_desc = (u16)((next_desc + 1) % 256);
	}
	ring_offer(&ring, head);
	return head;
}

static u64 header_of(u16 slot, u32 type, u64 sector)
{
	struct blk_header {
		u32 type, reserved;
		u64 sector;
	} header = { type, 0, sector };

	memcpy(at(HEADERS + 16u * slot, 16), &header, 16);
	return HEADERS + 16u * slot;
}

static u64 status_of(u16 slot)
{
	*at(STATUS + slot, 1) = UNSET;
	return STATUS + slot;
}

/* The usual three parts. Returns where the status will be. */
static u64 offer_usual(u32 type, u64 sector, u64 data, u32 len)
{
	u64 status = status_of(next_desc);
	u16 direction = type == IN || type == GET_ID ? R_WRITE : 0;
	struct part parts[3] = { { header_of(next_desc, type, sector), 16, 0 } };
	int n = 1;

	if (len)
		parts[n++] = (struct part){ data, len, direction };
	parts[n++] = (struct part){ status, 1, R_WRITE };
	offer(parts, n);
	return status;
}

/* The loop sees one kick, and no completions. */
static void turn(void)
{
	device_wake(dev, 0);
	hear_kick(dev, 0);
}

static u16 wanted;

static void look(void *owner)
{
	(void)owner;
	if (ring_used_idx(&ring) == wanted)
		loop_stop(loop, 0);
}

/* The loop turns until the used index is there; kicks and completions come through it. */
static void wait_used(u16 index)
{
	struct loop_timer timer = { .expired = look };

	wanted = index;
	alarm(30);
	if (ring_used_idx(&ring) != index) {
		assert_int_equal(loop_timer_init(loop, &timer), 0);
		loop_timer_set(&timer, 100000, 100000);
		loop_run(loop);
		loop_timer_destroy(loop, &timer);
	}
	alarm(0);
	assert_int_equal(ring_used_idx(&ring), index);
}

static void kick_and_wait(void)
{
	device_wake(dev, 0);
	wait_used(ring.avail_idx);
}

static u8 run(u32 type, u64 sector, u64 data, u32 len)
{
	u64 status = offer_usual(type, sector, data, len);

	kick_and_wait();
	return *at(status, 1);
}

static u8 run_parts(const struct part *parts, int n)
{
	const struct part *last = &parts[n - 1];
	u8 *status = at(last->gpa, last->len) + last->len - 1;

	*status = UNSET;
	offer(parts, n);
	kick_and_wait();
	return *status;
}

static u32 used_len(void)
{
	return ring_elem(&ring, (u16)(ring_used_idx(&ring) - 1)).len;
}

static u64 interrupts(void)
{
	u64 count = 0;

	return read(dev->irq_fd, &count, sizeof count) == sizeof count ? count : 0;
}

/* ---- the disk --------------------------------------------------------------------------- */

static u8 pattern(u64 at_byte)
{
	return (u8)(at_byte * 31 + at_byte / 512 * 7 + 1);
}

static bool has_pattern(const u8 *data, u64 at_byte, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (data[i] != pattern(at_byte + i))
			return false;
	return true;
}

static bool all(const u8 *data, u8 byte, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (data[i] != byte)
			return false;
	return true;
}

static u8 *file_at(u64 at_byte, size_t len)
{
	static u8 data[SIZE];

	assert_int_equal(pread(cfg.fd, data, len, (off_t)at_byte), len);
	return data;
}

static int new_file(u64 size)
{
	char name[64];
	u8 *data = malloc(size + 1);
	int fd;

	snprintf(name, sizeof name, "%s/disk", dir);
	fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	unlink(name);
	for (u64 i = 0; i < size; i++)
		data[i] = pattern(i);
	assert_int_equal(pwrite(fd, data, size, 0), size);
	free(data);
	return fd;
}

static void cool(void)
{
	assert_int_equal(fsync(cfg.fd), 0);
	assert_int_equal(posix_fadvise(cfg.fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	assert_int_equal(posix_fadvise(cfg.fd, 0, 0, POSIX_FADV_RANDOM), 0);
}

static void make(void)
{
	blk_destroy(blk);
	assert_int_equal(blk_create(&blk, &cfg, &mem, loop, &err), 0);
	dev = blk_device(blk);
	go_live(0);
}

static void make_with(enum blk_cache cache, bool read_only)
{
	cfg.cache = cache;
	cfg.read_only = read_only;
	make();
}

static int set_up(bool uring)
{
	assert_int_equal(mem_create(&mem, MIB(16), MEM_ANON, MEM_PAGES_4K, &err), 0);
	assert_int_equal(loop_create(&loop, &err), 0);
	cfg = (struct blk_config){ .id = "rootfs", .no_uring = !uring, .cache = BLK_WRITEBACK };
	cfg.fd = new_file(SIZE);
	blk = NULL;
	make();
	assert_string_equal(disk_engine(blk->disk), uring ? "io_uring" : "sync");
	return 0;
}

static int with_uring(void **state)
{
	(void)state;
	return set_up(true);
}

static int with_sync(void **state)
{
	(void)state;
	return set_up(false);
}

static int tear_down(void **state)
{
	(void)state;
	blk_destroy(blk);
	blk_destroy(NULL);
	loop_destroy(loop);
	mem_destroy(&mem);
	close(cfg.fd);
	return 0;
}

/* ---- what it is ------------------------------------------------------------------------- */

static u32 config32(u32 off)
{
	u32 value;

	device_config_read(dev, off, &value, 4);
	return value;
}

static u64 capacity(void)
{
	u64 value;

	device_config_read(dev, 0, &value, 8);
	return value;
}

static void it_is_a_disk_of_one_queue(void **state)
{
	(void)state;
	assert_int_equal(dev->type->virtio_id, 2);
	assert_int_equal(dev->n_queues, 1);
	assert_int_equal(dev->vq[0].size_max, 256);
	assert_int_equal(capacity(), SECTORS);
	assert_int_equal(config32(12), 254); /* seg_max */
	assert_int_equal(config32(20), 512); /* blk_size */
	assert_int_equal(config32(36), GIB(1) / 512);
	assert_int_equal(config32(40), 16);
	assert_int_equal(config32(44), 8);
	assert_int_equal(config32(48), MIB(16) / 512);
	assert_int_equal(config32(52), 16);
	assert_int_equal(config32(56), 1); /* may unmap, and nothing after it */
	assert_int_equal(config32(60), 0);
}

static u32 offered(void)
{
	return (u32)dev->features_offered & ~(1u << DEVICE_F_EVENT_IDX);
}

static void it_offers_what_its_configuration_allows(void **state)
{
	const u32 always = 1u << 2 | 1u << 6, writable = 1u << 13 | 1u << 14;

	(void)state;
	make_with(BLK_UNSAFE, false);
	assert_int_equal(offered(), always | writable);
	assert_int_equal(config32(32), 0 | 1u << 16); /* writeback, one queue */
	make_with(BLK_WRITEBACK, false);
	assert_int_equal(offered(), always | writable | 1u << 9);
	assert_int_equal(config32(32), 1 | 1u << 16);
	make_with(BLK_UNSAFE, true);
	assert_int_equal(offered(), always | 1u << 5);
	for (u32 off = 36; off < 60; off += 4)
		assert_int_equal(config32(off), 0);
}

static void its_config_space_is_not_for_writing(void **state)
{
	u64 huge = ~0ull;

	(void)state;
	device_config_write(dev, 0, &huge, 8);
	assert_int_equal(capacity(), SECTORS);
}

static void its_id_is_device_and_inode_in_decimal(void **state)
{
	struct stat st;
	char want[64] = "";

	(void)state;
	assert_int_equal(fstat(cfg.fd, &st), 0);
	snprintf(want, sizeof want, "%lu%lu%lu", (unsigned long)st.st_dev,
		 (unsigned long)st.st_rdev, (unsigned long)st.st_ino);
	memset(at(DATA, 64), 0xee, 64);
	assert_int_equal(run(GET_ID, 0, DATA, 20), OK);
	assert_int_equal(strncmp((char *)at(DATA, 20), want, 20), 0);
	assert_int_equal(*at(DATA + 20, 1), 0xee);
	assert_int_equal(used_len(), 21);
	assert_int_equal(run(GET_ID, 0, DATA, 19), IOERR);
	assert_int_equal(run(GET_ID, 0, DATA, 0), IOERR);
	assert_int_equal(run(GET_ID, 0, DATA, 32), OK);
}

static void a_tail_of_less_than_a_sector_is_not_there(void **state)
{
	(void)state;
	assert_int_equal(ftruncate(cfg.fd, 1023), 0);
	make();
	assert_int_equal(capacity(), 1);
	assert_int_equal(run(IN, 0, DATA, 512), OK);
	assert_int_equal(run(IN, 1, DATA, 512), IOERR);
	assert_int_equal(run(OUT, 1, DATA, 512), IOERR);
	assert_true(has_pattern(file_at(0, 1023), 0, 1023));
}

static void a_file_that_cannot_be_sized_makes_no_disk(void **state)
{
	struct blk_config bad = cfg;
	struct blk *none;
	int pipes[2];

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	bad.fd = pipes[0];
	assert_int_equal(blk_create(&none, &bad, &mem, loop, &err), -ESPIPE);
	assert_null(none);
	assert_non_null(strstr(err.msg, "(os error 29)"));
	assert_int_equal(blk_swap(blk, pipes[0], &err), -ESPIPE);
	assert_int_equal(capacity(), SECTORS);
	assert_int_equal(run(IN, 0, DATA, 512), OK);
	close(pipes[0]);
	close(pipes[1]);
}

/* ---- reading and writing ------------------------------------------------------------------ */

static void a_read_brings_the_sectors_and_no_more(void **state)
{
	(void)state;
	memset(at(DATA, 8192), 0xee, 8192);
	assert_int_equal(run(IN, 7, DATA + 512, 1024), OK);
	assert_true(has_pattern(at(DATA + 512, 1024), 7 * 512, 1024));
	assert_true(all(at(DATA, 512), 0xee, 512));
	assert_true(all(at(DATA + 1536, 512), 0xee, 512));
	assert_int_equal(used_len(), 1025);
	assert_int_equal(dev->isr, DEVICE_ISR_USED);
}

static void a_write_changes_the_sectors_and_no_more(void **state)
{
	(void)state;
	memset(at(DATA, 1024), 0x55, 1024);
	assert_int_equal(run(OUT, 7, DATA, 1024), OK);
	assert_int_equal(used_len(), 1);
	assert_true(has_pattern(file_at(0, 7 * 512), 0, 7 * 512));
	assert_true(all(file_at(7 * 512, 1024), 0x55, 1024));
	assert_true(has_pattern(file_at(9 * 512, 512), 9 * 512, 512));
}

static void a_header_may_come_in_single_bytes(void **state)
{
	u64 header = header_of(0, IN, 3);
	struct part parts[18];

	(void)state;
	for (u32 i = 0; i < 16; i++)
		parts[i] = (struct part){ header + i, 1, 0 };
	parts[16] = (struct part){ DATA, 512, R_WRITE };
	parts[17] = (struct part){ STATUS, 1, R_WRITE };
	assert_int_equal(run_parts(parts, 18), OK);
	assert_true(has_pattern(at(DATA, 512), 3 * 512, 512));
}

static void header_and_data_may_share_a_buffer(void **state)
{
	u64 header = header_of(0, OUT, 3); /* data behind it */
	struct part parts[2] = { { header, 16 + 512, 0 }, { STATUS, 1, R_WRITE } };

	(void)state;
	memset(at(header + 16, 512), 0x66, 512);
	assert_int_equal(run_parts(parts, 2), OK);
	assert_true(all(file_at(3 * 512, 512), 0x66, 512));
}

static void data_and_status_may_share_a_buffer(void **state)
{
	struct part parts[2] = { { header_of(0, IN, 5), 16, 0 }, { DATA, 513, R_WRITE } };

	(void)state;
	assert_int_equal(run_parts(parts, 2), OK);
	assert_true(has_pattern(at(DATA, 512), 5 * 512, 512));
	assert_int_equal(used_len(), 513);
}

static void data_may_come_in_single_bytes(void **state)
{
	struct part parts[256] = { { header_of(0, IN, 5), 16, 0 } };
	u64 gpa = DATA;

	(void)state;
	/* 253 bytes alone, the rest of the sector in one. */
	for (u32 i = 1; i < 255; i++, gpa += 2)
		parts[i] = (struct part){ gpa, i < 254 ? 1 : 512 - 253, R_WRITE };
	parts[255] = (struct part){ STATUS, 1, R_WRITE };
	memset(at(DATA, 1024), 0xee, 1024);
	assert_int_equal(run_parts(parts, 256), OK);
	for (u64 i = 0; i < 253; i++) {
		assert_int_equal(*at(DATA + 2 * i, 1), pattern(5 * 512 + i));
		if (i < 252)
			assert_int_equal(*at(DATA + 2 * i + 1, 1), 0xee);
	}
	assert_true(has_pattern(at(DATA + 2 * 253, 512 - 253), 5 * 512 + 253, 512 - 253));
}

static void as_many_segments_as_promised_are_served(void **state)
{
	struct part parts[256];

	(void)state;
	for (int write = 0; write < 2; write++) {
		parts[0] = (struct part){ header_of(0, write ? OUT : IN, 16), 16, 0 };
		for (u32 i = 0; i < 254; i++)
			parts[1 + i] = (struct part){ DATA + 1024u * i, 512, write ? 0 : R_WRITE };
		parts[255] = (struct part){ STATUS, 1, R_WRITE };
		assert_int_equal(run_parts(parts, 256), OK);
		for (u32 i = 0; i < 254; i++) {
			u8 *segment = at(DATA + 1024u * i, 512);

			if (write)
				assert_true(all(file_at((16 + i) * 512, 512), (u8)i, 512));
			else
				assert_true(has_pattern(segment, (16 + i) * 512, 512));
			memset(segment, (int)i, 512);
		}
	}
}

static void a_megabyte_is_one_request(void **state)
{
	(void)state;
	assert_int_equal(run(IN, 1, DATA, MIB(2)), OK);
	assert_true(has_pattern(at(DATA, MIB(2)), 512, MIB(2)));
	memset(at(DATA, MIB(2)), 1, MIB(2));
	assert_int_equal(run(OUT, 1, DATA, MIB(2)), OK);
	assert_true(all(file_at(512, MIB(2)), 1, MIB(2)));
}

static void a_range_outside_the_disk_is_an_error(void **state)
{
	static const struct {
		u64 sector;
		u32 len;
	} bad[] = {
		{ SECTORS, 512 },	   { SECTORS - 1, 1024 }, { SECTORS + 1, 0 },
		{ 1ull << 55, 512 },			   /* times 512: 0 */
		{ (1ull << 55) + 1, 512 }, { ~0ull, 512 }, /* plus 1: 0 */
		{ ~0ull, 1024 },	   { 1ull << 63, 512 },	  { 0, SIZE + 512 },
	};

	(void)state;
	memset(at(DATA, SIZE + 512), 0x77, SIZE + 512);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(run(OUT, bad[i].sector, DATA, bad[i].len), IOERR);
		assert_int_equal(run(IN, bad[i].sector, DATA, bad[i].len), IOERR);
	}
	assert_true(all(at(DATA, SIZE + 512), 0x77, SIZE + 512));
	assert_true(has_pattern(file_at(0, SIZE), 0, SIZE));
	assert_int_equal(lseek(cfg.fd, 0, SEEK_END), SIZE);
	assert_int_equal(run(IN, SECTORS - 1, DATA, 512), OK);
	assert_int_equal(run(IN, SECTORS, DATA, 0), OK);
	assert_int_equal(dev->status, 15);
}

static void a_length_of_broken_sectors_is_an_error(void **state)
{
	static const u32 bad[] = { 1, 511, 513, 1023, 4095 };

	(void)state;
	memset(at(DATA, 8192), 0x77, 8192);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(run(OUT, 0, DATA, bad[i]), IOERR);
		assert_int_equal(run(IN, 0, DATA, bad[i]), IOERR);
	}
	assert_true(all(at(DATA, 8192), 0x77, 8192));
	assert_true(has_pattern(file_at(0, 8192), 0, 8192));
}

static void a_read_only_disk_is_not_written(void **state)
{
	u64 range[2] = { 0, 8 };

	(void)state;
	make_with(BLK_WRITEBACK, true);
	memcpy(at(DATA, 16), range, 16);
	assert_int_equal(run(OUT, 0, DATA, 512), IOERR);
	assert_int_equal(run(TRIM, 0, DATA, 16), UNSUPP);
	assert_int_equal(run(ZEROES, 0, DATA, 16), UNSUPP);
	assert_true(has_pattern(file_at(0, 8192), 0, 8192));
	assert_int_equal(run(IN, 0, DATA, 512), OK);
	assert_int_equal(run(FLUSH, 0, DATA, 0), OK);
}

static void buffers_of_the_wrong_direction_are_not_data(void **state)
{
	struct part read_into_readable[3] = { { header_of(0, IN, 0), 16, 0 },
					      { DATA, 512, 0 },
					      { STATUS, 1, R_WRITE } };
	struct part write_from_writable[3] = { { header_of(8, OUT, 0), 16, 0 },
					       { DATA, 512, R_WRITE },
					       { STATUS, 1, R_WRITE } };

	(void)state;
	memset(at(DATA, 512), 0x77, 512);
	assert_int_equal(run_parts(read_into_readable, 3), OK);
	assert_int_equal(run_parts(write_from_writable, 3), OK);
	assert_true(all(at(DATA, 512), 0x77, 512));
	assert_true(has_pattern(file_at(0, 512), 0, 512));
}

/* ---- what is wrong with a request --------------------------------------------------------- */

static void an_unknown_type_is_unsupported(void **state)
{
	static const u32 types[] = { 2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 0x80000000, ~0u };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		assert_int_equal(run(types[i], 0, DATA, 512), UNSUPP);
	assert_int_equal(run(IN, 0, DATA, 512), OK);
}

static void a_request_without_a_whole_header_is_an_error(void **state)
{
	struct part none[1] = { { STATUS, 1, R_WRITE } };
	struct part some[2] = { { header_of(0, IN, 0), 15, 0 }, { STATUS, 1, R_WRITE } };
	struct part data[2] = { { DATA, 512, R_WRITE }, { STATUS, 1, R_WRITE } };

	(void)state;
	assert_int_equal(run_parts(none, 1), IOERR);
	assert_int_equal(run_parts(some, 2), IOERR);
	assert_int_equal(run_parts(data, 2), IOERR);
	assert_int_equal(dev->status, 15);
}

static void a_request_that_cannot_be_answered_breaks_the_device(void **state)
{
	struct part parts[2] = { { header_of(0, OUT, 0), 16, 0 }, { DATA, 512, 0 } };

	(void)state;
	memset(at(DATA, 512), 0x77, 512);
	offer(parts, 2);
	turn();
	assert_int_equal(dev->status, 15 | DEVICE_NEEDS_RESET);
	assert_int_equal(ring_used_idx(&ring), 0);
	assert_int_equal(dev->isr & DEVICE_ISR_CONFIG, DEVICE_ISR_CONFIG);
	assert_true(has_pattern(file_at(0, 512), 0, 512));
	go_live(0);
	assert_int_equal(run(IN, 0, DATA, 512), OK);
}

static void a_chain_offered_twice_breaks_the_device_and_nothing_else(void **state)
{
	u16 head = next_desc;

	(void)state;
	cool();
	offer_usual(IN, 0, DATA, 4096);
	turn();
	ring_offer(&ring, head);
	ring_set(&ring, head, 0, 0, R_INDIRECT, 0); /* should it be free and walked again */
	turn();
	assert_int_equal(dev->status & DEVICE_NEEDS_RESET, DEVICE_NEEDS_RESET);
	go_live(0);
	assert_int_equal(run(IN, 0, DATA, 512), OK);
}

static void a_disk_that_fails_fails_the_request_only(void **state)
{
	int keep = dup(cfg.fd), null = open("/dev/null", O_RDWR);

	(void)state;
	assert_int_equal(dup2(null, cfg.fd), cfg.fd);
	assert_int_equal(run(IN, 0, DATA, 512), IOERR); /* end of file */
	assert_true(all(at(DATA, 512), 0, 512));
	assert_int_equal(run(FLUSH, 0, DATA, 0), IOERR); /* EINVAL */
	assert_int_equal(dup2(keep, cfg.fd), cfg.fd);
	assert_int_equal(run(IN, 0, DATA, 512), OK);
	assert_int_equal(run(OUT, 0, DATA, 512), OK);
	assert_int_equal(run(FLUSH, 0, DATA, 0), IOERR); /* sticky */
	close(keep);
	close(null);
}

/* ---- flush ------------------------------------------------------------------------------ */

static void a_flush_is_served_where_it_was_offered(void **state)
{
	(void)state;
	assert_int_equal(run(FLUSH, 0, DATA, 0), OK);
	assert_int_equal(run(FLUSH, ~0ull, DATA, 0), OK);
	make_with(BLK_UNSAFE, false);
	assert_int_equal(run(FLUSH, 0, DATA, 0), UNSUPP);
}

static bool last_write_was_durable(void)
{
	assert_int_equal(run(OUT, 0, DATA, 512), OK);
	return ((struct blk_request *)(void *)blk->slots)->io.durable;
}

static void a_driver_that_declined_flush_gets_every_write_stable(void **state)
{
	(void)state;
	assert_false(last_write_was_durable());
	go_live(1u << 9);
	assert_true(last_write_was_durable());
	make_with(BLK_UNSAFE, false);
	assert_false(last_write_was_durable());
}

/* ---- discard and write zeroes ------------------------------------------------------------- */

struct range {
	u64 sector;
	u32 n, flags;
};

static u8 run_ranges(u32 type, const struct range *ranges, u32 n)
{
	memcpy(at(DATA, 16 * n), ranges, 16 * n);
	return run(type, 0, DATA, 16 * n);
}

static u64 allocated(void)
{
	struct stat st;

	assert_int_equal(fsync(cfg.fd), 0);
	assert_int_equal(fstat(cfg.fd, &st), 0);
	return (u64)st.st_blocks * 512;
}

static void discarded_ranges_become_holes(void **state)
{
	const struct range ranges[3] = { { 0, 1024, 0 }, { 5000, 0, 0 }, { 2048, 512, 0 } };
	u64 before = allocated();

	(void)state;
	assert_int_equal(run_ranges(TRIM, ranges, 3), OK);
	assert_true(all(file_at(0, KIB(512)), 0, KIB(512)));
	assert_true(has_pattern(file_at(KIB(512), KIB(512)), KIB(512), KIB(512)));
	assert_true(all(file_at(MIB(1), KIB(256)), 0, KIB(256)));
	assert_true(has_pattern(file_at(MIB(1) + KIB(256), KIB(256)), MIB(1) + KIB(256), KIB(256)));
	assert_true(allocated() <= before - KIB(768));
}

static void zeroed_ranges_read_as_zeroes(void **state)
{
	const struct range ranges[2] = { { 1, 3, 0 }, { 1024, 512, 1 } };
	u64 before = allocated();

	(void)state;
	assert_int_equal(run_ranges(ZEROES, ranges, 2), OK);
	assert_true(has_pattern(file_at(0, 512), 0, 512));
	assert_true(all(file_at(512, 1536), 0, 1536));
	assert_true(has_pattern(file_at(2048, 512), 2048, 512));
	assert_true(all(file_at(KIB(512), KIB(256)), 0, KIB(256)));
	assert_true(allocated() <= before - KIB(256)); /* the second may be unmapped */
	assert_int_equal(run(IN, 0, DATA, 1024), OK);
	assert_true(all(at(DATA + 512, 512), 0, 512));
}

static void a_range_with_unknown_flags_is_unsupported(void **state)
{
	(void)state;
	assert_int_equal(run_ranges(TRIM, &(struct range){ 0, 8, 1 }, 1), UNSUPP);
	assert_int_equal(run_ranges(TRIM, &(struct range){ 0, 8, 2 }, 1), UNSUPP);
	assert_int_equal(run_ranges(ZEROES, &(struct range){ 0, 8, 2 }, 1), UNSUPP);
	assert_int_equal(run_ranges(ZEROES, &(struct range){ 0, 8, 0x80000001 }, 1), UNSUPP);
	assert_true(has_pattern(file_at(0, 8192), 0, 8192));
}

static void a_range_beyond_the_disk_or_the_limit_is_an_error(void **state)
{
	static const struct range bad[] = {
		{ SECTORS, 1, 0 },    { SECTORS - 1, 2, 0 }, { ~0ull, 1, 0 },
		{ 1ull << 55, 1, 0 }, { 0, ~0u, 0 },	     { 0, SECTORS + 1, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(run_ranges(TRIM, &bad[i], 1), IOERR);
		assert_int_equal(run_ranges(ZEROES, &bad[i], 1), IOERR);
	}
	assert_true(has_pattern(file_at(0, SIZE), 0, SIZE));
	/* A disk large enough for the limits themselves to matter. */
	assert_int_equal(ftruncate(cfg.fd, (off_t)GIB(4)), 0);
	make();
	assert_int_equal(run_ranges(TRIM, &(struct range){ 8192, GIB(1) / 512, 0 }, 1), OK);
	assert_int_equal(run_ranges(TRIM, &(struct range){ 8192, GIB(1) / 512 + 1, 0 }, 1), IOERR);
	assert_int_equal(run_ranges(ZEROES, &(struct range){ 8192, MIB(16) / 512, 1 }, 1), OK);
	assert_int_equal(run_ranges(ZEROES, &(struct range){ 8192, MIB(16) / 512 + 1, 1 }, 1),
			 IOERR);
}

static void a_range_that_fails_fails_the_request(void **state)
{
	const struct range ranges[2] = { { 0, 8, 0 }, { 64, 8, 0 } };
	char name[64];
	int fd;

	(void)state;
	snprintf(name, sizeof name, "/proc/self/fd/%d", cfg.fd);
	fd = open(name, O_RDONLY | O_CLOEXEC); /* fallocate: EBADF */
	assert_true(fd >= 0);
	assert_int_equal(blk_swap(blk, fd, &err), 0);
	assert_int_equal(run_ranges(TRIM, ranges, 2), IOERR);
	assert_int_equal(run_ranges(ZEROES, ranges, 2), IOERR);
	assert_int_equal(run(IN, 0, DATA, 512), OK);
	assert_int_equal(blk_swap(blk, cfg.fd, &err), 0);
	close(fd);
}

static void a_list_of_ranges_is_whole_not_empty_and_not_too_long(void **state)
{
	struct range ranges[17];

	(void)state;
	for (u64 i = 0; i < 17; i++)
		ranges[i] = (struct range){ 16 * i, 8, 0 };
	assert_int_equal(run_ranges(TRIM, ranges, 17), IOERR);
	assert_int_equal(run(TRIM, 0, DATA, 15), IOERR);
	assert_int_equal(run(TRIM, 0, DATA, 24), IOERR);
	assert_int_equal(run(ZEROES, 0, DATA, 0), IOERR);
	assert_true(has_pattern(file_at(0, SIZE), 0, SIZE));
	assert_int_equal(run_ranges(TRIM, ranges, 16), OK);
	for (u64 i = 0; i < 16; i++)
		assert_true(all(file_at(i * 8192, 4096), 0, 4096));
}

static void ranges_before_a_bad_one_may_be_done_and_none_after_it(void **state)
{
	const struct range ranges[3] = { { 0, 8, 0 }, { SECTORS, 8, 0 }, { 64, 8, 0 } };

	(void)state;
	assert_int_equal(run_ranges(ZEROES, ranges, 3), IOERR);
	assert_true(has_pattern(file_at(64 * 512, 4096), 64 * 512, 4096));
}

/* ---- many requests ---------------------------------------------------------------------- */

static void a_batch_is_one_interrupt(void **state)
{
	u64 status[64];

	(void)state;
	interrupts();
	for (u32 i = 0; i < 64; i++)
		status[i] = offer_usual(IN, i, DATA + 512 * i, 512);
	kick_and_wait();
	for (u32 i = 0; i < 64; i++)
		assert_int_equal(*at(status[i], 1), OK);
	assert_true(has_pattern(at(DATA, 64 * 512), 0, 64 * 512));
	assert_int_equal(interrupts(), 1);
}

static void cold_reads_by_the_dozen_all_arrive(void **state)
{
	u64 status[80];

	(void)state;
	for (int round = 0; round < 4; round++) {
		cool();
		memset(at(DATA, KIB(320)), 0, KIB(320));
		for (u32 i = 0; i < 80; i++)
			status[i] = offer_usual(IN, i * 37, DATA + 4096 * i, 4096);
		kick_and_wait();
		for (u32 i = 0; i < 80; i++) {
			assert_int_equal(*at(status[i], 1), OK);
			assert_true(has_pattern(at(DATA + 4096 * i, 4096), i * 37 * 512, 4096));
		}
	}
}

static void a_greedy_guest_is_served_in_turns_and_in_full(void **state)
{
	(void)state;
	for (u32 i = 0; i < 80; i++)
		offer_usual(IN, 0, DATA, MIB(1));
	turn();
	assert_in_range((u16)(dev->vq[0].last_avail), 1, 10);
	wait_used(ring.avail_idx); /* no other kick */
}

static void random_requests_leave_the_disk_as_a_model_has_it(void **state)
{
	static u8 model[SIZE];
	u64 status[60];

	(void)state;
	srandom(1);
	memcpy(model, file_at(0, SIZE), SIZE);
	for (int round = 0; round < 100; round++) {
		int n = 1 + (int)(random() % 60);

		if (round % 10 == 0)
			cool();
		/* Each in a stretch of its own, for they may complete in any order. */
		for (int i = 0; i < n; i++) {
			u64 first = (u64)i * 128, sector = first + (u64)random() % 64;
			u32 len = (u32)(1 + random() % 64) * 512;
			u64 data = DATA + (u64)i * KIB(64);
			u32 type = (const u32[]){ IN, OUT, OUT, ZEROES, FLUSH }[random() % 5];
			struct range range = { sector, len / 512, random() & 1 };

			memset(at(data, len), (int)random(), len);
			if (type == OUT)
				memcpy(model + sector * 512, at(data, len), len);
			if (type == ZEROES) {
				memset(model + sector * 512, 0, len);
				memcpy(at(data, 16), &range, 16);
				len = 16;
			}
			status[i] = offer_usual(type, sector, data, type == FLUSH ? 0 : len);
			if (type == IN) /* told apart from the fill when they are compared */
				status[i] |= 1ull << 63 | sector << 32;
		}
		kick_and_wait();
		for (int i = 0; i < n; i++) {
			u64 sector = status[i] << 1 >> 33;
			u8 *data = at(DATA + (u64)i * KIB(64), 512);

			assert_int_equal(*at(status[i] & 0xffffffff, 1), OK);
			if (status[i] >> 63)
				assert_memory_equal(data, model + sector * 512, 512);
		}
		assert_memory_equal(file_at(0, SIZE), model, SIZE);
	}
	assert_int_equal(blk->n_free, DISK_DEPTH);
}

/* Pages of the slots that are resident. */
static unsigned resident(void)
{
	static unsigned char map[4096];
	size_t pages = DISK_DEPTH * ALIGN_UP(sizeof(struct blk_request), 4096) / 4096;
	unsigned n = 0;

	assert_true(pages <= sizeof map);
	assert_int_equal(mincore(blk->slots, pages * 4096, map), 0);
	for (size_t i = 0; i < pages; i++)
		n += map[i] & 1;
	return n;
}

static void memory_is_used_for_requests_in_flight_only(void **state)
{
	(void)state;
	make();
	assert_int_equal(resident(), 0);
	for (int i = 0; i < 300; i++)
		assert_int_equal(run(IN, 0, DATA, 4096), OK);
	assert_in_range(resident(), 1, 2);
}

/* ---- life ------------------------------------------------------------------------------- */

/* Requests of all kinds on their way, none waited for. */
static void load(void)
{
	struct range ranges[16];

	for (u64 i = 0; i < 16; i++)
		ranges[i] = (struct range){ 4096 + 8 * i, 8, 0 };
	memcpy(at(DATA + MIB(2), sizeof ranges), ranges, sizeof ranges);
	for (u32 i = 0; i < 60; i++)
		offer_usual(i % 3 ? IN : OUT, i * 16, DATA + KIB(8) * i, KIB(8));
	offer_usual(TRIM, 0, DATA + MIB(2), sizeof ranges);
	offer_usual(ZEROES, 0, DATA + MIB(2), sizeof ranges);
	offer_usual(FLUSH, 0, DATA, 0);
	turn();
}

static void after_a_reset_nothing_lands(void **state)
{
	static u8 before[MIB(3)];

	(void)state;
	for (int round = 0; round < 20; round++) {
		u16 used;

		cool();
		load();
		used = ring_used_idx(&ring);
		device_set_status(dev, 0);
		assert_int_equal(dev->status, 0);
		assert_int_equal(ring_used_idx(&ring), used);
		assert_int_equal(blk->n_free, DISK_DEPTH);
		memset(at(DATA, MIB(3)), 0x5a, MIB(3));
		memcpy(before, at(DATA, MIB(3)), MIB(3));
		usleep(2000);
		assert_memory_equal(at(DATA, MIB(3)), before, MIB(3));
		go_live(0);
		assert_int_equal(run(IN, SECTORS - 8, DATA, 4096), OK);
	}
}

static void a_paused_disk_is_at_rest(void **state)
{
	u16 used, in_flight;

	(void)state;
	cool();
	load();
	interrupts();
	in_flight = (u16)(ring.avail_idx - ring_used_idx(&ring));
	*ring_used_event(&ring) = ring_used_idx(&ring);
	device_pause(dev);
	used = ring_used_idx(&ring);
	assert_int_equal(used, ring.avail_idx);
	assert_int_equal(interrupts(), in_flight ? 1 : 0);
	offer_usual(IN, 0, DATA, 512);
	turn();
	assert_int_equal(ring_used_idx(&ring), used);
	device_resume(dev);
	wait_used(ring.avail_idx);
}

static void a_swap_is_told_to_the_guest(void **state)
{
	int other = new_file(MIB(1)), empty = new_file(0), old = cfg.fd;
	u32 generation = dev->config_generation;

	(void)state;
	memset(at(DATA, KIB(512)), 0x44, KIB(512));
	cool();
	load();
	interrupts();
	dev->isr = 0;
	assert_int_equal(blk_swap(blk, other, &err), 0);
	assert_int_equal(ring_used_idx(&ring), ring.avail_idx);
	assert_int_equal(capacity(), MIB(1) / 512);
	assert_int_not_equal(dev->config_generation, generation);
	assert_true(dev->isr & DEVICE_ISR_CONFIG);
	assert_int_equal(interrupts() > 0, true);
	/* What was on its way went into the old file. */
	assert_true(all(file_at(0, KIB(8)), 0x44, KIB(8)));
	cfg.fd = other;
	assert_true(has_pattern(file_at(0, MIB(1)), 0, MIB(1)));
	assert_int_equal(run(OUT, 0, DATA, 512), OK);
	assert_true(memcmp(file_at(0, 512), at(DATA, 512), 512) == 0);
	assert_int_equal(run(IN, MIB(1) / 512, DATA, 512), IOERR);

	assert_int_equal(blk_swap(blk, empty, &err), 0);
	assert_int_equal(capacity(), 0);
	assert_int_equal(run(IN, 0, DATA, 512), IOERR);
	assert_int_equal(run(FLUSH, 0, DATA, 0), OK);
	assert_int_equal(blk_swap(blk, old, &err), 0);
	assert_int_equal(run(IN, SECTORS - 1, DATA, 512), OK);
	cfg.fd = old;
	close(other);
	close(empty);
}

static void a_grown_file_is_seen_after_a_swap(void **state)
{
	(void)state;
	assert_int_equal(ftruncate(cfg.fd, (off_t)(2 * SIZE)), 0);
	assert_int_equal(run(IN, SECTORS, DATA, 512), IOERR);
	assert_int_equal(blk_swap(blk, cfg.fd, &err), 0);
	assert_int_equal(capacity(), 2 * SECTORS);
	assert_int_equal(run(IN, SECTORS, DATA, 512), OK);
}

static void a_disk_can_be_destroyed_under_load(void **state)
{
	(void)state;
	cool();
	load();
	blk_destroy(blk);
	blk = NULL;
	memset(at(DATA, MIB(3)), 0x5a, MIB(3));
	usleep(2000);
	assert_true(all(at(DATA, MIB(3)), 0x5a, MIB(3)));
}

#define BOTH(test)                                                                                 \
	{ #test " (io_uring)", test, with_uring, tear_down, NULL },                                \
	{                                                                                          \
#test " (sync)", test, with_sync, tear_down, NULL                                  \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(it_is_a_disk_of_one_queue),
		BOTH(it_offers_what_its_configuration_allows),
		BOTH(its_config_space_is_not_for_writing),
		BOTH(its_id_is_device_and_inode_in_decimal),
		BOTH(a_tail_of_less_than_a_sector_is_not_there),
		BOTH(a_file_that_cannot_be_sized_makes_no_disk),
		BOTH(a_read_brings_the_sectors_and_no_more),
		BOTH(a_write_changes_the_sectors_and_no_more),
		BOTH(a_header_may_come_in_single_bytes),
		BOTH(header_and_data_may_share_a_buffer),
		BOTH(data_and_status_may_share_a_buffer),
		BOTH(data_may_come_in_single_bytes),
		BOTH(as_many_segments_as_promised_are_served),
		BOTH(a_megabyte_is_one_request),
		BOTH(a_range_outside_the_disk_is_an_error),
		BOTH(a_length_of_broken_sectors_is_an_error),
		BOTH(a_read_only_disk_is_not_written),
		BOTH(buffers_of_the_wrong_direction_are_not_data),
		BOTH(an_unknown_type_is_unsupported),
		BOTH(a_request_without_a_whole_header_is_an_error),
		BOTH(a_request_that_cannot_be_answered_breaks_the_device),
		BOTH(a_chain_offered_twice_breaks_the_device_and_nothing_else),
		BOTH(a_disk_that_fails_fails_the_request_only),
		BOTH(a_flush_is_served_where_it_was_offered),
		BOTH(a_driver_that_declined_flush_gets_every_write_stable),
		BOTH(discarded_ranges_become_holes),
		BOTH(zeroed_ranges_read_as_zeroes),
		BOTH(a_range_with_unknown_flags_is_unsupported),
		BOTH(a_range_beyond_the_disk_or_the_limit_is_an_error),
		BOTH(a_range_that_fails_fails_the_request),
		BOTH(a_list_of_ranges_is_whole_not_empty_and_not_too_long),
		BOTH(ranges_before_a_bad_one_may_be_done_and_none_after_it),
		BOTH(a_batch_is_one_interrupt),
		BOTH(cold_reads_by_the_dozen_all_arrive),
		BOTH(a_greedy_guest_is_served_in_turns_and_in_full),
		BOTH(random_requests_leave_the_disk_as_a_model_has_it),
		BOTH(memory_is_used_for_requests_in_flight_only),
		BOTH(after_a_reset_nothing_lands),
		BOTH(a_paused_disk_is_at_rest),
		BOTH(a_swap_is_told_to_the_guest),
		BOTH(a_grown_file_is_seen_after_a_swap),
		BOTH(a_disk_can_be_destroyed_under_load),
	};
	int failed;

	if (!mkdtemp(dir))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return failed;
}
