"""The options of `fovbench quality`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CacheArgument = Annotated[str, typer.Argument(metavar="CACHE", help="The cache's folder.")]
Dataset = Annotated[str | None, typer.Option(metavar="NAME", help="Its name or digest; the only one by default.")]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Its samples alone; all by default.")]
EncoderOfFeatures = Annotated[
    str | None, typer.Option(metavar="NAME|PATH.py:FACTORY", help="Whose features; the only one's by default.")
]
WeightsOfFeatures = Annotated[
    str | None, typer.Option(metavar="DIR|HUB_ID|random:SEED", help="As the build was given them.")
]
PoolOfFeatures = Annotated[str | None, typer.Option(metavar="cls|mean|tokens", help="Pooling of the features.")]
DtypeOfFeatures = Annotated[str | None, typer.Option(metavar="bf16|fp16|fp32", help="How the rows are stored.")]
Recipe = Annotated[str | None, typer.Option(metavar="DIGEST", help="The beginning of the recipe's.")]
Tokens = Annotated[
    bool, typer.Option("--tokens", help="Take each token, place or frame for a vector, not a sample's mean.")
]
MaxSamples = Annotated[
    int, typer.Option(metavar="N", help="Of more, so many are drawn by content; with --tokens so many vectors.")
]
DrawSeed = Annotated[int, typer.Option(metavar="N", help="Decides which are drawn.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Also write quality.json and quality.md there.")]
