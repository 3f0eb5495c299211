"""Block manifests: what each block of a build holds. They are the truth; the index is derived from them.

A block is a list of sample keys and a set of features, fixed when a build is planned. Its manifest is
written once, when all its rows are on disk; of several builders the first wins. Samples that failed are the
ledger: they stand in the manifest of the block in which they were tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import DamageError
from ..keys.digest import Document, bytes_digest, document_digest
from ..keys.recipe import SCHEMA
from .documents import sealed, unseal
from .layout import MANIFESTS, manifest_name, stem
from .shard import Shard
from .storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One row of the ledger."""

    key: str
    """The sample's key."""
    stage: str
    """`fetch`, `decode` or `encode`."""
    reason: str
    """Why, in words."""
    permanent: bool
    """False where trying again may help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What one block holds."""

    recipe: str
    """The recipe's digest."""
    block: str
    """The block's id, see `block_id`."""
    attempt: int
    """How often these samples had failed before."""
    features: tuple[str, ...]
    """Digests of the features that every row has, sorted."""
    shards: tuple[Shard, ...]
    """Its rows: one shard, or one for each row shape; none when every sample failed."""
    failures: tuple[Failure, ...]
    """The samples that have no row, and why."""
    provenance: Document = field(default_factory=dict)
    """Who wrote it, when and with what; sealed too, but no part of the manifest's identity or of any shard."""

    @property
    def document(self) -> dict[str, Any]:
        """The manifest without its provenance: equal for equal builds."""
        return {
            "kind": "block",
            "schema": SCHEMA,
            "recipe": self.recipe,
            "block": self.block,
            "attempt": self.attempt,
            "features": list(self.features),
            "shards": [asdict(shard) for shard in self.shards],
            "failures": [asdict(failure) for failure in self.failures],
        }


def block_id(recipe: str, features: Sequence[str], keys: bytes, attempt: int) -> str:
    """A block's id: a digest of the recipe, its features, its samples' keys in order, and the attempt."""
    document = {
        "kind": "block",
        "schema": SCHEMA,
        "recipe": recipe,
        "features": sorted(features),
        "keys": bytes_digest(keys),
        "attempt": attempt,
    }
    return document_digest(document)


def publish_manifest(storage: Storage, manifest: Manifest) -> bool:
    """Write a manifest unless the block has one; whether ours was first."""
    data = sealed({**manifest.document, "provenance": manifest.provenance})
    return storage.put_if_absent(manifest_name(manifest.recipe, manifest.block), [data])


def read_manifest(storage: Storage, name: str) -> Manifest:
    """The manifest in a file. Raises DamageError, FileNotFoundError."""
    document = unseal(storage.read(name), name)
    try:
        manifest = Manifest(
            recipe=document["recipe"],
            block=document["block"],
            attempt=document["attempt"],
            features=tuple(document["features"]),
            shards=tuple(Shard(**shard) for shard in document["shards"]),
            failures=tuple(Failure(**failure) for failure in document["failures"]),
            provenance=document["provenance"],
        )
    except (KeyError, TypeError) as error:
        raise DamageError(f"{name} is not a block manifest of schema {SCHEMA}: {error}") from error
    if manifest.block != stem(name):
        raise DamageError(f"{name} is damaged: it is the manifest of block {manifest.block}")
    return manifest


def manifest_names(storage: Storage, recipe: str | None = None) -> Iterator[str]:
    """The files of all manifests, or of one recipe's."""
    names = storage.list(f"{MANIFESTS}/{recipe}" if recipe else MANIFESTS)
    return (name for name in names if name.endswith(".json"))
