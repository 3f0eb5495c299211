"""Optimiser steps of the foveated model in its true size: SmolLM2-135M over DINOv2-small's tokens, random weights.

    python -m fovcache.bench.true_size_step [--samples 1] [--frames 8] [--steps 3] [--attention shallow|deep]
        [--device cpu] [--precision fp32|bf16]

Rows are drawn, in the shapes and dtypes that a cache holds: 257 tokens of 384 numbers a frame (deep: the states that go
into each of 12 blocks), a latent of 4 × 32 × 32, a caption of 24 tokens. Prints the parameters by part, the time of
each step by what it went to, and the peak memory.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fovcache.console import human_bytes
from fovcache.errors import FovcacheError
from fovcache.models.dinov2 import SMALL
from fovcache.models.foveated.model import make
from fovcache.models.vision_transformer import VisionTransformer
from fovcache.trainable import InputInfo

from .profiler.host_counters import own_peak_bytes

NUM_TOKENS, WIDTH = 257, 384
LATENT = (4, 32, 32)
CAPTION_TOKENS = 24
WEIGHTS = "random:0"
HEADS = ("reconstruction", "caption")
SECONDS = ("forward", "backward", "optimiser")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """One step, in seconds."""

    forward: float
    """Loss of the batch."""
    backward: float
    """Gradients."""
    optimiser: float
    """Clipping and AdamW."""
    loss: float
    """What was descended."""


def inputs(num_frames: int) -> dict[str, InputInfo]:
    """What a cache of such features says of them."""
    tokens = {"extractor": dict(VisionTransformer.open(SMALL, WEIGHTS).identity())}
    latents = {"extractor": {"name": "vae-sd", "scaling_factor": 0.18215}, "posterior": {"kind": "mean"}}
    captions = {"extractor": {"name": "tokens", "vocabulary": 49152, "end": 0}}
    return {
        "frames": InputInfo(row_shape=(num_frames, NUM_TOKENS, WIDTH), dtype="bf16", recipe=tokens, weights=WEIGHTS),
        "latents": InputInfo(row_shape=(num_frames, *LATENT), dtype="bf16", recipe=latents),
        "captions": InputInfo(row_shape=(CAPTION_TOKENS,), dtype="int64", recipe=captions),
    }


def draw_batch(
    names: Sequence[str], num_samples: int, num_frames: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Rows for the tokens' `names`, latents and captions."""
    drawn = torch.Generator().manual_seed(0)

    def rows(*shape: int) -> torch.Tensor:
        return torch.randn(num_samples, num_frames, *shape, generator=drawn).to(device, torch.bfloat16)

    captions = torch.randint(1, 49152, (num_samples, CAPTION_TOKENS), generator=drawn)
    captions[:, -1] = 0
    tokens = {name: rows(NUM_TOKENS, WIDTH) for name in names}
    return {**tokens, "latents": rows(*LATENT), "captions": captions.to(device)}


def steps(
    module: nn.Module, batch: dict[str, torch.Tensor], num_steps: int, device: torch.device, precision: str
) -> Iterator[StepTime]:
    """Steps on one batch, measured."""
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-4)

    def timed(what: Callable[[], Any]) -> tuple[Any, float]:
        started = time.perf_counter()
        found = what()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return found, time.perf_counter() - started

    def forward() -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss: torch.Tensor = module(batch)["loss"].mean()
        return loss

    def optimise() -> None:
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    for _ in range(num_steps):
        loss, forward_s = timed(forward)
        _, backward_s = timed(loss.backward)
        _, optimiser_s = timed(optimise)
        yield StepTime(forward=forward_s, backward=backward_s, optimiser=optimiser_s, loss=loss.item())


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="of the batch; default 1")
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="of each sample; default 8")
    parser.add_argument("--steps", type=int, default=3, metavar="N", help="default 3; the first one warms up")
    parser.add_argument("--attention", choices=("shallow", "deep"), default="shallow")
    parser.add_argument("--device", default="cpu", help="default cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of autocast; default fp32")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, step, print; the exit status."""
    options = parse(arguments)
    device = torch.device(options.device)
    trainable = make({"heads": list(HEADS), "attention": options.attention})
    started = time.perf_counter()
    try:
        module = trainable.build(inputs(options.frames), seed=0).to(device).train()
    except FovcacheError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    sys.stdout.write(f"built in {time.perf_counter() - started:.1f} s; parameters:\n")
    counts = dict.fromkeys(module.parts, 0)
    for name, parameter in module.named_parameters():
        counts[next(part for part, found in module.parts.items() if name.startswith(tuple(found)))] += parameter.numel()
    for part, count in counts.items():
        sys.stdout.write(f"  {part:16} {count / 1e6:8.3f} M\n")
    sys.stdout.write(f"  {'all':16} {sum(counts.values()) / 1e6:8.3f} M\n")
    frozen = sum(buffer.numel() for buffer in module.attention.buffers())
    sys.stdout.write(f"  {'frozen encoder':16} {frozen / 1e6:8.3f} M\n")
    layers = trainable.needs()["frames"].layers
    names = [f"frames/{layer}" for layer in layers] or ["frames"]
    batch = draw_batch(names, options.samples, options.frames, device)
    for number, step in enumerate(steps(module, batch, options.steps, device, options.precision)):
        parts = ", ".join(f"{name} {getattr(step, name):.3f} s" for name in SECONDS)
        sys.stdout.write(f"step {number}: {parts}; loss {step.loss:.4f}\n")
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else own_peak_bytes()
    sys.stdout.write(f"peak memory: {'unknown' if peak is None else human_bytes(peak)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
