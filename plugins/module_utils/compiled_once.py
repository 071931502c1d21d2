# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Has Python compile each file of a module once, not twice. The package ``bridge`` imports it first, to do so.

Ansible carries a module, with all that it imports, to its host as a zip archive. When Python imports from an archive,
it asks where the file lies, and ``zipimport`` compiles it to answer that, and throws the code away; then it is compiled
once more, to be run (``zipimporter.get_filename``; seen in Python 3.9 to 3.13). That is a third of the start of a
module of ours. Where this file does not lie in an archive, nothing is done. Standard library only.
"""

from __future__ import annotations

import os
import sys
import zipimport


class CompiledOnce(zipimport.zipimporter):
    """Imports from a folder in an archive, and says where a file lies without compiling it."""

    def get_filename(self, fullname: str) -> str:
        """Return the path of a module's source. Raises ZipImportError where there is no such module."""
        inside = self.prefix + fullname.rpartition(".")[2]
        tail = os.sep + "__init__.py" if self.is_package(fullname) else ".py"
        return os.path.join(self.archive, inside + tail)


def install(archive: str) -> None:
    """Import what lies in that archive with CompiledOnce, from now on."""

    def importer(path: str) -> CompiledOnce:
        if path == archive or path.startswith(archive + os.sep):
            return CompiledOnce(path)
        raise ImportError(f"{path} does not lie in {archive}", path=path)  # Python goes on to the next importer

    sys.path_hooks.insert(0, importer)
    for path in list(sys.path_importer_cache):
        if path == archive or path.startswith(archive + os.sep):
            del sys.path_importer_cache[path]


_LOADER = __spec__.loader if __spec__ is not None else None
if isinstance(_LOADER, zipimport.zipimporter):
    install(_LOADER.archive)
