/*
 * balloon: see balloon.h. Knows chains, page numbers and mem_discard().
 *
 * Which queue is which depends on what the driver took (5.5.2): those that are there are numbered
 * without gaps, in the order inflate, deflate, statistics, hinting, reporting.
 *
 * A driver sends up to 256 page numbers a request, mostly neighbours, up or down. They are taken in
 * runs, and these sorted and joined, so that the kernel is called once a run and not once a page.
 *
 * Statistics: the driver makes one buffer available and waits for it to be used; that is our
 * question, and its next buffer the answer. So the buffer stays in the ring, read already, until
 * the timer wants news.
 *
 * Invariant: no chain is held between two calls.
 */
#include "balloon.h"

#include "../vmm/log.h"

#include <stdlib.h>

#define PAGE	      4096u
#define PAGES_PER_MIB 256u
#define PFNS_MAX      1024u   /* looked at at a time */
#define TURN_MAX      16u     /* requests in a turn of the loop */
#define LIST_MAX      KIB(16) /* bytes of page numbers in one request; Linux sends 1 KiB */

#define F_STATS	    1
#define F_OOM	    2
#define F_HINT	    3
#define F_REPORTING 5

enum role { INFLATE, DEFLATE, STATS, HINT, REPORT, ROLES };

#define CMD_STOP  0u
#define CMD_DONE  1u
#define CMD_FIRST 2u

struct balloon_space { /* 5.5.4 */
	u32 num_pages;
	u32 actual;
	u32 hint_cmd;
};
static_assert(sizeof(struct balloon_space) == 12, "layout of 5.5.4");

struct balloon_stat_entry { /* 5.5.6.3 */
	u16 tag;
	u64 value;
} __attribute__((packed));

struct run {
	u32 first, n; /* page numbers */
};

struct balloon {
	struct device dev;
	struct vq vq[ROLES];
	struct balloon_state state;
	struct balloon_metrics metrics;
	struct loop_timer timer;
	u32 pfn[PFNS_MAX];
	struct run run[PFNS_MAX]; /* what they make together */
};

/* ---- config space ------------------------------------------------------------------------------
 */

static struct balloon_space space_of(const struct balloon *balloon)
{
	struct balloon_space space;

	memcpy(&space, balloon->dev.config, sizeof space);
	return space;
}

static void set_space(struct balloon *balloon, const struct balloon_space *space)
{
	memcpy(balloon->dev.config, space, sizeof *space);
	device_config_changed(&balloon->dev);
}

/* How large the driver says the balloon is: the one field that is its own. */
static void balloon_config_write(struct device *dev, u32 off, const void *data, u32 len)
{
	const u32 actual = offsetof(struct balloon_space, actual);

	if (off >= actual && len <= sizeof(u32) && off - actual <= sizeof(u32) - len)
		memcpy(dev->config + off, data, len);
}

/* ---- pages -------------------------------------------------------------------------------------
 */

/* Pages that follow each other, up or down. How many runs that makes. */
static u32 find_runs(struct balloon *balloon, u32 n)
{
	struct run *run = NULL;

	for (u32 i = 0; i < n; i++) {
		u32 pfn = balloon->pfn[i];

		if (run && pfn == (u64)run->first + run->n) {
			run->n++;
		} else if (run && pfn + 1ull == run->first) {
			run->first--;
			run->n++;
		} else {
			run = run ? run + 1 : balloon->run;
			*run = (struct run){ pfn, 1 };
		}
	}
	return run ? (u32)(run - balloon->run) + 1 : 0;
}

/* Shell sort: nothing may allocate here. */
static void sort(struct run *run, u32 n)
{
	static const u32 gaps[] = { 701, 301, 132, 57, 23, 10, 4, 1 };

	for (size_t g = 0; g < ARRAY_SIZE(gaps); g++)
		for (u32 i = gaps[g]; i < n; i++) {
			struct run moving = run[i];
			u32 j = i;

			for (; j >= gaps[g] && run[j - gaps[g]].first > moving.first; j -= gaps[g])
				run[j] = run[j - gaps[g]];
			run[j] = moving;
		}
}

/* [first, first + n) pages; what is not RAM is skipped. */
static void discard_run(struct balloon *balloon, u64 first, u64 n)
{
	u64 gpa = first * PAGE, end = gpa + n * PAGE;

	while (gpa < end) {
		u64 len = end - gpa;
		void *host = mem_span(balloon->dev.mem, gpa, &len);

		if (!host)
			len = PAGE;
		if (!host || mem_discard(balloon->dev.mem, host, len) < 0)
			balloon->metrics.event_fails++;
		gpa += len;
	}
}

/* Runs that touch or overlap (a page may be named twice) are one. */
static void discard_sorted(struct balloon *balloon, const struct run *run, u32 n)
{
	const struct run *end = run + n;

	while (run < end) {
		u64 first = run->first, last = first;

		for (; run < end && run->first <= last; run++)
			last = MAX(last, (u64)run->first + run->n);
		discard_run(balloon, first, last - first);
	}
}

/* Four bytes a page; what is left of a length that is no multiple is ignored. */
static void inflate(struct balloon *balloon, struct chain *chain)
{
	if (chain->read_left > LIST_MAX) {
		device_break(&balloon->dev, "a list of more than 4096 pages in one request");
		return;
	}
	while (chain->read_left >= sizeof(u32)) {
		u32 n = MIN(chain->read_left / (u32)sizeof(u32), PFNS_MAX);

		if (!chain_read(chain, balloon->pfn, n * (u32)sizeof(u32)))
			return;
		n = find_runs(balloon, n);
		sort(balloon->run, n);
		discard_sorted(balloon, balloon->run, n);
	}
	balloon->metrics.inflate_count++;
}

/* Pages come back with their next use; there is nothing to do for it. */
static void deflate(struct balloon *balloon, struct chain *chain)
{
	(void)chain;
	balloon->metrics.deflate_count++;
}

/* The buffers of a chain, whole pages of them; what it holds is of no use to the guest. */
static u64 discard_buffers(struct balloon *balloon, const struct chain *chain, u64 *fails)
{
	SCRATCH struct iovec iov[CHAIN_IOV_MAX];
	int n = chain_write_iov(chain, chain->write_left, iov, CHAIN_IOV_MAX);
	u64 given = 0;

	for (int i = 0; i < n; i++)
		if (mem_discard(balloon->dev.mem, iov[i].iov_base, iov[i].iov_len) == 0)
			given += iov[i].iov_len;
		else
			(*fails)++;
	return given;
}

static void report(struct balloon *balloon, struct chain *chain)
{
	struct balloon_metrics *metrics = &balloon->metrics;

	metrics->report_count++;
	metrics->report_freed += discard_buffers(balloon, chain, &metrics->report_fails);
}

/* ---- free page hinting (5.5.6.5) ---------------------------------------------------------------
 */

static void send_cmd(struct balloon *balloon, u32 cmd)
{
	struct balloon_space space = space_of(balloon);

	balloon->state.host_cmd = space.hint_cmd = cmd;
	set_space(balloon, &space);
}

/* A readable part is the driver's word on the run: its number at the begin, 0 at the end. */
static void hint(struct balloon *balloon, struct chain *chain)
{
	struct balloon_metrics *metrics = &balloon->metrics;
	struct balloon_state *state = &balloon->state;
	u32 cmd;

	if (chain->read_left && chain_read(chain, &cmd, sizeof cmd)) {
		state->guest_cmd = cmd;
		state->guest_said = true;
		if (cmd == CMD_STOP && state->acknowledge && state->host_cmd >= CMD_FIRST)
			send_cmd(balloon, CMD_DONE);
		return;
	}
	/* Pages of a run that we have ended are the driver's again: it may be using them. */
	if (state->host_cmd < CMD_FIRST || state->guest_cmd != state->host_cmd) {
		metrics->hint_fails++;
		return;
	}
	metrics->hint_count++;
	metrics->hint_freed += discard_buffers(balloon, chain, &metrics->hint_fails);
}

/* ---- statistics --------------------------------------------------------------------------------
 */

static void read_stats(struct balloon *balloon, struct chain *chain)
{
	struct balloon_stat_entry entry;
	unsigned n = 0;

	for (; n < 2 * BALLOON_STATS; n++) {
		if (!chain_read(chain, &entry, sizeof entry))
			break;
		if (entry.tag >= BALLOON_STATS)
			continue; /* newer than we are */
		balloon->state.stat[entry.tag] = entry.value;
		balloon->state.stats_known |= 1u << entry.tag;
	}
	if (n)
		balloon->metrics.stats_updates_count++;
	else
		balloon->metrics.stats_update_fails++;
}

/* A buffer is read, and stays in the ring until it is time to ask again. */
static void stats_notify(struct balloon *balloon, unsigned q)
{
	struct vq *vq = &balloon->vq[q];
	struct chain chain;

	if (vq_pop(vq, &chain) <= 0)
		return;
	read_stats(balloon, &chain);
	vq_unpop(vq, &chain);
}

static void arm(struct balloon *balloon)
{
	u64 ns = (u64)balloon->state.stats_interval_s * 1000000000u;

	loop_timer_set(&balloon->timer, ns, ns);
}

/* ---- verbs -------------------------------------------------------------------------------------
 */

/* What queue `q` is, by what the driver took. */
static enum role role_of(const struct device *dev, unsigned q)
{
	static const u8 feature[] = { [STATS] = F_STATS, [HINT] = F_HINT, [REPORT] = F_REPORTING };
	unsigned index = q;

	if (q <= DEFLATE)
		return (enum role)q;
	for (enum role role = STATS; role < ROLES; role++)
		if (device_has(dev, feature[role]) && index-- == STATS)
			return role;
	return ROLES;
}

static void (*const serve[])(struct balloon *balloon, struct chain *chain) = {
	[INFLATE] = inflate,
	[DEFLATE] = deflate,
	[HINT] = hint,
	[REPORT] = report,
};

static void balloon_notify(struct device *dev, unsigned q)
{
	struct balloon *balloon = container_of(dev, struct balloon, dev);
	enum role role = role_of(dev, q);
	struct chain chain;
	unsigned turn = 0;

	if (role == STATS) {
		stats_notify(balloon, q);
		return;
	}
	if (role == ROLES)
		return;
	for (; turn < TURN_MAX && vq_pop(&dev->vq[q], &chain) > 0; turn++) {
		serve[role](balloon, &chain);
		if (!device_active(dev))
			return;
		vq_push(&dev->vq[q], &chain);
	}
	device_signal_queue(dev, q);
	if (turn == TURN_MAX)
		device_wake(dev, q);
}

/* Gives the driver its buffer back: it answers with a new one. */
static void ask_for_stats(void *owner)
{
	struct balloon *balloon = owner;
	struct device *dev = &balloon->dev;
	struct chain chain;

	if (!device_active(dev)) {
		loop_timer_set(&balloon->timer, 0, 0);
		return;
	}
	for (unsigned q = STATS; q < dev->n_queues && !dev->paused; q++) {
		if (role_of(dev, q) != STATS || vq_pop(&dev->vq[q], &chain) <= 0)
			continue;
		vq_push(&dev->vq[q], &chain);
		device_signal_queue(dev, q);
		stats_notify(balloon, q); /* or the driver would not be asked for a kick */
	}
}

static void balloon_reset(struct device *dev)
{
	struct balloon *balloon = container_of(dev, struct balloon, dev);
	struct balloon_space space = space_of(balloon);

	space.actual = 0;
	space.hint_cmd = CMD_STOP;
	memcpy(dev->config, &space, sizeof space);
	balloon->state.stats_known = 0;
	balloon->state.host_cmd = CMD_STOP;
	balloon->state.guest_cmd = CMD_STOP; /* what the next driver has not begun is no run */
	balloon->state.guest_said = false;
}

static void balloon_loaded(struct device *dev)
{
	arm(container_of(dev, struct balloon, dev));
}

static bool balloon_plausible(struct device *dev, const void *own)
{
	const struct balloon *balloon = container_of(dev, struct balloon, dev);
	const u8 *byte = own;
	struct {
		u32 stats_known;
		u16 interval_s;
	} is;

	memcpy(&is.stats_known, byte + offsetof(struct balloon_state, stats_known), sizeof(u32));
	memcpy(&is.interval_s, byte + offsetof(struct balloon_state, stats_interval_s),
	       sizeof(u16));
	return !((u64)is.stats_known >> BALLOON_STATS) &&
	       is.interval_s == balloon->state.stats_interval_s &&
	       byte[offsetof(struct balloon_state, guest_said)] <= 1 &&
	       byte[offsetof(struct balloon_state, acknowledge)] <= 1;
}

static_assert(sizeof(struct balloon_state) <= DEVICE_OWN_MAX, "room for it in a snapshot");

static const struct device_type balloon_type = {
	.name = "balloon",
	.virtio_id = 5,
	.notify = balloon_notify,
	.config_write = balloon_config_write,
	.reset = balloon_reset,
	.loaded = balloon_loaded,
	.plausible = balloon_plausible,
};

/* ---- life --------------------------------------------------------------------------------------
 */

static u64 features(const struct balloon_config *cfg)
{
	return (cfg->stats_interval_s ? 1ull << F_STATS : 0) |
	       (cfg->deflate_on_oom ? 1ull << F_OOM : 0) | (cfg->hinting ? 1ull << F_HINT : 0) |
	       (cfg->reporting ? 1ull << F_REPORTING : 0);
}

int balloon_create(struct balloon **out, const struct balloon_config *cfg, const struct mem *mem,
		   struct loop *loop, struct err *err)
{
	struct balloon *balloon = calloc(1, sizeof *balloon);
	struct balloon_space space = { .num_pages = cfg->amount_mib * PAGES_PER_MIB };
	int r;

	*out = NULL;
	if (!balloon)
		return fail(err, -ENOMEM, "no memory for the balloon device");
	balloon->dev = (struct device){ .type = &balloon_type,
					.id = "balloon",
					.features_offered = features(cfg),
					.config_len = sizeof space,
					.vq = balloon->vq,
					.n_queues = 2u + !!cfg->stats_interval_s + cfg->hinting +
						    cfg->reporting };
	balloon->state.stats_interval_s = cfg->stats_interval_s;
	balloon->timer =
		(struct loop_timer){ .source.fd = -1, .expired = ask_for_stats, .owner = balloon };
	for (unsigned q = 0; q < balloon->dev.n_queues; q++)
		balloon->vq[q].size_max = VQ_SIZE_MAX;
	memcpy(balloon->dev.config, &space, sizeof space);
	balloon->dev.own = &balloon->state;
	balloon->dev.own_size = sizeof balloon->state;
	r = device_init(&balloon->dev, mem, loop, err);
	if (r < 0) {
		free(balloon);
		return r;
	}
	r = loop_timer_init(loop, &balloon->timer);
	if (r < 0) {
		balloon_destroy(balloon);
		return fail(err, r, "cannot make a timer: " OS_ERR, OS_ERR_ARGS(-r));
	}
	*out = balloon;
	return 0;
}

void balloon_destroy(struct balloon *balloon)
{
	if (!balloon)
		return;
	loop_timer_destroy(balloon->dev.loop, &balloon->timer);
	device_destroy(&balloon->dev);
	free(balloon);
}

struct device *balloon_device(struct balloon *balloon)
{
	return &balloon->dev;
}

const struct balloon_state *balloon_state(const struct balloon *balloon)
{
	return &balloon->state;
}

const struct balloon_metrics *balloon_metrics(const struct balloon *balloon)
{
	return &balloon->metrics;
}

/* ---- what the user asks for --------------------------------------------------------------------
 */

void balloon_resize(struct balloon *balloon, u32 amount_mib)
{
	struct balloon_space space = space_of(balloon);

	space.num_pages = amount_mib * PAGES_PER_MIB;
	set_space(balloon, &space);
}

u32 balloon_target_pages(const struct balloon *balloon)
{
	return space_of(balloon).num_pages;
}

u32 balloon_actual_pages(const struct balloon *balloon)
{
	return space_of(balloon).actual;
}

int balloon_set_interval(struct balloon *balloon, u16 seconds, struct err *err)
{
	if (!seconds != !balloon->state.stats_interval_s)
		return fail(err, -EINVAL,
			    "Statistics cannot be enabled/disabled after activation.");
	if (seconds == balloon->state.stats_interval_s)
		return 0;
	balloon->state.stats_interval_s = seconds;
	if (device_active(&balloon->dev)) {
		ask_for_stats(balloon);
		arm(balloon);
	}
	return 0;
}

bool balloon_can_hint(const struct balloon *balloon)
{
	return balloon->dev.features_offered >> F_HINT & 1;
}

static int check_hinting(const struct balloon *balloon, struct err *err)
{
	if (!balloon_can_hint(balloon))
		return fail(err, -EINVAL, "Attempting to use hinting when not enabled");
	if (!device_active(&balloon->dev))
		return fail(err, -EAGAIN, "Device not activated yet.");
	return 0;
}

int balloon_hint_start(struct balloon *balloon, bool acknowledge, struct err *err)
{
	struct balloon_state *state = &balloon->state;
	int r = check_hinting(balloon, err);

	if (r < 0)
		return r;
	state->acknowledge = acknowledge;
	state->last_run = MAX(state->last_run + 1, CMD_FIRST);
	send_cmd(balloon, state->last_run);
	return 0;
}

int balloon_hint_stop(struct balloon *balloon, struct err *err)
{
	int r = check_hinting(balloon, err);

	if (r == 0)
		send_cmd(balloon, CMD_DONE);
	return r;
}
