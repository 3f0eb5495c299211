"""`fovbench demo`: what it writes and says, that its commands work as shown, and that it can be run again."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import fovcache
from fovcache import cli
from fovcache.bench import cli as bench_cli
from fovcache.bench.digits import split_of

LAYERS = ["pixels8", "block1", "block2", "block3"]


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
    done = start("demo", "--json", "demo.json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return Demo(cwd, done.stdout, json.loads((cwd / "demo.json").read_text()))


@pytest.fixture
def again(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Demo:
    """A copy of the demo to run again or to spoil."""
    shutil.copytree(demo.folder, tmp_path / "fovcache-demo")
    monkeypatch.chdir(tmp_path)
    return Demo(tmp_path, demo.printed, demo.result)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    yield
    logging.captureWarnings(capture=False)
    logging.getLogger("fovcache").handlers.clear()
    logging.getLogger("py.warnings").handlers.clear()


def start(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `fovbench` as users do."""
    command = [sys.executable, "-m", "fovcache.bench.cli", *args]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def run_here(app: Any, *args: str) -> None:
    """Run a command line in this process to its end with status 0; errors are raised."""
    assert app(args, standalone_mode=False) in (None, 0)


def run_again(json_path: str = "again.json") -> dict[str, Any]:
    run_here(bench_cli.app, "demo", "--json", json_path)
    return json.loads(Path(json_path).read_text())


def accuracies(result: dict[str, Any]) -> dict[str, tuple[float, float]]:
    return {probe["layer"]: (probe["validation_accuracy"], probe["test_accuracy"]) for probe in result["probes"]}


def test_every_digit_is_a_file_in_its_class_folder(demo: Demo) -> None:
    digits = load_digits()
    files = sorted(demo.folder.glob("t*/*/*.png"))
    assert [path.parent.parent.name for path in files].count("train") == demo.result["images"]["num_train"]
    assert len({path.name for path in files}) == len(files) == 1797
    for path in files:
        number = int(path.stem)
        assert path.parent.name == str(digits.target[number])
        pixels = np.asarray(Image.open(path))
        assert np.array_equal(np.round(pixels * (16 / 255)), digits.images[number])
        assert path.parent.parent.name == split_of(pixels)


def test_both_splits_have_every_digit_and_share_no_image(demo: Demo) -> None:
    cache = fovcache.open(
        demo.folder / "cache",
    )
    sets = [cache.features(layer="block1", split=split) for split in ("train", "test")]
    assert [len(features) for features in sets] == [demo.result["images"][f"num_{s}"] for s in ("train", "test")]
    assert set(sets[0].keys).isdisjoint(sets[1].keys)
    assert 300 < len(sets[1]) < 600
    for features in sets:
        assert features.classes == tuple("0123456789")
        assert set(features.labels.tolist()) == set(range(10))


def test_what_is_printed_last_is_the_reports_relative_path(demo: Demo) -> None:
    assert demo.printed.splitlines()[-1] == "fovcache-demo/report.md" == demo.result["report"]


def test_the_report_has_what_was_printed(demo: Demo) -> None:
    report = (demo.folder / "report.md").read_text()
    assert report.startswith("# fovbench demo\n")
    for command in demo.commands:
        assert f"```sh\n{shlex.join(command)}\n```" in report
    best = max(demo.result["probes"], key=lambda probe: probe["test_accuracy"])
    assert f"| {best['layer']} | {best['num_dims']} |" in report
    assert f" {best['test_accuracy']:.3f} " in report
    assert f" {best['test_accuracy']:.3f} " in demo.printed


def test_three_layers_come_from_one_build_and_a_second_computes_nothing(demo: Demo) -> None:
    built, rebuilt = demo.result["build"], demo.result["rebuild"]
    assert [feature["layer"] for feature in built["features"]] == LAYERS[1:]
    assert (built["samples"], built["failed"]) == (1797, 0)
    assert built["computed"] > 1700
    assert (rebuilt["computed"], rebuilt["reused"], rebuilt["bytes_written"]) == (0, 1797, 0)
    assert demo.result["estimate"]["to_compute"] == built["computed"]


def test_an_edit_of_the_forward_pass_misses_and_explain_says_why(demo: Demo) -> None:
    (group,) = demo.result["explain"]["groups"]
    assert (group["images"], group["state"]) == (1797, "miss")
    assert group["field"] == "extractor.source.encoder.py"
    original, edited = ((demo.folder / name).read_text().splitlines() for name in ("encoder.py", "edited/encoder.py"))
    changed = [(old.strip(), new.strip()) for old, new in zip(original, edited, strict=True) if old != new]
    assert changed == [("return torch.relu(self.conv(x))", "return torch.tanh(self.conv(x))")]


def test_probes_are_well_above_chance_and_not_perfect(demo: Demo) -> None:
    probes = {probe["layer"]: probe for probe in demo.result["probes"]}
    assert list(probes) == LAYERS
    for probe in probes.values():
        low, high = probe["interval"]
        assert low < probe["test_accuracy"] < high
        assert 0.05 < probe["chance"] < 0.15
        assert probe["chance"] + 0.5 < probe["test_accuracy"] < 1
        assert probe["num_test"] == demo.result["images"]["num_test"]
    assert probes["block3"]["test_accuracy"] > probes["block1"]["test_accuracy"]
    assert "untrained" in demo.printed


def test_the_cache_is_whole(demo: Demo) -> None:
    assert demo.result["verify"]["damaged"] == []
    assert {(f["encoder"], f["layer"], f["rows"]) for d in demo.result["datasets"] for f in d["features"]} == {
        ("pixels" if layer == "pixels8" else "encoder.py:make", layer, 1797) for layer in LAYERS
    }


def test_every_command_that_is_shown_works_when_it_is_typed(again: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    assert {command[1] for command in again.commands} == {"estimate", "build", "explain", "ls", "verify"}
    for program, *args in again.commands:
        assert program == "fovcache"
        run_here(cli.app, *args)
        printed = capsys.readouterr().out
        if args[0] == "build":
            assert "0 computed, 1797 reused" in printed
        if args[0] == "explain":
            assert "the source of encoder.py changed" in printed


def test_the_line_of_python_that_is_shown_works(again: Demo) -> None:
    (line,) = [line for line in again.printed.splitlines() if line.startswith(">>> ")]
    names: dict[str, Any] = {"fovcache": fovcache}
    exec(line[4:], names)  # noqa: S102 - that it runs is the point
    assert names["x"].shape == (again.result["images"]["num_train"], 128)
    assert len(names["y"]) == len(names["x"])


def test_a_second_run_reuses_everything_and_says_the_same(again: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_again()
    assert result["images"]["num_written"] == 0
    assert [result[name]["computed"] for name in ("build", "rebuild", "baseline")] == [0, 0, 0]
    assert result["probes"] == again.result["probes"]
    assert "from an earlier run" in capsys.readouterr().out


def test_a_fresh_run_elsewhere_gives_the_same_features_and_accuracies(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "a folder" / "näme"
    run_here(bench_cli.app, "demo", "--out", str(out), "--json", "demo.json")
    result = json.loads(Path("demo.json").read_text())
    assert result["build"]["features"] == demo.result["build"]["features"]
    assert accuracies(result) == accuracies(demo.result)
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "a folder/näme/report.md"
    assert "train='a folder" not in printed
    assert "'train=a folder/näme/train'" in printed


@pytest.mark.parametrize("gone", ["report.md", "train/3", "cache/shards", "cache/manifests", "cache", "encoder.py"])
def test_a_run_that_was_cut_short_is_completed(again: Demo, gone: str) -> None:
    path = again.folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    half_written = min((again.folder / "test" / "0").iterdir())
    half_written.write_bytes(half_written.read_bytes()[:40])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = run_again()
    assert result["images"]["num_written"] == 1 + (gone == "train/3") * len(list((again.folder / "train/3").iterdir()))
    assert accuracies(result) == accuracies(again.result)
    assert result["verify"]["damaged"] == []
    assert path.exists()


def test_features_of_an_edited_encoder_in_the_same_cache_do_not_disturb_it(again: Demo) -> None:
    explained = next(command for command in again.commands if command[1] == "explain")
    run_here(cli.app, "build", *explained[2:], "--dataset", "digits")
    assert accuracies(run_again()) == accuracies(again.result)


def test_json_on_standard_output_is_all_there_is(again: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    run_here(bench_cli.app, "demo", "--json", "-")
    assert json.loads(capsys.readouterr().out)["report"] == "fovcache-demo/report.md"


def test_an_encoder_file_that_the_user_changed_is_not_overwritten(again: Demo) -> None:
    path = again.folder / "encoder.py"
    path.write_text(path.read_text().replace("128", "256"))
    done = start("demo", cwd=again.cwd)
    assert done.returncode == 2
    assert done.stderr.startswith("error: fovcache-demo/encoder.py is not what the demo writes there")
    assert len(done.stderr.splitlines()) == 1
    assert "256" in path.read_text()


@pytest.mark.parametrize(("out", "status"), [("file", 2), ("file/below", 3), ("/proc/nowhere/demo", 3)])
def test_an_out_that_cannot_be_written_is_one_clear_line(tmp_path: Path, out: str, status: int) -> None:
    (tmp_path / "file").write_text("mine")
    done = start("demo", "--out", out, cwd=tmp_path)
    assert done.returncode == status
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_help_lists_the_command_and_its_options(tmp_path: Path) -> None:
    assert "demo" in start("--help", cwd=tmp_path).stdout
    shown = start("demo", "--help", cwd=tmp_path).stdout
    assert "--out" in shown
    assert "--json" in shown
