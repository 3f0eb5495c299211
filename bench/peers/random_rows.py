"""Reading rows at random, a batch at a time, beside other ways to read the same rows.

python -m fovcache.bench.peers.random_rows [--gib 1] [--batch 256] [--rounds 12] [--out DIR]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import h5py
import numpy as np
import torch

from fovcache.loaders.order import epoch_order

from .comparison import Comparison, Method, compare, finish
from .synthetic import random_rows, write_features

WIDTH = 1024
ROW_BYTES = 2 * WIDTH
OURS = ("ours, resident", "ours, host", "ours, stream")
CHUNK_ROWS = 16
"""The fastest of 1 … 512 rows a chunk and h5py's own choice."""
HDF5_ROWS = 8192
"""h5py reads only so many rows a round, or a round would take minutes."""


def measure(folder: Path, *, gib: float, batch: int, rounds: int) -> Comparison:
    """An epoch over rows of 2 KiB in fp16, every method in the same order, which each computes itself."""
    rows = random_rows(round(gib * 2**30) // ROW_BYTES, WIDTH, torch.float16)
    array, num_rows = rows.numpy().copy(), len(rows)  # numpy's own memory lies on huge pages: better for np.take
    features = write_features(folder / "cache", rows)
    array.tofile(folder / "rows.bin")
    for name, chunks in (("contiguous.h5", None), ("chunked.h5", (CHUNK_ROWS, WIDTH))):
        with h5py.File(folder / name, "w") as file:
            file.create_dataset("rows", data=array, chunks=chunks)
    mapped = np.memmap(folder / "rows.bin", np.float16, "r", shape=array.shape)
    descriptor = os.open(folder / "rows.bin", os.O_RDONLY)
    datasets = {name: h5py.File(folder / f"{name}.h5")["rows"] for name in ("contiguous", "chunked")}
    loaders = {
        name: features.loader(batch, shuffle=True, residency=residency)
        for name, residency in zip(OURS, ("device", "host", "stream"), strict=True)
    }

    def indexes() -> Iterator[np.ndarray]:
        order = epoch_order(num_rows, seed=0, epoch=0)
        return (order[start:stop] for start, stop in pairwise([*range(0, num_rows, batch), num_rows]))

    def preadv(index: np.ndarray) -> np.ndarray:
        out = np.empty((len(index), WIDTH), np.float16)
        for row, position in zip(out, index.tolist(), strict=True):
            os.preadv(descriptor, [row.data], position * ROW_BYTES)
        return out

    def hdf5(name: str) -> Callable[[np.ndarray], np.ndarray]:
        def read(index: np.ndarray) -> np.ndarray:
            order = np.argsort(index)  # h5py wants them in order
            out = np.empty((len(index), WIDTH), np.float16)
            out[order] = datasets[name][index[order]]
            return out

        return read

    def ours(name: str) -> Iterator[torch.Tensor]:
        loaders[name].set_epoch(0)
        return (x for x, _ in loaders[name])

    readers: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "np.take in memory": lambda index: np.take(array, index, axis=0),
        "np.memmap[index]": lambda index: mapped[index],
        "preadv, row by row": preadv,
        "h5py contiguous[index]": hdf5("contiguous"),
        "h5py chunked[index]": hdf5("chunked"),
    }
    most = {name: HDF5_ROWS if name.startswith("h5py") else num_rows for name in readers} | dict.fromkeys(
        OURS, num_rows
    )

    def batches(name: str) -> Iterator[np.ndarray | torch.Tensor]:
        found = ours(name) if name in OURS else (readers[name](index) for index in indexes())
        return islice(found, -(-most[name] // batch))

    def last(name: str) -> np.ndarray | torch.Tensor:
        found: np.ndarray | torch.Tensor = np.empty(0)
        for found in batches(name):  # noqa: B007 - the last one is checked
            pass
        return found

    def check_all(name: str) -> None:
        for index, found in zip(indexes(), batches(name), strict=False):
            assert np.array_equal(np.asarray(found).view(np.uint16), array[index].view(np.uint16)), name

    def check_last(name: str, found: np.ndarray | torch.Tensor) -> None:
        *_, index = islice(indexes(), -(-most[name] // batch))
        assert np.array_equal(np.asarray(found).view(np.uint16), array[index].view(np.uint16)), name

    methods = []
    for name in (*OURS, *readers):
        check_all(name)
        methods.append(
            Method(
                name=name,
                run=lambda name=name: last(name),  # type: ignore[misc]
                check=lambda found, name=name: check_last(name, found),  # type: ignore[misc]
                amount=min(num_rows, -(-most[name] // batch) * batch) * ROW_BYTES / 2**30,
            )
        )
    title = f"Rows of {ROW_BYTES} bytes (fp16) at random out of {gib:g} GiB, {batch} at a time, page cache warm"
    comparison = compare(title, methods, unit="GiB", rounds=rounds)
    for name in OURS:
        comparison.judge(name, "np.take in memory", 0.8)
        comparison.judge(name, "h5py chunked[index]", 20)
        comparison.judge(name, "np.memmap[index]")
    os.close(descriptor)
    return comparison


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0, help="size of the set")
    parser.add_argument("--batch", type=int, nargs="+", default=[256], help="rows in a batch")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", help="folder for random_rows.json and random_rows.md")
    options = parser.parse_args()
    comparisons = []
    for batch in options.batch:
        with tempfile.TemporaryDirectory() as folder:
            comparisons.append(measure(Path(folder), gib=options.gib, batch=batch, rounds=options.rounds))
    finish("random_rows", comparisons, options.out)


if __name__ == "__main__":
    main()
