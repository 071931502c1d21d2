# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `btrfs` prints, as btrfs-progs 6.2 did in the lab, and as no version should: it is parsed or refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils import process
from ansible_collections.restorepoint.core.plugins.module_utils.backends.btrfs import info
from ansible_collections.restorepoint.core.plugins.module_utils.backends.stored import subvolume
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import ToolError

# btrfs --format json qgroup show --raw (btrfs-progs v6.2)
QGROUPS = """{
  "__header": {
    "version": "1"
  },
  "qgroup-show": [
    {
      "qgroupid": "0/5",
      "referenced": "16384",
      "max_referenced": "none",
      "exclusive": "16384",
      "max_exclusive": "none",
      "path": "",
      "parents": [
      ],
      "children": [
      ]
    },
    {
      "qgroupid": "1/100",
      "referenced": "32768",
      "max_referenced": "none",
      "exclusive": "32768",
      "max_exclusive": "none",
      "path": "",
      "parents": [
      ],
      "children": [
        "0/256"
      ]
    },
    {
      "qgroupid": "0/256",
      "referenced": "1064960",
      "max_referenced": "none",
      "exclusive": "16384",
      "max_exclusive": "none",
      "path": "t",
      "parents": [
      ],
      "children": [
      ]
    }
  ]
}
"""
# btrfs filesystem du --raw --summarize (btrfs-progs v6.2)
EXTENTS = """     Total   Exclusive  Set shared  Filename
   1048576     1044480        4096  store/s with blanks
"""


def prints(monkeypatch, stdout="", stderr="", rc=0):
    monkeypatch.setattr(process, "run", lambda *_unused, **_named: process.Completed(stdout, stderr, rc))


def test_quota_groups_of_subvolumes_are_read_by_number():
    assert info.parse_quota_groups(QGROUPS, "x") == {5: (16384, 16384), 256: (1064960, 16384)}


@pytest.mark.parametrize(
    "said",
    ["ERROR: can't list qgroups: quotas not enabled", "ERROR: output format json is unsupported for this command"],
)
def test_without_quotas_there_are_no_groups(monkeypatch, said):
    prints(monkeypatch, stderr=said, rc=1)
    assert info.quota_groups("/srv") == {}


def test_another_failure_is_not_taken_for_no_quotas(monkeypatch):
    prints(monkeypatch, stderr="ERROR: can't list qgroups: Input/output error", rc=1)
    with pytest.raises(ToolError, match="Input/output error"):
        info.quota_groups("/srv")


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"qgroup-show": null}', QGROUPS[:-20], QGROUPS.replace('"16384"', '"none"'),
     QGROUPS.replace('"0/5"', '"5"'), QGROUPS.replace('"16384"', '"-1"')],
)  # fmt: skip
def test_quota_groups_that_cannot_be_parsed_are_an_error(text):
    with pytest.raises(ToolError, match="cannot be parsed"):
        info.parse_quota_groups(text, "x")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_groups_or_an_error(rows):
    try:
        found = info.parse_quota_groups(json.dumps({"qgroup-show": rows}), "x")
    except ToolError:
        return
    assert all(isinstance(number, int) and one >= 0 and other >= 0 for number, (one, other) in found.items())


def test_extents_are_read():
    assert info.parse_extents(EXTENTS, "x") == (1048576, 1044480)


@pytest.mark.parametrize(
    "text",
    ["", EXTENTS.splitlines()[0], EXTENTS.replace("1048576", "1.00MiB"), EXTENTS * 2, EXTENTS.replace("Total", "Sum")],
)
def test_extents_that_cannot_be_parsed_are_an_error(text):
    with pytest.raises(ToolError, match="cannot be parsed"):
        info.parse_extents(text, "x")


@given(st.text())
def test_any_text_is_extents_or_an_error(text):
    with pytest.raises(ToolError):
        info.parse_extents(text, "x")


@pytest.mark.parametrize(("said", "number"), [("ID 5 (FS_TREE)\n", 5), ("ID 256 gen 10 top level 5 path @\n", 256)])
def test_the_default_subvolume_is_read(monkeypatch, said, number):
    prints(monkeypatch, said)
    assert subvolume.default_number("/") == number


@pytest.mark.parametrize("said", ["", "ID", "id 5", "ERROR", "ID x gen"])
def test_a_default_subvolume_that_cannot_be_read_is_an_error(monkeypatch, said):
    prints(monkeypatch, said)
    with pytest.raises(ToolError, match="names no id"):
        subvolume.default_number("/")
