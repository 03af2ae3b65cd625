/*
 * Synthetic kernels: the smallest files that the loaders accept, as structs, so that a test changes
 * one field and says which. Also used by the fuzzer, as what it starts from.
 */
#ifndef TEST_KERNEL_H
#define TEST_KERNEL_H

#include "src/boot/image.h"

#include <asm/bootparam.h>
#include <elf.h>
#include <stdlib.h>
#include <sys/mman.h>

/* ELF: two segments and a PVH note. */
#define ELF_TEXT_AT  0x200000
#define ELF_TEXT_LEN 0x1003 /* odd on purpose */
#define ELF_DATA_AT  0x400000
#define ELF_DATA_LEN 0x800
#define ELF_DATA_MEM 0x3000
#define ELF_ENTRY    (ELF_TEXT_AT + 0x10)
#define ELF_PVH	     (ELF_TEXT_AT + 0x20)

struct elf_note {
	Elf64_Nhdr n;
	char name[4];
	u64 desc;
};

struct elf_file {
	Elf64_Ehdr e;
	Elf64_Phdr text, data, note;
	struct elf_note pvh;
	u8 text_bytes[ELF_TEXT_LEN];
	u8 data_bytes[ELF_DATA_LEN];
} __attribute__((packed));

static inline void elf_file_init(struct elf_file *f)
{
	memset(f, 0, sizeof *f);
	memcpy(f->e.e_ident, ELFMAG, SELFMAG);
	f->e.e_ident[EI_CLASS] = ELFCLASS64;
	f->e.e_ident[EI_DATA] = ELFDATA2LSB;
	f->e.e_ident[EI_VERSION] = EV_CURRENT;
	f->e.e_type = ET_EXEC;
	f->e.e_machine = EM_X86_64;
	f->e.e_version = EV_CURRENT;
	f->e.e_entry = ELF_ENTRY;
	f->e.e_phoff = offsetof(struct elf_file, text);
	f->e.e_ehsize = sizeof f->e;
	f->e.e_phentsize = sizeof f->text;
	f->e.e_phnum = 3;
	f->text = (Elf64_Phdr){ .p_type = PT_LOAD,
				.p_flags = PF_R | PF_X,
				.p_offset = offsetof(struct elf_file, text_bytes),
				.p_paddr = ELF_TEXT_AT,
				.p_filesz = ELF_TEXT_LEN,
				.p_memsz = ELF_TEXT_LEN,
				.p_align = 0x200000 };
	f->data = (Elf64_Phdr){ .p_type = PT_LOAD,
				.p_flags = PF_R | PF_W,
				.p_offset = offsetof(struct elf_file, data_bytes),
				.p_paddr = ELF_DATA_AT,
				.p_filesz = ELF_DATA_LEN,
				.p_memsz = ELF_DATA_MEM,
				.p_align = 0x1000 };
	f->note = (Elf64_Phdr){ .p_type = PT_NOTE,
				.p_offset = offsetof(struct elf_file, pvh),
				.p_filesz = sizeof f->pvh,
				.p_memsz = sizeof f->pvh,
				.p_align = 4 };
	f->pvh = (struct elf_note){ { 4, 8, 18 }, "Xen", ELF_PVH };
	memset(f->text_bytes, 0x90, sizeof f->text_bytes);
	memset(f->data_bytes, 0xda, sizeof f->data_bytes);
}

/* bzImage: one sector of setup code, a protected-mode part with a "payload" and a tail. */
#define BZ_SETUP_SECTS 1
#define BZ_START       1024
#define BZ_LEN	       0x2000
#define BZ_AT	       0x1000000
#define BZ_INIT_SIZE   0x180000
#define BZ_PAYLOAD     0x400
#define BZ_PAYLOAD_LEN 0x1000
#define BZ_TAIL	       (BZ_PAYLOAD + BZ_PAYLOAD_LEN)

struct bz_file {
	u8 boot_sector[0x1f1];
	struct setup_header hdr;
	u8 setup[BZ_START - 0x1f1 - sizeof(struct setup_header)];
	u8 kernel[BZ_LEN];
} __attribute__((packed));

static inline void bz_file_init(struct bz_file *f)
{
	memset(f, 0, sizeof *f);
	f->hdr = (struct setup_header){
		.setup_sects = BZ_SETUP_SECTS,
		.syssize = BZ_LEN / 16,
		.boot_flag = 0xaa55,
		.jump = 0xeb | (0x1f1 + sizeof f->hdr - 0x202) << 8,
		.header = 0x53726448,
		.version = 0x20f,
		.loadflags = 1,
		.initrd_addr_max = 0x7fffffff,
		.kernel_alignment = 0x200000,
		.relocatable_kernel = 1,
		.xloadflags = 0x7f,
		.cmdline_size = 2047,
		.payload_offset = BZ_PAYLOAD,
		.payload_length = BZ_PAYLOAD_LEN,
		.pref_address = BZ_AT,
		.init_size = BZ_INIT_SIZE,
	};
	memset(f->kernel, 0x90, sizeof f->kernel);
}

/* One field made wrong, and what the error must say. */
struct mutation {
	size_t at, size;
	u64 value;
	const char *says;
};

#define MUTATE(type, field, to, text)                                                              \
	{                                                                                          \
		offsetof(type, field), sizeof(((type *)0)->field), to, text                        \
	}

static inline int kernel_fd(const void *bytes, size_t len)
{
	int fd = memfd_create("kernel", MFD_CLOEXEC);

	if (fd < 0 || write(fd, bytes, len) != (ssize_t)len)
		abort();
	return fd;
}

static inline struct mem kernel_mem(u64 size)
{
	struct mem mem;
	struct err err;

	if (mem_create(&mem, size, MEM_ANON, MEM_PAGES_4K, &err) < 0)
		abort();
	return mem;
}

#endif
