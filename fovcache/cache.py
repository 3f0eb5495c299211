"""A cache: datasets, recipes, features, and everything that is done with them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CacheFormatError, DamageError
from .store.layout import MARKER
from .store.manifest import manifest_names
from .store.marker import check_marker, is_empty_folder
from .store.storage import LocalStorage

if TYPE_CHECKING:
    from .builder.progress import OnProgress
    from .builder.report import BuildReport
    from .loaders.feature_set import FeatureSet
    from .loaders.joined import JoinedSet


class Cache:
    """A folder that holds computed features. Open one with `fovcache.open`."""

    def __init__(self, storage: LocalStorage) -> None:
        self.storage = storage

    def __repr__(self) -> str:
        return f"Cache({str(self.storage.root)!r})"

    def build(
        self,
        sources: str | Sequence[str],
        *,
        encoder: str | Sequence[str],
        weights: str | Mapping[str, str] | None = None,
        layers: Sequence[str] | Mapping[str, Sequence[str]] = (),
        pool: str | Mapping[str, str] | None = None,
        posterior: str | Mapping[str, str] | None = None,
        size: int | None = None,
        fit: str | None = None,
        frames: int | None = None,
        fps: float | None = None,
        decoder: str = "pyav",
        compute_dtype: str = "float32",
        store_dtype: str = "bf16",
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> BuildReport:
        """Compute what is missing of `layers` of `encoder` over `sources`, and name the dataset.

        Several encoders share one decode; `weights`, `layers`, `pool` and `posterior` then say what holds for each, by
        its name, or for all: layer globs go to the encoders that have such layers, `random:SEED` to every one.
        A video gives `frames` frames spread evenly (8), or `fps` a second, and rows `[frames, …]`; an image `[…]`.
        `options` are the fields of `fovcache.builder.request.BuildOptions`: dataset, device, batch_size, num_workers,
        shard_bytes, retry_failed, rehash, isolate_decode, limits, fetch and others. Raises UsageError and its kin for
        what cannot be done as asked, EnvironmentFailure when the machine fails. Samples that fail are in the report,
        not raised.
        """
        from .builder.encoders import ALL, Encoders
        from .builder.progress import silent
        from .builder.request import BuildOptions
        from .builder.run import run_build

        def by_name(value: Any) -> Mapping[str, Any]:
            return value if isinstance(value, Mapping) else {} if value is None else {ALL: value}

        encoders = Encoders(
            encoders=(encoder,) if isinstance(encoder, str) else tuple(encoder),
            weights=by_name(weights),
            layers=by_name(layers),
            pool=by_name(pool),
            posterior=by_name(posterior),
            common={
                "size": size,
                "fit": fit,
                "frames": frames,
                "fps": fps,
                "decoder": decoder,
                "compute_dtype": compute_dtype,
                "store_dtype": store_dtype,
            },
        )
        texts = [sources] if isinstance(sources, str) else list(sources)
        return run_build(self.storage, texts, encoders, BuildOptions(**options), on_progress or silent)

    def features(
        self,
        *,
        layer: str | None = None,
        encoder: str | None = None,
        dataset: str | None = None,
        split: str | None = None,
        pool: str | None = None,
        store_dtype: str | None = None,
        recipe: str | None = None,
        representation: str | None = None,
        weights: str | None = None,
        strict: bool = False,
    ) -> FeatureSet:
        """The rows of one feature for one dataset; name only what makes the answer unique.

        `dataset` is a name (the newest of it) or a digest, `encoder` a name or `PATH.py:FACTORY` and `weights` what
        its build was given (the folders of paths do not matter), `recipe` the beginning of a digest. With
        `representation` it is a derived feature, see `derive`, and `encoder`, `weights`, `pool` and `store_dtype`
        speak of the feature that it was derived from. `strict` refuses rows that were computed under different
        numerics instead of warning. Raises SelectionError when nothing or more than one thing fits.
        """
        from .loaders.select import select_features

        return select_features(
            self.storage,
            layer=layer,
            encoder=encoder,
            dataset=dataset,
            split=split,
            pool=pool,
            store_dtype=store_dtype,
            recipe=recipe,
            representation=representation,
            weights=weights,
            strict=strict,
        )

    def derive(
        self,
        features: FeatureSet,
        representation: str,
        *,
        device: str = "auto",
        on_progress: OnProgress | None = None,
        **parameters: Any,
    ) -> FeatureSet:
        """A representation of `features`, float32 `[samples, F]`: what the cache lacks of it is computed and kept.

        Each row becomes a matrix, tokens × channels, and the matrix becomes `F` numbers; `parameters` are the
        representation's. Whole shards of the input are computed, also where `features` is a part of them. Samples and
        order are those of `features`; a sample whose numbers are not finite has no row and is counted in `num_failed`.
        `Cache.features(representation=…)` reads the rows back.

        Raises UsageError for an unknown representation, for parameters that it does not take, and for features that
        are derived themselves; DamageError when rows are not what was written; EnvironmentFailure.
        """
        from .builder.progress import silent
        from .derived.derive import derive
        from .derived.representation import resolve_representation

        resolved = resolve_representation(representation, parameters)
        return derive(self.storage, features, resolved, device=device, on_progress=on_progress or silent).features

    def join(self, *, missing: str = "error", **sets: FeatureSet) -> JoinedSet:
        """Feature sets of the same samples as one, with a name each.

        `missing` says what happens to samples that some set lacks: `error`, or `drop`. Raises SelectionError.
        """
        from .loaders.joined import join_sets

        return join_sets(sets, missing=missing)


def open_cache(path: str | os.PathLike[str], *, create: bool = True) -> Cache:
    """Open the cache in a folder; an empty or absent folder becomes one when a build first writes to it.

    Without `create` there must be a cache.

    Raises CacheFormatError when the folder holds something else, or a cache of a newer schema, DamageError when its
    marker is damaged or gone.
    """
    text = os.fspath(path)
    if "://" in text:
        raise CacheFormatError(f"cache {text!r}: this version keeps caches in folders; buckets are not supported yet")
    root = Path(text)
    if not text:
        raise CacheFormatError("the cache's path is empty, expected a folder")
    if root.exists() and not root.is_dir():
        raise CacheFormatError(f"cache {text} is a file, expected a folder")
    storage = LocalStorage(root)
    is_empty = is_empty_folder(storage)  # asked first: another builder may be making the cache just now
    if storage.exists(MARKER):
        check_marker(storage)
    elif next(manifest_names(storage), None) is not None:
        raise DamageError(f"{storage.path(MARKER)} is missing; `fovcache repair` restores it")
    elif not is_empty:
        raise CacheFormatError(f"{text} is not a cache: it has files but no {MARKER}; choose an empty or new folder")
    elif not create:
        raise CacheFormatError(f"there is no cache in {text}; `fovcache build` makes one")
    return Cache(storage)
