"""Verifying: every byte of the cache against its digests, and on request rows against a new computation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from ..builder.progress import OnProgress, Progress, silent
from ..builder.request import available_cores
from ..errors import DamageError
from ..store import layout
from ..store.dataset import read_table
from ..store.documents import read_keyed
from ..store.manifest import Manifest, manifest_names, read_manifest
from ..store.marker import marker_bytes
from ..store.refs import read_ref
from ..store.shard import read_shard_header, shard_damage
from ..store.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One file that is not what was written."""

    file: str
    """Its name in the cache."""
    problem: str
    """What is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What `verify` found."""

    files: int
    """Files that were read."""
    size_bytes: int
    """Bytes of the shards that the cache's rows lie in."""
    damaged: tuple[Damage, ...]
    """Files that are damaged or missing, by name."""
    recomputed: dict[str, Any] | None = None
    """With `--recompute`: see `RecomputeReport`."""

    @property
    def exit_status(self) -> int:
        """0, or 1 when anything is damaged or differs."""
        differs = self.recomputed is not None and not self.recomputed["within_tolerance"]
        return 1 if self.damaged or differs else 0

    def document(self) -> dict[str, Any]:
        """As `--json` writes it."""
        return asdict(self)


def verify(storage: Storage, on_progress: OnProgress = silent) -> VerifyReport:
    """Read every file of the cache and compare it with its digest.

    Every file counts but those that are derived (index, memo) or of the moment (leases, temporary files):
    they are checked when they are used, and made anew.
    """
    checks = list(_checks(storage))
    manifests: list[Manifest] = []
    damaged: list[Damage] = []
    for name, check in checks:
        damaged += _run(name, check)
    for name in manifest_names(storage):
        try:
            manifests.append(read_manifest(storage, name))
        except FileNotFoundError:  # collected since it was listed
            continue
        except (DamageError, OSError) as error:
            damaged.append(Damage(file=name, problem=str(error)))
    damaged += _missing_documents(storage, manifests, {item.file for item in damaged})
    expected = {layout.shard_name(m.recipe, s.digest): (m, s.size_bytes) for m in manifests for s in m.shards}
    present = set(storage.list(layout.SHARDS))
    names = sorted(present | expected.keys())
    with ThreadPoolExecutor(available_cores()) as pool:
        for done, problem in enumerate(pool.map(lambda name: _shard_problem(storage, name, expected.get(name)), names)):
            on_progress(Progress(stage="verify", done=done + 1, total=len(names)))
            if problem is not None:
                damaged.append(Damage(file=names[done], problem=problem))
    return VerifyReport(
        files=len(checks) + len(manifests) + len(names),
        size_bytes=sum(size_bytes for _, size_bytes in expected.values()),
        damaged=tuple(sorted(damaged, key=lambda item: item.file)),
    )


def _checks(storage: Storage) -> Iterator[tuple[str, Callable[[], object]]]:
    yield layout.MARKER, lambda: _check_marker(storage)
    for folder in (layout.RECIPES, layout.FEATURES):
        for name in storage.list(folder):
            yield name, lambda name=name: read_keyed(storage, name, layout.stem(name))  # type: ignore[misc]
    for name in storage.list(layout.DATASETS):
        yield name, lambda name=name: read_table(storage, layout.stem(name))  # type: ignore[misc]
    for name in storage.list(layout.REFS):
        yield name, lambda name=name: read_ref(storage, name)  # type: ignore[misc]
    for name in storage.list(layout.PLANS):
        yield name, lambda name=name: _check_plan(storage, name)  # type: ignore[misc]


def _run(name: str, check: Callable[[], object]) -> list[Damage]:
    try:
        check()
    except FileNotFoundError:
        # Any other file was there when the folder was listed: another process has done with it.
        return [Damage(file=name, problem="it is missing")] if name == layout.MARKER else []
    except (DamageError, OSError, ValueError, KeyError) as error:
        return [Damage(file=name, problem=str(error))]
    return []


def _check_marker(storage: Storage) -> None:
    if storage.read(layout.MARKER) != marker_bytes():
        raise DamageError(f"{layout.MARKER} is damaged")


def _check_plan(storage: Storage, name: str) -> None:
    from ..builder.plan import read_plan

    read_plan(storage, name)


def _missing_documents(storage: Storage, manifests: list[Manifest], known: set[str]) -> Iterator[Damage]:
    """Documents that manifests and refs point to and that are gone."""
    needed = {layout.recipe_name(manifest.recipe) for manifest in manifests}
    needed |= {layout.feature_name(feature) for manifest in manifests for feature in manifest.features}
    for name in storage.list(layout.REFS):
        try:
            needed.add(layout.dataset_name(read_ref(storage, name).dataset))
        except (DamageError, OSError):
            continue
    for name in sorted(needed - known):
        if not storage.exists(name):
            yield Damage(file=name, problem="it is missing")


def _shard_problem(storage: Storage, name: str, expected: tuple[Manifest, int] | None) -> str | None:
    problem = shard_damage(storage, name)
    if not storage.exists(name):  # nobody misses it, or it was collected, with its manifest, since it was listed
        is_needed = expected is not None and storage.exists(layout.manifest_name(expected[0].recipe, expected[0].block))
        return problem if is_needed else None
    if problem is None and expected is not None:
        manifest, _ = expected
        header = read_shard_header(storage, name)
        if (header.block, header.features) != (manifest.block, manifest.features):
            return f"it is not of block {manifest.block}"
    return problem
