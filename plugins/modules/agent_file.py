# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent on a host. The action of this name does the work, on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_file
short_description: Install the agent on a host
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Builds the agent, C(restorepoint.pyz), from the installed collection on the control node, and copies it to the host.
    The one library that it takes along, prometheus_client, is downloaded once by pip, and has to have the hash that the
    collection names. It is kept below C(~/.cache/restorepoint/wheels), where it can be put by hand as well.
  - The same version of the collection gives the same file, to the byte, so a second run changes nothing.
  - The role P(restorepoint.core.agent#role) calls it, and sets up what belongs around it.
extends_documentation_fragment:
  - restorepoint.core.attributes
options:
  path:
    description: Where it is put. Its directory has to be there.
    type: path
    default: /usr/local/sbin/restorepoint
  owner:
    description: Who owns it. It is the user of the task when this is not set.
    type: str
  group:
    description: Its group.
    type: str
  mode:
    description: Its mode.
    type: raw
    default: "0755"
attributes:
  check_mode:
    support: full
  diff_mode:
    support: partial
    details:
      - It says that the file differs, and not how, since it is no text.
  idempotent:
    support: full
  action:
    description: Has a plugin on the control node that does the work.
    support: full
notes:
  - The host needs Python 3.9 or newer as C(python3).
seealso:
  - module: restorepoint.core.schedule_layout
"""

EXAMPLES = r"""
- name: Install the agent
  restorepoint.core.agent_file:

- name: Have it as a file on the control node
  restorepoint.core.agent_file:
    path: /tmp/restorepoint.pyz
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
path:
  description: Where it lies.
  returned: success
  type: str
  sample: /usr/local/sbin/restorepoint
size:
  description: Its size in bytes.
  returned: success
  type: int
  sample: 449218
"""
