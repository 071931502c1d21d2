# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Every target works from a fresh clone: environments are built in ${XDG_CACHE_HOME:-~/.cache}/restorepoint.
# ARGS goes on to the tool: make units ARGS="-k retention", make integration ARGS="filter_retention".
PYTHON ?= python3
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/restorepoint
NOX := $(PYTHON) tools/run_nox.py

.DEFAULT_GOAL := help
.PHONY: help demo test units runner matrix sanity integration molecule lab lint format types ansible-lint licence importer \
	docs changelog bench bench-pve bench-csi bench-agent pythons clean guest guest-reset guest-stop guest-ssh guest-tests cluster \
	cluster-reset cluster-stop cluster-tests agent report-page pictures

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## See it work: no root needed, under two minutes
	@$(PYTHON) tools/demo.py $(ARGS)

test: ## Everything below that can fail, as CI runs it
	@$(PYTHON) tools/debian_packages.py
	@$(PYTHON) tools/guest.py build-behind
	@$(PYTHON) tools/cluster.py build-behind
	@$(NOX)

units: ## Unit tests with pytest alone, for while you work
	@$(NOX) --session units -- $(ARGS)

matrix: ## Unit tests on every ansible-core and every Python there is
	@$(NOX) --session units-matrix -- $(ARGS)

sanity: ## ansible-test sanity on two series of ansible-core
	@$(NOX) --session sanity -- $(ARGS)

integration: ## ansible-test integration
	@$(NOX) --session integration -- $(ARGS)

molecule: ## Every molecule scenario
	@$(NOX) --session molecule -- $(ARGS)

runner: ## Playbooks under ansible-runner, as AWX runs them; what AWX is set up with; execution environments
	@$(NOX) --session runner -- $(ARGS)

lab: ## Tests on real filesystems (loop devices, root), and long ones of faults
	@$(NOX) --session lab -- $(ARGS)

report-page: ## The report's page in headless Chromium: no fault, no overflow (built at the first time)
	@$(NOX) --session report-page -- $(ARGS)

pictures: ## Make the pictures of docs/report.md anew
	@$(NOX) --session pictures

agent: ## Build restorepoint.pyz, the engine for hosts without Ansible
	@$(PYTHON) tools/agent.py $(ARGS)

guest: ## Boot a machine with real LVM, ZFS and systemd (root; built at the first time)
	@$(PYTHON) tools/guest.py start

guest-reset: ## The same, with empty disks
	@$(PYTHON) tools/guest.py reset

guest-stop: ## Shut it down
	@$(PYTHON) tools/guest.py stop

guest-ssh: ## A shell in it, or ARGS="COMMAND"
	@$(PYTHON) tools/guest.py ssh $(ARGS)

guest-tests: ## Tests in the guest; RP_GUEST=NAME takes one of your own, RP_GUEST_KEEP=1 leaves its disks
	@$(NOX) --session guest-tests -- $(ARGS)

cluster: ## Start a real Kubernetes control plane with CSI snapshots (no root; built at the first time)
	@$(PYTHON) tools/cluster.py start

cluster-reset: ## The same, with nothing in it
	@$(PYTHON) tools/cluster.py reset

cluster-stop: ## End it
	@$(PYTHON) tools/cluster.py stop

cluster-tests: ## Tests on it; RP_CLUSTER=NAME takes one that runs, KUBECONFIG_LAB=FILE one of yours
	@$(NOX) --session cluster-tests -- $(ARGS)

lint: ## ruff and yamllint
	@$(NOX) --session lint

format: ## Bring Python files into ruff's layout
	@$(NOX) --session format -- $(ARGS)

types: ## mypy, strict
	@$(NOX) --session types

ansible-lint: ## ansible-lint, production profile
	@$(NOX) --session ansible-lint -- $(ARGS)

licence: ## Licence headers, and what antsibull-nox checks besides
	@$(NOX) --session license-check extra-checks

importer: ## Build the collection and judge it as Galaxy would
	@$(NOX) --session importer

docs: ## Check the documentation and build the site into docs/_build/html
	@$(NOX) --session docs

changelog: ## Check the changelog's fragments
	@$(NOX) --session changelog

bench: ## Side by side with what others do; ARGS=tests/bench/bench_zfs.py for one
	@$(NOX) --session bench -- $(ARGS)

bench-pve: ## Proxmox VE alone: beside a loop over community.proxmox
	@$(NOX) --session bench -- tests/bench/bench_pve.py $(ARGS)

bench-csi: ## Kubernetes alone: beside kubernetes.core
	@$(NOX) --session bench -- tests/bench/bench_csi.py $(ARGS)

bench-agent: ## The agent alone: its start, and 1,000 datasets beside sanoid
	@$(NOX) --session bench -- tests/bench/bench_agent.py $(ARGS)

pythons: ## Show which Pythons of this machine are used
	@$(PYTHON) tools/pythons.py

clean: ## Remove what the targets above left behind, the cache included
	@$(PYTHON) tools/guest.py end-all
	@$(PYTHON) tools/cluster.py end-all
	rm -rf docs/_build tests/output .nox .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis "$(CACHE)"
