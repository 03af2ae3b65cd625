/*
 * loop: the one thread that does the monitor's work, and the machine lock.
 *
 * An epoll loop. Each source is an fd with a callback, embedded by value in its owner; the loop
 * holds the machine lock while a callback runs. vCPU threads take the same lock round an exit
 * (loop_lock), so code behind either dispatcher never locks anything itself.
 *
 * All functions are for the loop thread, or for any thread before loop_run() is entered; the
 * exceptions (loop_call, loop_lock and its two companions) say so.
 */
#ifndef LOOP_H
#define LOOP_H

#include "base.h"
#include "err.h"

#include <pthread.h>

struct loop_source {
	int fd;			/* owned by whoever embeds the source; -1 when not in a loop */
	u32 events;		/* EPOLLIN etc; level triggered, or with EPOLLET once an edge */
	void (*ready)(void *owner, u32 events);
	void *owner;
};

/* A function to run on the loop thread; embedded in its owner, pending at most once at a time. */
struct loop_work {
	void (*run)(void *owner);
	void *owner;
	struct loop_work *next;
	bool pending;
};

/* A one-shot or repeating timer on CLOCK_MONOTONIC. */
struct loop_timer {
	struct loop_source source;
	void (*expired)(void *owner);
	void *owner;
};

struct loop;

int loop_create(struct loop **loop, struct err *err) MUST_CHECK;
void loop_destroy(struct loop *loop);

/* `source` must stay where it is until loop_del(). A source may be deleted from any callback. */
int loop_add(struct loop *loop, struct loop_source *source) MUST_CHECK;
int loop_mod(struct loop *loop, struct loop_source *source, u32 events);
void loop_del(struct loop *loop, struct loop_source *source);

/* The timer starts disarmed. loop_timer_set(.., 0, 0) disarms it. Nanoseconds. */
int loop_timer_init(struct loop *loop, struct loop_timer *timer) MUST_CHECK;
void loop_timer_set(struct loop_timer *timer, u64 first_ns, u64 every_ns);
void loop_timer_destroy(struct loop *loop, struct loop_timer *timer);

/*
 * Any thread, also under the machine lock, also from a vCPU: makes work->run(owner) happen on the
 * loop thread soon. If it is pending already it still runs once. Costs a futex-free store and, when
 * the list was empty, one eventfd write.
 */
void loop_call(struct loop *loop, struct loop_work *work);

/* Takes back a call that has not run yet. */
void loop_uncall(struct loop *loop, struct loop_work *work);

/* Runs until loop_stop(); returns the code given to it. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop, int code);

/* Any thread: the machine lock, for dispatchers only (loop.c itself, vcpu.c). Not recursive. */
void loop_lock(struct loop *loop);
void loop_unlock(struct loop *loop);

/* Holding the machine lock: gives it up until `cond` is signalled, and holds it again on return. */
void loop_wait(struct loop *loop, pthread_cond_t *cond);

/* CLOCK_MONOTONIC in nanoseconds, any thread. */
u64 loop_now_ns(void);

#endif
