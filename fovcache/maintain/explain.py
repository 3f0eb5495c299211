"""Explaining: why each sample would hit or miss, by the first field in which its key differs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..builder.captions import check_captions
from ..builder.finding import by_kind, find_samples
from ..builder.request import BuildOptions, EncoderRequest, Resolved, resolve
from ..builder.wants import stand
from ..keys.recipe import CAPTION, Feature, caption_key, differences
from ..store.manifest import Failure
from ..store.shard import keys_array
from ..store.storage import LocalStorage
from .catalog import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Why one sample hits or misses."""

    uri: str
    """Where it stands in its source."""
    state: str
    """`hit`, `miss` or `failed` (and not tried again)."""
    field: str
    """For a miss the first field that differs from the nearest cached feature; else empty."""
    cached: Any
    """That field in the cache."""
    asked: Any
    """That field as asked for."""
    reason: str
    """In words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainReport:
    """Why samples hit or miss."""

    samples: int
    """Samples in the sources, unreadable ones included."""
    hits: int
    """Samples that need no work."""
    misses: int
    """Samples that a build would compute."""
    failed: int
    """Samples that failed before and would not be tried again, or cannot be read."""
    recipe: str
    """The recipe's digest as asked for; of stills, where there are stills and clips."""
    verdicts: tuple[Verdict, ...]
    """One a sample."""

    def document(self) -> dict[str, Any]:
        """As `--json` writes it."""
        return asdict(self)

    def groups(self) -> list[tuple[int, Verdict]]:
        """Equal verdicts counted, the most frequent first, with one example each."""
        counted: dict[tuple[str, str, str], list[Verdict]] = {}
        for verdict in self.verdicts:
            counted.setdefault((verdict.state, verdict.field, verdict.reason), []).append(verdict)
        return sorted(((len(group), group[0]) for group in counted.values()), key=lambda item: -item[0])


def explain(
    storage: LocalStorage, sources: Sequence[str], request: EncoderRequest, options: BuildOptions
) -> ExplainReport:
    """Compare what a build of `sources` would ask for with what the cache holds. Runs no forward pass."""
    resolution = resolve(request, options.limits)
    with contextlib.ExitStack() as stack:
        scan, _ = find_samples(sources, resolution.suffixes, options, stack, storage=storage)
    check_captions(scan, (resolution,))
    catalog = Catalog(storage)
    reasons: dict[str, tuple[str, Any, Any, str]] = {}
    failed: dict[str, Failure] = {}
    kinds = by_kind(scan.found(), resolution)
    for resolved, keys in kinds:
        standing = stand(
            catalog.index(resolved.recipe.digest),
            keys,
            [feature.digest for feature in resolved.features],
            software=resolved.spec.software(),
            retry_failed=options.retry_failed,
        )
        reasons |= _miss_reasons(catalog, resolved, [want.key for want in standing.wants])
        failed |= standing.failed
    if resolution.is_of_captions:
        none = caption_key(None)
        failed[none] = Failure(key=none, stage="fetch", reason="it has no caption", permanent=True)
    captions = scan.found().captions if resolution.is_of_captions else {}
    keys_of = {caption.text: key for key, caption in captions.items()}
    verdicts = [
        _verdict(sample.uri, keys_of.get(sample.caption, sample.key), reasons, failed) for sample in scan.samples
    ]
    verdicts += [_unreadable(uri=item.uri, reason=item.reason) for item in scan.unreadable]
    verdicts += [_unknown(uri) for uri in scan.pending_uris]
    return ExplainReport(
        samples=len(verdicts),
        hits=sum(verdict.state == "hit" for verdict in verdicts),
        misses=sum(verdict.state == "miss" for verdict in verdicts),
        failed=sum(verdict.state == "failed" for verdict in verdicts),
        recipe=(kinds[0][0] if kinds else resolution.each[0]).recipe.digest,
        verdicts=tuple(verdicts),
    )


def _verdict(uri: str, key: str, reasons: dict[str, tuple[str, Any, Any, str]], failed: dict[str, Failure]) -> Verdict:
    if key in failed:
        reason = f"it failed in {failed[key].stage}: {failed[key].reason}; --retry-failed tries again"
        return Verdict(uri=uri, state="failed", field="", cached=None, asked=None, reason=reason)
    if key not in reasons:
        return Verdict(uri=uri, state="hit", field="", cached=None, asked=None, reason="cached")
    field, cached, asked, reason = reasons[key]
    return Verdict(uri=uri, state="miss", field=field, cached=cached, asked=asked, reason=reason)


def _unreadable(*, uri: str, reason: str) -> Verdict:
    return Verdict(uri=uri, state="failed", field="", cached=None, asked=None, reason=f"it cannot be read: {reason}")


def _unknown(uri: str) -> Verdict:
    reason = "not downloaded yet, or changed since: what it holds is not known"
    return Verdict(uri=uri, state="miss", field="sample", cached=None, asked=None, reason=reason)


def _miss_reasons(catalog: Catalog, resolved: Resolved, misses: list[str]) -> dict[str, tuple[str, Any, Any, str]]:
    """For each missing key the first field that differs from the nearest feature that the cache has of it."""
    reasons: dict[str, tuple[str, Any, Any, str]] = {}
    keys = keys_array(misses)
    asked = [_document(resolved.recipe.document, feature) for feature in resolved.features]
    candidates = []
    for feature in catalog.features:
        if catalog.representation(feature) is not None:  # no build computes it
            continue
        cached = _document(catalog.recipes[feature.recipe], feature)
        differing = min((differences(cached, document) for document in asked), key=len)
        candidates.append((differing, catalog.index(feature.recipe).lookup(feature.digest, keys)[0] >= 0))
    candidates.sort(key=lambda candidate: len(candidate[0]))
    open_keys = np.ones(len(misses), bool)
    for differing, has in candidates:
        for position in np.flatnonzero(open_keys & has).tolist():
            reasons[misses[position]] = _reason(differing)
        open_keys &= ~has
    new = ("sample", None, None, "new content: no feature of these bytes is in the cache")
    if resolved.spec.kind == CAPTION:
        new = ("caption", None, None, "a new or changed caption: no feature of this text is in the cache")
    return {key: reasons.get(key, new) for key in misses}


def _document(recipe: dict[str, Any] | Any, feature: Feature) -> dict[str, Any]:
    own = {"layer": feature.layer, "pool": feature.pool, "pool_time": feature.pool_time, "store_dtype": feature.dtype}
    return {**{key: value for key, value in recipe.items() if key != "kind"}, **own}


def _reason(differing: list[tuple[str, Any, Any]]) -> tuple[str, Any, Any, str]:
    if not differing:  # this very feature is cached, and another one that was asked for is not
        return "layer", None, None, "another of the layers asked for is not cached"
    field, cached, asked = differing[0]
    if field.startswith("extractor.source."):
        file = field.removeprefix("extractor.source.")
        return field, cached, asked, f"the source of {file} changed"
    others = [name for name, _, _ in differing[1:]]
    also = f"; also differs in {', '.join(others[:3])}{', …' if len(others) > 3 else ''}" if others else ""
    return field, cached, asked, f"{field} is {_short(asked)}, cached {_short(cached)}{also}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 16 else text[:12] + "…"
