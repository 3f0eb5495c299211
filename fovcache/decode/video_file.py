"""Opening a video that may be anything: one container, its best video stream, its packets.

A file's content decides what FFmpeg takes it for, and some formats name other files or hosts (playlists, concat
scripts, image sequences). Only formats that hold their own frames are opened, and only the file itself is read.
"""

from __future__ import annotations

import contextlib
import errno
import io
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import SampleError
from .limits import Limits

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".3gp", ".flv", ".wmv", ".ogv"}
)

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,ivf,nut,mxf,gxf,wtv"
PROTOCOLS = "file,subfile"


_SILENT_CODECS = ("mjpeg", "hevc")
"""Codecs whose decoders leave out what they cannot read, and say so only when told to: old memory shows through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSource:
    """Where a video's bytes lie: a file, a range of one, or memory."""

    path: str = ""
    """The file; empty for bytes in memory."""
    offset: int = 0
    """Its first byte in the file."""
    size: int | None = None
    """How many bytes; None for the whole file."""
    data: bytes = b""
    """The bytes, where there is no file."""

    def target(self) -> str | io.BytesIO:
        """What FFmpeg opens."""
        if not self.path:
            return io.BytesIO(self.data)
        path = Path(self.path).absolute()
        if self.size is None:
            return f"file:{path}"
        return f"subfile,,start,{self.offset},end,{self.offset + self.size},,:{path}"

    @property
    def num_bytes(self) -> int:
        """How many bytes there are. Raises OSError, also for a pipe or a device: reading it might never end."""
        if not self.path:
            return len(self.data)
        status = Path(self.path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        return self.size if self.size is not None else status.st_size


@dataclass(frozen=True, slots=True)
class OpenVideo:
    """An open container and the stream that is decoded."""

    container: InputContainer
    stream: VideoStream


@contextlib.contextmanager
def open_video(source: VideoSource, limits: Limits) -> Iterator[OpenVideo]:
    """Open a video and its best stream, one thread its decoder. Raises SampleError."""
    import av

    try:
        if not source.num_bytes:
            raise SampleError("decode", "the file is empty", permanent=True)
        container = av.open(
            source.target(),
            mode="r",
            options={"format_whitelist": FORMATS, "protocol_whitelist": PROTOCOLS},
            metadata_errors="ignore",
        )
    except (FileNotFoundError, PermissionError) as error:
        raise SampleError("fetch", f"cannot read it: {error.strerror}", permanent=False) from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise SampleError("decode", f"not a video that can be read: {said(error)}", permanent=True) from error
    with container:
        stream = _best_stream(container)
        context = stream.codec_context
        limits.check_frame(context.width, context.height)
        context.thread_count = 1
        context.options = {"max_pixels": str(limits.max_pixels)}  # the bitstream may say another size than the header
        if context.codec.canonical_name in _SILENT_CODECS:
            context.options |= {"err_detect": "explode"}
        yield OpenVideo(container, stream)


def _best_stream(container: InputContainer) -> VideoStream:
    import av

    try:
        stream: Any = container.streams.best("video")
    except av.FFmpegError:
        stream = None
    if stream is None or stream.codec_context is None or _is_cover(stream):
        kinds = {"a cover picture" if _is_cover(each) else each.type for each in container.streams}
        has = " and ".join(sorted(kind for kind in kinds if kind)) or "nothing"
        raise SampleError("decode", f"it has no video stream; it has {has}", permanent=True)
    return cast("VideoStream", stream)


def _is_cover(stream: Any) -> bool:
    from av.stream import Disposition

    return Disposition.attached_pic in stream.disposition


def packets_of(video: OpenVideo) -> Iterator[av.Packet[VideoStream]]:
    """The stream's packets in decoding order. Raises SampleError when the container is damaged on the way."""
    import av

    try:
        for packet in video.container.demux(video.stream):
            if packet.size:
                yield packet
    except (av.FFmpegError, OSError) as error:
        raise SampleError("decode", f"damaged container: {said(error)}", permanent=True) from error
    except IndexError as error:  # PyAV knows no streams but those at the start
        raise SampleError("decode", "damaged container: a new stream begins on the way", permanent=True) from error


def said(error: BaseException) -> str:
    """An FFmpeg error in its own words, without file names."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
