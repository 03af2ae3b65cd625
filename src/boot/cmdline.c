/*
 * cmdline: see cmdline.h. Knows the few words that this machine has to say, and how Linux splits a
 * line into words: at white space outside double quotes (lib/cmdline.c, next_arg()).
 *
 * Invariant: nothing of the user's is changed, reordered or lost.
 */
#include "cmdline.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

struct word {
	const char *at;
	size_t len; /* 0: there are no more */
};

static struct word next_word(const char *from)
{
	struct word w;
	bool quoted = false;

	while (isspace((unsigned char)*from))
		from++;
	w = (struct word){ .at = from };
	while (w.at[w.len] && (quoted || !isspace((unsigned char)w.at[w.len])))
		quoted ^= w.at[w.len++] == '"';
	return w;
}

static bool word_is(struct word w, const char *text)
{
	return w.len == strlen(text) && !memcmp(w.at, text, w.len);
}

/* The next word of the kernel's part. */
static struct word kernel_word(const char *from)
{
	struct word w = next_word(from);

	if (word_is(w, "--"))
		w.len = 0;
	return w;
}

const char *cmdline_args(const struct boot_config *cfg)
{
	return cfg->args_given ? cfg->args : BOOT_ARGS_DEFAULT;
}

bool cmdline_has(const char *args, const char *word)
{
	for (struct word w = kernel_word(args); w.len; w = kernel_word(w.at + w.len))
		if (word_is(w, word))
			return true;
	return false;
}

bool cmdline_acpi_off(const char *args)
{
	bool off = false;

	for (struct word w = kernel_word(args); w.len; w = kernel_word(w.at + w.len)) {
		if (word_is(w, "acpi=off"))
			off = true;
		else if (word_is(w, "acpi=force"))
			off = false;
	}
	return off;
}

/* Text that remembers how long it would have become. */
struct line {
	char *text;
	size_t len;
};

static void add(struct line *line, const char *fmt, ...) PRINTF(2, 3);
static void add(struct line *line, const char *fmt, ...)
{
	size_t at = MIN(line->len, LAYOUT_CMDLINE_MAX - 1);
	va_list ap;

	va_start(ap, fmt);
	line->len += (size_t)vsnprintf(line->text + at, LAYOUT_CMDLINE_MAX - at, fmt, ap);
	va_end(ap);
}

static void add_word(struct line *line, const char *word)
{
	add(line, "%s%s", line->len ? " " : "", word);
}

static void add_root(struct line *line, const struct boot_machine *machine)
{
	const char *uuid = machine->root_partuuid;
	bool by_uuid = uuid && *uuid;

	add_word(line, by_uuid ? "root=PARTUUID=" : "root=/dev/vda");
	add(line, "%s %s", by_uuid ? uuid : "", machine->root_read_only ? "ro" : "rw");
}

static void add_devices(struct line *line, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		add_word(line, "virtio_mmio.device=");
		add(line, "4K@0x%x:%u", LAYOUT_VIRTIO + i * LAYOUT_VIRTIO_STEP,
		    LAYOUT_GSI_VIRTIO + i);
	}
}

static int check_characters(const char *args, struct err *err)
{
	for (const char *c = args; *c; c++)
		if (*c < ' ' || *c > '~')
			return fail(err, -EINVAL,
				    "kernel command line: byte %zu (0x%02x) is not printable ASCII",
				    (size_t)(c - args), (unsigned char)*c);
	return 0;
}

int cmdline_build(char out[LAYOUT_CMDLINE_MAX], size_t *len, const char *args,
		  const struct boot_machine *machine, bool list_devices,
		  struct err *err)
{
	struct line line = { .text = out };
	const char *tail = args;
	size_t kernel_len = 0;
	int r;

	r = check_characters(args, err);
	if (r < 0)
		return r;
	for (struct word w = kernel_word(args); w.len; w = kernel_word(tail)) {
		tail = w.at + w.len;
		kernel_len = (size_t)(tail - args);
	}
	while (*tail == ' ')
		tail++;

	out[0] = '\0';
	add(&line, "%.*s", (int)kernel_len, args);
	if (!cmdline_has(args, "pci=off"))
		add_word(&line, "pci=off");
	if (machine->root_drive)
		add_root(&line, machine);
	if (list_devices)
		add_devices(&line, machine->n_devices);
	if (*tail)
		add_word(&line, tail);
	if (line.len >= LAYOUT_CMDLINE_MAX)
		return fail(err, -E2BIG,
			    "kernel command line: %zu bytes given and %zu with what the machine "
			    "adds, but at most %u fit",
			    strlen(args), line.len, LAYOUT_CMDLINE_MAX - 1);
	*len = line.len;
	return 0;
}
