"""`explain`: the first field in which a key differs, in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import fovcache
from fovcache.builder.request import BuildOptions, EncoderRequest
from fovcache.maintain.explain import ExplainReport, explain

NET = "\n\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))\n"


@pytest.fixture
def images(tmp_path: Path, make_images: Callable[..., Path]) -> Path:
    return make_images(tmp_path / "images", 3)


@pytest.fixture
def cache(tmp_path: Path, images: Path, encoder_file: Callable[..., str]) -> fovcache.Cache:
    cache = fovcache.open(tmp_path / "cache")
    cache.build(str(images), encoder=encoder_file(NET), weights="random:0", layers=["0"], size=16)
    return cache


def ask(cache: fovcache.Cache, images: Path, tmp_path: Path, **changes: object) -> ExplainReport:
    request = {"encoder": f"{tmp_path}/encoder/encoder.py:make", "weights": "random:0", "layers": ("0",), "size": 16}
    return explain(cache.storage, [str(images)], EncoderRequest(**{**request, **changes}), BuildOptions())


def test_a_hit_is_a_hit(cache: fovcache.Cache, images: Path, tmp_path: Path) -> None:
    report = ask(cache, images, tmp_path)
    assert (report.hits, report.misses, report.failed) == (3, 0, 0)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size": 20}, "input.clip.size"),
        ({"fit": "pad"}, "input.clip.fit"),
        ({"weights": "random:1"}, "extractor.state"),
        ({"compute_dtype": "bfloat16"}, "compute.dtype"),
        ({"store_dtype": "fp32"}, "store_dtype"),
        ({"pool": "tokens"}, "pool"),
        ({"layers": ("1",)}, "layer"),
    ],
)
def test_one_change_is_named(
    cache: fovcache.Cache, images: Path, tmp_path: Path, changes: dict[str, object], field: str
) -> None:
    report = ask(cache, images, tmp_path, **changes)
    assert report.misses == 3
    ((count, verdict),) = report.groups()
    assert count == 3
    assert field in (verdict.field, *verdict.reason.split())


def test_an_edited_source_is_named_by_its_file(cache: fovcache.Cache, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "encoder" / "encoder.py"
    path.write_text(path.read_text() + "# edited\n")
    ((_, verdict),) = ask(cache, images, tmp_path).groups()
    assert verdict.reason == "the source of encoder.py changed"


def test_new_and_failed_samples_are_told_apart(
    cache: fovcache.Cache, images: Path, tmp_path: Path, make_images: Callable[..., Path]
) -> None:
    (images / "bad.png").write_bytes(b"no image")
    cache.build(str(images), encoder=f"{tmp_path}/encoder/encoder.py:make", weights="random:0", layers=["0"], size=16)
    make_images(images / "more", 1, seed=3)
    report = ask(cache, images, tmp_path)
    assert (report.hits, report.misses, report.failed) == (3, 1, 1)
    states = {verdict.uri: (verdict.state, verdict.reason) for verdict in report.verdicts}
    assert states["bad.png"][0] == "failed"
    assert "not an image" in states["bad.png"][1]
    assert states["more/0000.png"] == ("miss", "new content: no feature of these bytes is in the cache")


def test_explaining_writes_nothing(cache: fovcache.Cache, images: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.storage.root.rglob("*") if path.is_file()}
    ask(cache, images, tmp_path, size=20)
    after = {path: path.stat().st_mtime_ns for path in cache.storage.root.rglob("*") if path.is_file()}
    assert after == before


def test_weights_that_wander_are_warned_of(tmp_path: Path, images: Path, encoder_file: Callable[..., str]) -> None:
    cache = fovcache.open(tmp_path / "wandering")
    encoder = encoder_file(NET)
    assert not cache.build(str(images), encoder=encoder, layers=["0"]).warnings
    second = cache.build(str(images), encoder=encoder, layers=["0"])
    assert second.computed == 3
    assert any("random:0" in warning for warning in second.warnings)
