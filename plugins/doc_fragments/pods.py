# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of pods with the agent, documented once; POD_SPEC in bridge/kubernetes_schedule.py is their spec."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  agent:
    description: The agent, C(restorepoint.pyz), on the host that runs the module. Needed unless all is to go.
    type: path
  namespace:
    description: Where pods run that the module sets up. It is made where it is missing, and never removed.
    type: str
    default: restorepoint
  image:
    description: An image with Python 3.9 or newer and a time zone database. Needed unless all is to go.
    type: str
  image_pull_policy:
    description: When the image is fetched.
    type: str
    choices: [Always, IfNotPresent, Never]
    default: IfNotPresent
  image_pull_secrets:
    description: Names of Secrets in O(namespace) with which the image is fetched.
    type: list
    elements: str
    default: []
  resources:
    description: What the container requests and may use, as in a pod.
    type: dict
    default: {}
  tolerations:
    description: Taints that the pods tolerate, as in a pod.
    type: list
    elements: dict
    default: []
  priority_class:
    description: The PriorityClass of the pods.
    type: str
"""
