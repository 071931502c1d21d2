# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a scheduler has to know of a policy, its drill and its export."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.engine.jobs import job
from ansible_collections.restorepoint.core.plugins.module_utils.engine.policy import parse_policies

FILES = {"backend": "hostpath", "path": ["/srv/a"], "store": "/var/store"}
RESTIC = {"kind": "restic", "repository": "/mnt/restic", "password_file": "/p"}


def told(**keys):
    """What there is to know of a policy with these keys."""
    return job(parse_policies({"policies": [{"name": "shop", "targets": [FILES], **keys}]})[0])


def test_a_policy_without_these_keys_has_no_drill_and_no_export():
    found = told(schedule={"calendar": "daily"})
    assert (found["calendar"], found["drill"], found["export"]) == (["daily UTC"], None, None)


def test_each_schedule_is_told_in_the_words_of_systemd_with_the_time_zone_of_the_policy():
    found = told(
        timezone="Europe/Paris", drill={"scratch": "/scratch"}, export=[RESTIC], drill_schedule={"cron": "30 3 * * 0"}
    )
    assert found["calendar"] == []
    assert found["drill"] == {
        "calendar": ["Sun *-*-* 03:30:00 Europe/Paris"],
        "paths": ["/scratch", "/srv/a", "/var/store"],
        "own_programs": True,
    }
    assert found["export"] == {
        "calendar": [],
        "paths": ["/mnt/restic", "/srv/a", "/var/store"],
        "own_programs": True,
    }


@pytest.mark.parametrize(
    ("keys", "own"),
    [
        ({"drill": {"command": ["true"]}}, False),
        ({"export": [{**RESTIC, "password_file": None, "password_command": ["pass"]}]}, False),
        ({"export": [{**RESTIC, "repository": "rclone:drive:x"}]}, False),
        ({"export": [{**RESTIC, "repository": "s3:https://s3.example.org/x"}]}, True),
        ({"export": [RESTIC], "targets": [{"backend": "hostpath", "namespace": "a", "store": "/var/store"}]}, False),
    ],
    ids=["a command", "a password command", "rclone", "S3", "claims of Kubernetes"],
)
def test_what_starts_programs_that_are_not_known_is_not_confined_as_much(keys, own):
    found = told(**keys)
    assert (found["drill"] or found["export"])["own_programs"] is own
