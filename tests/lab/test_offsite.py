# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exports into restic: from directories and Btrfs, into a folder, over HTTP, SFTP and S3; killed, cut, and back."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from ansible_collections.restorepoint.core.tests.lab import remote_stores, rest_server, volumes
from ansible_collections.restorepoint.core.tests.lab.likeness import snapshot_of
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.agent.test_agent import (
    TOOL,
    Host,
    wait_for,
)

SECRET = "a-password-of-the-repository"


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """The agent as one file: an export has mounts of its own for as long as its process lives."""
    target = tmp_path_factory.mktemp("agent") / "restorepoint.pyz"
    subprocess.run([sys.executable, TOOL, target], check=True, capture_output=True, timeout=120)
    return target


class OffSite(Host):
    """A host whose policy goes into a repository in a folder."""

    def __init__(self, folder, archive):
        super().__init__(folder)
        self.archive = archive
        self.password = folder / "password"
        self.password.write_text(f"{SECRET}\n")
        self.password.chmod(0o600)
        self.place = {"kind": "restic", "name": "nas", "repository": str(folder / "repository"), "init": True}
        self.place["password_file"] = str(self.password)
        # What gives way to all others hardly gets on beside other tests.
        self.place["idle"] = False
        self.policy["export"] = [self.place]

    def popen(self, *argv, **options):
        return subprocess.Popen(
            [sys.executable, self.archive, *self.arguments, *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(self, *argv):
        """Run the agent; return its exit code and what it printed as JSON. No secret may be in it."""
        process = self.popen(*argv, "--json")
        out, err = process.communicate(timeout=300)
        assert SECRET not in out + err
        assert rest_server.PASSWORD not in out + err
        assert remote_stores.SECRET_KEY not in out + err
        return process.returncode, json.loads(out) if out else err

    def export(self):
        code, (record,) = self.run("export", "dev")
        assert (code == 0) == (record["outcome"] in ("done", "unchanged")), record
        return record

    def back(self, name, target=None):
        """Import a restore point into a new folder, and return that."""
        into = self.folder / f"back-{name}"
        into.mkdir()
        target = str(target or self.data)
        code, record = self.run("import", "dev", "nas", "--target", target, "--name", name, "--into", str(into))
        assert (code, record["outcome"]) == (0, "done"), record
        return into


@pytest.fixture
def off_site(lab, tmp_path, archive):
    return OffSite(tmp_path, archive)


def fill(folder):
    """Make what a copy may get wrong."""
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "file with blanks \xe9\n").write_bytes(os.urandom(100_000))
    os.link(folder / "file", folder / "deep" / "link")
    os.symlink("/nowhere", folder / "deep" / "er" / "symlink")
    os.mkfifo(folder / "fifo")
    os.setxattr(folder / "file", "user.word", b"value")
    os.chown(folder / "file", 4711, 4712)
    os.chmod(folder / "file", 0o4750)
    os.utime(folder / "deep", (1, 1.5))
    os.chown(folder, 33, 33)
    os.chmod(folder, 0o2710)


def test_a_directory_comes_back_equal_and_is_read_only_once(off_site):
    fill(off_site.data)
    expected = snapshot_of(off_site.data)
    assert off_site.call("run", "dev")[0] == 0
    first = off_site.export()
    assert first["outcome"] == "done", first
    (name,) = off_site.names
    assert snapshot_of(off_site.back(name)) == expected
    assert off_site.export()["outcome"] == "unchanged"
    # The next one is compared with it, and only what is new is added.
    (off_site.data / "new").write_bytes(os.urandom(1000))
    off_site.call("create", "dev")  # by hand: none of the policy's own
    assert off_site.export()["outcome"] == "unchanged"
    assert off_site.call("run", "dev")[0] == 0
    second = off_site.export()
    assert 0 < second["sent_bytes"] < 50_000
    code, listed = off_site.run("import", "dev", "nas")
    assert code == 0
    assert [each["name"] for each in listed] == [each for each in off_site.names if each.startswith("dev-")]
    assert {each["target"] for each in listed} == {f"hostpath:{off_site.data}"}
    outcomes = [each["outcome"] for each in off_site.journal if each["command"] == "export"]
    assert outcomes == ["done", "unchanged", "unchanged", "done"]
    assert SECRET not in (off_site.folder / "state" / "journal.jsonl").read_text()


def test_subvolumes_with_others_inside_come_back_in_their_places(lab, off_site):
    with lab.place("btrfs") as place:
        found = volumes.Volumes(place.folder)
        target = found.make("a/inner")
        (target / "a" / "inner" / "file").write_text("two")
        off_site.policy["targets"] = [
            {"backend": "btrfs", "subvolume": [str(target)], "store": str(found.store), "recursive": True}
        ]
        assert off_site.call("run", "dev")[0] == 0
        assert off_site.export()["outcome"] == "done"
        (name,) = off_site.names
        expected = volumes.picture(target)
        (target / "a" / "inner" / "file").write_text("three")
        assert volumes.picture(off_site.back(name, target)) == expected


def test_a_server_is_spoken_to_with_a_password_that_nobody_sees(off_site):
    with rest_server.serving() as repository:
        off_site.place["repository"] = repository
        off_site.place.update(keep={"last": 1}, prune=True, check="100%")
        for number in range(2):
            (off_site.data / "file").write_text(str(number))
            assert off_site.call("run", "dev")[0] == 0
            record = off_site.export()
            assert record["outcome"] == "done", record["reason"]
        assert record["done"] == {"exported": 1, "forgotten": 1}
        assert (off_site.back(off_site.names[-1]) / "file").read_text() == "1"
        # Whose password is wrong is told so, and not which it was.
        off_site.place["repository"] = repository.replace(rest_server.USER, "somebody")
        assert off_site.call("run", "dev")[0] == 0
        record = off_site.export()
        assert record["outcome"] == "failed"
        assert "***" in record["reason"] or "401" in record["reason"]


def through(off_site):
    """Take the whole way to a destination over a network and back; leave a restore point that is not there yet."""
    off_site.place.update(keep={"last": 1}, prune=True, check="100%")
    fill(off_site.data)
    assert off_site.call("run", "dev")[0] == 0
    (foreseen,) = off_site.run("export", "dev", "--dry-run")[1]
    assert [each["action"] for each in foreseen["results"]] == ["exported"], foreseen["reason"]
    assert off_site.run("import", "dev", "nas")[0] == 1  # so that has made nothing there
    assert off_site.export()["done"] == {"exported": 1}
    assert off_site.export()["outcome"] == "unchanged"
    (off_site.data / "new").write_bytes(os.urandom(1000))
    expected = snapshot_of(off_site.data)
    assert off_site.call("run", "dev")[0] == 0
    record = off_site.export()
    assert record["outcome"] == "done", record
    assert record["done"] == {"exported": 1, "forgotten": 1}
    assert snapshot_of(off_site.back(off_site.names[-1])) == expected
    assert off_site.call("run", "dev")[0] == 0


def refused(off_site):
    """Export, which fails, and return why: one sentence, whoever is asked for a repository, and none is made."""
    record = off_site.export()
    assert record["outcome"] == "failed", record
    assert record["done"] == {"failed": 1}
    assert "init: true" not in record["reason"]
    (foreseen,) = off_site.run("export", "dev", "--dry-run")[1]
    assert foreseen["outcome"] == "failed"
    return record["reason"]


def test_a_host_is_reached_by_sftp_with_a_key_and_only_if_its_own_is_known(off_site, tmp_path):
    folder = tmp_path / "sshd"
    folder.mkdir()
    with remote_stores.sshd(folder) as server:
        off_site.place["repository"] = f"sftp://root@127.0.0.1:{server.port}/{folder}/a repository"
        off_site.place["ssh"] = {"key_file": server.key_file, "known_hosts": server.known_hosts}
        through(off_site)
        off_site.place["ssh"] = {"key_file": server.key_file, "known_hosts": f"{folder}/nobody"}
        reason = refused(off_site)
        assert "ost key" in reason
        assert "put it into known_hosts" in reason
        off_site.place["ssh"] = {"key_file": f"{folder}/host", "known_hosts": server.known_hosts}
        assert "put the public key into authorized_keys there" in refused(off_site)
    with remote_stores.closed_port() as port:
        off_site.place["repository"] = f"sftp://root@127.0.0.1:{port}/{folder}/a repository"
        assert "see that the host is up" in refused(off_site)


def test_a_bucket_of_s3_is_written_with_a_key_and_nobody_else_s(off_site):
    keys = off_site.folder / "s3"
    off_site.place["environment_file"] = str(keys)

    def log_in(key, secret):
        keys.write_text(f"# of the bucket\nAWS_ACCESS_KEY_ID={key}\nAWS_SECRET_ACCESS_KEY='{secret}'\n")
        keys.chmod(0o600)

    with remote_stores.s3() as url:
        off_site.place["repository"] = f"s3:{url}/bucket/host1"
        log_in(remote_stores.KEY_ID, remote_stores.SECRET_KEY)
        through(off_site)
        for key, secret in ((remote_stores.KEY_ID, "another"), ("SOMEBODY", remote_stores.SECRET_KEY)):
            log_in(key, secret)
            assert "correct what it logs in with: environment_file" in refused(off_site)
    log_in(remote_stores.KEY_ID, remote_stores.SECRET_KEY)
    with remote_stores.closed_port() as port:
        off_site.place["repository"] = f"s3:http://127.0.0.1:{port}/bucket/host1"
        assert "see that the host is up" in refused(off_site)


def test_only_what_is_of_the_policy_is_forgotten(off_site):
    assert off_site.call("run", "dev")[0] == 0
    assert off_site.export()["outcome"] == "done"
    environment = {**os.environ, "RESTIC_PASSWORD": SECRET, "RESTIC_REPOSITORY": off_site.place["repository"]}
    other = ["restic", "backup", "-q", "--tag", "somebody", str(off_site.data)]
    subprocess.run(other, env=environment, check=True, timeout=120)
    off_site.place["keep"] = {"last": 1}
    assert off_site.call("run", "dev")[0] == 0
    assert off_site.export()["done"] == {"exported": 1, "forgotten": 1}
    said = subprocess.run(
        ["restic", "snapshots", "--json"], env=environment, check=True, timeout=120, capture_output=True
    )
    tags = [each["tags"] for each in json.loads(said.stdout)]
    assert len(tags) == 2
    assert ["somebody"] in tags


def test_a_wrong_password_and_a_repository_that_is_gone_are_told_apart(off_site):
    assert off_site.call("run", "dev")[0] == 0
    off_site.place["init"] = False
    assert "init: true" in off_site.export()["reason"]
    assert not (off_site.folder / "repository").exists()
    off_site.place["init"] = True
    assert off_site.export()["outcome"] == "done"
    off_site.password.write_text("another\n")
    assert off_site.call("run", "dev")[0] == 0
    assert "put the repository's password there" in off_site.export()["reason"]
    off_site.password.chmod(0o644)
    assert "chmod 0600" in off_site.export()["reason"]


def test_a_full_disk_fails_the_export_and_the_next_one_ends_well(lab, off_site):
    (off_site.data / "big").write_bytes(os.urandom(24 << 20))
    assert off_site.call("run", "dev")[0] == 0
    with lab.extra_disk("ext4", 16 << 20) as disk:
        off_site.place["repository"] = str(disk / "repository")
        record = off_site.export()
        assert record["outcome"] == "failed"
        assert "no space left" in record["reason"].lower()
    off_site.place["repository"] = str(off_site.folder / "repository")
    assert off_site.export()["outcome"] == "done"


def test_an_export_that_was_killed_leaves_nothing_mounted_and_the_next_one_ends_well(off_site):
    off_site.place["bandwidth_limit"] = "64K"
    (off_site.data / "big").write_bytes(os.urandom(8 << 20))
    assert off_site.call("run", "dev")[0] == 0
    (name,) = off_site.names
    locks = off_site.folder / "repository" / "locks"
    agent = off_site.popen("export", "dev", start_new_session=True)
    parts = off_site.folder / "repository" / "data"
    wait_for(lambda: locks.exists() and any(locks.iterdir()) and any(parts.glob("*/*")), 120)
    # While it reads, no keep rule takes away what it reads.
    mark = json.loads((off_site.folder / "state" / "runs" / "dev.export.json").read_text())
    assert mark["sending"] == [[f"hostpath:{off_site.data}", name]]
    children = pathlib.Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    agent.kill()
    for child in children:
        with contextlib.suppress(ProcessLookupError):  # it ends by itself when it finds nobody to tell
            os.killpg(int(child), signal.SIGKILL)
    agent.communicate(timeout=120)
    assert "restorepoint/off-site" not in pathlib.Path("/proc/self/mountinfo").read_text()
    # What a unit does after it: the line is written at once, and not only by the next export.
    wait_for(lambda: off_site.run("recover", "dev")[1]["recovered"], 120)
    assert off_site.journal[-1]["outcome"] == "killed"
    del off_site.place["bandwidth_limit"]
    assert off_site.export()["outcome"] == "done"
    assert snapshot_of(off_site.back(name)) == snapshot_of(off_site.data)
    outcomes = [each["outcome"] for each in off_site.journal if each["command"] == "export"]
    assert outcomes == ["killed", "done"]


def test_an_export_that_was_missed_is_made_up_for_once_and_one_that_failed_stays_due(off_site):
    off_site.policy["export_schedule"] = {"calendar": "*-*-01 02:00"}
    assert off_site.call("run", "dev")[0] == 0
    off_site.place["init"] = False
    assert off_site.run("export", "--if-due")[0] == 1
    off_site.place["init"] = True
    assert off_site.call("due")[1].startswith("dev export due since ")
    assert off_site.run("export", "--if-due")[0] == 0
    assert off_site.call("due") == (0, "")
    assert off_site.run("export", "dev", "--if-due") == (0, [])
    outcomes = [each["outcome"] for each in off_site.journal if each["command"] == "export"]
    assert outcomes == ["failed", "done"]


def test_an_import_goes_into_an_empty_folder_only(off_site):
    assert off_site.call("run", "dev")[0] == 0
    assert off_site.export()["outcome"] == "done"
    (name,) = off_site.names
    argv = ["import", "dev", "nas", "--target", str(off_site.data), "--name", name, "--into"]
    code, said = off_site.run(*argv, str(off_site.data))
    assert code == 2
    assert "is no empty folder" in said
    assert (off_site.data / "file").read_text() == "one"
