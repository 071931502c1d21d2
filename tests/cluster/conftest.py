# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the tests on a real Kubernetes control plane: ``cluster``, a ``namespace`` of each test, a ``proxy``.

Where no cluster can be had these tests are skipped with the reason, but with CI=true they fail. KUBECONFIG_LAB names
one that is there already. RP_CLUSTER names one of the project's own: one that runs is taken as it is, and left.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ansible_collections.restorepoint.core.tests.cluster.lab import outside, running
from ansible_collections.restorepoint.core.tests.cluster.scheduled import TOOL, Schedule


@pytest.fixture(scope="session")
def cluster():
    """The cluster, a Lab: for whatever leaves it as it is. Several sessions of tests may share it."""
    if os.environ.get("KUBECONFIG_LAB"):
        lab = outside(os.environ["KUBECONFIG_LAB"])
        yield lab
        lab.close()
        return
    with running(os.environ.get("RP_CLUSTER") or f"tests-{os.getpid()}") as lab:
        yield lab


@pytest.fixture(scope="module")
def fragile():
    """A cluster for the tests of one file, whose parts they may end and whose driver they may let fail."""
    if os.environ.get("KUBECONFIG_LAB"):
        pytest.skip("ends parts of the cluster, which those of KUBECONFIG_LAB are not ours to end")
    with running(f"fragile-{os.getpid()}") as lab:
        yield lab


@pytest.fixture
def namespace(cluster):
    """A namespace of the test's own in ``cluster``, which goes with all that is in it."""
    name = cluster.make_namespace()
    yield name
    cluster.remove_namespace(name)


@pytest.fixture
def fragile_namespace(fragile):
    """A namespace of the test's own in ``fragile``."""
    name = fragile.make_namespace()
    yield name
    fragile.remove_namespace(name)


@pytest.fixture
def proxy(cluster):
    """A proxy in front of ``cluster``, whole and with no request counted; ``cluster.through(proxy)`` logs in by it."""
    with cluster.proxy() as made:
        yield made


@pytest.fixture(scope="session")
def agent(tmp_path_factory):
    """The agent, built."""
    path = tmp_path_factory.mktemp("agent") / "restorepoint.pyz"
    subprocess.run([sys.executable, str(TOOL), str(path)], check=True, capture_output=True, timeout=120)
    return path


@pytest.fixture
def schedule(cluster, namespace, agent, tmp_path):
    """Policies that are set up in a namespace of jobs, which goes with all that is in it."""
    found = Schedule(cluster, namespace, agent, tmp_path)
    yield found
    found.remove()
