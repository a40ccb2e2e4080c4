# SPDX-License-Identifier: GPL-3.0-or-later
# Entry points of the toolkit; `make help` lists them. Nothing here does work itself: each target calls one tool.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export HYBRID_VMM_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/hybrid-vmm
export LAB ?= 0
export LAB_DISTRO ?= bookworm
export PYTHON ?= /usr/bin/python3

VENV := $(HYBRID_VMM_CACHE)/venv-$(shell sha256sum requirements.txt | cut -c 1-12)
export PATH := $(VENV)/bin:$(PATH)
# Arguments handed on to what the target runs, not to what it needs: make unit ARGS='-k policy', make build ARGS='-v'
ARGS ?=

say = @printf '%s make %s\n' "$$(date +%H:%M:%S)" '$@'

.PHONY: help env build lab lab-down lab-ssh demo test lint docs-parity unit patches patches-build stock-tests mutations qemu-test conformance \
        conformance-docs molecule bench bench-docs soak qemu-src qemu-rebase qemu-export clean

##@ Start here
help: ## this text
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n%s\n' 'Variables: LAB=<n> (lab host number, 0), LAB_DISTRO=bookworm|trixie, ARGS=<handed on>,' \
	  '  MINUTES=<n> and SEED=<n> of make soak, HYBRID_VMM_CACHE=<folder> (now: $(HYBRID_VMM_CACHE))'

demo: build ## everything: build, lab host, two guests, kvm to tcg and back, a table
	$(say)
	tools/demo $(ARGS)

test: ## all tests: lint docs-parity unit patches build qemu-test molecule
	tools/stages lint docs-parity unit patches build qemu-test molecule

##@ Pieces
env: ## Debian packages and the Python venv that everything runs in
	@tools/bootstrap
	@tools/env '$(VENV)'

build: env ## the patched QEMU as one relocatable artifact (cached by the hash of its inputs)
	$(say)
	ansible-playbook playbooks/build.yml $(if $(filter build,$(MAKECMDGOALS)),$(ARGS))

lab: build ## a running lab host (a VM that plays a KVM host): LAB=0 LAB_DISTRO=bookworm
	$(say)
	python -m lab up

lab-down: ## remove the lab host
	@if [ -x '$(VENV)/bin/python' ]; then '$(VENV)/bin/python' -m lab down; else $(PYTHON) -m lab down; fi

lab-ssh: ## a shell on the lab host
	@$(PYTHON) -m lab ssh $(ARGS)

##@ Tests, each by itself
lint: env ## ansible-lint, yamllint, ruff, mypy, codespell
	$(say)
	tools/lint

docs-parity: env ## documentation says what the code says
	$(say)
	pytest tests/docs $(ARGS)

unit: env ## pure functions, no QEMU, no hosts
	$(say)
	pytest tests/unit $(ARGS)

patches: env ## the QEMU series: applies without fuzz, checkpatch, licences
	$(say)
	pytest tests/patches $(ARGS)

patches-build: env ## build QEMU after each patch of the series (minutes each)
	$(say)
	tools/patches-build $(ARGS)

stock-tests: build ## QEMU's own tests with and without the series (half an hour)
	$(say)
	tools/stock-tests $(ARGS)

mutations: build ## take fixes out of the series one by one: the tests named for them must fail (a quarter of an hour)
	$(say)
	python tests/qemu/mutations.py $(ARGS)

qemu-test: build ## the test guest and the built QEMU itself, no Ansible
	$(say)
	pytest tests/guest tests/soak tests/qemu $(ARGS)

conformance: build ## the bare-metal tests under stock KVM, stock TCG and hybrid, writes reports/conformance.json
	$(say)
	python tests/qemu/conformance/run.py $(ARGS)

conformance-docs: env ## put reports/conformance.json into docs/: the table
	$(say)
	python tests/qemu/conformance/table.py

molecule: build ## roles and playbooks on a lab host
	$(say)
	tools/molecule $(ARGS)

bench: build ## compare with stock QEMU, writes reports/bench.json: ARGS='--only memory_overhead --runs 5'
	$(say)
	python tests/bench/bench.py $(ARGS)

bench-docs: env ## put reports/bench.json into docs/: table and picture
	$(say)
	python tests/bench/document.py

soak: build ## random switches under a guest that verifies its work, writes reports/soak.json: MINUTES=60 SEED=1
	$(say)
	python tests/soak/soak.py $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

##@ The QEMU series
qemu-src: env ## unpack the QEMU source with the series as git commits
	$(say)
	tools/qemu-src $(ARGS)

qemu-rebase: env ## move them to another point release: PINS=file.yml
	$(say)
	tools/qemu-rebase $(PINS)

qemu-export: env ## write those commits back as patches
	$(say)
	tools/qemu-export $(ARGS)

clean: ## remove lab hosts, reports and tool caches (artifacts, images and venvs stay; see HYBRID_VMM_CACHE)
	@$(PYTHON) -m lab down --all
	rm -rf reports .mypy_cache .pytest_cache .ruff_cache .hypothesis .ansible .venv
