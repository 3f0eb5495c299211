"""Looking at the quality of cached features: no label is read, no head is fitted."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import psutil
import torch

from fovcache.builder.numerics import numerics_id
from fovcache.builder.progress import OnProgress, Progress, silent
from fovcache.builder.request import pick_device
from fovcache.cache import open_cache
from fovcache.console import human_bytes
from fovcache.derived.arithmetic import full_precision
from fovcache.errors import EnvironmentFailure, UsageError
from fovcache.extract.taps import is_out_of_memory

from .cka import MIN_VECTORS as MIN_CKA_VECTORS
from .cka import cka
from .input import QualityInput, open_input
from .measure import DEFINITIONS, measure
from .reading import matrix_shape, read_vectors
from .request import QualityRequest
from .result import LayerQuality, Numbers, Quality
from .vectors import Vectors, vectors
from .verdict import RULE, verdict

_SHARE = 0.8
"""Of the memory that is free, how much may be taken."""
_ROUNDINGS = {"bf16": 2.0**-8, "fp16": 2.0**-11, "fp32": 2.0**-24}
"""Half a step of each dtype, relative to the number."""
_TWIN = " of the twin"

Similar: TypeAlias = Mapping[tuple[int, int], float | None]
"""CKA by places among layers and twins."""


def run_quality(
    path: str | os.PathLike[str],
    request: QualityRequest,
    on_progress: OnProgress = silent,
    *,
    environment: Mapping[str, Any] | None = None,
) -> Quality:
    """Look at the layers of the cache in the folder `path` that `request` names, and at their random twins.

    `environment` says what it ran on; None for what the library knows of that. Raises UsageError and its kin for what
    cannot be done as asked; DamageError; EnvironmentFailure when the machine fails.
    """
    started = time.perf_counter()
    device = pick_device(request.device)
    device = torch.device("cpu") if device.type == "mps" else device  # which has no float64
    given = open_input(open_cache(path, create=False), request, os.fspath(path))
    _check_memory(given, request)
    try:
        with full_precision(device):
            sets, numbers, similar = _measured(given, request, device, on_progress)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise EnvironmentFailure(
            f"{len(given.samples):,} samples ran out of memory on {device}: choose another --device or fewer "
            "--max-samples"
        ) from error
    num_layers, feature = len(given.features), next(iter(given.features.values())).feature
    return Quality(
        cache=os.fspath(path),
        dataset=given.ref.name,
        dataset_digest=given.ref.dataset,
        split=request.split,
        encoder=str(given.layers.recipe["extractor"].get("name", "")),
        weights=given.weights,
        pool=feature.pool,
        store_dtype=feature.dtype,
        recipe=feature.recipe,
        num_samples=len(given.samples),
        num_available=given.samples.num_available,
        num_missing=given.samples.num_missing,
        num_distinct=given.samples.num_distinct,
        vectors=_vectors_in_words(given, request),
        seed=request.seed,
        layers=tuple(_layer(given, request, layer, numbers, similar) for layer in given.features),
        cka=tuple(
            tuple(similar[min(one, other), max(one, other)] for other in range(num_layers)) for one in range(num_layers)
        ),
        twin_weights=given.twin_weights,
        twin_recipe=next((each.feature.recipe for each in given.twins.values()), None),
        twin_advice=given.twin_advice,
        definitions={**DEFINITIONS, "verdict": RULE},
        environment=environment or numerics_id(device, {}),
        seconds=time.perf_counter() - started,
        warnings=(*given.warnings, *_warnings(sets)),
    )


def _measured(
    given: QualityInput, request: QualityRequest, device: torch.device, on_progress: OnProgress
) -> tuple[dict[str, Vectors], dict[str, Numbers], Similar]:
    """Vectors and numbers by layer, and those of twins; and how alike these are."""
    num_layers, num_twins = len(given.features), len(given.twins)
    steps = _Steps(on_progress, 2 * num_layers + 4 * num_twins + num_layers * (num_layers + 1) // 2)
    sets = _read(given, request, device, steps)
    numbers = {}
    for name, each in sets.items():
        steps.say(f"measure {name}")
        numbers[name] = measure(each, _rounding(given, request, name.removesuffix(_TWIN)))
        steps.done()
    return sets, numbers, _similar(given, sets, numbers, steps)


class _Steps:
    """Tells how far a run is."""

    def __init__(self, on_progress: OnProgress, total: int) -> None:
        self._on_progress, self._total = on_progress, total
        self._stage, self._num_done = "", 0

    def say(self, stage: str) -> None:
        self._stage = stage
        self._on_progress(Progress(stage=stage, done=self._num_done, total=self._total))

    def done(self) -> None:
        self._num_done += 1
        self.say(self._stage)


def _read(given: QualityInput, request: QualityRequest, device: torch.device, steps: _Steps) -> dict[str, Vectors]:
    """Layers in their order, then twins."""
    sets = {}
    every = {**given.features, **{f"{layer}{_TWIN}": each for layer, each in given.twins.items()}}
    for name, features in every.items():
        steps.say(f"read {name}")
        x_ND = read_vectors(features, given.layers.recipe, each_token=request.each_token)
        sets[name] = vectors(x_ND, f"layer {name}", device)
        steps.done()
    return sets


def _similar(
    given: QualityInput, sets: Mapping[str, Vectors], numbers: Mapping[str, Numbers], steps: _Steps
) -> Similar:
    """CKA by places in `sets`: of all layers, and of each with its twin. Rounding is like nothing."""
    names = list(sets)
    num_layers = len(given.features)
    pairs = [(one, other) for one in range(num_layers) for other in range(one, num_layers)]
    pairs += [(names.index(layer), names.index(f"{layer}{_TWIN}")) for layer in given.twins]
    steps.say("compare layers")
    found = cka(list(sets.values()), pairs, on_pair=steps.done)
    constant = {place for place, name in enumerate(names) if numbers[name].num_constant == numbers[name].num_dimensions}
    return {pair: None if constant & set(pair) else value for pair, value in found.items()}


def _layer(
    given: QualityInput,
    request: QualityRequest,
    layer: str,
    numbers: Mapping[str, Numbers],
    similar: Similar,
) -> LayerQuality:
    features, names = given.features[layer], list(numbers)
    twin = f"{layer}{_TWIN}"
    kind, reason = verdict(numbers[layer])
    return LayerQuality(
        layer=layer,
        feature=features.feature.digest,
        row_shape=features.row_shape,
        num_averaged=_num_averaged(given, request, layer),
        numbers=numbers[layer],
        verdict=kind,
        reason=reason,
        twin=numbers.get(twin),
        cka_with_twin=similar[names.index(layer), names.index(twin)] if twin in numbers else None,
    )


def _num_averaged(given: QualityInput, request: QualityRequest, layer: str) -> int:
    return 1 if request.each_token else given.num_tokens[layer]


def _rounding(given: QualityInput, request: QualityRequest, layer: str) -> float:
    """Half a step, relative, and less in a mean: its roundings are independent, about."""
    return _ROUNDINGS[given.features[layer].feature.dtype] / math.sqrt(_num_averaged(given, request, layer))


def _vectors_in_words(given: QualityInput, request: QualityRequest) -> str:
    if request.each_token:
        return (
            "each token, place or frame of a sample; these are alike, so that a Gaussian's independent ones are a "
            "strict measure"
        )
    if max(given.num_tokens.values()) > 1:
        return "one a sample: the mean of its row's tokens, places and frames"
    return "one a sample: its row as it is"


def _warnings(sets: Mapping[str, Vectors]) -> list[str]:
    num = len(next(iter(sets.values())))
    return [] if num >= MIN_CKA_VECTORS else [f"{num} vectors have no debiased CKA: it takes {MIN_CKA_VECTORS}"]


def _check_memory(given: QualityInput, request: QualityRequest) -> None:
    """Raise UsageError where vectors and the largest matrix of products do not fit, before anything is read."""
    sizes = [_size(given, request, layer) for layer in (*given.features, *given.twins)]
    needed = _needed(sizes)
    free = _SHARE * psutil.virtual_memory().available
    if needed > free:
        raise UsageError(
            f"{len(sizes)} layers of {max(num for num, _ in sizes):,} vectors take about {human_bytes(needed)}, of "
            f"which {human_bytes(free)} are free: take fewer samples (--max-samples) or layers (--layers)"
        )


def _size(given: QualityInput, request: QualityRequest, layer: str) -> tuple[int, int]:
    """(N, D)."""
    num_tokens, num_channels = matrix_shape(given.features[layer], given.layers.recipe)
    return len(given.samples) * (num_tokens if request.each_token else 1), num_channels


def _needed(sizes: Sequence[tuple[int, int]]) -> int:
    """Bytes, about: all vectors as float32, those of one layer once more, and three matrices of products."""
    held = sum(4 * num * width for num, width in sizes)
    return held + max(4 * num * width + 3 * 8 * min(num, width) ** 2 for num, width in sizes) + (256 << 20)
