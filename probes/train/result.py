"""What controlled training came to: runs with their evaluations, the plan beside what was, and the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fovcache.errors import UsageError
from fovcache.typed_json import revive

FORMAT = "fovbench train 1"
RESULT_FILE = "train.json"
RUN_FORMAT = "fovbench training run 1"
RUN_FILE = "run.json"
LOG_FILE = "log.jsonl"
BASE = "base"
"""The arm that is the configuration itself."""
MAIN, CONTROL = "main", "control"
"""Tasks: the configuration's own, and the negative control."""
DONE, STOPPED, FAILED = "done", "stopped", "failed"
STATES = (DONE, STOPPED, FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The validation set, once."""

    samples_seen: int
    """Training samples before it."""
    values: Mapping[str, float] = field(hash=False)
    """Means over the validation set by name: `loss`, and what else the model says."""
    seconds: float
    """Of the evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Parameters of one part of a model, by what training does to them; numbers, not tensors."""

    part: str
    """The part's name."""
    trained: int
    """Receive a gradient."""
    unused: int
    """Could be trained, and receive none in this configuration: they stay as they began."""
    frozen: int
    """Are not to be trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Wall time of a run by what it went to, in seconds."""

    compute_s: float
    """Forward, backward, optimiser."""
    data_s: float
    """Waiting for batches."""
    evaluation_s: float
    """Evaluating."""
    checkpoint_s: float
    """Writing checkpoints."""
    other_s: float
    """The rest: logging, starting."""

    @property
    def wall_s(self) -> float:
        """All of it."""
        return self.compute_s + self.data_s + self.evaluation_s + self.checkpoint_s + self.other_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will take, by a measured warm-up."""

    samples: int
    """In all."""
    steps: int
    """In all."""
    evaluations: int
    """In all."""
    checkpoints: int
    """That are written; `keep` of them stay."""
    spent: Spent
    """Expected."""
    wall_ci95_s: tuple[float, float] | None
    """Of the wall time, from how much the warm-up's steps, evaluations and checkpoints differ; None without spread."""
    warmup_steps: int
    """Measured steps, after those that were dropped."""
    dropped_steps: int
    """Steps of the warm-up that were not counted."""
    disk_bytes: int
    """Most that is on disk at once: checkpoints and logs."""
    memory_bytes: int
    """Peak while warming up: of the device, or of the process on the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionMap:
    """Where a query looks in the frames of one sample of the validation set."""

    name: str
    """Of the query: `coarse`, `fine`."""
    sample: str
    """Its uri."""
    frames: tuple[tuple[tuple[float, ...], ...], ...]
    """[frames][rows][columns]: attention to each patch, mean over heads, sum 1 with the class token's left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run: an arm on a task with a seed."""

    arm: str
    """BASE, or the arm's name."""
    task: str
    """MAIN or CONTROL."""
    seed: int
    """Of initialisation, order and everything that is drawn."""
    state: str
    """Of STATES. A run that was stopped can be resumed."""
    reason: str = ""
    """Why it was stopped or failed, in a line."""
    samples_seen: int
    """Training samples."""
    steps: int
    """Optimiser steps."""
    evaluations: tuple[Evaluation, ...]
    """In order."""
    validation_hash: str
    """Of the fixed validation set; equal for all that may be compared."""
    num_validation: int
    """Samples of it."""
    parameters: tuple[ParameterGroup, ...]
    """The audit before training."""
    samples_per_second: float
    """Training samples by wall time without evaluations and checkpoints, since the run was last started."""
    data_wait_share: float
    """Of that time, waiting for batches."""
    kernel_active_share: float | None
    """Share of it that any kernel ran on the GPU, by NVML; None on the CPU."""
    peak_memory_bytes: int
    """Of the device, or of the process on the CPU."""
    num_resumed: int
    """How many times it was taken up again."""
    spent: Spent
    """Since the run was last started."""
    plan: Plan | None = None
    """What was planned before."""
    events: tuple[str, ...] = ()
    """What a reader should know: out of memory and halved, gradient steps that float16 left out."""
    attention: tuple[AttentionMap, ...] = ()
    """For the report."""
    format: str = RUN_FORMAT
    """Of the file."""

    @property
    def final(self) -> Mapping[str, float]:
        """The last evaluation's values; empty where there was none."""
        return self.evaluations[-1].values if self.evaluations else {}

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition of the verdict."""

    name: str
    """In a few words."""
    holds: bool | None
    """None where it could not be asked: an arm is missing, or fewer than 3 seeds."""
    said: str
    """What was found, a sentence with its numbers."""
    mean: float | None = None
    """The difference or the ratio that it is about."""
    ci: tuple[float, float] | None = None
    """Its interval."""
    level: float = 0.95
    """Of the interval."""
    neutral: float = 0.0
    """What stands for no difference: 0 for differences, 1 for ratios."""
    per_seed: tuple[float, ...] = ()
    """Each seed's own difference or ratio, in the order of the seeds; what the report marks beside the mean."""
    within: tuple[float, float] | None = None
    """Of a test of equivalence: the bounds that the interval must lie in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a finer look helps, claimed only if every condition holds."""

    helps: bool
    """Whether all conditions hold."""
    sentence: str
    """What may be said."""
    metric: str
    """The value that is compared, smaller being better."""
    conditions: tuple[Condition, ...]
    """One by one."""
    diagnostics: tuple[Condition, ...] = ()
    """What proves nothing: the ratio of two modes of one model, said to be biased."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSuite:
    """All runs of a configuration."""

    name: str
    """The configuration's."""
    cache: str
    """The cache's folder, as the configuration names it."""
    dataset: str
    """Its name; of a stream its sources."""
    model: Mapping[str, Any] = field(hash=False)
    """The base's model, with all settings."""
    settings: Mapping[str, Any] = field(hash=False)
    """The base's recipe."""
    data: Mapping[str, Any] = field(hash=False)
    """The feed's document: kind, dataset, features."""
    arms: Mapping[str, str] = field(hash=False)
    """Arm → what it changes, in words: `model.mode = "coarse" (base: "fine")`."""
    runs: tuple[Run, ...]
    """Failed ones too."""
    verdict: Verdict | None
    """None where the configuration asks for none."""
    control_verdict: Verdict | None = None
    """What the comparison of base and coarse says on the negative control, where it should be no benefit; None where
    there is no control or no verdict."""
    control: str = ""
    """What makes the control of the main task, in words: `dataset = "global" (the main task: "cue")`; empty without."""
    environment: Mapping[str, Any] = field(hash=False)
    """Machine and versions."""
    seconds: float
    """Wall time of the command that wrote this."""
    warnings: tuple[str, ...] = ()
    """What a reader should know."""
    format: str = FORMAT
    """Of the file."""

    @property
    def exit_status(self) -> int:
        """0 if every run is done."""
        return int(any(run.state != DONE for run in self.runs))

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def read_suite(path: Path) -> TrainSuite:
    """What `fovbench train` wrote. Raises UsageError."""
    suite: TrainSuite = _read(path, TrainSuite, FORMAT)
    return suite


def read_run(path: Path) -> Run:
    """What one run wrote. Raises UsageError."""
    run: Run = _read(path, Run, RUN_FORMAT)
    return run


def _read(path: Path, what: type[Any], expected: str) -> Any:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != expected:
        raise UsageError(f"{path} is of format {found!r}, expected {expected!r}: run `fovbench train` again")
    try:
        return revive(what, document)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise UsageError(f"{path} does not hold what its format says: {error}") from error
