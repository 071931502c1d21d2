# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shared options: Ansible accepts their specs, and they name just the keep rules and fields that the core knows."""

from __future__ import annotations

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.restorepoint.core.plugins.module_utils.bridge import btrfs, csi, hostpath, lvm, pve, zfs
from ansible_collections.restorepoint.core.plugins.module_utils.bridge.spec import FIELDS_SPEC
from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import KEEP_OPTIONS, RULES, parse_policy
from ansible_collections.restorepoint.core.plugins.module_utils.engine.spec import ASIDES_SPEC, KEEP_SPEC, SNAPSHOT_SPEC


def validate(spec, **parameters):
    result = ArgumentSpecValidator(spec).validate(parameters)
    return result.validated_parameters, result.error_messages


@pytest.mark.parametrize("options", [KEEP_SPEC["keep"]["options"], ASIDES_SPEC["asides"]["options"]])
def test_the_keep_rules_are_those_of_the_core(options):
    assert set(options) == set(KEEP_OPTIONS)
    assert {name for name, option in options.items() if option["type"] == "int"} == set(RULES)


def test_defaults_ask_for_nothing():
    parameters, errors = validate({**SNAPSHOT_SPEC, **KEEP_SPEC, **ASIDES_SPEC})
    assert errors == []
    given = {name: value for name, value in parameters.items() if value not in (None, False, [])}
    assert given == {"owner": "manual", "on_failure": "undo", "timezone": "UTC", "min_keep": 1}


def test_what_ansible_accepts_the_core_understands():
    parameters, errors = validate(KEEP_SPEC, keep={"daily": "7", "within": "48h"}, max_delete=20, min_age="1h")
    assert errors == []
    policy = parse_policy(parameters["keep"], max_delete=parameters["max_delete"], min_age=parameters["min_age"])
    assert (policy.rules, policy.within, policy.min_age) == ((("daily", 7),), 48 * 3600, 3600)
    assert str(policy.max_delete) == "20"


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"keep": {"dayly": 7}}, "dayly"),
        ({"keep": {"daily": "many"}}, "daily"),
        ({"min_keep": "some"}, "min_keep"),
    ],
)
def test_an_unknown_rule_or_a_count_that_is_none_is_refused(parameters, word):
    _unused, errors = validate(KEEP_SPEC, **parameters)
    assert word in " ".join(errors)


@pytest.mark.parametrize(
    "backend", [btrfs, csi, hostpath, lvm, pve, zfs], ids=lambda each: each.__name__.split(".")[-1]
)
def test_every_info_module_shows_the_fields_that_a_person_asks_for(backend):
    assert backend.INFO_SPEC["fields"] == FIELDS_SPEC["fields"]


def test_fields_may_be_text_and_those_that_there_are_not_are_refused_with_a_list_of_those_that_there_are():
    parameters, errors = validate(FIELDS_SPEC, fields="target,name")
    assert (parameters, errors) == ({"fields": ["target", "name"]}, [])
    _unused, errors = validate(FIELDS_SPEC, fields=["name", "size"])
    assert errors == [
        "value of fields must be one or more of: backend, target, name, created, owner, policy, description, labels, "
        "size_bytes, referenced_bytes, parent, ready, held, in_use, extra. Got no match for: size"
    ]
