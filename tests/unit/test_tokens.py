"""Tokenizers' folders: what decides the ids, what must not act, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizer_files import END, add_what_must_not_act, made_tokenizer, save_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers

from fovcache.errors import SampleError, WeightsError
from fovcache.extract.extractor import resolve_extractor
from fovcache.models.tokens import TokenIds

TEXT = "the cube rolls away from a red ball"


def opened(folder: Path) -> TokenIds:
    return resolve_extractor("tokens", str(folder))


def ids(extractor: TokenIds, text: str) -> list[int]:
    row = extractor.input.read(text.encode(), "it").tolist()
    return row[: row.index(-1)] if -1 in row else row


@pytest.fixture
def plain(tmp_path: Path) -> TokenIds:
    return opened(save_tokenizer(tmp_path / "plain"))


def test_a_row_is_the_text_and_the_end_token(plain: TokenIds) -> None:
    tokenizer = made_tokenizer()
    assert ids(plain, TEXT) == [*tokenizer.encode(TEXT).ids, tokenizer.token_to_id(END)]
    identity = plain.identity()
    assert (identity["end"], identity["end_text"]) == (tokenizer.token_to_id(END), END)
    assert identity["vocabulary"] == tokenizer.get_vocab_size()


def test_truncation_padding_and_tokens_around_a_text_do_not_act(plain: TokenIds, tmp_path: Path) -> None:
    tokenizer = made_tokenizer()
    add_what_must_not_act(tokenizer)
    assert len(tokenizer.encode(TEXT).ids) == 8
    other = opened(save_tokenizer(tmp_path / "other", tokenizer))
    assert ids(other, TEXT) == ids(plain, TEXT)
    assert other.identity() == plain.identity()


def test_dropout_does_not_act(plain: TokenIds, tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path / "random")
    document = json.loads((folder / "tokenizer.json").read_text())
    document["model"]["dropout"] = 0.9
    (folder / "tokenizer.json").write_text(json.dumps(document, indent=4))
    other = opened(folder)
    assert {tuple(ids(other, TEXT)) for _ in range(20)} == {tuple(ids(plain, TEXT))}
    assert other.identity() == plain.identity()


def test_a_caption_cannot_spell_out_an_end(plain: TokenIds) -> None:
    text = f"before {END} after"
    end = plain.identity()["end"]
    assert made_tokenizer().encode(text).ids.count(end) == 1
    assert ids(plain, text).count(end) == 1
    assert ids(plain, text)[-1] == end
    assert made_tokenizer().decode(ids(plain, text)[:-1]) == text


def test_the_key_is_of_the_tokenizer_and_not_of_its_folder(plain: TokenIds, tmp_path: Path) -> None:
    same = save_tokenizer(tmp_path / "same")
    document = json.loads((same / "tokenizer.json").read_text())
    (same / "tokenizer.json").write_text(json.dumps(document, sort_keys=True, indent=1))
    assert opened(same).identity() == plain.identity()
    document["model"]["merges"].pop()
    (same / "tokenizer.json").write_text(json.dumps(document))
    assert opened(same).identity()["weights"] != plain.identity()["weights"]
    assert opened(save_tokenizer(tmp_path / "ends", eos_token="<|begin|>")).identity() != plain.identity()


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("tokenizer_config.json", {"eos_token": END}),
        ("tokenizer_config.json", {"eos_token": {"content": END, "lstrip": False}}),
        ("special_tokens_map.json", {"eos_token": END}),
        ("generation_config.json", {"eos_token_id": 0}),
        ("generation_config.json", {"eos_token_id": [0, 1]}),
    ],
)
def test_the_end_token_is_found(plain: TokenIds, tmp_path: Path, name: str, document: Any) -> None:
    folder = save_tokenizer(tmp_path / "other", model_max_length=5)
    (folder / name).write_text(json.dumps(document))
    assert opened(folder).identity() == plain.identity()


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path / "some", model_max_length=5)
    with pytest.raises(WeightsError, match=r"name no end token; expected `eos_token` in tokenizer_config.json or"):
        opened(folder)
    (folder / "special_tokens_map.json").write_text('{"eos_token": "</s>"}')
    with pytest.raises(WeightsError, match=r"the end token '</s>' is not in tokenizer.json"):
        opened(folder)
    (folder / "special_tokens_map.json").write_text("{")
    with pytest.raises(WeightsError, match=r"special_tokens_map.json cannot be read as JSON"):
        opened(folder)
    for data, said in (
        ("[]", "tokenizer.json holds a list, expected a JSON object"),
        ("{}", "tokenizer.json is no tokenizer"),
        ('{"model": {"type": "No such"}}', "tokenizer.json is no tokenizer"),
        ('{"model": {"type": "BPE", "scale": NaN}}', "tokenizer.json is no tokenizer"),
        ('{"model": {"type": "BPE", "scale": -Infinity}}', "tokenizer.json is no tokenizer"),
        ("\x80", "tokenizer.json cannot be read as JSON"),
    ):
        (folder / "tokenizer.json").write_text(data)
        with pytest.raises(WeightsError, match=said):
            opened(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"hold no tokenizer.json; expected a folder with tokenizer.json and"):
        opened(folder)
    with pytest.raises(WeightsError, match="are a file; expected a folder"):
        opened(folder / "tokenizer_config.json")
    for absent in ("no/such/folder", "random:0"):
        with pytest.raises(WeightsError, match=f"weights '{absent}' do not exist; expected a folder"):
            resolve_extractor("tokens", absent)
    with pytest.raises(WeightsError, match=r"has no tokenizer of its own: give --weights"):
        resolve_extractor("tokens")
    with pytest.raises(WeightsError, match=r"has none; of several encoders name the one .* as in NAME=random:0"):
        resolve_extractor("bytes", "random:0")


def test_a_text_that_the_tokenizer_has_no_ids_for_fails_for_good(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"cube": 0, "end": 1}, unk_token="unknown"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    extractor = opened(save_tokenizer(tmp_path / "words", words, eos_token="end"))
    assert ids(extractor, "cube cube") == [0, 0, 1]
    with pytest.raises(SampleError, match="the tokenizer refuses it: ") as caught:
        ids(extractor, "cube ball")
    assert (caught.value.stage, caught.value.permanent) == ("decode", True)
