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

SRC_VMM    := options signals err log json json_scan json_table schema config instance instance_file instance_devices mem mem_copy mem_freeze loop bus kvm cpuid vcpu ioapic serial console i8042 platform identity fdpass uffd stream record vcpu_state vm vm_devices vm_freeze state draft touched snapshot live share instance_snapshot instance_fork instance_restore
SRC_VIRTIO := limit throttle chain vq device device_state mmio disk disk_ask blk blk_request rng balloon tap net net_rx net_tx vsock vsock_conn vsock_speak vsock_bytes vsock_host
SRC_BOOT   := boot image elf bzimage cmdline params aml acpi mptable
SRC_API    := http listen conn server routes handlers handlers_balloon
MAIN       := src/vmm/main.c
# The jailer is a program of its own: nothing of the monitor but how errors are told.
SRC_JAILER := args plan path open make cgroup enter spawn become jail
JAILER_SRC := $(SRC_JAILER:%=src/jail/%.c) src/vmm/err.c
JAILER     := src/jail/jailer.c

SRC_CONFINE := filter seccomp lockdown
LIB_SRC := $(SRC_CONFINE:%=src/jail/%.c) $(SRC_VMM:%=src/vmm/%.c) $(SRC_VIRTIO:%=src/virtio/%.c) $(SRC_BOOT:%=src/boot/%.c) \
	   $(SRC_API:%=api/%.c)
LLHTTP_DIR ?= /usr/share/llhttp
LLHTTP_INC ?= /usr/share/include/llhttp
LLHTTP  := llhttp http api

UNIT := acpi balloon blk boot bus bzimage chain cmdline config device device_queues disk elf err fdpass filter http \
	i8042 identity ioapic json limit log loop mem mmio mptable net plan rng record routes serial state vq vq_wake vsock
FUZZ := balloon blk http json kernel mmio net plan rng snapshot vsock
GUESTS := balloon console count boot boot-pvh holes smp ends irq keyboard regs rng blk hostile net vsock

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
VENDOR_INC := -isystem $(LLHTTP_INC) -DLLHTTP_STRICT_MODE=1
ASAN    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	   -fno-omit-frame-pointer

# The rules that other rules need come before the one that `make` alone means.
.DEFAULT_GOAL := all

GEN := $(B)/gen
BASE_FLAGS := $(STD) $(WARN) $(SAFE) $(VENDOR_INC) -I. -I$(GEN) -MMD -MP

OBJ      := $(LIB_SRC:%.c=$(B)/obj/%.o) $(LLHTTP:%=$(B)/obj/llhttp/%.o)
ASAN_OBJ := $(LIB_SRC:%.c=$(B)/asan/%.o) $(SRC_JAILER:%=$(B)/asan/src/jail/%.o) $(LLHTTP:%=$(B)/asan/llhttp/%.o)
FUZZ_OBJ := $(LIB_SRC:%.c=$(B)/fuzz/%.o) $(SRC_JAILER:%=$(B)/fuzz/src/jail/%.o) $(LLHTTP:%=$(B)/fuzz/llhttp/%.o)

# The system call filters: a program of the build turns the table into BPF (src/jail/filter_make.c).
$(GEN)/filters.h: src/jail/filter_make.c src/jail/filter.c src/jail/filter.h
	$(say) GEN $@
	$(Q)mkdir -p $(GEN) && $(CC) $(STD) $(WARN) -o $(GEN)/filter_make src/jail/filter_make.c \
		src/jail/filter.c -lseccomp && $(GEN)/filter_make >$@.new && mv $@.new $@
$(B)/obj/src/jail/seccomp.o $(B)/asan/src/jail/seccomp.o $(B)/fuzz/src/jail/seccomp.o: $(GEN)/filters.h

.PHONY: all
all: $(B)/mayfly $(B)/mayfly-jailer

$(B)/mayfly: $(MAIN:%.c=$(B)/obj/%.o) $(OBJ)
	$(say) LINK $@
	$(Q)$(CC) $(LDHARD) -o $@ $^ $(LIBS)

$(B)/mayfly-jailer: $(JAILER:%.c=$(B)/obj/%.o) $(JAILER_SRC:%.c=$(B)/obj/%.o)
	$(say) LINK $@
	$(Q)$(CC) $(LDHARD) -o $@ $^

$(B)/obj/%.o: %.c
	$(say) CC $<
	$(Q)mkdir -p $(@D) && $(CC) $(BASE_FLAGS) $(HARD) $(CFLAGS) -ffunction-sections -c -o $@ $<

$(B)/asan/%.o: %.c
	$(say) ASAN $<
	$(Q)mkdir -p $(@D) && $(CC) $(BASE_FLAGS) $(ASAN) -c -o $@ $<

$(B)/fuzz/%.o: %.c
	$(say) FUZZ $<
	$(Q)mkdir -p $(@D) && $(CLANG) $(STD) $(SAFE) $(VENDOR_INC) -I. -I$(GEN) -MMD -MP -O1 -g \
		-fsanitize=fuzzer-no-link,address,undefined -c -o $@ $<

# Debian ships llhttp as source; its warnings are not ours.
$(B)/obj/llhttp/%.o: $(LLHTTP_DIR)/%.c
	$(say) CC $<
	$(Q)mkdir -p $(@D) && $(CC) $(STD) $(HARD) $(CFLAGS) -w $(VENDOR_INC) -ffunction-sections -c -o $@ $<
$(B)/asan/llhttp/%.o: $(LLHTTP_DIR)/%.c
	$(Q)mkdir -p $(@D) && $(CC) $(STD) $(ASAN) -w $(VENDOR_INC) -c -o $@ $<
$(B)/fuzz/llhttp/%.o: $(LLHTTP_DIR)/%.c
	$(Q)mkdir -p $(@D) && $(CLANG) $(STD) -O1 -g -fsanitize=fuzzer-no-link,address -w $(VENDOR_INC) -c -o $@ $<

# ---- unit tests: no KVM, ASan + UBSan -----------------------------------------------------------

$(B)/asan/libmayfly.a: $(ASAN_OBJ)
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/unit/test_%: tests/unit/test_%.c $(B)/asan/libmayfly.a
	$(say) TEST $@
	$(Q)mkdir -p $(@D) && $(CC) $(BASE_FLAGS) $(ASAN) -o $@ $< $(B)/asan/libmayfly.a $(LIBS) -lcmocka

# ---- test guests: flat 64-bit programs at 1 MiB ---------------------------------------------------

# Plain integer code, no library: hosts that interpret the guest know few instructions.
GUEST_FLAGS := -std=gnu11 -Wall -Wextra -Werror -O1 -g -ffreestanding -nostdlib -static -no-pie -fno-pic \
	-mno-red-zone -mgeneral-regs-only -mcmodel=small -fno-stack-protector -fcf-protection=none \
	-fno-asynchronous-unwind-tables -fno-strict-aliasing
GUEST_LINK := -Wl,-T,tests/guest/guest.ld -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,max-page-size=4096
GUEST_BASE := tests/guest/start.S tests/guest/guest.c
GUEST_DEPS := $(GUEST_BASE) tests/guest/guest.h tests/guest/guest.ld src/boot/layout.h

.PHONY: guests
guests: $(GUESTS:%=$(B)/guest/%.elf)

$(B)/guest/%.elf: tests/guest/%.c $(GUEST_DEPS)
	$(say) GUEST $@
	$(Q)mkdir -p $(@D) && $(CC) $(GUEST_FLAGS) $(GUEST_LINK) -o $@ $(GUEST_BASE) $<

# The same guest, entered through a PVH note.
$(B)/guest/%-pvh.elf: tests/guest/%.c $(GUEST_DEPS)
	$(say) GUEST $@
	$(Q)mkdir -p $(@D) && $(CC) -DPVH $(GUEST_FLAGS) $(GUEST_LINK) -o $@ $(GUEST_BASE) $<

# ---- all tests -----------------------------------------------------------------------------------

UNIT_BUILT := $(UNIT:%=$(B)/unit/test_%) $(FUZZ:%=$(B)/unit/test_fuzz_%)
CHECK := MAYFLY_BUILD=$(abspath $(B)) tests/check.sh

# Of the teleport tier, which takes as long as the linux tier: a boot, an end, a disk, a hot swap, a network.
SAMPLE := boot.pvh_with_2|ends.power_off_without|root_without_initrd|swapped_drive|traffic_tuned

# Every tier runs, whatever became of the one before; the last line adds them up.
.PHONY: check check-unit check-fuzz check-machine check-jailed check-linux check-teleport
check: deps-check
	$(Q)rm -rf $(B)/check
	$(Q)for tier in unit fuzz machine jailed linux; do \
		$(MAKE) --no-print-directory check-$$tier || true; \
	done; \
	$(MAKE) --no-print-directory check-teleport K='$(SAMPLE)' || true
	$(Q)MAYFLY_BUILD=$(abspath $(B)) tests/run.py summary

# K='pattern' chooses tests by name.
check-unit: $(UNIT_BUILT)
	$(Q)$(CHECK) unit '$(K)'
# Each harness for ten seconds; `make fuzz` for as long as you like.
check-fuzz: $(FUZZ:%=$(B)/fuzz/fuzz_%)
	$(Q)$(CHECK) fuzz '$(K)'
check-machine: all guests
	$(Q)$(CHECK) machine '$(K)'
# The machine tier once more, with every monitor in a jail.
check-jailed: all guests
	$(Q)$(CHECK) jailed '$(K)'
check-linux: all guests images rootfs kernel-smp
	$(Q)images/rootfs/build.sh $(abspath $(IMG))
	$(Q)$(CHECK) linux '$(K)'
# The linux tier once more, with every machine saved and loaded into fresh processes at random moments.
check-teleport: all guests images rootfs kernel-smp
	$(Q)images/rootfs/build.sh $(abspath $(IMG))
	$(Q)$(CHECK) teleport '$(K)'

# ---- the two commands ----------------------------------------------------------------------------

IMG := $(B)/images

.PHONY: demo
demo: deps-demo all images $(B)/bench/load
	$(Q)tests/testbed/testbed.sh exec -- examples/demo.sh $(abspath $(B)/mayfly) $(abspath $(IMG)) \
		$(abspath $(B)/bench/load)

.PHONY: images rootfs
images:
	$(Q)images/initramfs/build.sh $(abspath $(IMG))
rootfs:
	$(Q)images/rootfs/build.sh $(abspath $(IMG))

# The tuned guest kernels: a quarter of an hour of processor time each, once; then they are cached.
.PHONY: kernel
kernel: deps-check
	$(Q)$(MAKE) --no-print-directory kernel-smp kernel-up
kernel-%:
	$(Q)images/kernel/build.sh $* $(abspath $(IMG))

# ---- benchmarks ----------------------------------------------------------------------------------

# They judge nothing and assert no time: medians, the host they were taken on, JSON in $(B)/bench/.
BENCH := drive touch kvm_floor

$(B)/bench/%: benchmarks/%.c benchmarks/sample.h
	$(say) CC $<
	$(Q)mkdir -p $(@D) && $(CC) $(STD) $(WARN) -O2 -static -o $@ $<

# The monitor's own objects, driven without a guest.
$(B)/bench/ops: benchmarks/ops.c benchmarks/sample.h $(OBJ)
	$(say) LINK $@
	$(Q)mkdir -p $(@D) && $(CC) $(BASE_FLAGS) $(HARD) $(CFLAGS) $(LDHARD) -o $@ $< $(OBJ) $(LIBS)

# The program that guests find as /bin/load, for the host's end of the line.
$(B)/bench/load: images/initramfs/load.c
	$(say) CC $<
	$(Q)mkdir -p $(@D) && $(CC) $(STD) -Wall -Wextra -Werror -O2 -static -o $@ $<

$(B)/bench/%.elf: benchmarks/%.S
	$(say) AS $<
	$(Q)mkdir -p $(@D) && $(CC) -nostdlib -static -no-pie \
		-Wl,-Ttext=0x100000,--build-id=none,-z,noexecstack,-n -o $@ $<

.PHONY: bench
bench: all $(BENCH:%=$(B)/bench/%) $(B)/bench/ops $(B)/bench/load $(B)/bench/first.elf $(B)/bench/wake.elf $(B)/guest/ends.elf images kernel-smp
	$(Q)$(PYTHON) benchmarks/floor.py
	$(Q)$(PYTHON) benchmarks/ops.py
	$(Q)$(PYTHON) benchmarks/start.py
	$(Q)$(PYTHON) benchmarks/memory.py
	$(Q)$(PYTHON) benchmarks/snapshot.py
	$(Q)[ "$$(id -u)" != 0 ] || $(PYTHON) benchmarks/jail.py
	$(Q)[ "$$(id -u)" != 0 ] || $(PYTHON) benchmarks/idle.py
	$(Q)$(PYTHON) benchmarks/boot.py
	$(Q)$(PYTHON) benchmarks/devices.py

# ---- packages ------------------------------------------------------------------------------------

DEPS_BUILD  := gcc make libc6-dev linux-libc-dev libjsmn-dev liburing-dev libseccomp-dev node-llhttp
DEPS_DEMO   := qemu-system-x86 busybox-static cpio kmod curl iproute2
DEPS_CHECK  := python3 libcmocka-dev acpica-tools e2fsprogs xz-utils lz4 patch binutils \
	       linux-source-6.12 flex bison bc libelf-dev libssl-dev clang libclang-rt-14-dev strace
DEPS_TOOLS  := clang-tidy clang-format

# Installs what is missing; says how, where it may not.
define install_deps
	$(Q)missing=""; for p in $(1); do \
		dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null | grep -q '^installed$$' || missing="$$missing $$p"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" != 0 ]; then \
		echo "please run: sudo apt-get update && sudo apt-get install -y --no-install-recommends$$missing"; exit 1; \
	fi; \
	echo "  DEPS   $$missing"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get -qq update && apt-get -qq install -y --no-install-recommends $$missing >/dev/null
endef

.PHONY: deps deps-demo deps-check
deps:
	$(call install_deps,$(DEPS_BUILD) $(DEPS_DEMO) $(DEPS_CHECK) $(DEPS_TOOLS))
deps-demo:
	$(call install_deps,$(DEPS_BUILD) $(DEPS_DEMO))
deps-check:
	$(call install_deps,$(DEPS_BUILD) $(DEPS_DEMO) $(DEPS_CHECK))

# ---- fuzzing -------------------------------------------------------------------------------------

FUZZ_SECONDS ?= 3600

$(B)/fuzz/libmayfly.a: $(FUZZ_OBJ)
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/fuzz/fuzz_%: tests/fuzz/fuzz_%.c $(B)/fuzz/libmayfly.a
	$(say) FUZZ $@
	$(Q)$(CLANG) $(STD) $(SAFE) $(VENDOR_INC) -I. -O1 -g -fsanitize=fuzzer,address,undefined -o $@ $< \
		$(B)/fuzz/libmayfly.a $(LIBS)

# Each harness for FUZZ_SECONDS, from the corpus in the tree; what it finds lands in $(B)/fuzz.
.PHONY: fuzz
fuzz: $(FUZZ:%=$(B)/fuzz/fuzz_%)
	$(Q)for f in $(FUZZ); do \
		mkdir -p $(B)/fuzz/corpus/$$f; \
		$(B)/fuzz/fuzz_$$f -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$(B)/fuzz/crash-$$f- \
			$(B)/fuzz/corpus/$$f tests/fuzz/corpus/$$f || exit 1; \
	done

# ---- reading -------------------------------------------------------------------------------------

OURS := $(LIB_SRC) $(MAIN) $(JAILER_SRC) $(JAILER) $(wildcard src/*/*.h api/*.h)

.PHONY: tidy layers format asan
# One file at a time: clang-tidy 14 sees uninitialised va_lists in every file but the first.
tidy: $(GEN)/filters.h
	$(Q)printf '%s\n' $(LIB_SRC) $(MAIN) $(JAILER) $(SRC_JAILER:%=src/jail/%.c) | xargs -P $$(nproc) -n 1 sh -c \
		'clang-tidy --quiet "$$@" -- $(STD) $(VENDOR_INC) -I. -I$(GEN) 2>/dev/null' tidy
layers:
	$(Q)awk -f tests/layers.awk $(OURS)
format:
	$(Q)clang-format -i $(OURS)

asan: $(B)/mayfly-asan
$(B)/mayfly-asan: $(MAIN) $(B)/asan/libmayfly.a
	$(say) LINK $@
	$(Q)$(CC) $(BASE_FLAGS) $(ASAN) -o $@ $^ $(LIBS)

# ---- the rest ------------------------------------------------------------------------------------

.PHONY: install clean help
install: all
	install -D -m 755 $(B)/mayfly $(DESTDIR)$(PREFIX)/bin/mayfly
	install -D -m 755 $(B)/mayfly-jailer $(DESTDIR)$(PREFIX)/bin/mayfly-jailer

clean:
	$(Q)rm -rf $(B)

help:
	@echo "make             build/mayfly: one static binary"
	@echo "make demo        boot a Linux microVM through the API, watch it talk to the host"
	@echo "make check       all tests: check-unit, -fuzz, -machine, -jailed, -linux, some of -teleport"
	@echo "make check-teleport   check-linux with every machine moved into fresh processes (K=pattern)"
	@echo "make bench       measurements against peers, results in build/bench/"
	@echo "make kernel      the tuned guest kernels"
	@echo "make asan        build/mayfly-asan: the monitor with sanitizers"
	@echo "make fuzz        every fuzzer for FUZZ_SECONDS (3600)"
	@echo "make tidy        static analysis      make layers  who may include whom"
	@echo "make format      clang-format         make deps    install Debian packages"
	@echo "make install     to PREFIX ($(PREFIX))   make clean   V=1 shows commands"

# Each fuzz harness, as a unit test: its corpus and some thousand mutations.
$(B)/unit/test_fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/driver.c $(B)/asan/libmayfly.a
	$(say) TEST $@
	$(Q)mkdir -p $(@D) && $(CC) $(BASE_FLAGS) -Wno-missing-prototypes $(ASAN) -DFUZZ_NAME='"fuzz_$*"' \
		-DFUZZ_CORPUS='"$(abspath tests/fuzz/corpus/$*)"' -o $@ $< tests/fuzz/driver.c \
		$(B)/asan/libmayfly.a $(LIBS) -lcmocka

-include $(shell find $(B) -name '*.d' 2>/dev/null)
