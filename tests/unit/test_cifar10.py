"""Real images and a trained network, given as a user would give them."""

from __future__ import annotations

from pathlib import Path

import pytest

import fovcache

pytestmark = pytest.mark.needs_shared

ENCODER = f"{Path(__file__).parent.parent / 'encoders' / 'resnet20.py'}:make"
LAYERS = ("layer1", "layer2", "layer3")


@pytest.fixture(scope="module")
def arguments(shared: Path) -> dict[str, object]:
    return {
        "sources": [f"train={shared}/data/cifar10/train-*.tar", f"test={shared}/data/cifar10/test-*.tar"],
        "encoder": ENCODER,
        "weights": str(shared / "data" / "weights" / "resnet20-cifar10.safetensors"),
        "layers": LAYERS,
        "pool": "mean",
    }


@pytest.fixture(scope="module")
def cache(arguments: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> fovcache.Cache:
    cache = fovcache.open(tmp_path_factory.mktemp("cifar") / "cache")
    report = cache.build(**arguments)
    assert (report.samples, report.computed, report.failed) == (7000, 7000, 0)
    return cache


def _accuracy(cache: fovcache.Cache, layer: str) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (x, y), (x_test, y_test) = (cache.features(layer=layer, split=split).tensors() for split in ("train", "test"))
    assert (len(x), len(x_test)) == (5000, 2000)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    return probe.fit(x.float().numpy(), y.numpy()).score(x_test.float().numpy(), y_test.numpy())


def test_a_plain_probe_reads_the_class_from_the_last_layer_and_less_from_the_first(cache: fovcache.Cache) -> None:
    first, second, third = (_accuracy(cache, layer) for layer in LAYERS)
    assert third >= 0.81
    assert first < second < third


def test_a_second_build_computes_nothing_and_runs_no_forward(
    cache: fovcache.Cache, arguments: dict[str, object]
) -> None:
    import torch

    calls: list[object] = []
    handle = torch.nn.modules.module.register_module_forward_pre_hook(lambda module, args: calls.append(module))
    try:
        report = cache.build(**arguments)
    finally:
        handle.remove()
    assert (report.computed, report.reused, report.failed, calls) == (0, 7000, 0, [])


def test_a_further_layer_is_computed_and_written_alone(cache: fovcache.Cache, arguments: dict[str, object]) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.storage.root.glob("shards/*/*")}
    report = cache.build(**{**arguments, "layers": ("layer2.0", "layer3")})
    assert report.computed == 7000
    added = set(cache.storage.root.glob("shards/*/*")) - before.keys()
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())
    row_bytes = 32 * 2 + 32  # 32 channels in bf16, and the key
    assert 7000 * row_bytes <= sum(path.stat().st_size for path in added) < 7000 * row_bytes * 1.02 + 2048
