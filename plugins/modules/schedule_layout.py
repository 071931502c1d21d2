# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Services and timers of systemd for policies, as they are asked for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: schedule_layout
short_description: Make services and timers of systemd for policies
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Makes a service for each policy, and a timer for each that has a schedule. So it does for a policy's drill, and for
    its export. One more service starts those that missed a moment, at boot and at four in the morning.
  - systemd is asked about all of them (C(systemd-analyze verify) and C(systemd-analyze calendar)) before any takes its
    place.
  - Units of policies that are not listed any more are removed. A service that runs goes on to its end. Units of others,
    and drop-ins, are left alone.
  - The role P(restorepoint.core.schedule#role) calls it.
extends_documentation_fragment:
  - restorepoint.core.attributes.state
options:
  jobs:
    description:
      - All policies of the host, as the filter P(restorepoint.core.policy_jobs#filter) gives them.
      - An empty list removes all units.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The policy's name.
        type: str
        required: true
      description:
        description: What it is for.
        type: str
        default: ""
      calendar:
        description: OnCalendar expressions, with their time zone. Without any there is no timer.
        type: list
        elements: str
        default: []
      timezone:
        description: The policy's time zone, in which missed runs are looked for at four in the morning.
        type: str
        default: UTC
      hook_seconds:
        description: How long all of its before-hooks, or all of its after-hooks, may take.
        type: int
        default: 0
      paths:
        description: Directories that a run writes to.
        type: list
        elements: str
        default: []
      own_programs:
        description: Whether a run starts no programs but those of its storage, so that it can be confined more.
        type: bool
        default: false
      drill:
        description: The policy's drill, where it has one.
        type: dict
        suboptions:
          calendar:
            description: OnCalendar expressions, with their time zone. Without any there is no timer.
            type: list
            elements: str
            default: []
          paths:
            description: Directories that it writes to.
            type: list
            elements: str
            default: []
          own_programs:
            description: Whether it starts no programs but those of its storage, so that it can be confined more.
            type: bool
            default: false
      export:
        description: The policy's export, where it has one.
        type: dict
        suboptions:
          calendar:
            description: OnCalendar expressions, with their time zone. Without any there is no timer.
            type: list
            elements: str
            default: []
          paths:
            description: Directories that it writes to.
            type: list
            elements: str
            default: []
          own_programs:
            description:
              - Whether it starts no programs but those of its storage and of its destinations, so that it can be
                confined more.
            type: bool
            default: false
  program:
    description: The agent.
    type: str
    default: /usr/local/sbin/restorepoint
  policies_file:
    description: The policies that it reads.
    type: str
    default: /etc/restorepoint/policies.json
  state_folder:
    description: The folder for its state.
    type: str
    default: /var/lib/restorepoint
  randomized_delay:
    description: Each run is put off by a random time up to this one, so that hosts do not start at once.
    type: str
    default: 1min
  persistent:
    description: Whether a moment that passed while the host was down is made up for once it is up.
    type: bool
    default: true
  catch_up:
    description: Whether runs that were missed, killed or failed are looked for at boot and at four in the morning.
    type: bool
    default: true
  nice:
    description: How much the CPU is left to others, from -20 to 19.
    type: int
    default: 10
  io_class:
    description:
      - Whether disks serve a run only while nobody else needs them. V(best-effort) is for disks that are never idle.
    type: str
    choices: [idle, best-effort]
    default: idle
  wait:
    description: For how many seconds a run waits for another one of the same policy, such as one started by hand.
    type: int
    default: 3600
  on_failure:
    description: Units that systemd starts when a run fails. They have to be there.
    type: list
    elements: str
    default: []
  harden:
    description: Whether runs are confined. Turn it off where a hook needs what is forbidden.
    type: bool
    default: true
attributes:
  idempotent:
    support: full
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
notes:
  - For changes of your own to a unit use C(systemctl edit). Such drop-ins stay.
  - In check mode on a host that has no agent yet, systemd is not asked, and a warning says so.
seealso:
  - module: restorepoint.core.agent_file
  - plugin: restorepoint.core.policy_jobs
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Make a service and a timer for each policy
  restorepoint.core.schedule_layout:
    jobs: "{{ restorepoint_policies | restorepoint.core.policy_jobs }}"
    on_failure: [mail-root@%n.service]

- name: Remove all of them
  restorepoint.core.schedule_layout:
    jobs: []
"""

RETURN = r"""
changes:
  description: What was done, or in check mode would be, in its order.
  returned: always
  type: list
  elements: dict
  contains:
    target:
      description: What was changed.
      type: str
      sample: restorepoint-production.timer
    action:
      description: What was done with it.
      type: str
      sample: write unit
    before:
      description: How it was.
      type: str
      sample: absent
    after:
      description: How it is.
      type: str
      sample: "[Timer]\nOnCalendar=daily Europe/Paris\n"
blockers:
  description: All facts that forbid what was asked. Nothing was changed.
  returned: when something stands in the way
  type: list
  elements: dict
  contains:
    target:
      description: What cannot be as it was asked for.
      type: str
      sample: schedule
    reason:
      description: Why not.
      type: str
      sample: "Failed to parse calendar specification 'daily Mars/Base': Invalid argument"
    remedy:
      description: What to do about it.
      type: str
      sample: correct the schedule, or install the time zones of this host
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.schedule import run_schedule


def main() -> None:
    run_schedule()


if __name__ == "__main__":
    main()
