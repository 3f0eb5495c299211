"""What a build came to."""

from __future__ import annotations

from collections.abc import Mapping, Set
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


def outcome(
    scan: Scan, computed: Set[str], failed: Mapping[str, Failure], *, reads_captions: bool
) -> tuple[int, tuple[SampleFailure, ...]]:
    """How many samples were computed now, and what could not be read or failed.

    `computed` and `failed` are by keys: those of samples and, where an encoder `reads_captions`, of captions.
    """
    captions = scan.found().captions.items() if reads_captions else ()
    failed_texts = {caption.text: failed[key] for key, caption in captions if key in failed}
    failures = [
        SampleFailure(uri=item.uri, stage="fetch", reason=item.reason, permanent=item.permanent)
        for item in scan.unreadable
    ]
    num_computed, new = 0, computed - failed.keys()
    new_texts = {caption.text for key, caption in captions if key in new}
    for sample in scan.samples if failed or new else ():
        failure = failed.get(sample.key) or failed_texts.get(sample.caption)
        if failure is not None:
            failures.append(
                SampleFailure(uri=sample.uri, stage=failure.stage, reason=failure.reason, permanent=failure.permanent)
            )
        elif sample.key in new or sample.caption in new_texts:
            num_computed += 1
            new.discard(sample.key)  # of equal content, or text, one was computed and the others reuse it
            new_texts.discard(sample.caption)
    return num_computed, tuple(failures)


def feature_row(feature: Feature, encoder: str) -> dict[str, str]:
    """A feature as reports list it."""
    return {
        "digest": feature.digest,
        "encoder": encoder,
        "layer": feature.layer,
        "pool": feature.pool,
        "dtype": feature.dtype,
    }
