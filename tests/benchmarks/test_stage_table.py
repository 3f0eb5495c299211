"""The stage table on a GPU: the foveated model in its true size on DINOv2-small and vae-sd, online and cached.

Batch 8 × 8 frames. Profiles are written as JSON to the folder in FOVBENCH_RESULTS, where it is set.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fovcache.bench.demo.server import served
from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.bench.profiler.frozen import ProfileRequest
from fovcache.bench.profiler.result import Profile
from fovcache.bench.profiler.run import Extras, run_profile
from fovcache.builder.encoders import Encoders
from fovcache.builder.request import BuildOptions

BATCH, FRAMES, SAMPLES, CLIPS = 8, 8, 128, 48
CONFIG = """
cache = "features"
[model]
kind = "foveated"
heads = ["reconstruction", "caption"]
[train]
precision = "bf16"
"""

pytestmark = pytest.mark.needs_cuda


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for seed in range(CLIPS):
        make_video(folder / f"{seed}.mp4", MadeVideo(num_frames=150, width=640, height=360, gop=50, seed=seed))
    return folder


def profiled(clips: Path, folder: Path, *, is_cached: bool) -> Profile:
    config, listed = folder / "foveated.toml", folder / "clips.txt"
    config.write_text(CONFIG)
    with served(clips, 0) as url:
        listed.write_text("".join(f"{url}/{number}.mp4\n" for number in range(CLIPS)))
        request = ProfileRequest(
            sources=(str(listed),),
            encoders=Encoders(
                encoders=("dinov2-small", "vae-sd"),
                weights={"": "random:0"},
                pool={"": "tokens"},
                common={"frames": FRAMES, "compute_dtype": "bf16"},
            ),
            vaes=frozenset({"vae-sd"}),
            model=str(config),
            is_cached=is_cached,
            num_samples=SAMPLES,
            options=BuildOptions(device="cuda", batch_size=BATCH),
        )
        profile = run_profile(request, Extras(verify=not is_cached))
    name = "stage_table-cached.json" if is_cached else "stage_table-online.json"
    if (out := os.environ.get("FOVBENCH_RESULTS")) is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        (Path(out) / name).write_text(json.dumps(profile.document(), indent=1))
    assert profile.fault is None
    assert profile.serial is not None
    assert profile.overlapped is not None
    assert sum(stage.share for stage in profile.stages) + profile.serial.unattributed_share == pytest.approx(1)
    assert profile.memory["device"]["peak_allocated_bytes"] > 0
    return profile


def test_the_stage_table(clips: Path, tmp_path: Path, has_bars: bool) -> None:
    online, cached = (profiled(clips, tmp_path, is_cached=is_cached) for is_cached in (False, True))
    assert [stage.id for stage in online.stages][:5] == ["fetch", "decode", "copy", "vae_encode", "encode"]
    assert [stage.id for stage in cached.stages] == ["load", "forward", "backward", "optimise"]
    assert online.overlapped is not None
    assert cached.overlapped is not None
    assert not has_bars or cached.overlapped.s_per_sample < online.overlapped.s_per_sample
