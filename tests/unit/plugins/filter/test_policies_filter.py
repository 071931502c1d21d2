# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters of policies: all faults at once, and what a scheduler has to know."""

from __future__ import annotations

import json
import pathlib

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.restorepoint.core.plugins.filter.policies import policies
from ansible_collections.restorepoint.core.plugins.filter.policy_jobs import policy_jobs

READY = pathlib.Path(__file__).resolve().parents[4] / "playbooks" / "files" / "policies"
SHOP = {
    "name": "shop",
    "targets": [
        {"backend": "zfs", "dataset": ["tank/shop"]},
        {"backend": "hostpath", "path": ["/etc/shop"], "store": "/srv/store"},
    ],
    "timezone": "Europe/Paris",
    "schedule": {"calendar": "daily", "cron": ["0 0 * * *", "15 3 1 * mon"]},
}


class Text(str):
    """A text as Ansible has them."""


def test_sound_policies_come_through_as_plain_data():
    given = [{Text("name"): Text("dev"), "targets": [{"backend": "zfs", "dataset": (Text("tank"),)}]}]
    found = policies(given)
    assert found == {"policies": [{"name": "dev", "targets": [{"backend": "zfs", "dataset": ["tank"]}]}]}
    assert found["policies"][0]["name"].__class__ is str
    assert policies(found) == found
    assert policies([]) == {"policies": []}


def test_every_fault_of_every_policy_is_named():
    given = [{**SHOP, "targets": []}, {**SHOP, "schedule": {"cron": "61 * * * *"}}]
    with pytest.raises(AnsibleFilterError) as caught:
        policies(given)
    for place in ("policies[0].targets", "policies[1].schedule.cron[0]", "policies[1].name"):
        assert place in str(caught.value)


def test_a_job_has_all_moments_once_with_their_zone_and_the_folders_of_a_run():
    (found,) = policy_jobs([SHOP])
    assert found["calendar"] == [
        "daily Europe/Paris",
        "*-*-* 00:00:00 Europe/Paris",
        "*-*-01 03:15:00 Europe/Paris",
        "Mon *-*-* 03:15:00 Europe/Paris",
    ]
    assert (found["paths"], found["own_programs"], found["hook_seconds"]) == (["/etc/shop", "/srv/store"], True, 0)


@pytest.mark.parametrize(
    ("hook", "own"),
    [
        ({"kind": "fsfreeze", "path": "/srv/data", "timeout": "5s"}, True),
        ({"kind": "command", "before": ["true"], "timeout": "5s"}, False),
    ],
)
def test_programs_of_others_are_told_apart(hook, own):
    (found,) = policy_jobs([{**SHOP, "hooks": [hook, hook]}])
    assert (found["own_programs"], found["hook_seconds"]) == (own, 10)


@pytest.mark.parametrize("name", ["production", "staging", "development"])
def test_the_policies_that_are_ready_to_use_become_jobs(name):
    (found,) = policy_jobs(json.loads((READY / f"{name}.json").read_text()))
    assert found["name"] == name
    assert found["calendar"]
