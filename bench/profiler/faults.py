"""What ends a profile early, and how it ends in bounded time then."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from fovcache.errors import FovcacheError
from fovcache.pipeline.stage import Failed

if TYPE_CHECKING:
    from .recorder import Recorder

T = TypeVar("T")

SOURCE = "source"
"""In a stage's place, where the source is meant."""
MAX_FAILED_SAMPLES = 64
"""When so many in a row fail, or all that there are, nothing comes through."""
MAX_FAILED_BATCHES = 4
"""When so many in a row fail, nothing comes through."""
_THREAD = "fovcache-training"
_POLL_S = 0.05
_JOIN_S = 1.0


class ProfileFault(FovcacheError):
    """A stage, or the source, raised, hung, or let nothing through."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason

    @classmethod
    def of(cls, stage: str, error: Exception) -> ProfileFault:
        """For what a stage raised."""
        text = " ".join(str(error).split())
        if isinstance(error, FovcacheError):
            return cls(stage, text)
        return cls(stage, f"raised {type(error).__name__}" + (f": {text}" if text else ""))


class Abandoned(BaseException):
    """Nobody waits for the run any more: unwinds its threads. No Exception, so that no stage's code catches it."""


class _Row:
    """Failures one after the other."""

    def __init__(self, limit: int) -> None:
        self.num_failed = 0
        self._limit = limit
        self._since = 0.0

    def is_over(self, timeout_s: float) -> bool:
        """Count one more: are they too many, or have they gone on for too long?"""
        now = time.monotonic()
        if not self.num_failed:
            self._since = now
        self.num_failed += 1
        return self.num_failed >= self._limit or now - self._since > timeout_s


class Tally:
    """Counts what comes through and what fails."""

    def __init__(self, uri_of: Callable[[Any], str], num_distinct: int | None, timeout_s: float) -> None:
        """Nothing but failures for `timeout_s` is a fault, too."""
        self.num_samples = 0
        """That passed their inputs."""
        self._uri_of = uri_of
        self._timeout_s = timeout_s
        self._samples = _Row(min(MAX_FAILED_SAMPLES, num_distinct or MAX_FAILED_SAMPLES))
        self._batches = _Row(MAX_FAILED_BATCHES)
        self.failures: Counter[tuple[str, str, str]] = Counter()
        """By uri, stage and reason."""

    def has_sample(self, item: Any) -> bool:
        """Count an item that has passed its inputs. Raises ProfileFault when too many in a row have failed."""
        if not isinstance(item, Failed):
            self.num_samples += 1
        return self._has(item, self._samples, "samples")

    def has_batch(self, result: Any) -> bool:
        """The same for what the steps made of a batch."""
        return self._has(result, self._batches, "batches")

    def _has(self, item: Any, row: _Row, what: str) -> bool:
        if not isinstance(item, Failed):
            row.num_failed = 0
            return True
        stage, reason = item.error.stage, item.error.reason
        uri = "a batch" if row is self._batches else self._uri_of(item.item)
        self.failures[uri, stage, reason] += 1
        if row.is_over(self._timeout_s):
            raise ProfileFault(stage, f"{row.num_failed} {what} in a row failed, none came through; the last: {reason}")
        return False


def failures(*tallies: Tally) -> tuple[dict[str, Any], ...]:
    """As Profile's: `{uri, stage, reason, n}`, the first first."""
    total: Counter[tuple[str, str, str]] = Counter()
    for tally in tallies:
        total.update(dict(tally.failures))
    return tuple({"uri": uri, "stage": stage, "reason": reason, "n": n} for (uri, stage, reason), n in total.items())


def watched(
    work: Callable[[], T],
    recorder: Recorder,
    *,
    timeout_s: float,
    close: Callable[[], object] = lambda: None,
    on_tick: Callable[[], object] = lambda: None,
) -> T:
    """What `work` returns, run in a thread that is left behind if a stage takes longer than `timeout_s` on an item.

    `close` lets go of whatever the run holds when it is given up; `on_tick` is called now and then, in this thread.
    Raises ProfileFault, and whatever `work` raises.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    is_over = threading.Event()

    def live() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
            errors.append(error)
        finally:
            is_over.set()

    thread = threading.Thread(target=live, name=_THREAD, daemon=True)
    thread.start()
    try:
        while not is_over.wait(_POLL_S):
            on_tick()
            if (stuck := recorder.stuck(timeout_s)) is not None:
                raise ProfileFault(stuck, f"was not done with an item after {timeout_s:g} s")
        on_tick()
    except BaseException:
        recorder.abandon()
        close()
        thread.join(_JOIN_S)
        raise
    thread.join()
    if errors:
        try:
            raise errors[0]
        finally:
            errors.clear()
    return results[0]
