# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of directories."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hostpath_snapshot
short_description: Restore points of directories and hostPath volumes
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Takes snapshots of directories into a store, returns directories to them, clones them and thins them out.
  - A snapshot is a plain folder. C(ls), C(diff) and C(cp -a) understand it without this software. Files that did not
    change share their space with the snapshot before.
  - It works for any directory, with and without Kubernetes.
  - The best way the filesystem offers is found by asking it. A Btrfs subvolume is taken at one instant. Elsewhere
    unchanged files are hard links to the snapshot before, large files are reflinks where there are any, and the rest is
    copied with owner, mode, ACLs, extended attributes, holes, hard links and times.
extends_documentation_fragment:
  - restorepoint.core.attributes.state
  - restorepoint.core.attributes.actiongroup_hostpath
  - restorepoint.core.hostpath
  - restorepoint.core.snapshot
  - restorepoint.core.snapshot.keep
  - restorepoint.core.snapshot.asides
  - restorepoint.core.kubernetes
attributes:
  idempotent:
    support: full
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
    details:
      - A directory is returned only if it differs from the snapshot. That it does not is proven file by file.
options:
  state:
    description:
      - V(present), every target has a usable snapshot of this name.
      - V(absent), no target has one. Also removes what a return has set aside, by its name.
      - V(rolled_back), the content of every target is that of its snapshot.
      - V(cloned), there is a writable copy of the snapshot at O(clone).
      - V(pruned), the rules of O(keep) and O(asides) hold.
      - Either all targets of a call reach the state or none is changed.
    type: str
    choices: [present, absent, rolled_back, cloned, pruned]
    default: present
  clone:
    description: Where the clones go, one path for each target, in their order. Nothing may be there yet.
    type: list
    elements: path
  paths:
    description:
      - With O(state=rolled_back), return only these files and directories, given relative to the target.
    type: list
    elements: str
    default: []
  exclude:
    description:
      - With O(state=present), leave out what matches one of these patterns.
      - A pattern without a slash is matched against names at any depth, one with a slash against the path from the
        target down. C(*) does not match a slash, C(**) does, and C(**/) stands for any directories or none.
      - What was left out is not part of the snapshot. After a return it is found in what was set aside.
    type: list
    elements: str
    default: []
  keep_current:
    description:
      - With O(state=rolled_back), keep the content that was there under the name C({target}.aside-{UTC time}).
      - M(restorepoint.core.hostpath_snapshot_info) lists it, O(state=absent) removes it, and O(state=rolled_back)
        returns to it, by its name such as V(aside-20261122t013000z).
    type: bool
    default: true
  once:
    description:
      - A token, such as a job id or a date. A target is returned at most once for each token, so a job that is started
        again by accident does not throw away what came after.
    type: str
  ignore_users:
    description:
      - With O(state=rolled_back), go on although processes use the target or something has it mounted.
      - They go on writing into the content that was set aside, not into the one that was returned.
    type: bool
    default: false
  bandwidth_limit:
    description: Copy at most this many bytes a second, such as V(20M).
    type: str
  priority:
    description: With V(idle) the run gives way to everything else (nice 19, and disk I/O only when nobody wants any).
    type: str
    choices: [normal, idle]
    default: normal
  checksum:
    description:
      - With O(state=present), keep the SHA-256 of every file, so that a later C(verify) proves every byte. It means
        reading every byte that is copied.
      - Without it, C(verify) proves kind, size, mode, owner, times and attributes.
    type: bool
    default: false
  require_consistent:
    description:
      - With O(state=present), fail when a file did not hold still while it was read, instead of naming it in
        RV(results[].inconsistent).
    type: bool
    default: false
notes:
  - Only a Btrfs subvolume is taken at one instant, and is then as after a power cut (a file that was only just made may
    be empty). Elsewhere each file is whole, but files may be of different moments. Stop what writes, or bring it to
    rest, where that matters.
  - Processes and bind mounts that use a target stand in the way of its return, and are named. Run as root, so that
    those of other users are seen.
  - The names of snapshots are 1 to 128 characters of C(A-Za-z0-9._+-), and begin with a letter or digit.
  - Needs nothing but Python on the host, C(btrfs) for Btrfs subvolumes, and for O(pvc) the C(kubernetes) package
    where the login is not by a token or a client certificate.
seealso:
  - module: restorepoint.core.hostpath_snapshot_info
  - plugin: restorepoint.core.retention
    plugin_type: filter
requirements:
  - "python >= 3.9"
  - "kubernetes >= 24, with O(namespace), for logins other than by a token or a client certificate"
"""

EXAMPLES = r"""
- name: Take a restore point of a directory before an upgrade
  restorepoint.core.hostpath_snapshot:
    path: /srv/web
    store: /srv/.restorepoints
    name: pre-upgrade
    description: Before version 2
    max_age: 1h

- name: Return to it
  restorepoint.core.hostpath_snapshot:
    path: /srv/web
    store: /srv/.restorepoints
    name: pre-upgrade
    state: rolled_back

- name: Return one file of it, at most once for this job
  restorepoint.core.hostpath_snapshot:
    path: /srv/web
    store: /srv/.restorepoints
    name: pre-upgrade
    state: rolled_back
    paths:
      - conf/site.yml
    once: "{{ awx_job_id | default('by hand') }}"

- name: Take every hostPath volume of a namespace, every night
  restorepoint.core.hostpath_snapshot:
    namespace: web
    store: /backup/restorepoints
    name: "{{ lookup('restorepoint.core.snapshot_name', 'nightly') }}"
    owner: nightly
    priority: idle

- name: Keep a week of days, a month of weeks and a year of months
  restorepoint.core.hostpath_snapshot:
    namespace: web
    store: /backup/restorepoints
    owner: nightly
    state: pruned
    keep:
      daily: 7
      weekly: 4
      monthly: 12
    timezone: Europe/Paris
    asides:
      last: 1

- name: Look at a copy of last night
  restorepoint.core.hostpath_snapshot:
    path: /srv/web
    store: /srv/.restorepoints
    name: pre-upgrade
    state: cloned
    clone: /srv/web-before
"""

RETURN = r"""
name:
  description: The name that was asked for.
  returned: always
  type: str
  sample: pre-upgrade
state:
  description: The state that was asked for.
  returned: always
  type: str
  sample: present
results:
  description: What was done on each target, or why nothing was.
  returned: always
  type: list
  elements: dict
  contains:
    target:
      description: The directory.
      type: str
      sample: /srv/web
    name:
      description: The snapshot. None where the result is about the target as a whole.
      type: str
      sample: pre-upgrade
    action:
      description:
        - What was done. One of V(created), V(replaced), V(described), V(removed), V(rolled_back), V(cloned),
          V(unchanged), V(failed), V(undone) and V(none).
      type: str
      sample: created
    changed:
      description: Whether that changed anything.
      type: bool
      sample: true
    reason:
      description: Why it was done, or why not.
      type: str
      sample: there is no snapshot 'pre-upgrade'
    seconds:
      description: How long it took.
      type: float
      sample: 1.25
    snapshot:
      description: The snapshot, as M(restorepoint.core.hostpath_snapshot_info) shows it.
      type: dict
      sample: {"name": "pre-upgrade", "created": "2026-11-22T01:30:00Z", "ready": true}
    strategy:
      description: How it was taken. One of V(subvolume), V(reflink), V(hardlink) and V(copy).
      type: str
      sample: hardlink
    files:
      description: How many files it holds.
      type: int
      sample: 100000
    directories:
      description: How many directories it holds, the target itself included.
      type: int
      sample: 4000
    others:
      description: How many links, fifos, sockets and devices it holds.
      type: int
      sample: 12
    bytes:
      description: How many bytes the files hold.
      type: int
      sample: 450000000
    copied_files:
      description: How many of them had to be copied.
      type: int
      sample: 1000
    copied_bytes:
      description: How many bytes were written for that.
      type: int
      sample: 4500000
    linked_files:
      description: How many of them are hard links to the snapshot before.
      type: int
      sample: 99000
    cloned_files:
      description: How many of them are reflinks.
      type: int
      sample: 0
    inconsistent:
      description: Files that did not hold still while they were read.
      type: list
      elements: str
      sample: [log/current]
    left_out:
      description:
        - Directories that are empty in the snapshot, because something else is mounted on them, or because they are
          Btrfs subvolumes inside the one that was taken.
      type: list
      elements: str
      sample: [tmp]
    not_kept:
      description: What privileges or the filesystem did not let the snapshot keep, by kind, with examples.
      type: dict
      sample: {"ownership": {"count": 2, "examples": ["etc/shadow", "etc/gshadow"]}}
    aside:
      description: What the content that was there is called now.
      type: dict
      sample: {"name": "aside-20261122t013000z", "path": "/srv/web.aside-20261122t013000z"}
    unseen_users:
      description:
        - Who may use the directory and could not be looked at, because this run lacks the privileges for it.
        - Those who use it go on writing into the content that was set aside.
      type: list
      elements: str
      sample: ["processes of other users, which procfs hides (hidepid)"]
    clone:
      description: Where the clone is.
      type: str
      sample: /srv/web-before
spread_seconds:
  description: How far apart the snapshots of this call lie.
  returned: when more than one was taken
  type: float
  sample: 2.0
decisions:
  description: What the keep rules say of each snapshot, and why.
  returned: O(state=pruned)
  type: list
  elements: dict
  sample: [{"target": "/srv/web", "name": "nightly-20261121t013000z", "keep": true, "reason": "daily 2/7"}]
audit:
  description: One record for each change that was made or failed.
  returned: always
  type: list
  elements: dict
  sample:
    - when: "2026-11-22T01:30:00Z"
      who: root (sudo by alice)
      backend: hostpath
      target: /srv/web
      change: create
      name: pre-upgrade
      outcome: done
diff:
  description:
    - The two ends of what was done, by target. What a return sets aside is not in it.
  returned: success, in diff mode
  type: dict
  contains:
    before:
      description: The snapshots of each target that changes, with their descriptions and labels.
      type: dict
      sample: {"/srv/web": {"snapshots": {}}}
    after:
      description: The same afterwards.
      type: dict
      sample: {"/srv/web": {"snapshots": {"pre-upgrade": {"description": "Before version 2", "labels": {}}}}}
blockers:
  description: Every fact that forbids what was asked, on every target. Nothing was changed.
  returned: when there is any
  type: list
  elements: dict
  sample:
    - target: /srv/web
      reason: pid 4711 (nginx) has access.log open
      remedy: "stop it, or set ignore_users: true"
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.hostpath import run_state


def main() -> None:
    run_state()


if __name__ == "__main__":
    main()
