"""Options that commands share, and what they mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .builder.request import BuildOptions, EncoderRequest
    from .cache import Cache
    from .store.storage import LocalStorage

Sources = Annotated[
    list[str], typer.Argument(metavar="SOURCE…", help="Folders or tar shards; SPLIT=PATH sets a split.")
]
CacheDir = Annotated[str, typer.Option("--cache", metavar="DIR", help="The cache's folder.")]
Encoder = Annotated[str, typer.Option(metavar="NAME|PATH.py:FACTORY", help="An installed encoder, or your own file.")]
Weights = Annotated[str | None, typer.Option(metavar="FILE|DIR|random:SEED", help="Weights (safetensors).")]
Layers = Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Layers; repeat, or separate by commas.")]
Pool = Annotated[str | None, typer.Option(metavar="cls|mean|tokens", help="Pooling over tokens or space.")]
Size = Annotated[int | None, typer.Option(metavar="PX", help="Frame size; the encoder's own by default.")]
Fit = Annotated[str | None, typer.Option(metavar="crop|squash|pad", help="How a frame is made square.")]
ComputeDtype = Annotated[str, typer.Option(metavar="fp32|bf16|fp16", help="Below fp32 under autocast.")]
StoreDtype = Annotated[str, typer.Option(metavar="bf16|fp16|fp32", help="How rows are stored.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
BatchSize = Annotated[int | None, typer.Option(help="Samples in a batch; halved when memory runs out.")]
Workers = Annotated[int | None, typer.Option(help="Threads that read and decode; all cores by default.")]
ShardMib = Annotated[float, typer.Option(metavar="MIB", help="About how large a shard becomes.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try permanent failures again too.")]
Rehash = Annotated[bool, typer.Option("--rehash", help="Read every file anew, whatever its times say.")]
Json = Annotated[str | None, typer.Option(metavar="PATH", help="Write the result as JSON; - for standard output.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on standard error.")]


def open_cache_at(path: str, *, create: bool = False) -> Cache:
    """The cache in a folder, which `create` makes one."""
    from .cache import open_cache

    return open_cache(path, create=create)


def open_damaged_at(path: str) -> LocalStorage:
    """A cache's storage, for commands to which a damaged or missing marker is damage like any other."""
    from .errors import DamageError
    from .store.storage import LocalStorage

    try:
        return open_cache_at(path).storage
    except DamageError:
        return LocalStorage(path)


def encoder_request(
    encoder: str,
    weights: str | None,
    layers: list[str] | None,
    pool: str | None,
    size: int | None,
    fit: str | None,
    compute_dtype: str,
    store_dtype: str,
) -> EncoderRequest:
    """What the encoder's options mean; layer globs may be separated by commas too."""
    from .builder.request import EncoderRequest

    globs = tuple(glob.strip() for text in layers or [] for glob in text.split(",") if glob.strip())
    return EncoderRequest(
        encoder=encoder,
        weights=weights,
        layers=globs,
        pool=pool,
        size=size,
        fit=fit,
        compute_dtype=compute_dtype,
        store_dtype=store_dtype,
    )


def build_options(*, shard_mib: float = 64, **values: Any) -> BuildOptions:
    """What the build's options mean."""
    from .builder.request import BuildOptions
    from .errors import UsageError

    if not math.isfinite(shard_mib):
        raise UsageError(f"shard size of {shard_mib} MiB is out of range; expected at least 0.001")
    return BuildOptions(shard_bytes=int(shard_mib * 2**20), **values)
