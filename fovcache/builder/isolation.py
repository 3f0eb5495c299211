"""Decoding in processes that can be killed, where a build was asked for it."""

from __future__ import annotations

import contextlib

from .request import BuildOptions, Resolution


def isolate(resolution: Resolution, options: BuildOptions, stack: contextlib.ExitStack) -> None:
    """Make the inputs of an encoder decode elsewhere, until `stack` is closed."""
