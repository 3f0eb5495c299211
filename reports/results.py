"""A folder of results as a report takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fovcache.bench.profiler.result import Profile
from fovcache.maintain.contents import CacheContents
from fovcache.probes.quality.result import Quality
from fovcache.probes.result import Ablation, ArmComparison
from fovcache.probes.train.result import TrainSuite


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What a build came to, as far as a report shows it."""

    file: str
    """The name of its file."""
    dataset: str
    """The dataset's name."""
    samples: int
    """Samples that the sources hold."""
    computed: int
    """Samples computed by it."""
    reused: int
    """Samples whose features were there."""
    failed: int
    """Samples without a feature."""
    seconds: float
    """From the arguments to the last write."""
    load_seconds: float
    """Imports and loading the encoder, not in `seconds`."""
    bytes_written: int
    """Bytes of shards."""

    @classmethod
    def of(cls, file: str, document: Mapping[str, Any]) -> Build:
        """From what `fovcache build --json` wrote, already checked."""
        names = ("samples", "computed", "reused", "failed", "seconds", "load_seconds", "bytes_written")
        return cls(file=file, dataset=document["dataset_name"], **{name: document[name] for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a folder holds. Names are those of files."""

    name: str
    """The folder's name."""
    profiles: Mapping[str, Profile]
    """By file name, in the order of the report."""
    builds: tuple[Build, ...] = ()
    """Cold before warm."""
    caches: tuple[CacheContents, ...] = ()
    """Those that were read."""
    ablations: Mapping[str, Ablation]
    """By file name, in the order of the report."""
    arms: Mapping[str, tuple[ArmComparison, ...]] = field(default_factory=dict)
    """Of the ablations that have some, by the ablation's file name."""
    cells: tuple[str, ...] = ()
    """Cells of ablations, `REPRESENTATION:EXPERIMENT`, whose confusion is drawn beside that of the chosen one."""
    qualities: Mapping[str, Quality] = field(default_factory=dict)
    """By file name, in the order of the report."""
    trainings: Mapping[str, TrainSuite] = field(default_factory=dict)
    """By file name, in the order of the report."""
    warnings: tuple[str, ...] = ()
    """What was left out, and why."""
