# SPDX-License-Identifier: GPL-2.0
#
# The door for people. What the kernel's build system reads is Kbuild.

SHELL := bash

KDIR ?=
MACHINES := uml kasan debug stock

# make check MACHINE=uml,debug TEST=GLOB, or M and T for short; nothing means all.
machine = $(or $(M),$(MACHINE))
test = $(or $(T),$(TEST))

# M is Kbuild's word too: it must not reach the kernel's make by itself.
MAKEOVERRIDES :=
unexport M T MACHINE TEST

.PHONY: all
all: ## nft_offload.ko for the running kernel, or for the one in KDIR=DIR
	@scripts/module $(KDIR)

.PHONY: install uninstall
install: ## the module, a modprobe.d file that keeps the C module away, depmod
	@scripts/install install $(KDIR)

uninstall: ## takes them away again
	@scripts/install uninstall $(KDIR)

.PHONY: deb
deb: ## the Debian packages, in build/
	@scripts/deb

.PHONY: tool
tool: ## the operator's command line, build/tool/nft-offload, with man pages and completions
	@scripts/tool build

.PHONY: setup
setup: ## build root, kernel source and the kernels of all machines
	@scripts/setup

.PHONY: demo
demo: ## real connections through NAT in the emulated NIC, on the stock kernel; ARCH=arm64: on that one
	@scripts/setup root source stock
	@echo "module and emulated NIC for the stock kernel …"
	@$(MAKE) --no-print-directory module-stock
	@VM_BUILT=1 scripts/demo

.PHONY: check
check: ## all tests; TEST=GLOB MACHINE=uml,kasan,debug,stock: some; KERNEL=7.2: with another kernel; ALSO="7.2 arm64": there too
	@TEST='$(test)' MACHINE='$(machine)' scripts/check

.PHONY: canary
canary: ## the newest kernels of Debian's sid and experimental: does it build, boot, offload
	@scripts/canary

.PHONY: kselftest-install
kselftest-install: ## the tests, for the kernel's own runner, in INSTALL_PATH=DIR; KDIR=DIR: and the modules for that kernel
	@scripts/kselftest-install '$(INSTALL_PATH)' $(KDIR)

.PHONY: drivers-table
drivers-table: ## the tables of Documentation/drivers.md, from what a run finds
	@rm -f build/check/uml/{drivers,lax}.md
	@TEST='@(profiles|drivers-lax)' MACHINE=uml scripts/check >/dev/null || \
		[ -s build/check/uml/drivers.md -a -s build/check/uml/lax.md ]
	@for table in drivers lax; do \
		scripts/enter -- scripts/insert-table $$table build/check/uml/$$table.md Documentation/drivers.md; \
	done
	@git --no-pager diff --stat Documentation/drivers.md

.PHONY: tested-table
tested-table: ## the table of README.md, of what the last whole `make check` has tested
	@scripts/enter -- scripts/insert-table tested build/check/tested.md README.md
	@git --no-pager diff --stat README.md

.PHONY: reasons-table
reasons-table: ## the list of all reasons of Documentation/operator.md, from the tool's source
	@mkdir -p build/tool
	@scripts/tool reasons >build/tool/reasons.md
	@scripts/enter -- scripts/insert-table reasons build/tool/reasons.md Documentation/operator.md
	@git --no-pager diff --stat Documentation/operator.md

.PHONY: fuzz
fuzz: ## the translation against the C functions, seed after seed, for FUZZ_SECONDS (3600)
	@$(MAKE) --no-print-directory module-uml
	@FUZZ_SECONDS='$(FUZZ_SECONDS)' scripts/fuzz

.PHONY: fuzz-router
fuzz-router: ## routers side by side through stories at random, for FUZZ_SECONDS (3600); SEED=N: one; ONLY=rule,xfrm
	@$(MAKE) --no-print-directory module-uml
	@FUZZ_SECONDS='$(FUZZ_SECONDS)' SEED='$(SEED)' STORY='$(STORY)' ONLY='$(ONLY)' C='$(C)' scripts/fuzz-router

.PHONY: bench bench-core bench-doc stress
bench: ## this module and the C module side by side: build/bench.json, tables and plots; SCALE_FLOWS (100000)
	@scripts/bench

bench-core: ## of it, what a flow costs, with few flows: CORE_FLOWS (20000), CORE_PAIRS (1; 0: instructions), CORE_PROFILE
	@scripts/bench-core

bench-doc: bench ## and puts tables and plots into Documentation
	@for name in truth scale; do \
		scripts/enter -- scripts/insert-table $$name build/bench/$$name.md Documentation/$$name.md && \
		cp build/bench/$$name.svg Documentation/$$name.svg || exit; \
	done
	@scripts/enter -- scripts/insert-table core build/bench/core.md Documentation/scale.md

stress: ## all events at random on MACHINE (debug) for STRESS_SECONDS (600); STRESS_SEED repeats a run
	@$(MAKE) --no-print-directory module-$(or $(machine),debug)
	@VM_BUILT=1 scripts/vm --machine $(or $(machine),debug) --timeout 0 -- env \
		STRESS_SECONDS='$(or $(STRESS_SECONDS),600)' STRESS_SEED='$(STRESS_SEED)' \
		/src/tests/truth/stress.sh
	@scripts/judge-log build/vm/$(or $(machine),debug).log

.PHONY: shell
shell: ## a machine with NIC, namespaces and module, ready to play with
	@echo "module and emulated NIC for the uml kernel …"
	@$(MAKE) --no-print-directory module-uml
	@scripts/shell

# The module and the emulated NIC for one of the machines, in build/<machine>.
.PHONY: $(addprefix module-,$(MACHINES))
$(addprefix module-,$(MACHINES)): module-%:
	@scripts/build-for --machine $* -- scripts/kbuild $*

.PHONY: fmt clippy doc rust-analyzer
fmt: ## formats the Rust code as the kernel does, and the tool's
	@scripts/build-for -- scripts/rust fmt
	@scripts/tool fmt

clippy: ## the linter, with the kernel's own settings
	@scripts/build-for -- scripts/rust clippy

doc: ## rustdoc of the module, in build/doc
	@scripts/build-for -- scripts/rust doc

rust-analyzer: ## rust-project.json for editors
	@. scripts/lib.sh; scripts/build-for -- env HOST_TOP="$$TOP" HOST_CACHE="$$CACHE" \
		HOST_ROOT="$$(root_dir)" scripts/rust rust-analyzer

.PHONY: clean distclean
clean: ## removes build/
	rm -rf build rust-project.json

distclean: clean ## removes the cache of build root and kernels as well
	@scripts/setup --remove

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z][a-z -]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16
