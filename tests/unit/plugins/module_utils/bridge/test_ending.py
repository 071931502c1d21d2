# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module says at its end: the same as by exit_json, and never a secret."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from ansible.module_utils import basic
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.ending import leave

_TEXTS = st.text(max_size=20)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS
_VALUES = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4))
_RESULTS = st.dictionaries(st.sampled_from(["changed", "snapshots", "tree", "results", "diff", "state"]), _VALUES)


def printed(ending, **options):
    """Return what a module prints at its end, which ``ending`` is given."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": options}).encode())
        patch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
        module = basic.AnsibleModule({"name": {"type": "str"}, "password": {"type": "str", "no_log": True}})
        with pytest.raises(SystemExit) as ended:
            ending(module)
    assert ended.value.code == 0
    return json.loads(out.getvalue())


@given(result=_RESULTS)
def test_a_module_says_the_same_as_by_exit_json(result):
    ours = printed(lambda module: leave(module, **result), name="x")
    assert ours == printed(lambda module: module.exit_json(**result), name="x")


def test_a_secret_in_a_result_is_taken_out_however_deep_it_lies():
    result = {"snapshots": [{"extra": {"command": "login --password s3cr3t-word"}}]}
    told = printed(lambda module: leave(module, **result), password="s3cr3t-word")
    assert told["snapshots"] == [{"extra": {"command": "login --password ********"}}]


@pytest.mark.parametrize("value", [{"a set"}, object()], ids=["set", "object"])
def test_what_is_not_fit_for_json_is_a_fault_of_ours_and_ends_no_module_half(value):
    with pytest.raises(TypeError):
        printed(lambda module: leave(module, snapshots=[value]))
