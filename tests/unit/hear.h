/* hear: a kick without a loop: as there, an eventfd that was written to is told of once. */
#ifndef TEST_HEAR_H
#define TEST_HEAR_H

#include "src/virtio/device.h"

#include <sys/epoll.h>

static inline void hear_kick(struct device *dev, unsigned q)
{
	u64 count;

	if (read(dev->kick[q].fd, &count, sizeof count) == sizeof count)
		dev->kick[q].ready(dev->kick[q].owner, EPOLLIN);
}

#endif
