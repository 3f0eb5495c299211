"""An attribute that is computed when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class lazy(Generic[Value]):
    """`functools.cached_property` without its lock.

    Up to Python 3.11 that one computes under a lock that all instances share: threads with batches of their own would
    take turns.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, instance: object, owner: type) -> Value:
        value = self._compute(instance)
        instance.__dict__[self._name] = value  # found there before this is asked again
        return value
