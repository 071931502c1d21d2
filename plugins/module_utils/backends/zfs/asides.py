# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What returns have set aside: whole datasets, each with the snapshots that were newer. Called by backend and info.

A dataset is an aside of D if its own property says so; its name is only what it happens to be called.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.errors import ToolError
from ...core.snapshot import Snapshot
from . import properties as props
from .listing import DATASETS, Dataset, Row, own_values, snapshots_of, with_tags
from .names import pool_of
from .tool import NOT_DONE, Zfs, lists, parse_number

_COLUMNS = ("name", "type", "used", "referenced", "mounted", "createtxg")


@dataclass(frozen=True)
class Aside:
    """One dataset that was set aside. ``children`` are the datasets directly below it."""

    dataset: Dataset
    record: Mapping[str, Any]
    used: int
    referenced: int
    mounted: bool
    txg: int
    rows: tuple[Row, ...] = ()
    children: tuple[str, ...] = ()

    @property
    def of(self) -> str:
        """The dataset whose content it was."""
        return str(self.record["of"])

    @property
    def name(self) -> str:
        """What it is called as a snapshot, such as aside-20261122t013000z."""
        return str(self.record["name"])

    def snapshot(self, going: Collection[str]) -> Snapshot:
        """Return it in the common form; ``going`` are the asides that would be removed together with it."""
        clones = [clone for row in self.rows for clone in row.clones if clone not in going]
        held = [f"{row.name} ({', '.join(row.tags or ())})" for row in self.rows if row.holds]
        staying = [child for child in self.children if child not in going]
        uses = [f"cloned as {', '.join(clones)}"] if clones else []
        uses += [f"{', '.join(staying)} lies in it"] if staying else []
        uses += ["it is mounted"] if self.mounted else []
        return Snapshot(
            backend="zfs",
            target=self.of,
            name=self.name,
            created=int(self.record["at"]),
            sequence=self.txg,
            size_bytes=self.used,
            referenced_bytes=self.referenced,
            held=f"its snapshots are held: {', '.join(held)}" if held else None,
            in_use="; ".join(uses) or None,
            extra={
                "aside": True,
                "dataset": self.dataset.name,
                "returned_to": self.record.get("returned_to"),
                "snapshots": [row.name for row in self.rows],
            },
        )


def asides_of(
    zfs: Zfs, targets: Sequence[str], attempt: str, everything: bool = False, among: Sequence[str] | None = None
) -> dict[str, list[Aside]]:
    """Return the asides of these datasets, oldest first; of all datasets in their pools for ``everything``.

    ``among``: they are among these datasets, as who has looked at all datasets of the pools knows.
    """
    found: dict[str, list[Aside]] = {target: [] for target in targets}
    if among is None:
        records = _records(zfs, sorted({pool_of(target) for target in targets}), attempt, "-r")
    else:
        records = _records(zfs, among, attempt) if among else {}
    wanted = {name: record for name, record in records.items() if everything or record["of"] in found}
    if not wanted:
        return found
    listed = zfs.rows(_COLUMNS, ["-t", DATASETS, "-r"], sorted(wanted), attempt)
    rows = {row[0]: row for row in listed}
    kinds = [Dataset(name, rows[name][1], inherits=True) for name in wanted]
    snapshots = with_tags(zfs, snapshots_of(zfs, kinds, attempt), attempt)
    for dataset in kinds:
        name, _kind, used, referenced, mounted, txg = rows[dataset.name]
        aside = Aside(
            dataset,
            wanted[name],
            used=parse_number(used, f"used of {name}", attempt),
            referenced=parse_number(referenced, f"referenced of {name}", attempt),
            mounted=mounted == "yes",
            txg=parse_number(txg, f"createtxg of {name}", attempt),
            rows=tuple(snapshots[name]),
            children=tuple(sorted(each for each in rows if each.rpartition("/")[0] == name)),
        )
        found.setdefault(aside.of, []).append(aside)
    for each in found.values():
        each.sort(key=lambda aside: (aside.record["at"], aside.name))
    return found


def _records(zfs: Zfs, of: Sequence[str], attempt: str, *options: str) -> dict[str, dict[str, Any]]:
    values = own_values(zfs, (props.ASIDE, props.RETURN), of, attempt, *options, "-t", DATASETS)
    records = {
        name: props.decode_json(each[props.ASIDE], props.ASIDE, name)
        for name, each in values.items()
        if props.ASIDE in each and props.RETURN not in each
    }
    return {name: record for name, record in records.items() if record.get("of") not in (None, name)}


def destroy_aside(zfs: Zfs, aside: Aside, attempt: str) -> None:
    """Destroy an aside: its snapshots by their names, then the dataset. Never with -r or -R.

    Raises ToolError, also where `zfs` ends well and has not named the dataset as destroyed.
    """
    for batch in lists([row.name for row in aside.rows]):
        zfs.run("destroy", f"{aside.dataset.name}@{','.join(batch)}", attempt=attempt)
    told = zfs.table(("what", "name"), "destroy", "-vp", aside.dataset.name, attempt=attempt)
    if ["destroy", aside.dataset.name] not in told:
        raise ToolError(attempt, f"`zfs destroy` ended well, but has not destroyed {aside.dataset.name}", NOT_DONE)
