"""Captions go into rows of ids and come out of them, whatever they say."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizer_files import END, made_tokenizer, save_tokenizer

import fovcache
from fovcache.extract.captions import row_length
from fovcache.extract.extractor import resolve_extractor
from fovcache.keys.digest import bytes_digest
from fovcache.keys.recipe import caption_key

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))  # half a surrogate pair is no text
TOKENIZER = made_tokenizer()


@given(TEXTS)
@example("\0 and \ufeff, \r\n\u2028 and e\u0301 beside \xe9")
def test_bytes_give_every_text_back(text: str) -> None:
    row = resolve_extractor("bytes").input.read(text.encode(), "it").tolist()
    num = len(text.encode())
    assert bytes(row[:num]).decode() == text
    assert row[num:] == [256, *[-1] * (len(row) - num - 1)]


@given(st.lists(TEXTS, max_size=20), st.integers(1, 40))
def test_a_tokenizer_gives_every_text_back(texts: list[str], max_length: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        extractor = resolve_extractor("tokens", str(save_tokenizer(Path(folder), TOKENIZER)))
    for text in [*texts, f"{END}{max_length}"]:
        row = [number for number in extractor.input.read(text.encode(), "it").tolist() if number >= 0]
        assert TOKENIZER.decode(row[:-1], skip_special_tokens=False) == text
        assert row.index(extractor.identity()["end"]) == len(row) - 1


@given(TEXTS, TEXTS)
def test_keys_tell_texts_apart_and_are_of_no_file(one: str, other: str) -> None:
    assert (caption_key(one) == caption_key(other)) == (one == other)
    assert caption_key(one) not in (caption_key(None), bytes_digest(one.encode()))


@given(st.integers(1, 1 << 21))
def test_rows_have_few_lengths_and_little_padding(num: int) -> None:
    length = row_length(num)
    assert num <= length < num + max(16, num / 4)
    assert length % 16 == 0
    assert row_length(length) == length
    assert row_length(num + 1) in (length, row_length(length + 1))


def test_texts_of_a_million_tokens_have_few_lengths() -> None:
    num, lengths = 1, 0
    while num < 1 << 20:
        num, lengths = row_length(num) + 1, lengths + 1
    assert lengths < 70


@settings(max_examples=15)
@given(st.lists(st.none() | TEXTS.filter(lambda text: text and "\0" not in text), min_size=1, max_size=12).filter(any))
def test_a_dataset_gives_its_captions_back(captions: list[str | None]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(3):
            Image.new("RGB", (1, 1), (number, 0, 0)).save(folder / f"{number}.png")
        rows = [{"uri": f"{number % 3}.png", "caption": text} for number, text in enumerate(captions)]
        (folder / "some.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        cache = fovcache.open(folder / "cache")
        report = cache.build(str(folder / "some.jsonl"), encoder="bytes", device="cpu", num_workers=1)
        present = [text for text in captions if text is not None]
        assert (report.computed, report.failed) == (len(set(present)), captions.count(None))
        features = cache.features(layer="ids")
        assert features.captions == present
        ids = features.padded()
        assert features.lengths.tolist() == [len(text.encode()) + 1 for text in present]
        told = [bytes(row[: num - 1].tolist()).decode() for row, num in zip(ids, features.lengths, strict=True)]
        assert told == present
