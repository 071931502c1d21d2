# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A `zfs destroy` that ends well is believed as far as it names what it destroys, and no further."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.zfs import asides, changes, listing
from ansible_collections.restorepoint.core.plugins.module_utils.backends.zfs.tool import Zfs
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import ToolError
from ansible_collections.restorepoint.core.plugins.module_utils.process import Completed


class Pool(Zfs):
    """Answers `zfs destroy` and `zfs list` for some names, as OpenZFS prints them. It does not do what ``spared`` says.

    ``tells``: it names as destroyed all the same what it destroys; False makes it print nothing at all.
    """

    def __init__(self, *names, spared=(), tells=True):
        super().__init__(timeout=1)
        self.there = list(names)
        self.spared = set(spared)
        self.tells = tells
        self.verbs = []

    def run_program(self, program, *arguments, attempt, ok=(0,), **_unused):
        self.verbs.append(arguments[0])
        if arguments[0] == "list":
            return self._list(arguments[arguments.index("name") + 1 :], ok)
        return self._destroy(arguments[-1], attempt)

    def _list(self, names, ok):
        missing = [name for name in names if name not in self.there]
        assert not missing or 1 in ok
        errors = "".join(f"cannot open '{name}': dataset does not exist\n" for name in missing)
        return Completed("".join(f"{name}\n" for name in names if name in self.there), errors, rc=int(bool(missing)))

    def _destroy(self, words, attempt):
        dataset, at, names = words.partition("@")
        wanted = [f"{dataset}@{name}" for name in names.split(",")] if at else [dataset]
        found = [name for name in wanted if name in self.there]
        if at and not found:
            raise ToolError(attempt, "could not find any snapshots to destroy; check snapshot names.", "")
        gone = [name for name in found if name not in self.spared]
        self.there = [name for name in self.there if name not in gone]
        lines = [f"destroy\t{name}\n" for name in gone] + (["reclaim\t4096\n"] if at else [])
        return Completed("".join(lines) if self.tells else "", "", rc=0)


def test_what_is_named_as_destroyed_is_believed_without_another_command():
    pool = Pool("a@1", "a@2", "a@3")
    assert changes.destroy_freeing(pool, "a", ["1", "2"], "remove them") == 4096
    assert (pool.there, pool.verbs) == (["a@3"], ["destroy"])


def test_what_was_gone_already_is_looked_for_and_no_error():
    pool = Pool("a@1")
    assert changes.destroy_freeing(pool, "a", ["1", "2"], "remove them") == 4096
    assert changes.destroy_freeing(pool, "a", ["1"], "remove it") == 0
    assert pool.verbs == ["destroy", "list", "destroy", "list"]


@pytest.mark.parametrize("destroy", [changes.destroy, changes.destroy_freeing])
def test_a_tool_that_leaves_one_of_them_and_ends_well_is_not_believed(destroy):
    pool = Pool("a@1", "a@2", spared=["a@2"])
    with pytest.raises(ToolError, match=r"remove them.*`zfs destroy` ended well, but has not destroyed 2"):
        destroy(pool, "a", ["1", "2"], "remove them")
    assert pool.there == ["a@2"]


def test_what_is_destroyed_without_a_word_is_looked_for_where_nobody_asks_what_it_frees():
    pool = Pool("a@1", tells=False)
    changes.destroy(pool, "a", ["1"], "remove it")
    assert (pool.there, pool.verbs) == ([], ["destroy", "list"])


@pytest.mark.parametrize("destroy", [changes.destroy, changes.destroy_freeing])
def test_a_tool_that_says_nothing_at_all_is_not_believed(destroy):
    with pytest.raises(ToolError, match="remove it"):
        destroy(Pool("a@1", spared=["a@1"], tells=False), "a", ["1"], "remove it")


@pytest.mark.parametrize("tells", [True, False])
def test_an_aside_that_is_still_there_is_not_taken_for_removed(tells):
    dataset = listing.Dataset("a.aside-20261122t013000z", "filesystem")
    aside = asides.Aside(dataset, {"of": "a", "name": "aside-20261122t013000z"}, 0, 0, False, 5)
    gone = Pool(dataset.name)
    asides.destroy_aside(gone, aside, "remove it")
    assert (gone.there, gone.verbs) == ([], ["destroy"])
    with pytest.raises(ToolError, match=r"ended well, but has not destroyed a\.aside-2026"):
        asides.destroy_aside(Pool(dataset.name, spared=[dataset.name], tells=tells), aside, "remove it")
