/*
 * rng: see rng.h. Knows chains and getrandom(2).
 *
 * Invariant: a request costs the host at most REQUEST_MAX bytes of randomness and no memory at all,
 * whatever lengths the guest names: the bytes are made in place, in the guest's own buffers.
 */
#include "rng.h"
#include "throttle.h"

#include <stdlib.h>
#include <sys/random.h>

#define REQUEST_MAX KIB(64)
#define REQUEST_MIN KIB(1)   /* what the smallest request counts as */
#define TURN_MAX    KIB(128) /* per turn of the loop: well under a millisecond of its time */

struct rng {
	struct device dev;
	struct vq vq[1];
	struct throttle throttle;
};

/* Randomness into guest memory. False: the host gave none, which a pool once filled never does. */
static bool fill(u8 *to, size_t len)
{
	while (len) {
		ssize_t n = getrandom(to, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		to += n;
		len -= (size_t)n;
	}
	return true;
}

static u32 wanted(const struct chain *chain)
{
	return (u32)MIN(chain->write_left, REQUEST_MAX);
}

/* A readable part is none of our business (5.4.6: the driver must not send one); it is ignored. */
static void serve(struct chain *chain)
{
	u32 want = wanted(chain);
	SCRATCH struct iovec iov[CHAIN_IOV_MAX];
	int n = chain_write_iov(chain, want, iov, CHAIN_IOV_MAX);

	for (int i = 0; i < n; i++)
		if (!fill(iov[i].iov_base, iov[i].iov_len) ||
		    !chain_skip_write(chain, (u32)iov[i].iov_len))
			break;
}

static void rng_notify(struct device *dev, unsigned q)
{
	struct rng *rng = container_of(dev, struct rng, dev);
	struct vq *vq = &dev->vq[q];
	SCRATCH struct chain chain;
	u64 turn = 0;

	while (turn < TURN_MAX && vq_pop(vq, &chain) > 0) {
		if (!throttle_take(&rng->throttle, 1, wanted(&chain))) {
			vq_unpop(vq, &chain);
			break;
		}
		serve(&chain);
		vq_push(vq, &chain);
		turn += MAX(chain.written, REQUEST_MIN);
	}
	device_signal_queue(dev, q);
	/* A guest that never stops asking does not keep the loop from the other devices. */
	if (turn >= TURN_MAX)
		device_wake(dev, q);
}

static const struct device_type rng_type = {
	.name = "entropy",
	.virtio_id = 4,
	.notify = rng_notify,
};

int rng_create(struct rng **out, const struct mem *mem, struct loop *loop, struct err *err)
{
	struct rng *rng;
	u8 probe;
	int r;

	*out = NULL;
	/* Only before the host's pool is filled for the first time can getrandom() block. */
	if (getrandom(&probe, 1, GRND_NONBLOCK) != 1)
		return fail(err, -errno, "the host has no randomness to give yet: " OS_ERR,
			    OS_ERR_ARGS(errno));
	rng = calloc(1, sizeof *rng);
	if (!rng)
		return fail(err, -ENOMEM, "no memory for the entropy device");
	rng->vq[0].size_max = VQ_SIZE_MAX;
	rng->dev = (struct device){
		.type = &rng_type, .id = "rng", .vq = rng->vq, .n_queues = ARRAY_SIZE(rng->vq)
	};
	r = device_init(&rng->dev, mem, loop, err);
	if (r < 0) {
		free(rng);
		return r;
	}
	r = throttle_init(&rng->throttle, &rng->dev, 0, 0, err);
	if (r < 0) {
		rng_destroy(rng);
		return r;
	}
	*out = rng;
	return 0;
}

void rng_destroy(struct rng *rng)
{
	if (!rng)
		return;
	throttle_destroy(&rng->throttle);
	device_destroy(&rng->dev);
	free(rng);
}

struct device *rng_device(struct rng *rng)
{
	return &rng->dev;
}

void rng_limit(struct rng *rng, const struct limit_config *limit)
{
	throttle_patch(&rng->throttle, limit);
}
