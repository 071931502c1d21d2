#!/usr/bin/env bash
# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Plays the playbook health on four hosts: one is well, one has a fault, one has no agent, one does not answer.
set -eu

page="${OUTPUT_DIR}/restore points.html"
export ANSIBLE_CONNECTION_PLUGINS="${PWD}/connection" ANSIBLE_SHOW_CUSTOM_STATS=1
play() {
    ansible-playbook -i hosts.yml -e "folder=${OUTPUT_DIR}" "$@"
}
health() {
    play restorepoint.core.health -e "{\"health_page\": \"${page}\", \"health_become\": \"false\"}" "$@" | tee "${OUTPUT_DIR}/health.log"
}
fails() {
    if "$@" >"${OUTPUT_DIR}/failed.log" 2>&1; then
        echo "this did not fail: $*"
        exit 1
    fi
}
set -o pipefail

play prepare.yml "$@"

# In check mode hosts are asked all the same, and nothing is written.
health --check "$@"
grep -q '"status": "critical"' "${OUTPUT_DIR}/health.log"
[ ! -e "${page}" ]

health "$@"
play verify.yml -e "page='${page}' log='${OUTPUT_DIR}/health.log'" "$@"

# Whoever wants so has it fail where the fleet is bad, once the page is written.
rm "${page}"
fails health -e health_fail_on=critical "$@"
grep -q 'The fleet is critical: look at the page.' "${OUTPUT_DIR}/failed.log"
[ -e "${page}" ]
health -e health_fail_on=critical --limit well "$@"
