# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filter restorepoint.core.listed: a list, or text with commas between its parts, as a list.

Surveys of AWX give text. Called by Ansible's templating.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: listed
short_description: Make a list of a list or of comma separated text
version_added: 0.1.0
author:
  - The restorepoint.core authors (@restorepoint)
description:
  - Takes what a variable holds that people set in a survey of AWX, on the command line, or in an inventory.
  - Blanks around the parts go, and so do parts with nothing in them.
options:
  _input:
    description: A list, text with commas or line breaks between its parts, a number, or nothing.
    type: raw
    required: true
"""

EXAMPLES = r"""
- name: Name what a survey asked for
  ansible.builtin.debug:
    msg: "{{ survey_claims | default('') | restorepoint.core.listed }}"
  vars:
    survey_claims: db, uploads
"""

RETURN = r"""
_value:
  description: The parts, as text.
  type: list
  elements: str
  sample: [db, uploads]
"""

import re
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError


def listed(given: Any) -> list[str]:
    """Return the parts; raise AnsibleFilterError for what is neither text nor a list of texts and numbers."""
    if given is None:
        return []
    parts = list(given) if isinstance(given, (list, tuple)) else [given]
    if any(isinstance(part, (Mapping, list, tuple)) or part is None for part in parts):
        raise AnsibleFilterError(
            f"Cannot make a list of {type(given).__name__}: parts are texts or numbers; "
            "give a list of them, or text with commas."
        )
    if isinstance(given, (list, tuple)):
        return [text for text in (str(part).strip() for part in parts) if text]
    return [text for text in (part.strip() for part in re.split(r"[,\n]", str(given))) if text]


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"listed": listed}
