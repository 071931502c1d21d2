#!/usr/bin/env bash
# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Plays the role restore_point on two hosts of this machine, with directories. What happens to runs that die is tested in
# tests/lab/test_restore_points.py.
set -eu

ansible-playbook -i hosts.yml -e "folder=${OUTPUT_DIR}" play.yml "$@"
