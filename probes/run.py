"""Running an ablation: what is not finished yet, one set of layers after another, and what all of it came to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fovcache.builder.numerics import numerics_id
from fovcache.builder.progress import OnProgress, Progress, silent
from fovcache.builder.request import pick_device
from fovcache.cache import open_cache
from fovcache.console import THREAD_PREFIX
from fovcache.errors import FovcacheError, UsageError

from .config import INITIALISATION, ORDER, AblationConfig
from .evaluate import Outcome, Prepared, finish, prepare, shuffled_labels
from .features import AblationInput, concatenated, open_input
from .grid import Cell, grid
from .memory import Room, check_memory
from .notices import notices
from .one_thread import one_thread
from .page import PAGE_FILE, page
from .protocol import Protocol, make_protocol
from .result import SHUFFLED_LABELS, Ablation, FailedTrial, Trial
from .result_folder import ResultFolder, open_folder
from .splits import GIVEN
from .summary import Scored, differences, estimates, spoken_for

if TYPE_CHECKING:
    import torch

Made = TypeVar("Made")


def run_ablation(
    config: AblationConfig,
    out: Path,
    on_progress: OnProgress = silent,
    *,
    environment: Mapping[str, Any] | None = None,
) -> Ablation:
    """Run what the folder `out` lacks of an ablation, write there what it came to, and return it.

    A cell that raises is in `failures`, and the others go on. `environment` says what it ran on; None for what the
    library knows of that. Raises UsageError and its kin for what cannot be done as asked, before anything is
    computed; DamageError; EnvironmentFailure when the machine fails.
    """
    device = pick_device(config.device)
    given = open_input(config, open_cache(config.cache_path, create=False))
    protocol = make_protocol(config, given.samples)
    cells = tuple(grid(config, given.sets))
    room = check_memory(given, cells, device)
    with open_folder(out) as folder:
        run = _Run(given, protocol, folder, room, cells, on_progress)
        for group in _groups(cells):
            run.finish(group)
        ablation = run.ablation(config, environment or numerics_id(device, {}))
        folder.write_result(ablation, page(ablation), PAGE_FILE)
    return ablation


def _groups(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Cells of one representation of the same layers: they have the same numbers, which are read once."""
    groups: dict[tuple[str, tuple[str, ...]], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.representation.label, cell.layers), []).append(cell)
    yield from groups.values()


class _Run:
    def __init__(
        self,
        given: AblationInput,
        protocol: Protocol,
        folder: ResultFolder,
        room: Room,
        cells: Sequence[Cell],
        on_progress: OnProgress,
    ) -> None:
        self._given = given
        self._protocol = protocol
        self._folder = folder
        self._room = room
        self._cells = cells
        self._on_progress = on_progress
        self._trials: dict[Cell, Trial] = {}
        self._reasons: dict[Cell, str] = {}

    def finish(self, group: Sequence[Cell]) -> None:
        """Run those cells that no earlier run finished. All are of the same layers and representation."""
        keys = {cell: self._key(cell) for cell in group}
        missing = {key: cell for cell, key in keys.items() if self._folder.finished(key) is None}
        reasons = self._compute(missing) if missing else {}
        for cell, key in keys.items():
            trial = self._folder.finished(key)
            if trial is None:
                self._reasons[cell] = reasons[key]
            else:
                self._trials[cell] = _renamed(trial, cell)
                self._folder.add(self._trials[cell])
        self._say("ablate", len(self._trials) + len(self._reasons))

    def _key(self, cell: Cell) -> str:
        digests = [self._given.digests[cell.representation, layer] for layer in cell.layers]
        return self._protocol.key(self._given.ref.dataset, digests, cell.control, cell.seed)

    def _compute(self, missing: Mapping[str, Cell]) -> dict[str, str]:
        """Run cells of the same layers and representation; why some failed, by key."""
        num_done = len(self._trials) + len(self._reasons)
        try:
            x = self._numbers(next(iter(missing.values())), num_done)
        except UsageError as error:
            return dict.fromkeys(missing, str(error))
        reasons = {}
        pool = ThreadPoolExecutor(self._room.num_workers, f"{THREAD_PREFIX}trial")
        try:
            with one_thread():
                for (key, cell), outcome in zip(missing.items(), self._outcomes(pool, x, missing), strict=True):
                    if isinstance(outcome, str):
                        reasons[key] = outcome
                    else:
                        self._folder.add(self._trial(key, cell, outcome))
                    num_done += 1
                    self._say("ablate", num_done)
        finally:  # a run that is stopped does not wait for the heads that it is at
            pool.shutdown(wait=False, cancel_futures=True)
        return reasons

    def _outcomes(
        self, pool: ThreadPoolExecutor, x: torch.Tensor, missing: Mapping[str, Cell]
    ) -> Iterator[Outcome | str]:
        """Of each cell in turn; why it has none, where it fails."""
        if not self._protocol.head.is_trained:
            return pool.map(lambda item: _or_reason(self._alone, x, *item), missing.items())
        return self._together(pool, x, missing)

    def _alone(self, x: torch.Tensor, key: str, cell: Cell) -> Outcome:
        prepared = self._prepared(x, cell)
        started = time.perf_counter()
        (fitted,) = self._protocol.head.fit([prepared.problem])
        return self._kept(key, cell, finish(prepared, self._protocol.head, fitted, time.perf_counter() - started))

    def _together(
        self, pool: ThreadPoolExecutor, x: torch.Tensor, missing: Mapping[str, Cell]
    ) -> Iterator[Outcome | str]:
        """Trained heads side by side: with all threads, which the bits of a sum may depend on."""
        found = list(pool.map(lambda cell: _or_reason(self._prepared, x, cell), missing.values()))
        ready = [each for each in found if isinstance(each, Prepared)]
        started = time.perf_counter()
        every = iter(self._protocol.head.fit([each.problem for each in ready]) if ready else ())
        share_s = (time.perf_counter() - started) / max(1, len(ready))
        for (key, cell), prepared in zip(missing.items(), found, strict=True):
            if isinstance(prepared, str):
                yield prepared
            else:
                outcome = finish(prepared, self._protocol.head, next(every), share_s)
                yield self._kept(key, cell, outcome)

    def _prepared(self, x: torch.Tensor, cell: Cell) -> Prepared:
        protocol, samples = self._protocol, self._given.samples
        partition = protocol.partitions[cell.seed]
        labels = samples.labels
        if cell.control == SHUFFLED_LABELS:
            labels = shuffled_labels(labels, partition, cell.seed)
        return prepare(
            x,
            labels,
            partition,
            len(samples.classes),
            initialisation_seed=protocol.seed_of(INITIALISATION, cell.seed),
            order_seed=protocol.seed_of(ORDER, cell.seed),
        )

    def _kept(self, key: str, cell: Cell, outcome: Outcome) -> Outcome:
        test = self._protocol.partitions[cell.seed].test
        samples = self._given.samples
        self._folder.keep_predictions(
            key, samples.positions[test], samples.labels[test], outcome.predictions, outcome.probabilities
        )
        return outcome

    def _numbers(self, cell: Cell, num_done: int) -> torch.Tensor:
        """float32 [n, F] of a cell, where heads run."""
        derived = []
        for layer in cell.layers:
            self._say(f"derive {cell.representation.label} of {layer}", num_done)
            derived.append(self._given.derive(cell.representation, layer, str(self._room.device)))
        self._say("ablate", num_done)
        x = concatenated(derived)
        return x.to(self._room.place(self._protocol.head, x))

    def _trial(self, key: str, cell: Cell, outcome: Outcome) -> Trial:
        partition = self._protocol.partitions[cell.seed]
        return Trial(
            key=key,
            representation=cell.representation.label,
            experiment=cell.experiment,
            control=cell.control,
            seed=cell.seed,
            layers=cell.layers,
            head=self._protocol.head.name,
            setting=outcome.setting,
            num_train=len(partition.train),
            num_validation=len(partition.validation),
            num_test=len(partition.test),
            num_features=outcome.num_features,
            num_effective=outcome.num_effective,
            train_accuracy=outcome.train_accuracy,
            validation_accuracy=outcome.validation_accuracy,
            test_accuracy=outcome.test_accuracy,
            chance=outcome.chance,
            seconds=outcome.seconds,
            samples_seen=outcome.samples_seen,
            notes=outcome.notes,
        )

    def _say(self, stage: str, num_done: int) -> None:
        self._on_progress(Progress(stage=stage, done=num_done, total=len(self._cells)))

    def ablation(self, config: AblationConfig, environment: Mapping[str, Any]) -> Ablation:
        """What all of it came to, in the order of the grid."""
        given, samples = self._given, self._given.samples
        trials = tuple(self._trials[cell] for cell in self._cells if cell in self._trials)
        found = estimates(trials, self._protocol.rule, self._scored())
        estimand, interval = spoken_for(found)
        return Ablation(
            name=config.name,
            cache=config.cache,
            dataset=given.ref.name,
            dataset_digest=given.ref.dataset,
            num_samples=len(samples),
            num_missing=samples.num_missing,
            classes=samples.classes,
            class_counts=samples.class_counts,
            experiments=given.sets.experiments,
            single_layers=given.sets.single,
            protocol=self._protocol.document(),
            estimand=estimand,
            interval=interval,
            features=given.used,
            estimates=tuple(estimate for estimate, _ in found),
            differences=differences(trials, tuple(given.sets.experiments), self._protocol.rule, self._scored()),
            trials=trials,
            environment=environment,
            failures=tuple(_failed(cell, self._reasons[cell]) for cell in self._cells if cell in self._reasons),
            warnings=notices(config, given, self._protocol, trials, [interval for _, interval in found]),
        )

    def _scored(self) -> Scored:
        return Scored(folder=self._folder.folder, groups=self._test_groups())

    def _test_groups(self) -> list[str | None] | None:
        """Of the given test samples, which are the same for every seed."""
        rule, groups = self._protocol.rule, self._given.samples.groups
        if rule.kind != GIVEN or not rule.group or groups is None:
            return None
        first = next(iter(self._protocol.partitions.values()))
        return [groups[position] for position in first.test.tolist()]


def _or_reason(function: Callable[..., Made], *values: object) -> Made | str:
    """What it returns, or why one cell fails: it is told, and the others go on."""
    try:
        return function(*values)
    except FovcacheError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - as above
        return f"{type(error).__name__}: {error}"


def _renamed(trial: Trial, cell: Cell) -> Trial:
    """A finished trial as a cell of this grid: names decide nothing, and may be others than when it was run."""
    return replace(
        trial,
        representation=cell.representation.label,
        experiment=cell.experiment,
        control=cell.control,
        seed=cell.seed,
        layers=cell.layers,
    )


def _failed(cell: Cell, reason: str) -> FailedTrial:
    return FailedTrial(
        representation=cell.representation.label,
        experiment=cell.experiment,
        control=cell.control,
        seed=cell.seed,
        reason=" ".join(reason.split()),
    )
