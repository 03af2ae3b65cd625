/*
 * elf: see elf.h. Must not know what the guest is told about its machine, only where its bytes go.
 *
 * Object file format: System V gABI, chapters 4 and 5. Segments are loaded at p_paddr, because an
 * x86-64 vmlinux runs its first instructions without its own page tables; p_vaddr is the kernel's
 * business. The part between p_filesz and p_memsz is left alone: fresh guest memory is zero
 * already, and a page that nobody touches costs nothing.
 *
 * Invariant: the entry point lies in bytes that came from the file.
 */
#include "elf.h"

#include <elf.h>
#include <inttypes.h>
#include <stdio.h>

#define PHDRS_MAX IMAGE_RANGES_MAX
#define NOTES_MAX 16384u /* bytes of one PT_NOTE; Linux has a few hundred */
#define NOTE_PVH  18	 /* XEN_ELFNOTE_PHYS32_ENTRY, xen/include/public/elfnote.h */
#define ALIGN_MAX GIB(1)

struct elf {
	const struct image_file *file;
	Elf64_Ehdr ehdr;
	Elf64_Phdr phdr[PHDRS_MAX];
	bool has_pvh;
	u64 pvh_entry;
};

bool elf_is(const void *head, size_t len)
{
	return len >= SELFMAG && !memcmp(head, ELFMAG, SELFMAG);
}

/* One row per field of the header that has exactly one acceptable value. */
static int check_header(const Elf64_Ehdr *h, struct err *err)
{
	const struct {
		const char *what;
		u64 is, wanted;
	} fields[] = {
		{ "class (32 or 64 bit)", h->e_ident[EI_CLASS], ELFCLASS64 },
		{ "byte order", h->e_ident[EI_DATA], ELFDATA2LSB },
		{ "identification version", h->e_ident[EI_VERSION], EV_CURRENT },
		{ "version", h->e_version, EV_CURRENT },
		{ "machine", h->e_machine, EM_X86_64 },
		{ "header size", h->e_ehsize, sizeof(Elf64_Ehdr) },
		{ "program header size", h->e_phentsize, sizeof(Elf64_Phdr) },
	};

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		if (fields[i].is != fields[i].wanted)
			return fail(err, -ENOEXEC,
				    "not an x86-64 ELF kernel: %s is %" PRIu64 ", not %" PRIu64,
				    fields[i].what, fields[i].is, fields[i].wanted);
	/* A position-independent kernel is loaded where it was linked, if that is in RAM. */
	if (h->e_type != ET_EXEC && h->e_type != ET_DYN)
		return fail(err, -ENOEXEC, "ELF type %u is not an executable", h->e_type);
	if (h->e_phnum == 0 || h->e_phnum > PHDRS_MAX)
		return fail(err, -ENOEXEC, "%u program headers, not 1 to %u", h->e_phnum,
			    PHDRS_MAX);
	if (h->e_phoff < sizeof(Elf64_Ehdr))
		return fail(err, -ENOEXEC, "program headers at 0x%" PRIx64 " lie in the ELF header",
			    (u64)h->e_phoff);
	return 0;
}

static int read_headers(struct elf *elf, struct err *err)
{
	int r;

	r = image_read(elf->file, &elf->ehdr, sizeof elf->ehdr, 0, err);
	if (r < 0)
		return fail_prefix(err, r, "ELF header: ");
	r = check_header(&elf->ehdr, err);
	if (r < 0)
		return r;
	r = image_read(elf->file, elf->phdr, elf->ehdr.e_phnum * sizeof elf->phdr[0],
		       elf->ehdr.e_phoff, err);
	if (r < 0)
		return fail_prefix(err, r, "program headers: ");
	return 0;
}

static int load_segment(struct elf *elf, unsigned i, const struct mem *mem, struct image *image,
			struct err *err)
{
	const Elf64_Phdr *p = &elf->phdr[i];
	char name[24];
	int r;

	if (!p->p_memsz && !p->p_filesz)
		return 0;
	snprintf(name, sizeof name, "segment %u", i);
	if (p->p_filesz > p->p_memsz)
		return fail(err, -ENOEXEC,
			    "%s has more bytes in the file (0x%" PRIx64
			    ") than in memory (0x%" PRIx64 ")",
			    name, (u64)p->p_filesz, (u64)p->p_memsz);
	if (p->p_align & (p->p_align - 1) || p->p_align > ALIGN_MAX)
		return fail(err, -ENOEXEC,
			    "%s: alignment 0x%" PRIx64 " is not a power of two up to 1 GiB", name,
			    (u64)p->p_align);
	r = image_claim(image, mem, name, p->p_paddr, p->p_memsz, err);
	if (r < 0)
		return r;
	r = image_load(elf->file, mem, p->p_paddr, p->p_filesz, p->p_offset, err);
	if (r < 0)
		return fail_prefix(err, r, "%s: ", name);
	return 0;
}

/* The note's value: 4 bytes by Xen's definition, 8 as Linux writes it. */
static int take_pvh(struct elf *elf, const u8 *desc, u32 len, struct err *err)
{
	u64 entry = 0;

	if (len != 4 && len != 8)
		return fail(err, -ENOEXEC, "the PVH note has %u bytes, not 4 or 8", len);
	memcpy(&entry, desc, len);
	if (entry > UINT32_MAX)
		return fail(err, -ENOEXEC, "the PVH entry 0x%" PRIx64 " is not a 32-bit address",
			    entry);
	elf->has_pvh = true;
	elf->pvh_entry = entry;
	return 0;
}

/* gABI chapter 5, "Note Section": header, name, descriptor, each padded to `align`. */
static int walk_notes(struct elf *elf, const u8 *notes, u64 len, u64 align, struct err *err)
{
	static const char xen[] = "Xen";
	u64 at = 0;

	while (len - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n;
		u64 name, desc;

		memcpy(&n, notes + at, sizeof n);
		name = at + sizeof n;
		desc = ALIGN_UP(name + n.n_namesz, align);
		if (!range_ok(desc, n.n_descsz, len))
			return fail(err, -ENOEXEC,
				    "a note at 0x%" PRIx64 " reaches beyond its segment", at);
		if (!elf->has_pvh && n.n_type == NOTE_PVH && n.n_namesz == sizeof xen &&
		    !memcmp(notes + name, xen, sizeof xen))
			return take_pvh(elf, notes + desc, n.n_descsz, err);
		at = MIN(ALIGN_UP(desc + n.n_descsz, align), len);
	}
	return 0;
}

static int read_notes(struct elf *elf, unsigned i, struct err *err)
{
	const Elf64_Phdr *p = &elf->phdr[i];
	u8 notes[NOTES_MAX];
	int r;

	if (p->p_filesz > sizeof notes)
		return fail(err, -ENOEXEC,
			    "segment %u: 0x%" PRIx64 " bytes of notes, more than 0x%x", i,
			    (u64)p->p_filesz, NOTES_MAX);
	r = image_read(elf->file, notes, p->p_filesz, p->p_offset, err);
	if (r >= 0)
		r = walk_notes(elf, notes, p->p_filesz, p->p_align == 8 ? 8 : 4, err);
	if (r < 0)
		return fail_prefix(err, r, "segment %u: ", i);
	return 0;
}

static int load_segments(struct elf *elf, const struct mem *mem, struct image *image,
			 struct err *err)
{
	int r = 0;

	for (unsigned i = 0; i < elf->ehdr.e_phnum && r >= 0; i++) {
		switch (elf->phdr[i].p_type) {
		case PT_LOAD:
			r = load_segment(elf, i, mem, image, err);
			break;
		case PT_NOTE:
			r = read_notes(elf, i, err);
			break;
		case PT_INTERP:
			r = fail(err, -ENOEXEC,
				 "segment %u names an interpreter: a program, not a kernel", i);
			break;
		}
	}
	return r;
}

static int set_entry(const struct elf *elf, struct image *image, struct err *err)
{
	u64 entry = elf->has_pvh ? elf->pvh_entry : elf->ehdr.e_entry;

	image->how = elf->has_pvh ? BOOT_ENTRY_PVH : BOOT_ENTRY_64;
	image->entry = entry;
	if (image->how == BOOT_ENTRY_64 && entry >= LAYOUT_MAPPED)
		return fail(err, -ENOEXEC, "entry 0x%" PRIx64 " is beyond the first GiB", entry);
	for (unsigned i = 0; i < elf->ehdr.e_phnum; i++) {
		const Elf64_Phdr *p = &elf->phdr[i];

		if (p->p_type == PT_LOAD && entry >= p->p_paddr && entry - p->p_paddr < p->p_filesz)
			return 0;
	}
	return fail(err, -ENOEXEC, "%s 0x%" PRIx64 " is not in a loaded segment",
		    elf->has_pvh ? "PVH entry" : "entry", entry);
}

/*
 * Whether the id is among the aligned 64-bit words from `from` on. From the end: the tables are in
 * .rodata, which lies behind the code in the same segment.
 */
static bool has_word(const u8 *from, u64 len, const char id[8])
{
	enum { STEP = 512 };
	const u64 *words = (const u64 *)(const void *)from;
	u64 word, n = len / sizeof *words;
	bool found = false;

	memcpy(&word, id, sizeof word);
	while (n && !found) {
		u64 step = n % STEP ? n % STEP : STEP, hit = 0;

		n -= step;
		for (u64 i = 0; i < step; i++)
			hit |= words[n + i] == word;
		found = hit;
	}
	return found;
}

/*
 * A built-in virtio-mmio driver has its ACPI id in the kernel if, and only if, the kernel has ACPI:
 * the id is the first member of a struct acpi_device_id, aligned, in read-only data.
 */
static bool reads_dsdt(const struct elf *elf, const struct mem *mem)
{
	for (unsigned i = 0; i < elf->ehdr.e_phnum; i++) {
		const Elf64_Phdr *p = &elf->phdr[i];
		const u8 *host;

		if (p->p_type != PT_LOAD || p->p_flags & PF_W || p->p_paddr % sizeof(u64))
			continue;
		host = mem_at(mem, p->p_paddr, p->p_filesz);
		if (host && has_word(host, p->p_filesz, LAYOUT_VIRTIO_HID))
			return true;
	}
	return false;
}

int elf_load(const struct image_file *file, const struct mem *mem, struct image *image,
	     struct err *err)
{
	struct elf elf = { .file = file };
	int r;

	r = read_headers(&elf, err);
	if (r < 0)
		return r;
	r = load_segments(&elf, mem, image, err);
	if (r < 0)
		return r;
	r = set_entry(&elf, image, err);
	if (r < 0)
		return r;
	image->initrd_end = mem_low_end(mem);
	image->cmdline_max = LAYOUT_CMDLINE_MAX;
	image->reads_dsdt = reads_dsdt(&elf, mem);
	return 0;
}
