"""What is derived on a GPU is what is derived on the CPU, within the tolerance that `verify --recompute` states."""

from collections.abc import Callable
from pathlib import Path

import pytest

import fovcache
from fovcache.derived.representation import known_representations
from fovcache.maintain.recompute import recompute_some

pytestmark = pytest.mark.needs_cuda


def test_rows_derived_on_the_gpu_agree_with_the_cpu(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    cache = fovcache.open(tmp_path / "cache")
    images = make_images(tmp_path / "images", 40, size=224)
    cache.build(str(images), encoder="vit-tiny", weights="random:0", layers=["blocks.3"], pool="tokens")
    features = cache.features()
    for name in known_representations():
        assert len(cache.derive(features, name, device="cuda")) == len(features)
    report = recompute_some(cache.storage, 40, device="cpu")
    assert report["largest"]["derived"] <= report["tolerance"]["derived"]
    assert report["skipped"] == ()
