# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies in another pool, listed, signed and removed: by a `zfs` that answers as OpenZFS does."""

from __future__ import annotations

import shlex

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import ToolError
from ansible_collections.restorepoint.core.plugins.module_utils.offsite.copies import (
    copies_in,
    remove,
    sign,
    would_free,
)
from ansible_collections.restorepoint.core.plugins.module_utils.offsite.zfs import Side
from ansible_collections.restorepoint.core.plugins.module_utils.process import Completed

TARGET = "vault/host1/tank:shop"
SSH = {"host": "nas", "user": "backup"}
#: Linux takes no longer argument.
MAX_ARG_STRLEN = 128 * 1024


class Remote(Side):
    """A host behind ssh with one dataset. ``owners`` are what copies say of themselves; ``commands`` what it was told.

    Each command comes as sshd hands it to a shell: one text.
    """

    def __init__(self, names, owners=None, holds=None):
        super().__init__(ssh=SSH)
        self.names = list(names)
        self.owners = dict(owners or {})
        self.holds = dict(holds or {})
        self.commands = []

    def run_program(self, program, *arguments, attempt, ok=(0,), stderr_bytes=0):
        command = self.argv(program, *arguments)[-1]
        assert len(command) < MAX_ARG_STRLEN
        words = shlex.split(command)
        words = words[words.index("zfs") + 1 :]
        self.commands.append(words)
        return Completed(stdout=getattr(self, f"_{words[0]}")(words, attempt), stderr="", rc=0)

    def _list(self, words, _attempt):
        rows = []
        for number, name in enumerate(self.names):
            held = "1" if name in self.holds else "0"
            # The owner that is shown here is inherited: it does not count.
            fields = [f"{TARGET}@{name}", str(1000 + number), str(50 + number), str(900 + number), "7", "8", held, "-"]
            rows.append("\t".join([*fields, "nas-itself", "-", "-"]))
        return "".join(f"{row}\n" for row in rows)

    def _get(self, words, _attempt):
        assert words[words.index("-s") + 1] == "local,received"
        return "".join(f"{TARGET}@{name}\trestorepoint:owner\t{owner}\n" for name, owner in self.owners.items())

    def _holds(self, words, _attempt):
        shown = [each.partition("@")[2] for each in words if "@" in each]
        return "".join(f"{TARGET}@{name}\t{self.holds[name]}\tThu Nov 26 02:00 2026\n" for name in shown)

    def _set(self, words, _attempt):
        owner = words[1].partition("=")[2]
        self.owners.update({each.partition("@")[2]: owner for each in words[2:]})
        return ""

    def _destroy(self, words, attempt):
        names = words[-1].partition("@")[2].split(",")
        held = [name for name in names if name in self.holds]
        if held:
            raise ToolError(attempt, f"cannot destroy snapshot {TARGET}@{held[0]}: it's being held", "look")
        if "-nvp" not in words:
            self.names = [each for each in self.names if each not in names]
        return "".join(f"destroy\t{TARGET}@{name}\n" for name in names) + f"reclaim\t{100 * len(names)}\n"


def test_an_owner_counts_that_is_written_on_the_copy_itself_and_holds_have_their_names():
    remote = Remote(["a", "b", "c"], {"a": "shop", "b": "manual"}, {"c": "legal"})
    found = copies_in(remote, TARGET)
    assert [(each.name, each.owner, each.policy, each.held) for each in found] == [
        ("a", "shop", "shop", None),
        ("b", "manual", None, None),
        ("c", None, None, "tag legal"),
    ]
    assert [(each.created, each.sequence, each.extra["guid"]) for each in found] == [
        (1000 + number, 50 + number, str(900 + number)) for number in range(3)
    ]


def test_however_many_there_are_each_command_fits_into_one_argument():
    names = [f"{'x' * 200}{number:05d}" for number in range(3000)]
    remote = Remote(names, holds=dict.fromkeys(names, "legal"))
    assert [(each.name, each.held) for each in copies_in(remote, TARGET)] == [(name, "tag legal") for name in names]
    remote.holds.clear()
    sign(remote, TARGET, names, "shop")
    assert remote.owners == dict.fromkeys(names, "shop")
    assert would_free(remote, TARGET, names) == 300_000
    assert remote.names == names
    done = list(remove(remote, TARGET, names))
    assert [name for part, _freed in done for name in part] == names
    assert sum(freed for _part, freed in done) == 300_000
    assert remote.names == []


def test_nothing_to_be_removed_is_no_command():
    remote = Remote(["a"])
    assert list(remove(remote, TARGET, [])) == []
    assert would_free(remote, TARGET, []) == 0
    sign(remote, TARGET, [], "shop")
    assert remote.commands == []


def test_a_hold_that_came_meanwhile_is_an_error_in_the_words_of_zfs_and_what_went_before_is_told():
    names = [f"n{number:03d}" for number in range(300)]
    remote = Remote(names, holds={"n250": "legal"})
    removals = remove(remote, TARGET, names)
    assert next(removals) == (names[:200], 20_000)
    with pytest.raises(ToolError, match="it's being held"):
        next(removals)
    assert remote.names == names[200:]
