/*
 * The entropy device. Its randomness is a constant here, so that an input always does the same.
 */
#include "src/virtio/rng.h"
#include "tests/fuzz/virtio.h"

#include <sys/random.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static u64 made, made_before;
static unsigned calls;

/* Stands before libc's: sometimes short, sometimes interrupted. */
ssize_t getrandom(void *to, size_t len, unsigned flags)
{
	(void)flags;
	if (++calls % 7 == 0) {
		errno = EINTR;
		return -1;
	}
	if (len > 256 && calls % 5 == 0)
		len = 256;
	memset(to, 0x5a, len);
	made += len;
	return (ssize_t)len;
}

/* No operation makes more than a turn is worth: up to 128 KiB, and the request that reaches it. */
static void is_bounded(void)
{
	REQUIRE(made - made_before <= KIB(192));
	made_before = made;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct guest guest;
	struct loop *loop = guest_begin(&guest, data, size);
	struct rng *rng;
	struct err err;

	calls = 0;
	made = made_before = 0;
	REQUIRE(rng_create(&rng, &guest.mem, loop, &err) == 0);
	guest_attach(&guest, rng_device(rng));
	guest.check = is_bounded;
	guest_run(&guest);
	rng_destroy(rng);
	return 0;
}
