# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An error is one sentence: what was attempted, why it failed, what to do next."""

from __future__ import annotations

import pickle

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core import errors
from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Blocker

KINDS = [errors.RestorePointError, errors.InvalidInput, errors.StoreError, errors.LockTimeout, errors.ToolError]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_one_sentence(kind):
    error = kind("take snapshot 'x' of /srv", "the disk is full", "free some space")
    assert str(error) == "Cannot take snapshot 'x' of /srv: the disk is full; free some space."


def test_full_stops_of_the_kernel_and_of_tools_are_not_doubled():
    assert str(errors.ToolError("run zfs", "cannot open 'x'.", "look at it.")) == (
        "Cannot run zfs: cannot open 'x'; look at it."
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_can_be_caught_as_one_kind_and_sent_to_another_process(kind):
    error = pickle.loads(pickle.dumps(kind("a", "b", "c")))
    assert isinstance(error, errors.RestorePointError)
    assert (type(error), error.attempt, error.reason, error.remedy) == (kind, "a", "b", "c")


def test_all_blockers_stand_in_one_sentence_with_their_targets():
    blockers = [Blocker("/a", "it is in use", "stop it"), Blocker("/b", "it is held", "release it")]
    error = errors.Blocked("return to 'x'", blockers)
    assert error.blockers == tuple(blockers)
    assert str(error) == (
        "Cannot return to 'x': /a: it is in use (stop it); /b: it is held (release it); nothing was changed."
    )
