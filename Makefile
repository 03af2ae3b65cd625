# mayfly: everything is built, tested, measured and installed from here. `make help` lists the verbs.
# One non-recursive file, explicit lists, quiet unless V=1.

B      ?= build
CC     ?= gcc
CLANG  ?= clang
PREFIX ?= /usr/local
PYTHON ?= /usr/bin/python3

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-7s %s\n'
endif

# ---- what there is -----------------------------------------------------------------------------

SRC_VMM    := options signals err log json json_scan json_table config instance mem loop bus kvm cpuid vcpu ioapic serial console i8042 platform vm
SRC_VIRTIO := chain vq device mmio disk blk rng
SRC_BOOT   := boot elf bzimage params acpi mptable
SRC_API    := http server routes
MAIN       := src/vmm/main.c

LIB_SRC := $(SRC_VMM:%=src/vmm/%.c) $(SRC_VIRTIO:%=src/virtio/%.c) $(SRC_BOOT:%=src/boot/%.c) \
	   $(SRC_API:%=api/%.c)
LLHTTP_DIR ?= /usr/share/llhttp
LLHTTP_INC ?= /usr/share/include/llhttp
LLHTTP  := llhttp http api

UNIT := err log json config mem loop bus serial i8042 ioapic chain vq device mmio disk blk rng elf bzimage boot \
	acpi mptable http
FUZZ := http json blk rng mmio kernel
GUESTS := 

# ---- how it is built ---------------------------------------------------------------------------

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wcast-qual -Wwrite-strings -Wvla -Wundef -Wformat=2 -Wimplicit-fallthrough -Werror
STD  := -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64
SAFE := -fno-strict-aliasing -fwrapv -fno-delete-null-pointer-checks -fno-common
HARD := -fPIE -fvisibility=hidden -fno-plt -fstack-protector-strong -fstack-clash-protection \
	-fcf-protection=full -ftrivial-auto-var-init=zero -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3
CFLAGS  ?= -O2 -g
LDHARD  := -static-pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code,--gc-sections
LIBS    := -luring -pthread
VENDOR_INC := -isystem $(LLHTTP_INC)
ASAN    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	   -fno-omit-frame-pointer

BASE_FLAGS := $(STD) $(WARN) $(SAFE) $(VENDOR_INC) -I. -MMD -MP

OBJ      := $(LIB_SRC:%.c=$(B)/obj/%.o) $(LLHTTP:%=$(B)/obj/llhttp/%.o)
ASAN_OBJ := $(LIB_SRC:%.c=$(B)/asan/%.o) $(LLHTTP:%=$(B)/asan/llhttp/%.o)
FUZZ_OBJ := $(LIB_SRC:%.c=$(B)/fuzz/%.o) $(LLHTTP:%=$(B)/fuzz/llhttp/%.o)

.PHONY: all
all: $(B)/mayfly

$(B)/mayfly: $(MAIN:%.c=$(B)/obj/%.o) $(OBJ)
	$(say) LINK $@
	$(Q)$(CC) $(LDHARD) -o $@ $^ $(LIBS)

$(B)/obj/%.o: %.c
	$(say) CC $<
	$(Q)mkdir -p $(@D) && $(CC) $(BASE_FLAGS) $(HARD) $(CFLAGS) -ffunction-sections -c -o $@ $<

$(B)/asan/%.o: %.c
	$(say) ASAN $<
	$(Q)mkdir -p $(@D) && $(CC) $(BASE_FLAGS) $(ASAN) -c -o $@ $<

$(B)/fuzz/%.o: %.c
	$(say) FUZZ $<
	$(Q)mkdir -p $(@D) && $(CLANG) $(STD) $(SAFE) $(VENDOR_INC) -I. -MMD -MP -O1 -g \
		-fsanitize=fuzzer-no-link,address,undefined -c -o $@ $<

# Debian ships llhttp as source; its warnings are not ours.
$(B)/obj/llhttp/%.o: $(LLHTTP_DIR)/%.c
	$(say) CC $<
	$(Q)mkdir -p $(@D) && $(CC) $(STD) $(HARD) $(CFLAGS) -w -I$(LLHTTP_INC) -ffunction-sections -c -o $@ $<
$(B)/asan/llhttp/%.o: $(LLHTTP_DIR)/%.c
	$(Q)mkdir -p $(@D) && $(CC) $(STD) $(ASAN) -w -I$(LLHTTP_INC) -c -o $@ $<
$(B)/fuzz/llhttp/%.o: $(LLHTTP_DIR)/%.c
	$(Q)mkdir -p $(@D) && $(CLANG) $(STD) -O1 -g -fsanitize=fuzzer-no-link,address -w -I$(LLHTTP_INC) -c -o $@ $<

# ---- unit tests: no KVM, ASan + UBSan -----------------------------------------------------------

$(B)/asan/libmayfly.a: $(ASAN_OBJ)
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/unit/test_%: tests/unit/test_%.c $(B)/asan/libmayfly.a
	$(say) TEST $@
	$(Q)mkdir -p $(@D) && $(CC) $(BASE_FLAGS) $(ASAN) -o $@ $< $(B)/asan/libmayfly.a $(LIBS) -lcmocka

-include $(shell find $(B) -name '*.d' 2>/dev/null)
