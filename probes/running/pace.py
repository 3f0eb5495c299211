"""How much time a run has left, by what its cells cost."""

from __future__ import annotations

import time
from collections.abc import Callable

_LEAST_S = 1.0
"""Nothing is guessed from less."""


class Pace:
    """Costs are of any unit. What an earlier run finished is no work, and says nothing of the pace."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._left = total
        self._done = 0
        self._clock = clock
        self._started = clock()

    def skip(self, cost: int) -> None:
        """There is that much less to do."""
        self._left -= cost

    def done(self, cost: int) -> None:
        """That much has been done now."""
        self._left -= cost
        self._done += cost

    @property
    def left_s(self) -> float | None:
        """Seconds; None while nothing can be said."""
        elapsed = self._clock() - self._started
        return elapsed * self._left / self._done if self._done and elapsed >= _LEAST_S else None
