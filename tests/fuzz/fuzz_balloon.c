/* The balloon: everything a guest can send on its five queues. */
#include "src/virtio/balloon.h"
#include "tests/fuzz/virtio.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static struct balloon *balloon;

/* What a user may ask for in between. */
static void ask(struct guest *g)
{
	struct err err;
	u64 what = take(g, 1);
	int r;

	if (what & 1)
		balloon_resize(balloon, (u32)what);
	r = what & 2 ? balloon_hint_start(balloon, what & 4, &err)
		     : balloon_set_interval(balloon, (u16)what, &err);
	(void)r;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct guest guest;
	struct loop *loop = guest_begin(&guest, data, size);
	struct balloon_config cfg = { .amount_mib = 1, .deflate_on_oom = true };
	struct err err;
	u64 kind = take(&guest, 1);

	cfg.stats_interval_s = kind & 1 ? 1000 : 0;
	cfg.hinting = kind & 2;
	cfg.reporting = kind & 4;
	REQUIRE(balloon_create(&balloon, &cfg, &guest.mem, loop, &err) == 0);
	guest_attach(&guest, balloon_device(balloon));
	guest.backend = ask;
	guest_run(&guest);
	balloon_destroy(balloon);
	return 0;
}
