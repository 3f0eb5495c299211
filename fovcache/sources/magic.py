"""What a file is by its first bytes, for URLs whose names do not say."""

from __future__ import annotations

HEAD_BYTES = 512

_STARTS = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"\x1aE\xdf\xa3", ".mkv"),
    (b"FLV\x01", ".flv"),
    (b"OggS", ".ogv"),
    (b"0&\xb2u", ".wmv"),
    (b"\0\0\x01\xba", ".mpg"),
)
_RIFF = {b"WEBP": ".webp", b"AVI ": ".avi"}
_ISO_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def suffix_of(head: bytes) -> str:
    """The ending that a file with these first HEAD_BYTES bytes should have; empty for what is not known."""
    if head[4:8] in _ISO_BOXES:
        return ".mp4"
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], "")
    if head[257:262] == b"ustar":
        return ".tar"
    if head[:1] == b"G" and head[188:189] == b"G" and head[376:377] == b"G":
        return ".ts"
    return next((suffix for start, suffix in _STARTS if head.startswith(start)), "")
