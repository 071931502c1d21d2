# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""kubernetes_monitoring_layout and kubernetes_schedule_layout: their documentation says what they are."""

from __future__ import annotations

import pytest
import yaml

from ansible_collections.restorepoint.core.plugins.module_utils.bridge import kubernetes_monitoring, kubernetes_schedule
from ansible_collections.restorepoint.core.plugins.modules import (
    kubernetes_monitoring_layout,
    kubernetes_schedule_layout,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.documented import differences, options
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.running import run

MODULES = [
    (kubernetes_monitoring_layout, kubernetes_monitoring.SPEC),
    (kubernetes_schedule_layout, kubernetes_schedule.SPEC),
]
SHOP = {"name": "shop", "targets": [{"backend": "csi", "namespace": ["shop"]}]}


@pytest.mark.parametrize(("module", "spec"), MODULES)
def test_every_option_is_documented_as_it_is(module, spec):
    assert list(differences(spec, options(module))) == []


@pytest.mark.parametrize(("module", "spec"), MODULES)
def test_examples_name_options_that_there_are(module, spec):
    name = f"restorepoint.core.{module.__name__.rpartition('.')[2]}"
    tasks = [task[name] for task in yaml.safe_load(module.EXAMPLES)]
    assert tasks
    assert all(set(task) <= set(spec) for task in tasks)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"policies": [SHOP]}, "image is not set"),
        ({"image": "python"}, "there is no policy"),
        ({"image": "python", "policies": [SHOP], "interval": "5m"}, "it is not a duration"),
        ({"image": "python", "policies": [{**SHOP, "targets": []}]}, "policies[0].targets"),
        ({"namespace": "No", "image": "python", "policies": [SHOP]}, "No"),
    ],
)
def test_what_cannot_be_watched_is_refused_before_anything_is_asked(given, words):
    result = run(kubernetes_monitoring_layout, host="https://127.0.0.1:1", api_key="none", **given)
    assert result["failed"]
    assert words in result["msg"]
    assert result["changes"] == []
