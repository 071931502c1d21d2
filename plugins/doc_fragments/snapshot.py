# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that every module of a kind of storage shares, documented once; bridge/spec.py is their spec."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  name:
    description:
      - The name of the snapshot. Needed for every O(state) except V(pruned).
      - The lookup P(restorepoint.core.snapshot_name#lookup) makes a name that is valid for every backend.
    type: str
  description:
    description:
      - A sentence for people. When it differs from that of a snapshot that is there, it is changed in place.
      - Without this option, the description that is there stays.
    type: str
  labels:
    description:
      - Labels of the snapshot, as a mapping. Values are kept as text.
      - They are compared and changed as a whole. Without this option, those that are there stay.
    type: dict
  owner:
    description:
      - Who takes the snapshot. It is written in the snapshot's own metadata.
      - With O(state=pruned), only snapshots of this owner are thinned out.
    type: str
    default: manual
  max_age:
    description:
      - With O(state=present), how old a snapshot of this name may be to count, such as V(2h) or V(1d12h).
      - An older one is an error, or with O(replace=true) is replaced.
      - "The units are V(s), V(min), V(h), V(d) and V(w)."
    type: str
  replace:
    description:
      - With O(state=present), let a new snapshot take the place of one that does not count. One does not count if it
        is older than O(max_age), if it is damaged, or if only some of the targets have it.
      - The old one goes when the new one is safe.
    type: bool
    default: false
  on_failure:
    description:
      - What to do with what this call has made when one of its targets fails.
      - V(undo) takes all of it back. V(keep) leaves it. The task fails in either case, and RV(results) says what was
        done on each target.
    type: str
    choices: [undo, keep]
    default: undo
  audit_log:
    description:
      - A file to which a line of JSON is appended for every change. It is made with mode 0600.
      - The same lines are in RV(audit).
    type: path
  progress_file:
    description:
      - A file to which a line of JSON is appended now and then while the module works, so that a long run can be
        watched.
      - What is told depends on the storage. It is files and bytes of copies, merges of LVM, removals of ZFS, and steps
        of guests and claims. Of Btrfs nothing is, and the file stays empty.
    type: path
"""

    FIELDS = r"""
options:
  fields:
    description:
      - Show only these fields of each snapshot and each aside, such as V(target), V(name) and V(created). Without this
        option, or with an empty list, all are shown.
      - Ansible looks at every value that a module returns. So a long list costs less with few fields.
      - In RV(tree), each snapshot keeps its C(name) and its C(children), and of the rest what is among the fields.
      - What other options add to a snapshot, and all else that the module returns, stays as it is.
    type: list
    elements: str
    choices:
      - backend
      - target
      - name
      - created
      - owner
      - policy
      - description
      - labels
      - size_bytes
      - referenced_bytes
      - parent
      - ready
      - held
      - in_use
      - extra
"""

    KEEP = r"""
options:
  keep:
    description:
      - With O(state=pruned), which snapshots stay. What no rule keeps is removed.
      - The rules work as in Proxmox VE. They are applied from the finest to the coarsest, each from the newest snapshot
        to the oldest, and a coarser rule passes over periods that a finer one has covered.
      - The newest usable snapshot stays in any case, and so do those that are held or in use.
      - V(-1) keeps one of every period. V(0) is the same as leaving the rule out.
    type: dict
    suboptions:
      last:
        description: How many of the newest snapshots stay.
        type: int
      hourly:
        description: For how many hours the newest snapshot of the hour stays. Hours are those of UTC.
        type: int
      daily:
        description: For how many days the newest snapshot of the day stays.
        type: int
      weekly:
        description: For how many ISO weeks the newest snapshot of the week stays.
        type: int
      monthly:
        description: For how many months the newest snapshot of the month stays.
        type: int
      quarterly:
        description: For how many quarters the newest snapshot of the quarter stays.
        type: int
      yearly:
        description: For how many years the newest snapshot of the year stays.
        type: int
      within:
        description: Everything younger than this stays, such as V(48h), whatever the counts say.
        type: str
      max_age:
        description:
          - Everything older than this goes, even if another rule would keep it.
          - Given alone, everything younger stays.
        type: str
  timezone:
    description: The time zone in which days, weeks, months, quarters and years begin, such as V(Europe/Paris).
    type: str
    default: UTC
  min_keep:
    description: So many of the newest snapshots stay, whatever the rules say.
    type: int
    default: 1
  min_age:
    description: Snapshots younger than this are never removed, such as V(1h).
    type: str
  max_delete:
    description:
      - Fail, with nothing removed, when the rules would remove more than this from one target.
      - A number, or a percentage of the snapshots that could go, such as V(20%).
    type: str
  require_recent:
    description:
      - Remove nothing from a target whose newest usable snapshot is older than this, such as V(2d).
      - So an outage does not eat the history.
    type: str
  match:
    description:
      - With O(state=pruned), also thin out snapshots of other owners whose name matches one of these patterns, such
        as V(pre-upgrade-*).
    type: list
    elements: str
    default: []
"""

    ASIDES = r"""
options:
  asides:
    description:
      - With O(state=pruned), which of the contents that returns have set aside stay. The rules are those of O(keep).
      - Without this option none is removed. O(state=absent) removes one by its name.
    type: dict
    suboptions:
      last:
        description: How many of the newest stay.
        type: int
      hourly:
        description: For how many hours the newest of the hour stays.
        type: int
      daily:
        description: For how many days the newest of the day stays.
        type: int
      weekly:
        description: For how many ISO weeks the newest of the week stays.
        type: int
      monthly:
        description: For how many months the newest of the month stays.
        type: int
      quarterly:
        description: For how many quarters the newest of the quarter stays.
        type: int
      yearly:
        description: For how many years the newest of the year stays.
        type: int
      within:
        description: Everything younger than this stays, such as V(48h).
        type: str
      max_age:
        description: Everything older than this goes, except the newest.
        type: str
"""
