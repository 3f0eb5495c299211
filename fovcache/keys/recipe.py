"""Recipes, features and sample keys: the documents whose digests are the cache's keys.

A recipe is everything that decides an extractor's activations for a given sample; a feature is one layer of
a recipe under a pooling and a storage dtype. Both are plain JSON documents: the digest is over all of it,
so a field that is added later changes the key, and two documents can be compared field by field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from blake3 import blake3

from .digest import Document, bytes_digest, canonical_json, document_digest

SCHEMA = 0
"""The on-disk schema. 0 until the format is frozen: a cache of schema 0 may not outlive a release."""

IMPLEMENTATION = 1
"""Raised when a change of ours changes activations for the same recipe."""

COMPUTE_DTYPES = ("float32", "bfloat16", "float16")
STORE_DTYPES = ("bf16", "fp16", "fp32")
INTEGER_DTYPE = "int32"
"""How whole numbers are stored, such as token ids. It is the extractor's own and cannot be asked for."""
POOLINGS = ("cls", "mean", "tokens")
CAPTION = "caption"
"""The kind of input whose rows are keyed by the caption that is read, and not by the sample that it belongs to."""
_CAPTION_CONTEXT = "fovcache 2026-11 caption"
_NO_CAPTION_CONTEXT = "fovcache 2026-11 no caption"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the activations of a sample; its digest does not include the layer."""

    input: Document
    """What the extractor is fed: its kind, the clip or its equivalent, preprocessing, decoder."""
    extractor: Document
    """Which function: architecture or source, factory, weights, token layout."""
    compute_dtype: str = "float32"
    """One of COMPUTE_DTYPES. Below float32 the forward pass runs under autocast."""
    posterior: Document | None = None
    """For a VAE: mean, mean and log-variance, or a sample with its seed."""
    view: Document | None = None
    """None, or an augmentation with its seed."""

    def __post_init__(self) -> None:
        if self.compute_dtype not in COMPUTE_DTYPES:
            raise ValueError(f"compute dtype {self.compute_dtype!r} is not one of {', '.join(COMPUTE_DTYPES)}")

    @cached_property
    def document(self) -> Document:
        """The JSON document that is hashed and written to `recipes/DIGEST.json`."""
        return {
            "kind": "recipe",
            "schema": SCHEMA,
            "implementation": IMPLEMENTATION,
            "input": self.input,
            "extractor": self.extractor,
            "compute": {"dtype": self.compute_dtype, "autocast": self.compute_dtype != "float32"},
            "posterior": self.posterior,
            "view": self.view,
        }

    @cached_property
    def digest(self) -> str:
        """The recipe's key."""
        return document_digest(self.document)


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One layer of a recipe under a pooling and a storage dtype."""

    recipe: str
    """The recipe's digest."""
    layer: str
    """A canonical layer name."""
    pool: str
    """`cls`, `mean` (patches without class and register tokens, or space) or `tokens` (as the layer is)."""
    dtype: str = "bf16"
    """Storage dtype: bf16, fp16 or fp32; int32 for whole numbers."""
    pool_time: str = "none"
    """Pooling over frames; `none` keeps `[frames, …]`."""

    def __post_init__(self) -> None:
        if self.pool not in POOLINGS:
            raise ValueError(f"pooling {self.pool!r} is not one of {', '.join(POOLINGS)}")
        if self.dtype not in (*STORE_DTYPES, INTEGER_DTYPE):
            raise ValueError(f"storage dtype {self.dtype!r} is not one of {', '.join(STORE_DTYPES)}, {INTEGER_DTYPE}")

    @property
    def is_integer(self) -> bool:
        """Whether its rows are whole numbers, with which no arithmetic makes sense."""
        return self.dtype == INTEGER_DTYPE

    @cached_property
    def document(self) -> Document:
        """The JSON document that is hashed."""
        return {
            "kind": "feature",
            "schema": SCHEMA,
            "recipe": self.recipe,
            "layer": self.layer,
            "pool": self.pool,
            "pool_time": self.pool_time,
            "dtype": self.dtype,
        }

    @cached_property
    def digest(self) -> str:
        """The feature's key."""
        return document_digest(self.document)

    @classmethod
    def from_document(cls, document: Document) -> Feature:
        """The feature that a document describes. Raises ValueError when it is not a feature of this schema."""
        feature = cls(
            recipe=str(document["recipe"]),
            layer=str(document["layer"]),
            pool=str(document["pool"]),
            dtype=str(document["dtype"]),
            pool_time=str(document["pool_time"]),
        )
        if feature.document != document:
            raise ValueError(f"not a feature document of schema {SCHEMA}: {document}")
        return feature


def sample_key(content_digest: str, start_s: float | None = None, end_s: float | None = None) -> str:
    """A sample's key: the BLAKE3 of its bytes, or of its digest and range in seconds where it has a range."""
    if start_s is None and end_s is None:
        return content_digest
    document = {"kind": "sample", "content": content_digest, "start_s": start_s, "end_s": end_s}
    return bytes_digest(b"fovcache range\n" + canonical_json(document))


def caption_key(caption: str | None) -> str:
    """The key of what is computed from a caption, whatever the sample: equal captions share it.

    No sample's key is equal to one, as BLAKE3 is taken in its key derivation mode. All samples without a caption share
    one too.
    """
    context = _NO_CAPTION_CONTEXT if caption is None else _CAPTION_CONTEXT
    return blake3((caption or "").encode(), derive_key_context=context).hexdigest()


def is_of_captions(recipe: Document) -> bool:
    """Whether a recipe's rows are keyed by `caption_key`, by the recipe's document."""
    return bool(recipe["input"].get("kind") == CAPTION)


def differences(old: Any, new: Any, field: str = "") -> list[tuple[str, Any, Any]]:
    """The fields in which two documents differ, in document order: `(field, old value, new value)`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for name in dict.fromkeys([*old, *new]):
            found += differences(old.get(name), new.get(name), f"{field}.{name}" if field else str(name))
        return found
    return [] if old == new else [(field, old, new)]
