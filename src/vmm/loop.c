/*
 * loop: see loop.h.
 *
 * Invariant: a callback is only entered with the machine lock held, and never for a source that was
 * deleted, not even one deleted by an earlier callback of the same batch: deletion clears the slot
 * that the batch has still to visit.
 */
#include "loop.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>

#define BATCH 32

struct loop {
	int epoll_fd;
	bool stopped;
	int code;
	pthread_mutex_t machine;
	struct epoll_event batch[BATCH];
	int n_batch;

	/* loop_call(): a list under a lock of its own, so that it works under the machine lock. */
	pthread_mutex_t calls_lock;
	struct loop_work *calls, **calls_end;
	struct loop_source wake; /* eventfd */
};

u64 loop_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000000000u + (u64)ts.tv_nsec;
}

/* One at a time, so that a callback may take back those behind it. */
static struct loop_work *take_call(struct loop *loop)
{
	struct loop_work *work;

	pthread_mutex_lock(&loop->calls_lock);
	work = loop->calls;
	if (work) {
		loop->calls = work->next;
		if (!loop->calls)
			loop->calls_end = &loop->calls;
		work->pending = false;
	}
	pthread_mutex_unlock(&loop->calls_lock);
	return work;
}

static void run_calls(void *owner, u32 events)
{
	struct loop *loop = owner;
	struct loop_work *work;
	u64 count;

	(void)events;
	if (read(loop->wake.fd, &count, sizeof count) < 0)
		return;
	while ((work = take_call(loop)) && !loop->stopped)
		work->run(work->owner);
}

void loop_uncall(struct loop *loop, struct loop_work *work)
{
	struct loop_work **at;

	pthread_mutex_lock(&loop->calls_lock);
	for (at = &loop->calls; *at && *at != work; at = &(*at)->next)
		;
	if (*at) {
		*at = work->next;
		if (!*at)
			loop->calls_end = at;
		work->pending = false;
	}
	pthread_mutex_unlock(&loop->calls_lock);
}

void loop_call(struct loop *loop, struct loop_work *work)
{
	const u64 one = 1;
	bool first;

	pthread_mutex_lock(&loop->calls_lock);
	if (work->pending) {
		pthread_mutex_unlock(&loop->calls_lock);
		return;
	}
	first = !loop->calls;
	work->pending = true;
	work->next = NULL;
	*loop->calls_end = work;
	loop->calls_end = &work->next;
	pthread_mutex_unlock(&loop->calls_lock);
	if (first && write(loop->wake.fd, &one, sizeof one) < 0)
		assert(errno == EAGAIN); /* the counter is full: a wake-up is pending anyway */
}

int loop_create(struct loop **out, struct err *err)
{
	struct loop *loop = calloc(1, sizeof *loop);
	int r;

	*out = NULL;
	if (!loop)
		return fail(err, -ENOMEM, "no memory for the event loop");
	pthread_mutex_init(&loop->machine, NULL);
	pthread_mutex_init(&loop->calls_lock, NULL);
	loop->calls_end = &loop->calls;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->wake = (struct loop_source){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
					   .events = EPOLLIN,
					   .ready = run_calls,
					   .owner = loop };
	r = loop->epoll_fd < 0 || loop->wake.fd < 0 ? -errno : loop_add(loop, &loop->wake);
	if (r < 0) {
		loop_destroy(loop);
		return fail(err, r, "cannot make the event loop: " OS_ERR, OS_ERR_ARGS(-r));
	}
	*out = loop;
	return 0;
}

void loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	if (loop->wake.fd >= 0)
		close(loop->wake.fd);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	free(loop);
}

int loop_add(struct loop *loop, struct loop_source *source)
{
	struct epoll_event ev = { .events = source->events, .data.ptr = source };

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &ev) < 0 ? -errno : 0;
}

int loop_mod(struct loop *loop, struct loop_source *source, u32 events)
{
	struct epoll_event ev = { .events = events, .data.ptr = source };

	source->events = events;
	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &ev) < 0 ? -errno : 0;
}

void loop_del(struct loop *loop, struct loop_source *source)
{
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	for (int i = 0; i < loop->n_batch; i++)
		if (loop->batch[i].data.ptr == source)
			loop->batch[i].data.ptr = NULL;
}

static void timer_ready(void *owner, u32 events)
{
	struct loop_timer *timer = owner;
	u64 count;

	(void)events;
	/* A timer set anew since it fired has nothing to read: that firing is void. */
	if (read(timer->source.fd, &count, sizeof count) == sizeof count)
		timer->expired(timer->owner);
}

int loop_timer_init(struct loop *loop, struct loop_timer *timer)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), r;

	if (fd < 0)
		return -errno;
	timer->source = (struct loop_source){
		.fd = fd, .events = EPOLLIN, .ready = timer_ready, .owner = timer
	};
	r = loop_add(loop, &timer->source);
	if (r < 0) {
		close(fd);
		timer->source.fd = -1;
	}
	return r;
}

static struct timespec to_timespec(u64 ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / 1000000000u),
				  .tv_nsec = (long)(ns % 1000000000u) };
}

void loop_timer_set(struct loop_timer *timer, u64 first_ns, u64 every_ns)
{
	struct itimerspec spec = { .it_value = to_timespec(first_ns),
				   .it_interval = to_timespec(every_ns) };
	int r = timerfd_settime(timer->source.fd, 0, &spec, NULL);

	assert(r == 0);
	(void)r;
}

void loop_timer_destroy(struct loop *loop, struct loop_timer *timer)
{
	if (timer->source.fd < 0)
		return;
	loop_del(loop, &timer->source);
	close(timer->source.fd);
	timer->source.fd = -1;
}

void loop_lock(struct loop *loop)
{
	pthread_mutex_lock(&loop->machine);
}

void loop_unlock(struct loop *loop)
{
	pthread_mutex_unlock(&loop->machine);
}

void loop_wait(struct loop *loop, pthread_cond_t *cond)
{
	pthread_cond_wait(cond, &loop->machine);
}

void loop_stop(struct loop *loop, int code)
{
	loop->stopped = true;
	loop->code = code;
}

static void dispatch(struct loop *loop)
{
	loop_lock(loop);
	for (int i = 0; i < loop->n_batch && !loop->stopped; i++) {
		struct loop_source *source = loop->batch[i].data.ptr;

		if (source)
			source->ready(source->owner, loop->batch[i].events);
	}
	loop->n_batch = 0;
	loop_unlock(loop);
}

int loop_run(struct loop *loop)
{
	while (!loop->stopped) {
		int n = epoll_wait(loop->epoll_fd, loop->batch, BATCH, -1);

		assert(n >= 0 || errno == EINTR);
		loop->n_batch = MAX(n, 0);
		dispatch(loop);
	}
	loop->stopped = false;
	return loop->code;
}
