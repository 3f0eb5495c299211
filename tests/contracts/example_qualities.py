"""Made results of feature quality for tests of reports: many layers with a twin, one without, and hostile names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fovcache.probes.quality.cka import cka
from fovcache.probes.quality.measure import DEFINITIONS, measure
from fovcache.probes.quality.result import LayerQuality, Quality
from fovcache.probes.quality.vectors import vectors
from fovcache.probes.quality.verdict import RULE, verdict


def made_quality(num_layers: int = 6, *, has_twin: bool = True, num: int = 120, width: int = 12) -> Quality:
    """Layers that have ever more directions, measured by the code itself; the first is constant where there are 5."""
    chance = np.random.default_rng(0)
    common = chance.standard_normal((num, width))
    xs, twins = [], []
    for place in range(num_layers):
        scale = np.exp(-np.arange(width) / (1 + 2 * place))
        xs.append((common + 0.2 * place * chance.standard_normal((num, width))) * scale + 1)
        twins.append(chance.standard_normal((num, width)) * np.exp(-np.arange(width) / 2) + 1)
    if num_layers >= 5:
        xs[0][:] = 1.0
    sets = [vectors(torch.from_numpy(x), "made") for x in (*xs, *twins)]
    pairs = [(one, other) for one in range(num_layers) for other in range(one, num_layers)]
    similar = cka(sets, [*pairs, *((place, num_layers + place) for place in range(num_layers))])
    layers = []
    for place in range(num_layers):
        numbers = measure(sets[place])
        kind, reason = verdict(numbers)
        layers.append(
            LayerQuality(
                layer=f"blocks.{place}",
                feature=f"{place:064x}",
                row_shape=(8, width),
                num_averaged=8,
                numbers=numbers,
                verdict=kind,
                reason=reason,
                twin=measure(sets[num_layers + place]) if has_twin else None,
                cka_with_twin=similar[place, num_layers + place] if has_twin else None,
            )
        )
    places = range(num_layers)
    return Quality(
        cache="features",
        dataset="digits",
        dataset_digest="ab" * 32,
        split=None,
        encoder="vit-tiny",
        weights="trained 0123456789ab",
        pool="cls",
        store_dtype="bf16",
        recipe="cd" * 32,
        num_samples=num,
        num_available=1200,
        num_missing=3,
        num_distinct=num,
        vectors="one a sample: the mean of its row's tokens, places and frames",
        seed=0,
        layers=tuple(layers),
        cka=tuple(tuple(similar[min(one, other), max(one, other)] for other in places) for one in places),
        twin_weights="random:0" if has_twin else None,
        twin_recipe="ef" * 32 if has_twin else None,
        twin_advice="" if has_twin else "a twin would show what the architecture alone gives: fovcache build clips",
        definitions={**DEFINITIONS, "verdict": RULE},
        environment={"cpu": "AMD EPYC 7B13", "cores": 4, "versions": {"torch": "2.13.0"}},
        seconds=1.5,
        warnings=("3 of 1203 samples lack a layer and are left out everywhere",),
    )


def hostile_quality(text: str) -> Quality:
    """`text` in place of every text that comes from files."""
    quality = made_quality(3)
    names = ("cache", "dataset", "dataset_digest", "split", "encoder", "weights", "pool", "store_dtype", "recipe",
             "vectors", "twin_weights", "twin_recipe", "twin_advice")  # fmt: skip
    return replace(
        quality,
        layers=tuple(
            replace(each, layer=f"{text}{place}", feature=text, reason=text, verdict="collapsed")
            for place, each in enumerate(quality.layers)
        ),
        definitions={text: text},
        environment={text: text, "nested": {text: [text]}},
        warnings=(text,),
        **dict.fromkeys(names, text),
    )
