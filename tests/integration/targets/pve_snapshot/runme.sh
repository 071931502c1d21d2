#!/usr/bin/env bash
# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Starts the test server of Proxmox VE, and plays the modules and the collection's playbooks against it.
set -euo pipefail

server="${OUTPUT_DIR}/pve-server.json"
PYTHONPATH="${ANSIBLE_COLLECTIONS_PATH%%:*}${PYTHONPATH:+:${PYTHONPATH}}" \
    "${ANSIBLE_TEST_PYTHON_INTERPRETER:-python}" -m ansible_collections.restorepoint.core.tests.pve_server \
    --ready-file "${server}" --max-seconds 3600 >"${OUTPUT_DIR}/pve-server.log" 2>&1 &
pid=$!
trap 'kill "${pid}" || true' EXIT
for _ in $(seq 3000); do
    [ -e "${server}" ] && break
    sleep 0.1
done

value() {
    "${ANSIBLE_TEST_PYTHON_INTERPRETER:-python}" -c \
        'import json, sys; found = json.load(open(sys.argv[1])); [found := found[key] for key in sys.argv[2:]]; print(found)' \
        "${server}" "$@"
}
play() {
    ansible-playbook -i localhost, -e 'ansible_python_interpreter={{ ansible_playbook_python }}' "$@"
}
# All of what is piped in is read, or who prints it would fail with a broken pipe.
says() {
    if [ "$(grep -c -- "$1")" = 0 ]; then
        echo "not said: $1"
        exit 1
    fi
}
lacks() {
    if [ "$(grep -c -- "$1")" -gt 0 ]; then
        echo "said after all: $1"
        exit 1
    fi
}
fails() {
    if "$@" >"${OUTPUT_DIR}/failed.log" 2>&1; then
        echo "this did not fail: $*"
        exit 1
    fi
}
PROXMOX_HOST=$(value host)
PROXMOX_PORT=$(value port)
PROXMOX_USER=$(value user)
PROXMOX_PASSWORD=$(value password)
PROXMOX_CA_PATH=$(value ca_path)
export PROXMOX_HOST PROXMOX_PORT PROXMOX_USER PROXMOX_PASSWORD PROXMOX_CA_PATH
programs=$(value programs pve1)
tool() {
    "${programs}/pve-test-server" "$@"
}

play states.yml "$@"

# The collection's playbooks, as AWX calls them: variables are text. First in check mode, then twice.
running='{"restore_point": "pre-maintenance", "pve_exclude": "103,105,108,201,203", "pve_max_age": "1h"}'
take() {
    play restorepoint.core.pve_take_restore_point -e "${running}" "$@"
}
take --check "$@" | says 'changed=1'
tool guest 104 | lacks pre-maintenance
take "$@" | says 'changed=1'
tool guest 104 | says pre-maintenance
take "$@" | says 'changed=0'
play restorepoint.core.pve_list_snapshots -e pve_vmids=100,200 "$@" | says 'pre-maintenance'
play restorepoint.core.pve_list_snapshots -e pve_older_than=30 "$@"
play restorepoint.core.pve_remove_old_snapshots -e pve_days=30 -e 'pve_match=*' --check "$@" | says 'changed=0'
play restorepoint.core.pve_remove_old_snapshots -e pve_days=30 -e 'pve_match=*' "$@" | says 'changed=0'
fails play restorepoint.core.pve_remove_old_snapshots
grep -q 'Set pve_days to the number of days' "${OUTPUT_DIR}/failed.log"
tool write 101 now
play restorepoint.core.pve_roll_back_guest -e pve_vmid=101 -e restore_point=pre-maintenance -e pve_once=job-1 "$@"
tool guest 101 | lacks '"now"'
tool write 101 later
play restorepoint.core.pve_roll_back_guest -e pve_vmid=101 -e restore_point=pre-maintenance -e pve_once=job-1 "$@" \
    | says 'changed=0'
tool guest 101 | says '"later"'
for point in one two three; do
    play restorepoint.core.pve_take_restore_point -e "restore_point=nightly-${point}" -e pve_owner=nightly \
        -e pve_vmids=101,202 "$@"
done
prune() {
    play restorepoint.core.pve_prune_by_policy -e pve_owner=nightly -e pve_keep_last=1 "$@"
}
prune --check "$@" | says 'changed=1'
tool guest 202 | says nightly-one
prune "$@" | says 'changed=1'
tool guest 202 | says nightly-three
tool guest 202 | lacks nightly-one
prune "$@" | says 'changed=0'

# On the nodes themselves, through pvesh: no credential at all.
nodes="${OUTPUT_DIR}/nodes.json"
"${ANSIBLE_TEST_PYTHON_INTERPRETER:-python}" nodes.py "${server}" >"${nodes}"
on_nodes() {
    env -u PROXMOX_HOST -u PROXMOX_USER -u PROXMOX_PASSWORD -u PROXMOX_CA_PATH ansible-playbook -i "${nodes}" \
        restorepoint.core.pve_on_nodes -e restore_point=on-nodes -e pve_exclude=103,105,108,201,203 -e pve_become=no \
        "$@" | tee "${OUTPUT_DIR}/nodes.log"
}
on_nodes --check "$@"
tool guest 104 | lacks on-nodes
on_nodes "$@"
tool guest 104 | says on-nodes
on_nodes "$@"
grep -c 'changed=0 ' "${OUTPUT_DIR}/nodes.log" | grep -qx 2

# Secrets are in no log, result, diff or exception, however much is printed.
secrets="${OUTPUT_DIR}/secrets.log"
export PROXMOX_PASSWORD=hunter2-of-nobody
secret=11111111-2222-3333-4444-555555555555
printf '{"login": {"api_token_id": "full", "api_token_secret": "%s"}}' "${secret}" >"${OUTPUT_DIR}/login.json"
printf '{"login": {"api_port": 1, "api_token_id": "full", "api_token_secret": "%s"}}' "${secret}" \
    >"${OUTPUT_DIR}/nowhere.json"
{
    fails play secrets.yml -vvvv --diff
    cat "${OUTPUT_DIR}/failed.log"
    play secrets.yml -vvvv --diff -e "@${OUTPUT_DIR}/login.json"
    fails play secrets.yml -vvvv -e "@${OUTPUT_DIR}/nowhere.json"
    cat "${OUTPUT_DIR}/failed.log"
} >"${secrets}" 2>&1
grep -q 'was not let in' "${secrets}"
grep -q 'with-a-token' "${secrets}"
grep -q 'Connection refused' "${secrets}"
if grep -n "hunter2-of-nobody\|${secret}\|PVEAuthCookie=\|PVE:root@pam:" "${secrets}"; then
    echo 'a secret was printed'
    exit 1
fi
