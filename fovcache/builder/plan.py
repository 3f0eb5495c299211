"""Plans: which samples go into which block, fixed before the first is computed.

A plan is written before its first block, so that a build that was killed goes on with the very same blocks
and ends with the same bits. It is removed when all its blocks have manifests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DamageError
from ..keys.digest import DIGEST_BYTES, bytes_digest, canonical_json
from ..keys.recipe import SCHEMA
from ..store.layout import PLANS, manifest_name, plan_name
from ..store.manifest import block_id
from ..store.safetensors_file import array_bytes, file_parts, parse_header
from ..store.shard import keys_array, keys_hex
from ..store.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Samples that are computed and written together."""

    id: str
    """See `block_id`."""
    features: tuple[str, ...]
    """Digests of the features to compute, sorted."""
    keys: tuple[str, ...]
    """The samples, in order; batches are cut at multiples of the batch size."""
    capacity: int
    """Samples in the plan's full blocks."""
    attempt: int = 0
    """How often these samples have failed before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The blocks of one build that compute the same features."""

    recipe: str
    """The recipe's digest."""
    features: tuple[str, ...]
    """Digests of the features to compute, sorted."""
    keys: tuple[str, ...]
    """All samples, in order."""
    rows_per_block: int
    """Samples in a block; the last may have fewer."""
    attempt: int = 0
    """How often these samples have failed before."""

    def blocks(self) -> Iterator[Block]:
        """The plan's blocks, in order."""
        for start in range(0, len(self.keys), self.rows_per_block):
            keys = self.keys[start : start + self.rows_per_block]
            identity = block_id(self.recipe, self.features, keys_array(keys).tobytes(), self.attempt)
            yield Block(
                id=identity,
                features=self.features,
                keys=keys,
                capacity=self.rows_per_block,
                attempt=self.attempt,
            )

    def parts(self) -> list[bytes | memoryview]:
        """The plan's file."""
        metadata = {
            "attempt": str(self.attempt),
            "features": canonical_json(list(self.features)).decode(),
            "recipe": self.recipe,
            "rows_per_block": str(self.rows_per_block),
            "schema": str(SCHEMA),
        }
        data = array_bytes(keys_array(self.keys))
        return file_parts({"key": ("U8", (len(self.keys), DIGEST_BYTES), data)}, metadata)


def publish_plan(storage: Storage, plan: Plan) -> str:
    """Write a plan; the name of its file."""
    parts = plan.parts()
    name = plan_name(plan.recipe, bytes_digest(b"".join(parts)))
    if not storage.exists(name):
        storage.put(name, parts)
    return name


def read_plan(storage: Storage, name: str) -> Plan:
    """The plan in a file. Raises DamageError, FileNotFoundError."""
    data = storage.read(name)
    infos, metadata = parse_header(data, len(data), name)
    try:
        info = infos["key"]
        plan = Plan(
            recipe=metadata["recipe"],
            features=tuple(json.loads(metadata["features"])),
            keys=tuple(keys_hex(np.frombuffer(data, np.uint8, info.size_bytes, info.offset).reshape(info.shape))),
            rows_per_block=int(metadata["rows_per_block"]),
            attempt=int(metadata["attempt"]),
        )
    except (KeyError, ValueError) as error:
        raise DamageError(f"{name} is damaged: {error}") from error
    if plan_name(plan.recipe, bytes_digest(data)) != name:
        raise DamageError(f"{name} is damaged: its bytes do not match its name")
    return plan


def open_plans(storage: Storage, recipe: str) -> dict[str, Plan]:
    """Plans that earlier builds of a recipe left unfinished, by file. A damaged one is removed: it is only a plan."""
    plans = {}
    for name in storage.list(f"{PLANS}/{recipe}"):
        try:
            plans[name] = read_plan(storage, name)
        except DamageError:
            storage.delete(name)
        except FileNotFoundError:  # another builder has just finished it
            continue
    return plans


def unfinished(storage: Storage, plan: Plan) -> list[Block]:
    """The plan's blocks that have no manifest yet."""
    return [block for block in plan.blocks() if not storage.exists(manifest_name(plan.recipe, block.id))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """A sample that lacks features."""

    key: str
    """The sample's key."""
    features: tuple[str, ...]
    """The digests that it lacks, sorted."""
    attempt: int
    """How often it has failed with them before."""


def make_plans(recipe: str, wants: Sequence[Want], rows_per_block: int) -> list[Plan]:
    """Plans for `wants` in their order: one for each set of lacking features and number of attempts."""
    groups: dict[tuple[tuple[str, ...], int], list[str]] = {}
    for want in wants:
        groups.setdefault((want.features, want.attempt), []).append(want.key)
    return [
        Plan(recipe=recipe, features=features, keys=tuple(keys), rows_per_block=rows_per_block, attempt=attempt)
        for (features, attempt), keys in groups.items()
    ]
