"""What a build came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFailure:
    """A sample of the dataset that has no feature."""

    uri: str
    """Where it stands in its source."""
    stage: str
    """`fetch`, `decode` or `encode`."""
    reason: str
    """Why."""
    permanent: bool
    """False where trying again may help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build came to; `samples` = `computed` + `reused` + `failed`."""

    samples: int
    """Samples that the sources hold, unreadable ones included."""
    computed: int
    """Samples computed now; of samples with equal content one is computed and the others reuse it."""
    reused: int
    """Samples whose features were there."""
    failed: int
    """Samples without a feature."""
    seconds: float
    """From the arguments to the last write, without imports and loading the encoder."""
    load_seconds: float
    """Imports, and loading and fingerprinting the encoder."""
    samples_per_s: float
    """Computed samples per second."""
    bytes_written: int
    """Bytes of the shards that were written."""
    dataset: str
    """The dataset's digest."""
    dataset_name: str
    """Its name."""
    recipes: tuple[str, ...]
    """Digests."""
    features: tuple[dict[str, Any], ...]
    """`{digest, layer, pool, dtype}` of each feature asked for."""
    stages: tuple[dict[str, Any], ...]
    """`{id, resource, n, total_s}`: busy seconds, added over threads."""
    failures: tuple[SampleFailure, ...]
    """The samples without a feature, and why."""
    batch_size: int
    """The batch size at the end; 0 when nothing was computed."""
    warnings: tuple[str, ...] = ()
    """What a user should know."""

    @property
    def exit_status(self) -> int:
        """0, or 1 while any sample has no feature."""
        return 1 if self.failed else 0

    def document(self) -> dict[str, Any]:
        """As `--json` writes it."""
        return asdict(self)
