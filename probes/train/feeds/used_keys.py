"""Which samples a stream has used, in the order of use: nothing is used twice, and a resumed run knows what was."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fovcache.errors import environment_failure

KEY_BYTES = 32


class UsedKeys:
    """A file of keys, 32 bytes a sample, and the same as a set in memory. Every method raises EnvironmentFailure."""

    def __init__(self, path: Path, *, keep: int, since: int = 0) -> None:
        """Take up the first `keep` keys of an earlier run's file, or all there are, and forget the rest.

        Of those `since` is where the source begins that is taken up again.
        """
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.truncate(min(keep * KEY_BYTES, file.tell()))
            data = path.read_bytes()
        except OSError as error:
            raise environment_failure(error, f"use {path}") from error
        self._used = {data[at : at + KEY_BYTES] for at in range(0, len(data), KEY_BYTES)}
        self.num_kept = len(data) // KEY_BYTES
        """How many keys the file had, at most `keep`."""
        self.again = np.frombuffer(data, np.uint8).reshape(-1, KEY_BYTES)[since:]
        """uint8 [n, 32]: those from `since` on, in the order of use."""

    def new(self, keys: np.ndarray) -> np.ndarray:
        """Positions, int64, of the keys (uint8 [n, 32]) that were not used yet, the first of equal ones; now they are.

        They are on disk when this returns.
        """
        raw = np.ascontiguousarray(keys).tobytes()
        found = []
        for at in range(len(keys)):
            key = raw[at * KEY_BYTES : (at + 1) * KEY_BYTES]
            if key not in self._used:
                self._used.add(key)
                found.append(at)
        positions = np.array(found, np.int64)
        try:
            with self._path.open("ab") as file:
                file.write(keys[positions].tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise environment_failure(error, f"write {self._path}") from error
        return positions

    def bar(self, keys: np.ndarray) -> None:
        """Never let these be used, as those of the validation set; they are not written."""
        raw = np.ascontiguousarray(keys).tobytes()
        self._used.update(raw[at : at + KEY_BYTES] for at in range(0, len(raw), KEY_BYTES))
