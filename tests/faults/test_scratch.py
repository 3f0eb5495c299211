"""The working set of downloads: bounded, never stuck, and nothing left by those who died."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from examples import examples
from fault_server import FaultServer
from hypothesis import given
from hypothesis import strategies as st

from fovcache.errors import SampleError
from fovcache.fetch.reasons import reason_of
from fovcache.fetch.scratch import Scratch, ScratchFile

WAIT_S = 30


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    """Room for 4000 bytes."""
    scratch = Scratch(tmp_path / "scratch", 4000)
    yield scratch
    scratch.close()


def fill(file: ScratchFile, size: int, *, is_declared: bool = True, step: int = 100) -> ScratchFile:
    """Write a file, as a download does."""
    file.start(size if is_declared else None)
    for start in range(0, size, step):
        file.write(bytes(min(step, size - start)))
    file.finish("digest")
    return file


def bytes_on_disk(folder: Path) -> int:
    found = 0
    for entry in os.scandir(folder / "tmp"):
        try:
            found += entry.stat().st_size
        except FileNotFoundError:  # released meanwhile
            continue
    return found


@given(
    sizes=st.lists(st.tuples(st.integers(1, 2000), st.booleans()), max_size=40),
    num_downloads=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
@examples(60)
def test_readers_in_order_get_every_file_and_the_bound_holds(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, bool]], num_downloads: int, seed: int
) -> None:
    """The hardest reader: it takes files in order and keeps a quarter while it waits for the next."""
    folder = tmp_path_factory.mktemp("scratch")
    scratch, chance = Scratch(folder, 4000), random.Random(seed)

    def download(file: ScratchFile, size: int, is_declared: bool, breaks_at: int | None) -> ScratchFile:
        if breaks_at is not None:  # the first try breaks
            file.start(size if is_declared else None)
            file.write(bytes(breaks_at))
            file.discard()
        filled = fill(file, size, is_declared=is_declared, step=500)
        with scratch._changed:  # else a file is counted, its room given back, and the next one counted too
            assert bytes_on_disk(folder) <= 4000
        return filled

    with ThreadPoolExecutor(num_downloads) as pool, contextlib.closing(scratch):
        coming: list[Future[ScratchFile]] = []
        for size, is_declared in sizes:
            breaks_at = chance.choice([None, None, chance.randint(0, size)])
            coming.append(pool.submit(download, scratch.file(), size, is_declared, breaks_at))
        kept: list[ScratchFile] = []
        for future, (size, _) in zip(coming, sizes, strict=True):
            file = future.result(WAIT_S)
            assert file.path.stat().st_size == file.size_bytes == size
            kept.append(file)
            while sum(file.size_bytes for file in kept) > 1000:
                kept.pop(chance.randrange(len(kept))).release()
        for file in kept:
            file.release()
        assert scratch.used_bytes == bytes_on_disk(folder) == 0
        assert max((size for size, _ in sizes), default=0) <= scratch.peak_bytes <= 4000


def test_a_file_of_half_the_folder_fits_and_no_larger_one(scratch: Scratch) -> None:
    for is_declared in (True, False):
        with fill(scratch.file(), 2000, is_declared=is_declared) as file:
            assert scratch.used_bytes == file.size_bytes == 2000
        with scratch.file() as file, pytest.raises(SampleError, match="2001 bytes or more") as caught:
            fill(file, 2001, is_declared=is_declared, step=1)
        assert (reason_of(caught.value.reason), caught.value.permanent) == ("too-large", True)
        assert scratch.used_bytes == 0


def test_later_files_leave_room_for_the_oldest(scratch: Scratch) -> None:
    oldest = scratch.file()
    later = [scratch.file() for _ in range(3)]
    fill(later[0], 600)
    waiting = threading.Thread(target=fill, args=(later[1], 600))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    assert scratch.used_bytes == 600
    fill(later[2], 400)
    fill(oldest, 2000)
    waiting.join(WAIT_S)
    assert scratch.used_bytes == 3600


def test_releasing_twice_gives_room_once(scratch: Scratch) -> None:
    kept, file = fill(scratch.file(), 1000), fill(scratch.file(), 500)
    for _ in range(3):
        file.release()
    assert (scratch.used_bytes, scratch.peak_bytes) == (1000, 1500)
    assert kept.path.exists()
    assert not file.path.exists()


def test_a_file_that_failed_makes_way(scratch: Scratch) -> None:
    oldest, later = scratch.file(), scratch.file()
    oldest.release()
    fill(later, 2000)
    assert scratch.used_bytes == 2000


def test_closing_ends_waits_and_removes_files(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 4000)
    held = [fill(scratch.file(), 2000) for _ in range(2)]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fill, scratch.file(), 100)
        scratch.close()
        with pytest.raises(CancelledError):
            waiting.result(WAIT_S)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    held[0].release()
    scratch.close()


def test_what_others_are_writing_is_left_alone(tmp_path: Path) -> None:
    first = Scratch(tmp_path, 4000)
    file = fill(first.file(), 100)
    second = Scratch(tmp_path, 4000)
    fill(second.file(), 200)
    second.close()
    assert file.path.stat().st_size == 100
    first.close()


CHILD = """
import sys
from fovcache.fetch.fetcher import Fetcher
from fovcache.fetch.options import FetchOptions
from fovcache.store.url_memo import UrlMemo
fetcher = Fetcher(FetchOptions(read_timeout_s=600), sys.argv[1], UrlMemo(None))
fetcher.download(sys.argv[2])
fetcher.download(sys.argv[3])
"""


def test_what_a_killed_process_left_is_removed(fault_server: FaultServer, tmp_path: Path, root: Path) -> None:
    whole = fault_server.put("/whole", b"\0" * 5000)
    half = fault_server.put("/half", b"\0" * 5000, "stalls")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), whole, half], env={**os.environ, "PYTHONPATH": str(root)}
    )
    deadline = time.monotonic() + WAIT_S
    while not (tmp_path / "tmp").exists() or bytes_on_disk(tmp_path) < 7500:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait(WAIT_S)
    assert bytes_on_disk(tmp_path) == 7500
    scratch = Scratch(tmp_path, 4000)
    assert bytes_on_disk(tmp_path) == 0
    scratch.close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
