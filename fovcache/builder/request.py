"""What a build is asked for, and the recipe and features that this means."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..decode.limits import Limits
from ..decode.sampling import Sampling
from ..errors import EncoderError, EnvironmentFailure, UsageError
from ..extract.clips import ClipInput
from ..extract.extractor import Extractor, InputSpec, resolve_extractor
from ..extract.frames import FrameInput
from ..extract.layers import select_layers
from ..extract.pooling import default_pooling
from ..fetch.options import FetchOptions
from ..keys.digest import Document
from ..keys.recipe import CAPTION, COMPUTE_DTYPES, INTEGER_DTYPE, POOLINGS, STORE_DTYPES, Feature, Recipe

if TYPE_CHECKING:
    import torch

DEFAULT_SHARD_BYTES = 64 << 20
_SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_DEFAULT_BATCH = {"cpu": 32}
_DEFAULT_BATCH_ACCELERATOR = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderRequest:
    """Which features of which encoder."""

    encoder: str
    """`PATH.py:FACTORY`, or an installed encoder's name."""
    weights: str | None = None
    """A safetensors file or folder, or `random:SEED`; None for the encoder's own."""
    layers: tuple[str, ...] = ()
    """Layer globs; empty for the encoder's default."""
    pool: str | None = None
    """`cls`, `mean` or `tokens`; None for `cls` where there is a class token, else `mean`."""
    size: int | None = None
    """Frame size in pixels; None for the encoder's own."""
    fit: str | None = None
    """`crop`, `squash` or `pad`; None for the encoder's own."""
    frames: int | None = None
    """Frames of a clip, spread evenly; None for 8, or for `fps`. Stills have one."""
    fps: float | None = None
    """Frames a second of a clip instead; None for a fixed number."""
    decoder: str = "pyav"
    """What decodes videos: `pyav` or `ffmpeg`."""
    posterior: str | None = None
    """Of a VAE: `mean`, `mean+logvar` or `sample:SEED`; None for the mean."""
    compute_dtype: str = "float32"
    """float32, bfloat16 or float16 (or fp32, bf16, fp16)."""
    store_dtype: str = "bf16"
    """bf16, fp16 or fp32."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "compute_dtype", _SHORT_DTYPES.get(self.compute_dtype, self.compute_dtype))
        for what, value, allowed in (
            ("compute dtype", self.compute_dtype, COMPUTE_DTYPES),
            ("storage dtype", self.store_dtype, STORE_DTYPES),
            ("pooling", self.pool or POOLINGS[0], POOLINGS),
        ):
            if value not in allowed:
                whole = "; whole numbers are stored so by themselves" if value == INTEGER_DTYPE else ""
                raise UsageError(f"{what} {value!r} is not one of {', '.join(allowed)}{whole}")

    def document(self) -> Document:
        """How to ask for the same again, for `repair`. Paths in it are of this machine and decide nothing."""
        path, colon, factory = self.encoder.rpartition(":")
        encoder = f"{Path(path).absolute()}:{factory}" if colon and path.endswith(".py") else self.encoder
        weights = self.weights
        if weights is not None and not weights.startswith("random:") and Path(weights).exists():
            weights = str(Path(weights).absolute())
        return {
            "encoder": encoder,
            "weights": weights,
            "layers": list(self.layers),
            "pool": self.pool,
            "size": self.size,
            "fit": self.fit,
            "frames": self.frames,
            "fps": self.fps,
            "decoder": self.decoder,
            "posterior": self.posterior,
            "compute_dtype": self.compute_dtype,
            "store_dtype": self.store_dtype,
        }

    def resolve(self, limits: Limits | None = None) -> tuple[Resolution, ...]:
        """As `Encoders.resolve`, of this one encoder."""
        return (resolve(self, limits),)

    @classmethod
    def from_document(cls, document: Document) -> EncoderRequest:
        """The inverse of `document`."""
        return cls(**{**document, "layers": tuple(document["layers"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How to build; none of it is part of a key."""

    dataset: str | None = None
    """The dataset's name; None for the source's."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N`, `mps`."""
    batch_size: int | None = None
    """Samples in a batch; None for a size by device. Halved when memory runs out."""
    num_workers: int | None = None
    """Threads that read and decode; None for the number of cores."""
    shard_bytes: int = DEFAULT_SHARD_BYTES
    """About how large a shard becomes."""
    rows_per_block: int | None = None
    """Samples in a shard exactly, instead of `shard_bytes`: how `repair` cuts the blocks that there were."""
    retry_failed: bool = False
    """Try permanent failures again too."""
    rehash: bool = False
    """Read every file and URL anew instead of trusting what is remembered of them."""
    isolate_decode: bool = False
    """Decode in processes that can be killed, for input that is not trusted."""
    decode_timeout_s: float = 300.0
    """A sample that takes longer to decode is a failure, and the run goes on."""
    limits: Limits = field(default_factory=Limits)
    """What is refused as too large."""
    fetch: FetchOptions = field(default_factory=FetchOptions)
    """How URLs are downloaded."""
    allow_file_urls: bool = False
    """Let manifests and URL lists name local files by `file:` URLs."""
    limit: int | None = None
    """Only so many of what the sources list, the first of them; a tar shard is one. None for all."""

    def __post_init__(self) -> None:
        _check_device_name(self.device)
        numbers = {"batch size": self.batch_size, "number of workers": self.num_workers, "limit": self.limit}
        for what, value in numbers.items():
            if value is not None and value < 1:
                raise UsageError(f"{what} {value} is out of range; expected at least 1")
        if self.shard_bytes < 1024:
            raise UsageError(f"shard size of {self.shard_bytes} bytes is out of range; expected at least 1024")
        if not 0 < self.decode_timeout_s < math.inf:
            raise UsageError(f"decode timeout of {self.decode_timeout_s} s is out of range; expected more than 0")

    def threads(self) -> int:
        """Reading threads, at most the cores this process may use."""
        return self.num_workers or available_cores()

    @property
    def watchdog_s(self) -> float:
        """When a decoding thread is given up; a process that can be killed is, before that."""
        return self.decode_timeout_s * (2 if self.isolate_decode else 1)

    def batch_on(self, device: torch.device, spec: InputSpec) -> int:
        """The batch size to begin with on a device: fewer samples where each has several frames."""
        return self.batch_size or max(1, self.rows_on(device) // spec.typical_rows)

    def rows_on(self, device: torch.device) -> int:
        """Rows of the largest batch on a device, one for each sample if its size was given."""
        return self.batch_size or _DEFAULT_BATCH.get(device.type, _DEFAULT_BATCH_ACCELERATOR)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """One kind of input of an encoder request: what to run, and under which keys."""

    request: EncoderRequest
    """What was asked for."""
    extractor: Extractor
    """The encoder, its weights in place."""
    spec: InputSpec
    """Its input, at the geometry asked for."""
    recipe: Recipe
    """The recipe."""
    features: tuple[Feature, ...] = field(default_factory=tuple)
    """One for each layer, in the encoder's order."""


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """An encoder request with everything looked up: a recipe for each kind of input that the encoder reads."""

    extractor: Extractor
    """The encoder, its weights in place."""
    each: tuple[Resolved, ...]
    """By kind of input: for frames stills, then clips."""

    @property
    def is_of_captions(self) -> bool:
        """Whether it reads the samples' captions, and nothing of their bytes."""
        return self.each[0].spec.kind == CAPTION

    @property
    def suffixes(self) -> frozenset[str]:
        """Endings of all inputs, with the dot."""
        return frozenset().union(*(resolved.spec.suffixes() for resolved in self.each))

    def of(self, suffix: str) -> Resolved:
        """The one that reads files of an ending."""
        return next((resolved for resolved in self.each if suffix in resolved.spec.suffixes()), self.each[0])

    def by_recipe(self, recipe: str) -> Resolved | None:
        """The one with a recipe of this digest."""
        return next((resolved for resolved in self.each if resolved.recipe.digest == recipe), None)


def resolve(request: EncoderRequest, limits: Limits | None = None, extractor: Extractor | None = None) -> Resolution:
    """Find the encoder, unless it is given, its layers and its keys. Runs no forward pass.

    Raises EncoderError and its kin.
    """
    extractor = _with_posterior(extractor or resolve_extractor(request.encoder, request.weights), request.posterior)
    layers = select_layers(request.layers, extractor.layers()) if request.layers else extractor.default_layers()
    pool = request.pool or getattr(extractor, "default_pool", None) or default_pooling(extractor.tokens)
    store_dtype, compute_dtype = request.store_dtype, request.compute_dtype
    if is_integer := getattr(extractor, "store_dtype", None) == INTEGER_DTYPE:
        store_dtype, compute_dtype = INTEGER_DTYPE, COMPUTE_DTYPES[0]
    if is_integer and pool != "tokens":
        raise EncoderError(f"pooling {pool!r} is of numbers, and {extractor.name} gives ids; leave --pool out")
    if pool == "cls" and not extractor.tokens.has_class_token:
        raise EncoderError(f"pooling 'cls' needs a class token, and {extractor.name} has none; use mean or tokens")
    identity = extractor.identity()
    each = []
    for spec in _input_specs(extractor.input, request, limits):
        recipe = Recipe(
            input=spec.document(),
            extractor=identity,
            compute_dtype=compute_dtype,
            posterior=getattr(extractor, "posterior", None),
        )
        features = tuple(Feature(recipe=recipe.digest, layer=layer, pool=pool, dtype=store_dtype) for layer in layers)
        each.append(Resolved(request=request, extractor=extractor, spec=spec, recipe=recipe, features=features))
    return Resolution(extractor=extractor, each=tuple(each))


def _with_posterior(extractor: Extractor, posterior: str | None) -> Extractor:
    if posterior is None:
        return extractor
    change = getattr(extractor, "with_posterior", None)
    if change is None:
        raise UsageError(f"a posterior is a VAE's, and {extractor.name} is none; leave --posterior out")
    changed: Extractor = change(posterior)
    return changed


def recorded_limits(provenance: Mapping[str, Any]) -> Limits:
    """The limits that a block was computed under, as its provenance has them; the usual ones where it has none."""
    software = provenance.get("software")
    known = software if isinstance(software, dict) else {}
    names = ("max_pixels", "max_duration_s")
    return Limits(
        **{name: known[name] for name in names if isinstance(known.get(name), int | float) and known[name] > 0}
    )


def _input_specs(spec: InputSpec, request: EncoderRequest, limits: Limits | None) -> tuple[InputSpec, ...]:
    """What the encoder can be fed: one that takes frames reads stills and clips, each under a recipe of its own."""
    if isinstance(spec, FrameInput):
        stills = spec.with_geometry(size=request.size, fit=request.fit)
        frames = Sampling().num_frames if request.frames is None and request.fps is None else request.frames
        sampling = Sampling(num_frames=frames, fps=request.fps)
        return stills, ClipInput.like(stills, sampling=sampling, backend=request.decoder, limits=limits)
    if any(value is not None for value in (request.size, request.fit, request.frames, request.fps)):
        raise UsageError(f"--size, --fit, --frames and --fps are for frames, and this encoder reads {spec.kind}")
    return (spec,)


def pick_device(name: str) -> torch.device:
    """The device named, or for `auto` the best there is. Raises UsageError, EnvironmentFailure."""
    import torch

    _check_device_name(name)
    has_mps = getattr(torch.backends, "mps", None) is not None and torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    kind, _, index = name.partition(":")
    number = torch.cuda.device_count() if kind == "cuda" else int(kind == "cpu" or has_mps)
    if int(index or 0) >= number:  # before torch sees it: it keeps an index in 8 bits
        raise EnvironmentFailure(
            f"device {name!r}: torch can use {number or 'no'} {kind.upper()} device{'s' * (number > 1)} on this "
            "machine; --device cpu works"
        )
    return torch.device(name)


def _check_device_name(name: str) -> None:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", name):
        raise UsageError(f"device {name!r} is unknown; expected auto, cpu, cuda, cuda:N or mps")


def dataset_name_of(sources: Sequence[Any]) -> str:
    """A dataset's default name: its first source's folder, file, glob or URL, without endings."""
    allowed = (c if c.isascii() and (c.isalnum() or c in "_.+-") else "-" for c in sources[0].name)
    return "".join(allowed).strip("-.+")[:100] or "dataset"
