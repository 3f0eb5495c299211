"""Clips of a grid of coloured cells, one of them marked, and what their frames are labelled with.

Axes: n clips, t frames, c cells (row by row), y, x, 3 colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fovcache.errors import UsageError

CUE, GLOBAL = "cue", "global"
TASKS = (CUE, GLOBAL)
"""`cue`: a frame's label is its symbol in the cell that was marked one frame before, which only who remembers the mark
knows where to look for. `global`: it is the symbol that the frame is rich in, which any look over it tells."""
NUM_FRAMES = 4
GRID = 4
NUM_CELLS = GRID * GRID
CELL_SIDE = 8
"""Pixels."""
SIDE = GRID * CELL_SIDE
"""Height and width of a frame, pixels."""
ALPHABET = "0123"
"""The symbols, in the order of COLOURS."""
NO_LABEL = "."
"""The first frame of the cue task: nothing was marked before."""
COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)], np.uint8)
"""Of the symbols, equally far from each other."""
RICHNESS = 0.21
"""Global task: the chance that a cell shows the frame's symbol, whatever it would show otherwise. Who counts all cells
and knows this still has a cross-entropy of .695: a floor that no look can pass, so that arms have a ratio."""
_FIRST_PIXEL, _END_PIXEL = CELL_SIDE // 4, 3 * CELL_SIDE // 4
"""Of the square in a cell that is white where it is marked, else black."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CueClips:
    """Some clips of a task."""

    symbols_ntc: np.ndarray
    """uint8 [n, NUM_FRAMES, NUM_CELLS]: positions in ALPHABET."""
    marks_nt: np.ndarray
    """uint8 [n, NUM_FRAMES]: the marked cell."""
    captions: tuple[str, ...]
    """[n]: a character a frame, of ALPHABET or NO_LABEL."""


def draw_clips(task: str, num: int, seed: int, split: int = 0) -> CueClips:
    """`num` clips, the same for the same task, seed and split. Raises UsageError for a task that is not known."""
    if task not in TASKS:
        raise UsageError(f"there is no task {task!r}, expected one of {', '.join(TASKS)}")
    chance = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, TASKS.index(task), split])))
    symbols = chance.integers(len(ALPHABET), size=(num, NUM_FRAMES, NUM_CELLS), dtype=np.uint8)
    marks = chance.integers(NUM_CELLS, size=(num, NUM_FRAMES), dtype=np.uint8)
    if task == CUE:
        return CueClips(symbols_ntc=symbols, marks_nt=marks, captions=cue_captions(symbols, marks))
    rich = chance.integers(len(ALPHABET), size=(num, NUM_FRAMES), dtype=np.uint8)
    symbols = np.where(chance.random(symbols.shape) < RICHNESS, rich[..., None], symbols)
    return CueClips(symbols_ntc=symbols, marks_nt=marks, captions=tuple(map(_text, rich)))


def cue_captions(symbols_ntc: np.ndarray, marks_nt: np.ndarray) -> tuple[str, ...]:
    """The cue task's labels of such clips."""
    asked = marks_nt[:, :-1, None].astype(np.int64)
    labels = np.take_along_axis(symbols_ntc[:, 1:], asked, axis=2)[..., 0]
    return tuple(NO_LABEL + _text(row) for row in labels)


def frames_of(symbols_tc: np.ndarray, marks_t: np.ndarray) -> np.ndarray:
    """uint8 [NUM_FRAMES, SIDE, SIDE, 3]: a clip's pixels."""
    grid = COLOURS[symbols_tc].reshape(-1, GRID, GRID, 3)
    frames = np.repeat(np.repeat(grid, CELL_SIDE, axis=1), CELL_SIDE, axis=2)
    cells = frames.reshape(-1, GRID, CELL_SIDE, GRID, CELL_SIDE, 3)  # a view
    square = cells[:, :, _FIRST_PIXEL:_END_PIXEL, :, _FIRST_PIXEL:_END_PIXEL]
    square[:] = 0
    for frame, mark in enumerate(marks_t.tolist()):
        square[frame, mark // GRID, :, mark % GRID] = 255
    return frames


def _text(labels: np.ndarray) -> str:
    return "".join(ALPHABET[label] for label in labels)
