"""Two versions of a repository side by side in a temporary folder. The user's own tree and index are only read."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from blake3 import blake3

from fovcache.errors import EnvironmentFailure, UsageError

PACKAGE = "fovcache"
_ROOMS = frozenset([PACKAGE, "bench", "models", "probes", "reports"])
_OF_HOOKS = frozenset(
    ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_QUARANTINE_PATH"]
)
"""Environment that would turn every git command to the repository whose hook runs this."""


def repository_of(folder: Path) -> Path:
    """The root of the git repository that a folder lies in. Raises UsageError, EnvironmentFailure."""
    done = _git(folder, "rev-parse", "--show-toplevel")
    if done.returncode:
        raise UsageError(f"{folder} is not in a git repository that can be read ({_said(done)}); run it inside one")
    return Path(done.stdout.decode().removesuffix("\n"))


def commit_of(root: Path, ref: str) -> str:
    """The commit that a branch, tag or revision names. Raises UsageError."""
    done = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if done.returncode:
        shallow = _git(root, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
        advice = "this clone is shallow: fetch it first" if shallow else "`git branch --all` and `git log` list some"
        raise UsageError(f"{ref!r} names no commit; expected a branch, tag or revision; {advice}")
    return done.stdout.decode().strip()


def working_commit(root: Path) -> str:
    """HEAD's commit, followed by ` + changes` where the working tree differs from it."""
    commit = commit_of(root, "HEAD")
    return f"{commit} + changes" if _checked(root, "status", "--porcelain").strip() else commit


def write_commit(root: Path, commit: str, folder: Path) -> None:
    """Write a commit's files into a new folder. It is no git worktree: nothing in the repository knows of it."""
    folder.mkdir()
    index = {"GIT_INDEX_FILE": str(folder.with_name(f"{folder.name}.index"))}
    _checked(root, "read-tree", commit, environment=index)
    _checked(root, "checkout-index", "--all", "--quiet", f"--prefix={folder}/", environment=index)


def copy_working_tree(root: Path, folder: Path) -> None:
    """Copy what git tracks or would, as it is now, into a new folder: edits made meanwhile change nothing there."""
    folder.mkdir()
    listed = _checked(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate")
    for name in filter(None, listed.split(b"\0")):
        path = root / os.fsdecode(name)
        if path.is_symlink() or path.is_file():  # not a file that was deleted, nor a submodule
            target = folder / os.fsdecode(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target, follow_symlinks=False)


def suite_in(root: Path, path: Path) -> str:
    """A suite's path relative to the repository. Raises UsageError for one that is not there or not to be shared."""
    whole = (root / path).resolve()
    if not whole.exists():
        raise UsageError(f"no suite at {path}; expected a file or folder of benchmarks in {root}")
    if root not in whole.parents or whole.relative_to(root).parts[0] in _ROOMS:
        raise UsageError(
            f"the suite {path} lies in the package or outside the repository; expected it in a folder of its own, "
            "such as tests/, which both sides can share"
        )
    return whole.relative_to(root).as_posix()


def share_suite(suite: str, *, source: Path, target: Path) -> None:
    """Put the suite of one tree in the place of another's, with all that lies in the same folder of the root."""
    top = Path(suite).parts[0]
    if (target / top).is_dir():
        shutil.rmtree(target / top)
    else:
        (target / top).unlink(missing_ok=True)
    if (source / top).is_dir():
        shutil.copytree(source / top, target / top, symlinks=True)
    else:
        shutil.copy2(source / top, target / top)


def suite_digest(tree: Path, suite: str) -> str:
    """BLAKE3 over the names and bytes of the suite's Python files."""
    whole = tree / suite
    digest = blake3()
    for path in sorted(whole.rglob("*.py")) if whole.is_dir() else [whole]:
        data = path.read_bytes()
        digest.update(f"{path.relative_to(tree).as_posix()}\n{len(data)}\n".encode() + data)
    return digest.hexdigest()


def _checked(root: Path, *arguments: str, environment: dict[str, str] | None = None) -> bytes:
    done = _git(root, *arguments, environment=environment)
    if done.returncode:
        raise EnvironmentFailure(f"git {arguments[0]} failed in {root}: {_said(done)}")
    return done.stdout


def _git(root: Path, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    own = {name: value for name, value in os.environ.items() if name not in _OF_HOOKS} | (environment or {})
    command: Sequence[str] = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, env=own, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError as error:
        raise EnvironmentFailure("there is no git; install it, or compare two files by `fovbench compare`") from error


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else f"status {done.returncode}"
