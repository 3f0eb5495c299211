"""The modules that a user's encoder imports: read from their source as it is now, and kept apart from this process's.

What is keyed must be what runs. A module that this process has imported before, or a bytecode cache (checked by
second and size), may be of an older source than the one that was hashed.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..keys.digest import file_digest
from ..keys.source_code import find_local, is_local


class LocalImports:
    """Within it (again and again), a user's folder is importable, and local modules are this encoder's own."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        """`names` are the dotted names of local modules that the encoder's sources import."""
        self._folder = folder
        self._finder = _LocalFinder(folder)
        self._names = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}
        self._own: dict[str, types.ModuleType] = {}
        self._others: dict[str, types.ModuleType] = {}
        self._before: frozenset[str] = frozenset()

    def __enter__(self) -> None:
        hidden = [name for name in self._names if name in self._own or _is_local_module(sys.modules.get(name))]
        self._others = {name: sys.modules.pop(name) for name in hidden if name in sys.modules}
        self._before = frozenset(sys.modules)
        sys.modules.update(self._own)
        sys.meta_path.insert(0, self._finder)
        sys.path.insert(0, str(self._folder))

    def __exit__(self, *error: object) -> None:
        sys.meta_path.remove(self._finder)
        with contextlib.suppress(ValueError):
            sys.path.remove(str(self._folder))
        for name in [name for name in sys.modules if name not in self._before]:
            if name in self._finder.files or _is_local_module(sys.modules[name]):
                self._own[name] = sys.modules.pop(name)
        self._names.update(self._own)
        sys.modules.update(self._others)

    @property
    def modules(self) -> Mapping[str, types.ModuleType]:
        """The local modules imported so far, by name."""
        return dict(self._own)

    def digests(self) -> Mapping[str, str]:
        """`{name: digest}` of the files of the local modules imported so far."""
        return {name: file_digest(file) for name, file in self._finder.files.items()}


class _LocalFinder:
    """Finds the files that `source_digests` hashes, before anything else does, and remembers which."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[str, Path] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        file = find_local(name, self._folder)
        if file is None:
            return None
        parents = [str(file.parent)] if file.name == "__init__.py" else None
        holder = (file.parent.parent if parents else file.parent).resolve()
        if path is not None and holder not in [Path(folder).resolve() for folder in path]:
            return None  # a file that only looks like part of that package
        self.files[name] = file
        loader = _FreshLoader(name, str(file))
        return importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=parents)


class _FreshLoader(importlib.machinery.SourceFileLoader):
    """Compiles a file from its source: a bytecode cache is checked by second and size, too coarse for a key."""

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _is_local_module(module: types.ModuleType | None) -> bool:
    """Whether a module is the user's own: a local file's, or a package of local folders without a file."""
    file = getattr(module, "__file__", None)
    if file is not None:
        return is_local(Path(file))
    folders = list(getattr(module, "__path__", ()))
    return bool(folders) and all(is_local(Path(folder)) for folder in folders)
