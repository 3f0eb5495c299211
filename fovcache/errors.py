"""Everything that fovcache raises on purpose.

FovcacheError
├── UsageError (also a ValueError)      what was asked for cannot be done: exit status 2
│   ├── SourceError                     a source is missing, empty or malformed
│   ├── EncoderError                    an encoder cannot be found, built or run as asked
│   │   ├── LayerError                  a layer is unknown, ambiguous or returns no single tensor
│   │   └── FingerprintError            something that decides the features cannot be fingerprinted
│   ├── WeightsError                    a checkpoint is missing, mismatched or unsafe
│   ├── CacheFormatError                the folder is not a cache, or is of a newer schema
│   ├── SelectionError                  no feature set, or more than one, fits what was asked for
│   └── SplitError                      samples cannot be divided into train, validation and test as asked
├── DamageError                         bytes on disk are not the bytes that were written: exit status 1
├── EnvironmentFailure (also an OSError) disk full, no permission, out of memory: exit status 3
└── SampleError                         one sample failed; the run records it and goes on

Each message says what failed, the value, what was expected and how to mend it.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class FovcacheError(Exception):
    """The base of every error that fovcache raises on purpose."""

    exit_status = 1


class UsageError(FovcacheError, ValueError):
    """What was asked for cannot be done as asked."""

    exit_status = 2


class SourceError(UsageError):
    """A source of samples is missing, empty or malformed."""


class EncoderError(UsageError):
    """An encoder cannot be found, built or run as asked."""


class LayerError(EncoderError):
    """A layer is unknown, ambiguous, or does not return one tensor per sample."""


class FingerprintError(EncoderError):
    """Something that decides the features cannot be fingerprinted."""


class WeightsError(UsageError):
    """A checkpoint is missing, does not fit the model, or is of a kind that is refused."""


class CacheFormatError(UsageError):
    """The folder is not a fovcache cache, or was written by a newer fovcache."""


class SelectionError(UsageError):
    """No feature set, or more than one, fits what was asked for."""


class SplitError(UsageError):
    """Samples cannot be divided into train, validation and test as asked."""


class DamageError(FovcacheError):
    """Bytes on disk are not the bytes that were written."""

    exit_status = 1


class EnvironmentFailure(FovcacheError, OSError):
    """The machine failed us: disk full, no permission, out of memory."""

    exit_status = 3


class SampleError(FovcacheError):
    """One sample failed at one stage. A build records it in the ledger and goes on.

    `permanent` says whether trying again with the same software can help: a missing file may come
    back (transient), bytes that do not decode will not (permanent).
    """

    def __init__(self, stage: str, reason: str, *, permanent: bool) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason
        self.permanent = permanent


_ENVIRONMENT_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again, it resumes",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again, it resumes",
    errno.EROFS: "the file system is read-only: choose a folder that can be written",
    errno.EACCES: "permission denied: check the folder's owner and mode",
    errno.EPERM: "operation not permitted: check the folder's owner and mode",
}


def environment_failure(error: OSError, what: str) -> EnvironmentFailure:
    """An `EnvironmentFailure` that says in one line what could not be done and how to mend it."""
    advice = _ENVIRONMENT_ADVICE.get(error.errno or 0, error.strerror or str(error))
    failure = EnvironmentFailure(f"cannot {what}: {advice}")
    failure.errno = error.errno
    return failure


def nearest(name: str, known: Iterable[str], *, most: int = 3) -> str:
    """`; nearest: a, b` when something in `known` resembles `name`, else what exists."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=most, cutoff=0.4)
    if close:
        return f"; nearest: {', '.join(close)}"
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"; there are: {shown}" if names else "; there are none"
