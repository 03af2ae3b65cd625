/*
 * blk: a drive, by a driver of good faith and by one that asks for what it cannot have.
 *
 * Disks made by the tests say in every 8 bytes which they are: seed << 40 | number.
 *
 *	do=read seed=S		all of it is read, in pieces of many shapes, and right
 *	do=write seed=S		all of it is written with that seed, flushed, read back
 *	do=split		one request over segments of odd sizes
 *	do=limits		sectors and lengths that do not exist
 *	do=types		requests nobody knows
 *	do=id			prints the drive's id
 *	do=readonly		writes to a read-only drive
 *	do=discard		discard and write zeroes, where offered
 *	do=flush n=N		N flushes, with and without writes
 *	do=depth n=N		N requests with the ring full
 *	do=swap n=N		prints capacity and first word, again after each of N changes
 *	do=again seed=S		reads all of it, over and over, a line for each pass
 *	do=busy			writes and reads for ever, a line for every hundred (pause, kill)
 *	do=features		prints the features as one number
 *	do=order n=N		prints the first word of drives 0..N-1
 */
#include "guest.h"

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_ID = 8, T_DISCARD = 11, T_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2, S_NONE = 0xee };
enum { F_RO = 5, F_FLUSH = 9, F_DISCARD = 13, F_ZEROES = 14 };

#define SECTOR 512
#define CHUNK  0x8000 /* bytes of the largest request here */

struct header {
	u32 type;
	u32 reserved;
	u64 sector;
};

static struct vrings rings;
static struct header header[64];
static u8 status[64];
static u64 data[CHUNK / 8];
static struct vio vio;
static u64 offered;

static u64 capacity(void)
{
	return read32(vio.base + VIO_CONFIG) | (u64)read32(vio.base + VIO_CONFIG + 4) << 32;
}

/* One request with one data segment; returns the status byte. */
static u8 request(u32 type, u64 sector, void *buffer, u32 len)
{
	u16 direction = type == T_IN || type == T_ID ? VD_WRITE : 0;
	u32 id, used;

	header[0] = (struct header){ type, 0, sector };
	status[0] = S_NONE;
	vio_desc(&vio, 0, (u64)&header[0], sizeof(header[0]), VD_NEXT, len ? 1 : 2);
	vio_desc(&vio, 1, (u64)buffer, len, (u16)(VD_NEXT | direction), 2);
	vio_desc(&vio, 2, (u64)&status[0], 1, VD_WRITE, 0);
	vio_offer(&vio, 0);
	vio_kick(&vio);
	if (!vio_wait(&vio, &id, &used)) {
		CHECK(false, "a request of type %u is answered", type);
		return S_NONE;
	}
	if (type == T_IN && status[0] == S_OK)
		CHECK(used == len + 1, "a read of %u tells %u", len, used);
	return status[0];
}

static u64 word(u64 seed, u64 sector, u32 i)
{
	return seed << 40 | (sector * (SECTOR / 8) + i);
}

static void fill(u64 seed, u64 sector, u32 bytes)
{
	for (u32 i = 0; i < bytes / 8; i++)
		data[i] = word(seed, sector, i);
}

static bool holds(u64 seed, u64 sector, u32 bytes)
{
	for (u32 i = 0; i < bytes / 8; i++) {
		if (data[i] != word(seed, sector, i)) {
			put("sector %lu word %u is %lx\n", sector, i, data[i]);
			return false;
		}
	}
	return true;
}

static void read_all(u64 seed)
{
	static const u32 shapes[] = { 1, 2, 7, 8, 16, 64 };
	u64 total = capacity(), at = 0;

	for (u32 i = 0; at < total; i++) {
		u32 sectors = shapes[i % ARRAY_SIZE(shapes)];

		if (sectors > total - at)
			sectors = (u32)(total - at);
		memset(data, 0, sectors * SECTOR);
		CHECK(request(T_IN, at, data, sectors * SECTOR) == S_OK, "read at %lu", at);
		CHECK(holds(seed, at, sectors * SECTOR), "contents at %lu", at);
		at += sectors;
	}
}

static void write_all(u64 seed)
{
	u64 total = capacity();

	for (u64 at = 0; at < total; at += 32) {
		u32 bytes = (u32)(total - at < 32 ? total - at : 32) * SECTOR;

		fill(seed, at, bytes);
		CHECK(request(T_OUT, at, data, bytes) == S_OK, "write at %lu", at);
	}
	if (offered >> F_FLUSH & 1)
		CHECK(request(T_FLUSH, 0, NULL, 0) == S_OK, "flush");
	read_all(seed);
}

/* The same bytes through ever other segments: 1, 511, 3, 1021 ... */
static void split(void)
{
	static const u32 cuts[] = { 1, 511, 3, 1021, 64, 448, 7, 2041, 4096 };
	u32 id, used, at = 0;
	unsigned n = ARRAY_SIZE(cuts);

	memset(data, 0xcc, sizeof(data));
	header[0] = (struct header){ T_IN, 0, 2 };
	status[0] = S_NONE;
	/* The header is split too, and the status has a segment of its own. */
	vio_desc(&vio, 0, (u64)&header[0], 5, VD_NEXT, 1);
	vio_desc(&vio, 1, (u64)&header[0] + 5, 11, VD_NEXT, 2);
	for (unsigned i = 0; i < n; i++) {
		vio_desc(&vio, 2 + i, (u64)data + at, cuts[i], VD_WRITE | VD_NEXT, (u16)(3 + i));
		at += cuts[i];
	}
	vio_desc(&vio, 2 + n, (u64)&status[0], 1, VD_WRITE, 0);
	vio_offer(&vio, 0);
	vio_kick(&vio);
	CHECK(vio_wait(&vio, &id, &used), "a split request is answered");
	CHECK(status[0] == S_OK && used == at + 1, "status %u used %u", (u32)status[0], used);
	CHECK(holds(option("seed", 1), 2, at), "a split read is right");
	CHECK(data[at / 8] == 0xcccccccccccccccc, "nothing beyond it is written");
}

static void limits(void)
{
	u64 end = capacity();
	static const u64 beyond[] = { 0, 1, 1ull << 54, 1ull << 55, ~0ull >> 9, ~0ull };

	for (unsigned i = 0; i < ARRAY_SIZE(beyond); i++) {
		u64 at = i < 2 ? end + beyond[i] : beyond[i];

		CHECK(request(T_IN, at, data, SECTOR) == S_IOERR, "read at %lx", at);
		CHECK(request(T_OUT, at, data, SECTOR) == S_IOERR, "write at %lx", at);
	}
	CHECK(request(T_IN, end - 1, data, 2 * SECTOR) == S_IOERR, "read across the end");
	CHECK(request(T_OUT, end - 1, data, 2 * SECTOR) == S_IOERR, "write across the end");
	CHECK(request(T_IN, end - 1, data, SECTOR) == S_OK, "read of the last sector");
	CHECK(request(T_IN, 0, data, 100) != S_OK, "read of 100 bytes");
	CHECK(request(T_OUT, 0, data, 513) != S_OK, "write of 513 bytes");
	CHECK(request(T_IN, 0, data, SECTOR) == S_OK, "the drive still works");
}

static void types(void)
{
	static const u32 unknown[] = { 2, 3, 5, 7, 12, 15, 100, 0x80000000, 0xffffffff };

	for (unsigned i = 0; i < ARRAY_SIZE(unknown); i++)
		CHECK(request(unknown[i], 0, data, SECTOR) == S_UNSUPP, "type %u gave %u",
		      unknown[i], (u32)status[0]);
	CHECK(request(T_IN, 0, data, SECTOR) == S_OK, "the drive still works");
}

static void identity(void)
{
	char text[24];

	memset(text, 0x7f, sizeof(text));
	CHECK(request(T_ID, 0, text, 20) == S_OK, "get id");
	CHECK(text[20] == 0x7f, "20 bytes and no more");
	text[20] = 0;
	CHECK(text[0] && (u8)text[0] < 0x7f, "there is an id");
	put("id [%s]\n", text);
	CHECK(request(T_ID, 0, text, 4) != S_NONE, "a short id request is answered");
}

static void readonly(void)
{
	CHECK(offered >> F_RO & 1, "read-only is offered");
	memset(data, 0xdd, SECTOR);
	CHECK(request(T_OUT, 0, data, SECTOR) != S_OK, "write to a read-only drive");
	CHECK(request(T_DISCARD, 0, data, 16) != S_OK, "discard on a read-only drive");
	CHECK(request(T_ZEROES, 0, data, 16) != S_OK, "write zeroes on a read-only drive");
	read_all(option("seed", 1));
}

struct range {
	u64 sector;
	u32 sectors;
	u32 flags;
};

static u8 ranges(u32 type, u64 sector, u32 sectors, u32 flags)
{
	struct range r = { sector, sectors, flags };

	return request(type, 0, &r, sizeof(r));
}

static bool zero_at(u64 sector)
{
	memset(data, 0xcc, SECTOR);
	if (request(T_IN, sector, data, SECTOR) != S_OK)
		return false;
	for (u32 i = 0; i < SECTOR / 8; i++) {
		if (data[i])
			return false;
	}
	return true;
}

static void discard(void)
{
	u64 end = capacity(), seed = option("seed", 1);

	put("discard %u zeroes %u\n", (u32)(offered >> F_DISCARD & 1),
	    (u32)(offered >> F_ZEROES & 1));
	if (offered >> F_ZEROES & 1) {
		CHECK(ranges(T_ZEROES, 8, 8, 0) == S_OK, "write zeroes");
		CHECK(zero_at(8) && zero_at(15), "they are zero");
		CHECK(request(T_IN, 7, data, SECTOR) == S_OK && holds(seed, 7, SECTOR), "before");
		CHECK(request(T_IN, 16, data, SECTOR) == S_OK && holds(seed, 16, SECTOR), "after");
		CHECK(ranges(T_ZEROES, end - 1, 2, 0) != S_OK, "zeroes across the end");
		CHECK(ranges(T_ZEROES, ~0ull, 2, 0) != S_OK, "zeroes that wrap");
		CHECK(ranges(T_ZEROES, 8, 8, 0xfffffffe) == S_UNSUPP, "zeroes, unknown flags");
		CHECK(request(T_ZEROES, 0, data, 15) != S_OK, "zeroes, half a range");
	}
	if (offered >> F_DISCARD & 1) {
		CHECK(ranges(T_DISCARD, 24, 8, 0) == S_OK, "discard");
		CHECK(request(T_IN, 23, data, SECTOR) == S_OK && holds(seed, 23, SECTOR), "before");
		CHECK(request(T_IN, 32, data, SECTOR) == S_OK && holds(seed, 32, SECTOR), "after");
		CHECK(ranges(T_DISCARD, end, 1, 0) != S_OK, "discard beyond the end");
		CHECK(ranges(T_DISCARD, 8, 8, 1) == S_UNSUPP, "discard with the unmap flag");
	}
	CHECK(request(T_IN, 0, data, SECTOR) == S_OK, "the drive still works");
}

static void flush(void)
{
	u64 n = option("n", 10);

	CHECK(offered >> F_FLUSH & 1, "flush is offered");
	for (u64 i = 0; i < n; i++) {
		fill(i + 2, i, SECTOR);
		if (i % 2)
			CHECK(request(T_OUT, i, data, SECTOR) == S_OK, "write %lu", i);
		CHECK(request(T_FLUSH, 0, NULL, 0) == S_OK, "flush %lu", i);
	}
	CHECK(request(T_FLUSH, ~0ull, NULL, 0) != S_NONE, "flush with a sector is answered");
}

/* Request `slot` uses descriptors 3 * slot and the two that follow. */
static void offer_slot(unsigned slot, u64 sector, u32 type)
{
	u16 d = (u16)(3 * slot);

	header[slot] = (struct header){ type, 0, sector };
	status[slot] = S_NONE;
	vio_desc(&vio, d, (u64)&header[slot], sizeof(header[slot]), VD_NEXT, (u16)(d + 1));
	vio_desc(&vio, d + 1u, (u64)data + slot * SECTOR, SECTOR,
		 (u16)(VD_NEXT | (type == T_IN ? VD_WRITE : 0)), (u16)(d + 2));
	vio_desc(&vio, d + 2u, (u64)&status[slot], 1, VD_WRITE, 0);
	vio_offer(&vio, d);
}

static void depth(void)
{
	u32 n = (u32)option("n", 200), slots = 40, given = 0, taken = 0, id, len;
	u64 seed = option("seed", 1), end = capacity(), sector[64];

	while (taken < n) {
		if (given == taken) {
			for (u32 s = 0; s < slots && given < n; s++, given++) {
				sector[s] = (given * 37ull) % end;
				offer_slot(s, sector[s], T_IN);
			}
			vio_kick(&vio);
		}
		CHECK(vio_wait(&vio, &id, &len), "request %u is answered", taken);
		CHECK(id % 3 == 0 && id / 3 < slots, "head %u", id);
		CHECK(status[id / 3 % 64] == S_OK, "status of head %u", id);
		status[id / 3 % 64] = S_NONE; /* the same answer twice would show */
		CHECK(data[id / 3 * (SECTOR / 8)] == word(seed, sector[id / 3 % 64], 0),
		      "contents of sector %lu", sector[id / 3 % 64]);
		taken++;
	}
}

static void swap(void)
{
	u64 n = option("n", 1);

	for (u64 i = 0;; i++) {
		CHECK(request(T_IN, 0, data, SECTOR) == S_OK, "read after change %lu", i);
		put("drive %lu: capacity %lu seed %lu\n", i, capacity(), data[0] >> 40);
		if (i == n)
			return;
		while (!(read32(vio.base + VIO_ISR) & 2))
			relax();
		write32(vio.base + VIO_ACK, 2);
	}
}

NORETURN static void busy(void)
{
	u64 end = capacity();

	for (u32 n = 0;; n++) {
		u64 at = (n * 13ull) % end;

		fill(n + 1, at, SECTOR);
		CHECK(request(T_OUT, at, data, SECTOR) == S_OK, "write %u", n);
		memset(data, 0, SECTOR);
		CHECK(request(T_IN, at, data, SECTOR) == S_OK, "read %u", n);
		CHECK(holds(n + 1, at, SECTOR), "round %u", n);
		if (n % 100 == 0)
			put("rounds %u\n", n);
	}
}

static bool start(unsigned nth)
{
	u64 useful = 1ull << VIO_F_VERSION_1 | 1ull << F_RO | 1ull << F_FLUSH |
		     1ull << F_DISCARD | 1ull << F_ZEROES;

	if (!vio_find(&vio, VIO_ID_BLOCK, nth))
		return false;
	offered = vio_features(&vio);
	return vio_init(&vio, &rings, 128, offered & useful);
}

static void order(void)
{
	u64 n = option("n", 1);

	for (u64 i = 0; i < n; i++) {
		CHECK(start((unsigned)i), "drive %lu starts", i);
		CHECK(!capacity() || request(T_IN, 0, data, SECTOR) == S_OK, "read drive %lu", i);
		put("drive %lu: capacity %lu seed %lu\n", i, capacity(),
		    capacity() ? data[0] >> 40 : 0);
	}
	CHECK(!start((unsigned)n), "there are no more than %lu drives", n);
}

void guest(void)
{
	static const struct {
		const char *word;
		void (*run)(void);
	} words[] = {
		{ "split", split },	  { "limits", limits },	  { "types", types },
		{ "id", identity },	  { "readonly", readonly }, { "discard", discard },
		{ "flush", flush },	  { "depth", depth },	  { "swap", swap },
		{ "busy", busy },	  { "order", order },
	};

	if (!option_is("do", "order"))
		CHECK(start((unsigned)option("nth", 0)), "the drive starts");
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		if (option_is("do", words[i].word))
			words[i].run();
	}
	if (option_is("do", "read"))
		read_all(option("seed", 1));
	else if (option_is("do", "write"))
		write_all(option("seed", 2));
	for (u32 pass = 0; option_is("do", "again"); pass++) {
		read_all(option("seed", 1));
		put("pass %u\n", pass);
	}
	put("features %lx\n", offered);
}
