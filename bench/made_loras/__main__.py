"""Make LoRA files whose truth is known: which matrices tell their class, and how clearly.

    python -m fovcache.bench.made_loras OUT --samples 1000 --rank 1 --signal attn1=0.3 --signal attn2.to_v.down=0.1

writes OUT/CLASS/NUMBER.safetensors and OUT/manifest.csv with labels and groups. Signals are root mean squares of what
a class shares, where the noise of single samples has 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fovcache.console import human_bytes, human_seconds, progress_bar
from fovcache.errors import FovcacheError, UsageError, nearest

from .files import STYLES, write_loras
from .gauge import GAUGES
from .population import LoraPopulation

SIGNALS = {"attn1": "attn1_signal", "attn2": "attn2_signal", "attn2.to_v.down": "text_signal"}
"""Where a signal can be, and the population's field."""
_KNOBS = ("rank", "group_size", "group_effect", "noise", "gain_sd", "gauge", "gauge_sd", "seed")
_VARIANTS = ("duplicated", "shuffled_labels", "constant_norm")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; what a population has no own default for is as `LoraPopulation` has it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=Path, help="a new or empty folder")
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="files; 1000 where nothing is said")
    parser.add_argument("--style", default="diffusers", help=f"of the keys: {', '.join(STYLES)}")
    parser.add_argument(
        "--signal", action="append", default=[], metavar="WHERE=X", help=f"WHERE is one of {', '.join(SIGNALS)}"
    )
    usual = LoraPopulation()
    for name in _KNOBS:
        default = getattr(usual, name)
        said = ", ".join(GAUGES) if name == "gauge" else f"{default} where nothing is said"
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=said)
    for name in _VARIANTS:
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true")
    return parser.parse_args(arguments)


def population_of(options: argparse.Namespace) -> LoraPopulation:
    """What the command line asks for. Raises UsageError."""
    fields: dict[str, Any] = {name: getattr(options, name) for name in (*_KNOBS, *_VARIANTS)}
    for said in options.signal:
        where, _, value = said.partition("=")
        if where not in SIGNALS:
            raise UsageError(f"--signal {said}: there is no {where!r}{nearest(where, SIGNALS)}")
        try:
            fields[SIGNALS[where]] = float(value)
        except ValueError:
            raise UsageError(f"--signal {said}: expected a number, such as {where}=0.3") from None
    return LoraPopulation(**fields)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the files; the exit status."""
    options = parse(arguments)
    started = time.perf_counter()
    try:
        population = population_of(options)
        with progress_bar() as show:
            manifest = write_loras(population, options.out, options.samples, style=options.style, on_progress=show)
    except FovcacheError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    size = 4 * population.layout.num_values * options.samples
    took = human_seconds(time.perf_counter() - started)
    sys.stdout.write(f"{options.samples} LoRAs, {human_bytes(size)} of values, in {took}: {manifest}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
