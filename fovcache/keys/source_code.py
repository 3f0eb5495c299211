"""The fingerprint of a user's Python file: its source and that of the local files it imports.

A local file is one that is not part of an installed distribution or of Python itself. Imports are read from
the syntax tree, so those inside functions count too; nothing is executed here.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from ..errors import EncoderError
from .digest import bytes_digest

_PACKAGE_ROOT = Path(__file__).resolve().parent.parent
_INSTALLED_ROOTS = tuple(
    Path(path).resolve()
    for key, path in sysconfig.get_paths().items()
    if key in {"stdlib", "platstdlib", "purelib", "platlib"}
)


def source_digests(path: Path) -> dict[str, str]:
    """`{name: digest}` of the file at `path` and of every local file it imports, directly or not.

    The file itself is named by its file name, imported files by their dotted module name, so that moving
    the folder changes nothing. Raises EncoderError when a file cannot be read or is not Python.
    """
    found: dict[str, str] = {}
    pending: list[tuple[str, str, Path]] = [(path.name, "", path)]
    seen = {path.resolve()}
    while pending:
        name, package, file = pending.pop()
        try:
            source = file.read_bytes()
            tree = ast.parse(source, filename=str(file))
        except OSError as error:
            raise EncoderError(f"cannot read {file}: {error.strerror}") from error
        except (SyntaxError, ValueError) as error:
            raise EncoderError(f"{file} is not valid Python: {error}") from error
        found[name] = bytes_digest(source)
        for module, child in _local_imports(tree, package, path.resolve().parent):
            if child.resolve() not in seen:
                seen.add(child.resolve())
                is_package = child.name == "__init__.py"
                pending.append((module, module if is_package else module.rpartition(".")[0], child))
    return dict(sorted(found.items()))


def _local_imports(tree: ast.Module, package: str, folder: Path) -> Iterator[tuple[str, Path]]:
    for name in _imported_names(tree, package):
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            module = ".".join(parts[:depth])
            if file := find_local(module, folder):
                yield module, file


def _imported_names(tree: ast.Module, package: str) -> Iterator[str]:
    """Absolute dotted names of what might be imported; a name that is no module is simply not found."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".") if package else []
                kept = parents[: len(parents) - (node.level - 1)]
                base = ".".join([*kept, base] if base else kept)
            if base:
                yield base
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)


def find_local(module: str, folder: Path) -> Path | None:
    """The local file that `import module` in a file in `folder` would run; None when it would be no local one."""
    if module.partition(".")[0] == _PACKAGE_ROOT.name:
        return None
    relative = Path(*module.split("."))
    for root in [folder, *map(Path, sys.path)]:
        for candidate in (root / relative / "__init__.py", root / relative.with_suffix(".py")):
            if candidate.is_file():
                return candidate if is_local(candidate) else None
    return None


def is_local(file: Path) -> bool:
    """Whether a file is the user's own: neither installed, nor part of Python, nor of fovcache."""
    resolved = file.resolve()
    if resolved.is_relative_to(_PACKAGE_ROOT) or {"site-packages", "dist-packages"} & {*resolved.parts}:
        return False
    return not any(resolved.is_relative_to(root) for root in _INSTALLED_ROOTS)
