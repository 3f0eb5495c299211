"""What a running build counts."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..pipeline.stats import StageStats
from .progress import OnProgress, Progress

logger = logging.getLogger(__name__)


@dataclass
class Tally:
    """Counts and times of one build, and whom to tell."""

    on_progress: OnProgress
    stages: tuple[StageStats, ...] = ()
    bytes_written: int = 0
    batch_size: int = 0
    num_done: int = 0
    num_wanted: int = 0
    load_s: float = 0.0
    warnings: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Count a block of code as loading the encoder, which reports keep apart."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.load_s += time.perf_counter() - start

    def encoded(self, count: int, note: str) -> None:
        """Count samples that were encoded."""
        self.num_done += count
        self.on_progress(Progress(stage="encode", done=self.num_done, total=self.num_wanted, note=note))

    def warn(self, text: str) -> None:
        """Say something that the user should know, now and in the report."""
        logger.warning(text)
        self.warnings.append(text)
