"""A kNN head at several k from one search, beside scikit-learn's KNeighborsClassifier, one by one and with one search.

python -m fovcache.bench.peers.neighbours [--rows 5000] [--dims 384] [--rounds 12] [--threads 1 4] [--out DIR]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fovcache.probes.heads.knn import KnnHead
from fovcache.probes.one_thread import one_thread

from .comparison import Comparison, Method, compare, finish

NEIGHBOURS = (1, 3, 5, 10, 20)
NUM_CLASSES = 10
OURS = "ours, one search, 1 thread"


def measure(*, rows: int, dims: int, asked: int, rounds: int, threads: Sequence[int]) -> Comparison:
    """Predictions at every k; scikit-learn counts at its best of these numbers of threads."""
    from sklearn.neighbors import KNeighborsClassifier
    from threadpoolctl import threadpool_limits

    chance = np.random.default_rng(0)
    y = chance.integers(0, NUM_CLASSES, rows + asked)
    x = chance.standard_normal((len(y), dims)) + 0.1 * chance.standard_normal((NUM_CLASSES, dims))[y]
    x, y, new = x[:rows], y[:rows], x[rows:]
    fitted, tensor = KnnHead(neighbours=NEIGHBOURS).fit_rows(torch.from_numpy(x), y, NUM_CLASSES), torch.from_numpy(new)

    def ours() -> np.ndarray:
        with one_thread():
            return fitted.predict(tensor)

    def one_by_one() -> np.ndarray:
        models = (KNeighborsClassifier(num, algorithm="brute").fit(x, y) for num in NEIGHBOURS)
        return np.stack([model.predict(new) for model in models])

    def one_search() -> np.ndarray:
        model = KNeighborsClassifier(NEIGHBOURS[-1], algorithm="brute").fit(x, y)
        found = np.eye(NUM_CLASSES)[y[model.kneighbors(new, return_distance=False)]]
        return np.stack([found[:, :num].sum(1).argmax(1) for num in NEIGHBOURS])

    def limited(run: Callable[[], np.ndarray], num_threads: int) -> Callable[[], np.ndarray]:
        def run_limited() -> np.ndarray:
            with threadpool_limits(num_threads):
                return run()

        return run_limited

    wanted = one_search()

    def check(found: Any) -> None:
        assert (found == wanted).all()

    theirs = {"one by one": one_by_one, "one search": one_search}
    ways = {f"scikit-learn, {name}, threads: {n}": limited(run, n) for name, run in theirs.items() for n in threads}
    methods = [Method(name=name, run=run, check=check, amount=asked) for name, run in {OURS: ours, **ways}.items()]
    title = f"{len(NEIGHBOURS)} k for {asked} rows among {rows} × {dims} float64"
    comparison = compare(title, methods, unit="rows", rounds=rounds)
    for kind in theirs:
        comparison.judge(OURS, comparison.fastest([name for name in ways if kind in name]))
    return comparison


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--asked", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--out", help="folder for neighbours.json and neighbours.md")
    options = parser.parse_args()
    shape: dict[str, Any] = {name: getattr(options, name) for name in ("rows", "dims", "asked", "rounds", "threads")}
    finish("neighbours", [measure(**shape)], options.out)


if __name__ == "__main__":
    main()
