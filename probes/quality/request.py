"""What a look at feature quality is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from fovcache.errors import UsageError

from .vectors import MIN_VECTORS

MAX_SAMPLES = 10_000
_MAX_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRequest:
    """Which features, and how many samples; what is None is not asked about."""

    dataset: str | None = None
    """Its name or digest."""
    split: str | None = None
    """None for all samples."""
    encoder: str | None = None
    """Its name, or `PATH.py:FACTORY`."""
    weights: str | None = None
    """As builds were given them."""
    pool: str | None = None
    """`cls`, `mean` or `tokens`."""
    store_dtype: str | None = None
    """`bf16`, `fp16` or `fp32`."""
    recipe: str | None = None
    """The beginning of a recipe's digest."""
    layers: tuple[str, ...] = ("**",)
    """Globs."""
    max_samples: int = MAX_SAMPLES
    """Of more, so many are drawn by content."""
    seed: int = 0
    """Decides which."""
    each_token: bool = False
    """Take each token, place or frame for a vector, instead of their mean; `max_samples` then counts vectors."""
    device: str = "auto"
    """Where it is computed. Decides nothing but the last bits."""

    def __post_init__(self) -> None:
        if self.max_samples < MIN_VECTORS:
            raise UsageError(f"--max-samples {self.max_samples} is too few, expected at least {MIN_VECTORS}")
        if not 0 <= self.seed <= _MAX_SEED:
            raise UsageError(f"--seed {self.seed}, expected a whole number from 0 to {_MAX_SEED:,}")

    @property
    def wanted(self) -> dict[str, str | None]:
        """What a feature must be."""
        names = ("encoder", "weights", "pool", "store_dtype", "recipe")
        return {name: getattr(self, name) for name in names}
