"""What waits between two stages: numbered items that arrive in any order and leave in theirs, bounded.

A signal handler may raise in the main thread between any two steps, and the run must still end. So a thread waits on a
lock of its own, outside the channel's, and is woken before it is forgotten; threading.Condition promises neither.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, TypeAlias

LOOK_S = 1.0
"""The longest sleep. Python's part of a signal handler runs between sleeps, and a signal that comes just before one
begins does not end it: once in a thousand runs on busy cores, the main thread slept for as long as nothing came."""

Entry: TypeAlias = tuple[int, Any, int]
"""An item's number, the item, its bytes."""


class Stopped(BaseException):
    """The run is over: unwinds a thread out of its wait. No Exception, so that no stage's code catches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """How full a channel is."""

    items: int = 0
    """Items that wait now, in order or not."""
    size_bytes: int = 0
    """Their bytes."""
    peak_items: int = 0
    """The most items that ever waited."""
    peak_bytes: int = 0
    """The most bytes that ever waited."""


class Channel:
    """Items numbered from 0 without gaps, put by many threads and got by many, in order of their numbers.

    The next item to leave is admitted whatever the bounds say: everything behind it waits for it. `in_step`, for one
    getter, a thread that put an item waits until the getter comes back for another one.
    """

    def __init__(self, *, max_items: int | None = None, max_bytes: int | None = None, in_step: bool = False) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._in_step = in_step
        self._lock = threading.Lock()
        self._held: dict[int, Entry] = {}
        self._parked: dict[int, tuple[Entry, threading.Lock]] = {}  # outside the bounds, their threads wait
        self._unfinished: dict[int, threading.Lock] = {}  # their threads wait for the getter to come back
        self._getters: deque[threading.Lock] = deque()
        self._next = 0
        self._num_items: int | None = None
        self._is_stopped = False
        self._bytes = self._peak_items = self._peak_bytes = 0

    def put(self, number: int, item: Any, size_bytes: int = 0) -> None:
        """Add an item, waiting until there is room for it. Raises Stopped."""
        entry = (number, item, size_bytes)
        with self._lock:
            if self._is_stopped:
                raise Stopped
            if not self._in_step and self._admits(entry):
                self._hold(entry)
                return
            room = _locked()
            if self._in_step:
                self._unfinished[number] = room
                self._hold(entry)
            else:
                self._parked[number] = (entry, room)
        _wait(room)
        if self._is_stopped:
            raise Stopped

    def get(self, *, wait: bool = True) -> Entry | None:
        """Take the next item; None after the last, or when it is not there and not waited for. Raises Stopped."""
        while True:
            with self._lock:
                if self._is_stopped:
                    raise Stopped
                for number in [number for number in self._unfinished if number < self._next]:
                    self._unfinished[number].release()
                    del self._unfinished[number]
                if self._next in self._held:
                    return self._take()
                if self._next == self._num_items or not wait:
                    return None
                arrival = _locked()
                self._getters.append(arrival)
            _wait(arrival)

    def close(self, num_items: int) -> None:
        """Say how many items there are in all; `get` returns None after them. More than once is fine."""
        with self._lock:
            self._num_items = num_items
            self._wake_getters()

    @property
    def num_items(self) -> int:
        """How many items there were in all; for who got None."""
        assert self._num_items is not None
        return self._num_items

    def stop(self) -> None:
        """Raise Stopped in all that wait and all that come, and let go of the items."""
        with self._lock:
            self._is_stopped = True
            self._held.clear()
            self._bytes = 0
            rooms = (room for _, room in self._parked.values())
            for waiter in (*rooms, *self._unfinished.values(), *self._getters):
                if waiter.locked():  # else it is awake already
                    waiter.release()
            self._parked.clear()
            self._unfinished.clear()

    def occupancy(self) -> Occupancy:
        """How full it is, and was."""
        with self._lock:
            return Occupancy(
                items=len(self._held),
                size_bytes=self._bytes,
                peak_items=self._peak_items,
                peak_bytes=self._peak_bytes,
            )

    # What follows is called with the lock held.

    def _admits(self, entry: Entry) -> bool:
        return entry[0] == self._next or (
            (self._max_items is None or len(self._held) < self._max_items)
            and (self._max_bytes is None or self._bytes + entry[2] <= self._max_bytes)
        )

    def _hold(self, entry: Entry) -> None:
        self._held[entry[0]] = entry
        self._bytes += entry[2]
        self._peak_items = max(self._peak_items, len(self._held))
        self._peak_bytes = max(self._peak_bytes, self._bytes)
        if entry[0] == self._next:
            self._wake_getters()

    def _take(self) -> Entry:
        entry = self._held.pop(self._next)
        self._bytes -= entry[2]
        self._next += 1
        while self._parked and self._admits(self._parked[first := min(self._parked)][0]):
            parked, room = self._parked[first]
            room.release()
            del self._parked[first]
            self._hold(parked)
        self._wake_getters()
        return entry

    def _wake_getters(self) -> None:
        """Wake one for the next item, who wakes another for the one after it; wake all when there is none left."""
        while self._getters and (self._next in self._held or self._next == self._num_items):
            self._getters[0].release()
            self._getters.popleft()
            if self._next != self._num_items:
                return


def _wait(lock: threading.Lock) -> None:
    while not lock.acquire(timeout=LOOK_S):
        pass


def _locked() -> threading.Lock:
    """A lock to wait on until another thread releases it."""
    lock = threading.Lock()
    lock.acquire()
    return lock
