"""Keeps transformers, diffusers and huggingface_hub from talking: what matters of theirs is said by our errors."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def quiet(library: str) -> Iterator[None]:
    """No progress bars, no log lines below an error and no warnings of `library` inside; then as it was."""
    talk = importlib.import_module(f"{library}.utils.logging")
    verbosity = talk.get_verbosity()
    disable, enable, are_shown = _progress_bars(library)
    had_bars = are_shown()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        talk.set_verbosity_error()
        disable()
        try:
            yield
        finally:
            talk.set_verbosity(verbosity)
            if had_bars:
                enable()


def _progress_bars(library: str) -> tuple[Callable[[], None], Callable[[], None], Callable[[], bool]]:
    if library == "huggingface_hub":
        utils = importlib.import_module("huggingface_hub.utils")
        return utils.disable_progress_bars, utils.enable_progress_bars, lambda: not utils.are_progress_bars_disabled()
    talk = importlib.import_module(f"{library}.utils.logging")
    return talk.disable_progress_bar, talk.enable_progress_bar, getattr(talk, "is_progress_bar_enabled", lambda: True)
