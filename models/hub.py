"""A model's folder by its hub id: from the local hub cache where it is whole, else downloaded into it.

Tokens, mirrors and offline mode are huggingface_hub's, from the environment (HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE).
Nothing of its messages is repeated: they may hold addresses with secrets in them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fovcache.errors import EnvironmentFailure, FovcacheError, WeightsError, environment_failure

from .quiet import quiet

CONFIG_FILE = "config.json"
PROCESSOR_FILE = "preprocessor_config.json"

_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>(?!.*\.\.)[\w./-]+))?", re.ASCII)
_WANTED = [CONFIG_FILE, PROCESSOR_FILE, "*.safetensors", "*.safetensors.index.json"]
_IN_FOLDERS = ["*/*"]  # their `*` matches slashes too
_DEEPER = ["*/*/*"]
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


def is_hub_id(text: str) -> bool:
    """Whether `text` is shaped like `owner/name` or `owner/name@revision`."""
    return _HUB_ID.fullmatch(text) is not None


def hub_folder(hub_id: str, *, with_processor: bool, subfolder: str | None = None) -> Path:
    """The folder of a model: config.json, preprocessor_config.json and the safetensors files beside them.

    They are at the top; without a config.json there, in `subfolder`, where a whole pipeline has one. A cached folder is
    taken as it is when it has its config and weights, and `with_processor` its preprocessing too.
    Raises WeightsError when the hub refuses it, EnvironmentFailure when the hub cannot be reached.
    """
    matched = _HUB_ID.fullmatch(hub_id)
    assert matched is not None
    repo, revision = matched["repo"], matched["revision"]
    with quiet("huggingface_hub"), _no_telemetry():
        cached = _cached(repo, revision, subfolder)
        if cached is not None and (not with_processor or (cached / PROCESSOR_FILE).is_file()):
            return cached
        try:
            return _downloaded(repo, revision, subfolder)
        except Exception as error:  # noqa: BLE001 - huggingface_hub's, its HTTP client's and the disk's have no common base
            failure = _refusal(hub_id, error)
    if cached is not None and isinstance(failure, EnvironmentFailure):
        return cached
    raise failure


def hub_files(hub_id: str, names: Sequence[str], optional: Sequence[str] = (), *, enough: Sequence[str]) -> Path:
    """The folder with some files of a repository, and with `optional` ones where it has them.

    A cached folder with all `names` is taken as it is, and one with `enough` where the hub cannot be reached. Raises as
    `hub_folder`; a file that the repository has not is for the caller to miss.
    """
    matched = _HUB_ID.fullmatch(hub_id)
    assert matched is not None
    wanted = [*names, *optional]
    folder: Path | None = None
    with quiet("huggingface_hub"), _no_telemetry():
        with contextlib.suppress(OSError, ValueError, LookupError, AttributeError):
            folder = _snapshot(matched["repo"], matched["revision"], wanted, local_files_only=True)
            if all((folder / name).is_file() for name in names):
                return folder
        try:
            return _snapshot(matched["repo"], matched["revision"], wanted)
        except Exception as error:  # noqa: BLE001 - as above
            failure = _refusal(hub_id, error)
    if folder is not None and isinstance(failure, EnvironmentFailure) and all((folder / n).is_file() for n in enough):
        return folder
    raise failure


@contextlib.contextmanager
def _no_telemetry() -> Iterator[None]:
    """Requests that say nothing of who asks, and none besides the download's."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before


def _cached(repo: str, revision: str | None, subfolder: str | None) -> Path | None:
    for place in ["", *([] if subfolder is None else [f"{subfolder}/"])]:
        wanted = [f"{place}{name}" for name in _WANTED]
        try:
            folder = _snapshot(repo, revision, wanted, local_files_only=True) / place
            if _is_whole(folder):
                return folder
        except (OSError, ValueError, LookupError, AttributeError):  # not there, not all of it, or not what it should be
            continue
    return None


def _downloaded(repo: str, revision: str | None, subfolder: str | None) -> Path:
    if subfolder is not None:  # a pipeline may have other models' weights at its top
        top = _snapshot(repo, revision, [CONFIG_FILE, f"{subfolder}/{CONFIG_FILE}"])
        if not (top / CONFIG_FILE).is_file() and (top / subfolder / CONFIG_FILE).is_file():
            return _snapshot(repo, revision, [f"{subfolder}/{name}" for name in _WANTED]) / subfolder
    return _snapshot(repo, revision, _WANTED)


def _is_whole(folder: Path) -> bool:
    """Whether a cached snapshot has its config and weights: a download may have been stopped."""
    if not (folder / CONFIG_FILE).is_file():
        return False
    indices = list(folder.glob("*.safetensors.index.json"))
    if not indices:
        return any(folder.glob("*.safetensors"))
    named = {str(name) for index in indices for name in json.loads(index.read_bytes())["weight_map"].values()}
    return all((folder / name).is_file() for name in named)


def _snapshot(repo: str, revision: str | None, wanted: Sequence[str], *, local_files_only: bool = False) -> Path:
    """The snapshot's folder, with the files that `wanted` names."""
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        repo,
        revision=revision,
        allow_patterns=list(wanted),
        ignore_patterns=_DEEPER if any("/" in name for name in wanted) else _IN_FOLDERS,
        local_files_only=local_files_only,
    )
    return Path(folder)


def _refusal(hub_id: str, error: Exception) -> FovcacheError:
    from huggingface_hub import errors

    mend = "give a folder with --weights DIR (config.json and safetensors files), or random weights with random:0"
    what = f"weights {hub_id!r}"
    absent = f"{what} are not in the local hub cache"
    status = getattr(getattr(error, "response", None), "status_code", None)
    chain = [error, error.__cause__, error.__context__]
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return environment_failure(error, f"download {what}")
    if any(isinstance(each, errors.OfflineModeIsEnabled) for each in chain):
        return EnvironmentFailure(f"{absent}, and HF_HUB_OFFLINE forbids downloads; {mend}")
    if isinstance(error, errors.RevisionNotFoundError):
        return WeightsError(f"{what}: the hub has no such revision of the model; {mend}")
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return WeightsError(
            f"{what}: the model is gated; accept its terms on the hub and set HF_TOKEN to a token that may read it, "
            f"or {mend}"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return WeightsError(
            f"{what}: there is no folder of that name, and the hub has no such model that may be read (a private one "
            f"needs HF_TOKEN); {mend}"
        )
    if isinstance(error, errors.HFValidationError):
        return WeightsError(f"{what} is no hub id, expected owner/name or owner/name@revision; {mend}")
    said = f" (HTTP status {status})" if status is not None else f" ({type(error.__cause__ or error).__name__})"
    return EnvironmentFailure(f"{absent}, and the hub cannot be reached{said}; {mend}")
