"""The configuration files of the demo's ablations, for people to copy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from .own_encoder_step import FILE
from .setting import VAE, VIT

_TEXT = """\
# What `fovbench ablate` reads. A representation turns each layer's matrix (the tokens of all frames × channels) into a
# few numbers; a linear head reads the labels out of those of an experiment's layers.
cache = "cache"  # relative to this file
dataset = {dataset}
seeds = {seeds}  # so many splits; all clips of a source digit are on one side
representations = {representations}
single_layers = {single_layers}  # also each layer by itself: the report's heat map

[encoders.vit]
encoder = "{vit}"

[encoders.vae]
encoder = "{vae}"

[encoders.own]
encoder = "{own}:make"
recipe = {recipe}  # as the file is, whatever edits of it are cached too

[experiments]  # globs of layers
{experiments}

[controls]
shuffled_labels = true  # labels that say nothing: this must come out at chance
random_layers = {random_layers}  # as many layers, drawn at random
"""


def ablation_config(
    *,
    dataset: str,
    seeds: int,
    representations: Sequence[str],
    experiments: Mapping[str, Sequence[str]],
    own_recipe: str,
    single_layers: bool = True,
    random_layers: bool = True,
) -> str:
    """A TOML file; `own_recipe` is the digest of the example encoder's recipe."""
    return _TEXT.format(
        dataset=json.dumps(dataset),
        seeds=seeds,
        representations=json.dumps(list(representations)),
        single_layers=json.dumps(single_layers),
        random_layers=json.dumps(random_layers),
        experiments="\n".join(f"{name} = {json.dumps(list(globs))}" for name, globs in experiments.items()),
        own=FILE,
        recipe=json.dumps(own_recipe[:16]),
        vae=VAE,
        vit=VIT,
    )
