"""The learning rate, a function of the samples that a run has seen and of nothing else: there is no state to save."""

from __future__ import annotations

import math

from ..settings import TrainSettings


def learning_rate(settings: TrainSettings, samples_seen: int) -> float:
    """Of the step that begins when the run has seen `samples_seen` samples.

    It rises linearly from 0 over the warm-up, and then follows a half cosine or a line to 0 at the run's end, or stays.
    """
    warmup, end = settings.warmup_samples, settings.num_steps * settings.batch_size
    if samples_seen < warmup:
        return settings.learning_rate * samples_seen / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    done = min(1.0, (samples_seen - warmup) / max(1, end - warmup))
    factor = (1 + math.cos(math.pi * done)) / 2 if settings.schedule == "cosine" else 1 - done
    return settings.learning_rate * factor
