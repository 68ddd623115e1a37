# godwit: make [all check soak bench lint install fuzz clean]; see README.md.
#
# Every .c below vmm/, devices/ and migrate/ is part of the program (of the folders named after an
# architecture only that of the machine that builds); every test_*.c below tests/unit/ is a test program.
# SANITIZE=address,undefined (or thread) builds beside the normal build, in build/san-*.

CC ?= gcc
PREFIX ?= /usr/local
DESTDIR ?=
BUILD_ROOT ?= build
comma := ,
BUILD ?= $(BUILD_ROOT)$(if $(SANITIZE),/san-$(subst $(comma),-,$(SANITIZE)))
ARCH := $(shell uname -m)
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

PKG_CONFIG ?= pkg-config
PKGS := jansson liburing libcap-ng zlib libzstd

WARNINGS := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes \
	-Wimplicit-fallthrough -Wvla -Wformat=2 -Wno-missing-field-initializers
# Sanitized code is built quickly: it is compiled for one run.
OPTIMISE ?= $(if $(SANITIZE),-O1 -g1,-O2 -g)
CPPFLAGS += -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64
CFLAGS += -std=gnu11 $(OPTIMISE) $(WARNINGS) $(if $(WERROR),-Werror) -pthread -fno-strict-aliasing \
	$(shell $(PKG_CONFIG) --cflags $(PKGS))
LDLIBS += $(shell $(PKG_CONFIG) --libs $(PKGS)) -lfdt
LDFLAGS += -pthread -Wl,--as-needed
ifdef SANITIZE
# gcc's thread sanitizer does not know atomic_thread_fence; the fences of queue.c order accesses to
# guest memory, which no thread of ours shares without a lock.
CFLAGS += $(if $(findstring thread,$(SANITIZE)),-Wno-tsan)
CFLAGS += -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
LDFLAGS += -fsanitize=$(SANITIZE)
endif

# V=1 shows the commands, -s nothing.
Q := $(if $(V),,@)
silent := $(findstring s,$(firstword -$(MAKEFLAGS)))
say = $(if $(V)$(silent),,@printf '  %-4s %s\n' $(1) $@)

all_sources := $(shell find vmm devices migrate -name '*.c')
other_arch := $(foreach arch,$(filter-out $(ARCH),x86_64 aarch64),\
	$(filter vmm/$(arch)/% migrate/codec/$(arch)/%,$(all_sources)))
sources := $(filter-out $(other_arch),$(all_sources))
objects := $(sources:%.c=$(BUILD)/obj/%.o)
library := $(BUILD)/libgodwit.a
unit_tests := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(wildcard tests/unit/*/test_*.c))
unit_support := $(patsubst tests/%.c,$(BUILD)/obj/tests/%.o,$(wildcard tests/unit/lib/*.c))
# They start no thread, so the thread sanitizer has nothing to see in them. Who is here and starts one is ended
# (tests/unit/lib/one_thread.c).
one_thread := \
	acpi \
	agent \
	bitmap \
	body \
	boot \
	codec \
	compress \
	config \
	converge \
	course \
	crc32c \
	cpuid \
	devices \
	disk \
	framing \
	gate \
	hosts \
	i8042 \
	link \
	math \
	migrate_commands \
	order \
	policy \
	policy_json \
	power \
	predict \
	print \
	probe \
	progress \
	queue \
	quota \
	schedule \
	slots \
	socket \
	state \
	states \
	target \
	throttle \
	tree \
	tree_copy \
	wake \
	words
one_thread_tests := $(foreach name,$(one_thread),$(filter %/test_$(name),$(unit_tests)))
$(one_thread_tests): LDFLAGS += -Wl,--wrap=pthread_create
# It counts the locks that a thread holds.
$(BUILD)/unit/engine/test_receive: LDFLAGS += -Wl,--wrap=pthread_mutex_lock,--wrap=pthread_mutex_unlock
fuzz_targets := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

.PHONY: all check soak unit bench lint install fuzz clean
.DELETE_ON_ERROR:
.SECONDARY:

all: $(BUILD)/godwit $(BUILD)/guest/bare.elf $(BUILD)/drive

$(BUILD)/godwit: $(BUILD)/obj/vmm/main.o $(library)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(library): $(filter-out %/vmm/main.o,$(objects))
	$(call say,AR)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

$(BUILD)/obj/%.o: %.c
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# The version is compiled into one file only, and only when it changed.
$(BUILD)/version.h: FORCE
	@mkdir -p $(@D)
	@echo '#define GODWIT_VERSION "$(VERSION)"' | cmp -s - $@ || \
		echo '#define GODWIT_VERSION "$(VERSION)"' > $@
$(BUILD)/obj/vmm/version.o: CPPFLAGS += -include $(BUILD)/version.h
$(BUILD)/obj/vmm/version.o: $(BUILD)/version.h
.PHONY: FORCE
FORCE:

$(BUILD)/unit/%: tests/unit/%.c $(unit_support) $(library)
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -MF $@.d $(LDFLAGS) -o $@ $< $(unit_support) $(library) \
		$(LDLIBS) $(shell $(PKG_CONFIG) --libs check)

# In this one the program's allocations, and nobody else's, fail when the test says so.
short_memory := malloc calloc realloc aligned_alloc strdup
$(BUILD)/libgodwit-short.a: $(library)
	$(Q)objcopy $(foreach f,$(short_memory),--redefine-sym $(f)=short_$(f)) $< $@
$(BUILD)/unit/engine/test_no_memory: $(BUILD)/libgodwit-short.a
$(BUILD)/unit/engine/test_no_memory: library = $(BUILD)/libgodwit-short.a

# What works in a Linux guest: static, as there is no C library in it. pattern also runs on the host.
$(BUILD)/guest/pattern $(BUILD)/guest/rewrite: $(BUILD)/guest/%: tests/linux/%.c
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 $(WARNINGS) $(if $(WERROR),-Werror) -static -o $@ $<

# How fast the codecs are: scripts/bench codec.
$(BUILD)/bench/%: tests/bench/%.c $(library)
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -MF $@.d $(LDFLAGS) -o $@ $< $(library) $(LDLIBS)

# A VM whose throttle tests can set (tests/bare/drive.c).
$(BUILD)/drive: $(BUILD)/obj/tests/bare/drive.o $(library)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# The longest begin first.
unit_first := $(foreach name,engine_cut control engine engine_steer converge codec,$(filter %/test_$(name),$(unit_tests)))
unit_run := $(if $(findstring thread,$(SANITIZE)),$(filter-out $(one_thread_tests),$(unit_tests)),$(unit_tests))
unit: $(unit_run)
	@scripts/run-unit $(filter $(unit_run),$(unit_first)) $(filter-out $(unit_first),$(unit_run))

check:
	scripts/check

# SOAK_MOVES=N: how often guests are moved (200).
soak:
	scripts/soak

bench: all
	scripts/bench

lint:
	scripts/lint

# libFuzzer entry points: build/fuzz-build/fuzz/NAME [-max_total_time=SECONDS] [corpus]
fuzz:
	$(MAKE) CC=clang SANITIZE=address,undefined,fuzzer-no-link BUILD=$(BUILD_ROOT)/fuzz-build \
		OPTIMISE='-O1 -gline-tables-only' fuzz-targets
.PHONY: fuzz-targets
fuzz-targets: $(fuzz_targets)
$(BUILD)/fuzz/fuzz_states $(BUILD)/fuzz/fuzz_registers: $(BUILD)/obj/tests/unit/lib/vring.o
$(BUILD)/fuzz/%: tests/fuzz/%.c $(library)
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -MF $@.d $(LDFLAGS) -fsanitize=fuzzer -o $@ $< \
		$(filter %.o,$^) $(library) $(LDLIBS)

install: $(BUILD)/godwit
	install -D -m 0755 $(BUILD)/godwit $(DESTDIR)$(PREFIX)/bin/godwit
	install -D -m 0644 README.md $(DESTDIR)$(PREFIX)/share/doc/godwit/README.md
	install -D -m 0644 LICENSE $(DESTDIR)$(PREFIX)/share/doc/godwit/LICENSE
	for page in man/*.[1-8]; do \
		install -D -m 0644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/} || exit; \
	done

clean:
	rm -rf $(BUILD_ROOT)

-include guest/bare/rules.mk
-include $(objects:.o=.d) $(BUILD)/obj/tests/bare/drive.d $(unit_support:.o=.d) $(unit_tests:=.d) $(fuzz_targets:=.d)
