# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restic is told, what it answers, and what nobody gets to see."""

from __future__ import annotations

import json

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, ToolError
from ansible_collections.restorepoint.core.plugins.module_utils.offsite.restic import (
    parse_environment,
    parse_forgotten,
    parse_snapshots,
    parse_summary,
)

ROW = {
    "id": "abc",
    "time": "2026-11-26T02:00:01.123456789Z",
    "paths": ["/run/restorepoint/off-site/hostpath/etc/shop"],
    "tags": ["restorepoint", "policy=shop", "target=hostpath:/etc/a%2Cb", "name=shop-1"],
}


def test_variables_are_read_as_they_stand():
    text = "# the bucket\nAWS_ACCESS_KEY_ID=id\n\nAWS_SECRET_ACCESS_KEY='a = b'\nEMPTY=\n"
    assert parse_environment(text, "f") == {
        "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "a = b", "EMPTY": "",
    }  # fmt: skip


def test_a_line_that_is_no_variable_is_named_by_its_number_and_not_shown():
    with pytest.raises(InvalidInput, match="line 2") as caught:
        parse_environment("A=1\nexport hunter2\n", "f")
    assert "hunter2" not in str(caught.value)


def test_snapshots_of_others_are_passed_over():
    rows = [ROW, {**ROW, "tags": ["somebody"]}, {**ROW, "tags": None}, {**ROW, "tags": ["restorepoint"]}]
    (found,) = parse_snapshots(json.dumps(rows), "list")
    assert (found.target, found.name, found.created) == ("hostpath:/etc/a,b", "shop-1", 1795658401)
    assert parse_snapshots("null", "list") == []


@pytest.mark.parametrize("text", ["", "{", '[{"tags": ["restorepoint", "policy=a", "target=b", "name=c"]}]', "[5]"])
def test_a_list_that_cannot_be_read_is_an_error_never_an_empty_one(text):
    with pytest.raises(ToolError):
        parse_snapshots(text, "list")


def test_the_summary_is_found_among_the_lines():
    summary = {"message_type": "summary", "snapshot_id": "abc", "total_bytes_processed": 10, "data_added": 5}
    text = '{"message_type":"status"}\n{"summary": broken\n' + json.dumps(summary) + "\n"
    assert parse_summary(text, "export") == summary
    with pytest.raises(ToolError):
        parse_summary('{"message_type":"status"}\n', "export")


def test_what_was_forgotten_is_counted_over_all_groups():
    assert parse_forgotten('[{"remove": [{}, {}]}, {"remove": null}]', "forget") == 2
    assert parse_forgotten("", "forget") == 0
    with pytest.raises(ToolError):
        parse_forgotten("nonsense", "forget")
