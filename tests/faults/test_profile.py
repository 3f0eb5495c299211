"""`fovbench profile` over real sources: what it says, and what it says when something goes wrong."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer
from remote_builds import shard_of

from fovcache.bench.cli import app
from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.bench.profiler.result import Profile
from fovcache.cli import app as build_app
from fovcache.console import run_command

NET = """
class Net(nn.Module):
    image_size = 32

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 5)
        self.top = nn.Conv2d(16, 16, 5)

    def forward(self, x):
        return self.top(self.stem(x))


def make():
    return Net()
"""
LATENT = NET.replace("self.top = nn.Conv2d(16, 16, 5)", "self.latent = nn.Conv2d(16, 4, 5)").replace(
    "self.top(", "self.latent("
)
GRID = NET.replace("self.stem = nn.Conv2d(3, 16, 5)", "self.stem = nn.Conv2d(3, 24, 8, stride=8)").replace(
    "self.top = nn.Conv2d(16, 16, 5)", "self.top = nn.Linear(24, 24)"
)
GRID = GRID.replace("self.stem(x)", "self.stem(x).flatten(2).transpose(1, 2)")
NUM_URLS = 40


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("videos")
    names = {f"{seed}.mp4": MadeVideo(num_frames=12, seed=seed) for seed in range(4)}
    return {name: make_video(folder / name, video).read_bytes() for name, video in names.items()}


@pytest.fixture
def folder(videos: dict[str, bytes], tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    for name, data in videos.items():
        (tmp_path / "videos" / name).write_bytes(data)
    return tmp_path / "videos"


@pytest.fixture
def encoder(write_encoder: Callable[..., str], tmp_path: Path) -> str:
    return write_encoder(tmp_path / "encoders", NET, name="net.py")


@pytest.fixture
def vae(write_encoder: Callable[..., str], tmp_path: Path) -> str:
    return write_encoder(tmp_path / "encoders", LATENT, name="latent.py")


@pytest.fixture
def profile(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """`profile(source, *options)` runs the command in this process: its status, its JSON if any, and what it said."""

    def run(source: object, *options: object, named: bool = True) -> tuple[int, dict[str, Any], str]:
        out = tmp_path / "profile.json"
        out.unlink(missing_ok=True)
        usual = ["--encoder", encoder, "--layers", f"{encoder}=top"] if named else []
        usual += ["--weights", "random:0", "--device", "cpu", "--frames", "2", "--samples", "20", "--batch-size", "4"]
        command = ["fovbench", "profile", source, *usual, "--json", out, *options]
        monkeypatch.setattr("sys.argv", [str(word) for word in command])
        with pytest.raises(SystemExit) as left:
            run_command(app)
        said = capsys.readouterr()
        document = json.loads(out.read_text()) if out.exists() else {}
        return int(left.value.code or 0), document, said.out + said.err

    return run


def check(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What holds for every profile that came to its end; its stages by id."""
    stages = {stage["id"]: stage for stage in document["stages"]}
    serial, overlapped = document["serial"], document["overlapped"]
    assert sum(stage["share"] for stage in stages.values()) + serial["unattributed_share"] == pytest.approx(1)
    for stage in stages.values():
        assert stage["n"] >= 20
        assert stage["ci95_s"][0] <= stage["mean_s"] <= stage["ci95_s"][1]
        assert stage["p10_s"] <= stage["median_s"] <= stage["p90_s"]
        assert stage["total_s"] == pytest.approx(stage["share"] * serial["wall_s"])
    for run in (serial, overlapped):
        assert run["samples_per_hour"] == pytest.approx(3600 / run["s_per_sample"])
        assert run["n"] >= 20
    assert 0 <= overlapped["stall"] <= 1
    assert document["warmup_dropped"] >= 8
    assert document["bottleneck"] in stages
    assert document["predicted"]["overlap"]["measured"] is not None
    assert json.loads(json.dumps(Profile.from_document(document).document())) == document
    return stages


def test_forty_urls_a_vae_and_two_that_fail(
    profile: Callable[..., Any], fault_server: FaultServer, videos: dict[str, bytes], vae: str, tmp_path: Path
) -> None:
    names = sorted(videos)
    urls = []
    for number in range(NUM_URLS):
        urls.append(fault_server.put(f"/{number}.mp4", videos[names[number % 4]] + bytes([number])))
    urls[5] = fault_server.put("/gone.mp4", b"", kind="missing")
    urls[9] = fault_server.put("/half.mp4", videos[names[0]][:3000])
    listed = tmp_path / "urls.txt"
    listed.write_text("".join(f"{url}?token=hidden-token-value\n" for url in urls))
    status, document, said = profile(
        listed, "--vae", vae, "--layers", f"{vae}=latent", "--pool", f"{vae}=tokens", "--samples", "40"
    )
    assert status == 1
    stages = check(document)
    assert list(stages) == ["fetch", "decode", "copy", "vae_encode", "encode", "forward", "backward", "optimise"]
    assert {stage["resource"] for stage in stages.values()} == {"network", "cpu"}
    failed = {(each["uri"].partition("?")[0].rpartition("/")[2], each["stage"]) for each in document["failures"]}
    assert failed == {("gone.mp4", "fetch"), ("half.mp4", "decode")}
    assert stages["fetch"]["failed"] >= 1
    assert stages["fetch"]["failed_s"] > 0
    assert stages["decode"]["failed"] >= 1
    assert document["settings"]["samples_in_source"] == NUM_URLS
    assert document["predicted"]["cached_latents"]["bytes_on_disk"] == NUM_URLS * 2 * 4 * 24 * 24 * 2
    assert "hidden-token-value" not in json.dumps(document) + said
    assert fault_server.files["/0.mp4"].num_asked >= 2  # past cache and memo: each cycle and each run downloads


def test_members_of_a_remote_tar_shard(
    profile: Callable[..., Any], fault_server: FaultServer, videos: dict[str, bytes]
) -> None:
    url = fault_server.put("/shard.tar", shard_of(videos))
    status, document, _ = profile(url)
    assert status == 0
    check(document)
    assert document["settings"]["samples_in_source"] == 4


def test_local_files_with_predictions_measured(profile: Callable[..., Any], folder: Path, vae: str) -> None:
    status, document, said = profile(folder, "--vae", vae, "--layers", f"{vae}=latent", "--verify")
    assert status == 0
    stages = check(document)
    assert stages["fetch"]["resource"] == "disk"
    assert {"overlap", "cached_latents", "cached_features", "cached_all"} <= document["predicted"].keys()
    for entry in document["predicted"].values():
        assert (entry["measured"] is None) == bool(entry["not_measured"]), entry
    for name in ("cached_latents", "cached_features", "cached_all"):
        assert document["predicted"][name]["measured"]["n"] >= 20
        assert "fovcache build" in document["predicted"][name]["command"]
    assert "predicted" in said
    assert str(folder) not in json.dumps(document["environment"])


def test_a_layer_for_all_is_only_in_commands_for_encoders_that_have_it(
    profile: Callable[..., Any], folder: Path, encoder: str, vae: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    status, document, _ = profile(folder, "--encoder", encoder, "--vae", vae, "--layers", "top,latent", named=False)
    assert status == 0
    commands = {name: shlex.split(each["command"] or "") for name, each in document["predicted"].items()}
    monkeypatch.chdir(tmp_path)
    for name, layers in [("cached_latents", ["latent"]), ("cached_features", ["top"])]:
        monkeypatch.setattr("sys.argv", [*commands[name], "--json", "build.json"])
        with pytest.raises(SystemExit) as left:
            run_command(build_app)
        assert not left.value.code
        built = json.loads((tmp_path / "build.json").read_text())
        assert [feature["layer"] for feature in built["features"]] == layers


def test_stills_with_a_model_of_ones_own(
    profile: Callable[..., Any], make_images: Callable[..., Path], tmp_path: Path, encoder: str
) -> None:
    model = tmp_path / "model.py"
    model.write_text(
        "import torch\nfrom torch import nn\nclass Head(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.linear = nn.LazyLinear(3)\n"
        "    def forward(self, rows):\n        return self.linear(rows['net.py:make']).square().mean()\n"
        "def make():\n    return Head()\n"
    )
    status, document, _ = profile(make_images(tmp_path / "images", 5, size=40), "--model", f"{model}:make")
    assert status == 0
    assert check(document)["decode"]["name"] == "image decode (pillow)"


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A configuration of `fovbench train`."""
    path = tmp_path / "train.toml"
    path.write_text(
        'cache = "features"\n[model]\nkind = "foveated"\nsize = "tiny"\nheads = ["reconstruction", "caption"]\n'
        '[inputs.latents]\nencoder = "latent.py:make"\n[train]\nprecision = "bf16"\n'
    )
    return path


@pytest.fixture
def grid(write_encoder: Callable[..., str], tmp_path: Path, vae: str) -> list[str]:
    """Options for what the configuration's model needs: tokens of frames, and latents."""
    encoder = write_encoder(tmp_path / "encoders", GRID, name="grid.py")
    return ["--encoder", encoder, "--vae", vae, "--layers", "top,latent", "--pool", "tokens"]


def test_the_model_of_a_training_configuration(
    profile: Callable[..., Any], folder: Path, grid: list[str], training: Path
) -> None:
    status, document, _ = profile(folder, *grid, "--model", training, "--verify", named=False)
    assert status == 0
    assert list(check(document))[-5:] == ["vae_encode", "encode", "forward", "backward", "optimise"]
    assert document["predicted"]["cached_all"]["measured"]["n"] >= 20
    assert document["settings"]["trainable"]["name"] == "foveated"
    assert document["settings"]["precision"] == "bf16"


def test_training_on_a_cache(profile: Callable[..., Any], folder: Path, grid: list[str], training: Path) -> None:
    status, document, said = profile(folder, *grid, "--model", training, "--cached", named=False)
    assert status == 0
    assert list(check(document)) == ["load", "forward", "backward", "optimise"]
    assert document["settings"]["is_cached"]
    assert not {"cached_latents", "cached_features", "cached_all"} & document["predicted"].keys()
    assert "memory at its peak: the process" in said


@pytest.mark.parametrize(
    ("body", "stage", "words"),
    [
        ("raise ValueError('no such thing')", "forward", "ValueError: no such thing"),
        ("return 3", "forward", "returned int, expected a loss"),
    ],
)
def test_a_model_that_raises_is_named_with_what_was_measured(
    profile: Callable[..., Any], folder: Path, tmp_path: Path, body: str, stage: str, words: str
) -> None:
    status, document, said = profile(folder, "--model", failing_model(tmp_path, body))
    assert status == 1
    assert (document["fault"]["stage"], words in document["fault"]["reason"]) == (stage, True), document["fault"]
    assert {"fetch", "decode", "encode"} <= {row["id"] for row in document["stages"]}
    assert f"ended early: {stage}" in said


def test_a_model_that_hangs_is_named_and_the_command_ends(folder: Path, tmp_path: Path, encoder: str) -> None:
    out = tmp_path / "profile.json"
    model = failing_model(tmp_path, "import time; time.sleep(600)")
    command = [Path(sys.executable).with_name("fovbench"), "profile", folder, "--encoder", encoder, "--layers", "top"]
    command += ["--weights", "random:0", "--device", "cpu", "--frames", "2", "--samples", "20", "--batch-size", "4"]
    command += ["--model", model, "--timeout", "2", "--json", out]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    document = json.loads(out.read_text())
    assert document["fault"]["stage"] == "forward"
    assert "after 2 s" in document["fault"]["reason"]
    assert {"fetch", "decode", "encode"} <= {row["id"] for row in document["stages"]}
    assert "ended early: forward" in done.stdout


def failing_model(folder: Path, body: str) -> str:
    """A model whose fourth forward pass does `body`."""
    model = folder / "model.py"
    model.write_text(
        "from torch import nn\nclass Head(nn.Module):\n    num = 0\n    def forward(self, rows):\n"
        "        Head.num += 1\n        if Head.num > 3:\n"
        f"            {body}\n        return (rows['net.py:make'].mean() * self.weight).sum()\n"
        "    def __init__(self):\n        super().__init__()\n        import torch\n"
        "        self.weight = nn.Parameter(torch.ones(2))\ndef make():\n    return Head()\n"
    )
    return f"{model}:make"


def test_a_source_of_which_nothing_can_be_decoded(profile: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    for number in range(3):
        (tmp_path / "bad" / f"{number}.mp4").write_bytes(b"no video" * 100)
    status, document, said = profile(tmp_path / "bad")
    assert status == 1
    assert document["fault"]["stage"] == "decode"
    assert [failure["stage"] for failure in document["failures"]] == ["decode"] * 3
    assert "ended early: decode" in said


def test_what_cannot_begin_is_one_line(profile: Callable[..., Any], folder: Path, encoder: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def make():\n    return 1 / 0\ndef number():\n    return 3\n")
    for options, status, words in [
        (["--model", f"{tmp_path}/broken.py:make"], 2, "raised while it was made: ZeroDivisionError"),
        (["--model", f"{tmp_path}/broken.py:number"], 2, "returned a int, expected a torch.nn.Module"),
        (["--model", f"{tmp_path}/broken.py:absent"], 2, "has no function 'absent'"),
        (["--vae", "vae-tinny"], 2, "there is no encoder named 'vae-tinny'"),
        (["--model", "nothing"], 2, "model 'nothing'"),
        (["--model", f"{tmp_path}/absent.py:make"], 2, "does not exist"),
        (["--samples", "0"], 2, "0 samples"),
        (["--json", tmp_path / "absent" / "out.json"], 3, "cannot write"),
    ]:
        found, _, said = profile(folder, *options)
        assert (found, words in said) == (status, True), said
        assert said.startswith("error: ")
        assert len(said.splitlines()) == 1
    assert profile(tmp_path / "nowhere")[0] == 2
    found, _, said = profile(folder, named=False)
    assert (found, "expected one or more" in said) == (2, True)


def test_an_unwritable_trace_or_flame_is_said_and_the_rest_is_measured(
    profile: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "inside"
    status, document, said = profile(folder, "--trace", inside, "--flame", inside / "flame.svg")
    check(document)
    assert status == 0
    assert [warning.partition(":")[0] for warning in document["warnings"]] == ["no trace", "no flame graph"]
    assert "no trace" in said


def test_a_report_beside_the_profile_and_from_its_json(
    profile: Callable[..., Any],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, _, said = profile(folder, "--report", tmp_path / "report")
    assert status == 0
    page = Path(said.splitlines()[-1])
    again = tmp_path / "again"
    monkeypatch.setattr("sys.argv", ["fovbench", "report", str(tmp_path / "profile.json"), "--out", str(again)])
    with pytest.raises(SystemExit):
        run_command(app)
    written = Path(capsys.readouterr().out.splitlines()[-1])
    assert written.parent == again
    assert page.read_bytes() == written.read_bytes()
    assert {path.suffix for path in again.iterdir()} == {".html", ".png"}
