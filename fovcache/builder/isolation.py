"""Decoding in processes that can be killed, where a build was asked for it."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace

from ..errors import UsageError
from ..extract.clips import ClipInput
from ..extract.extractor import InputSpec
from ..extract.frames import FrameInput
from .request import BuildOptions, Resolution


def isolated(resolution: Resolution, options: BuildOptions, stack: contextlib.ExitStack) -> Resolution:
    """The same, decoding in processes of its own until `stack` is closed, if the options ask for it."""
    if not options.isolate_decode:
        return resolution
    from ..decode.isolate import IsolatedDecoder

    decoder = IsolatedDecoder(num_workers=options.threads(), timeout_s=options.decode_timeout_s)
    stack.callback(decoder.close)

    def moved(spec: InputSpec) -> InputSpec:
        if not isinstance(spec, FrameInput):
            raise UsageError(f"--isolate-decode is for frames, and this encoder reads {spec.kind}")
        backend = spec.backend if isinstance(spec, ClipInput) else "pillow"
        return replace(spec, decode=functools.partial(decoder.decode, backend=backend))

    each = tuple(replace(resolved, spec=moved(resolved.spec)) for resolved in resolution.each)
    return replace(resolution, each=each)
