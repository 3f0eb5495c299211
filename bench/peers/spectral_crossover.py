"""The ten largest singular values of many matrices, exactly and by lowrank: from which shape on which is faster.

python -m fovcache.bench.peers.spectral_crossover [--shape 68x192 257x384 …] [--rounds 7] [--device cpu] [--out DIR]

`auto` decides by the shorter side alone, so that its numbers do not depend on the machine: this is where its limit,
`EXACT_UP_TO`, comes from.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from fovcache.derived.batches import compute_rows
from fovcache.derived.representation import Representation, resolve_representation
from fovcache.derived.spectral import EXACT_UP_TO, MOST

from .comparison import Comparison, Method, compare, finish

SHAPES = ("17x192", "50x384", "68x192", "96x384", "128x384", "160x384", "197x768", "257x384", "257x1024", "768x3072")
VALUES = 8_000_000
"""Of a round's matrices together."""
TOLERANCE = {"exact": 1e-4, "lowrank": 1e-2}


def measure(shapes: Sequence[tuple[int, int]], *, rounds: int, device: str) -> Comparison:
    """Both methods over matrices of each shape whose singular values are k^-0.25, checked against these."""
    methods = [method for shape in shapes for method in _methods(*shape, device)]
    title = f"`spectral` on {device}, exact and lowrank; auto is exact up to a shorter side of {EXACT_UP_TO}"
    comparison = compare(title, methods, unit="thousand matrices", rounds=rounds)
    for exact, lowrank in zip(methods[::2], methods[1::2], strict=True):
        comparison.judge(lowrank.name, exact.name)
    return comparison


def _methods(num_tokens: int, num_channels: int, device: str) -> list[Method]:
    num = max(8, VALUES // (num_tokens * num_channels))
    x_NTC, expected_K = _matrices(num, num_tokens, num_channels)
    x_NTC = x_NTC.to(device)
    return [_method(name, x_NTC, expected_K) for name in TOLERANCE]


def _method(name: str, x_NTC: torch.Tensor, expected_K: torch.Tensor) -> Method:
    representation: Representation = resolve_representation("spectral", {"method": name})
    num, num_tokens, num_channels = x_NTC.shape

    def check(found_NF: torch.Tensor) -> None:
        top_NK = found_NF[:, : len(expected_K)]
        torch.testing.assert_close(top_NK, expected_K.expand(num, -1), rtol=TOLERANCE[name], atol=0)

    return Method(
        name=f"{name} {num_tokens} × {num_channels}",
        run=lambda: compute_rows(representation, x_NTC, device=x_NTC.device),
        check=check,
        amount=num / 1000,
    )


def _matrices(num: int, num_tokens: int, num_channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 `[num, T, C]` on the CPU, the same two in turn, and their ten largest singular values."""
    generator = torch.Generator().manual_seed(0)
    singular_K = torch.arange(1, min(num_tokens, num_channels) + 1) ** -0.25
    left, right = (
        torch.linalg.qr(torch.randn(2, size, len(singular_K), generator=generator)).Q
        for size in (num_tokens, num_channels)
    )
    return ((left * singular_K) @ right.mT).repeat(-(-num // 2), 1, 1)[:num], singular_K[:MOST]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), help="tokens x channels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", help="folder for spectral_crossover.json and spectral_crossover.md")
    options = parser.parse_args()
    shapes = [(int(tokens), int(channels)) for tokens, channels in (shape.split("x") for shape in options.shape)]
    finish("spectral_crossover", [measure(shapes, rounds=options.rounds, device=options.device)], options.out)


if __name__ == "__main__":
    main()
