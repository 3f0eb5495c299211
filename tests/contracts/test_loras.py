"""LoRAs as an extractor's input keep the contract: the one for Stable Diffusion 1.5, and the one by a template."""

from pathlib import Path

import pytest
import torch
from extractor_contract import ExtractorContract
from lora_files import SMALL, lora_bytes, made_lora

from fovcache.errors import EncoderError, UsageError, WeightsError
from fovcache.extract.extractor import Extractor, Item, resolve_extractor
from fovcache.extract.layers import select_layers


class LoraContract(ExtractorContract):
    def built_layers(self, extractor: Extractor) -> tuple[str, ...]:
        layers = extractor.layers()
        return (*layers[:2], *layers[-2:])

    def test_a_part_of_the_layers_has_the_same_values(
        self, extractor: Extractor, items: list[Item], outputs: dict[str, torch.Tensor]
    ) -> None:
        layers = extractor.layers()
        for part in (layers[:1], layers[3:4], layers[-1:], layers[1:-1:7]):
            for layer, rows in self.encode(extractor, items, part).items():
                assert torch.equal(rows, outputs[layer])

    def test_a_compute_dtype_is_refused(self, extractor: Extractor) -> None:
        with pytest.raises(EncoderError, match="leave --compute-dtype out"):
            extractor.session(extractor.layers()[:1], self.device, "bfloat16")

    def test_geometry_is_for_frames(self, encoder: str, folder: Path, tmp_path: Path) -> None:
        import fovcache

        with pytest.raises(UsageError, match="are for frames, and this encoder reads matrices"):
            fovcache.open(tmp_path / "cache").build(str(folder), encoder=encoder, weights=self.weights, size=8)


class TestLoraSd15(LoraContract):
    @pytest.fixture
    def encoder(self) -> str:
        return "lora-sd15"

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        return {f"{seed}.safetensors": lora_bytes(made_lora(2, seed)) for seed in range(3)}

    @pytest.mark.parametrize("rank", [1, 4])
    def test_its_matrices_are_those_of_the_table(self, extractor: Extractor, rank: int) -> None:
        item = extractor.input.read(lora_bytes(made_lora(rank)), "it")
        outputs = self.encode(extractor, [item], extractor.default_layers())
        assert len(outputs) == 128
        sizes = {layer: rows.numel() for layer, rows in outputs.items()}
        assert sum(sizes.values()) == 99_648 * rank
        assert sum(size for layer, size in sizes.items() if ".attn1." in layer) == 49_920 * rank
        assert sum(size for layer, size in sizes.items() if ".attn2." in layer) == 49_728 * rank
        assert all(rows.shape[1 if "lora.down" in layer else 2] == rank for layer, rows in outputs.items())
        text = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.lora"
        assert outputs[f"{text}.down.weight"].shape == (1, rank, 768)
        assert outputs[f"{text}.up.weight"].shape == (1, 320, rank)

    def test_globs_take_what_they_say(self, extractor: Extractor) -> None:
        layers, factors = extractor.layers(), extractor.default_layers()
        counts = {"**.delta": 64, "**.lora.down.weight": 64, "**.attn2.to_v.lora.down.weight": 16, "mid_block.**": 12}
        for glob, num in counts.items():
            assert len(select_layers([glob], layers)) == num
        assert len(select_layers(["**.attn1.**"], factors)) == 64

    def test_rows_are_the_files_numbers(self, extractor: Extractor) -> None:
        lora = made_lora(3)
        items = [extractor.input.read(lora_bytes(lora), "it")]
        outputs = self.encode(extractor, items, extractor.default_layers())
        for module, (up, down) in lora.items():
            assert torch.equal(outputs[f"{module}.lora.up.weight"][0], up)
            assert torch.equal(outputs[f"{module}.lora.down.weight"][0], down)

    def test_a_product_has_its_alpha(self, extractor: Extractor) -> None:
        lora = made_lora(3)
        files = [lora_bytes(lora), lora_bytes(lora, "kohya", alpha=6.0)]
        layer = extractor.layers()[-1]
        rows = self.encode(extractor, [extractor.input.read(data, "it") for data in files], (layer,))[layer]
        assert rows.shape == (2, 84)
        torch.testing.assert_close(rows[1, :16], 2 * rows[0, :16])

    def test_it_has_no_weights(self) -> None:
        with pytest.raises(WeightsError, match="take --encoder lora"):
            resolve_extractor("lora-sd15", "random:0")


class TestLoraByTemplate(LoraContract):
    @pytest.fixture
    def encoder(self) -> str:
        return "lora"

    @pytest.fixture(autouse=True)
    def _template(self, tmp_path: Path) -> None:
        self.weights = str(tmp_path / "reference.safetensors")
        Path(self.weights).write_bytes(lora_bytes(made_lora(5, 99, SMALL), "kohya", alpha=1.0))

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        return {f"{seed}.safetensors": lora_bytes(made_lora(2, seed, SMALL)) for seed in range(3)}

    def test_layers_are_the_files_modules(self, extractor: Extractor, outputs: dict[str, torch.Tensor]) -> None:
        assert set(extractor.default_layers()) == {
            f"{module}.lora.{part}.weight" for module in SMALL for part in ("up", "down")
        }
        assert outputs["blocks.0.proj_in.lora.down.weight"].shape == (3, 2, 4 * 9)
        assert outputs["blocks.0.proj_in.lora.up.weight"].shape == (3, 6, 2)

    def test_the_key_knows_names_and_shapes_and_neither_rank_nor_values(
        self, extractor: Extractor, tmp_path: Path
    ) -> None:
        def identity(name: str, modules: dict[str, tuple[int, ...]], rank: int) -> tuple[object, object]:
            path = tmp_path / name
            path.write_bytes(lora_bytes(made_lora(rank, 1, modules)))
            found = resolve_extractor("lora", str(path))
            return found.identity(), found.input.document()

        mine = extractor.identity(), extractor.input.document()
        assert identity("same.safetensors", dict(SMALL), 3) == mine
        assert identity("fewer.safetensors", dict(list(SMALL.items())[:2]), 3) != mine
        assert identity("wider.safetensors", {**SMALL, "blocks.0.attn.to_q": (12, 9)}, 3) != mine
