/* throttle: see throttle.h. */
#include "throttle.h"

static void for_each_queue(const struct throttle *throttle, void (*tell)(struct device *, u32))
{
	unsigned q = throttle->q;

	do
		tell(throttle->dev, q);
	while (throttle->step && (q += throttle->step) < throttle->dev->n_queues);
}

static void go_on(void *owner)
{
	struct throttle *throttle = owner;

	for_each_queue(throttle, device_kick);
}

int throttle_init(struct throttle *throttle, struct device *dev, unsigned q, unsigned step,
		  struct err *err)
{
	int r;

	*throttle = (struct throttle){
		.dev = dev, .q = q, .step = step, .timer = { .source.fd = -1, .expired = go_on, .owner = throttle }
	};
	r = loop_timer_init(dev->loop, &throttle->timer);
	if (r < 0) {
		throttle->dev = NULL;
		return fail(err, r, "cannot make a timer: " OS_ERR, OS_ERR_ARGS(-r));
	}
	dev->limit[!!dev->limit[0]] = &throttle->limit;
	return 0;
}

void throttle_destroy(struct throttle *throttle)
{
	if (throttle->dev)
		loop_timer_destroy(throttle->dev->loop, &throttle->timer);
}

void throttle_patch(struct throttle *throttle, const struct limit_config *config)
{
	limit_patch(&throttle->limit, config, loop_now_ns());
	for_each_queue(throttle, device_wake);
}

bool throttle_take(struct throttle *throttle, u64 ops, u64 bytes)
{
	u64 now_ns;

	if (limit_none(&throttle->limit))
		return true;
	now_ns = loop_now_ns();
	if (limit_take(&throttle->limit, ops, bytes, now_ns))
		return true;
	throttle->held_up++;
	/* 0 would disarm it. */
	loop_timer_set(&throttle->timer,
		       MAX(limit_wait_ns(&throttle->limit, ops, bytes, now_ns), 1), 0);
	return false;
}
