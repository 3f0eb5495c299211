"""Options that commands share, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .builder.encoders import Encoders
    from .builder.request import BuildOptions, EncoderRequest
    from .cache import Cache
    from .store.storage import LocalStorage

MAX_MEGAPIXELS = 100.0

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE…",
        help="Folders, tar shards, manifests (.csv .jsonl .parquet), URL lists (.txt) or URLs; SPLIT=… sets a split.",
    ),
]
CacheDir = Annotated[str, typer.Option("--cache", metavar="DIR", help="The cache's folder.")]
Encoder = Annotated[str, typer.Option(metavar="NAME|PATH.py:FACTORY", help="An installed encoder, or your own file.")]
EncoderNames = Annotated[
    list[str],
    typer.Option(
        "--encoder",
        metavar="NAME|PATH.py:FACTORY",
        help="An installed encoder, or your own file; repeat, and one decode feeds them all. What follows then holds "
        "for all, or as NAME=VALUE for one.",
    ),
]
Weights = Annotated[
    str | None, typer.Option(metavar="DIR|HUB_ID|random:SEED", help="Weights (safetensors); the published by default.")
]
WeightsOfEach = Annotated[
    list[str] | None,
    typer.Option(
        "--weights", metavar="DIR|HUB_ID|random:SEED", help="Weights (safetensors); the published by default."
    ),
]
PoolOfEach = Annotated[
    list[str] | None,
    typer.Option("--pool", metavar="cls|mean|tokens", help="Pooling over tokens or space."),
]
PosteriorOfEach = Annotated[
    list[str] | None,
    typer.Option("--posterior", metavar="mean|mean+logvar|sample:SEED", help="What is kept of a VAE's posterior."),
]
Posterior = Annotated[
    str | None, typer.Option(metavar="mean|mean+logvar|sample:SEED", help="What is kept of a VAE's posterior.")
]
Layers = Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Layers; repeat, or separate by commas.")]
Pool = Annotated[str | None, typer.Option(metavar="cls|mean|tokens", help="Pooling over tokens or space.")]
Size = Annotated[int | None, typer.Option(metavar="PX", help="Frame size; the encoder's own by default.")]
Fit = Annotated[str | None, typer.Option(metavar="crop|squash|pad", help="How a frame is made square.")]
Frames = Annotated[int | None, typer.Option(metavar="N", help="Frames of a clip, spread evenly; 8 by default.")]
Fps = Annotated[float | None, typer.Option(metavar="RATE", help="Frames a second of a clip, instead of --frames.")]
Decoder = Annotated[str, typer.Option(metavar="pyav|ffmpeg", help="What decodes videos.")]
IsolateDecode = Annotated[
    bool, typer.Option("--isolate-decode", help="Decode in processes that can be killed: for input you do not trust.")
]
DecodeTimeout = Annotated[float, typer.Option(metavar="S", help="A sample that takes longer to decode fails.")]
MaxMegapixels = Annotated[float, typer.Option(metavar="MP", help="Larger frames are refused.")]
MaxHours = Annotated[float, typer.Option(metavar="H", help="Longer videos are refused.")]
Downloads = Annotated[int, typer.Option(metavar="N", help="Downloads at a time.")]
Retries = Annotated[int, typer.Option(metavar="N", help="How often a download is tried again.")]
FetchTimeout = Annotated[float, typer.Option(metavar="S", help="How long a server may be silent.")]
MaxFileMib = Annotated[float, typer.Option(metavar="MIB", help="Larger downloads are refused.")]
ScratchGb = Annotated[float, typer.Option(metavar="GB", help="Downloads take at most this much disk at a time.")]
AllowFileUrls = Annotated[
    bool, typer.Option("--allow-file-urls", help="Let manifests and URL lists name local files by file: URLs.")
]
ComputeDtype = Annotated[str, typer.Option(metavar="fp32|bf16|fp16", help="Below fp32 under autocast.")]
StoreDtype = Annotated[str, typer.Option(metavar="bf16|fp16|fp32", help="How rows are stored.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
BatchSize = Annotated[int | None, typer.Option(help="Samples in a batch; halved when memory runs out.")]
Workers = Annotated[int | None, typer.Option(help="Threads that read and decode; all cores by default.")]
ShardMib = Annotated[float, typer.Option(metavar="MIB", help="About how large a shard becomes.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try permanent failures again too.")]
Rehash = Annotated[bool, typer.Option("--rehash", help="Read every file anew, whatever its times say.")]
Derive = Annotated[
    list[str] | None,
    typer.Option("--derive", metavar="NAME", help="Also derive this representation of every layer built; repeat."),
]
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


_OF_ALL = ("size", "fit", "frames", "fps", "decoder", "compute_dtype", "store_dtype")


def encoder_request(options: Mapping[str, Any]) -> EncoderRequest:
    """What the options of one encoder mean, by their names; layer globs may be separated by commas too."""
    from .builder.request import EncoderRequest

    values = {name: options[name] for name in ("encoder", "weights", "pool", "posterior", *_OF_ALL)}
    return EncoderRequest(layers=globs(options["layers"]), **values)


def encoders_of(options: Mapping[str, Any]) -> Encoders:
    """What the options of several encoders mean, by their names; `NAME=VALUE` is for the encoder NAME alone."""
    from .builder.encoders import Encoders

    encoders = tuple(options["encoder"])
    layers = {name: globs(texts) for name, texts in _by_encoder(options["layers"], encoders).items()}
    single = {}
    for option in ("weights", "pool", "posterior"):
        given = _by_encoder(options[option], encoders)
        for name, values in given.items():
            if len(values) > 1:
                raise typer.BadParameter(f"--{option} is given more than once for {name or 'all encoders'}: {values}")
        single[option] = {name: values[0] for name, values in given.items()}
    return Encoders(encoders=encoders, layers=layers, common={name: options[name] for name in _OF_ALL}, **single)


def _by_encoder(texts: Sequence[str] | None, encoders: Sequence[str]) -> dict[str, list[str]]:
    """What was given for each encoder, and under the empty name for all of them."""
    found: dict[str, list[str]] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        for_one = bool(equals) and name in encoders
        found.setdefault(name if for_one else "", []).append(value if for_one else text)
    return found


def globs(texts: Sequence[str] | None) -> tuple[str, ...]:
    """What `--layers` was given, which may be repeated, and separated by commas."""
    return tuple(glob.strip() for text in texts or () for glob in text.split(",") if glob.strip())


def build_options(
    *,
    shard_mib: float = 64,
    max_megapixels: float = MAX_MEGAPIXELS,
    max_hours: float = 24,
    fetch: Mapping[str, Any] = {},
    **values: Any,
) -> BuildOptions:
    """What the build's options mean; `fetch` are fields of FetchOptions."""
    from .builder.request import BuildOptions
    from .decode.limits import Limits
    from .fetch.options import FetchOptions

    return BuildOptions(
        shard_bytes=_whole("shard size", shard_mib, "MiB", 2**20),
        limits=Limits(
            max_pixels=_whole("limit of pixels", max_megapixels, "megapixels", 1e6), max_duration_s=max_hours * 3600
        ),
        fetch=FetchOptions(**fetch),
        **values,
    )


def fetch_options(
    downloads: int, retries: int, fetch_timeout: float, max_file_mib: float, scratch_gb: float
) -> dict[str, Any]:
    """What the options of downloads mean, as fields of FetchOptions."""
    return {
        "concurrency": downloads,
        "retries": retries,
        "connect_timeout_s": min(10.0, fetch_timeout),
        "read_timeout_s": fetch_timeout,
        "max_file_bytes": _whole("limit of a download", max_file_mib, "MiB", 2**20),
        "scratch_bytes": _whole("scratch folder", scratch_gb, "GB", 1e9),
    }


def _whole(what: str, value: float, unit: str, ones: float) -> int:
    """So many ones, as a whole number. Raises UsageError for what is no number."""
    from .errors import UsageError

    if not math.isfinite(value):
        raise UsageError(f"{what} of {value} {unit} is out of range; expected a number")
    return int(value * ones)
