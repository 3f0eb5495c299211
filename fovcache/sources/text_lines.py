"""The lines of a text file that a user gave: UTF-8 and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import SourceError

_SNIFFED_BYTES = 4096
_MAX_LINE_CHARS = 1 << 26
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def read_lines(path: Path) -> Iterator[str]:
    """The lines with their ends (LF, CRLF or CR), without a byte-order mark.

    Raises OSError, and SourceError for a file that is no UTF-8 text.
    """
    with path.open("rb") as file:
        start = file.read(_SNIFFED_BYTES)
    if start.startswith(_UTF16_MARKS) or 3 * start.count(0) > len(start):
        raise SourceError(f"{path} looks like UTF-16 or UTF-32; save it as UTF-8, as with iconv -f UTF-16 -t UTF-8")
    number = 1
    with path.open(encoding="utf-8-sig", newline="") as text:
        while True:
            try:
                line = text.readline(_MAX_LINE_CHARS)
            except UnicodeDecodeError as error:
                wrong = error.object[error.start]
                raise SourceError(
                    f"{path} is not UTF-8: byte 0x{wrong:02x} in or after line {number}; save it as UTF-8, as with "
                    "iconv -f LATIN1 -t UTF-8"
                ) from None
            if not line:
                return
            if len(line) == _MAX_LINE_CHARS and not line.endswith(("\n", "\r")):
                raise SourceError(f"{path}: line {number} is longer than {_MAX_LINE_CHARS} characters; is it text?")
            yield line
            number += 1
