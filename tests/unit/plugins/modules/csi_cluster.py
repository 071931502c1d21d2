# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fake cluster with claims, and the CSI modules with its connection. For the tests beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from ansible_collections.restorepoint.core.plugins.modules import csi_snapshot, csi_snapshot_info
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_cluster import FakeCluster
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_csi import (
    Csi,
    group_class,
    snapshot_class,
    storage_class,
    volume_of,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_kube import TOKEN, claim
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.documented import faults, missing
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.running import run


class CsiCluster:
    """The server, its controllers, and the modules."""

    def __init__(self, server: FakeCluster, csi: Csi) -> None:
        self.server = server
        self.csi = csi
        for item in (snapshot_class(), storage_class(), group_class()):
            server.put(item)

    def add(self, *names: str, namespace: str = "shop", size: str = "1Gi", **labels: str) -> None:
        """Add bound claims, each with its volume."""
        for name in names:
            item = claim(name, namespace, labels, storageClassName="csi", volumeName=f"pv-{namespace}-{name}")
            item["spec"]["resources"]["requests"]["storage"] = size
            item["status"]["capacity"]["storage"] = size
            self.server.put(volume_of(item, item["spec"]["volumeName"]))
            self.server.put(item)

    def state(self, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        """Run csi_snapshot and return its result."""
        given = {"namespace": "shop", "timeout": 60, **options}
        return self._documented(csi_snapshot, run(csi_snapshot, check_mode, **self._login(), **given))

    def _documented(self, module: ModuleType, result: dict[str, Any]) -> dict[str, Any]:
        """Hold a result against the documentation of its module."""
        documented = yaml.safe_load(module.RETURN)
        assert list(faults(result, documented)) == []
        assert missing(result, documented) == []
        return result

    def done(self, **options: Any) -> dict[str, Any]:
        """Run csi_snapshot in check mode, then in earnest, then again; the first has to foresee the second.

        Check mode only reads: a return that it carried out would look the same when it is carried out once more.
        """
        before, asked = self.snapshots(), len(self.server.requests)
        foreseen = self.state(check_mode=True, **options)
        sent = [(each.method, each.path) for each in self.server.requests[asked:] if each.method != "GET"]
        assert [each for each in sent if not each[1].endswith("/selfsubjectaccessreviews")] == []
        result = self.state(**options)
        assert not result.get("failed"), result["msg"]
        assert foreseen["changed"] == result["changed"]
        assert foreseen.get("diff") == result.get("diff")
        assert len(foreseen["results"]) == len(result["results"])
        for was, is_ in zip(foreseen["results"], result["results"]):
            # Without what only doing it tells; a second object of a name carries the mark of its run.
            known = {key: value for key, value in was.items() if key != "object"}
            assert known.items() <= is_.items()
        assert result["changed"] or before == self.snapshots()
        if options.get("state") != "rolled_back":
            again = self.state(**options)
            assert not again["changed"], again
        return result

    def info(self, **options: Any) -> dict[str, Any]:
        """Run csi_snapshot_info and return its result."""
        given = {"namespace": "shop", **options}
        return self._documented(csi_snapshot_info, run(csi_snapshot_info, **self._login(), **given))

    def snapshots(self) -> list[str]:
        """Return the names of the objects that are there."""
        return sorted(item["metadata"]["name"] for item in self.server.all("volumesnapshots"))

    def _login(self) -> dict[str, Any]:
        return {"host": self.server.url, "api_key": TOKEN, "ca_cert": str(self.server.certificate)}


@contextlib.contextmanager
def csi_cluster(certificate: Path) -> Iterator[CsiCluster]:
    """Start a cluster with two claims, db and uploads, in the namespace shop."""
    csi = Csi()
    with FakeCluster(certificate, csi) as server:
        cluster = CsiCluster(server, csi)
        cluster.add("db", "uploads", app="shop")
        yield cluster
