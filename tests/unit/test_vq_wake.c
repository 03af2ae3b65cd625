/*
 * vq: who wakes whom, and what happens while both sides move. Part two of test_vq.c.
 */
#include "src/virtio/vq.h"
#include "tests/unit/ring.h"
#include "tests/unit/test.h"

#include <stdlib.h>

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#define RINGS  0x10000
#define BUFFER 0x40000

static struct mem mem;
static struct vq vq;
static struct ring ring;
static struct chain chain;

static int make_memory(void **state)
{
	struct err err;

	(void)state;
	return mem_create(&mem, MIB(2), MEM_ANON, MEM_PAGES_4K, &err);
}

static int drop_memory(void **state)
{
	(void)state;
	mem_destroy(&mem);
	return 0;
}

/* A fresh queue of `size`, active. */
static void start(u16 size, bool event_idx)
{
	ring = ring_at(&mem, RINGS, size);
	vq.size_max = VQ_SIZE_MAX;
	vq_reset(&vq);
	ring_program(&ring, &vq);
	vq.event_idx = event_idx;
	assert_int_equal(vq_activate(&vq, &mem), 0);
}

static void pop_one(u16 head, struct chain *into)
{
	ring_set(&ring, head, BUFFER + 64u * head, 64, R_WRITE, 0);
	ring_offer(&ring, head);
	assert_int_equal(vq_pop(&vq, into), 1);
}

/* ---- who wakes whom ----------------------------------------------------------------------- */

static void without_event_index_a_flag_asks_for_interrupts(void **state)
{
	(void)state;
	start(8, false);
	assert_false(vq_should_signal(&vq)); /* nothing was pushed */
	pop_one(0, &chain);
	vq_push(&vq, &chain);
	assert_true(vq_should_signal(&vq));
	assert_false(vq_should_signal(&vq));
	ring_avail(&ring)[0] = 1;
	pop_one(1, &chain);
	vq_push(&vq, &chain);
	assert_false(vq_should_signal(&vq));
}

static void without_event_index_a_flag_asks_for_kicks(void **state)
{
	(void)state;
	start(8, false);
	vq_suppress_kicks(&vq);
	assert_int_equal(ring_used(&ring)[0], 1);
	assert_int_equal(vq_pop(&vq, &chain), 0);
	assert_int_equal(ring_used(&ring)[0], 0);
}

static void with_event_index_an_empty_queue_asks_for_the_next_entry(void **state)
{
	(void)state;
	start(8, true);
	ring_start_at(&ring, &vq, 65535);
	*ring_avail_event(&ring) = 0x1234;
	vq_suppress_kicks(&vq);
	assert_int_equal(vq_pop(&vq, &chain), 0);
	assert_int_equal(*ring_avail_event(&ring), 65535);
	assert_int_equal(ring_used(&ring)[0], 0); /* 2.7.10.2: flags stay zero */
	pop_one(0, &chain);
	assert_int_equal(*ring_avail_event(&ring), 65535); /* no need to ask while busy */
	assert_int_equal(vq_pop(&vq, &chain), 0);
	assert_int_equal(*ring_avail_event(&ring), 0);
}

/* `n` entries are pushed from `old` on; the driver asked for `event`. */
static bool signals(u16 old, u16 n, u16 event)
{
	start(16, true);
	ring_start_at(&ring, &vq, old);
	*ring_used_event(&ring) = event;
	for (u16 i = 0; i < n; i++) {
		pop_one(i, &chain);
		vq_push(&vq, &chain);
	}
	return vq_should_signal(&vq);
}

static void with_event_index_the_asked_for_entry_interrupts(void **state)
{
	static const u16 starts[] = { 0, 1, 100, 0x7fff, 0x8000, 65520, 65533, 65534, 65535 };

	(void)state;
	for (unsigned s = 0; s < ARRAY_SIZE(starts); s++)
		for (u16 n = 0; n <= 16; n++)
			for (int e = -3; e <= 20; e++)
				assert_int_equal(signals(starts[s], n, (u16)(starts[s] + e)),
						 e >= 0 && e < n);
}

/* ---- races -------------------------------------------------------------------------------- */

static void *used_page;

/* The store to avail_event faults; in that very moment the driver adds an entry. */
static void add_while_asking(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	if (info->si_addr < used_page || info->si_addr >= (void *)((u8 *)used_page + 4096))
		abort();
	mprotect(used_page, 4096, PROT_READ | PROT_WRITE);
	ring_offer(&ring, 1);
}

static void an_entry_that_comes_while_asking_is_seen(void **state)
{
	struct sigaction action = { .sa_sigaction = add_while_asking, .sa_flags = SA_SIGINFO }, old;

	(void)state;
	sigaction(SIGSEGV, &action, &old);
	for (int event_idx = 0; event_idx < 2; event_idx++) {
		start(8, event_idx);
		ring_set(&ring, 1, BUFFER, 4, 0, 0);
		used_page = mem_at(&mem, ring.used_gpa, 4096);
		assert_int_equal(mprotect(used_page, 4096, PROT_READ), 0);
		assert_int_equal(vq_pop(&vq, &chain), 1);
	}
	sigaction(SIGSEGV, &old, NULL);
}

static _Atomic bool stop;

/* A guest that changes a descriptor under the device's hands. */
static void *flip(void *arg)
{
	struct ring_desc *d = ring_desc(&ring);

	(void)arg;
	while (!stop) {
		WRITE_ONCE(d->len, 0xffffffff);
		WRITE_ONCE(d->addr, MIB(2) - 4);
		WRITE_ONCE(d->flags, R_WRITE | R_NEXT);
		WRITE_ONCE(d->next, 0xffff);
		WRITE_ONCE(d->next, 1);
		WRITE_ONCE(d->flags, R_WRITE);
		WRITE_ONCE(d->addr, BUFFER);
		WRITE_ONCE(d->len, 16);
	}
	return NULL;
}

static void *flip_index(void *arg)
{
	(void)arg;
	while (!stop) {
		WRITE_ONCE(ring_avail(&ring)[1], 0x100);
		WRITE_ONCE(ring_avail(&ring)[1], 0xff);
	}
	return NULL;
}

static void the_index_is_never_seen_torn(void **state)
{
	pthread_t guest;

	(void)state;
	start(128, false);
	ring_start_at(&ring, &vq, 0xff);
	ring_avail(&ring)[2 + 0xff % 128] = 0;
	stop = false;
	pthread_create(&guest, NULL, flip_index, NULL);
	for (unsigned i = 0; i < 1000000; i++) {
		int r = vq_pop(&vq, &chain);

		assert_true(r >= 0); /* half of each value would be far ahead */
		if (r > 0)
			vq_unpop(&vq, &chain);
	}
	stop = true;
	pthread_join(guest, NULL);
}

static void a_changing_descriptor_is_read_once(void **state)
{
	u8 *low = mem.region[0].host;
	pthread_t guest;

	(void)state;
	start(128, false);
	ring_set(&ring, 1, BUFFER, 1, R_WRITE, 0);
	ring_offer(&ring, 0);
	stop = false;
	pthread_create(&guest, NULL, flip, NULL);
	for (unsigned i = 0; i < 300000; i++) {
		int r = vq_pop(&vq, &chain);

		for (unsigned s = 0; r > 0 && s < chain.n_iov; s++) {
			u64 off = (u64)((u8 *)chain.iov[s].iov_base - low);

			assert_true(range_ok(off, chain.iov[s].iov_len, mem.size));
		}
		if (r > 0)
			vq_unpop(&vq, &chain);
		vq.broken = NULL;
	}
	stop = true;
	pthread_join(guest, NULL);
}

/*
 * Driver and device on two threads, each asleep whenever the event index allows it. A lost wake-up
 * shows as a sleep that does not end. A small ring and many rounds: the indices wrap six times.
 */
#define ROUNDS	   400000u
#define LOST_AFTER 10000 /* ms */

static int kick_fd, irq_fd;

static bool sleep_on(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	u64 count;

	return poll(&p, 1, LOST_AFTER) == 1 && read(fd, &count, 8) == 8;
}

static void wake(int fd)
{
	u64 one = 1;

	if (write(fd, &one, 8) != 8)
		abort();
}

static void *drive(void *lost)
{
	u32 offered = 0, done = 0;

	while (done < ROUNDS) {
		u16 old = ring.avail_idx, used;

		while (offered < ROUNDS && offered - done < ring.size)
			ring_offer(&ring, (u16)(offered++ % ring.size));
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if ((u16)(ring.avail_idx - READ_ONCE(*ring_avail_event(&ring)) - 1) <
		    (u16)(ring.avail_idx - old))
			wake(kick_fd);
		WRITE_ONCE(*ring_used_event(&ring), ring.seen);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (ring_used_idx(&ring) == ring.seen && !sleep_on(irq_fd)) {
			*(const char **)lost = "the driver sleeps for ever";
			break;
		}
		used = ring_used_idx(&ring);
		done += (u16)(used - ring.seen);
		ring.seen = used;
	}
	stop = true;
	wake(kick_fd);
	return NULL;
}

static void no_wake_up_is_lost(void **state)
{
	const char *lost = NULL;
	pthread_t driver;

	(void)state;
	start(4, true);
	for (u16 i = 0; i < 4; i++)
		ring_set(&ring, i, BUFFER, 8, R_WRITE, 0);
	kick_fd = eventfd(0, 0);
	irq_fd = eventfd(0, 0);
	stop = false;
	pthread_create(&driver, NULL, drive, &lost);
	while (!stop) {
		while (vq_pop(&vq, &chain) > 0) {
			vq_push(&vq, &chain);
			if (vq_should_signal(&vq))
				wake(irq_fd);
		}
		if (vq.broken || !sleep_on(kick_fd))
			break;
	}
	pthread_join(driver, NULL);
	assert_null(vq.broken);
	assert_null(lost);
	close(kick_fd);
	close(irq_fd);
}

/*
 * The same holes, in lockstep: in each round both sides ask and look at the same moment. Whatever
 * the order, one of them must see the other. This is where a missing full barrier shows, because
 * the processor may let the look overtake the request.
 */
#define DUELS 200000u

static _Atomic u32 called, answered;
static _Atomic bool guest_kicks, guest_sees;

static void wait_for(_Atomic u32 *round, u32 value)
{
	for (unsigned spins = 0; *round != value; spins++)
		if (spins > 1000) /* the other side may want this processor */
			sched_yield();
}

static void dither(u32 round, u32 prime)
{
	for (volatile u32 i = round % prime; i; i--)
		;
}

static void *duel(void *arg)
{
	(void)arg;
	for (u32 round = 1; round <= 2 * DUELS; round++) {
		wait_for(&called, round);
		dither(round, 37);
		if (round % 2) { /* an entry, and whether to kick */
			ring_offer(&ring, 0);
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
			guest_kicks =
				(u16)(READ_ONCE(*ring_avail_event(&ring)) + 1) == ring.avail_idx;
		} else { /* whether there is an entry, before going to sleep */
			WRITE_ONCE(*ring_used_event(&ring), ring.seen);
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
			guest_sees = ring_used_idx(&ring) != ring.seen;
			ring.seen++;
		}
		answered = round;
	}
	return NULL;
}

static void one_of_two_who_ask_and_look_sees_the_other(void **state)
{
	unsigned missed_kicks = 0, missed_interrupts = 0;
	pthread_t guest;
	bool signal;
	int r;

	(void)state;
	start(4, true);
	ring_set(&ring, 0, BUFFER, 8, R_WRITE, 0);
	called = answered = 0;
	pthread_create(&guest, NULL, duel, NULL);
	for (u32 round = 1; round <= 2 * DUELS;) {
		called = round;
		dither(round, 41);
		r = vq_pop(&vq, &chain);
		wait_for(&answered, round++);
		missed_kicks += r == 0 && !guest_kicks;
		if (r == 0)
			r = vq_pop(&vq, &chain);
		if (r != 1)
			abort();

		called = round;
		dither(round, 41);
		vq_push(&vq, &chain);
		signal = vq_should_signal(&vq);
		wait_for(&answered, round++);
		missed_interrupts += !signal && !guest_sees;
	}
	pthread_join(guest, NULL);
	assert_int_equal(missed_kicks, 0);
	assert_int_equal(missed_interrupts, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_event_index_a_flag_asks_for_interrupts),
		cmocka_unit_test(without_event_index_a_flag_asks_for_kicks),
		cmocka_unit_test(with_event_index_an_empty_queue_asks_for_the_next_entry),
		cmocka_unit_test(with_event_index_the_asked_for_entry_interrupts),
		cmocka_unit_test(an_entry_that_comes_while_asking_is_seen),
		cmocka_unit_test(a_changing_descriptor_is_read_once),
		cmocka_unit_test(the_index_is_never_seen_torn),
		cmocka_unit_test(no_wake_up_is_lost),
		cmocka_unit_test(one_of_two_who_ask_and_look_sees_the_other),
	};

	return cmocka_run_group_tests(tests, make_memory, drop_memory);
}
