# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The libraries in the agent: those that are pinned and no others, unmodified, with their licences."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.setup import agent_libraries

CHECKOUT = pathlib.Path(__file__).resolve().parents[5]
WHEEL = agent_libraries.PROMETHEUS


@pytest.fixture(scope="module")
def wheel():
    """The wheel, from the cache or from PyPI."""
    list(agent_libraries.files())
    return (agent_libraries.cache() / WHEEL.file).read_bytes()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of its own; pip reaches nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    agent_libraries.cache().mkdir(parents=True)
    return agent_libraries.cache()


def test_what_is_in_the_cache_is_not_downloaded(wheel, cache):
    (cache / WHEEL.file).write_bytes(wheel)
    names = [name for name, _content in agent_libraries.files()]
    assert "prometheus_client/__init__.py" in names
    assert f"prometheus_client-{WHEEL.version}.dist-info/licenses/LICENSE" in names


def test_what_another_has_put_into_the_cache_is_not_taken(wheel, cache):
    (cache / WHEEL.file).write_bytes(wheel + b"\0")
    with pytest.raises(RestorePointError, match=f"put {WHEEL.file} into {cache}"):
        list(agent_libraries.files())


def test_a_wheel_that_pip_finds_elsewhere_is_taken_if_it_is_that_very_one(wheel, cache, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(mirror))
    (mirror / WHEEL.file).write_bytes(wheel + b"\0")
    with pytest.raises(RestorePointError):
        list(agent_libraries.files())
    (mirror / WHEEL.file).write_bytes(wheel)
    assert list(agent_libraries.files())
    assert (cache / WHEEL.file).read_bytes() == wheel
    assert [path.name for path in cache.iterdir()] == [WHEEL.file]


def test_the_tests_use_the_version_that_the_agent_has():
    pins = (CHECKOUT / "requirements-dev.txt").read_text().splitlines()
    assert f"{WHEEL.package}=={WHEEL.version}" in pins


def test_the_folder_of_wheels_can_be_named_as_execution_environments_do(wheel, cache, tmp_path, monkeypatch):
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / WHEEL.file).write_bytes(wheel)
    monkeypatch.setenv("RESTOREPOINT_WHEELS", str(shipped))
    assert list(agent_libraries.files())
    assert not (cache / WHEEL.file).exists()
