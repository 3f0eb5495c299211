"""How patient and how greedy fetching is."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError

_RANGES: dict[str, tuple[float, float]] = {
    "connect_timeout_s": (0.001, 3600),
    "read_timeout_s": (0.001, 3600),
    "retries": (0, 100),
    "backoff_s": (0, 3600),
    "max_wait_s": (0, 3600),
    "max_redirects": (0, 100),
    "max_file_bytes": (1, 2**63 - 1),
    "min_bytes_per_s": (0, 2**40),
    "rate_window_s": (0.001, 3600),
    "concurrency": (1, 1024),
    "scratch_bytes": (1, 2**63 - 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOptions:
    """What people may set about fetching. None of it is part of a key."""

    connect_timeout_s: float = 10.0
    """How long a connection, with its TLS handshake, may take for each of a host's addresses, in seconds."""
    read_timeout_s: float = 30.0
    """How long a server may send nothing, in seconds."""
    retries: int = 4
    """How often a transient failure is tried again before it is recorded; 0 for never."""
    backoff_s: float = 0.5
    """The first retry comes at once, the n-th after backoff_s · 2^(n−1) seconds and up to backoff_s more at random."""
    max_wait_s: float = 30.0
    """No wait between tries is longer, whatever a Retry-After says, in seconds."""
    max_redirects: int = 5
    """How many redirects are followed from one URL."""
    max_file_bytes: int = 1 << 32
    """A larger file is refused."""
    min_bytes_per_s: int = 1024
    """A server that sends less, on average over `rate_window_s`, is given up; 0 for no minimum."""
    rate_window_s: float = 10.0
    """Over how many seconds of waiting for a server its rate is taken."""
    concurrency: int = 8
    """How many downloads run at a time."""
    scratch_bytes: int = 10 * 10**9
    """How many bytes of downloads may lie on disk at a time."""

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:  # NaN is in no range
                raise UsageError(f"{name} of {value} is out of range; expected {low:g} to {high:g}")
