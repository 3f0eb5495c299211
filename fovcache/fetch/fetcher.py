"""Fetching as a build needs it: what is unchanged is not downloaded, what is downloaded lies in the working set."""

from __future__ import annotations

import os
import threading
from typing import Self

from ..store.url_memo import UrlMemo, Validators
from .client import HttpClient
from .options import FetchOptions
from .reasons import Reason, failure
from .redact import may_hide_identity, redact
from .scratch import Scratch, ScratchFile


class Fetcher:
    """Downloads URLs and remembers by which versions. One serves many threads."""

    def __init__(
        self,
        options: FetchOptions,
        scratch_folder: str | os.PathLike[str],
        memo: UrlMemo,
        stop: threading.Event | None = None,
    ) -> None:
        """`stop` ends waits for servers when it is set; `close` ends waits for room too."""
        self.scratch = Scratch(scratch_folder, options.scratch_bytes)
        """The working set."""
        self._client = HttpClient(options, stop)
        self._memo = memo
        self._versions: dict[str, Validators] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End what is under way with CancelledError, remove every download, and write the memo."""
        self._client.close()
        self.scratch.close()
        self._memo.save()

    def revalidate(self, url: str) -> bytes | None:
        """The value that was remembered for what the URL gives, if its server says that it still gives that.

        None where there is no such value. Nothing is downloaded. Raises SampleError.
        """
        known = self._memo.get(redact(url))
        if known is None or not _may_remember(url, known[0]):
            return None
        validators, value = known
        return value if self._client.is_unchanged(url, validators) else None

    def download(self, url: str, digest: str | None = None) -> ScratchFile:
        """What the URL gives, as a file to be released. With `digest`, no other bytes will do. Raises SampleError."""
        file = self.scratch.file()
        try:
            fetched = self._client.download(url, file)
            if digest is not None and fetched.digest != digest:
                raise failure(Reason.CHANGED, "the bytes are no longer those of the sample's key; they will be anew")
            file.finish(fetched.digest)
        except BaseException:
            file.release()
            raise
        if fetched.validators is not None and _may_remember(url, fetched.validators):
            self._versions[url] = fetched.validators  # by all of it: two may differ in what is redacted
        return file

    def remember(self, url: str, value: bytes) -> None:
        """Keep a value that was computed from the last download of the URL, for `revalidate` in later runs."""
        validators = self._versions.pop(url, None)
        if validators is not None:  # else its server says nothing that tells versions apart
            self._memo.remember(redact(url), validators, value)


def _may_remember(url: str, validators: Validators) -> bool:
    """Two objects whose URLs look the same without secrets can share a date, hardly an ETag."""
    return validators.etag is not None or not may_hide_identity(url)
