"""Builds of what lies on a server of the tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fault_server import FaultServer
from PIL import Image

import fovcache
from fovcache.builder.report import BuildReport
from fovcache.fetch.options import FetchOptions
from fovcache.fetch.reasons import reason_of

SMALL_BYTES = 160_000
HURRIED = FetchOptions(
    read_timeout_s=0.8,
    retries=1,
    backoff_s=0.01,
    max_wait_s=0.05,
    max_file_bytes=1 << 19,
    rate_window_s=0.3,
    concurrency=24,
    scratch_bytes=SMALL_BYTES,
)


def picture(seed: int, side: int = 8) -> bytes:
    """A PNG like no other."""
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def pictures(num: int, *, seed: int = 0, side: int = 8) -> dict[str, bytes]:
    return {f"/{number:03d}.png": picture(1000 * seed + number, side) for number in range(num)}


def shard_of(members: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


class Remote:
    """A server, a cache, and builds of one from the other."""

    def __init__(self, lab: Any, server: FaultServer) -> None:
        self.lab = lab
        self.server = server
        self.folder: Path = lab.folder
        self.cache = fovcache.open(self.folder / "cache")

    def urls(self, urls: Mapping[str, Any] | list[str], name: str = "urls.txt") -> str:
        """A URL list."""
        path = self.folder / name
        path.write_text("".join(f"{url if '://' in url else self.server.url + url}\n" for url in urls))
        return str(path)

    def put(self, files: Mapping[str, bytes]) -> None:
        for path, data in files.items():
            self.server.put(path, data)

    def build(self, source: str, **more: Any) -> BuildReport:
        common = {"encoder": self.lab.encoder, "layers": ["conv"], "pool": "tokens", "device": "cpu", "fetch": HURRIED}
        report = self.cache.build(source, **{"num_workers": 2, "batch_size": 4, "shard_bytes": 4096, **common, **more})
        assert self.left() == []
        return report

    def left(self) -> list[str]:
        """What a finished build must not leave."""
        return [*self.lab.leftovers(self.cache.storage.root), *self.lab.files(self.cache.storage.root, "scratch")]

    def forget_counts(self) -> None:
        self.server.counts.requests.clear()
        self.server.counts.headers.clear()
        self.server.counts.body_bytes = 0

    def asked_in_full(self) -> set[str]:
        """Paths that were asked for without a condition."""
        counts = self.server.counts
        return {
            path.partition("?")[0]
            for (method, path), headers in zip(counts.requests, counts.headers, strict=True)
            if method == "GET" and "If-None-Match" not in headers
        }


def reasons(report: BuildReport) -> dict[str, tuple[str, str | None, bool]]:
    """Stage, reason and whether it is permanent, by uri."""
    return {item.uri: (item.stage, reason_of(item.reason), item.permanent) for item in report.failures}
