# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures for the tests of the modules that speak to a server."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.tests.unit.plugins.modules.csi_cluster import csi_cluster
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.pve_cluster import guests_of_each_kind


@pytest.fixture
def pve():
    """A server with a guest of each kind, and the modules with its connection."""
    with guests_of_each_kind() as cluster:
        yield cluster


@pytest.fixture
def csi(certificate, monkeypatch, tmp_path):
    """A Kubernetes with two claims, and the modules with its connection; not the cluster of this machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(
        "ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.backend.SECONDS_EACH", 0.2
    )
    with csi_cluster(certificate) as cluster:
        yield cluster
