# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of lvs: recorded ones are understood, and whatever else comes is an error and never "nothing there"."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm.report import FIELDS, Report, parse_report
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import ToolError
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.lvm.recorded import OUTPUT, ROWS


def volume(report: Report, name: str) -> Any:
    return report.find("vg0", name)


def changed(**fields):
    return json.dumps({"report": [{"lv": [{**ROWS[0], **fields}]}]})


def test_a_recorded_report_is_understood():
    report = parse_report(OUTPUT)
    names = [volume.name for volume in report.volumes]
    assert names == [row["lv_name"].strip("[]") for row in ROWS]
    origin, merging = volume(report, "lv1"), volume(report, "lv1.first")
    assert (origin.is_open, origin.merging, origin.size, origin.hidden) == (True, True, 64 << 20, False)
    assert (merging.hidden, merging.merging, merging.invalid, merging.is_thick_snapshot) == (True, True, False, True)
    assert merging.origin_uuid == origin.uuid
    assert set(merging.tags) == {"rp.x=1", "other/tag=1"}
    assert "rp.x=1" in merging.damage
    assert origin.device == f"{ROWS[0]['lv_kernel_major']}:{ROWS[0]['lv_kernel_minor']}"
    lost = volume(report, "lv2.small")
    assert (lost.invalid, lost.data_percent) == (True, 100.0)
    thin = volume(report, "t1.first")
    assert (thin.is_thin, thin.pool, thin.active, thin.skip_activation, thin.writable, thin.device) == (
        True, "pool", False, True, False, None,
    )  # fmt: skip
    assert volume(report, "pool").metadata_percent > 0
    assert report.groups["vg0"].extent == 4 << 20


@pytest.mark.parametrize(
    ("field", "active"), [("active", True), ("1", True), ("", False), ("0", False)], ids=["2.03.16", "2.03.31"] * 2
)
def test_a_volume_is_active_in_the_words_of_each_lvm(field, active):
    assert parse_report(changed(lv_active=field)).volumes[0].active is active


def test_a_volume_of_several_segments_is_one_volume():
    rows = [ROWS[0], {**ROWS[0], "segtype": "striped"}]
    assert len(parse_report(json.dumps({"report": [{"lv": rows}]})).volumes) == 1


def test_a_group_without_volumes_is_empty_and_no_error():
    assert parse_report('{"report": [{"lv": []}]}').volumes == ()


@pytest.mark.parametrize(
    "text",
    ["", "x{", "[]", "{}", "null", '{"report": {}}', '{"report": [{}]}', '{"report": [{"lv": {}}]}', '{"report": [1]}',
     '{"report": [{"lv": [1]}]}', '{"report": [{"lv": [{}]}]}', OUTPUT[:-3], OUTPUT + "x", "[" * 100000],
)  # fmt: skip
def test_what_is_no_report_is_an_error(text):
    with pytest.raises(ToolError, match="Cannot read what logical volumes there are"):
        parse_report(text)


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_may_be_missing(field):
    row = {name: value for name, value in ROWS[0].items() if name != field}
    with pytest.raises(ToolError, match=field):
        parse_report(json.dumps({"report": [{"lv": [row]}]}))


@pytest.mark.parametrize(
    ("field", "value"),
    [("lv_size", "64.00m"), ("lv_size", ""), ("lv_size", "-1"), ("lv_merging", "merging"), ("lv_merging", ""),
     ("data_percent", "12,5"), ("data_percent", "-1"), ("lv_time", "2026-11-24 16:27:14 +0000"), ("lv_attr", "O"),
     ("lv_device_open", "unknown"), ("lv_uuid", ""), ("lv_name", "[]"), ("vg_name", ""), ("lv_kernel_major", "x"),
     ("vg_free_count", "1e3"), ("lv_size", "\u0661")],
)  # fmt: skip
def test_a_value_in_another_form_is_an_error(field, value):
    with pytest.raises(ToolError, match=field):
        parse_report(changed(**{field: value}))


@given(st.sampled_from(FIELDS), st.text() | st.none() | st.integers() | st.booleans() | st.lists(st.text()))
def test_any_value_is_understood_or_an_error(field, value):
    try:
        report = parse_report(changed(**{field: value}))
    except ToolError:
        return
    assert len(report.volumes) == 1


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_json_is_understood_or_an_error(value):
    for shape in (value, {"report": value}, {"report": [{"lv": value}]}):
        try:
            parse_report(json.dumps(shape))
        except ToolError:
            continue
