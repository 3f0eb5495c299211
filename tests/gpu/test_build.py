"""Building on a GPU: the CPU's rows within the stated tolerance, and what happens when memory runs out."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fovcache
from fovcache.errors import EnvironmentFailure, SelectionError
from fovcache.maintain.recompute import TOLERANCE

LOOSER = {"bfloat16": 5e-2, "float16": 1e-2}
"""Largest difference from float32, relative to the feature's largest magnitude, when an encoder runs under autocast:
some rounding steps of the compute dtype (2^-8 and 2^-11) in each of five layers."""

ENCODER = """
class Net(nn.Module):
    image_size = 32
    image_mean, image_std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.conv = nn.Sequential(nn.ReLU(), nn.Conv2d(64, 128, 3, stride=2), nn.ReLU(), nn.Conv2d(128, 128, 3))
        self.attention = nn.MultiheadAttention(128, 4, batch_first=True)
        self.head = nn.Linear(128, 256)

    def forward(self, x):
        x = self.conv(self.stem(x)).flatten(2).transpose(1, 2)
        return self.head(x + self.attention(x, x, x, need_weights=False)[0])


def make():
    return Net()
"""
LAYERS = ("stem", "conv", "head")

HUNGRY = """
MIB_PER_SAMPLE = 64

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        work = torch.ones(len(x), MIB_PER_SAMPLE << 18, device=x.device)
        return self.layer(x * work[:, :1, None, None])

def make():
    return Net()
"""

HUGE = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 4, bias=False)

    def forward(self, x):
        return self.layer(x.amax(dim=(1, 2, 3))[:, None])

def make():
    net = Net()
    nn.init.constant_(net.layer.weight, 1e5)
    return net
"""


@pytest.fixture
def images(tmp_path: Path, make_images: Callable[..., Path]) -> Path:
    return make_images(tmp_path / "images", 40, size=32)


def built(images: Path | list[Path], folder: Path, encoder: str, **options: Any) -> tuple[fovcache.Cache, Any]:
    cache = fovcache.open(folder)
    sources = [str(path) for path in ([images] if isinstance(images, Path) else images)]
    defaults = {"weights": "random:0", "layers": LAYERS, "pool": "mean", "store_dtype": "fp32"}
    return cache, cache.build(sources, encoder=encoder, **defaults | options)


def apart(rows: torch.Tensor, reference: torch.Tensor) -> float:
    """The largest difference relative to the largest magnitude."""
    return float((rows.double() - reference.double()).abs().max() / reference.double().abs().max())


@pytest.mark.parametrize("pool", ["mean", "tokens"])
def test_float32_rows_are_the_cpus_within_the_tolerance(
    tmp_path: Path, images: Path, encoder_file: Callable[..., str], pool: str
) -> None:
    """Convolutions too, which cuDNN would compute in TF32 by itself."""
    encoder = encoder_file(ENCODER)
    on_cpu, _ = built(images, tmp_path / "cpu", encoder, device="cpu", pool=pool)
    on_cuda, report = built(images, tmp_path / "cuda", encoder, device="cuda", pool=pool)
    assert (report.computed, report.failed) == (40, 0)
    for layer in LAYERS:
        own, reference = (cache.features(layer=layer) for cache in (on_cuda, on_cpu))
        assert own.feature == reference.feature  # the device is no part of the key
        assert own.keys == reference.keys
        assert apart(own.tensors()[0], reference.tensors()[0]) <= TOLERANCE["fp32"], layer


def test_building_leaves_the_users_precision_settings(
    tmp_path: Path, images: Path, encoder_file: Callable[..., str]
) -> None:
    def settings() -> tuple[Any, ...]:
        cudnn = torch.backends.cudnn
        return cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, torch.get_float32_matmul_precision()

    before = settings()
    built(images, tmp_path / "cache", encoder_file(ENCODER), device="cuda")
    assert settings() == before


@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float16"])
def test_lower_compute_dtypes_are_close_to_float32(
    tmp_path: Path, images: Path, encoder_file: Callable[..., str], compute_dtype: str
) -> None:
    encoder = encoder_file(ENCODER)
    full, _ = built(images, tmp_path / "full", encoder, device="cpu")
    half, _ = built(images, tmp_path / "half", encoder, device="cuda", compute_dtype=compute_dtype)
    for layer in LAYERS:
        own, reference = (cache.features(layer=layer) for cache in (half, full))
        assert own.feature.recipe != reference.feature.recipe
        assert 0 < apart(own.tensors()[0], reference.tensors()[0]) <= LOOSER[compute_dtype], layer


def test_building_twice_gives_the_same_bits(tmp_path: Path, images: Path, encoder_file: Callable[..., str]) -> None:
    encoder = encoder_file(ENCODER)
    first, second = (built(images, tmp_path / name, encoder, device="cuda")[0] for name in ("first", "second"))
    for layer in LAYERS:
        left, right = (cache.features(layer=layer).tensors()[0] for cache in (first, second))
        assert torch.equal(left, right)


@pytest.mark.usefixtures("memory_cap")
def test_batches_that_do_not_fit_are_halved(tmp_path: Path, images: Path, encoder_file: Callable[..., str]) -> None:
    """64 MiB a sample, and 400 MiB to be had: 4 samples fit, and 8 do not."""
    encoder, options = encoder_file(HUNGRY), {"layers": ("layer",), "batch_size": 16}
    on_cpu, _ = built(images, tmp_path / "cpu", encoder, device="cpu", **options | {"batch_size": 2})
    _cap(400 << 20)
    on_cuda, report = built(images, tmp_path / "cuda", encoder, device="cuda", **options)
    assert (report.computed, report.failed, report.batch_size) == (40, 0, 4)
    own, reference = (cache.features(layer="layer").tensors()[0] for cache in (on_cuda, on_cpu))
    assert apart(own, reference) <= TOLERANCE["fp32"]


@pytest.mark.usefixtures("memory_cap")
def test_one_sample_that_does_not_fit_ends_the_build(
    tmp_path: Path, images: Path, encoder_file: Callable[..., str]
) -> None:
    encoder = encoder_file(HUNGRY.replace("MIB_PER_SAMPLE = 64", "MIB_PER_SAMPLE = 512"))
    _cap(400 << 20)
    with pytest.raises(EnvironmentFailure, match="one sample does not fit in the memory of cuda"):
        built(images, tmp_path / "cache", encoder, layers=("layer",), device="cuda", batch_size=4)


def _cap(size_bytes: int) -> None:
    """Allow this process so much of the device's memory beyond what it has now."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + size_bytes) / total)


@pytest.mark.parametrize(("store_dtype", "num_failed"), [("fp16", 40), ("bf16", 0)])
def test_rows_that_are_infinite_as_fp16_fail(
    tmp_path: Path, images: Path, encoder_file: Callable[..., str], store_dtype: str, num_failed: int
) -> None:
    """Up to 10⁵ fits into bf16, and not into fp16."""
    encoder = encoder_file(HUGE)
    _, report = built(
        images, tmp_path / "cache", encoder, weights=None, layers=("layer",), store_dtype=store_dtype, device="cuda"
    )
    assert report.failed == num_failed
    assert {failure.reason for failure in report.failures} == (
        {"the encoder returned infinity at layer layer as fp16"} if num_failed else set()
    )


def test_rows_of_both_devices_warn_and_strict_refuses(
    tmp_path: Path, make_images: Callable[..., Path], encoder_file: Callable[..., str]
) -> None:
    encoder, options = encoder_file(ENCODER), {"layers": ("stem",), "dataset": "both"}
    images = [make_images(tmp_path / f"images{seed}", 4, size=32, seed=seed) for seed in range(2)]
    cache, _ = built(images[0], tmp_path / "cache", encoder, device="cpu", **options)
    _, report = built(images, tmp_path / "cache", encoder, device="cuda", **options)
    assert (report.computed, report.reused) == (4, 4)
    said = r"computed under 2 different numerics \(.*device.*\), so they agree only within a tolerance"
    with pytest.warns(UserWarning, match=said):
        assert len(cache.features()) == 8
    with pytest.raises(SelectionError, match=said):
        cache.features(strict=True)


def test_rows_of_one_device_do_not_warn(tmp_path: Path, images: Path, encoder_file: Callable[..., str]) -> None:
    cache, _ = built(images, tmp_path / "cache", encoder_file(ENCODER), layers=("stem",), device="cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(cache.features(strict=True)) == 40
