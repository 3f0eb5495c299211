"""`fovbench profile` on a GPU: true sizes with random weights, and what only a GPU has to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.bench.profiler.frozen import ProfileRequest
from fovcache.bench.profiler.run import Extras, run_profile
from fovcache.builder.encoders import Encoders
from fovcache.builder.request import BuildOptions

pytestmark = pytest.mark.needs_cuda


def test_dinov2_and_a_vae_with_a_trace(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for seed in range(6):
        make_video(tmp_path / "clips" / f"{seed}.mp4", MadeVideo(num_frames=30, width=320, height=240, seed=seed))
    request = ProfileRequest(
        sources=(str(tmp_path / "clips"),),
        encoders=Encoders(encoders=("dinov2-small", "vae-tiny"), weights={"": "random:0"}, common={"frames": 8}),
        vaes=frozenset({"vae-tiny"}),
        num_samples=32,
        options=BuildOptions(device="cuda", batch_size=8),
    )
    profile = run_profile(request, Extras(verify=True, trace=tmp_path / "trace"))
    assert profile.fault is None
    assert profile.serial is not None
    assert profile.overlapped is not None
    assert abs(sum(stage.share for stage in profile.stages) + profile.serial.unattributed_share - 1) < 1e-9
    assert profile.serial.unattributed_share < 0.05
    assert {stage.resource for stage in profile.stages} == {"disk", "cpu", "gpu"}
    assert set(profile.overlapped.device_s) == {"copy", "vae_encode", "encode", "forward", "backward", "optimise"}
    assert 0 < profile.overlapped.busy["gpu"] <= 1
    assert profile.recordings["trace"]["num_kernels"] > 0
    assert "absent" not in profile.gpu
    assert profile.memory["headroom_of"] != "host"
