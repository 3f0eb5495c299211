"""Profiles to make reports of: the stage table that video people know, and what can be wrong with one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fovcache.bench.profiler.result import (
    Bottleneck,
    Fault,
    Measured,
    Overhead,
    OverlappedRun,
    Profile,
    SerialRun,
    Span,
    StageTimes,
    WhatIf,
)

_N, _BATCH = 320, 8
_STAGES = [  # id, name, resource, mean_s, cpu_s, failed, failed_s
    ("fetch", "download", "network", 0.1152, 0.0061, 3, 2.64),
    ("decode", "ffmpeg extraction (pyav)", "cpu", 0.2047, 0.2031, 2, 0.31),
    ("copy", "host-device copy", "gpu", 0.0041, 0.0040, 0, 0.0),
    ("vae_encode", "VAE encode", "gpu", 0.1049, 0.0112, 0, 0.0),
    ("encode", "frozen encode (dinov2-small)", "gpu", 0.0408, 0.0105, 0, 0.0),
    ("forward", "forward", "gpu", 0.0324, 0.0098, 0, 0.0),
    ("backward", "backward", "gpu", 0.0611, 0.0087, 0, 0.0),
    ("optimise", "optimiser", "gpu", 0.0038, 0.0021, 0, 0.0),
]
_HOUR_S = 3600.0
OVERLAPPED_S = 0.3184


def stage_times(id: str, name: str, resource: str, mean_s: float, *, n: int = _N, **changes: Any) -> StageTimes:
    """A stage that took `mean_s` a sample; its share is still 0."""
    per_batch = resource == "gpu"
    times = StageTimes(
        id=id,
        name=name,
        resource=resource,
        n=n,
        num_units=n // _BATCH if per_batch else n,
        failed=0,
        failed_s=0.0,
        total_s=n * mean_s,
        mean_s=mean_s,
        median_s=mean_s * 0.96,
        p10_s=mean_s * (0.97 if per_batch else 0.61),
        p90_s=mean_s * (1.04 if per_batch else 1.58),
        ci95_s=(mean_s * 0.973, mean_s * 1.027),
        share=0.0,
        cpu_s=mean_s,
    )
    return replace(times, **changes)


def serial_profile(stages: list[StageTimes], *, n: int = _N, unattributed_share: float = 0.008) -> Profile:
    """A profile of a serial run of these stages, with shares that add up."""
    wall_s = sum(stage.total_s for stage in stages) / (1 - unattributed_share)
    return Profile(
        environment={},
        settings={},
        warmup_dropped=0,
        stages=tuple(replace(stage, share=stage.total_s / wall_s) for stage in stages),
        serial=SerialRun(
            s_per_sample=wall_s / n,
            samples_per_hour=_HOUR_S * n / wall_s,
            unattributed_share=unattributed_share,
            wall_s=wall_s,
            n=n,
        ),
    )


def full_profile() -> Profile:
    """Everything measured, some samples failed, two predictions verified."""
    stages = [
        stage_times(
            id, name, resource, mean_s, n=_N + (2 if id == "fetch" else 0), cpu_s=cpu_s, failed=failed,
            failed_s=failed_s, total_s=(_N + (2 if id == "fetch" else 0)) * mean_s + failed_s,
        )
        for id, name, resource, mean_s, cpu_s, failed, failed_s in _STAGES
    ]  # fmt: skip
    return replace(
        serial_profile(stages),
        environment={
            "cpu": "AMD EPYC 7B13",
            "cores": 4,
            "memory_gib": 31.3,
            "gpu": "NVIDIA GeForce RTX 4090",
            "versions": {"fovcache": "0.1.0", "torch": "2.13.0", "av": "17.1.0", "ffmpeg": "8.0.1"},
            "tf32": True,
        },
        settings={
            "sources": ["https://example.com/clips/train-{0000..0011}.tar"],
            "encoders": ["dinov2-small", "vae-sd"],
            "weights": {"all": "random:0"},
            "model": "head.py:make",
            "frames": 8,
            "batch_size": _BATCH,
            "compile": None,
        },
        warmup_dropped=32,
        overlapped=OverlappedRun(
            s_per_sample=OVERLAPPED_S,
            samples_per_hour=_HOUR_S / OVERLAPPED_S,
            ci95_s=(0.3121, 0.3247),
            busy={"network": 0.0905, "cpu": 0.8613, "gpu": 0.7621},
            stall=0.2264,
            wall_s=101.9,
            n=_N,
            device_s={
                "copy": 0.0040,
                "vae_encode": 0.1046,
                "encode": 0.0405,
                "forward": 0.0322,
                "backward": 0.0608,
                "optimise": 0.0037,
            },
            num_workers={"fetch": 4, "decode": 1},
            stage_busy={"fetch": 0.0905, "decode": 0.964},
            host_wait=0.3121,
        ),
        predicted=tuple(_what_ifs()),
        bottleneck=Bottleneck(
            stage="decode",
            resource="cpu",
            kind="input",
            reason="the device waits 22.6 % of the time for decoded frames: one decode thread needs 205 ms a sample",
        ),
        advice=(
            "Decode on 4 threads: 14,400 samples/h instead of 11,300 (× 1.27): fovbench profile --decode-workers 4",
            "Keep the VAE's latents: 105 ms of the device a sample less, 16.0 MB on disk for 320 samples: "
            "fovcache build train.jsonl --cache features --encoder vae-sd",
            "Keep everything that is frozen: 34,500 samples/h (× 3.05), 66.1 MB on disk for 320 samples.",
        ),
        overhead=Overhead(serial_share=0.0021, overlapped_share=0.0064, how="the same run without clocks, 3 times"),
        memory={
            "device": {
                "peak_allocated_bytes": 13_962_000_000,
                "peak_reserved_bytes": 15_032_385_536,
                "total_bytes": 25_757_220_864,
                "headroom_bytes": 9_842_000_000,
            },
            "host": {"own_peak_bytes": 4_211_081_216, "total_bytes": 67_108_864_000},
        },
        gpu={
            "name": "NVIDIA GeForce RTX 4090",
            "kernel_active_means": "share of time in which any kernel ran; not how full the GPU was",
            "kernel_active_share": {"mean": 0.743, "min": 0.31, "max": 0.92},
            "power_w": {"mean": 287.4, "min": 121.0, "max": 341.9},
            "sm_clock_mhz": {"mean": 2520, "min": 2505, "max": 2535},
            "energy_j": 29286.1,
            "throttled": {"absent": "the driver does not tell"},
            "series": [{"at_s": 0.1, "kernel_active_share": 0.5}, {"at_s": 0.2, "kernel_active_share": 0.9}],
        },
        host={
            "wall_s": 101.9,
            "cpu": {"cores_used": 3.4457, "cores": 4},
            "io": {"read_bytes": 1_875_000_000, "written_bytes": 0},
        },
        timeline=tuple(_spans()),
        recordings={"trace": {"file": "trace/step.json", "num_kernels": 1912}},
        failures=(
            {"uri": "https://example.com/clips/0007.mp4", "stage": "fetch", "reason": "HTTP 404 Not Found", "n": 2},
            {"uri": "https://example.com/clips/0019.mp4", "stage": "fetch", "reason": "timed out after 30 s", "n": 1},
            {"uri": "https://example.com/clips/0042.mp4", "stage": "decode", "reason": "corrupt frame 31", "n": 2},
        ),
        warnings=("5 of 327 samples failed: their time is in the stages' totals",),
    )  # fmt: skip


def _what_ifs() -> list[WhatIf]:
    def what_if(id: str, change: str, s_per_sample: float, limited_by: str, **more: Any) -> WhatIf:
        return WhatIf(
            id=id,
            change=change,
            s_per_sample=s_per_sample,
            samples_per_hour=_HOUR_S / s_per_sample,
            speedup=OVERLAPPED_S / s_per_sample,
            limited_by=limited_by,
            **more,
        )

    def measured(s_per_sample: float, predicted_s: float) -> Measured:
        return Measured(
            s_per_sample=s_per_sample,
            samples_per_hour=_HOUR_S / s_per_sample,
            error=predicted_s / s_per_sample - 1,
            n=160,
        )

    return [
        what_if("overlap", "full overlap", 0.3051, "decode"),
        what_if("fetch_workers", "fetch on 12 threads", 0.3051, "decode", not_measured="the server allows 4 at a time"),
        what_if("decode_workers", "decode on 4 threads", 0.2506, "device", measured=measured(0.2571, 0.2506),
                command="fovbench profile train.jsonl --encoder dinov2-small --decode-workers 4"),
        what_if("cached_latents", "VAE latents from the cache", 0.3049, "decode", ceiling=1.228,
                bytes_on_disk=16_777_216, command="fovcache build train.jsonl --cache features --encoder vae-sd"),
        what_if("cached_features", "encoder's features from the cache", 0.3050, "decode", ceiling=1.078,
                bytes_on_disk=49_358_848, command="fovcache build train.jsonl --cache features --encoder dinov2-small"),
        what_if("cached_all", "everything frozen from the cache", 0.1043, "device", ceiling=5.67,
                bytes_on_disk=66_136_064, measured=measured(0.1009, 0.1043),
                command="fovcache build train.jsonl --cache features --encoder dinov2-small --encoder vae-sd"),
        what_if("batch", "batches of 16", 0.2987, "decode", not_measured="needs 27 GB, 24 GB are there"),
    ]  # fmt: skip


def _spans() -> list[Span]:
    """Three seconds: fetching in four threads, decoding in one, batches of eight on the device."""
    spans = []
    for worker in range(4):
        start = 0.013 * worker
        while start < 3.2:
            length = 0.095 + 0.045 * ((worker * 7 + len(spans)) % 5) / 4
            spans.append(Span(stage="fetch", lane=f"fetch-{worker}", start_s=start, end_s=start + length))
            start += length + 4 * 0.2047 * 1.5 - 0.115
    decoded, start = [], 0.0
    for number in range(12):
        length = 0.2047 * (0.75 + 0.5 * ((number * 5) % 7) / 6) / 0.78
        spans.append(Span(stage="decode", lane="decode-0", start_s=start, end_s=start + length))
        start += length + 0.002
        decoded.append(start)
    free = 0.0
    for done in decoded:  # drawn a sample at a time, lest there be one step in the picture
        now = max(done, free)
        for stage, length in [
            ("copy", 0.0041), ("vae_encode", 0.1046), ("encode", 0.0405), ("forward", 0.0322), ("backward", 0.0308),
            ("optimise", 0.0037),
        ]:  # fmt: skip
            spans.append(Span(stage=stage, lane="device", start_s=now, end_s=now + length))
            spans.append(Span(stage=stage, lane="train", start_s=now, end_s=now + length / 6))
            now += length
        free = now
    return spans


def faulted_profile() -> Profile:
    """A decoder hung in the serial run: two stages have times, nothing else does."""
    full = full_profile()
    return Profile(
        environment=full.environment,
        settings=full.settings,
        warmup_dropped=8,
        stages=tuple(replace(stage, share=0.0) for stage in full.stages[:2]),
        fault=Fault(stage="decode", reason="nothing came out of it for 60 s; 14 samples had come through"),
        warnings=("what follows is what was measured until then",),
    )
