"""A model's own preprocessing, as its preprocessor_config.json says it, as an extractor's input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fovcache.errors import EncoderError, WeightsError
from fovcache.extract.frames import FrameInput

_INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # PIL's numbers
_UNDERSTOOD = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchInput(FrameInput):
    """Frames that a model cuts into patches: their size is a whole number of these, or what it was trained at."""

    patch: int
    """Side of a patch in pixels."""
    trained_size: int
    """Side of the frames that the model's position embeddings are for, in pixels."""

    def __post_init__(self) -> None:
        FrameInput.__post_init__(self)
        if self.size is not None:
            check_sides(self.size, self.size, self.patch, self.trained_size)


def check_sides(height: int, width: int, patch: int, trained_size: int) -> None:
    """Raises EncoderError for frames that a model would cut off at its last whole patch."""
    if height == width == trained_size:
        return
    for side in (height, width):
        if side < patch or side % patch:
            below = side - side % patch
            nearest = ", ".join(str(whole) for whole in (below, below + patch) if whole)
            raise EncoderError(
                f"frames of {width} × {height} px: {side} is no multiple of {patch}, the encoder's patch; nearest: "
                f"{nearest}"
            )


def frame_input(processor: Mapping[str, Any], *, patch: int, trained_size: int, label: str) -> PatchInput:
    """Frames as the image processor with this configuration makes them. `label` names the weights in errors.

    Raises WeightsError that names the field which asks for something else than resizing, a centre crop, scaling to
    [0, 1] and normalising.
    """
    asked = _Asked(processor, label)
    for name in processor:
        if name.startswith("do_") and name not in _UNDERSTOOD and processor[name]:
            raise asked.refusal(name, "false")
    asked.expect("do_resize", True)
    asked.expect("do_rescale", True)
    if not math.isclose(asked.number("rescale_factor"), 1 / 255, rel_tol=1e-6):
        raise asked.refusal("rescale_factor", "1/255")
    if processor["resample"] not in (2, 3):
        raise asked.refusal("resample", "2 (bilinear) or 3 (bicubic)")
    normalises = bool(processor["do_normalize"])
    return PatchInput(
        patch=patch,
        trained_size=trained_size,
        **_geometry(asked),
        interpolation=_INTERPOLATIONS[processor["resample"]],
        mean=asked.triple("image_mean") if normalises else None,
        std=asked.triple("image_std") if normalises else None,
    )


def _geometry(asked: _Asked) -> dict[str, Any]:
    size = asked.processor["size"]
    crops = bool(asked.processor.get("do_center_crop"))
    if isinstance(size, int):  # of old: the shorter side where a crop follows, else both
        size = {"shortest_edge": size} if crops else {"height": size, "width": size}
    crop = asked.square("crop_size") if crops else None
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        if crop is None:
            raise asked.refusal("do_center_crop", "true, with a size of shortest_edge: frames of one shape")
        short_side = size["shortest_edge"]
        if not _is_pixels(short_side) or short_side < crop:
            raise asked.refusal("size", "a shortest_edge in pixels, of at least crop_size")
        return {"size": crop, "fit": "crop", "short_side": short_side if short_side != crop else None}
    side = asked.square("size")
    if crop not in (None, side):
        raise asked.refusal("crop_size", f"{side} × {side}, as size")
    return {"size": side, "fit": "squash"}


class _Asked:
    """A processor's configuration, and what is said where it asks for something else."""

    def __init__(self, processor: Mapping[str, Any], label: str) -> None:
        self.processor = processor
        self._label = label

    def refusal(self, field: str, expected: str) -> WeightsError:
        value = self.processor.get(field)
        return WeightsError(f"{self._label}: preprocessor_config.json has {field} {value!r}, expected {expected}")

    def expect(self, field: str, value: bool) -> None:
        if self.processor[field] is not value:
            raise self.refusal(field, str(value).lower())

    def number(self, field: str) -> float:
        value = self.processor[field]
        if not isinstance(value, int | float):
            raise self.refusal(field, "a number")
        return float(value)

    def square(self, field: str) -> int:
        value = self.processor.get(field)
        sides = [value] if isinstance(value, int) else list(value.values()) if isinstance(value, Mapping) else []
        names_sides = isinstance(value, int) or (isinstance(value, Mapping) and set(value) == {"height", "width"})
        if not names_sides or len(set(sides)) != 1 or not _is_pixels(sides[0]):
            raise self.refusal(field, "one height and width in pixels")
        return int(sides[0])

    def triple(self, field: str) -> tuple[float, float, float]:
        value = self.processor[field]
        if not isinstance(value, list) or len(value) != 3 or not all(isinstance(each, int | float) for each in value):
            raise self.refusal(field, "three numbers")
        red, green, blue = map(float, value)
        return red, green, blue


def _is_pixels(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
