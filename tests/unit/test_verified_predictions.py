"""Predictions beside measurements, where they can be measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_profiles import overlapped_run, what_if

from fovcache.bench.profiler.result import Measured, OverlappedRun, WhatIf
from fovcache.bench.profiler.verify import verified
from fovcache.errors import EncoderError


def test_what_runs_is_measured_and_what_does_not_says_why() -> None:
    asked = []

    def run(entry: WhatIf) -> OverlappedRun:
        asked.append((entry.id, entry.apply))
        return overlapped_run(0.02, n=64)

    def fail(entry: WhatIf) -> OverlappedRun:
        raise EncoderError("no such encoder")

    given = [
        what_if("fetch_workers", 0.03, 0.06, apply={"workers": 8}),
        what_if("decode_workers", 0.03, 0.06),
        what_if("cached_latents", 0.03, 0.06),
        what_if("batch", 0.03, 0.06),
        what_if("cached_all", 0.019, 0.06),
    ]
    shown: list[str] = []
    runnables = {"fetch_workers": run, "decode_workers": fail, "cached_latents": "the disk is full", "cached_all": run}
    fetch, decode, latents, batch, everything = verified(given, runnables, show=shown.append)
    assert asked == [("fetch_workers", {"workers": 8}), ("cached_all", {})]
    assert shown == ["fetch_workers", "decode_workers", "cached_all"]
    assert fetch.measured == Measured(s_per_sample=0.02, samples_per_hour=180_000, error=pytest.approx(0.5), n=64)
    assert fetch.s_per_sample == 0.03
    assert everything.measured is not None
    assert everything.measured.error == pytest.approx(-0.05)
    assert (decode.measured, decode.not_measured) == (None, "no such encoder")
    assert (latents.measured, latents.not_measured) == (None, "the disk is full")
    assert (batch.measured, batch.not_measured) == (None, "nothing here can run it")


def test_the_pipeline_as_it_is_is_run_again_after_the_others() -> None:
    measured = Measured(s_per_sample=0.02, samples_per_hour=180_000, error=0.0, n=64)
    given = [what_if("overlap", 0.02, 0.02, measured=measured), what_if("batch", 0.01, 0.02)]
    asked = []

    def run(entry: WhatIf) -> OverlappedRun:
        asked.append(entry.id)
        return overlapped_run(0.03)

    def fail(entry: WhatIf) -> OverlappedRun:
        raise EncoderError("gone")

    first, _ = verified(given, {"overlap": run, "batch": run})
    assert asked == ["batch", "overlap"]
    assert first.measured == replace(measured, again_s=0.03)
    for none in ({}, {"overlap": "cannot be run"}, {"overlap": fail}):
        assert verified(given[:1], none) == (given[0],)


def test_other_errors_are_raised() -> None:
    def fail(entry: WhatIf) -> OverlappedRun:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        verified([what_if("batch", 0.02, 0.02)], {"batch": fail})


def test_a_run_without_samples_is_no_measurement() -> None:
    (entry,) = verified([what_if("batch", 0.02, 0.02)], {"batch": lambda entry: overlapped_run(0.02, n=0)})
    assert (entry.measured, entry.not_measured) == (None, "no sample came through")
