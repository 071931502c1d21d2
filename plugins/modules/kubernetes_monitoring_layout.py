# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of a cluster watched by Prometheus, as it is asked for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_monitoring_layout
short_description: Have the restore points of a Kubernetes cluster watched
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Has a Deployment in which the agent serves metrics of policies that run in the cluster, for Prometheus, with an
    account that may see what they need and change nothing; and its Service.
  - Where the operator of Prometheus is there, also a ServiceMonitor, and a PrometheusRule with the alerts. The
    dashboard becomes a ConfigMap, as Grafana's sidecar reads it.
  - The role P(restorepoint.core.monitoring#role) builds the agent, and calls this module.
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
  state:
    description: Whether it is watched. With V(absent) all that was made goes, but for the namespace.
    type: str
    choices: [present, absent]
    default: present
  policies:
    description:
      - The policies that M(restorepoint.core.kubernetes_schedule_layout) has the cluster run. What becomes of their
        runs is read from CronJobs and Jobs.
      - Claims on CSI volumes are looked at, with their snapshots. Directories of nodes are not, only a node sees them.
    type: list
    elements: dict
    default: []
  instance:
    description:
      - The label C(instance) of all series that the ServiceMonitor scrapes. The pod's address would be another one with
        each pod, and alerts would take it for a host that is gone.
    type: str
    default: kubernetes
  interval:
    description: How long to wait between looks, such as V(60s) or V(5min).
    type: str
    default: 60s
  timeout:
    description: How long one look may take, such as V(30s).
    type: str
    default: 30s
  scrape_annotations:
    description: Whether the Service bears C(prometheus.io/scrape), for a Prometheus that finds its targets so.
    type: bool
    default: false
  operator:
    description:
      - Whether a ServiceMonitor and a PrometheusRule are made. V(auto) makes them where the cluster serves these kinds,
        and warns where it does not and O(scrape_annotations) is not set. With V(always) it is a failure where it does
        not.
    type: str
    choices: [auto, always, never]
    default: auto
  operator_labels:
    description: Labels for these, such as those by which the operator chooses.
    type: dict
    default: {}
  rules:
    description: The rules for Prometheus, as the content of their file. Without any there is no PrometheusRule.
    type: dict
    default: {}
  dashboard:
    description: The dashboard, as the content of its file. Without it there is no ConfigMap with one.
    type: str
    default: ""
  dashboard_namespace:
    description: Where the dashboard's ConfigMap lies; in O(namespace) when it is not set.
    type: str
  dashboard_labels:
    description: Labels by which Grafana's sidecar finds it.
    type: dict
    default: {grafana_dashboard: "1"}
notes:
  - Whatever it makes has the label C(restorepoint.core/monitoring) with the namespace of the jobs. What has a name that
    is needed, and not this label, is a blocker.
  - The one who runs it has to be allowed all that it grants.
seealso:
  - module: restorepoint.core.kubernetes_schedule_layout
requirements:
  - "python >= 3.9"
  - "kubernetes >= 24, for logins other than by a token or a client certificate"
"""

EXAMPLES = r"""
- name: Have the policies of a cluster watched
  restorepoint.core.kubernetes_monitoring_layout:
    agent: /srv/restorepoint.pyz
    image: docker.io/library/python:3.13-slim
    operator_labels: {release: kube-prometheus-stack}
    policies:
      - name: shop
        targets:
          - backend: csi
            namespace: [shop, shop-db]
        schedule: {calendar: "*-*-* 02:00"}
        keep: {daily: 7, weekly: 4}

- name: Have them watched no more
  restorepoint.core.kubernetes_monitoring_layout:
    state: absent
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
    - target: Deployment restorepoint/restorepoint-metrics
      action: create
      before: absent
      after: '{"spec": {"replicas": 1}}'
service:
  description: Where the metrics are served, for pods of the cluster; empty where they are not.
  returned: always
  type: str
  sample: restorepoint-metrics.restorepoint.svc:9642
operator_kinds:
  description: Which kinds of the operator of Prometheus were made use of.
  returned: always
  type: list
  elements: str
  sample: [ServiceMonitor, PrometheusRule]
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
    - target: policy files
      reason: a pod does not reach targets of zfs
      remedy: run it on the hosts themselves, with the roles agent and schedule
"""

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.kubernetes_monitoring import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
