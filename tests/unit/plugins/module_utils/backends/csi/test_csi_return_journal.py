# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a return writes on volumes is read back as it was, and anything else is refused; the new volume is proven."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.returning import changes, steps
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.returning import journal as j
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import StoreError

SPEC = {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}
JOURNAL = j.Journal(
    id="0123456789-abcdefabcd",
    mode=j.BY_SNAPSHOT,
    namespace="shop",
    claim="data",
    claim_uid="uid-claim",
    old="pv-old",
    policy="Delete",
    source="data-before",
    source_uid="uid-snapshot",
    name="before",
    size=2**30,
    at=1_790_000_000,
    until=1_790_000_600,
    aside="aside-20260921t141320z",
    temporary="data-rb-0123456789",
    spec=SPEC,
    labels={"app": "data"},
    annotations={"note": "kept"},
)
words = st.text(max_size=20)


def on_volume(text: str | None, role: str = "old", key: str = j.JOURNAL) -> dict[str, Any]:
    annotations = {} if text is None else {key: text}
    return {"metadata": {"name": "pv-old", "labels": {j.ROLE: role}, "annotations": annotations}}


@given(
    spec=st.dictionaries(words, st.one_of(words, st.lists(words), st.dictionaries(words, words))),
    labels=st.dictionaries(words, words),
    owners=st.lists(st.dictionaries(words, words), max_size=2),
    tokens=st.dictionaries(words, st.integers(0, 2**40)),
    keep=st.booleans(),
    once=words,
)
def test_a_journal_is_read_as_it_was_written(
    spec: dict[str, Any],
    labels: dict[str, str],
    owners: list[dict[str, str]],
    tokens: dict[str, int],
    keep: bool,
    once: str,
) -> None:
    more: dict[str, Any] = {
        "spec": spec,
        "labels": labels,
        "owners": tuple(owners),
        "tokens": tokens,
        "keep": keep,
        "once": once,
    }
    journal = dataclasses.replace(JOURNAL, **more)
    assert j.read(on_volume(j.as_text(journal))) == journal


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"mode": "sideways"},
        {"aside": "pre-upgrade"},
        {"size": -1},
        {"size": True},
        {"keep": 1},
        {"labels": {"app": 1}},
        {"owners": {}},
        {"tokens": {"x": "y"}},
        {"spec": "text"},
        {"claim": None},
        {"unknown": "member"},
    ],
)
def test_a_journal_that_somebody_has_changed_is_refused(change: dict[str, Any]) -> None:
    text = json.dumps({**json.loads(j.as_text(JOURNAL)), **change})
    with pytest.raises(StoreError, match="pv-old"):
        j.read(on_volume(text))


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", "null"])
def test_what_is_no_journal_is_never_taken_for_none(text: str) -> None:
    with pytest.raises(StoreError):
        j.read(on_volume(text))
    with pytest.raises(StoreError):
        j.read_kept(on_volume(text, j.KEPT, j.ASIDE))
    if text != "{}":
        with pytest.raises(StoreError):
            j.tokens_of(on_volume(text, "live", j.ONCE))


def test_a_volume_without_a_journal_has_none() -> None:
    assert j.read(on_volume(None)) is None
    assert j.read_kept(on_volume(None)) is None
    assert j.tokens_of(None) == {}


def test_the_newest_fifty_tokens_are_remembered() -> None:
    tokens = json.loads(j.tokens_text({f"job{number}": number for number in range(80)}))
    assert tokens == {f"job{number}": number for number in range(30, 80)}


@given(claim=st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", fullmatch=True))
def test_the_temporary_claim_has_a_name_that_kubernetes_takes_and_that_is_its_own(claim: str) -> None:
    name = changes.temporary_name(claim, "0123456789")
    assert len(name) <= 253
    assert name.endswith("-rb-0123456789")
    assert changes.temporary_name(claim[:-1] + ("a" if claim[-1] != "a" else "b"), "0123456789") != name
    assert len(j.id_for("0123456789", claim)) <= 63


def test_the_claim_is_made_again_as_it_was_without_what_controllers_wrote_and_owners_that_are_gone() -> None:
    owners = ({"kind": "StatefulSet", "name": "a", "uid": "1"}, {"kind": "StatefulSet", "name": "b", "uid": "2"})
    annotations = {"note": "kept", "pv.kubernetes.io/bind-completed": "yes", "volume.kubernetes.io/selected-node": "n"}
    journal = dataclasses.replace(JOURNAL, owners=owners, annotations=annotations)
    claim = changes.claim_again(journal, "pv-new", {"1"})
    assert claim["metadata"] == {
        "name": "data",
        "labels": {"app": "data"},
        "annotations": {"note": "kept"},
        "ownerReferences": [owners[1]],
    }
    assert claim["spec"] == {**SPEC, "volumeName": "pv-new"}


def scene(**new: Any) -> steps.Scene:
    """A return whose new volume is there and not looked at yet."""
    temporary = {
        "metadata": {"name": JOURNAL.temporary, "uid": "uid-t", "annotations": {j.RETURN: JOURNAL.id}},
        "spec": {"volumeName": "pv-new", "dataSource": {"kind": "VolumeSnapshot", "name": "data-before"}},
        "status": {"phase": "Bound"},
    }
    spec = {
        "capacity": {"storage": "1Gi"},
        "storageClassName": "fast",
        "persistentVolumeReclaimPolicy": "Delete",
        "csi": {"driver": "d", "volumeHandle": "h2"},
        "claimRef": {"namespace": "shop", "name": JOURNAL.temporary, "uid": "uid-t"},
        **new,
    }
    labels = {j.RETURN: JOURNAL.id, j.ROLE: j.OLD, j.STAGE: j.PREPARING}
    old = {
        "metadata": {"name": "pv-old", "labels": labels, "annotations": {j.JOURNAL: j.as_text(JOURNAL)}},
        "spec": {"persistentVolumeReclaimPolicy": "Retain", "csi": {"driver": "d", "volumeHandle": "h1"}},
    }
    return steps.Scene(JOURNAL, None, temporary, old, {"metadata": {"name": "pv-new"}, "spec": spec})


def test_a_new_volume_that_is_as_it_has_to_be_is_retained_next() -> None:
    assert steps.next_step(scene()) == steps.RETAIN_NEW


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        ({"claimRef": {"namespace": "shop", "name": "x", "uid": "other"}}, "it is bound to another claim"),
        ({"capacity": {"storage": "1023Mi"}}, "1072693248 bytes instead of 1073741824"),
        ({"csi": {"driver": "d", "volumeHandle": "h1"}}, "it is the old volume under another name"),
        ({"csi": {"driver": "e", "volumeHandle": "h2"}}, "its driver is e, not d"),
        ({"storageClassName": "slow"}, "its storage class is another one"),
        ({"volumeMode": "Block"}, "its volume mode is another one"),
    ],
)
def test_a_new_volume_that_is_not_as_it_has_to_be_is_never_put_in_place(new: dict[str, Any], reason: str) -> None:
    step = steps.next_step(scene(**new))
    assert isinstance(step, steps.Problem)
    assert reason in step.reason


def test_an_old_volume_that_is_not_retained_any_more_is_retained_before_anything_else() -> None:
    here = scene()
    old = {**(here.old or {}), "spec": {"persistentVolumeReclaimPolicy": "Delete"}}
    assert steps.next_step(dataclasses.replace(here, old=old)) == steps.RETAIN_OLD
