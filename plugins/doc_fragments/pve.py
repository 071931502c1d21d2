# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that pve_snapshot and pve_snapshot_info share; bridge/pve.py is their spec."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  transport:
    description:
      - V(https) speaks to the API over HTTPS, from anywhere, with a user or a token.
      - V(pvesh) runs the program C(pvesh) on the host that the module runs on, which has to be a node of the cluster.
        It needs root, and no credential.
    type: str
    choices: [https, pvesh]
    default: https
  api_host:
    description:
      - The name or address of any node of the cluster.
      - Read from E(PROXMOX_HOST) when it is not set.
    type: str
  api_port:
    description:
      - The port of the API. 8006 when this is not set.
      - Read from E(PROXMOX_PORT) when it is not set.
    type: int
  api_user:
    description:
      - The user with its realm, such as V(root@pam).
      - Read from E(PROXMOX_USER) when it is not set.
    type: str
  api_password:
    description:
      - The password of O(api_user).
      - Read from E(PROXMOX_PASSWORD) when it is not set.
    type: str
  api_otp:
    description:
      - The one-time password of a user with two-factor authentication.
      - Read from E(PROXMOX_OTP) when it is not set.
    type: str
  api_token_id:
    description:
      - The name of an API token of O(api_user), or the whole V(user@realm!name).
      - Read from E(PROXMOX_TOKEN_ID) when it is not set.
    type: str
  api_token_secret:
    description:
      - The secret of the token.
      - Read from E(PROXMOX_TOKEN_SECRET) when it is not set.
    type: str
  validate_certs:
    description:
      - Whether the server has to prove who it is.
      - Read from E(PROXMOX_VALIDATE_CERTS) when it is not set.
    type: bool
    default: true
  ca_path:
    description:
      - The certificate of the CA to trust. A cluster's own is C(/etc/pve/pve-root-ca.pem).
      - Read from E(PROXMOX_CA_PATH) when it is not set.
    type: path
  api_timeout:
    description:
      - How many seconds to wait for the answer to one call.
      - Read from E(PROXMOX_API_TIMEOUT) when it is not set.
    type: int
    default: 30
  vmid:
    description:
      - Ids of guests, and ranges such as V(100-120). A range means the guests that are in it.
      - Together with O(guest) this says which guests are named. Without either, all guests are, before the options
        below narrow it down.
      - Several in one text, with commas or blanks between them, are taken apart, as surveys give them. So it is with
        the other lists.
    type: list
    elements: str
  guest:
    description:
      - Names of guests, and patterns such as V(web-*). A plain name has to be that of one guest only.
    type: list
    elements: str
    aliases: [hostname]
  tags:
    description: Only guests that have all of these tags.
    type: list
    elements: str
  pool:
    description: Only guests in one of these pools.
    type: list
    elements: str
  node:
    description: Only guests on one of these nodes.
    type: list
    elements: str
  type:
    description: Only VMs (V(qemu)), or only containers (V(lxc)).
    type: str
    choices: [qemu, lxc]
  status:
    description:
      - Only guests in this state. The cluster's list of guests, from which it is read, may be ten seconds old.
    type: str
    choices: [running, stopped]
  exclude:
    description: Not these guests, by id, range, name or pattern.
    type: list
    elements: str
  select:
    description:
      - Only the guests that this JMESPath expression gives, out of the list that C(/cluster/resources) returns. It may
        give the entries as they are, or ids.
      - Needs the Python package C(jmespath) where the module runs.
    type: str
  allow_none:
    description: That no guest matches is no error. An id or a plain name that is not there still is.
    type: bool
    default: false
  parallel:
    description: How many guests of one node are worked on at once. Never two operations on one guest.
    type: int
    default: 8
  timeout:
    description:
      - After how many seconds the call has to have ended. What has not ended then is a failure.
      - Taking back what was done may take as long again, or a minute where that is longer.
    type: int
    default: 3600
notes:
  - Names and environment variables of the connection are those of the C(community.proxmox) collection. The environment
    is that of the module, on the host that runs it.
  - Templates are left out unless they are named by id or by plain name.
  - The API leaves out guests on which the user, and the token, lack C(VM.Audit).
requirements:
  - "python >= 3.9"
  - "proxmoxer >= 2.0 and requests (with O(transport=https))"
  - "jmespath (with O(select))"
"""
