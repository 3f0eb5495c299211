"""What changes would bring, by hand-worked arithmetic, and what is left out."""

from __future__ import annotations

import pytest
from made_profiles import cost, model, overlapped_run, times

from fovcache.bench.profiler.predict import STEP
from fovcache.bench.profiler.result import WhatIf
from fovcache.bench.profiler.what_if import Artefact, BatchScaling, Caching, Options, what_ifs
from fovcache.errors import UsageError

# download .115 · extraction .205 · VAE encode .105 · forward .073 · backward .065, one after the other .563 s a sample
STAGES = {"fetch": 0.115, "decode": 0.205, "vae_encode": 0.105, "encode": 0.05, "copy": 0.005, "forward": 0.083}
TOTAL_S = sum(STAGES.values())
LATENTS = Artefact(stage="vae_encode", what="VAE latents", bytes_per_sample=50_000)
FEATURES = Artefact(stage="encode", what="features", bytes_per_sample=150_000)


def entries(options: Options, *, overlapped_s: float | None = 0.25, **settings: float) -> dict[str, WhatIf]:
    """Of a pipeline that is held up by its steps of .243 s, on one fetch and one decode thread."""
    made = model(*(cost(id_, wall_s) for id_, wall_s in STAGES.items()), batch_size=8, **settings)
    rows = [times(id_, wall_s, share=wall_s / TOTAL_S) for id_, wall_s in STAGES.items()]
    run = overlapped_run(overlapped_s) if overlapped_s else None
    return {entry.id: entry for entry in what_ifs(made, rows, run, options)}


def test_the_first_is_the_pipeline_as_it_is_beside_its_measurement() -> None:
    found = entries(Options())
    first = next(iter(found.values()))
    assert first.id == "overlap"
    assert first.change == "as it is: fetch on 1 thread, decode on 1 thread"
    assert first.s_per_sample == pytest.approx(0.243)
    assert first.samples_per_hour == pytest.approx(3600 / 0.243)
    assert first.limited_by == STEP
    assert first.measured is not None
    assert first.measured.error == pytest.approx(0.243 / 0.25 - 1)
    assert first.speedup == 1
    assert entries(Options(), overlapped_s=None)["overlap"].measured is None


def test_caching_saves_fetch_and_decode_only_where_all_encoders_are_cached() -> None:
    found = entries(Options(caching=Caching(artefacts=(LATENTS, FEATURES), num_samples=1000)))
    latents, features, everything = (found[f"cached_{what}"] for what in ("latents", "features", "all"))
    assert latents.s_per_sample == pytest.approx(0.205)  # decode, on its one thread
    assert latents.limited_by == "decode"
    assert latents.ceiling == pytest.approx(TOTAL_S / (TOTAL_S - 0.105))
    assert latents.bytes_on_disk == 50_000_000
    assert features.s_per_sample == pytest.approx(0.205)
    assert features.ceiling == pytest.approx(TOTAL_S / (TOTAL_S - 0.05))
    assert everything.s_per_sample == pytest.approx(0.083)
    assert everything.speedup == pytest.approx(0.243 / 0.083)
    assert everything.ceiling == pytest.approx(TOTAL_S / 0.083)
    assert everything.bytes_on_disk == 200_000_000
    assert everything.change == "VAE latents and features from the cache"


def test_reading_a_cache_takes_its_time() -> None:
    settings = {"artefacts": (LATENTS, FEATURES), "num_samples": 1000, "read_bytes_per_s": 1e6}
    resident = entries(Options(caching=Caching(**settings)))["cached_all"]
    assert resident.s_per_sample == pytest.approx(0.2 + 0.083)
    assert resident.limited_by == STEP
    assert resident.ceiling == pytest.approx(TOTAL_S / 0.083)  # as if reading took no time
    streamed = entries(Options(caching=Caching(**settings, is_resident=False)))["cached_all"]
    assert streamed.s_per_sample == pytest.approx(0.2)
    assert streamed.limited_by == "load"


def test_the_only_encoder_cached_is_everything() -> None:
    made = model(cost("fetch", 0.2), cost("decode", 0.1), cost("encode", 0.05), cost("forward", 0.02))
    rows = [times("fetch", 0.2, 0.5), times("decode", 0.1, 0.25), times("encode", 0.05, 0.125)]
    caching = Caching(artefacts=(FEATURES, LATENTS), num_samples=10)  # there is no VAE
    found = {entry.id: entry for entry in what_ifs(made, rows, None, Options(caching=caching))}
    assert [each for each in found if each.startswith("cached")] == ["cached_features"]
    assert found["cached_features"].s_per_sample == pytest.approx(0.02)
    assert found["cached_features"].ceiling == pytest.approx(8)


def test_as_many_threads_as_are_needed_are_proposed() -> None:
    made = model(cost("fetch", 0.32, num_workers=2), cost("decode", 0.02), cost("encode", 0.03), num_cores=4)
    commands = {"fetch_workers": "fovbench profile clips --fetch-workers {n}"}
    found = {entry.id: entry for entry in what_ifs(made, [], None, Options(commands=commands))}
    assert found["fetch_workers"].apply == {"workers": 16}  # 0.32 / 16 < 0.03 < 0.32 / 8
    assert found["fetch_workers"].change == "fetch on 16 threads"
    assert found["fetch_workers"].command == "fovbench profile clips --fetch-workers 16"
    assert found["fetch_workers"].speedup == pytest.approx(0.16 / 0.03)
    assert found["decode_workers"].speedup == pytest.approx(1)
    assert found["decode_workers"].command == "fovbench profile … --workers 2"


def test_an_error_of_the_prediction_as_it_is_is_no_gain_of_a_change() -> None:
    """Measured 0.3 s where 0.243 was predicted: more threads, predicted to change nothing, bring nothing."""
    found = entries(Options(), overlapped_s=0.3)
    assert found["fetch_workers"].speedup == pytest.approx(1)


def test_no_more_threads_than_cores_or_the_limit() -> None:
    made = model(
        cost("fetch", 0.32, num_workers=3), cost("decode", 0.9, num_workers=2), cost("encode", 0.03), num_cores=3.5
    )
    found = {entry.id: entry for entry in what_ifs(made, [], None, Options(max_fetch_workers=3))}
    assert list(found) == ["overlap", "decode_workers"]
    assert found["decode_workers"].apply == {"workers": 3}
    full = {entry.id for entry in what_ifs(made.with_workers("decode", 3), [], None, Options(max_fetch_workers=3))}
    assert full == {"overlap"}


def test_a_larger_batch_is_the_largest_that_memory_allows() -> None:
    """100 ms and 5 ms a sample, 1 GB and 100 MB a sample: 8 take 1.8 GB, 64 would take 7.4 GB."""
    scaling = BatchScaling(
        batch_sizes=(8, 16), step_s=(0.14, 0.18), peak_bytes=(1_800_000_000, 2_600_000_000), memory_bytes=5_000_000_000
    )
    assert scaling.step_s_at(32) == pytest.approx(0.26)
    assert scaling.peak_bytes_at(32) == pytest.approx(4.2e9)
    assert scaling.largest() == 32
    made = model(cost("forward", 0.14 / 8), batch_size=8)
    (as_it_is, larger) = what_ifs(made, [], None, Options(batch=scaling))
    assert as_it_is.s_per_sample == pytest.approx(0.14 / 8)
    assert larger.s_per_sample == pytest.approx(0.26 / 32)
    assert larger.change == "batches of 32"
    assert larger.apply == {"batch_size": 32}
    assert larger.command == "fovbench profile … --batch-size 32"


def test_a_batch_grows_no_farther_than_eightfold_and_not_without_memory() -> None:
    roomy = BatchScaling(batch_sizes=(8, 4), step_s=(0.1, 0.09), peak_bytes=(100, 90), memory_bytes=10**12)
    assert roomy.largest() == 64
    full = BatchScaling(batch_sizes=(8, 4), step_s=(0.1, 0.09), peak_bytes=(100, 90), memory_bytes=120)
    assert full.largest() == 8
    assert [
        entry.id for entry in what_ifs(model(cost("forward", 0.0125), batch_size=8), [], None, Options(batch=full))
    ] == ["overlap"]


def test_noise_in_step_times_makes_no_part_negative() -> None:
    faster = BatchScaling(batch_sizes=(4, 8), step_s=(0.1, 0.09), peak_bytes=(5, 5), memory_bytes=10)
    assert faster.step_s_at(32) == pytest.approx(0.1)
    steep = BatchScaling(batch_sizes=(4, 8), step_s=(0.1, 0.3), peak_bytes=(5, 5), memory_bytes=10)
    assert steep.step_s_at(32) == pytest.approx(0.8)


def test_what_takes_no_time_has_no_prediction() -> None:
    assert what_ifs(model(cost("encode", 0.0)), [], None, Options()) == ()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="stage 'decode' gives nothing to cache"):
        Artefact(stage="decode", what="frames", bytes_per_sample=1)
    with pytest.raises(UsageError, match="-1 bytes"):
        Artefact(stage="encode", what="features", bytes_per_sample=-1)
    with pytest.raises(UsageError, match="at 0 bytes/s"):
        Caching(artefacts=(), num_samples=1, read_bytes_per_s=0)
    with pytest.raises(UsageError, match="two sizes"):
        BatchScaling(batch_sizes=(8, 8), step_s=(1, 1), peak_bytes=(1, 1), memory_bytes=1)
