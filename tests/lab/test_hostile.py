# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tree that somebody changes meanwhile, by accident or to lead us astray: nothing outside is read or written.

Racers run in processes of their own and change things as fast as they can. What lies outside is a canary: a folder with
a secret in it, which may never appear in a store and must never change.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import pytest

from ansible_collections.restorepoint.core.tests.lab.driver import Failed, call, info
from ansible_collections.restorepoint.core.tests.lab.likeness import assert_same, snapshot_of

SECRET = b"the canary's secret"
SECONDS = 1.2
KINDS = pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])

SWAPPER = """
import os, sys, time
from ansible_collections.restorepoint.core.plugins.module_utils.linux import exchange
held, name, *others = sys.argv[1:]
place = {"dir_fd": os.open(held, os.O_RDONLY)} if held else {}
fd = place.get("dir_fd", -100)
print("ready", flush=True)
while True:
    for other in others:
        try:
            exchange(name, other, one_dirfd=fd)
            if len(others) > 1:
                time.sleep(0.0002)
            exchange(name, other, one_dirfd=fd)
        except OSError:
            time.sleep(0.0002)
"""


@pytest.fixture(autouse=True)
def _no_hang():
    """A run that waits for a fifo or reads a device without end fails instead of hanging."""

    def late(*_unused):
        raise TimeoutError("a run hangs")

    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(900)  # no test takes nearly as long, also on a busy machine
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@contextlib.contextmanager
def racing(code, *arguments):
    """Let a process run ``code`` until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
        assert process.poll() is None, "the racer has ended"
    finally:
        process.kill()
        process.communicate()


def until_late(seconds=SECONDS, at_least=5):
    """Yield numbers until the time is over."""
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end or number < at_least:
        yield number
        number += 1


@pytest.fixture
def canary(tmp_path_factory):
    """A folder on another filesystem; ``beside`` makes one on that of a place."""
    return make_canary(tmp_path_factory.mktemp("canary") / "canary")


def make_canary(folder):
    folder.mkdir(parents=True)
    for number in range(20):
        (folder / f"file-{number:02d}").write_bytes(SECRET)
    (folder / "below").mkdir()
    (folder / "below" / "file").write_bytes(SECRET)
    (folder / "canary").write_bytes(SECRET)
    return folder


def assert_secret_is_nowhere(*trees):
    for tree in trees:
        found = subprocess.run(
            ["grep", "-rlFD", "skip", SECRET.decode(), str(tree)], capture_output=True, text=True, check=False
        )
        # 0: it is there. 2: not all of it could be searched.
        assert found.returncode == 1, found.stdout + found.stderr
        assert [str(path) for path in pathlib.Path(tree).rglob("canary")] == []


def fill(target):
    """Make a target with a directory called d that has the canary's names in it, and files around."""
    (target / "a").mkdir()
    (target / "a" / "file").write_text("x")
    folder = target / "d"
    folder.mkdir()
    for number in range(20):
        (folder / f"file-{number:02d}").write_bytes(b"ours" * 100)
    (folder / "below").mkdir()
    (folder / "below" / "file").write_bytes(b"ours")
    (target / "f").write_bytes(b"ours" * 300_000)
    (target / "z").write_text("x")
    return target


# -- links that lead out -----------------------------------------------------------------------------------------------


def test_links_out_of_the_tree_are_copied_as_links(place, canary):
    target = place.make_target()
    outside = make_canary(place.folder / "outside")
    for name, path in {
        "absolute": canary,
        "relative": pathlib.Path("../outside"),
        "file": canary / "file-00",
        "fd": pathlib.Path("/proc/self/root") / str(canary)[1:],
    }.items():
        (target / name).symlink_to(path)
    before = snapshot_of(canary), snapshot_of(outside)
    options = {"path": [target], "store": place.store, "name": "one"}
    call(**options, checksum=True)
    original = snapshot_of(target)
    (target / "absolute").unlink()
    (target / "new").write_text("x")
    call(**options, state="rolled_back")
    assert_same(original, snapshot_of(target))
    for part in ("absolute/file-00", "relative/below", "fd/below/file"):
        with pytest.raises(Failed, match="is not in the snapshot"):
            call(**options, state="rolled_back", paths=[part])
    aside = info(store=place.store)["asides"][0]["name"]
    for name in ("one", aside):
        call(**{**options, "name": name}, state="absent")
    assert_same(before[0], snapshot_of(canary))
    assert_same(before[1], snapshot_of(outside))
    assert_secret_is_nowhere(place.store)


@KINDS
def test_a_directory_that_is_swapped_for_a_link_while_it_is_taken_leads_nowhere(lab, kind):
    with lab.place(kind) as place:
        target, outside = fill(place.make_target()), make_canary(place.folder / "outside")
        before = snapshot_of(outside)
        (place.folder / "swap").symlink_to(outside)
        with racing(SWAPPER, "", target / "d", place.folder / "swap"):
            for number in until_late():
                call(path=[target], store=place.store, name=f"s{number}", checksum=number % 2 == 0)
        assert_secret_is_nowhere(place.store)
        assert_same(before, snapshot_of(outside))
        assert [each for each in info(store=place.store, verify=True)["verified"] if not each["ok"]] == []


@KINDS
def test_a_file_that_is_swapped_for_something_else_while_it_is_taken_is_no_trap(lab, kind):
    """For a fifo (opening one hangs), a link, a device without an end, a socket's place, a directory."""
    with lab.place(kind) as place:
        target, outside = fill(place.make_target()), make_canary(place.folder / "outside")
        swaps = place.folder / "swaps"
        swaps.mkdir()
        os.mkfifo(swaps / "fifo")
        (swaps / "link").symlink_to(outside / "file-00")
        os.mknod(swaps / "zero", 0o020666, os.makedev(1, 5))
        (swaps / "directory").mkdir()
        (swaps / "directory" / "file").write_text("x")
        (swaps / "file").write_bytes(b"another")
        with racing(SWAPPER, "", target / "f", *sorted(swaps.iterdir())):
            for number in until_late():
                call(path=[target], store=place.store, name=f"s{number}", checksum=number % 2 == 0)
        assert_secret_is_nowhere(place.store)
        assert [each for each in info(store=place.store, verify=True)["verified"] if not each["ok"]] == []
        for tree in place.store.glob("*/s*/f"):
            if tree.is_file() and not tree.is_symlink():
                assert tree.read_bytes() in (b"ours" * 300_000, b"another")


# -- comparing and returning -------------------------------------------------------------------------------------------


@KINDS
def test_a_directory_that_is_swapped_for_a_link_while_it_is_returned_leads_nowhere(lab, kind):
    with lab.place(kind) as place:
        target, outside = fill(place.make_target()), make_canary(place.folder / "outside")
        options = {"path": [target], "store": place.store, "name": "one"}
        call(**options)
        original, before = snapshot_of(target), snapshot_of(outside)
        (place.folder / "swap").symlink_to(outside)
        ends = set()
        with racing(SWAPPER, "", target / "d", place.folder / "swap"):
            for number in until_late():
                with contextlib.suppress(Failed):
                    ends.add(
                        call(**options, state="rolled_back", check_mode=number % 2 == 0, ignore_users=True)["changed"]
                    )
                with contextlib.suppress(Failed):
                    call(**options, state="rolled_back", paths=["d/file-03", "d/below"], ignore_users=True)
                with contextlib.suppress(FileNotFoundError), open(target / "z", "a") as file:
                    file.write("x")
        assert_same(before, snapshot_of(outside))
        assert True in ends
        assert_secret_is_nowhere(place.store)
        call(**options, state="rolled_back")
        assert_same(original, snapshot_of(target))


@KINDS
def test_a_file_that_is_swapped_while_it_is_compared_is_no_trap(lab, kind):
    with lab.place(kind) as place:
        target = fill(place.make_target())
        options = {"path": [target], "store": place.store, "name": "one"}
        call(**options)
        swaps = place.folder / "swaps"
        swaps.mkdir()
        os.mkfifo(swaps / "fifo")
        (swaps / "link").symlink_to("/etc/passwd")
        os.mknod(swaps / "zero", 0o020666, os.makedev(1, 5))
        # As large, as old and with the same rights: only reading it tells.
        (swaps / "file").write_bytes(b"ours" * 300_000)
        st = (target / "f").stat()
        os.utime(swaps / "file", ns=(st.st_atime_ns, st.st_mtime_ns))
        ends = []
        parts: list[dict[str, Any]] = [{}, {"paths": ["f"]}]
        with racing(SWAPPER, "", target / "f", *sorted(swaps.iterdir())):
            for _unused in until_late():
                for part in parts:
                    with contextlib.suppress(Failed):
                        ends.append(call(**options, state="rolled_back", check_mode=True, **part)["changed"])
        assert True in ends


@KINDS
def test_what_was_set_aside_is_removed_without_following_what_is_swapped_in(lab, kind):
    """Somebody still holds the directory that was set aside, and swaps a link into it while it is removed."""
    with lab.place(kind) as place:
        target, outside = fill(place.make_target()), make_canary(place.folder / "outside")
        (outside / "d").mkdir()
        (outside / "d" / "file-00").write_bytes(SECRET)
        for number in range(300):
            (target / "d" / f"many-{number}").mkdir()
        options = {"path": [target], "store": place.store, "name": "one"}
        call(**options)
        before = snapshot_of(outside)
        (place.folder / "swap").symlink_to(outside)
        removed = 0
        for number in range(8):
            with racing(SWAPPER, target, "d", place.folder / "swap"):
                (target / "z").write_text(str(number))
                with contextlib.suppress(Failed):
                    call(**options, state="rolled_back", ignore_users=True, keep_current=number % 2 == 0)
                for aside in info(store=place.store)["asides"]:
                    with contextlib.suppress(Failed):
                        removed += call(**{**options, "name": aside["name"]}, state="absent")["changed"]
            assert_same(before, snapshot_of(outside))
            call(**options, state="rolled_back")
        assert removed


def test_a_store_below_a_link_is_the_folder_that_the_link_names(ext4):
    target = fill(ext4.make_target())
    (ext4.folder / "real").mkdir()
    (ext4.folder / "link").symlink_to("real")
    call(path=[target], store=ext4.folder / "link" / "store", name="one")
    assert (ext4.folder / "real" / "store" / ".restorepoint-store.json").exists()
    assert call(path=[target], store=ext4.folder / "real" / "store", name="one")["changed"] is False
    (ext4.folder / "link to store").symlink_to("real/store")
    with pytest.raises(Failed, match="it is no directory"):
        call(path=[target], store=ext4.folder / "link to store", name="one")


def test_links_in_the_place_of_files_of_the_store_are_not_followed(ext4, canary):
    target = fill(ext4.make_target())
    options = {"path": [target], "store": ext4.store}
    call(**options, name="one")
    (folder,) = (each for each in ext4.store.iterdir() if each.is_dir())
    before = snapshot_of(canary)
    for name in ("one.json", "one.manifest", ".target.json"):
        kept = folder / "kept"
        (folder / name).rename(kept)
        (folder / name).symlink_to(canary / "file-00")
        with contextlib.suppress(Failed):
            call(**options, name="one", state="rolled_back")
        with contextlib.suppress(Failed):
            info(**options, verify=True)
        with contextlib.suppress(Failed):
            call(**options, name="two", description=name)
        (folder / name).unlink()
        kept.rename(folder / name)
    (folder / "one").rename(folder / "kept")
    (folder / "one").symlink_to(canary)
    for state in ("rolled_back", "absent"):
        with contextlib.suppress(Failed):
            call(**options, name="one", state=state)
    assert_same(before, snapshot_of(canary))
    assert_secret_is_nowhere(target)


# -- names -------------------------------------------------------------------------------------------------------------

NAMES = (
    "new\nline",
    " ",
    "-rf",
    "$(touch x); `id`",
    "{{ 7 * 7 }}",
    "a'b\"c",
    "ümlaut 😀",
    "x" * 255,
    "....",
    "%s%n",
    "a\\nb",
)


@pytest.mark.parametrize("kind", ["ext4", "btrfs-subvolume"])
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_strange_names_of_targets_and_stores_mean_themselves(lab, kind, name):
    with lab.place(kind) as place:
        target = place.make_target(name[:230])
        (target / "file").write_text("x")
        store = place.folder / f"s{name}"[:255]
        options = {"path": [target], "store": store}
        assert call(**options, name="one")["changed"] is True
        assert call(**options, name="one")["changed"] is False
        (target / "file").write_text("y")
        done = call(**options, name="one", state="rolled_back").only
        assert (target / "file").read_text() == "x"
        assert info(store=store)["snapshots"][0]["target"] == str(target)
        call(**options, name="one", state="cloned", clone=[place.folder / f"c{name}"[:230]])
        call(**options, name=done["aside"]["name"], state="absent")
        assert call(**options, name="one", state="absent")["changed"] is True
        left = {f"c{name}"[:230], target.name, store.name}
        assert {each.name for each in place.folder.iterdir()} == left
        assert [each.name for each in store.iterdir() if "/" in each.name or each.name == ".."] == []


def test_paths_that_mean_one_directory_have_one_folder_in_the_store(ext4):
    target = fill(ext4.make_target())
    (ext4.folder / "link").symlink_to(ext4.folder)
    spellings = [f"{target}/", f"{target}/.", f"{ext4.folder}/./target", f"{target}/a/..", f"/{target}",
                 f"{ext4.folder}/link/target", f"{ext4.folder}//target//"]  # fmt: skip
    call(path=[target], store=ext4.store, name="one")
    for path in spellings:
        assert call(path=[path], store=ext4.store, name="one")["changed"] is False, path
    (only,) = call(path=spellings, store=ext4.store, name="one")["results"]
    assert only["target"] == str(target)


# -- a tree that changes all the time ----------------------------------------------------------------------------------

#: Writes files whose content begins with the SHA-256 of the rest, so that a mixture of two versions shows.
WRITER = """
import hashlib, os, random, sys
os.chdir(sys.argv[1])
random.seed(1)
# With its digest it fills a page. Between two pages of one write the kernel may let a writer wait for a busy disk, and
# then a file holds still in the middle of a version. So lines of the log are 128 bytes long, too.
IN_PLACE = 4096 - 64
def version(size):
    body = os.urandom(64) * (size // 64)
    return hashlib.sha256(body).hexdigest().encode() + body
def replace(name, size):
    with open(name + "~", "wb") as file:
        file.write(version(size))
        if "durable" in sys.argv:
            file.flush()
            os.fsync(file.fileno())
    os.rename(name + "~", name)
for folder in "abc":
    os.makedirs(folder, exist_ok=True)
    for number in range(30):
        replace(f"{folder}/in place {number}", IN_PLACE if number % 2 else 640)
        replace(f"{folder}/replaced {number}", 1 << (6 + number % 15))
replace("large", 4 << 20)
log = open("log", "ab", buffering=0)
print("ready", flush=True)
count = 0
while True:
    count += 1
    folder, number = random.choice("abc"), random.randrange(30)
    kind = random.randrange(7)
    try:
        if kind == 0:
            replace(f"{folder}/replaced {number}", 1 << random.randrange(6, 21))
        elif kind == 1:
            with open(f"{folder}/in place {number}", "r+b") as file:
                os.pwrite(file.fileno(), version(IN_PLACE if number % 2 else 640), 0)
        elif kind == 2:
            line = f"{count:021} {os.urandom(20).hex()}"
            log.write(f"{hashlib.sha256(line.encode()).hexdigest()} {line}\\n".encode())
        elif kind == 3:
            os.rename(f"{folder}/replaced {number}", f"{random.choice('abc')}/replaced {number}")
        elif kind == 4:
            os.unlink(f"{folder}/replaced {number}")
        elif kind == 5:
            os.makedirs(f"{folder}/new {number}/below", exist_ok=True)
            replace(f"{folder}/new {number}/below/replaced {number}", 1000)
            if count % 2:
                os.rename(f"{folder}/new {number}", f"{folder}/gone")
                os.unlink(f"{folder}/gone/below/replaced {number}")
                os.rmdir(f"{folder}/gone/below")
                os.rmdir(f"{folder}/gone")
        elif count % 50 == 0:
            with open("large", "r+b") as file:
                data = version(4 << 20)
                for at in range(0, len(data), 1 << 16):
                    os.pwrite(file.fileno(), data[at:at + (1 << 16)], at)
    except OSError:
        pass
"""


def is_whole(path):
    """Say whether a file is one version that the writer wrote (or is going to rename)."""
    data = path.read_bytes()
    if path.name == "log":
        lines = data.decode().splitlines(keepends=True)
        parts = [line.rstrip("\n").split(" ", 1) for line in lines]
        return all(line.endswith("\n") for line in lines) and all(
            hashlib.sha256(text.encode()).hexdigest() == digest for digest, text in parts
        )
    return hashlib.sha256(data[64:]).hexdigest().encode() == data[:64]


def faults_of(tree, named):
    files = (path for path in tree.rglob("*") if path.is_file() and not path.name.endswith("~"))
    return [str(path.relative_to(tree)) for path in files
            if str(path.relative_to(tree)) not in named and not is_whole(path)]  # fmt: skip


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "btrfs-subvolume"])
def test_of_a_tree_that_changes_all_the_time_each_file_is_whole_or_named(lab, kind):
    with lab.place(kind) as place:
        target = place.make_target()
        # A snapshot of Btrfs is as after a power cut: of a new file that was not synced, a part may have been written.
        with racing(WRITER, target, *(["durable"] if place.by_subvolume else [])):
            for number in until_late(3 * SECONDS):
                name = f"s{number}"
                done = call(path=[target], store=place.store, name=name, checksum=number % 3 == 2).only
                (tree,) = place.store.glob(f"*/{name}")
                # What is written by several calls may hold still between them, in the middle of a version.
                named = {*done["inconsistent"], "large"}
                assert faults_of(tree, named) == [], name
        found = info(store=place.store, verify=True)["verified"]
        assert [each for each in found if not each["ok"]] == []


HOT = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
data = os.urandom(8 << 20)
os.pwrite(fd, data, 0)
print("ready", flush=True)
while True:
    for at in range(0, len(data), 4096):
        os.pwrite(fd, data[:4096], at)
"""


def test_a_file_that_never_holds_still_is_named_or_refused(ext4):
    target = fill(ext4.make_target())
    options = {"path": [target], "store": ext4.store}
    with racing(HOT, target / "hot"):
        # Read slowly: on a busy machine the writer may not get to write at all within the milliseconds of a fast copy.
        # So each of the three times that the file is read takes a second.
        assert call(**options, name="one", bandwidth_limit="8M").only["inconsistent"] == ["hot"]
        (found,) = info(**options)["snapshots"]
        assert found["extra"]["inconsistent"] == ["hot"]
        with pytest.raises(Failed, match="did not hold still while they were read: hot") as caught:
            call(**options, name="two", require_consistent=True, bandwidth_limit="8M")
        assert caught.value.result["changed"] is False
        (folder,) = (each for each in ext4.store.iterdir() if each.is_dir())
        assert {each.name for each in folder.iterdir()} == {".target.json", "one", "one.json", "one.manifest"}
    assert call(**options, name="two", require_consistent=True)["changed"] is True
    (verified, _unused) = info(**options, verify=True)["verified"]
    assert verified["ok"] is True


def test_a_file_that_grows_and_shrinks_while_it_is_read_ends_no_run(place):
    code = """
    import os, sys
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
    print("ready", flush=True)
    while True:
        os.ftruncate(fd, 3 << 20)
        os.pwrite(fd, bytes(100_000), 2 << 20)
        os.ftruncate(fd, 0)
        os.pwrite(fd, bytes(2 << 20), 0)
        os.ftruncate(fd, 100)
    """
    target = fill(place.make_target())
    with racing(code, target / "file"):
        for number in until_late(SECONDS, at_least=10):
            call(path=[target], store=place.store, name=f"s{number}", checksum=number % 2 == 0)
    assert [each for each in info(store=place.store, verify=True)["verified"] if not each["ok"]] == []
