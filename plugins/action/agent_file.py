# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action restorepoint.core.agent_file: builds the agent on the control node, and copies it to the host.

An action and no module, because only here the collection lies as files. Documented in plugins/modules/agent_file.py.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.setup.agent_build import agent_bytes

_PATH = "/usr/local/sbin/restorepoint"


def built() -> str:
    """Return the path of the built agent, which is built once for all hosts of a play. Raises RestorePointError."""
    folder = C.config.get_config_value("DEFAULT_LOCAL_TMP")
    path = os.path.join(folder, "restorepoint.pyz")
    if not os.path.exists(path):
        content = agent_bytes()
        # Several forks may build it at once: each writes its own, and the last one stays.
        descriptor, mine = tempfile.mkstemp(dir=folder)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        os.replace(mine, path)
    return path


class ActionModule(ActionBase):
    """What Ansible asks for."""

    TRANSFERS_FILES = True
    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Copy the agent as ansible.builtin.copy would copy a file of that content."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _unused, options = self.validate_argument_spec(
            {
                "path": {"type": "path", "default": _PATH},
                "owner": {"type": "str"},
                "group": {"type": "str"},
                "mode": {"type": "raw", "default": "0755"},
            }
        )
        try:
            source = built()
        except RestorePointError as error:
            raise AnsibleActionFail(str(error)) from error
        task = self._task.copy()
        given = {key: options[key] for key in ("owner", "group", "mode") if options[key] is not None}
        task.args = {"src": source, "dest": options["path"], **given}
        copy = self._shared_loader_obj.action_loader.get(
            "ansible.legacy.copy",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        done = copy.run(task_vars=task_vars)
        done.pop("src", None)
        result.update(done, path=options["path"], size=os.path.getsize(source))
        return result
