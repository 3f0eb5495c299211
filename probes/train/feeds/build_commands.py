"""The command lines that build what a training run lacks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fovcache.keys.recipe import Feature
from fovcache.maintain.catalog import Catalog
from fovcache.store.refs import DatasetRef

_SHARED = ("frames", "fps")
"""What all features of a clip must have in common."""
_OPTIONS = ("encoder", "weights", "size", "fit", "frames", "fps", "decoder", "posterior", "compute_dtype")
_USUAL = {"decoder": "pyav", "compute_dtype": "float32", "store_dtype": "bf16"}


def recorded_provenance(catalog: Catalog, feature: Feature) -> Mapping[str, Any]:
    """Of a block that holds the feature; empty where there is none."""
    manifests = catalog.index(feature.recipe).manifests
    return next((each.provenance for each in reversed(manifests) if feature.digest in each.features), {})


def _request(catalog: Catalog, feature: Feature) -> Mapping[str, Any]:
    """What a build of the feature was asked for; empty where no block says."""
    found: Mapping[str, Any] = recorded_provenance(catalog, feature).get("request", {})
    return found


def command_again(catalog: Catalog, ref: DatasetRef, cache: Path, features: Sequence[Feature]) -> str:
    """What builds these features of one recipe for the samples that lack them."""
    request = _request(catalog, features[0]) or {"encoder": catalog.encoder(features[0])}
    asked = {name: request.get(name) for name in _OPTIONS}
    return _command(
        ref, cache, {**asked, "pool": features[0].pool, "store_dtype": features[0].dtype}, [f.layer for f in features]
    )


def command_anew(
    catalog: Catalog, ref: DatasetRef, cache: Path, wanted: Mapping[str, str | None], layers: Sequence[str]
) -> str:
    """What builds layers of an encoder as they are wanted (encoder, weights, pool, store_dtype), with as many frames
    as the dataset's other features have."""
    others = [_request(catalog, feature) for feature in catalog.features]
    shared = {name: next((each[name] for each in others if each.get(name) is not None), None) for name in _SHARED}
    return _command(ref, cache, {"encoder": "ENCODER", **shared, **{k: v for k, v in wanted.items() if v}}, layers)


def _command(ref: DatasetRef, cache: Path, options: Mapping[str, Any], layers: Sequence[str]) -> str:
    words = ["fovcache", "build", *(ref.sources or ("SOURCE",)), "--cache", str(cache)]
    for name, value in options.items():
        if value is not None and _USUAL.get(name) != value:
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--layers", ",".join(layers)] if layers else []
    return shlex.join([*words, "--dataset", ref.name])
