"""Garbage collection takes everything in before it takes anything away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import fovcache
from fovcache.errors import DamageError
from fovcache.maintain.gc import collect_garbage


@pytest.fixture
def cache(tmp_path: Path, make_images: Callable[..., Path]) -> fovcache.Cache:
    cache = fovcache.open(tmp_path / "cache")
    for number in range(4):
        images = make_images(tmp_path / f"images{number}", 2, seed=number)
        cache.build(str(images), encoder="pixels", dataset=f"set{number}")
    return cache


def files(cache: fovcache.Cache) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in cache.storage.root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("manifests/*/*.json", "cut"),  # one that is gone leaves garbage behind, not damage
        ("shards/*/*.safetensors", "cut"),
        ("shards/*/*.safetensors", "deleted"),
        ("datasets/*", "cut"),
        ("datasets/*", "deleted"),
    ],
)
@pytest.mark.parametrize("which", [0, -1])
def test_beside_damage_nothing_is_removed_not_even_what_is_given_up(
    cache: fovcache.Cache, what: str, how: str, which: int
) -> None:
    path = sorted(cache.storage.root.glob(what))[which]
    if how == "cut":
        path.write_bytes(path.read_bytes()[:20])
    else:
        path.unlink()
    dataset = path.stem if what.startswith("datasets") else ""
    refs = {ref.parent.name: ref.read_text() for ref in cache.storage.root.glob("refs/*/*")}
    drop = next(name for name, text in refs.items() if not dataset or dataset not in text)
    before = files(cache)
    with pytest.raises(DamageError):
        collect_garbage(cache.storage, grace_s=0, drop=(drop,))
    assert files(cache) == before


def test_without_damage_what_is_given_up_goes_and_the_rest_stays(cache: fovcache.Cache) -> None:
    report = collect_garbage(cache.storage, grace_s=0, drop=("set1", "set2"))
    assert len([name for name in report.removed if name.startswith("shards/")]) == 2
    assert [len(cache.features(dataset=f"set{number}")) for number in (0, 3)] == [2, 2]
