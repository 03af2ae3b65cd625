/* The network card: its rings, its control queue, frames that come in between. */
#include "src/virtio/net.h"
#include "tests/fuzz/virtio.h"

#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static int wire;

/* The tap's other side sends a frame, or takes what there is. */
static void traffic(struct guest *g)
{
	static u8 frame[66000];
	u64 what = take(g, 2);

	if (what & 1)
		while (recv(wire, frame, sizeof frame, MSG_DONTWAIT) > 0)
			;
	else
		(void)!send(wire, frame, what, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct guest guest;
	struct loop *loop = guest_begin(&guest, data, size);
	u64 kind = take(&guest, 1);
	struct net_config cfg = { .id = "eth0", .queue_pairs = kind & 1 ? 3 : 1, .mtu = 1500 };
	struct net *net;
	struct err err;
	int pair[2];

	REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) == 0);
	wire = pair[1];
	for (unsigned i = 0; i < cfg.queue_pairs; i++)
		cfg.fd[i] = i ? dup(pair[0]) : pair[0];
	if (kind & 2)
		cfg.tx_limit.ops = (struct limit_bucket){ 3, 0, 1, .given = true };
	REQUIRE(net_create(&net, &cfg, &guest.mem, loop, &err) == 0);
	guest_attach(&guest, net_device(net));
	guest.backend = traffic;
	guest_run(&guest);
	net_destroy(net);
	for (unsigned i = 0; i < cfg.queue_pairs; i++)
		close(cfg.fd[i]);
	close(wire);
	return 0;
}
