"""Files and URLs that hold samples: hashed once, however many samples point at them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

TAR_SUFFIX = ".tar"


@dataclass(slots=True, kw_only=True)
class Place:
    """One file or URL, and what is known of it. Not frozen, as a million of them are filled in."""

    where: str
    """Absolute path, or URL; a URL may hold secrets, so it is never shown as it is."""
    is_remote: bool = False
    """Whether it is a URL."""
    suffix: str = ""
    """The ending that says what it holds, lower case and with the dot."""
    path: str = ""
    """Where its bytes are now; empty for a URL that is not here."""
    value: bytes = b""
    """Its digest, or a tar shard's table of members; empty while it is not known."""
    size_bytes: int = 0
    """Its bytes, for a URL that is known."""
    fault: str = ""
    """Why it cannot be read."""
    is_permanent: bool = False
    """Whether its fault is for good."""

    @classmethod
    def of_file(cls, path: str) -> Place:
        """A local file."""
        return cls(where=path, path=path, suffix=os.path.splitext(path)[1].lower())

    @classmethod
    def of_url(cls, url: str) -> Place:
        """Something to download; what its URL does not tell of its kind, its bytes will."""
        return cls(where=url, is_remote=True, suffix=PurePosixPath(urlsplit(url).path).suffix.lower())

    @property
    def is_tar(self) -> bool:
        """Whether it is a shard of samples."""
        return self.suffix == TAR_SUFFIX

    @property
    def name(self) -> str:
        """Its file name, for messages."""
        return PurePosixPath(urlsplit(self.where).path).name if self.is_remote else Path(self.where).name

    @property
    def is_known(self) -> bool:
        """Whether its content is known, or why it never will be."""
        return bool(self.value or self.fault)
