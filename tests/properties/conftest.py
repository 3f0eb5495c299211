"""A new storage for each example: function-scoped fixtures would share one among them."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from fovcache.store.storage import LocalStorage

NewStorage = Callable[[], AbstractContextManager[LocalStorage]]


@pytest.fixture(scope="session")
def new_storage() -> NewStorage:
    """`with new_storage() as storage:` an empty folder, removed afterwards."""

    @contextlib.contextmanager
    def make() -> Iterator[LocalStorage]:
        with tempfile.TemporaryDirectory() as folder:
            yield LocalStorage(folder)

    return make
