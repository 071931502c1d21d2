# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Between two steps of a restore point over several hosts. The action of this name does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_point_gate
short_description: Judge what all hosts of a play have told about a restore point
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - A part of the role P(restorepoint.core.restore_point#role), which is what to use. Between two steps of that role it
    looks at what all hosts of the play have told, and goes on or fails for all of them, with one message.
  - It refuses plays whose hosts do not wait for each other (C(strategy=free), C(serial)), plays in which a host is
    missing, and targets that two hosts name.
extends_documentation_fragment:
  - restorepoint.core.attributes
options:
  step:
    description: What is judged.
    type: str
    choices: [start, taking, returning, reports, hooks]
    required: true
  attempt:
    description: What the message says was attempted.
    type: str
    required: true
  stands:
    description: What the message says stands.
    type: str
    default: Nothing was touched.
  name:
    description: The restore point.
    type: str
    default: ""
  fail:
    description: Whether to fail where anything went wrong, or only to tell.
    type: bool
    default: true
  replace:
    description: Whether what is there under this name may be taken anew.
    type: bool
    default: false
  partial:
    description: Whether a part of a restore point may be returned.
    type: bool
    default: false
  once:
    description: The token of the run, or of the return.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    details:
      - It does not modify anything.
  diff_mode:
    support: N/A
  idempotent:
    support: N/A
  action:
    description: Has a plugin on the control node that does the work.
    support: full
notes:
  - Run it with C(run_once) and C(any_errors_fatal).
seealso:
  - module: restorepoint.core.restore_point
"""

EXAMPLES = r"""
- name: See what was done on all hosts
  restorepoint.core.restore_point_gate:
    step: reports
    attempt: take restore point pre-upgrade
  run_once: true
  any_errors_fatal: true
"""

RETURN = r"""
ok:
  description: Whether nothing went wrong.
  returned: always
  type: bool
  sample: true
problems:
  description: What went wrong, on which host.
  returned: always
  type: list
  elements: str
  sample: ["web2: it is unreachable: Connection refused"]
message:
  description: The same as one message. Empty where nothing went wrong.
  returned: always
  type: str
  sample: ""
token:
  description: The token of the run, or of the return.
  returned: O(step=start), O(step=taking), O(step=returning)
  type: str
  sample: 20261122t013000z-0f1e2d
hosts:
  description: How many hosts have targets, and a digest of their names.
  returned: O(step=start)
  type: str
  sample: "3:0f1e2d3c4b5a"
members:
  description: The hosts that have targets.
  returned: O(step=start)
  type: list
  elements: str
  sample: [web1, web2, db1]
notes:
  description: What else there is to say.
  returned: O(step=start), O(step=taking), O(step=returning)
  type: list
  elements: str
  sample: []
go:
  description: Whether there is anything to do.
  returned: O(step=taking), O(step=returning)
  type: bool
  sample: true
anew:
  description: Whether what is there does not count, on any host.
  returned: O(step=taking), O(step=returning)
  type: bool
  sample: false
finish_only:
  description: Whether all parts are there, of a run that died right before its end.
  returned: O(step=taking), O(step=returning)
  type: bool
  sample: false
resumed:
  description: Whether an earlier run had begun it.
  returned: O(step=taking), O(step=returning)
  type: bool
  sample: false
results:
  description: What was done on each target, by host.
  returned: O(step=reports)
  type: dict
  sample: {"web1": [{"target": "zfs:tank/shop", "action": "created", "changed": true}]}
parts:
  description: What was found of each target, by host, as the module restore_point tells it.
  returned: O(step=reports)
  type: dict
  sample: {"web1": [{"target": "zfs:tank/shop", "exists": true, "labels": {}}]}
spread_seconds:
  description: How far apart all snapshots lie, by the hosts' clocks. None where there are less than two.
  returned: O(step=reports)
  type: float
  sample: 1.2
reboot:
  description: The hosts that have to be rebooted before a return takes effect.
  returned: O(step=reports)
  type: list
  elements: str
  sample: []
any_changed:
  description: Whether anything was changed, or would be, on any host.
  returned: O(step=reports)
  type: bool
  sample: true
"""
