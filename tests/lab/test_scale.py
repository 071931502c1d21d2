# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory stays small however many files there are: each operation runs in a process of its own, whose peak is read.

By default on 100,000 files, 40,000 of them in one directory; with RP_LAB_FULL=1 on 1,000,000, of which 200,000.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from ansible_collections.restorepoint.core.tests.lab.filesystems import mount_image, run, unmount

FULL = os.environ.get("RP_LAB_FULL") == "1"
FILES, IN_ONE = (1_000_000, 200_000) if FULL else (100_000, 40_000)
#: A tenth of the files may take no more than a million can afford: some 30 MiB are Python and Ansible.
LIMIT_KIB = (400 if FULL else 70) << 10
IN_EACH = 1_000
PACKAGE = "ansible_collections.restorepoint.core.tests.lab"
MEASURED = f"""
import json, sys, time
from {PACKAGE} import driver
function, options = json.loads(sys.argv[1])
started = time.perf_counter()
result = getattr(driver, function)(**options)
seconds = time.perf_counter() - started
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps([result, peak, seconds]))
"""


def measured(function, **options):
    """Run the module in a new process; return its result. Its peak of memory has to stay below the limit."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, json.dumps([function, options])],
        capture_output=True, text=True, timeout=3000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result, peak, seconds = json.loads(done.stdout)
    what = options.get("state") or ("present" if function == "call" else "verify" if options.get("verify") else "sizes")
    print(f"{what:12} {options.get('name', ''):3} {peak / 1024:6.0f} MiB {seconds:7.1f} s")
    assert peak < LIMIT_KIB, f"{what}: {peak} KiB"
    return result


@pytest.fixture
def many(lab):
    """A target with many small files, on a filesystem with enough inodes."""
    mounted = lab.folder / "many"
    image = mounted.with_suffix(".img")
    with open(image, "wb") as file:
        file.truncate((24 if FULL else 8) << 30)
    run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-N", str(int(FILES * 3.3)), "-E", "lazy_itable_init=1", image)
    mounted.mkdir()
    mount_image(image, mounted, "noatime")
    try:
        target = mounted / "target"
        target.mkdir()
        fill(target / "one", IN_ONE)
        for number in range((FILES - IN_ONE) // IN_EACH):
            fill(target / f"{number % 20}" / f"{number}", IN_EACH)
        yield pathlib.Path(mounted)
    finally:
        unmount(mounted)
        image.unlink()


def fill(folder, count):
    folder.mkdir(parents=True)
    fd = os.open(folder, os.O_RDONLY)
    for number in range(count):
        file = os.open(f"file-{number:07}", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
        os.write(file, b"%07d\n" % number)
        os.close(file)
    os.close(fd)


def test_a_million_small_files_take_less_than_400_mib(many):
    started = time.monotonic()
    target, options = str(many / "target"), {"path": [str(many / "target")], "store": str(many / "store")}

    def call(**more):
        (result,) = measured("call", **options, **more)["results"]
        return result

    took = call(name="a")
    assert (took["files"], took["copied_files"]) == (FILES, FILES)
    again = call(name="b")
    assert (again["linked_files"], again["copied_files"]) == (FILES, 0)
    assert call(name="b", state="rolled_back")["action"] == "unchanged"
    pathlib.Path(target, "one", "file-0000000").write_text("changed")
    assert call(name="b", state="rolled_back", keep_current=False)["action"] == "rolled_back"
    assert pathlib.Path(target, "one", "file-0000000").read_text() == "0000000\n"
    # The target's files are new ones: only the manifest of the return knows them, and without it every byte is read.
    for path in pathlib.Path(many / "store").glob("*/.returned.*"):
        path.unlink()
    assert call(name="b", state="rolled_back")["action"] == "unchanged"
    found = measured("info", store=options["store"], verify=True)["verified"]
    assert [(each["ok"], each["files"]) for each in found] == [(True, FILES)] * 2
    (size, _unused) = measured("info", store=options["store"], sizes=True)["snapshots"]
    assert size["size_bytes"] == 0
    assert call(name="a", state="absent")["action"] == "removed"
    print(f"{FILES} files, {IN_ONE} in one directory: {time.monotonic() - started:.0f} s")
