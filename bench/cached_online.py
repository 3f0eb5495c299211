"""Training from the cache beside encoding every batch anew, end to end on real clips: samples an hour, and what storing
rows in bfloat16 does to the weights.

    python -m fovcache.bench.cached_online CLIPS… [--encoder dinov2-small] [--weights random:0] [--layer norm]
        [--head projection|foveated] [--batch 4] [--rounds 6] [--cached-steps 100] [--online-steps 4] [--out DIR]

All three ways train the same model on the same samples in the same order. For the rates, training online encodes the
samples of a step together, and cached rows were encoded one by one, so they agree to rounding; for the divergence both
are encoded one by one, and equal. `overlapped` reads, decodes and encodes in threads ahead of the loop; `one at a time`
does nothing ahead. The first steps of each round are not timed: with full queues what is used while the clock runs is
what is made meanwhile.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from fovcache.cache import Cache, open_cache
from fovcache.errors import UsageError
from fovcache.probes.train.config import CACHED, ONLINE, DataChoice, InputChoice, TrainConfig
from fovcache.probes.train.feed import Feed, FeedBatch
from fovcache.probes.train.feeds.kinds import open_feed
from fovcache.probes.train.feeds.online import open_online
from fovcache.probes.train.recipe import standard
from fovcache.probes.train.saving.random_states import seed_all
from fovcache.probes.train.settings import TrainSettings
from fovcache.probes.train.stepping.audit import choose_parts
from fovcache.probes.train.stepping.processes import Processes, open_processes
from fovcache.probes.train.stepping.trainer import Trainer
from fovcache.store.refs import find_ref

from .peers.comparison import Comparison, Timing, finish

OVERLAPPED, ONE_AT_A_TIME = "online, overlapped", "online, one at a time"
BAR = 10.0
PROJECTION, FOVEATED = "projection", "foveated"
_DROPPED_STEPS = 1
_VALIDATION_SAMPLES = 2
_ALPHABET = "0123"
_MODELS: dict[str, dict[str, Any]] = {
    PROJECTION: {"layers": 2},
    FOVEATED: {"size": "tiny", "heads": ["labels"], "alphabet": _ALPHABET},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is measured."""

    sources: tuple[str, ...]
    """Folders or files of clips."""
    encoder: str = "dinov2-small"
    """The frozen encoder."""
    weights: str | None = "random:0"
    """Its weights; None for the published ones."""
    layer: str = "norm"
    """Of which the tokens are trained on."""
    size: int | None = None
    """Pixels; None for the encoder's own."""
    frames: int = 8
    """Of each clip."""
    head: str = PROJECTION
    """What is trained: `projection`, two linear layers, or `foveated`, the model with its tiny language model."""
    batch_size: int = 4
    """Samples of a step."""
    device: str = "auto"
    """Of encoder and head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Two runs of the same seed that differ in how features come."""

    name: str
    """Which two."""
    steps: int
    """That each did."""
    losses: tuple[float, float]
    """Mean validation loss of each, afterwards."""
    distance: float
    """L2 norm of the difference of all parameters, divided by that of the second's."""
    of_way: float
    """The same divided by how far the second's went from where both began."""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="CLIPS", help="folders or files of clips")
    parser.add_argument("--encoder", default="dinov2-small")
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--layer", default="norm")
    parser.add_argument("--size", type=int)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--head", default=PROJECTION, choices=[PROJECTION, FOVEATED])
    parser.add_argument("--batch", type=int, default=4, help="samples of a step")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--cached-steps", type=int, default=100, help="timed in a round")
    parser.add_argument("--online-steps", type=int, default=4, help="timed in a round")
    parser.add_argument("--same-steps", type=int, default=10, help="steps of cached against online from float32 rows")
    parser.add_argument("--apart-steps", type=int, default=500, help="steps of bfloat16 against float32 rows")
    parser.add_argument("--out", help="folder for cached_online-HEAD.json, .md and cached_online-HEAD-apart.json")
    options = parser.parse_args()
    request = Request(
        sources=tuple(options.sources),
        encoder=options.encoder,
        weights=options.weights,
        layer=options.layer,
        size=options.size,
        frames=options.frames,
        head=options.head,
        batch_size=options.batch,
        device=options.device,
    )
    with tempfile.TemporaryDirectory(prefix="fovcache-") as folder:
        clips = build_clips(request, Path(folder))
        comparison = compare_rates(request, clips, options.rounds, options.cached_steps, options.online_steps)
        apart = measure_divergence(request, clips, options.same_steps, options.apart_steps)
    name = f"cached_online-{request.head}"
    finish(name, [comparison], options.out)
    if options.out is not None:
        text = json.dumps([asdict(each) for each in apart], indent=1) + os.linesep
        Path(options.out, f"{name}-apart.json").write_text(text)
    write(apart)


def write(apart: Sequence[Divergence]) -> None:
    """The divergences as a table on standard output."""
    lines = ["| runs | steps | validation losses | weights apart | of the way |", "|---|---:|---:|---:|---:|"]
    for each in apart:
        losses = " and ".join(f"{loss:.6g}" for loss in each.losses)
        lines.append(f"| {each.name} | {each.steps} | {losses} | {each.distance:.3g} | {each.of_way:.3g} |")
    sys.stdout.write("\n".join(lines) + "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """Clips that can be decoded, in a cache."""

    cache: Path
    """Its folder."""
    manifest: Path
    """The clips with made labels and captions."""
    num: int
    """Samples."""


def build_clips(request: Request, folder: Path) -> Clips:
    """Rows in both dtypes, each computed by itself, so that an online batch of one gives the same bits.

    Clips that cannot be decoded are left out, for online training too. Raises UsageError when none is left.
    """
    cache = open_cache(folder / "cache")
    cache.build(list(request.sources), dataset="all", store_dtype="bf16", **_build_options(request))
    paths = _decodable(cache, request)
    manifest = folder / "clips.jsonl"
    rows = (
        {
            "uri": str(path),
            "label": number % 4,
            "caption": "".join(_ALPHABET[(number + at) % 4] for at in range(request.frames)),
        }
        for number, path in enumerate(paths)
    )
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for store_dtype in ("bf16", "fp32"):
        cache.build(str(manifest), dataset="clips", store_dtype=store_dtype, **_build_options(request))
    if request.head == FOVEATED:
        cache.build(str(manifest), dataset="clips", encoder="bytes")
    return Clips(cache=folder / "cache", manifest=manifest, num=len(paths))


def _build_options(request: Request) -> dict[str, Any]:
    return {
        "encoder": request.encoder,
        "weights": request.weights,
        "layers": [request.layer],
        "pool": "tokens",
        "size": request.size,
        "frames": request.frames,
        "device": request.device,
        "batch_size": 1,
    }


def _decodable(cache: Cache, request: Request) -> list[Path]:
    """The clips with rows, each content once."""
    roots = find_ref(cache.storage, "all").roots
    samples = cache.features(dataset="all", layer=request.layer).samples
    clips = list({sample.key: Path(roots[sample.source], sample.uri) for sample in samples}.values())
    if len(clips) < request.batch_size + _VALIDATION_SAMPLES or not all(path.is_file() for path in clips):
        raise UsageError(
            f"{len(clips)} of the clips can be decoded, expected at least {request.batch_size + _VALIDATION_SAMPLES} "
            "clips in files of their own"
        )
    return clips


def compare_rates(request: Request, clips: Clips, rounds: int, cached_steps: int, online_steps: int) -> Comparison:
    """The three ways in turn, from rows as they are stored by default, in bfloat16."""
    ways = {
        CACHED: (CACHED, True, cached_steps),
        OVERLAPPED: (ONLINE, True, online_steps),
        ONE_AT_A_TIME: (ONLINE, False, online_steps),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with ExitStack() as stack:
        processes = stack.enter_context(open_processes(_settings(request), request.device))
        trainings = {
            name: stack.enter_context(_open(request, clips, processes, kind, overlapped=overlapped))
            for name, (kind, overlapped, _) in ways.items()
        }
        names = list(ways)
        for number in range(rounds + 1):
            for name in names[number % 3 :] + names[: number % 3]:
                gc.collect()
                elapsed = trainings[name].timed_steps(ways[name][2])
                if number:  # the first round warms up
                    seconds[name].append(elapsed)
    timings = tuple(
        Timing(name=name, amount=steps * request.batch_size, seconds=tuple(seconds[name]))
        for name, (_, _, steps) in ways.items()
    )
    shown = f"{request.frames} frames a clip, {clips.num} clips, batch {request.batch_size}, {processes.device}"
    title = f"Training a {request.head} head on {request.encoder} {request.layer}, {shown}"
    comparison = Comparison(title=title, unit="samples", timings=timings, bars=[])
    comparison.judge(CACHED, comparison.fastest([OVERLAPPED, ONE_AT_A_TIME]), BAR)
    comparison.judge(CACHED, ONE_AT_A_TIME)
    return comparison


def measure_divergence(request: Request, clips: Clips, same_steps: int, apart_steps: int) -> list[Divergence]:
    """Cached against online from rows in float32, which is to be nothing; then bfloat16 rows against float32."""
    with open_processes(_settings(request), request.device) as processes:

        def trained(kind: str, store_dtype: str, steps: int) -> _End:
            with _open(request, clips, processes, kind, store_dtype=store_dtype, encode_batch_size=1) as training:
                return training.end(steps)

        online, cached = trained(ONLINE, "fp32", same_steps), trained(CACHED, "fp32", same_steps)
        found = [_divergence("cached fp32 and online fp32", same_steps, cached, online)]
        found.append(
            _divergence("cached bf16 and online fp32", same_steps, trained(CACHED, "bf16", same_steps), online)
        )
        ends = [trained(CACHED, store_dtype, apart_steps) for store_dtype in ("bf16", "fp32")]
        found.append(_divergence("cached bf16 and cached fp32", apart_steps, ends[0], ends[1]))
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _End:
    """Where a run ended."""

    loss: float
    first: torch.Tensor
    """All parameters before, float64."""
    last: torch.Tensor
    """And after."""


def _divergence(name: str, steps: int, one: _End, other: _End) -> Divergence:
    difference = float((one.last - other.last).norm())
    return Divergence(
        name=name,
        steps=steps,
        losses=(one.loss, other.loss),
        distance=difference / float(other.last.norm()),
        of_way=difference / float((other.last - other.first).norm()),
    )


class _Training:
    """A feed and a trainer, always from the same beginning."""

    def __init__(self, feed: Feed, trainer: Trainer) -> None:
        self._feed, self._trainer = feed, trainer

    def timed_steps(self, steps: int) -> float:
        """Seconds that so many steps take, after some that fill the queues."""
        batches = self._feed.train_batches(0)
        self._step(batches, _DROPPED_STEPS)
        began = time.perf_counter()
        self._step(batches, steps)
        elapsed = time.perf_counter() - began
        batches.close()  # type: ignore[attr-defined] # threads that read ahead end before the next way begins
        return elapsed

    def end(self, steps: int) -> _End:
        """Train for so many steps."""
        first = self._parameters()
        batches = self._feed.train_batches(0)
        self._step(batches, steps)
        evaluation = self._trainer.evaluate()
        assert evaluation is not None
        return _End(loss=evaluation.values["loss"], first=first, last=self._parameters())

    def _step(self, batches: Iterator[FeedBatch], steps: int) -> None:
        for batch in islice(batches, steps):
            self._trainer.step(batch)
        self._trainer.synchronize()

    def _parameters(self) -> torch.Tensor:
        parts = [each.detach().double().cpu().flatten() for each in self._trainer.module.parameters()]
        return torch.cat(parts)


@contextmanager
def _open(
    request: Request,
    clips: Clips,
    processes: Processes,
    kind: str,
    *,
    store_dtype: str = "bf16",
    encode_batch_size: int | None = None,
    overlapped: bool = True,
) -> Iterator[_Training]:
    settings = _settings(request)
    sources = (str(clips.manifest),) if kind == ONLINE else ()
    rows = "features" if request.head == PROJECTION else "frames"
    config = TrainConfig(
        cache=str(clips.cache),
        dataset="clips",
        device=request.device,
        kind=request.head,
        model=_MODELS[request.head],
        inputs={rows: InputChoice(layer=request.layer, encoder=request.encoder, store_dtype=store_dtype)},
        data=DataChoice(kind=kind, sources=sources, encode_batch_size=encode_batch_size),
        train=settings,
    )
    trainable = config.trainable()
    needs, device = trainable.needs(), processes.device
    feed = (
        open_feed(config, needs, seed=0, device=device)
        if overlapped
        else open_online(config, needs, seed=0, device=device, overlapped=False)
    )
    with closing(feed):
        seed_all(0, 0)
        module = trainable.build(feed.inputs, 0).to(processes.device)
        choose_parts(module, trainable, settings)
        seed_all(0, 0)
        yield _Training(feed, Trainer(module, feed, settings, processes))


def _settings(request: Request) -> TrainSettings:
    return standard(
        samples=10**9,
        batch_size=request.batch_size,
        learning_rate=1e-3,
        warmup_samples=0,
        schedule="constant",
        evaluate_every=10**9,
        validation_samples=_VALIDATION_SAMPLES,
        checkpoint_every=10**9,
        out_of_memory="stop",
    )


if __name__ == "__main__":
    main()
