# weft: build/libweft.so, build/weftd, build/weft. See README.md.
#   make                  the three products
#   make unit             unit tests, built and run
#   make programs         the programs of tests/interpose
#   make SAN=address,undefined | SAN=thread    the same under build-<san>/
#   make V=1              show the commands

CC ?= gcc
PREFIX ?= /usr/local
SAN ?=
BUILD ?= build$(if $(SAN),-$(subst $(comma),-,$(SAN)))
comma := ,

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wcast-qual -Wvla -Werror
CFLAGS ?= -O2 -g
ALL_CFLAGS := -std=c11 -D_GNU_SOURCE $(WARN) $(CFLAGS) -fno-omit-frame-pointer -fno-strict-aliasing \
	$(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=undefined) -MMD -MP -Iinclude
SHIM_CFLAGS := $(ALL_CFLAGS) -fPIC -fvisibility=hidden -ftls-model=initial-exec -Ipreload
LIBDIR := $(shell $(CC) -print-file-name=libssl.a | xargs dirname)

Q := $(if $(V),,@)
say = $(if $(V),,@echo "  $(1)	$(@:$(BUILD)/%=%)")

src = $(sort $(wildcard $(1:%=%/*.c)))
obj = $(patsubst %.c,$(BUILD)/%.o,$(1))

CORE := $(call obj,$(call src,preload/base preload/policy))
SHIM := $(call obj,$(call src,preload/sys preload/telemetry preload/identity preload/tls preload/control \
	preload/conduit preload/fd))
HOOK := $(call obj,$(call src,preload/hook))
BROKER_ROOMS := store compile registry ca relay session health telemetry admin dns
BROKER := $(call obj,$(call src,$(BROKER_ROOMS:%=broker/%)))
TRACE := $(call obj,$(call src,preload/trace) preload/sys/compat.c)
CLI := $(call obj,$(call src,broker/cli))

# Before glibc 2.34 these held what preload/sys/compat.c binds; since then they are empty, and part of it still.
SHIM_LDFLAGS := -Wl,--no-as-needed -l:libdl.so.2 -l:libpthread.so.0
SHIM_LIBS := -l:libssl.a -l:libcrypto.a -l:libmsgpackc.a
BROKER_LIBS := -lev -lhiredis -lmsgpackc -lssl -lcrypto -ljansson -lmicrohttpd -lresolv

.PHONY: all unit programs bench-programs install clean
all: $(BUILD)/libweft.so $(BUILD)/libwefttrace.so $(BUILD)/weftd $(BUILD)/weft $(BUILD)/weft-keys.5 $(BUILD)/weft-hooks.7

$(BUILD)/preload/%.o: preload/%.c
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(CC) $(SHIM_CFLAGS) -c $< -o $@

$(BUILD)/broker/%.o: broker/%.c
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(CC) $(ALL_CFLAGS) -Ibroker -c $< -o $@

$(BUILD)/libcore.a: $(CORE)
$(BUILD)/libshim.a: $(SHIM)
$(BUILD)/libbroker.a: $(BROKER)
$(BUILD)/%.a:
	$(call say,AR)
	$(Q)mkdir -p $(@D) && rm -f $@ && ar rcs $@ $^

# A symbol that nobody defines fails the build, not the guest; sanitizers leave theirs open.
SHARED = $(if $(SAN),-fsanitize=$(SAN),-Wl$(comma)-z$(comma)defs)

# OpenSSL is linked in and hidden: a shared one would bind to the guest's own (node exports 1344 such symbols).
$(BUILD)/libweft.so: $(CORE) $(SHIM) $(HOOK) preload/libweft.map
	$(call say,LD)
	$(Q)$(CC) -shared $(CFLAGS) $(SHARED) -o $@.new $(CORE) $(SHIM) $(HOOK) \
		-Wl,--version-script=preload/libweft.map -Wl,-Bsymbolic -Wl,--exclude-libs,ALL \
		-Wl,-z,now -Wl,-z,relro -Wl,-z,noexecstack -Wl,-soname,libweft.so $(SHIM_LDFLAGS) $(SHIM_LIBS) -ldl -lpthread
	$(Q)mv $@.new $@

# The recorder of `weft try`: it stands before libweft.so and needs nothing but libc.
$(BUILD)/libwefttrace.so: $(TRACE)
	$(call say,LD)
	$(Q)$(CC) -shared $(CFLAGS) $(SHARED) -o $@.new $(TRACE) -Wl,-z,now -Wl,-z,relro \
		-Wl,-z,noexecstack -Wl,-soname,libwefttrace.so $(SHIM_LDFLAGS)
	$(Q)mv $@.new $@

$(BUILD)/weftd: $(BUILD)/broker/weftd.o $(BUILD)/libbroker.a $(BUILD)/libcore.a
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(if $(SAN),-fsanitize=$(SAN)) -o $@ $^ $(BROKER_LIBS)

$(BUILD)/weft: $(BUILD)/broker/weft.o $(CLI) $(BUILD)/libbroker.a $(BUILD)/libcore.a
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(if $(SAN),-fsanitize=$(SAN)) -o $@ $^ $(BROKER_LIBS)

# The reference of all documents comes from the table that the validator uses.
$(BUILD)/keys: $(BUILD)/broker/keys.o $(BUILD)/libbroker.a $(BUILD)/libcore.a
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(if $(SAN),-fsanitize=$(SAN)) -o $@ $^

$(BUILD)/weft-keys.5: $(BUILD)/keys
	$(call say,MAN)
	$(Q)$< > $@.new && mv $@.new $@

# And that of the hooks from the list that they are made of.
$(BUILD)/hooks: preload/hooks.c preload/sys/symbols.def
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(CC) $(ALL_CFLAGS) -Ipreload -o $@ $<

$(BUILD)/weft-hooks.7: $(BUILD)/hooks
	$(call say,MAN)
	$(Q)$< > $@.new && mv $@.new $@

# Unit tests: one program per file, linked with the library of its folder.
UNIT := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/*/test_*.c))
LINK_core := $(BUILD)/libcore.a
LINK_shim := $(BUILD)/libshim.a $(BUILD)/libcore.a
LINK_broker := $(BUILD)/libbroker.a $(BUILD)/libcore.a
LIBS_core := -lmsgpackc
LIBS_shim := $(SHIM_LIBS) -ldl -lpthread
LIBS_broker := $(BROKER_LIBS)
define unit_rule
$(BUILD)/tests/unit/$(1)/%: tests/unit/$(1)/%.c $(LINK_$(1))
	$$(call say,TEST)
	$$(Q)mkdir -p $$(@D) && $$(CC) $$(ALL_CFLAGS) -Ipreload -Ibroker -o $$@ $$< $(LINK_$(1)) $(LIBS_$(1)) -lcmocka -lpthread
endef
$(foreach room,core shim broker,$(eval $(call unit_rule,$(room))))

unit: $(UNIT)
	$(Q)fail=0; for t in $(UNIT); do echo "== $$t"; $$t || fail=1; done; exit $$fail

PROGRAMS := $(patsubst tests/interpose/%.c,$(BUILD)/tests/interpose/%,$(wildcard tests/interpose/*.c))
$(BUILD)/tests/interpose/%: tests/interpose/%.c
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(CC) $(ALL_CFLAGS) -o $@ $< -lpthread
programs: $(PROGRAMS)

# The programs of scripts/bench: a load generator that uses OpenSSL as any client does, and two probes.
BENCH := $(patsubst tests/bench/%.c,$(BUILD)/tests/bench/%,$(wildcard tests/bench/*.c))
$(BUILD)/tests/bench/%: tests/bench/%.c
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(CC) $(ALL_CFLAGS) -o $@ $< -lssl -lcrypto
bench-programs: $(BENCH)

# A library in use is replaced by rename, never written into.
install: all
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,lib bin share/man/man1 share/man/man5 share/man/man7 share/man/man8 \
		share/bash-completion/completions)
	install -m 755 $(BUILD)/libweft.so $(DESTDIR)$(PREFIX)/lib/libweft.so.new
	mv $(DESTDIR)$(PREFIX)/lib/libweft.so.new $(DESTDIR)$(PREFIX)/lib/libweft.so
	install -D -m 755 $(BUILD)/libwefttrace.so $(DESTDIR)$(PREFIX)/lib/weft/libwefttrace.so.new
	mv $(DESTDIR)$(PREFIX)/lib/weft/libwefttrace.so.new $(DESTDIR)$(PREFIX)/lib/weft/libwefttrace.so
	install -m 755 $(BUILD)/weftd $(BUILD)/weft $(DESTDIR)$(PREFIX)/bin
	install -m 644 broker/dist/weft.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 $(BUILD)/weft-keys.5 $(DESTDIR)$(PREFIX)/share/man/man5
	install -m 644 $(BUILD)/weft-hooks.7 $(DESTDIR)$(PREFIX)/share/man/man7
	install -m 644 broker/dist/weftd.8 $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 644 broker/dist/weft.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/weft

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -path $(BUILD)/suites -prune -o -name '*.d' -print 2>/dev/null)
