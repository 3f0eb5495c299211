"""What a run's stages did and do: every call's beginning and end, and what is at work now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from fovcache.errors import SampleError
from fovcache.pipeline.stage import Stage

from .faults import SOURCE, Abandoned, ProfileFault

_THREAD_PREFIX = "fovcache-"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a stage."""

    start_s: float
    """On `time.perf_counter`."""
    end_s: float
    """On `time.perf_counter`."""
    has_failed: bool
    """With a SampleError."""
    lane: str
    """The thread's name."""

    @property
    def duration_s(self) -> float:
        """How long it took."""
        return self.end_s - self.start_s


class Recorder:
    """Watches the stages of one run, on any number of threads, without a lock."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = {}
        """By stage, in the order in which they ended; those that are at work are not among them."""
        self.num_items = 0
        """That the source has given."""
        self._at_work: dict[int, tuple[str, float]] = {}  # by thread: what since when
        self._is_abandoned = False

    def recorded(self, stage: Stage, settle: Callable[[], object] | None = None) -> Stage:
        """The stage, its calls recorded; `settle` is called at the end of each and belongs to it.

        It has no time limit of its own. An error other than a SampleError becomes a ProfileFault.
        """
        calls = self.calls.setdefault(stage.id, [])

        def run(item: Any) -> Any:
            has_failed = False
            start_s = self._begin(stage.id)
            try:
                result = stage.run(item)
                if settle is not None:
                    settle()
                return result
            except SampleError:
                has_failed = True
                if settle is not None:
                    settle()
                raise
            except ProfileFault:
                raise
            except Exception as error:
                raise ProfileFault.of(stage.id, error) from error
            finally:
                end_s = self._end()
                calls.append(Call(start_s, end_s, has_failed, _lane()))

        return replace(stage, run=run, timeout_s=None)

    def source(self, items: Iterator[Any]) -> Iterator[Any]:
        """The items, watched while the next one is waited for."""
        while True:
            self._begin(SOURCE)
            try:
                item = next(items)
            except StopIteration:
                return
            except Exception as error:
                raise ProfileFault.of(SOURCE, error) from error
            finally:
                self._end()
            self.num_items += 1
            yield item
            del item

    def watched(self, stage_id: str, function: Callable[[], object]) -> None:
        """Call a function that belongs to a stage and is no call of it."""
        self._begin(stage_id)
        try:
            function()
        except Exception as error:
            raise ProfileFault.of(stage_id, error) from error
        finally:
            self._end()

    def stuck(self, timeout_s: float) -> str | None:
        """What has been at work for longer than this on one item: a stage's id or SOURCE."""
        since = min(self._working(), key=lambda each: each[1], default=None)
        return since[0] if since is not None and time.perf_counter() - since[1] > timeout_s else None

    def abandon(self) -> None:
        """Let no further call begin; threads that try are ended."""
        self._is_abandoned = True

    def wait_until_quiet(self, timeout_s: float) -> None:
        """Until nothing is at work, or the time is over."""
        deadline = time.monotonic() + timeout_s
        while self._working() and time.monotonic() < deadline:
            time.sleep(0.005)

    def _working(self) -> list[tuple[str, float]]:
        return list(self._at_work.values())

    def _begin(self, stage_id: str) -> float:
        if self._is_abandoned:
            raise Abandoned
        start_s = time.perf_counter()
        self._at_work[threading.get_ident()] = (stage_id, start_s)
        return start_s

    def _end(self) -> float:
        end_s = time.perf_counter()
        self._at_work.pop(threading.get_ident(), None)
        return end_s


def _lane() -> str:
    return threading.current_thread().name.removeprefix(_THREAD_PREFIX)
