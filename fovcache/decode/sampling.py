"""Which of the shown frames a clip is made of, by their times alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import SampleError, UsageError

DEFAULT_NUM_FRAMES = 8
MAX_NUM_FRAMES = 100_000
"""Frames of one clip."""
_CLOSE_S = 1e-6
"""Times nearer than this are the same: time bases are fractions, and what users write is decimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A part of a video, in seconds from its first shown frame, as a player counts."""

    start_s: float = 0.0
    """The first moment."""
    end_s: float | None = None
    """The first moment after it; None for the end of the video."""

    def __post_init__(self) -> None:
        ok = math.isfinite(self.start_s) and self.start_s >= 0
        if not ok or (self.end_s is not None and not (math.isfinite(self.end_s) and self.end_s > self.start_s)):
            raise UsageError(f"a window from {self.start_s} s to {self.end_s} s; expected 0 ≤ start < end")


WHOLE = Window()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How many frames of a window, and which: `num_frames` spread evenly, or one every 1/`fps` seconds."""

    num_frames: int | None = DEFAULT_NUM_FRAMES
    """Frames of a clip; None for a fixed rate."""
    fps: float | None = None
    """Frames a second; None for a fixed number."""

    def __post_init__(self) -> None:
        if (self.num_frames is None) == (self.fps is None):
            raise UsageError(f"num_frames is {self.num_frames} and fps is {self.fps}; expected one of the two")
        if self.num_frames is not None and not 1 <= self.num_frames <= MAX_NUM_FRAMES:
            raise UsageError(f"num_frames is {self.num_frames}; expected 1 to {MAX_NUM_FRAMES}")
        if self.fps is not None and not (math.isfinite(self.fps) and 0 < self.fps <= 1000):
            raise UsageError(f"fps is {self.fps}; expected a rate above 0, at most 1000 frames a second")

    @property
    def rule(self) -> str:
        """`uniform` or `rate`, as recipes name it."""
        return "uniform" if self.fps is None else "rate"

    def positions(self, times_s: np.ndarray, end_s: float, window: Window = WHOLE) -> np.ndarray:
        """Which frames to take, int64 [frames], ascending, repeats included.

        `times_s` float64 [shown frames] are the times of all shown frames in order, and `end_s` is when the last of
        them ends. Raises SampleError for a window that begins after the end, and for too many
        frames.
        """
        first, stop = _inside(times_s, end_s, window)
        if self.num_frames is not None:
            return first + uniform_positions(stop - first, self.num_frames)
        assert self.fps is not None
        start = times_s[0] + window.start_s
        until = end_s if window.end_s is None else min(end_s, times_s[0] + window.end_s)
        num = max(1, math.ceil((until - start) * self.fps - _CLOSE_S))
        if num > MAX_NUM_FRAMES:
            reason = (
                f"{until - start:.0f} s at {self.fps} frames a second are more than {MAX_NUM_FRAMES} frames, the limit"
            )
            raise SampleError("decode", reason, permanent=True)
        moments = start + np.arange(num) / self.fps
        shown = np.searchsorted(times_s, moments + _CLOSE_S, side="right") - 1  # what is on the screen then
        return np.asarray(np.clip(shown, 0, len(times_s) - 1), np.int64)


def uniform_positions(num_shown: int, num_frames: int) -> np.ndarray:
    """Frame i of N is shown frame ⌊(2·i·(n−1) + N−1) / (2·(N−1))⌋ of n; frame ⌊n/2⌋ for N = 1. int64 [num_frames]."""
    if num_frames == 1:
        return np.array([num_shown // 2], np.int64)
    numbers = np.arange(num_frames, dtype=np.int64)
    positions: np.ndarray = (2 * numbers * (num_shown - 1) + num_frames - 1) // (2 * (num_frames - 1))
    return positions


def _inside(times_s: np.ndarray, end_s: float, window: Window) -> tuple[int, int]:
    """The first frame that begins in the window and the first after it; the one on the screen when none begins."""
    zero = float(times_s[0])
    if zero + window.start_s > end_s - _CLOSE_S and window.start_s > 0:
        length = f"{end_s - zero:.3f} s"
        raise SampleError("decode", f"a window from {window.start_s} s of a video of {length}", permanent=True)
    first = int(np.searchsorted(times_s, zero + window.start_s - _CLOSE_S))
    until = math.inf if window.end_s is None else zero + window.end_s - _CLOSE_S
    stop = int(np.searchsorted(times_s, until))
    if stop <= first:
        first = max(0, int(np.searchsorted(times_s, zero + window.start_s + _CLOSE_S, side="right")) - 1)
        stop = first + 1
    return first, stop
