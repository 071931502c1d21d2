# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which classes the CSI drivers want that have snapshots, so that nobody has to look up their parameters. Pure.

Each kind of driver turns a row of options into a StorageClass, a VolumeSnapshotClass, and a VolumeGroupSnapshotClass
where that is asked for. The parameters are those of the drivers' own documentation, which each kind names. Called by
csi beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

from ..core.errors import InvalidInput

FSTYPE = "csi.storage.k8s.io/fstype"
_SECRETS = "csi.storage.k8s.io/"
#: The options of a row that are for some kinds only.
SETTINGS = (
    *("volume_group", "pool", "device_class", "cluster_id", "filesystem", "fs_type"),
    *("namespace", "secret", "thin", "replicas"),
)


@dataclass(frozen=True)
class Kind:
    """What a kind of driver wants.

    ``driver`` is its name in the cluster, ``name`` what its classes are called when nothing else is asked for.
    ``needs`` and ``takes`` are options of SETTINGS. ``storage``, ``snapshot`` and ``group`` make the parameters of each
    class from them. ``mode`` is the volume binding mode.
    """

    driver: str
    name: str
    source: str
    storage: Callable[[Mapping[str, Any]], dict[str, Any]]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    snapshot: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda row: {}
    group: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    mode: str = "WaitForFirstConsumer"


def _secrets(roles: tuple[str, ...], secret: str, namespace: str) -> dict[str, str]:
    found = {}
    for role in roles:
        found[f"{_SECRETS}{role}-secret-name"] = secret
        found[f"{_SECRETS}{role}-secret-namespace"] = namespace
    return found


def _lvm(row: Mapping[str, Any]) -> dict[str, Any]:
    thin = {} if row["thin"] is None else {"thinProvision": "yes" if row["thin"] else "no"}
    return {"storage": "lvm", "volgroup": row["volume_group"], "fsType": row["fs_type"], **thin}


def _zfs(row: Mapping[str, Any]) -> dict[str, Any]:
    thin = {} if row["thin"] is None else {"thinprovision": "yes" if row["thin"] else "no"}
    return {"poolname": row["pool"], "fstype": row["fs_type"] or "zfs", **thin}


def _mayastor(row: Mapping[str, Any]) -> dict[str, Any]:
    thin = {} if row["thin"] is None else {"thin": "true" if row["thin"] else "false"}
    return {"protocol": "nvmf", "repl": str(row["replicas"]), "fsType": row["fs_type"], **thin}


def _topolvm(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"topolvm.io/device-class": row["device_class"], FSTYPE: row["fs_type"]}


_RBD_ROLES = ("provisioner", "controller-expand", "controller-publish")
_CEPHFS_ROLES = ("provisioner", "controller-expand")


def _rook_rbd(row: Mapping[str, Any]) -> dict[str, Any]:
    namespace = row["namespace"] or "rook-ceph"
    return {
        "clusterID": row["cluster_id"] or namespace,
        "pool": row["pool"],
        "imageFormat": "2",
        "imageFeatures": "layering",
        **_secrets(_RBD_ROLES, "rook-csi-rbd-provisioner", namespace),
        **_secrets(("node-stage",), "rook-csi-rbd-node", namespace),
        FSTYPE: row["fs_type"] or "ext4",
    }


def _rook_cephfs(row: Mapping[str, Any]) -> dict[str, Any]:
    namespace = row["namespace"] or "rook-ceph"
    return {
        "clusterID": row["cluster_id"] or namespace,
        "fsName": row["filesystem"],
        "pool": row["pool"],
        **_secrets(_CEPHFS_ROLES, "rook-csi-cephfs-provisioner", namespace),
        **_secrets(("node-stage",), "rook-csi-cephfs-node", namespace),
    }


def _rook_snapshot(secret: str, role: str = "snapshotter") -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def make(row: Mapping[str, Any]) -> dict[str, Any]:
        namespace = row["namespace"] or "rook-ceph"
        return {"clusterID": row["cluster_id"] or namespace, **_secrets((role,), secret, namespace)}

    return make


def _rook_rbd_group(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**_rook_snapshot("rook-csi-rbd-provisioner", "group-snapshotter")(row), "pool": row["pool"]}


def _rook_cephfs_group(row: Mapping[str, Any]) -> dict[str, Any]:
    made = _rook_snapshot("rook-csi-cephfs-provisioner", "group-snapshotter")(row)
    return {**made, "fsName": row["filesystem"]}


def _ceph_rbd(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "clusterID": row["cluster_id"],
        "pool": row["pool"],
        "imageFeatures": "layering",
        **_secrets((*_RBD_ROLES, "node-stage"), row["secret"], row["namespace"]),
        FSTYPE: row["fs_type"] or "ext4",
    }


def _ceph_cephfs(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "clusterID": row["cluster_id"],
        "fsName": row["filesystem"],
        "pool": row["pool"],
        **_secrets((*_CEPHFS_ROLES, "node-stage"), row["secret"], row["namespace"]),
    }


def _ceph_snapshot(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"clusterID": row["cluster_id"], **_secrets(("snapshotter",), row["secret"], row["namespace"])}


def _ceph_rbd_group(row: Mapping[str, Any]) -> dict[str, Any]:
    secrets = _secrets(("group-snapshotter",), row["secret"], row["namespace"])
    return {"clusterID": row["cluster_id"], "pool": row["pool"], **secrets}


def _ceph_cephfs_group(row: Mapping[str, Any]) -> dict[str, Any]:
    secrets = _secrets(("group-snapshotter",), row["secret"], row["namespace"])
    return {"clusterID": row["cluster_id"], "fsName": row["filesystem"], **secrets}


_NOTHING: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda row: {}  # noqa: E731 - one word for two defaults

KINDS: dict[str, Kind] = {
    "csi_hostpath": Kind(
        "hostpath.csi.k8s.io", "csi-hostpath", "github.com/kubernetes-csi/csi-driver-host-path: examples",
        _NOTHING, group=_NOTHING, mode="Immediate",
    ),
    "openebs_lvm": Kind(
        "local.csi.openebs.io", "openebs-lvm", "github.com/openebs/lvm-localpv: docs/storageclasses.md",
        _lvm, needs=("volume_group",), takes=("fs_type", "thin"),
    ),
    "openebs_zfs": Kind(
        "zfs.csi.openebs.io", "openebs-zfs", "github.com/openebs/zfs-localpv: docs/storageclasses.md",
        _zfs, needs=("pool",), takes=("fs_type", "thin"),
    ),
    "openebs_mayastor": Kind(
        "io.openebs.csi-mayastor", "openebs-mayastor", "openebs.io/docs: Replicated PV Mayastor, storage class",
        _mayastor, needs=("replicas",), takes=("fs_type", "thin"), mode="Immediate",
    ),
    "rook_rbd": Kind(
        "rook-ceph.rbd.csi.ceph.com", "rook-ceph-block", "github.com/rook/rook: deploy/examples/csi/rbd",
        _rook_rbd, needs=("pool",), takes=("namespace", "cluster_id", "fs_type"),
        snapshot=_rook_snapshot("rook-csi-rbd-provisioner"), group=_rook_rbd_group, mode="Immediate",
    ),
    "rook_cephfs": Kind(
        "rook-ceph.cephfs.csi.ceph.com", "rook-cephfs", "github.com/rook/rook: deploy/examples/csi/cephfs",
        _rook_cephfs, needs=("filesystem",), takes=("pool", "namespace", "cluster_id"),
        snapshot=_rook_snapshot("rook-csi-cephfs-provisioner"), group=_rook_cephfs_group, mode="Immediate",
    ),
    "ceph_rbd": Kind(
        "rbd.csi.ceph.com", "ceph-block", "github.com/ceph/ceph-csi: examples/rbd",
        _ceph_rbd, needs=("cluster_id", "pool", "secret", "namespace"), takes=("fs_type",),
        snapshot=_ceph_snapshot, group=_ceph_rbd_group, mode="Immediate",
    ),
    "ceph_cephfs": Kind(
        "cephfs.csi.ceph.com", "cephfs", "github.com/ceph/ceph-csi: examples/cephfs",
        _ceph_cephfs, needs=("cluster_id", "filesystem", "secret", "namespace"), takes=("pool",),
        snapshot=_ceph_snapshot, group=_ceph_cephfs_group, mode="Immediate",
    ),
    "topolvm": Kind(
        "topolvm.io", "topolvm", "github.com/topolvm/topolvm: docs/snapshot-and-restore.md",
        _topolvm, needs=("device_class",), takes=("fs_type",),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ClassRows:
    """Rows as ``storage_classes``, ``snapshot_classes`` and ``group_snapshot_classes`` of the module have them."""

    storage: tuple[Mapping[str, Any], ...]
    snapshot: tuple[Mapping[str, Any], ...]
    group: tuple[Mapping[str, Any], ...]


def classes_of(row: Mapping[str, Any]) -> ClassRows:
    """Return the classes for one row of ``drivers``; InvalidInput where it lacks something or has too much."""
    kind = KINDS[row["kind"]]
    attempt = f"make classes for {row['kind']}"
    missing = [name for name in kind.needs if row[name] in (None, "")]
    if missing:
        raise InvalidInput(attempt, f"{' and '.join(missing)} is not given", f"give it ({kind.source})")
    strange = [name for name in SETTINGS if row[name] is not None and name not in kind.needs + kind.takes]
    if strange:
        takes = ", ".join(kind.needs + kind.takes) or "none of these"
        raise InvalidInput(attempt, f"it does not know {' and '.join(strange)}", f"it takes {takes}")
    if row["group_class"] and kind.group is None:
        raise InvalidInput(attempt, "that driver has no group snapshots", "leave group_class out")
    name, driver = row["name"] or kind.name, row["driver"] or kind.driver
    storage = {
        "name": name, "provisioner": driver, "default": row["default"], "reclaim_policy": row["reclaim_policy"],
        "volume_binding_mode": row["volume_binding_mode"] or kind.mode, "allow_volume_expansion": True,
        "mount_options": [], "parameters": _merged(kind.storage(row), row["parameters"]), "labels": {},
    }  # fmt: skip
    common = {"name": name, "driver": driver, "deletion_policy": row["deletion_policy"], "labels": {}}
    snapshot = {
        **common, "default": row["default_snapshot_class"],
        "parameters": _merged(kind.snapshot(row), row["snapshot_parameters"]),
    }  # fmt: skip
    group = {**common, "default": None, "parameters": _merged(kind.group(row), {})} if kind.group else {}
    return ClassRows(
        storage=(storage,) if row["storage_class"] else (),
        snapshot=(snapshot,),
        group=(group,) if row["group_class"] else (),
    )


def _merged(made: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters, those that were given last; what has no value is left out."""
    return {name: value for name, value in {**made, **given}.items() if value is not None}
