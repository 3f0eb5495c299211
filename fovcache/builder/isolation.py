"""Decoding in processes that can be killed, where a build was asked for it."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace

from ..decode.clip import BACKENDS
from ..errors import UsageError
from ..extract.clips import ClipInput
from ..extract.frames import FrameInput
from .request import BuildOptions, Resolution, Resolved


def isolated(
    resolutions: tuple[Resolution, ...], options: BuildOptions, stack: contextlib.ExitStack
) -> tuple[Resolution, ...]:
    """The same, decoding in processes of its own until `stack` is closed, if the options ask for it."""
    if not options.isolate_decode:
        return resolutions
    from ..decode.isolate import IsolatedDecoder

    decoder = IsolatedDecoder(num_workers=options.threads(), timeout_s=options.decode_timeout_s)
    stack.callback(decoder.close)
    decoders = {name: functools.partial(decoder.decode, backend=name) for name in ("pillow", *BACKENDS)}

    def moved(resolved: Resolved) -> Resolved:
        spec = resolved.spec
        if not isinstance(spec, FrameInput):
            raise UsageError(f"--isolate-decode is for frames, and {resolved.extractor.name} reads {spec.kind}")
        backend = spec.backend if isinstance(spec, ClipInput) else "pillow"
        return replace(resolved, spec=replace(spec, decode=decoders[backend]))

    return tuple(
        resolution if resolution.is_of_captions else replace(resolution, each=tuple(map(moved, resolution.each)))
        for resolution in resolutions
    )
