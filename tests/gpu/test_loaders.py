"""Loaders on a GPU: the contract for each residency, and that no stream sees rows too early or too late."""

import gc
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from loader_contract import LoaderContract, same
from torch.utils.data import DataLoader, TensorDataset

import fovcache
from fovcache.bench.peers.synthetic import random_rows, write_features
from fovcache.loaders import row_server
from fovcache.loaders.feature_set import FeatureSet
from fovcache.loaders.prefetch import _copy_stream

RESIDENCIES = ("device", "host", "stream")
NUM_ROWS, WIDTH, BATCH = 20_000, 384, 64
SLEEP_CYCLES = 2_000_000
"""About a millisecond: a consumer many times slower than the loader."""


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    """15 MiB of bf16 rows in 4 shards; the label of a row is its number."""
    rows = random_rows(NUM_ROWS, WIDTH, torch.bfloat16)
    return write_features(tmp_path_factory.mktemp("gpu") / "cache", rows, shard_bytes=4 << 20, num_classes=NUM_ROWS)


@pytest.fixture(scope="module")
def rows(features: FeatureSet) -> torch.Tensor:
    return features.tensors()[0]


@pytest.fixture(params=["as it is", "a batch at a time"])
def _gathers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that are cut out of large gathers, and batches that are one gather each."""
    if request.param == "a batch at a time":
        monkeypatch.setattr(row_server, "_GATHER_BYTES", 1)


class OnCuda(LoaderContract):
    device = "cuda"


class TestDevice(OnCuda):
    residency = "device"


class TestHost(OnCuda):
    residency = "host"


class TestStream(OnCuda):
    residency = "stream"


def check(batches: Iterable[tuple[torch.Tensor, torch.Tensor]], rows: torch.Tensor) -> None:
    """Every row is there once, each with its label."""
    x, y = (torch.cat(column).cpu() for column in zip(*batches, strict=True))
    assert torch.equal(x, rows[y])
    assert torch.equal(y.sort().values, torch.arange(len(rows)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_resident_tensors_are_the_cpus(tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through staging buffers that are filled many times, and a last one that is not full."""
    monkeypatch.setattr("fovcache.loaders.resident._STAGING_BYTES", 1 << 18)
    features = write_features(tmp_path / "cache", random_rows(5_001, WIDTH, dtype), shard_bytes=1 << 20)
    x, y = features.tensors("cuda")
    assert (x.device.type, x.dtype, y.device.type, y.dtype) == ("cuda", dtype, "cuda", torch.int64)
    on_cpu = features.tensors("cpu")
    assert torch.equal(x.cpu(), on_cpu[0])
    assert torch.equal(y.cpu(), on_cpu[1])


def test_a_subset_in_another_order_is_the_cpus(features: FeatureSet, rows: torch.Tensor) -> None:
    positions = np.random.default_rng(0).integers(0, NUM_ROWS, 3 * NUM_ROWS)
    x, _ = features.subset(positions).tensors("cuda")
    assert torch.equal(x.cpu(), rows[torch.from_numpy(positions)])


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_resident_rows_are_gathered_on_the_gpu(features: FeatureSet) -> None:
    """The CPU's batches, and nothing in an epoch waits for the GPU, as a copy of rows from the host's memory would."""
    loader = features.loader(BATCH, shuffle=True, seed=1, device="cuda", residency="device")
    own = list(loader)
    assert same(own, list(features.loader(BATCH, shuffle=True, seed=1)))
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = list(loader)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(part.is_cuda for batch in again for part in batch)
    assert not same(own, again)


@pytest.mark.usefixtures("_gathers")
@pytest.mark.parametrize("residency", RESIDENCIES)
def test_a_slow_consumer_gets_every_row_as_it_is(features: FeatureSet, rows: torch.Tensor, residency: str) -> None:
    """The GPU lags behind by many batches: their memory may not be used anew before they were read."""
    kept = []
    for epoch in range(2):
        for number, (x, y) in enumerate(
            features.loader(BATCH, shuffle=True, seed=epoch, device="cuda", residency=residency)
        ):
            if number % 8 == 0:
                torch.cuda._sleep(SLEEP_CYCLES)
            kept.append((x.clone(), y.clone()))  # read on the GPU when it gets there, and `x` freed now
        check(kept, rows)
        kept.clear()


@pytest.mark.usefixtures("_gathers")
@pytest.mark.parametrize("residency", ["host", "stream"])
def test_slow_copies_are_waited_for(features: FeatureSet, rows: torch.Tensor, residency: str) -> None:
    """No pinned buffer is filled again before it was copied, and no batch is read before it is there."""
    loader = features.loader(BATCH, shuffle=True, device="cuda", residency=residency)
    batches, kept = iter(loader), []
    for number in range(len(loader)):
        if number % 16 == 0:
            with torch.cuda.stream(_copy_stream(torch.device("cuda", 0))):
                torch.cuda._sleep(10 * SLEEP_CYCLES)
        x, y = next(batches)
        kept.append((x.clone(), y.clone()))
    check(kept, rows)


@pytest.mark.usefixtures("_gathers")
@pytest.mark.parametrize("residency", RESIDENCIES)
def test_a_loop_under_a_stream_of_its_own(features: FeatureSet, rows: torch.Tensor, residency: str) -> None:
    loader = features.loader(BATCH, shuffle=True, device="cuda", residency=residency)
    stream = torch.cuda.Stream()
    for _ in range(2):
        kept = []
        with torch.cuda.stream(stream):
            for x, y in loader:
                if len(kept) % 8 == 0:
                    torch.cuda._sleep(SLEEP_CYCLES)
                kept.append((x.clone(), y.clone()))
        stream.synchronize()
        check(kept, rows)


@pytest.mark.usefixtures("_gathers")
@pytest.mark.parametrize("residency", RESIDENCIES)
def test_a_loop_that_changes_streams_on_its_way(features: FeatureSet, rows: torch.Tensor, residency: str) -> None:
    """Batches of one gather are taken under several streams, of which one lags behind."""
    loader = features.loader(BATCH, shuffle=True, device="cuda", residency=residency)
    streams = [torch.cuda.Stream() for _ in range(3)]
    batches, kept = iter(loader), []
    for number in range(len(loader)):
        with torch.cuda.stream(streams[number % 3]):
            if number % 16 == 0:
                torch.cuda._sleep(SLEEP_CYCLES)
            x, y = next(batches)
            kept.append((x.clone(), y.clone()))
            del x, y
    torch.cuda.synchronize()
    check(kept, rows)


def test_a_loader_may_go_while_another_stream_still_reads(features: FeatureSet, rows: torch.Tensor) -> None:
    """Resident rows were loaded under the default stream; what it allocates next must not lie over them too soon."""
    loader = features.loader(BATCH, shuffle=True, device="cuda", residency="device")
    list(loader)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20 * SLEEP_CYCLES)
        kept = list(loader)
    del loader
    gc.collect()
    over = [torch.full((NUM_ROWS, WIDTH), 7.0, dtype=torch.bfloat16, device="cuda") for _ in range(4)]
    torch.cuda.synchronize()
    check(kept, rows)
    assert all(bool((part == 7).all()) for part in over)


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_memory_does_not_grow_from_epoch_to_epoch(features: FeatureSet, residency: str) -> None:
    loader = features.loader(BATCH, shuffle=True, device="cuda", residency=residency)

    def reserved_after_epochs(count: int) -> int:
        for _ in range(count):
            for _ in loader:
                pass
            torch.cuda.synchronize()
        return torch.cuda.memory_reserved()

    before = reserved_after_epochs(3)
    assert reserved_after_epochs(20) <= before + (64 << 20)  # a few segments, and not some for each epoch


@pytest.mark.parametrize("residency", ["host", "stream"])
def test_an_iterator_that_is_left_leaves_the_device_usable(
    features: FeatureSet, rows: torch.Tensor, residency: str
) -> None:
    loader = features.loader(BATCH, shuffle=True, device="cuda", residency=residency)
    for _ in range(10):
        next(iter(loader))
    check(list(loader), rows)


def test_auto_keeps_on_the_device_what_fits_there(features: FeatureSet) -> None:
    residency = features.loader(BATCH, device="cuda").residency
    assert residency.kind == "device"
    assert "MiB of features fit in " in residency.reason
    assert residency.reason.endswith(" MiB free on cuda:0")


def test_auto_keeps_in_host_memory_what_does_not_fit(features: FeatureSet, rows: torch.Tensor) -> None:
    """With a device that is full but for less than the features."""
    torch.cuda.empty_cache()
    num_copies = 16  # 234 MiB of features
    positions = np.tile(np.arange(NUM_ROWS), num_copies)
    many = features.subset(positions)
    leave = many.nbytes
    free = torch.cuda.mem_get_info()[0]
    full = torch.empty(free - leave, dtype=torch.uint8, device="cuda")
    loader = many.loader(1024, device="cuda")
    assert loader.residency.kind == "host"
    assert " of free host memory" in loader.residency.reason
    x, y = next(iter(loader))
    assert torch.equal(x.cpu(), rows[y.cpu()])
    del full
    torch.cuda.empty_cache()
    assert many.loader(1024, device="cuda").residency.kind == "device"


def test_torchs_dataloader_takes_tensors_on_the_gpu(features: FeatureSet) -> None:
    x, y = (column[:512] for column in features.tensors("cuda"))
    loader = DataLoader(TensorDataset(x, y), batch_size=100, **fovcache.dataloader_kwargs(x.device, "cuda"))
    assert same([tuple(batch) for batch in loader], list(zip(x.split(100), y.split(100), strict=True)))


def test_torchs_dataloader_pins_tensors_on_their_way_to_the_gpu(features: FeatureSet) -> None:
    x, y = (column[:512] for column in features.tensors("cpu"))
    loader = DataLoader(TensorDataset(x, y), batch_size=100, **fovcache.dataloader_kwargs("cpu", "cuda"))

    def moved() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in loader:
            assert all(part.is_pinned() for part in batch)
            yield tuple(part.to("cuda", non_blocking=True) for part in batch)

    assert same(list(moved()), list(zip(x.split(100), y.split(100), strict=True)))
