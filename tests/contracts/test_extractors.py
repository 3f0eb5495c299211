"""Every extractor that there is, users' files, and two toys that read something else than frames."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from extractor_contract import DeepExtractorContract, ExtractorContract
from PIL import Image
from safetensors.numpy import save

import fovcache
from fovcache.errors import UsageError, WeightsError
from fovcache.extract.extractor import Extractor, resolve_extractor
from fovcache.extract.pooling import pool

TOYS = Path(__file__).parent / "toys"
COUNT = """
class Last(nn.Linear):
    def forward(self, x):
        os.environ["LAST_LAYER_RUNS"] = str(int(os.environ.get("LAST_LAYER_RUNS", "0")) + 1)
        return super().forward(x)
"""
CONV_NET = f"""{COUNT}

class Net(nn.Module):
    image_size = 16
    image_mean = (0.5, 0.5, 0.5)
    image_std = (0.25, 0.25, 0.25)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.stage = nn.Conv2d(8, 12, 3, stride=2)
        self.head = Last(12, 5)

    def forward(self, x):
        return self.head(self.stage(self.stem(x)).mean((2, 3)))


def make():
    return Net()
"""
VIT = f"""{COUNT}

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mlp = nn.Linear(16, 16)

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return x + torch.nn.functional.gelu(self.mlp(x))


class ViT(nn.Module):
    image_size = 16
    has_class_token = True
    num_prefix_tokens = 3
    layers = ("blocks.0", "blocks.1", "norm")

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 16))
        self.register_tokens = nn.Parameter(torch.zeros(1, 2, 16))
        self.pos_embed = nn.Parameter(torch.zeros(1, 16, 16))
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm = Last(16, 16)

    def forward(self, x):
        x = self.patches(x).flatten(2).mT + self.pos_embed
        prefix = torch.cat([self.cls_token, self.register_tokens], 1).expand(len(x), -1, -1)
        x = torch.cat([prefix, x], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def make():
    return ViT()
"""


def pictures(num: int = 4, size: int = 16) -> dict[str, bytes]:
    files = {}
    for number in range(num):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 256, (size, size + 4, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        files[f"{number}.png"] = buffer.getvalue()
    return files


class TestPixels(ExtractorContract):
    @pytest.fixture
    def encoder(self) -> str:
        return "pixels"

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        return pictures()

    def test_it_has_no_weights(self) -> None:
        with pytest.raises(WeightsError, match="'pixels' has none"):
            resolve_extractor("pixels", "random:0")


class TestConvNet(DeepExtractorContract):
    weights = "random:0"
    has_default_layers = False

    @pytest.fixture
    def encoder(self, encoder_file: Callable[..., str]) -> str:
        return encoder_file(CONV_NET)

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        return pictures()


class TestViT(DeepExtractorContract):
    weights = "random:0"
    has_default_layers = False

    @pytest.fixture
    def encoder(self, encoder_file: Callable[..., str]) -> str:
        return encoder_file(VIT)

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        return pictures()

    def test_the_mean_is_over_patches_alone_and_cls_is_the_default(
        self, encoder: str, extractor: Extractor, outputs: dict[str, torch.Tensor], folder: Path, tmp_path: Path
    ) -> None:
        tokens = outputs["blocks.1"]
        assert tokens.shape[1] == 3 + 16
        cache = fovcache.open(tmp_path / "pooled")
        for pooling in (None, "mean"):
            cache.build(str(folder), encoder=encoder, weights="random:0", layers=["blocks.1"], pool=pooling)
        for pooling, expected in (("cls", tokens[:, 0]), ("mean", tokens[:, 3:].mean(1))):
            torch.testing.assert_close(cache.features(pool=pooling).tensors()[0], expected.bfloat16())
            assert torch.equal(pool(tokens, pooling, extractor.tokens, "blocks.1"), expected)


class ToyContract(DeepExtractorContract):
    """For extractors that another distribution installs."""

    @pytest.fixture(autouse=True)
    def _install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(TOYS)

    def test_geometry_is_for_frames(self, encoder: str, extractor: Extractor, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=f"are for frames, and this encoder reads {extractor.input.kind}"):
            fovcache.open(tmp_path / "cache").build(str(folder), encoder=encoder, size=8)


class TestText(ToyContract):
    @pytest.fixture
    def encoder(self) -> str:
        return "toy-text"

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        return {f"{word}.txt": word.encode() for word in ("hund", "katz", "käs", "maus")}

    def test_texts_of_unequal_length_have_rows_of_their_own_shape(self, encoder: str, tmp_path: Path) -> None:
        folder = tmp_path / "texts"
        folder.mkdir()
        for number, text in enumerate(["a", "bb", "c", "ddd", "ee", "f"]):
            (folder / f"{number}.txt").write_text(text)
        cache = fovcache.open(tmp_path / "cache")
        for pooling in ("tokens", "mean", "cls"):
            assert cache.build(str(folder), encoder=encoder, pool=pooling).computed == 6
        assert cache.features(pool="mean").shape == cache.features(pool="cls").shape == (6, 8)
        assert cache.features(pool="tokens").rows.shapes == [(2, 8), (3, 8), (4, 8)]


class TestMatrices(ToyContract):
    @pytest.fixture
    def encoder(self) -> str:
        return "toy-matrices"

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        generator = np.random.default_rng(0)
        draw = lambda: generator.standard_normal((4, 10)).astype(np.float32)  # noqa: E731
        return {f"{number}.safetensors": save({"A": draw(), "B": draw()}) for number in range(3)}

    def test_a_sample_with_several_rows_keeps_them_together(self, encoder: str, folder: Path, tmp_path: Path) -> None:
        cache = fovcache.open(tmp_path / "cache")
        cache.build(str(folder), encoder=encoder, layers=["*"], batch_size=2)
        assert cache.features(layer="gram").shape == (3, 2, 4)
        assert cache.features(layer="spectrum").shape == (3, 2, 4)
