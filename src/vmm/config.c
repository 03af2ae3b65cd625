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
	cfg->n_drives = 0;
}

void config_destroy(struct config *cfg)
{
	close_fd(&cfg->boot.kernel_fd);
	close_fd(&cfg->boot.initrd_fd);
	for (unsigned i = 0; i < cfg->n_drives; i++)
		close_fd(&cfg->drives[i].blk.fd);
	cfg->n_drives = 0;
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

void config_accept_limit(struct limit_config *limit, const char *what)
{
	accept_bucket(&limit->bandwidth);
	accept_bucket(&limit->ops);
	limit->given = limit->bandwidth.given || limit->ops.given;
	if (limit->given)
		log_warn("The rate limit of %s is kept and shown, but not enforced yet.", what);
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
	unsigned max = CONFIG_DRIVES_MAX - cfg->entropy.present;

	if (req->blk.is_root && cfg->n_drives && first->is_root &&
	    strcmp(first->id, req->blk.id) != 0)
		return fail(err, -EEXIST,
			    "Drive config error: A root block device already exists!");
	if (is_new && cfg->n_drives >= max)
		return fail(
			err, -ENOSPC,
			"Drive config error: Too many devices: the machine has room for %u drives.",
			max);
	return 0;
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
	config_accept_limit(&drive->limit, req->blk.id);
	if (drive->blk.is_root && drive != cfg->drives)
		move_to_front(cfg, drive);
	return 0;
}

/* ---- entropy, serial ---------------------------------------------------------------------- */

int config_put_entropy(struct config *cfg, const struct entropy_config *req, struct err *err)
{
	if (!cfg->entropy.present && cfg->n_drives >= CONFIG_DRIVES_MAX)
		return fail(err, -ENOSPC,
			    "Entropy config error: Too many devices: %u drives leave no room.",
			    cfg->n_drives);
	cfg->entropy = *req;
	cfg->entropy.present = true;
	config_accept_limit(&cfg->entropy.limit, "the entropy device");
	return 0;
}

int config_put_serial(struct config *cfg, const struct serial_config *req, struct err *err)
{
	(void)err;
	cfg->serial = *req;
	cfg->serial.given = true;
	accept_bucket(&cfg->serial.limit);
	if (cfg->serial.limit.given)
		log_warn("The rate limit of the serial port is kept, but not enforced yet.");
	return 0;
}
