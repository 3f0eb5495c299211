"""Settings of the training loop: everything that a recipe decides, counted in samples."""

from __future__ import annotations

from dataclasses import dataclass

from fovcache.errors import UsageError, nearest

SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = ("fp32", "bf16", "fp16")
HALVE, STOP = "halve", "stop"
MEMORY_POLICIES = (HALVE, STOP)
TRACKERS = ("tensorboard", "wandb")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """One recipe, checked. Raises UsageError naming the setting."""

    samples: int
    """Training samples in all, each time that one is used counted; rounded up to whole steps."""
    batch_size: int
    """Samples of a step, over all processes and micro-batches."""
    learning_rate: float
    """The largest."""
    warmup_samples: int
    """Over which the learning rate rises linearly from 0."""
    schedule: str
    """Of SCHEDULES: what follows the warm-up."""
    weight_decay: float
    """AdamW's, of matrices and kernels; biases, norms' and other vectors have none."""
    betas: tuple[float, float]
    """AdamW's."""
    epsilon: float
    """AdamW's."""
    clip_norm: float
    """Largest L2 norm of all gradients together; 0 for no clipping."""
    precision: str
    """Of PRECISIONS: the autocast dtype. Parameters and optimiser are float32."""
    evaluate_every: int
    """Samples between evaluations; the first comes before training, the last after it."""
    validation_samples: int
    """Of the fixed validation set."""
    checkpoint_every: int
    """Samples between checkpoints; there is one at the end too."""
    keep: int
    """How many checkpoints stay: the last ones."""
    out_of_memory: str
    """Of MEMORY_POLICIES. `halve`: the step is done again from its start with micro-batches of half the size, and an
    event is logged; several processes stop. A step is never skipped."""
    micro_batch_size: int | None = None
    """Samples of a process that are computed at once; None for all of its share of a step."""
    parts: tuple[str, ...] = ()
    """The model's parts that are trained; empty for all."""
    compile: bool = False
    """Whether the module is run through torch.compile."""
    trackers: tuple[str, ...] = ()
    """Of TRACKERS, beside the JSON lines."""

    def __post_init__(self) -> None:
        for name in ("samples", "batch_size", "evaluate_every", "validation_samples", "checkpoint_every", "keep"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _check(self.warmup_samples >= 0, "warmup_samples", self.warmup_samples, "0 or more")
        _check(self.learning_rate > 0, "learning_rate", self.learning_rate, "more than 0")
        _check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _check(self.epsilon > 0, "epsilon", self.epsilon, "more than 0")
        _check(self.clip_norm >= 0, "clip_norm", self.clip_norm, "0 for none, or more")
        _check(len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas), "betas", self.betas, "two in [0, 1)")
        for name, allowed in (("schedule", SCHEDULES), ("precision", PRECISIONS), ("out_of_memory", MEMORY_POLICIES)):
            value = getattr(self, name)
            if value not in allowed:
                raise UsageError(f"{name} = {value!r}{nearest(value, allowed)}")
        for tracker in self.trackers:
            if tracker not in TRACKERS:
                raise UsageError(f"trackers holds {tracker!r}{nearest(tracker, TRACKERS)}")
        micro = self.micro_batch_size
        _check(micro is None or 1 <= micro <= self.batch_size, "micro_batch_size", micro, "from 1 to batch_size")

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return -(-self.samples // self.batch_size)


def _check(fits: bool, name: str, value: object, expected: str) -> None:
    if not fits:
        raise UsageError(f"{name} = {value}, expected {expected}")
