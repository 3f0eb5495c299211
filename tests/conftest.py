"""What every test shares: two threads, a folder for temporary files, real inputs, and a GPU or a skip."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fault_server import FaultServer

    from fovcache import Cache

try:
    import hypothesis
except ImportError:  # a machine with a GPU may have no more than torch and pytest
    pass
else:
    for _name, _settings in {
        "local": {"max_examples": 50},
        "ci": {"max_examples": 50, "derandomize": True, "database": None},
        "thorough": {"max_examples": 1000},
    }.items():
        hypothesis.settings.register_profile(_name, deadline=None, **_settings)
    _default = "ci" if os.environ.get("CI") == "true" else "local"
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or _default)

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    # Read when torch and BLAS load, here and in subprocesses. pytest-xdist's processes inherit the first's.
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ[_variable] = "1"
    else:
        os.environ.setdefault(_variable, "2")

# As the commands have it: OpenMP's threads wait asleep, or training steps beside other tests take many times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Where tests run in the background SIGINT may be ignored, which processes that they start would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The contracts are files of their own, so that tests of other folders can subclass them.
sys.path.append(str(Path(__file__).parent / "contracts"))
sys.path.append(str(Path(__file__).parent / "faults"))  # fault_server, served
pytest.register_assert_rewrite("extractor_contract", "feed_contract", "loader_contract", "representation_contract")

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("SHARED") or ROOT.parent / "shared").resolve()
HOUSE = (".ci", "bench", "docs", "fovcache", "models", "probes", "reports", "tests")
ALONE = b"pytest.mark.alone"
FAIL_WITHOUT_CUDA = os.environ.get("FAIL_WITHOUT_CUDA", "") not in ("", "0")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Imports no file for `-m alone` that does not have the mark: all of them would take seconds."""
    if config.option.markexpr != "alone" or collection_path.suffix != ".py":
        return None
    return None if ALONE in collection_path.read_bytes() else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fails where a test would be left out above."""
    for item in items:
        if item.get_closest_marker("alone") and ALONE not in item.path.read_bytes():
            raise pytest.UsageError(f"{item.nodeid} is marked `alone`; expected {ALONE.decode()} in its file")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what this machine cannot run, with the reason."""
    if item.get_closest_marker("needs_shared") and not SHARED.is_dir():
        pytest.skip(f"no folder of real inputs at {SHARED} (set SHARED)")
    if item.get_closest_marker("needs_cuda") and not FAIL_WITHOUT_CUDA:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device (FAIL_WITHOUT_CUDA=1 makes this a failure)")


def pytest_runtest_call(item: pytest.Item) -> None:
    """Fails a test that was promised a GPU and has none, even if the test would pass on the CPU."""
    if item.get_closest_marker("needs_cuda"):
        import torch

        assert torch.cuda.is_available(), "no CUDA device, and FAIL_WITHOUT_CUDA is set"


@pytest.fixture(scope="session", autouse=True)
def _temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Puts every temporary file, of subprocesses too, where pytest removes it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("tmp")
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's folder."""
    return ROOT


@pytest.fixture(scope="session")
def house_files() -> list[Path]:
    """The repository's own files: its folders' and the root's, without links, caches and build outputs."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in HOUSE:
        for parent, folders, names in os.walk(ROOT / folder):
            folders[:] = [name for name in folders if name != "__pycache__" and not name.endswith(".egg-info")]
            found += [Path(parent, name) for name in names]
    return sorted(found)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real inputs; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder of real inputs at {SHARED} (set SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def make_images() -> Callable[..., Path]:
    """`make_images(folder, num=6, classes=(), size=16, seed=0)` writes PNG files of seeded noise; the folder."""

    def make(folder: Path, num: int = 6, classes: Sequence[str] = (), size: int = 16, seed: int = 0) -> Path:
        import numpy as np
        from PIL import Image

        generator = np.random.default_rng(seed)
        for number in range(num):
            place = folder / classes[number % len(classes)] if classes else folder
            place.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (size, size, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{number:04d}.png")
        return folder

    return make


@pytest.fixture
def cache_of_two_numerics(tmp_path: Path, make_images: Callable[..., Path]) -> "Cache":
    """Rows of `pixels`, some computed under another precision of matrix products than the others."""
    import torch

    import fovcache

    images = make_images(tmp_path / "images", 2)
    cache = fovcache.open(tmp_path / "cache")
    cache.build(str(images), encoder="pixels")
    make_images(images / "more", 1, seed=9)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        cache.build(str(images), encoder="pixels")
    finally:
        torch.set_float32_matmul_precision(before)
    return cache


@pytest.fixture(scope="session")
def write_encoder() -> Callable[..., str]:
    """`write_encoder(folder, text, helpers={})` writes an encoder file with `make`, and its helpers; `PATH:make`."""

    def write(folder: Path, text: str, helpers: Mapping[str, str] = {}, name: str = "encoder.py") -> str:
        for file, source in {**helpers, name: "import os\nimport torch\nfrom torch import nn\n" + text}.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(source)
        return f"{folder / name}:make"

    return write


@pytest.fixture
def encoder_file(tmp_path: Path, write_encoder: Callable[..., str]) -> Callable[..., str]:
    """`encoder_file(text, helpers={})`: `write_encoder` into this test's own folder."""
    return lambda text, helpers={}: write_encoder(tmp_path / "encoder", text, helpers)


@pytest.fixture(scope="module")
def coarse_figures() -> Iterator[None]:
    """Reports' figures with few pixels, which are quickly drawn, where no test looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fovcache.reports.figures.DPI", 40)
        yield


@pytest.fixture
def few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an ablation, reports have the first figure alone."""
    from fovcache.reports import ablation_view

    monkeypatch.setattr(ablation_view, "FIGURES", ablation_view.FIGURES[:1])


@pytest.fixture
def fault_server(monkeypatch: pytest.MonkeyPatch) -> Iterator["FaultServer"]:
    """An HTTP server on localhost that does to each path what it is told to; reached without a proxy."""
    from fault_server import FaultServer

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "*")
    server = FaultServer()
    yield server
    server.close()
