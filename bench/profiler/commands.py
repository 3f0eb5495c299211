"""The commands that apply what a profile proposes, as people would type them. Secrets of URLs are left out."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace

from fovcache.builder.encoders import ALL, Encoders
from fovcache.builder.request import EncoderRequest
from fovcache.fetch.redact import redact

from .frozen import FrozenPipeline, ProfileRequest
from .trainee import LINEAR

_DEFAULTS = {"decoder": "pyav", "compute_dtype": "fp32", "store_dtype": "bf16"}


def commands(pipeline: FrozenPipeline) -> dict[str, str]:
    """By the id of a what-if; `{n}` stands for its threads or batch size."""
    request, kinds = pipeline.request, pipeline.kinds()
    again = _profile_command(request)
    names = dict(zip(pipeline.names, request.encoders.encoders, strict=True))
    resolved = {
        asked: resolution.each[0].request
        for asked, resolution in zip(request.encoders.encoders, pipeline.resolutions, strict=True)
    }
    cached = {
        "cached_latents": kinds.get("vae_encode", frozenset()),
        "cached_features": kinds.get("encode", frozenset()),
        "cached_all": frozenset(names),
    }
    return {
        "fetch_workers": f"{again} --fetch-workers {{n}}",
        "decode_workers": f"{again} --workers {{n}}",
        "batch": f"{again} --batch-size {{n}}",
        **{
            what_if: _build_command(
                request,
                _part(request.encoders, {names[name]: resolved[names[name]] for name in names if name in encoders}),
            )
            for what_if, encoders in cached.items()
        },
    }


def _profile_command(request: ProfileRequest) -> str:
    vaes = [name for name in request.encoders.encoders if name in request.vaes]
    others = [name for name in request.encoders.encoders if name not in request.vaes]
    words = ["fovbench", "profile", *map(redact, request.sources)]
    words += [word for name in others for word in ("--encoder", name)]
    words += [word for name in vaes for word in ("--vae", name)]
    if request.model != LINEAR:
        words += ["--model", request.model]
    if request.is_cached:
        words += ["--cached"]
    return shlex.join([*words, *encoder_flags(request.encoders, request.encoders.encoders)])


def _build_command(request: ProfileRequest, asked: Encoders) -> str:
    words = ["fovcache", "build", *map(redact, request.sources), "--cache", "features"]
    words += [word for name in asked.encoders for word in ("--encoder", name)]
    return shlex.join([*words, *encoder_flags(asked, asked.encoders)])


def _part(asked: Encoders, part: dict[str, EncoderRequest]) -> Encoders:
    """What is asked of some of the encoders: of what was asked for all, each has what it took.

    A layer glob for all may fit none of those that are left, and would be an error then.
    """
    if not part or len(part) == len(asked.encoders):
        return asked
    return replace(
        asked,
        encoders=tuple(part),
        weights={name: each.weights for name, each in part.items() if each.weights is not None},
        layers={name: each.layers for name, each in part.items() if each.layers},
        pool={name: each.pool for name, each in part.items() if each.pool is not None},
        posterior={name: each.posterior for name, each in part.items() if each.posterior is not None},
    )


def encoder_flags(asked: Encoders, encoders: Sequence[str]) -> Iterator[str]:
    """What is asked of some of the encoders, as words of a command line; without the encoders themselves."""
    for option in ("weights", "layers", "pool", "posterior"):
        for name, value in getattr(asked, option).items():
            if name == ALL or name in encoders:
                text = value if isinstance(value, str) else ",".join(value)
                if text:
                    yield from (f"--{option}", text if name == ALL or len(encoders) == 1 else f"{name}={text}")
    for option, value in asked.common.items():
        if value is not None and value != _DEFAULTS.get(option):
            yield from (f"--{option.replace('_', '-')}", str(value))
