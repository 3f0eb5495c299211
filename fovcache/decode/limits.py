"""How large a video may be before it is refused, against decompression bombs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import SampleError, UsageError
from .stills import MAX_PIXELS


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a decoder may be asked to do for one sample."""

    max_pixels: int = MAX_PIXELS
    """Pixels of one frame, as stored and as returned."""
    max_duration_s: float = 24 * 3600.0
    """Seconds from the first frame to the last."""
    max_frames: int = 10_000_000
    """Frames in the file."""
    max_clip_bytes: int = 4 << 30
    """Bytes of one clip's pixels, in all geometries that it is decoded to at once."""

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_duration_s", "max_frames", "max_clip_bytes"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is {getattr(self, name)}; expected more than 0")

    def check_frame(self, width: int, height: int) -> None:
        """Raise SampleError for a frame of too many pixels."""
        if width * height > self.max_pixels:
            raise SampleError(
                "decode", f"{width}×{height} is over the limit of {self.max_pixels} pixels", permanent=True
            )

    def check_duration(self, duration_s: float) -> None:
        """Raise SampleError for a video that is too long."""
        if duration_s > self.max_duration_s:
            reason = f"it lasts {duration_s:.0f} s, over the limit of {self.max_duration_s:.0f} s"
            raise SampleError("decode", reason, permanent=True)

    def check_count(self, num_packets: int) -> None:
        """Raise SampleError for a video of too many frames."""
        if num_packets > self.max_frames:
            raise SampleError("decode", f"it has more than {self.max_frames} frames, the limit", permanent=True)

    def refusals(self, num_frames: int, sizes: Sequence[tuple[int, int]]) -> list[SampleError | None]:
        """For one clip in each of some sizes, width and height: why it would take too much memory, or None.

        Clips that would only do so together are refused for now: alone they are not.
        """
        num_bytes = [3 * num_frames * width * height for width, height in sizes]
        is_over = [each > self.max_clip_bytes for each in num_bytes]
        total = sum(each for each, over in zip(num_bytes, is_over, strict=True) if not over)
        refused: SampleError | None = None
        if total > self.max_clip_bytes:
            reason = f"a clip of {num_frames} frames in {is_over.count(False)} sizes takes {self._over(total)}"
            refused = SampleError("decode", f"{reason}; build one encoder at a time", permanent=False)
        return [
            self._clip_error(num_frames, size, each) if over else refused
            for size, each, over in zip(sizes, num_bytes, is_over, strict=True)
        ]

    def _clip_error(self, num_frames: int, size: tuple[int, int], num_bytes: int) -> SampleError:
        reason = f"a clip of {num_frames} frames of {size[0]}×{size[1]} takes {self._over(num_bytes)}"
        return SampleError("decode", reason, permanent=True)

    def _over(self, num_bytes: int) -> str:
        return f"{num_bytes / 2**30:.3g} GiB, over the limit of {self.max_clip_bytes / 2**30:.3g} GiB"
