"""Deriving representations of everything that a build was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..builder.progress import OnProgress, silent
from ..builder.report import BuildReport
from ..keys.recipe import INTEGER_DTYPE, Feature
from ..loaders.select import open_features
from ..store.documents import read_keyed
from ..store.layout import feature_name
from ..store.storage import LocalStorage
from .derive import derive
from .representation import Representation


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedReport:
    """What one representation of one feature came to."""

    encoder: str
    """The encoder's name."""
    layer: str
    """The layer."""
    representation: str
    """The representation's name."""
    samples: int
    """Samples that have the layer."""
    computed: int
    """Rows computed now: of every sample in the shards that lacked some."""
    failed: int
    """Samples whose numbers are not finite."""
    row_shape: tuple[int, ...] | None
    """`[numbers]`; None when no sample has a row, or when they differ."""
    seconds: float
    """How long it took."""
    bytes_written: int
    """Bytes of the shards that were written."""
    digest: str
    """Of the derived feature."""
    input: str
    """Of the feature that it was derived from."""

    def document(self) -> dict[str, Any]:
        """As `--json` writes it."""
        return asdict(self)


def derive_built(
    storage: LocalStorage,
    report: BuildReport,
    representations: Sequence[Representation],
    *,
    device: str = "auto",
    on_progress: OnProgress = silent,
) -> tuple[DerivedReport, ...]:
    """Derive each representation from every feature of a build, for the dataset that it wrote.

    Token ids are left out beside other features. Raises UsageError where there is nothing else.
    """
    derived = []
    is_of_ids = all(row["dtype"] == INTEGER_DTYPE for row in report.features)
    for row in report.features:
        if row["dtype"] == INTEGER_DTYPE and not is_of_ids:
            continue
        if not storage.exists(feature_name(row["digest"])):  # no sample could be read
            continue
        feature = Feature.from_document(read_keyed(storage, feature_name(row["digest"]), row["digest"]))
        features = open_features(storage, report.dataset, feature)
        for representation in representations:
            done = derive(storage, features, representation, device=device, on_progress=on_progress)
            shapes = done.features.rows.shapes
            derived.append(
                DerivedReport(
                    encoder=row["encoder"],
                    layer=row["layer"],
                    representation=representation.name,
                    samples=len(features),
                    computed=done.computed,
                    failed=len(features) - len(done.features),
                    row_shape=tuple(shapes[0]) if len(shapes) == 1 else None,
                    seconds=done.seconds,
                    bytes_written=done.bytes_written,
                    digest=done.features.feature.digest,
                    input=feature.digest,
                )
            )
    return tuple(derived)
