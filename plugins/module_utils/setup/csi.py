# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a Kubernetes cluster needs for CSI snapshots, as it is asked for: CRDs, snapshot controller, classes.

``parse`` reads the options, csi_facts the cluster, and csi_plan compares the two. What somebody else set up is left
alone: a cluster has one snapshot controller, whoever runs it. Pure; called by bridge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..core.errors import InvalidInput
from ..kube_resources import (
    GROUP_SNAPSHOT_CLASSES,
    GROUP_SNAPSHOT_GROUP,
    SNAPSHOT_CLASSES,
    SNAPSHOT_GROUP,
    STORAGE_CLASSES,
    Resource,
)
from .csi_drivers import classes_of
from .csi_manifests import Controller
from .plan import named

#: The kinds without which there are no snapshots, and those without which there are none of groups.
SNAPSHOT_CRDS = tuple(f"{each}.{SNAPSHOT_GROUP}" for each in
                      ("volumesnapshotclasses", "volumesnapshotcontents", "volumesnapshots"))  # fmt: skip
GROUP_CRDS = tuple(f"{each}.{GROUP_SNAPSHOT_GROUP}" for each in
                   ("volumegroupsnapshotclasses", "volumegroupsnapshotcontents", "volumegroupsnapshots"))  # fmt: skip
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True)
class ClassKind:
    """A kind of class: where it names its driver, and by which annotation one is the default."""

    resource: Resource
    driver: str
    annotation: str
    #: Whether there is a default for each driver, or one for the whole cluster.
    by_driver: bool


STORAGE = ClassKind(STORAGE_CLASSES, "provisioner", "storageclass.kubernetes.io/is-default-class", by_driver=False)
SNAPSHOT = ClassKind(SNAPSHOT_CLASSES, "driver", "snapshot.storage.kubernetes.io/is-default-class", by_driver=True)
GROUP = ClassKind(GROUP_SNAPSHOT_CLASSES, "driver", "groupsnapshot.storage.kubernetes.io/is-default-class",
                  by_driver=True)  # fmt: skip
CLASS_KINDS = (STORAGE, SNAPSHOT, GROUP)


@dataclass(frozen=True)
class WantedClass:
    """A class. ``body`` is all but its metadata; ``default`` None leaves that as it is."""

    kind: ClassKind
    name: str
    body: Mapping[str, Any]
    labels: Mapping[str, str]
    default: bool | None

    @property
    def driver(self) -> str:
        """The CSI driver that it is for."""
        return str(self.body[self.kind.driver])

    @property
    def target(self) -> str:
        """How it is called in results."""
        return f"{self.kind.resource.kind} {self.name}"


@dataclass(frozen=True)
class Wanted:
    """All that is asked for. ``expected`` are drivers that are taken as there, since they are set up afterwards."""

    crds: bool
    controller: bool
    update: bool
    options: Controller
    classes: tuple[WantedClass, ...]
    replace_default: bool
    expected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """A snapshot controller that runs in the cluster, or a sign of one that cannot be seen.

    ``where`` says which workload it is, ``manager`` who set it up as far as that can be told.
    """

    where: str
    image: str
    manager: str
    ready: int
    replicas: int
    ours: bool
    digest: str = ""

    def __str__(self) -> str:
        by = f", set up by {self.manager}" if self.manager else ""
        return f"{self.where}{f' ({self.image})' if self.image else ''}{by}"


@dataclass(frozen=True)
class Cluster:
    """What is there.

    ``crds`` are those of the two snapshot groups by name, ``classes`` the classes of each kind by name, ``objects``
    what is there of the manifests' objects, by their target. ``drivers`` are the CSI drivers.
    """

    drivers: tuple[str, ...] = ()
    crds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    controllers: tuple[Found, ...] = ()
    classes: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    objects: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def parse(params: Mapping[str, Any]) -> Wanted:
    """Return what the options of csi_layout ask for; InvalidInput for what cannot be meant."""
    storage, snapshot, group = (list(params[name]) for name in
                                ("storage_classes", "snapshot_classes", "group_snapshot_classes"))  # fmt: skip
    for row in params["drivers"]:
        rows = classes_of(row)
        storage += rows.storage
        snapshot += rows.snapshot
        group += rows.group
    classes = (
        *(_storage_class(row) for row in storage),
        *(_snapshot_class(SNAPSHOT, row) for row in snapshot),
        *(_snapshot_class(GROUP, row) for row in group),
    )
    twice = named([{"kind": each.kind.resource.kind, "name": each.name} for each in classes], "kind", "name")
    if twice:
        raise InvalidInput("set up classes", f"{', '.join(twice)} is there twice", "name each once")
    _check_defaults(classes)
    replicas = params["controller_replicas"]
    if replicas is not None and replicas < 1:
        raise InvalidInput("set up the snapshot controller", f"it cannot have {replicas} replicas", "give 1 or more")
    return Wanted(
        crds=params["install_crds"],
        controller=params["install_controller"],
        update=params["update"],
        options=Controller(params["controller_image"], replicas, tuple(params["controller_arguments"])),
        classes=classes,
        replace_default=params["replace_default"],
        expected=tuple(params["expected_drivers"]),
    )


def _checked(name: str, kind: str) -> str:
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise InvalidInput(f"make the {kind} {name!r}", "Kubernetes does not allow that name", "use a-z, 0-9, - and .")
    return name


def _storage_class(row: Mapping[str, Any]) -> WantedClass:
    body = {
        "provisioner": row["provisioner"],
        "parameters": _parameters(row),
        "reclaimPolicy": row["reclaim_policy"],
        "volumeBindingMode": row["volume_binding_mode"],
        "allowVolumeExpansion": row["allow_volume_expansion"],
        "mountOptions": list(row["mount_options"]),
    }
    name = _checked(row["name"], "StorageClass")
    return WantedClass(STORAGE, name, body, _texts(row["labels"]), row["default"])


def _snapshot_class(kind: ClassKind, row: Mapping[str, Any]) -> WantedClass:
    body = {"driver": row["driver"], "deletionPolicy": row["deletion_policy"], "parameters": _parameters(row)}
    return WantedClass(kind, _checked(row["name"], kind.resource.kind), body, _texts(row["labels"]), row["default"])


def _parameters(row: Mapping[str, Any]) -> dict[str, str]:
    return _texts(row["parameters"])


def _texts(given: Mapping[str, Any]) -> dict[str, str]:
    """Return values as the text that Kubernetes wants: YAML's true is the word true."""
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}


def _scope(each: WantedClass) -> str:
    """Return within what there can be one default only."""
    return f"{each.kind.resource.kind} of {each.driver}" if each.kind.by_driver else each.kind.resource.kind


def _check_defaults(classes: Sequence[WantedClass]) -> None:
    seen: dict[str, str] = {}
    for each in classes:
        if not each.default:
            continue
        other = seen.setdefault(_scope(each), each.name)
        if other != each.name:
            raise InvalidInput(
                "set up classes", f"both {other} and {each.name} are to be the default {_scope(each)}",
                "make one of them the default",
            )  # fmt: skip


def with_objects(cluster: Cluster, objects: Mapping[str, Mapping[str, Any]]) -> Cluster:
    """Return the same cluster, with what is there of the manifests' objects."""
    return replace(cluster, objects=objects)
