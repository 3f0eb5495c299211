"""Finding the samples of a build's sources: local files hashed, URLs asked whether they are what they were."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..sources.scan import Found, Scan, scan_sources
from ..store.layout import MEMO, SCRATCH, URL_MEMO
from ..store.memo import Memo
from ..store.storage import LocalStorage
from ..store.url_memo import UrlMemo
from .downloads import Downloads
from .progress import OnProgress, Progress, silent
from .request import BuildOptions, Resolution, Resolved


def find_samples(
    sources: Sequence[str],
    suffixes: frozenset[str],
    options: BuildOptions,
    stack: contextlib.ExitStack,
    *,
    storage: LocalStorage | None,
    remember: bool = False,
    trust_files: bool = True,
    on_progress: OnProgress = silent,
) -> tuple[Scan, Downloads | None]:
    """Scan sources; and, where there are URLs, what downloads them until `stack` is closed.

    `storage` is a cache that knows what files and URLs held; only to `remember` is anything written there. Without
    `trust_files` every file is read anew. Raises SourceError.
    """
    on_progress(Progress(stage="scan", done=0, total=0))
    root = storage.path if storage is not None else None
    memo = Memo(root(MEMO) if root and trust_files else None, ignore=options.rehash)
    scan = scan_sources(
        sources,
        suffixes,
        memo,
        num_threads=options.threads(),
        allow_file_urls=options.allow_file_urls,
        limit=options.limit,
    )
    if remember:
        memo.save()
    remote = scan.remote
    if not remote:
        return scan, None
    from ..fetch.fetcher import Fetcher  # loads an HTTP client, which local builds do without

    scratch = (
        root(SCRATCH)
        if root and remember
        else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fovcache-")))
    )
    memo_of_urls = UrlMemo(root(URL_MEMO) if root else None, ignore=options.rehash, read_only=not remember)
    fetcher = Fetcher(options.fetch, scratch, memo_of_urls)
    fetch = options.fetch
    downloads = Downloads(fetcher, suffixes, concurrency=fetch.concurrency, scratch_bytes=fetch.scratch_bytes)
    stack.callback(downloads.close)
    downloads.recall(
        remote, lambda num_checked: on_progress(Progress(stage="check", done=num_checked, total=len(remote)))
    )
    return scan, downloads


def by_kind(found: Found, resolution: Resolution) -> list[tuple[Resolved, list[str]]]:
    """Distinct keys of rows by what reads them, both in order; kinds without a sample are left out."""
    if resolution.is_of_captions:
        return [(resolution.each[0], list(found.captions))] if found.captions else []
    keys: dict[str, list[str]] = {resolved.recipe.digest: [] for resolved in resolution.each}
    recipe_of: dict[str, str] = {}
    for key, location in found.locations.items():
        suffix = location.suffix
        if suffix not in recipe_of:
            recipe_of[suffix] = resolution.of(suffix).recipe.digest
        keys[recipe_of[suffix]].append(key)
    return [(resolved, own) for resolved in resolution.each if (own := keys[resolved.recipe.digest])]
