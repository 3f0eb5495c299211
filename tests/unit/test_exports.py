"""The library's face: a change here is a change for users, and a line in CHANGELOG.md."""

import tomllib
from pathlib import Path

import fovcache

EXPORTS = [
    "BuildReport",
    "Cache",
    "Feature",
    "FeatureSet",
    "FovcacheError",
    "JoinedSet",
    "Loader",
    "Recipe",
    "__version__",
    "dataloader_kwargs",
    "open",
    "read_clip",
]


def test_exports_are_pinned_and_sorted() -> None:
    assert list(fovcache.__all__) == EXPORTS == sorted(EXPORTS)


def test_every_export_exists() -> None:
    for name in EXPORTS:
        assert getattr(fovcache, name) is not None, name
        assert name in dir(fovcache), name


def test_version_is_the_projects(root: Path) -> None:
    assert fovcache.__version__ == tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
