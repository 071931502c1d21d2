# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lookup restorepoint.core.snapshot_name: an automatic name, valid on every backend at once.

Thin: core/names.py holds the rule. Called by Ansible's templating.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: snapshot_name
short_description: Make a name for a snapshot that is valid on every kind of storage
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Gives C({owner}-{UTC time}), such as V(hourly-20261122t013000z).
  - Such a name is valid for directories, Btrfs, ZFS, LVM, Proxmox VE and Kubernetes alike, so that one restore point
    has one name everywhere. The names of one owner sort by time.
options:
  _terms:
    description:
      - Who takes the snapshot, such as the name of a policy. A name is made for each term.
      - 2 to 23 characters of C(a-z), C(0-9) and C(-), beginning with a letter. Names that LVM or Proxmox VE reserve are
        refused.
    type: list
    elements: str
    required: true
notes:
  - Ansible evaluates a lookup anew each time it meets it, for each host and each task. Where several hosts or several
    tasks have to use the same name, make it once with P(ansible.builtin.set_fact#module) and C(run_once), as the
    example shows.
seealso:
  - module: restorepoint.core.hostpath_snapshot
  - plugin: restorepoint.core.retention
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Make the name once, for all hosts of the play
  ansible.builtin.set_fact:
    restore_point: "{{ lookup('restorepoint.core.snapshot_name', 'hourly') }}"
  run_once: true

- name: Take a snapshot under that name on every host
  restorepoint.core.hostpath_snapshot:
    path:
      - /srv/data
    store: /srv/snapshots
    name: "{{ restore_point }}"
    owner: hourly
"""

RETURN = r"""
_raw:
  description: A name for each term, all of the same moment.
  type: list
  elements: str
  sample:
    - hourly-20261122t013000z
"""

import time
from collections.abc import Sequence
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.core.names import automatic_name


class LookupModule(LookupBase):
    """What Ansible asks for."""

    def run(self, terms: Sequence[Any], variables: Any = None, **kwargs: Any) -> list[str]:
        """Return a name for each owner; raise AnsibleLookupError with one sentence."""
        moment = int(time.time())
        if not terms:
            raise AnsibleLookupError("Cannot name a snapshot: no owner is given; name one, such as 'hourly'.")
        try:
            return [automatic_name(str(owner), moment) for owner in terms]
        except RestorePointError as error:
            raise AnsibleLookupError(str(error)) from None
