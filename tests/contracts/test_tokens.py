"""Token ids of captions keep the contract: of bytes, and of a tokenizer that the test makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from extractor_contract import ExtractorContract
from tokenizer_files import made_tokenizer, save_tokenizer

import fovcache
from fovcache.errors import EncoderError, UsageError
from fovcache.extract.extractor import Extractor, Item


class TokensContract(ExtractorContract):
    """Its samples' bytes are captions."""

    has_float_rows = False

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        return {"0.png": b"a red ball", "1.png": "ein wür|fel".encode(), "2.png": b""}

    @pytest.fixture
    def made(self, make_images: Callable[..., Path], files: dict[str, bytes], tmp_path: Path) -> tuple[Path, Any]:
        """A manifest of one image more than there are captions, and how to build it."""
        make_images(tmp_path / "images", len(files) + 1)
        captions: list[str | None] = [*(data.decode() for data in files.values()), None]
        rows = [{"uri": f"images/{number:04d}.png", "caption": text} for number, text in enumerate(captions)]
        rows[2]["caption"] = "two balls"  # an empty one would count as none
        (tmp_path / "made.jsonl").write_text("\n".join(map(json.dumps, rows)))
        cache = fovcache.open(tmp_path / "cache")

        def build(**options: Any) -> fovcache.BuildReport:
            return cache.build(str(tmp_path / "made.jsonl"), device="cpu", num_workers=1, **options)

        return tmp_path / "cache", build

    def test_it_builds_like_any_other(self, encoder: str, extractor: Extractor, made: tuple[Path, Any]) -> None:
        path, build = made
        report = build(encoder=encoder, weights=self.weights, store_dtype="fp32", compute_dtype="bf16")
        assert (report.samples, report.computed, report.failed) == (4, 3, 1)
        assert report.failures[0].permanent
        assert report.failures[0].reason == "it has no caption"
        assert build(encoder=encoder, weights=self.weights).computed == 0
        features = fovcache.open(path).features(layer="ids")
        assert (features.num_failed, features.dtype, features.feature.dtype) == (1, torch.int32, "int32")
        items = [extractor.input.read((text or "").encode(), "it") for text in features.captions]
        longest = max(int((item >= 0).sum()) for item in items)
        expected = torch.stack([torch.from_numpy(item)[:longest] for item in items]).to(torch.int64)
        assert torch.equal(features.padded(), expected)

    def test_each_row_ends_with_the_end_token_and_padding(self, extractor: Extractor, items: list[Item]) -> None:
        end = extractor.identity()["end"]
        for item in items:
            num = int((item >= 0).sum())
            assert item[num - 1] == end
            assert (item[: num - 1] != end).all()
            assert (item[num:] == -1).all()
            assert len(item) % 16 == 0
            assert item.max() < extractor.identity()["vocabulary"]

    def test_what_is_said_of_numbers_is_refused(self, encoder: str, made: tuple[Path, Any]) -> None:
        _, build = made
        asked = {"encoder": encoder, "weights": self.weights}
        with pytest.raises(EncoderError, match=r"pooling 'mean' is of numbers, and .* gives ids; leave --pool out"):
            build(pool="mean", **asked)
        with pytest.raises(UsageError, match="'int32' is not one of bf16, fp16, fp32; whole numbers are stored so by"):
            build(store_dtype="int32", **asked)
        with pytest.raises(UsageError, match="are for frames, and this encoder reads caption"):
            build(frames=2, **asked)


class TestBytes(TokensContract):
    @pytest.fixture
    def encoder(self) -> str:
        return "bytes"

    def test_ids_are_bytes(self, extractor: Extractor) -> None:
        row = extractor.input.read("wü".encode(), "it").tolist()
        assert row == [0x77, 0xC3, 0xBC, 256, *[-1] * 12]
        assert (extractor.identity()["end"], extractor.identity()["vocabulary"]) == (256, 257)


class TestTokens(TokensContract):
    @pytest.fixture(autouse=True)
    def _weights(self, tmp_path: Path) -> None:
        self.weights = str(save_tokenizer(tmp_path / "tokenizer"))

    @pytest.fixture
    def encoder(self) -> str:
        return "tokens"

    def test_ids_are_the_tokenizers(self, extractor: Extractor, files: dict[str, bytes], items: list[Item]) -> None:
        for data, item in zip(files.values(), items, strict=True):
            expected = made_tokenizer().encode(data.decode()).ids
            assert item[: len(expected)].tolist() == expected
