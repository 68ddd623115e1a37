# The bare guest. Included by the top Makefile; stands alone too: make -f guest/bare/rules.mk
BUILD ?= build
CC ?= gcc
BARE_DIR := guest/bare
BARE_OUT := $(BUILD)/guest

bare_flags := -std=gnu11 -O2 -ffreestanding -fno-pic -fno-pie -mno-red-zone -mgeneral-regs-only \
	-fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none -fno-strict-aliasing \
	-Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wimplicit-fallthrough -Wvla \
	-Wformat=2 $(if $(WERROR),-Werror)
bare_sources := $(wildcard $(BARE_DIR)/*.c)
bare_objects := $(bare_sources:$(BARE_DIR)/%.c=$(BARE_OUT)/bare/%.o) $(BARE_OUT)/bare/start.o

.PHONY: bare
bare: $(BARE_OUT)/bare.elf

$(BARE_OUT)/bare.elf: $(bare_objects) $(BARE_DIR)/bare.lds
	$(CC) -nostdlib -static -Wl,-T,$(BARE_DIR)/bare.lds -Wl,--build-id=none \
		-Wl,-z,noexecstack -Wl,-z,max-page-size=4096 -o $@ $(bare_objects)

$(BARE_OUT)/bare/%.o: $(BARE_DIR)/%.c $(BARE_DIR)/rules.mk
	@mkdir -p $(@D)
	$(CC) $(bare_flags) -MMD -MP -c -o $@ $<

$(BARE_OUT)/bare/%.o: $(BARE_DIR)/%.S $(BARE_DIR)/rules.mk
	@mkdir -p $(@D)
	$(CC) -MMD -MP -c -o $@ $<

-include $(bare_objects:.o=.d)
