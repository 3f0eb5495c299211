"""How an ablation is run on its samples: the split rule, the head, a partition for each seed, and a trial's key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fovcache.errors import UsageError
from fovcache.keys.digest import bytes_digest, document_digest

from .config import INITIALISATION, ORDER, SEEDED, SPLIT, AblationConfig
from .heads.head import Head, make_head
from .result import SHUFFLED_LABELS
from .samples import LabelledSamples
from .splits import (
    GIVEN,
    INDEPENDENT,
    RESPLIT,
    TEST,
    VALIDATION_NAMES,
    Partition,
    SplitRule,
    partition,
    varies_with_seed,
)
from .statistics.intervals import ONE_HEAD, SOME_HEADS

PROTOCOL_VERSION = 2
"""Raised when the same trial would come to other numbers: it is in every trial's key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """The same for all trials of an ablation."""

    rule: SplitRule
    """How samples are divided."""
    head: Head
    """What is fitted."""
    partitions: Mapping[int, Partition]
    """By seed."""
    samples_digest: str
    """Of which samples there are, and their labels."""
    seeds: tuple[int, ...]
    """One trial of each cell for each."""
    seeds_vary: tuple[str, ...]
    """As `AblationConfig.seeds_vary`."""
    seed_varies: str
    """What a seed decides, in words."""
    heads: str
    """The heads that an interval on one test set is of, in words."""
    num_groups: int
    """Distinct groups; 0 where no sample names one."""

    @property
    def test_is_fixed(self) -> bool:
        """Whether every seed's test samples are the same, so that they are what intervals must think of as drawn."""
        return self.rule.kind == GIVEN or SPLIT not in self.seeds_vary

    @property
    def sampling(self) -> str:
        """How the seeds' test samples belong together: one of splits.KINDS, `given` for those that are fixed."""
        return GIVEN if self.test_is_fixed else self.rule.kind

    def seed_of(self, what: str, seed: int) -> int:
        """The number that decides one of SEEDED in trials of a seed."""
        return seed if what in self.seeds_vary else self.seeds[0]

    def key(self, dataset: str, features: Sequence[str], control: str, seed: int) -> str:
        """Of a trial: features are the digests of what is concatenated, in that order.

        Names of experiments and layers decide nothing, and which layers a random control drew its features say.
        """
        is_shuffled = control == SHUFFLED_LABELS
        seeded = SEEDED if self.head.is_trained else (SPLIT,)
        part = {"part": self.seeds.index(seed)} if self.rule.kind == INDEPENDENT else {}
        document = {
            "kind": "trial",
            "version": PROTOCOL_VERSION,
            "dataset": dataset,
            "samples": self.samples_digest,
            "features": list(features),
            "labels": {"shuffled": seed} if is_shuffled else "true",
            "split": asdict(self.rule),
            "head": self.head.document(),
            "seeds": {what: self.seed_of(what, seed) for what in seeded} | part,
        }
        return document_digest(document)

    def document(self) -> dict[str, Any]:
        """As `Ablation.protocol` has it."""
        return {
            "version": PROTOCOL_VERSION,
            "split": asdict(self.rule),
            "head": self.head.name,
            "settings": self.head.document(),
            "setting_chosen_on": "validation; of equals the simplest",
            "seeds": list(self.seeds),
            "seed_varies": self.seed_varies,
            "standardised": "each number to mean 0 and standard deviation 1 on train; constant ones are left out",
            "num_groups": self.num_groups,
        }


def make_protocol(config: AblationConfig, samples: LabelledSamples) -> Protocol:
    """Settle what the configuration leaves to the dataset, and divide the samples once for each seed.

    Raises UsageError for a key that would not be read, SplitError where samples cannot be divided so.
    """
    rule = _rule(config, samples)
    head = make_head(config.head.kind, config.head.settings)
    split_seeds = config.seeds if SPLIT in config.seeds_vary else config.seeds[:1]
    drawn = {
        seed: partition(
            samples.keys,
            samples.labels,
            samples.groups,
            samples.splits,
            rule,
            seed,
            part=place if rule.kind == INDEPENDENT else 0,
            classes=samples.classes,
            uris=samples.uris,
        )
        for place, seed in enumerate(split_seeds)
    }
    return Protocol(
        rule=rule,
        head=head,
        partitions={seed: drawn.get(seed, drawn[config.seeds[0]]) for seed in config.seeds},
        seeds=config.seeds,
        seeds_vary=config.seeds_vary,
        samples_digest=bytes_digest(samples.positions.tobytes() + samples.labels.tobytes()),
        seed_varies=_seed_varies(config, rule, head, samples),
        heads=_heads(config, rule, head, samples),
        num_groups=samples.num_groups,
    )


def _seed_varies(config: AblationConfig, rule: SplitRule, head: Head, samples: LabelledSamples) -> str:
    said = [varies_with_seed(samples.splits, rule)] if SPLIT in config.seeds_vary else []
    words = {INITIALISATION: "the head's first weights and dropout", ORDER: "the order of its samples"}
    said += [words[what] for what in _varied(config, head)]
    if SPLIT not in config.seeds_vary:
        said = [*(said or ["nothing"]), "the split is that of the first seed"]
    return "; ".join(said)


def _heads(config: AblationConfig, rule: SplitRule, head: Head, samples: LabelledSamples) -> str:
    is_drawn = SPLIT in config.seeds_vary and not varies_with_seed(samples.splits, rule).startswith("nothing")
    words = {INITIALISATION: "other first weights", ORDER: "another order of its samples"}
    said = " and ".join(words[what] for what in _varied(config, head))
    if not is_drawn and not said:
        return ONE_HEAD
    return (SOME_HEADS if is_drawn else "heads fitted on this train set") + (f", with {said}," if said else "")


def _varied(config: AblationConfig, head: Head) -> list[str]:
    """What seeds decide beside the split."""
    return [what for what in (INITIALISATION, ORDER) if what in config.seeds_vary] if head.is_trained else []


def _rule(config: AblationConfig, samples: LabelledSamples) -> SplitRule:
    choice, splits = config.split, set(samples.splits or ())
    kind = choice.kind or (GIVEN if TEST in splits else RESPLIT)
    own_validation = kind == GIVEN and splits & set(VALIDATION_NAMES)
    for key, value, is_read, why in (
        ("test", choice.test, kind != GIVEN, "the dataset has its own test split"),
        ("validation", choice.validation, not own_validation, "the dataset has its own validation split"),
    ):
        if value is not None and not is_read:
            raise UsageError(
                f"[split]: {key} = {value} is not read, since {why}; leave it out, or say kind = {RESPLIT!r}"
            )
    shares = {key: getattr(choice, key) for key in ("test", "validation") if getattr(choice, key) is not None}
    group = any(samples.groups or ()) if choice.group is None else choice.group
    num_parts = len(config.seeds) if kind == INDEPENDENT else 1
    return SplitRule(kind=kind, group=group, shots=choice.shots, num_parts=num_parts, **shares)
