"""Several encoders in one build: what is asked of all of them, or of one by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..decode.limits import Limits
from ..errors import LayerError, UsageError, nearest
from ..extract.extractor import Extractor, resolve_extractor
from ..extract.layers import select_layers
from ..extract.weights import parse_seed
from ..keys.recipe import CAPTION
from .request import EncoderRequest, Resolution, resolve

_OF_FRAMES = ("size", "fit", "frames", "fps", "decoder")

ALL = ""
"""Instead of an encoder's name: what is asked of every encoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoders:
    """Which encoders run over the same samples; one decode feeds them all.

    The mappings are by the encoder's name as it stands in `encoders`, with ALL for what holds for each.
    """

    encoders: tuple[str, ...]
    """Installed names, or `PATH.py:FACTORY`; each once."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """For ALL only `random:SEED`, where there are several: no checkpoint fits two of them."""
    layers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Layer globs. One for ALL goes to the encoders that have such a layer; one that fits none is an error."""
    pool: Mapping[str, str] = field(default_factory=dict)
    """For ALL, of several, it leaves out those with a pooling of their own: a VAE's latent is no row of tokens."""
    posterior: Mapping[str, str] = field(default_factory=dict)
    """For ALL it holds for the VAEs among them."""
    common: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of EncoderRequest, for all: size, fit, frames, fps, decoder, compute_dtype, store_dtype."""

    def __post_init__(self) -> None:
        if not self.encoders or len(set(self.encoders)) < len(self.encoders):
            raise UsageError(f"the encoders are {', '.join(self.encoders) or 'none'}; expected one or more, each once")
        for option in ("weights", "layers", "pool", "posterior"):
            for name in getattr(self, option):
                if name not in (ALL, *self.encoders):
                    raise UsageError(f"{option} for {name!r}{nearest(name, self.encoders)}: there is no such encoder")
        for_all = self.weights.get(ALL)
        if for_all is not None and len(self.encoders) > 1 and parse_seed(for_all) is None:
            raise UsageError(
                f"weights {for_all!r}: say which of the encoders they are for, as in {self.encoders[0]}={for_all}"
            )

    def resolve(self, limits: Limits | None = None) -> tuple[Resolution, ...]:
        """One resolution for each encoder, in order. Raises EncoderError and its kin, UsageError."""
        extractors = {name: resolve_extractor(name, self._of(self.weights, name)) for name in self.encoders}
        if len(self.encoders) > 1:
            self._check_globs(extractors)
        is_of_captions = all(extractor.input.kind == CAPTION for extractor in extractors.values())
        resolutions = tuple(
            resolve(self._request(name, extractor, drops=() if is_of_captions else _OF_FRAMES), limits, extractor)
            for name, extractor in extractors.items()
        )
        first, *others = [each for each in resolutions if not each.is_of_captions] or resolutions
        for other in others:
            if other.suffixes != first.suffixes:
                raise UsageError(
                    f"{first.extractor.name} and {other.extractor.name} read different kinds of files; build them one "
                    "after the other"
                )
        recipes = [resolved.recipe.digest for resolution in resolutions for resolved in resolution.each]
        if len(set(recipes)) < len(recipes):
            raise UsageError(f"of the encoders {', '.join(self.encoders)} two are the same")
        return resolutions

    def _request(self, name: str, extractor: Extractor, *, drops: Sequence[str]) -> EncoderRequest:
        """Of one encoder; where it reads captions, what `drops` names is for another."""
        pool = self.pool.get(name)
        if pool is None and (len(self.encoders) == 1 or getattr(extractor, "default_pool", None) is None):
            pool = self.pool.get(ALL)
        posterior = self.posterior.get(name)
        if posterior is None and (len(self.encoders) == 1 or hasattr(extractor, "with_posterior")):
            posterior = self.posterior.get(ALL)
        common = dict(self.common)
        if extractor.input.kind == CAPTION:
            common = {option: value for option, value in common.items() if option not in drops}
        return EncoderRequest(
            encoder=name,
            weights=self._of(self.weights, name),
            layers=self._globs(name, extractor),
            pool=pool,
            posterior=posterior,
            **common,
        )

    def _of(self, values: Mapping[str, str], name: str) -> str | None:
        return values.get(name, values.get(ALL))

    def _globs(self, name: str, extractor: Extractor) -> tuple[str, ...]:
        for_all = self.layers.get(ALL, ())
        if len(self.encoders) > 1:
            for_all = [glob for glob in for_all if _matches(glob, extractor)]
        return (*self.layers.get(name, ()), *for_all)

    def _check_globs(self, extractors: Mapping[str, Extractor]) -> None:
        for glob in self.layers.get(ALL, ()):
            if not any(_matches(glob, extractor) for extractor in extractors.values()):
                known = [layer for extractor in extractors.values() for layer in extractor.layers()]
                raise LayerError(f"no layer matches {glob!r}{nearest(glob, known)} in {', '.join(self.encoders)}")


def _matches(glob: str, extractor: Extractor) -> bool:
    try:
        return bool(select_layers([glob], extractor.layers()))
    except LayerError:
        return False
