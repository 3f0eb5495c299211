"""Reading a cached set whole, page cache warm, beside other ways to read the same bytes.

python -m fovcache.bench.peers.reading [--gib 1] [--rounds 12] [--out DIR]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import safetensors.numpy
import torch

from .comparison import Comparison, Method, compare, finish
from .synthetic import random_rows, write_features

WIDTH = 1024
OURS = "FeatureSet.tensors"
RAW = ("readinto", "h5py contiguous", "h5py chunked", "np.load", "safetensors.numpy", "memcpy")
REUSED = ("readinto, memory reused", "memcpy, memory reused")
BAR = 0.9
CHUNK_ROWS = 512
"""The fastest of 1 … 512 rows a chunk and h5py's own choice."""


def measure(folder: Path, *, gib: float, rounds: int) -> Comparison:
    """Rows of 2 KiB in fp16: ours and the raw ways into new memory, and two of them into used memory."""
    rows = random_rows(round(gib * 2**30) // (2 * WIDTH), WIDTH, torch.float16)
    expected = rows.numpy().copy()  # numpy's own memory lies on huge pages: better for memcpy
    features = write_features(folder / "cache", rows)
    _write_peers(folder, expected)
    reused = np.zeros_like(expected)

    def check(output: Any) -> None:
        array = output.numpy() if isinstance(output, torch.Tensor) else output
        assert array.dtype == expected.dtype
        assert np.array_equal(array.view(np.uint16), expected.view(np.uint16))

    def into(target: np.ndarray) -> np.ndarray:
        left = target.reshape(-1).view(np.uint8).data
        with (folder / "rows.bin").open("rb", buffering=0) as file:
            while left:
                left = left[file.readinto(left) :]
        return target

    def hdf5(name: str) -> np.ndarray:
        with h5py.File(folder / name) as file:
            array: np.ndarray = file["rows"][:]
            return array

    def copy(target: np.ndarray) -> np.ndarray:
        np.copyto(target, expected)
        return target

    runs = {
        OURS: lambda: features.tensors()[0],
        "readinto": lambda: into(np.empty_like(expected)),
        "h5py contiguous": lambda: hdf5("contiguous.h5"),
        "h5py chunked": lambda: hdf5("chunked.h5"),
        "np.load": lambda: np.load(folder / "rows.npy", allow_pickle=False),  # noqa: TID251 - measured, without pickle
        "safetensors.numpy": lambda: safetensors.numpy.load_file(folder / "rows.safetensors")["rows"],
        "memcpy": lambda: copy(np.empty_like(expected)),
        REUSED[0]: lambda: into(reused),
        REUSED[1]: lambda: copy(reused),
    }
    methods = [Method(name=name, run=run, check=check, amount=gib) for name, run in runs.items()]
    title = f"Read {len(rows)} rows of {2 * WIDTH} bytes (fp16, {gib:g} GiB), page cache warm"
    comparison = compare(title, methods, unit="GiB", rounds=rounds)
    fastest = comparison.fastest(RAW)
    comparison.judge(OURS, fastest, BAR)
    for name in (*RAW, *REUSED):
        if name != fastest:
            comparison.judge(OURS, name)
    return comparison


def _write_peers(folder: Path, rows: np.ndarray) -> None:
    rows.tofile(folder / "rows.bin")
    np.save(folder / "rows.npy", rows, allow_pickle=False)
    safetensors.numpy.save_file({"rows": rows}, folder / "rows.safetensors")
    for name, chunks in (("contiguous.h5", None), ("chunked.h5", (min(CHUNK_ROWS, len(rows)), WIDTH))):
        with h5py.File(folder / name, "w") as file:
            file.create_dataset("rows", data=rows, chunks=chunks)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0, help="size of the set")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", help="folder for reading.json and reading.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        comparison = measure(Path(folder), gib=options.gib, rounds=options.rounds)
    finish("reading", [comparison], options.out)


if __name__ == "__main__":
    main()
