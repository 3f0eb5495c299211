"""Markdown of what a comparison's JSON holds: `python -m fovcache.bench.peers.table RESULT.json…`."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .interval import median_interval


def markdown(document: Mapping[str, Any]) -> str:
    """The tables of one benchmark, with what they were measured on."""
    machine = document["environment"]
    shown = ", ".join(f"{name} {_text(value)}" for name, value in machine.items())
    parts = [f"## {document['benchmark']}", "", f"Measured on {shown}.", ""]
    for comparison in document["comparisons"]:
        parts += _comparison(comparison, document["confidence"])
    return "\n".join(parts) + "\n"


def _comparison(comparison: Mapping[str, Any], confidence: float) -> list[str]:
    unit, timings = comparison["unit"], comparison["timings"]
    rounds = len(timings[0]["seconds"])
    percent = f"{confidence:.0%} interval"
    lines = [f"### {comparison['title']}", "", f"Medians of {rounds} rounds.", ""]
    lines += [f"| method | {unit}/s | {percent} | ms a run |", "|---|---:|---:|---:|"]
    for timing in timings:
        rates = [timing["amount"] / value for value in timing["seconds"]]
        low, high = median_interval(rates)
        milliseconds = 1000 * statistics.median(timing["seconds"])
        lines.append(
            f"| {timing['name']} | {_figure(statistics.median(rates))} | {_figure(low)} – {_figure(high)} "
            f"| {_figure(milliseconds)} |"
        )
    if comparison["bars"]:
        lines += [
            "",
            f"| ratio of rates, round by round | median | {percent} | asked for | |",
            "|---|---:|---:|---:|---|",
        ]
    for bar in comparison["bars"]:
        asked = "" if bar["at_least"] is None else f"≥ {bar['at_least']:g}"
        lines.append(
            f"| {bar['method']} / {bar['other']} | {_figure(bar['ratio'])} | {_figure(bar['low'])} – "
            f"{_figure(bar['high'])} | {asked} | {bar['verdict']} |"
        )
    return [*lines, ""]


def _figure(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _text(value: object) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


def main() -> None:
    """Print the tables of the files named on the command line."""
    for name in sys.argv[1:]:
        sys.stdout.write(markdown(json.loads(Path(name).read_text())))


if __name__ == "__main__":
    main()
