# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let ansible-test build its sanity environments from PyPI alone.

ansible-test fetches get-pip.py from a host of its own unless it finds the file in its cache. This puts an equivalent
there, which runs the same version of pip straight out of its wheel. Called by the noxfile with the Python of an
environment that holds ansible-core; HOME says where the cache is.
"""

from __future__ import annotations

import importlib.util
import pathlib
import re
import subprocess
import sys

GET_PIP = """\
import sys
sys.path.insert(0, {wheel!r})
from pip._internal.cli.main import main
options = [each for each in sys.argv[1:] if each not in ("--no-setuptools", "--no-wheel")]
sys.exit(main(["install", "--upgrade", "--force-reinstall", *options]))
"""


def main() -> None:
    """Write one get-pip for each version of pip that this ansible-test may ask for."""
    found = importlib.util.find_spec("ansible_test")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("Cannot prepare ansible-test's cache: this Python has no ansible-core; install it first.")
    source = pathlib.Path(found.submodule_search_locations[0], "_internal", "python_requirements.py").read_text()
    cache = pathlib.Path.home() / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    versions = sorted(set(re.findall(r"pip='([0-9.]+)'", source)))
    if not versions:
        raise SystemExit("Cannot prepare ansible-test's cache: it names no version of pip; look at its sources anew.")
    for version in versions:
        wheel = cache / f"pip-{version}-py3-none-any.whl"
        if not wheel.is_file():
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*download, "--dest", str(cache), f"pip=={version}"], check=True)
        (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(GET_PIP.format(wheel=str(wheel)))


if __name__ == "__main__":
    main()
