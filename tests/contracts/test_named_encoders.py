"""The named vision transformers, at their true sizes with seeded weights."""

import io
import json

import numpy as np
import pytest
import torch
from extractor_contract import ExtractorContract
from PIL import Image
from safetensors.torch import save_file

from fovcache.extract.extractor import Extractor, Item, resolve_extractor
from fovcache.models import siglip
from fovcache.models.checkpoint import open_checkpoint


def pictures(num: int = 3) -> dict[str, bytes]:
    files = {}
    for number in range(num):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3)).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((300, 260), Image.Resampling.BICUBIC).save(buffer, "PNG")
        files[f"{number}.png"] = buffer.getvalue()
    return files


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Seeded weights of siglip-base in a folder: to draw them anew for each test takes a second each time."""
    folder = tmp_path_factory.mktemp("siglip-base")
    config = siglip.BASE.full_config()
    checkpoint = open_checkpoint("random:0", name="siglip-base", hub_id=None, config=config)
    save_file(siglip.SIGLIP.load(checkpoint, config, siglip.SIGLIP.layers(config)), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


class NamedEncoderContract(ExtractorContract):
    """Subclass it with `name`."""

    weights = "random:0"
    name: str
    num_blocks = 12
    num_prefix_tokens = 1

    @pytest.fixture
    def encoder(self) -> str:
        return self.name

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        return pictures()

    def test_a_part_of_the_layers_has_the_same_values(
        self, extractor: Extractor, items: list[Item], outputs: dict[str, torch.Tensor]
    ) -> None:
        for layer in ("embed", "blocks.0", "blocks.7", extractor.layers()[-1]):  # a model is loaded for each
            assert torch.equal(self.encode(extractor, items, (layer,))[layer], outputs[layer])

    def test_layers_have_canonical_names_and_the_last_block_is_the_default(self, extractor: Extractor) -> None:
        blocks = [f"blocks.{number}" for number in range(self.num_blocks)]
        pooler = ["pooler"] if self.name.startswith("siglip") else []
        assert list(extractor.layers()) == ["embed", *blocks, "norm", *pooler]
        assert extractor.default_layers() == (blocks[-1],)

    def test_class_and_register_tokens_come_before_the_patches(
        self, extractor: Extractor, outputs: dict[str, torch.Tensor]
    ) -> None:
        assert extractor.tokens.num_prefix_tokens == self.num_prefix_tokens
        assert extractor.tokens.has_class_token == (self.num_prefix_tokens > 0)
        patch = {"dinov2": 14, "siglip": 16, "vit": 16}[self.name.partition("-")[0]]
        tokens = outputs["embed"]
        assert tokens.shape[1] == self.num_prefix_tokens + (224 // patch) ** 2
        assert torch.equal(tokens[0, : self.num_prefix_tokens], tokens[1, : self.num_prefix_tokens])
        assert not torch.equal(tokens[0, self.num_prefix_tokens], tokens[1, self.num_prefix_tokens])


class TestViTTiny(NamedEncoderContract):
    name = "vit-tiny"


class TestDinov2Small(NamedEncoderContract):
    name = "dinov2-small"


class TestDinov2WithRegistersSmall(NamedEncoderContract):
    name = "dinov2-with-registers-small"
    num_prefix_tokens = 5


class TestSiglipBase(NamedEncoderContract):
    name = "siglip-base"
    num_prefix_tokens = 0

    @pytest.fixture(autouse=True)
    def _weights(self, siglip_folder: str) -> None:
        self.weights = siglip_folder

    def test_the_pooler_is_one_row(self, extractor: Extractor, items: list[Item]) -> None:
        assert self.encode(extractor, items, ("pooler",))["pooler"].shape == (len(items), 768)

    def test_a_folder_of_seeded_weights_gives_what_the_seed_gives(
        self, extractor: Extractor, items: list[Item]
    ) -> None:
        seeded = resolve_extractor(self.name, "random:0")
        assert torch.equal(*(self.encode(each, items, ("blocks.2",))["blocks.2"] for each in (seeded, extractor)))
