/*
 * config: see config.h. The rules; how a request looks in JSON is in schema.c.
 *
 * Shape of every put: check, open, store. Nothing before the last step changes the configuration,
 * and the last step cannot fail.
 */
#include "config.h"

#include "../virtio/disk.h"

#include <ctype.h>

#define DEFAULT_VCPUS	1
#define DEFAULT_MEM_MIB 128
#define MEM_MIB_MAX	(1ull << 32) /* 52 bits of guest physical address */

static void close_fd(int *fd)
{
	cleanup_fd_fn(fd);
	*fd = -1;
}

static void close_taps(struct net_config *net)
{
	for (unsigned i = 0; i < NET_PAIRS_MAX; i++)
		close_fd(&net->fd[i]);
}

void config_init(struct config *cfg)
{
	/* The rest is zero already or not looked at yet: most of the drives' pages stay untouched.
	 */
	cfg->machine =
		(struct machine_config){ .vcpu_count = DEFAULT_VCPUS,
					 .mem_mib = DEFAULT_MEM_MIB,
					 .huge_pages = MEM_PAGES_4K,
					 .pages_given = true };
	cfg->boot.kernel_fd = -1;
	cfg->boot.initrd_fd = -1;
	cfg->vsock.vsock.listen_fd = cfg->vsock.vsock.seq_fd = -1;
	cfg->n_drives = cfg->n_nets = 0;
}

void config_destroy(struct config *cfg)
{
	close_fd(&cfg->boot.kernel_fd);
	close_fd(&cfg->boot.initrd_fd);
	for (unsigned i = 0; i < cfg->n_drives; i++)
		close_fd(&cfg->drives[i].blk.fd);
	cfg->n_drives = 0;
	for (unsigned i = 0; i < cfg->n_nets; i++)
		close_taps(&cfg->nets[i].net);
	cfg->n_nets = 0;
	vsock_unlisten(&cfg->vsock.vsock);
}

void config_forget(struct config *cfg)
{
	struct serial_config serial = cfg->serial;
	bool boot_timer = cfg->boot_timer, boot_specific = cfg->boot_specific;

	config_destroy(cfg);
	memset(cfg, 0, sizeof *cfg);
	config_init(cfg);
	cfg->serial = serial;
	cfg->boot_timer = boot_timer;
	cfg->boot_specific = boot_specific;
}

/* ---- machine ------------------------------------------------------------------------------ */

void config_machine_defaults(const struct config *cfg, struct machine_config *machine)
{
	*machine = (struct machine_config){ .vcpu_count = DEFAULT_VCPUS,
					    .mem_mib = DEFAULT_MEM_MIB,
					    .huge_pages = MEM_PAGES_4K,
					    .cpu_template = cfg->machine.cpu_template };
}

int config_put_machine(struct config *cfg, const struct machine_config *req, struct err *err)
{
	if (req->vcpu_count < 1 || req->vcpu_count > CONFIG_VCPUS_MAX ||
	    (req->smt && req->vcpu_count > 1 && req->vcpu_count % 2))
		return fail(err, -EINVAL,
			    "Machine config error: The number of vCPUs must be greater than 0, "
			    "less than "
			    "32 and must be 1 or an even number if SMT is enabled.");
	if (!req->mem_mib || (req->huge_pages != MEM_PAGES_4K && req->mem_mib % 2))
		return fail(err, -EINVAL,
			    "Machine config error: The memory size (MiB) is either 0, or not a "
			    "multiple "
			    "of the configured page size.");
	if (req->mem_mib > MEM_MIB_MAX)
		return fail(
			err, -EINVAL,
			"Machine config error: The memory size (MiB) is larger than %llu, the most "
			"that a guest can address.",
			MEM_MIB_MAX);
	if (req->shareable && req->huge_pages == MEM_PAGES_2M)
		return fail(err, -EINVAL,
			    "Machine config error: shareable memory is of ordinary pages, not of huge_pages "
			    "2M.");
	if (cfg->balloon.present && req->mem_mib < cfg->balloon.balloon.amount_mib)
		return fail(err, -EINVAL,
			    "Machine config error: The memory size (MiB) is smaller than the previously set "
			    "balloon device target size.");
	if (req->template_given && req->cpu_template != CONFIG_TEMPLATE_NONE)
		log_warn("cpu_template is kept and shown, but not applied yet.");
	cfg->machine = *req;
	cfg->machine.pages_chosen = req->pages_given;
	cfg->machine.pages_given = true;
	cfg->machine.template_given = req->cpu_template != CONFIG_TEMPLATE_NONE;
	return 0;
}

/* ---- boot source -------------------------------------------------------------------------- */

static int check_args(const char *args, struct err *err)
{
	for (; *args; args++)
		if (*args < ' ' || *args > '~')
			return fail(err, -EINVAL,
				    "Boot source error: The kernel command line is invalid: String "
				    "contains a non-printable ASCII character.");
	return 0;
}

int config_put_boot(struct config *cfg, const struct boot_config *req, struct err *err)
{
	CLEANUP_FD int kernel = -1;
	CLEANUP_FD int initrd = -1;

	if (check_args(req->args, err) < 0)
		return -EINVAL;
	kernel = boot_open(BOOT_KERNEL, req->kernel_path, err);
	if (kernel < 0)
		return fail_prefix(err, kernel, "Boot source error: ");
	if (req->initrd_path[0]) {
		initrd = boot_open(BOOT_INITRD, req->initrd_path, err);
		if (initrd < 0)
			return fail_prefix(err, initrd, "Boot source error: ");
	}
	close_fd(&cfg->boot.kernel_fd);
	close_fd(&cfg->boot.initrd_fd);
	cfg->boot = *req;
	cfg->boot.kernel_fd = steal_fd(&kernel);
	cfg->boot.initrd_fd = steal_fd(&initrd);
	return 0;
}

/* ---- limits ------------------------------------------------------------------------------- */

static void accept_bucket(struct limit_bucket *bucket)
{
	if (!bucket->given || !bucket->size || !bucket->refill_ms)
		*bucket = (struct limit_bucket){ 0 };
}

void config_accept_limit(struct limit_config *limit)
{
	accept_bucket(&limit->bandwidth);
	accept_bucket(&limit->ops);
	limit->given = limit->bandwidth.given || limit->ops.given;
}

/* ---- drives ------------------------------------------------------------------------------- */

int config_check_id(const char *id, struct err *err)
{
	if (!*id)
		return fail(err, -EINVAL, "The ID cannot be empty.");
	for (; *id; id++)
		if (!isalnum((unsigned char)*id) && *id != '_')
			return fail(err, -EINVAL,
				    "API Resource IDs can only contain alphanumeric characters and "
				    "underscores.");
	return 0;
}

struct drive_config *config_find_drive(struct config *cfg, const char *id)
{
	for (unsigned i = 0; i < cfg->n_drives; i++)
		if (strcmp(cfg->drives[i].blk.id, id) == 0)
			return &cfg->drives[i];
	return NULL;
}

/* Every virtio device takes one window and one line: all kinds draw on the same number. */
static unsigned count_devices(const struct config *cfg)
{
	return cfg->n_drives + cfg->n_nets + cfg->vsock.present +
	       cfg->balloon.present + cfg->entropy.present;
}

static int check_room(const struct config *cfg, const char *what, struct err *err)
{
	if (count_devices(cfg) < LAYOUT_DEVICES_MAX)
		return 0;
	return fail(err, -ENOSPC, "%s config error: Too many devices: the machine has room for %u.",
		    what, LAYOUT_DEVICES_MAX);
}

/* Which backend the fields describe; contract 1.4. */
static int check_backend(const struct drive_config *req, struct err *err)
{
	bool virtio_field =
		req->path_given || req->read_only_given || req->engine_given || req->limit.given;

	if (req->socket_given && !virtio_field)
		return fail(err, -EINVAL,
			    "Drive config error: Unable to create the virtio block device: "
			    "vhost-user drives "
			    "(`socket`) are not supported yet.");
	if (req->socket_given || !req->path_given)
		return fail(err, -EINVAL,
			    "Drive config error: Unable to create the virtio block device: Invalid "
			    "block "
			    "config.");
	return 0;
}

static int check_place(const struct config *cfg, const struct drive_config *req, bool is_new,
		       struct err *err)
{
	const struct blk_config *first = &cfg->drives[0].blk;

	if (req->blk.is_root && cfg->n_drives && first->is_root &&
	    strcmp(first->id, req->blk.id) != 0)
		return fail(err, -EEXIST,
			    "Drive config error: A root block device already exists!");
	return is_new ? check_room(cfg, "Drive", err) : 0;
}

/* The root is first, and stays so: vda is what `root=` falls back to. */
static void move_to_front(struct config *cfg, struct drive_config *drive)
{
	struct drive_config root = *drive;

	memmove(&cfg->drives[1], &cfg->drives[0], (size_t)(drive - cfg->drives) * sizeof root);
	cfg->drives[0] = root;
}

int config_put_drive(struct config *cfg, const struct drive_config *req, struct err *err)
{
	struct drive_config *drive = config_find_drive(cfg, req->blk.id);
	CLEANUP_FD int fd = -1;

	if (config_check_id(req->blk.id, err) < 0 || check_backend(req, err) < 0 ||
	    check_place(cfg, req, !drive, err) < 0)
		return -EINVAL;
	fd = disk_open(req->blk.path, req->blk.read_only, err);
	if (fd < 0)
		return fail_prefix(err, fd,
				   "Drive config error: Unable to create the virtio block device: "
				   "Virtio backend error: Error manipulating the backing file: ");
	if (drive)
		close_fd(&drive->blk.fd);
	else
		drive = &cfg->drives[cfg->n_drives++];
	*drive = *req;
	drive->blk.fd = steal_fd(&fd);
	drive->read_only_given = drive->engine_given =
		true; /* shown with their defaults from now on */
	config_accept_limit(&drive->limit);
	if (drive->blk.is_root && drive != cfg->drives)
		move_to_front(cfg, drive);
	return 0;
}

/* ---- network interfaces -------------------------------------------------------------------- */

struct net_request *config_find_net(struct config *cfg, const char *id)
{
	for (unsigned i = 0; i < cfg->n_nets; i++)
		if (strcmp(cfg->nets[i].net.id, id) == 0)
			return &cfg->nets[i];
	return NULL;
}

/* Six pairs of hexadecimal digits and colons; the text becomes lower case. */
static int parse_mac(char text[CONFIG_MAC_TEXT + 1], u8 mac[NET_MAC_LEN])
{
	static const char digits[] = "0123456789abcdef";

	if (strlen(text) != CONFIG_MAC_TEXT)
		return -EINVAL;
	for (int i = 0; i < CONFIG_MAC_TEXT; i++) {
		const char *digit;

		text[i] = (char)tolower((unsigned char)text[i]);
		digit = strchr(digits, text[i]);
		if (i % 3 == 2 ? text[i] != ':' : !digit)
			return -EINVAL;
		if (i % 3 != 2)
			mac[i / 3] = (u8)(mac[i / 3] << 4 | (digit - digits));
	}
	return 0;
}

/* Everything that can be said without opening the tap. */
static int check_net(const struct config *cfg, struct net_request *net, struct err *err)
{
	if (config_check_id(net->net.id, err) < 0)
		return -EINVAL;
	if (net->mtu_given && (net->mtu < NET_MTU_MIN || net->mtu > UINT16_MAX))
		return fail(err, -EINVAL,
			    "Network config error: MTU %u is out of range [%d, %d]", net->mtu,
			    NET_MTU_MIN, UINT16_MAX);
	if (net->pairs_given && (!net->net.queue_pairs || net->net.queue_pairs > NET_PAIRS_MAX))
		return fail(err, -EINVAL,
			    "Network config error: queue_pairs: %u is out of range [1, %d]",
			    net->net.queue_pairs, NET_PAIRS_MAX);
	if (net->net.mac_given && parse_mac(net->mac, net->net.mac) < 0)
		return fail(err, -EINVAL,
			    "Network config error: guest_mac: invalid MAC address \"%s\"", net->mac);
	for (unsigned i = 0; i < cfg->n_nets; i++)
		if (net->net.mac_given && cfg->nets[i].net.mac_given &&
		    strcmp(cfg->nets[i].net.id, net->net.id) != 0 &&
		    memcmp(cfg->nets[i].net.mac, net->net.mac, NET_MAC_LEN) == 0)
			return fail(err, -EEXIST,
				    "Network config error: The MAC address is already in use: %s",
				    net->mac);
	return 0;
}

static int open_taps(struct net_config *net, struct err *err)
{
	for (unsigned i = 0; i < net->queue_pairs; i++) {
		net->fd[i] = tap_open(net->host_dev, net->queue_pairs > 1, err);
		if (net->fd[i] < 0) {
			int r = net->fd[i];

			close_taps(net);
			return fail_prefix(err, r,
					   "Network config error: Could not create the network device: ");
		}
	}
	return 0;
}

/* The same tap as before, as often: a second opening would find it busy with our first. */
static bool can_keep_taps(const struct net_config *old, const struct net_config *new)
{
	return strcmp(old->host_dev, new->host_dev) == 0 && old->queue_pairs == new->queue_pairs;
}

/* Whoever comes again goes to the end of the list, as clients know it. */
int config_put_net(struct config *cfg, const struct net_request *req, struct err *err)
{
	struct net_request *old = config_find_net(cfg, req->net.id), new = *req;
	bool keep;
	int r = check_net(cfg, &new, err);

	if (r < 0)
		return r;
	if (!old && check_room(cfg, "Network", err) < 0)
		return -ENOSPC;
	new.net.mtu = new.mtu_given ? (u16)new.mtu : 0;
	new.net.queue_pairs = new.pairs_given ? new.net.queue_pairs : 1;
	for (unsigned i = 0; i < NET_PAIRS_MAX; i++)
		new.net.fd[i] = -1;
	keep = old && can_keep_taps(&old->net, &new.net);
	r = keep ? 0 : open_taps(&new.net, err);
	if (r < 0)
		return r;
	config_accept_limit(&new.net.rx_limit);
	config_accept_limit(&new.net.tx_limit);
	if (keep)
		memcpy(new.net.fd, old->net.fd, sizeof new.net.fd);
	else if (old)
		close_taps(&old->net);
	if (old)
		*old = cfg->nets[--cfg->n_nets];
	cfg->nets[cfg->n_nets++] = new;
	return 0;
}

/* ---- vsock, balloon, entropy, serial ---------------------------------------------------------------------- */

/*
 * The old names are given up only when the new ones are bound; the same path again keeps them, for
 * binding it anew would mean to be unreachable for a moment.
 */
int config_put_vsock(struct config *cfg, const struct vsock_request *req, struct err *err)
{
	struct vsock_request new = *req;
	const struct vsock_config *old = &cfg->vsock.vsock;
	bool keep = cfg->vsock.present && strcmp(old->uds_path, req->vsock.uds_path) == 0;
	int r = 0;

	if (req->vsock.guest_cid < 3)
		return fail(err, -EINVAL,
			    "Vsock config error: guest_cid: %u is reserved, the least is 3",
			    req->vsock.guest_cid);
	if (req->max_given && (!req->vsock.max_connections ||
			       req->vsock.max_connections > VSOCK_CONNS_MAX))
		return fail(err, -EINVAL,
			    "Vsock config error: max_connections: %u is out of range [1, %d]",
			    req->vsock.max_connections, VSOCK_CONNS_MAX);
	if (!cfg->vsock.present && check_room(cfg, "Vsock", err) < 0)
		return -ENOSPC;
	if (!req->max_given)
		new.vsock.max_connections = VSOCK_CONNS;
	new.vsock.listen_fd = old->listen_fd;
	new.vsock.seq_fd = old->seq_fd;
	if (!keep)
		r = vsock_listen(&new.vsock, err);
	if (r < 0)
		return fail_prefix(err, r,
				   "Vsock config error: Cannot create backend for vsock device: ");
	if (!keep)
		vsock_unlisten(&cfg->vsock.vsock);
	cfg->vsock = new;
	cfg->vsock.present = true;
	cfg->vsock.id_given = false;
	return 0;
}

int config_put_balloon(struct config *cfg, const struct balloon_request *req, struct err *err)
{
	if (req->balloon.amount_mib > cfg->machine.mem_mib)
		return fail(err, -EINVAL,
			    "Balloon config error: Amount of pages requested is too large.");
	if (!cfg->balloon.present && check_room(cfg, "Balloon", err) < 0)
		return -ENOSPC;
	cfg->balloon = *req;
	cfg->balloon.present = true;
	return 0;
}

int config_put_entropy(struct config *cfg, const struct entropy_config *req, struct err *err)
{
	if (!cfg->entropy.present && check_room(cfg, "Entropy", err) < 0)
		return -ENOSPC;
	cfg->entropy = *req;
	cfg->entropy.present = true;
	config_accept_limit(&cfg->entropy.limit);
	return 0;
}

int config_put_serial(struct config *cfg, const struct serial_config *req, struct err *err)
{
	(void)err;
	cfg->serial = *req;
	cfg->serial.given = true;
	accept_bucket(&cfg->serial.limit);
	return 0;
}
