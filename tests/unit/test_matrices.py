"""Cached rows as matrices: which axis is tokens, which channels, and whether there are frames."""

import pytest
import torch

from fovcache.decode.sampling import Sampling
from fovcache.derived.matrices import has_frames, matrices
from fovcache.errors import UsageError
from fovcache.extract.clips import ClipInput
from fovcache.extract.frames import FrameInput
from fovcache.keys.recipe import Recipe


@pytest.mark.parametrize(
    ("row", "frames", "expected"),
    [
        ((8,), False, (1, 8)),  # cls, mean
        ((5, 8), False, (5, 8)),  # tokens
        ((8, 3, 4), False, (12, 8)),  # a map
        ((8, 2, 3, 4), False, (24, 8)),
        ((6, 8), True, (6, 8)),
        ((6, 5, 8), True, (30, 8)),
        ((6, 8, 3, 4), True, (72, 8)),
        ((1, 5, 8), True, (5, 8)),
    ],
)
def test_a_row_is_a_matrix_of_tokens_and_channels(
    row: tuple[int, ...], frames: bool, expected: tuple[int, int]
) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        found = matrices(torch.zeros(3, *row, dtype=dtype), has_frames=frames)
        assert found.shape == (3, *expected)
        assert found.dtype == dtype


def test_tokens_follow_frame_by_frame_and_a_token_has_its_channels() -> None:
    rows = torch.arange(2 * 3 * 4 * 5 * 6).view(2, 3, 4, 5, 6)  # n, frames, channels, height, width
    found = matrices(rows, has_frames=True)
    assert torch.equal(found[1, 2 * 30 + 3 * 6 + 4], rows[1, 2, :, 3, 4])
    rows = rows.view(2, 3, 20, 6)  # n, frames, tokens, channels
    assert torch.equal(matrices(rows, has_frames=True)[1, 2 * 20 + 7], rows[1, 2, 7])
    rows = rows.view(2, 3, 20, 6)  # n, channels, height, width
    assert torch.equal(matrices(rows, has_frames=False)[1, 4 * 6 + 5], rows[1, :, 4, 5])


def test_no_rows_are_no_matrices_of_the_same_shape() -> None:
    assert matrices(torch.zeros(0, 4, 8, 3, 3), has_frames=True).shape == (0, 36, 8)


@pytest.mark.parametrize(("row", "frames"), [((), False), ((6,), True), ((5, 0), False)])
def test_a_row_without_channels_is_refused(row: tuple[int, ...], frames: bool) -> None:
    with pytest.raises(UsageError, match="have no channels"):
        matrices(torch.zeros(3, *row), has_frames=frames)


def recipe(document: dict[str, object]) -> dict[str, object]:
    return dict(Recipe(input=document, extractor={"name": "any"}).document)


@pytest.mark.parametrize("num_frames", [1, 8, None])
@pytest.mark.parametrize("backend", ["pyav", "ffmpeg"])
def test_clips_have_frames_also_if_it_is_one(num_frames: int | None, backend: str) -> None:
    sampling = Sampling(num_frames=None, fps=2.0) if num_frames is None else Sampling(num_frames=num_frames)
    for size in (None, 64):
        clips = ClipInput.like(FrameInput(size=size), sampling=sampling, backend=backend)
        assert has_frames(recipe(clips.document()))


def test_stills_and_derived_features_have_none() -> None:
    for size in (None, 64):
        assert not has_frames(recipe(FrameInput(size=size).document()))
    assert not has_frames(recipe({"kind": "feature", "feature": "0" * 64}))


def test_other_kinds_of_input_are_not_guessed_at() -> None:
    with pytest.raises(UsageError, match="input kind 'text' have no known axes"):
        has_frames(recipe({"kind": "text"}))
