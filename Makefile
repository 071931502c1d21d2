# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

PYTHON ?= python3
NOX := $(PYTHON) tools/run_nox.py

.DEFAULT_GOAL := help
.PHONY: help units types lint sanity format

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

units: ## Unit tests, at once (ARGS="-k words" goes to pytest)
	@$(NOX) --session units -- $(ARGS)

types: ## mypy, strict
	@$(NOX) --session types

lint: ## ruff and yamllint
	@$(NOX) --session lint

format: ## Lay out the Python files as ruff wants them (ARGS="files")
	@$(NOX) --session format -- $(ARGS)

sanity: ## ansible-test sanity on two series of ansible-core
	@$(NOX) --session sanity -- $(ARGS)
