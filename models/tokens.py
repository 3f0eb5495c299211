"""Token ids of captions: `tokens` by a tokenizer's folder or hub id, and `bytes`, which needs none.

A row is the caption's ids, then the end token. What a tokenizer's file says of truncation, padding, special tokens
around a text and dropout does not act. A special token that a caption spells out is read as plain text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fovcache.errors import SampleError, WeightsError, environment_failure
from fovcache.extract.captions import CaptionInput
from fovcache.extract.extractor import TokenLayout
from fovcache.keys.digest import Document, bytes_digest
from fovcache.keys.recipe import INTEGER_DTYPE

from .hub import hub_files, is_hub_id

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

LAYER = "ids"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
GENERATION_CONFIG_FILE = "generation_config.json"
_OPTIONAL_FILES = (SPECIAL_TOKENS_FILE, GENERATION_CONFIG_FILE)
_VERSION = 1
_DO_NOT_ACT = ("truncation", "padding", "post_processor", "decoder")
_EXPECTED = f"expected a folder with {TOKENIZER_FILE} and {TOKENIZER_CONFIG_FILE}, or a hub id owner/name"


class TokenIds:
    """The layer `ids` of captions."""

    tokens = TokenLayout()
    default_pool = "tokens"
    store_dtype = INTEGER_DTYPE

    def __init__(self, name: str, captions: CaptionInput, identity: Document) -> None:
        """`identity` is what decides the ids, beside the name and `captions`."""
        self.name = name
        self.input = captions
        self._identity = identity

    def identity(self) -> Document:
        """Its name and version; `vocabulary`, one more than the largest id; `end`, the end token's id, and `end_text`;
        `weights`, the tokenizer's digest."""
        return {"name": self.name, "version": _VERSION, **self._identity}

    def layers(self) -> tuple[str, ...]:
        """`ids`."""
        return (LAYER,)

    def default_layers(self) -> tuple[str, ...]:
        """`ids`."""
        return (LAYER,)

    def session(self, layers: Sequence[str], device: torch.device, compute_dtype: str) -> IdSession:
        """A session: its input is the ids already."""
        return IdSession()


class IdSession:
    """Hands on what was read."""

    def encode(self, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`{"ids": int32 [n, L]}`."""
        return {LAYER: batch}


def of_bytes(weights: str | None) -> TokenIds:
    """`bytes`: a caption's UTF-8 bytes, 0 to 255, then 256. Raises WeightsError when weights are given: it has none."""
    if weights is not None:
        raise WeightsError(
            f"weights {weights!r} were given, and the encoder 'bytes' has none; of several encoders name the one that "
            f"they are for, as in NAME={weights}"
        )
    end = 256
    captions = CaptionInput(tokenize=_byte_ids, end_id=end, software_name="utf-8", software_version="1")
    return TokenIds("bytes", captions, {"vocabulary": end + 1, "end": end, "end_text": None})


def _byte_ids(text: str) -> Sequence[int]:
    return text.encode()


def make(weights: str | None) -> TokenIds:
    """`tokens`: the tokenizer in a folder, or of a hub id. Raises WeightsError, EnvironmentFailure."""
    import tokenizers

    if weights is None:
        raise WeightsError(f"the encoder 'tokens' has no tokenizer of its own: give --weights; {_EXPECTED}")
    folder = _folder(weights)
    document = _json_object(folder / TOKENIZER_FILE, weights)
    for part in _DO_NOT_ACT:
        document[part] = None
    if isinstance(document.get("model"), dict) and "dropout" in document["model"]:
        document["model"]["dropout"] = None
    try:
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
        tokenizer = tokenizers.Tokenizer.from_str(canonical)
    except Exception as error:  # the library raises nothing narrower; ValueError for NaN and Infinity
        raise WeightsError(f"weights {weights!r}: {TOKENIZER_FILE} is no tokenizer: {error}") from error
    tokenizer.encode_special_tokens = True
    end_text, end_id = _end(folder, weights, tokenizer)
    identity = {
        "weights": {"digest": bytes_digest(canonical.encode())},
        "vocabulary": 1 + max(tokenizer.get_vocab(with_added_tokens=True).values()),
        "end": end_id,
        "end_text": end_text,
    }
    captions = CaptionInput(
        tokenize=_Reading(tokenizer),
        end_id=end_id,
        software_name="tokenizers",
        software_version=tokenizers.__version__,
    )
    return TokenIds("tokens", captions, identity)


class _Reading:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> Sequence[int]:
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises nothing narrower
            raise SampleError("decode", f"the tokenizer refuses it: {error}", permanent=True) from error
        return ids


def _folder(weights: str) -> Path:
    path = Path(weights)
    if not path.exists():
        if not is_hub_id(weights):
            raise WeightsError(f"weights {weights!r} do not exist; {_EXPECTED}")
        names = (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE)
        return hub_files(weights, names, _OPTIONAL_FILES, enough=(TOKENIZER_FILE,))
    if not path.is_dir():
        raise WeightsError(f"weights {weights!r} are a file; {_EXPECTED}, here {str(path.parent)!r}")
    return path


def _json_object(path: Path, weights: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise WeightsError(f"weights {weights!r} hold no {path.name}; {_EXPECTED}") from None
    except OSError as error:
        raise environment_failure(error, f"read {path}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"weights {weights!r}: {path.name} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"weights {weights!r}: {path.name} holds a {type(value).__name__}, expected a JSON object")
    return value


def _end(folder: Path, weights: str, tokenizer: Tokenizer) -> tuple[str, int]:
    """The end token's text and id."""
    found: tuple[str | None, int | None] = (None, None)
    for name in (TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE):
        if (folder / name).is_file():
            token = _json_object(folder / name, weights).get("eos_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                found = token, tokenizer.token_to_id(token)
                break
    else:
        if (folder / GENERATION_CONFIG_FILE).is_file():
            number = _json_object(folder / GENERATION_CONFIG_FILE, weights).get("eos_token_id")
            number = number[0] if isinstance(number, list) and number else number
            if isinstance(number, int) and number >= 0:
                found = tokenizer.id_to_token(number), number
    text, number = found
    if text is None and number is None:
        raise WeightsError(
            f"weights {weights!r} name no end token; expected `eos_token` in {TOKENIZER_CONFIG_FILE} or "
            f"{SPECIAL_TOKENS_FILE}, or `eos_token_id` in {GENERATION_CONFIG_FILE}"
        )
    if text is None or number is None:
        raise WeightsError(
            f"weights {weights!r}: the end token {number if text is None else text!r} is not in {TOKENIZER_FILE}"
        )
    return text, number
