"""`fovbench demo`: what it writes and says, that its commands work as shown, and that it can be run again.

All but the sizes is as users get it: fewer clips, and fewer splits.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import typer
from example_profiles import full_profile

import fovcache
from fovcache import cli
from fovcache.bench import cli as bench_cli
from fovcache.bench.demo.clips import CLIPS, port_of
from fovcache.bench.demo.profile_step import meaning
from fovcache.bench.demo.server import served
from fovcache.bench.profiler.result import Measured

NUM_SOURCES, NUM_SEEDS = 60, 3
NUM_CLIPS = 4 * NUM_SOURCES
SCRIPT = """
import functools
from fovcache.bench.demo import run, setting
size = setting.DemoSize(num_sources={sources}, num_profiled=20, is_verified=False, num_seeds={seeds})
run.run_demo = functools.partial(run.run_demo, size=size)
from fovcache.bench.cli import main
main()
"""
EXPERIMENTS = ("vit_early", "vit_late", "latents", "own")


@dataclass(frozen=True)
class Demo:
    """A finished demo and the folder that it was started in."""

    cwd: Path
    printed: str
    result: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.cwd / "fovcache-demo"

    @property
    def commands(self) -> list[list[str]]:
        return [shlex.split(line[2:]) for line in self.printed.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    cwd = tmp_path_factory.mktemp("demo")
    done = start("--json", "demo.json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return Demo(cwd, done.stdout, json.loads((cwd / "demo.json").read_text()))


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    yield
    logging.captureWarnings(capture=False)
    logging.getLogger("fovcache").handlers.clear()
    logging.getLogger("py.warnings").handlers.clear()


def command(*args: str) -> list[str]:
    """`fovbench demo`, smaller."""
    return [sys.executable, "-c", SCRIPT.format(sources=NUM_SOURCES, seeds=NUM_SEEDS), "demo", *args]


def start(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # The command sets the spin count before it loads torch, which the script does too early.
    environment = {**os.environ, "PYTHONWARNINGS": "error", "GOMP_SPINCOUNT": "1000"}
    return subprocess.run(command(*args), cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def run_here(app: Any, *args: str) -> None:
    """Run a command line in this process to its end with status 0; errors are raised."""
    assert app(args, standalone_mode=False) in (None, 0)


def accuracies(ablation: dict[str, Any]) -> dict[tuple[str, ...], tuple[float, Any]]:
    names = ("representation", "experiment", "control")
    return {tuple(each[name] for name in names): (each["mean"], each["ci95"]) for each in ablation["estimates"]}


def test_what_is_printed_last_is_the_reports_relative_path(demo: Demo) -> None:
    assert demo.printed.splitlines()[-1] == "fovcache-demo/report.html" == demo.result["report"]
    assert "<html" in (demo.folder / "report.html").read_text()
    assert demo.result["status"] == 0


def test_the_transcript_has_what_was_printed(demo: Demo) -> None:
    transcript = (demo.folder / "transcript.md").read_text()
    assert transcript.startswith("# fovbench demo\n")
    for words in demo.commands:
        assert f"```sh\n{shlex.join(words)}\n```" in transcript
    shown = next(line for line in demo.printed.splitlines() if line.startswith("latents     flat_vec")).split()
    assert f"| latents | flat_vec | {shown[2]} |" in transcript


def test_the_profile_has_the_stages_of_both_encoders(demo: Demo) -> None:
    profile = demo.result["profile"]
    assert profile == json.loads((demo.folder / "profile.json").read_text())
    stages = {stage["id"]: stage for stage in profile["stages"]}
    assert {"fetch", "decode", "vae_encode", "encode", "forward", "backward", "optimise"} <= stages.keys()
    assert sum(stage["failed"] for stage in stages.values()) == 0
    cached = profile["predicted"]["cached_all"]
    assert cached["samples_per_hour"] > 2 * profile["overlapped"]["samples_per_hour"]


def test_what_the_profile_means_is_said_with_its_numbers() -> None:
    profile = full_profile()
    slowest = max(profile.stages, key=lambda stage: stage.total_s)
    said = " ".join(meaning(profile))
    assert f"{slowest.name} has {slowest.share:.0%} of it" in said
    (cached,) = [change for change in profile.predicted if change.id == "cached_all"]
    measured = Measured(s_per_sample=0.001, samples_per_hour=3.6e6, error=0.0, n=40)
    changes = [replace(change, measured=measured) if change is cached else change for change in profile.predicted]
    said = " ".join(meaning(replace(profile, predicted=tuple(changes))))
    assert profile.overlapped is not None
    assert f"{3.6e6 / profile.overlapped.samples_per_hour:,.0f} times as fast" in said
    assert f"predicted was {cached.speedup:,.0f}" in said


def test_a_second_build_and_other_labels_compute_nothing(demo: Demo) -> None:
    built, rebuilt, relabelled = (demo.result[name] for name in ("build", "rebuild", "relabelled"))
    assert (built["samples"], built["computed"], built["failed"]) == (NUM_CLIPS, NUM_CLIPS, 0)
    assert {row["encoder"] for row in built["features"]} == {"vit-tiny", "vae-tiny"}
    for report in (rebuilt, relabelled):
        assert (report["computed"], report["reused"], report["bytes_written"]) == (0, NUM_CLIPS, 0)
        assert report["features"] == built["features"]
    assert relabelled["dataset"] != built["dataset"]


def test_features_of_both_datasets_are_the_same_and_their_labels_are_not(demo: Demo) -> None:
    cache = fovcache.open(demo.folder / "cache")
    digits, moves = (cache.features(layer="blocks.5", pool="tokens", dataset=name) for name in ("digits", "moves"))
    assert digits.keys == moves.keys
    assert digits.feature == moves.feature
    assert set(digits.labels.tolist()) == set(range(10))
    assert moves.classes == ("down", "left", "right", "up")


def test_an_edit_of_the_forward_pass_misses_and_explain_says_why(demo: Demo) -> None:
    (group,) = demo.result["explain"]["groups"]
    assert (group["clips"], group["state"]) == (NUM_CLIPS, "miss")
    assert group["field"] == "extractor.source.encoder.py"
    original, edited = ((demo.folder / name).read_text().splitlines() for name in ("encoder.py", "edited/encoder.py"))
    changed = [(old.strip(), new.strip()) for old, new in zip(original, edited, strict=True) if old != new]
    assert changed == [("return torch.relu(self.conv(x))", "return torch.tanh(self.conv(x))")]


def test_controls_are_at_chance_and_all_numbers_tell_the_digit(demo: Demo) -> None:
    found = demo.result["ablation"]
    estimates = {key: mean for key, (mean, _) in accuracies(found).items()}
    assert all(each["ci95"] is not None for each in found["estimates"])
    assert all(0.05 <= each["chance"] <= 0.15 for each in found["estimates"])
    shuffled = [mean for (_, _, control), mean in estimates.items() if control == "shuffled_labels"]
    assert len(shuffled) > 50
    assert abs(sum(shuffled) / len(shuffled) - 0.1) < 0.03
    for experiment in EXPERIMENTS:
        flat, simple = (estimates[name, experiment, "none"] for name in ("flat_vec", "simple_stats"))
        assert 0.35 < flat < 1
        assert flat > simple + 0.1


def test_the_direction_needs_the_order_of_frames(demo: Demo) -> None:
    estimates = {key: mean for key, (mean, _) in accuracies(demo.result["moves"]).items()}
    for experiment in EXPERIMENTS:
        assert estimates["flat_vec", experiment, "none"] > 0.85
        assert estimates["simple_stats", experiment, "none"] < 0.5
        assert abs(estimates["flat_vec", experiment, "shuffled_labels"] - 0.25) < 0.15


def test_no_source_digit_is_on_two_sides(demo: Demo) -> None:
    protocol = demo.result["ablation"]["protocol"]
    assert protocol["num_groups"] == NUM_SOURCES
    assert protocol["split"]["group"] is True


def test_the_cache_is_whole(demo: Demo) -> None:
    assert demo.result["verify"]["damaged"] == []


def test_every_command_that_is_shown_works_when_it_is_typed(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo.cwd)
    typed = [words for words in demo.commands if words[1] != "profile"]
    assert {words[1] for words in typed} == {"build", "explain", "ablate", "verify", "report"}
    before = accuracies(demo.result["ablation"])
    with served(demo.folder / CLIPS, port_of(demo.folder)):
        for program, *args in typed:
            run_here({"fovcache": cli.app, "fovbench": bench_cli.app}[program], *args)
            printed = capsys.readouterr().out
            if args[0] == "build":
                assert f"0 computed, {NUM_CLIPS} reused" in printed
            if args[0] == "explain":
                assert "the source of encoder.py changed" in printed
    assert accuracies(json.loads((demo.folder / "ablation/ablation.json").read_text())) == before


def test_the_profile_that_is_shown_can_be_typed(demo: Demo) -> None:
    (words,) = [words for words in demo.commands if words[1] == "profile"]
    with typer.main.get_command(bench_cli.app).make_context("fovbench", words[1:2]) as context:
        profile = context.command.get_command(context, "profile")
        typed = profile.make_context("profile", words[2:], parent=context).params
    assert typed["sources"] == ["fovcache-demo/digits.csv"]
    assert (typed["encoder"], typed["vae"], typed["frames"], typed["size"]) == (["vit-tiny"], "vae-tiny", 4, 64)


def test_the_line_of_python_that_is_shown_works(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo.cwd)
    (line,) = [line for line in demo.printed.splitlines() if line.startswith(">>> ")]
    names: dict[str, Any] = {"fovcache": fovcache}
    exec(line[4:], names)  # noqa: S102 - that it runs is the point
    assert names["x"].shape[:2] == (NUM_CLIPS, 4)
    assert len(names["y"]) == NUM_CLIPS


def test_the_way_to_serve_the_clips_again_works(demo: Demo) -> None:
    (line,) = [line for line in demo.printed.splitlines() if line.startswith("python3 -m http.server ")]
    words = shlex.split(line)
    assert int(words[3]) == port_of(demo.folder)
    assert (demo.cwd / words[words.index("--directory") + 1]).is_dir()


def test_a_demo_that_was_cut_short_is_completed_with_the_same_accuracies(demo: Demo, tmp_path: Path) -> None:
    out = tmp_path / "a folder" / "näme"
    shutil.copytree(demo.folder, out)
    spoil(out)
    done = start("--out", str(out), "--json", "demo.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = json.loads((tmp_path / "demo.json").read_text())
    assert result["clips"]["num_written"] == 2
    assert [result[name]["computed"] for name in ("build", "rebuild", "own")] == [NUM_CLIPS, 0, NUM_CLIPS]
    assert result["build"]["features"] == demo.result["build"]["features"]
    assert result["verify"]["damaged"] == []
    for name in ("ablation", "moves"):
        assert accuracies(result[name]) == accuracies(demo.result[name])
    assert done.stdout.splitlines()[-1] == "a folder/näme/report.html"
    assert (out / "report.html").is_file()
    assert "is there from an earlier run" in done.stdout
    assert "'a folder/näme/digits.csv'" in done.stdout


def spoil(folder: Path) -> None:
    """What a demo that was killed could have left: a clip and a trial cut short, and of each kind some not there."""
    torn, gone, *_ = sorted((folder / CLIPS).iterdir())
    torn.write_bytes(torn.read_bytes()[:40])
    gone.unlink()
    cache = fovcache.open(folder / "cache")
    for encoder, layer in (("vit-tiny", "embed"), ("encoder.py:make", "block1")):
        recipe = cache.features(encoder=encoder, layer=layer, dataset="digits").feature.recipe
        shutil.rmtree(folder / "cache" / "manifests" / recipe)
    trials = folder / "ablation" / "trials.jsonl"
    trials.write_bytes(trials.read_bytes()[: trials.stat().st_size // 2])
    shutil.rmtree(folder / "ablation" / "predictions")
    shutil.rmtree(folder / "moves")
    (folder / "report.html").unlink()


def test_an_encoder_file_that_the_user_changed_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "fovcache-demo" / "encoder.py"
    path.parent.mkdir()
    path.write_text("mine")
    done = start(cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: fovcache-demo/encoder.py is not what the demo writes there")
    assert len(done.stderr.splitlines()) == 1
    assert path.read_text() == "mine"


@pytest.mark.parametrize(("out", "status"), [("file", 2), ("file/below", 3), ("/proc/nowhere/demo", 3)])
def test_an_out_that_cannot_be_written_is_one_clear_line(tmp_path: Path, out: str, status: int) -> None:
    (tmp_path / "file").write_text("mine")
    done = start("--out", out, cwd=tmp_path)
    assert done.returncode == status
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_help_lists_the_command_and_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    run_here(bench_cli.app, "--help")
    assert "demo" in capsys.readouterr().out
    run_here(bench_cli.app, "demo", "--help")
    shown = capsys.readouterr().out
    assert "--out" in shown
    assert "--json" in shown
