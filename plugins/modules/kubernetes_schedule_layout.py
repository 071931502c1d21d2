# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policies run by Kubernetes itself, as it is asked for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_schedule_layout
short_description: Let Kubernetes run policies by itself, as CronJobs
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Has a CronJob for each policy, which runs the agent in a stock Python image, with an account of its own that may do
    what this policy needs, and nothing else. Snapshots are then taken without Ansible.
  - Policies whose targets are claims on CSI volumes, or claims on directories of nodes, can run in a cluster. What is
    not wanted any more goes, with its account and its rights.
  - The role P(restorepoint.core.kubernetes_schedule#role) builds the agent, and calls this module.
extends_documentation_fragment:
  - restorepoint.core.attributes.state
  - restorepoint.core.kubernetes
  - restorepoint.core.pods
attributes:
  idempotent:
    support: full
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
options:
  policies:
    description:
      - The policies, as the guide to policies has them. Without any, and without O(annotations), all that was made
        goes, but for the namespace.
      - Several lines of a schedule become several CronJobs where one line cannot say it. A policy without a schedule
        becomes a suspended CronJob, from which C(kubectl create job --from) makes a run.
      - Claims on directories are looked up now, and the pod gets those directories and its store, on the node where
        they lie, and no right to ask Kubernetes anything. Run it again when there are new claims.
    type: list
    elements: dict
    default: []
  successful_jobs_history_limit:
    description: How many runs that succeeded stay listed.
    type: int
    default: 3
  failed_jobs_history_limit:
    description: How many runs that failed stay listed.
    type: int
    default: 3
  starting_deadline:
    description: For how many seconds a run that was missed is caught up, once.
    type: int
    default: 3600
  active_deadline:
    description: After how many seconds a run is stopped. It then takes back what it made.
    type: int
    default: 3600
  retries:
    description: How often a run that failed is tried again.
    type: int
    default: 1
  suspend:
    description: Whether all CronJobs wait.
    type: bool
    default: false
  annotations:
    description:
      - Honour the annotations C(snapshot.alpha.kubernetes.io/frequency) and C(snapshot.alpha.kubernetes.io/retention)
        on claims and pods. Without it there is no job that does.
    type: dict
    suboptions:
      namespaces:
        description: In which namespaces. Without any, in all of the cluster.
        type: list
        elements: str
        default: []
      calendar:
        description: How often it is looked at what is due.
        type: str
        default: '*:0/15'
      timezone:
        description: In which time zone days, weeks and months begin.
        type: str
        default: UTC
      snapshot_class:
        description: The VolumeSnapshotClass to use. Without it, the default one of the claim's driver.
        type: str
notes:
  - Whatever it makes has the label C(restorepoint.core/schedule) with the namespace of the jobs. What has a name that
    is needed, and not this label, is a blocker.
  - A namespace that it makes, or has made, gets the pod security level V(restricted), or V(privileged) where pods mount
    directories of nodes.
  - The one who runs it has to be allowed all that it grants.
seealso:
  - module: restorepoint.core.csi_snapshot
  - module: restorepoint.core.hostpath_claims_info
requirements:
  - "python >= 3.9"
  - "kubernetes >= 24, for logins other than by a token or a client certificate"
"""

EXAMPLES = r"""
- name: Take every claim of two namespaces each night
  restorepoint.core.kubernetes_schedule_layout:
    agent: /srv/restorepoint.pyz
    image: docker.io/library/python:3.13-slim
    policies:
      - name: shop
        targets:
          - backend: csi
            namespace: [shop, shop-db]
        timezone: Europe/Paris
        schedule: {calendar: "*-*-* 02:00"}
        keep: {daily: 7, weekly: 4}

- name: Honour annotations everywhere
  restorepoint.core.kubernetes_schedule_layout:
    agent: /srv/restorepoint.pyz
    image: docker.io/library/python:3.13-slim
    annotations: {}

- name: Take all of it away
  restorepoint.core.kubernetes_schedule_layout:
    policies: []
"""

RETURN = r"""
changes:
  description: What was done, or in check mode would be, in its order.
  returned: always
  type: list
  elements: dict
  contains:
    target:
      description: Which object.
      type: str
      returned: always
    action:
      description: What is done to it.
      type: str
      returned: always
    before:
      description: What it held before, V(absent) where there was none.
      type: str
      returned: always
    after:
      description: What it holds then.
      type: str
      returned: always
  sample:
    - target: CronJob restorepoint/restorepoint-shop
      action: create
      before: absent
      after: '{"spec": {"schedule": "0 2 * * *", "timeZone": "Europe/Paris"}}'
jobs:
  description: The jobs that there are then.
  returned: always
  type: list
  elements: dict
  contains:
    policy:
      description: Which policy it runs.
      type: str
      returned: always
    name:
      description: Namespace and name of the CronJob. Those of further lines have a number behind.
      type: str
      returned: always
    schedule:
      description: Its lines of cron, none for one that is started by hand.
      type: list
      elements: str
      returned: always
    timezone:
      description: In which time zone they are meant.
      type: str
      returned: always
    node:
      description: The node that it runs on, where it takes directories.
      type: str
      returned: always
    mounts:
      description: The directories of the node that it sees.
      type: list
      elements: str
      returned: always
  sample:
    - policy: shop
      name: restorepoint/restorepoint-shop
      schedule: ["0 2 * * *"]
      timezone: Europe/Paris
      node: null
      mounts: []
blockers:
  description: What stood in the way. Nothing was changed.
  returned: when something stood in the way
  type: list
  elements: dict
  contains:
    target:
      description: Which policy or object it is about.
      type: str
      returned: always
    reason:
      description: Why.
      type: str
      returned: always
    remedy:
      description: What to do.
      type: str
      returned: always
  sample:
    - target: policy shop
      reason: for a CronJob a weekday or a day of the month is enough, and this wants both
      remedy: give one of the two
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.kubernetes_schedule import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
