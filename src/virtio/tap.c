/* tap: see tap.h. */
#include "tap.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

/* Linux 6.2 */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

static int fail_open(struct err *err, int errnum, const char *name)
{
	return fail(
		err, -errnum,
		"Open tap device failed: Error while creating ifreq structure: " OS_ERR
		". Invalid TUN/TAP Backend provided by %s. Check our documentation on setting up "
		"the network devices.",
		OS_ERR_ARGS(errnum), name);
}

int tap_open(const char *name, bool multi, struct err *err)
{
	CLEANUP_FD int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int header = TAP_HEADER;

	if (fd < 0)
		return fail(err, -errno,
			    "Open tap device failed: Couldn't open /dev/net/tun: " OS_ERR,
			    OS_ERR_ARGS(errno));
	/* An empty name would have the kernel make one up, and one with a % a whole series. */
	if (!*name || strlen(name) > TAP_NAME_MAX || strchr(name, '%'))
		return fail_open(err, EINVAL, name);
	memcpy(ifr.ifr_name, name, strlen(name) + 1);
	if (multi)
		ifr.ifr_flags |= IFF_MULTI_QUEUE;
	if (ioctl(fd, TUNSETIFF, &ifr) < 0)
		return fail_open(err, errno, name);
	if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 || tap_offload(fd, 0) < 0)
		return fail(err, -errno,
			    "Open tap device failed: %s does not do virtio headers: " OS_ERR, name,
			    OS_ERR_ARGS(errno));
	return steal_fd(&fd);
}

int tap_offload(int fd, unsigned offloads)
{
	static const struct {
		enum tap_offload ours;
		unsigned theirs;
	} bits[] = {
		{ TAP_CHECKSUM, TUN_F_CSUM }, { TAP_TSO4, TUN_F_TSO4 },
		{ TAP_TSO6, TUN_F_TSO6 },     { TAP_ECN, TUN_F_TSO_ECN },
		{ TAP_UFO, TUN_F_UFO },	      { TAP_USO, TUN_F_USO4 | TUN_F_USO6 },
	};
	unsigned long flags = 0;

	for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
		if (offloads & bits[i].ours)
			flags |= bits[i].theirs;
	return ioctl(fd, TUNSETOFFLOAD, flags) < 0 ? -errno : 0;
}

int tap_attach(int fd, bool attached)
{
	struct ifreq ifr = { .ifr_flags = attached ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE };

	return ioctl(fd, TUNSETQUEUE, &ifr) < 0 ? -errno : 0;
}
