"""What a build came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..keys.recipe import Feature
from ..sources.scan import Scan
from ..store.manifest import Failure


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
    """`{digest, encoder, layer, pool, dtype}` of each feature asked for."""
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


def sample_failures(scan: Scan, failed: Mapping[str, Failure]) -> tuple[SampleFailure, ...]:
    """What could not be read, and the samples that failed, by key."""
    return tuple(
        SampleFailure(uri=item.uri, stage="fetch", reason=item.reason, permanent=item.permanent)
        for item in scan.unreadable
    ) + tuple(
        SampleFailure(uri=sample.uri, stage=failure.stage, reason=failure.reason, permanent=failure.permanent)
        for sample in scan.samples
        if (failure := failed.get(sample.key)) is not None
    )


def feature_row(feature: Feature, encoder: str) -> dict[str, str]:
    """A feature as reports list it."""
    return {
        "digest": feature.digest,
        "encoder": encoder,
        "layer": feature.layer,
        "pool": feature.pool,
        "dtype": feature.dtype,
    }
