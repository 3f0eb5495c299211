"""What cannot be done as asked: one clear line, the right exit status, and a valid cache."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

LAYER = """
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Layer()

        def forward(self, x):
            return self.layer(x)

    class Layer(torch.nn.Module):
        def forward(self, x):
            return RESULT

    def make():
        return Net()
"""


@pytest.fixture(scope="module")
def cache(shared_lab: Any) -> Path:
    """A whole cache, to which nothing must happen."""
    cache = shared_lab.folder / "cache"
    shared_lab.build(shared_lab.pictures(6), cache)
    shared_lab.build(shared_lab.pictures(3, seed=9, name="other"), cache, "--layers", "head")
    return Path(cache)


def refused(lab: Any, status: int, *args: object) -> str:
    """The one line that is said, and nothing else."""
    done = lab.run(*args)
    assert (done.status, done.out, done.err.count("\n")) == (status, "", 1), done
    assert done.err.startswith("error: "), done
    return str(done.err)


@pytest.fixture
def build(shared_lab: Any, cache: Path) -> Any:
    """Builds that are refused; afterwards the cache is as it was, and valid."""
    source, before = shared_lab.folder / "src", shared_lab.contents(cache)

    def refuse(*extra: object, status: int = 2, source: Path | str = source) -> str:
        line = refused(shared_lab, status, *shared_lab.build_args(source, cache, *extra))
        assert shared_lab.contents(cache) == before
        assert shared_lab.leftovers(cache) == []
        return line

    yield refuse
    assert shared_lab.run("verify", "--cache", cache).status == 0


def test_sources_that_are_not_there_or_hold_nothing(shared_lab: Any, build: Any, tmp_path: Path) -> None:
    assert f"source '{tmp_path}/nowhere' does not exist" in build(source=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert f"source '{tmp_path}/empty' holds no samples; expected files ending in" in build(source=tmp_path / "empty")
    (tmp_path / "empty" / "a.txt").write_text("text")
    assert "holds no samples" in build(source=f"train={tmp_path / 'empty'}")
    assert "matches no file" in build(source=tmp_path / "*.png")
    (tmp_path / "bad.tar").write_bytes(b"no archive" * 100)
    assert "bad.tar is not a plain tar archive" in build(source=tmp_path / "bad.tar")


def test_one_missing_source_of_several_refuses_the_build(shared_lab: Any, build: Any, tmp_path: Path) -> None:
    assert "does not exist" in build(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ("pixel", "there is no encoder named 'pixel'; nearest: pixels"),
        ("nowhere.py:make", "encoder file nowhere.py does not exist"),
        ("enc.py", "expected PATH.py:FACTORY"),
        ("enc.py:mak", "has no function 'mak'; nearest: make"),
    ],
)
def test_unknown_encoders(
    shared_lab: Any, build: Any, monkeypatch: pytest.MonkeyPatch, encoder: str, said: str
) -> None:
    monkeypatch.chdir(shared_lab.folder)
    assert said in build("--encoder", encoder)


@pytest.mark.parametrize(
    ("glob", "said"),
    [
        ("con", "no layer matches 'con'; nearest: conv"),
        ("blocks.*", "no layer matches 'blocks.*'; there are: conv, head"),
        ("conv,neck", "no layer matches 'neck'"),
        (",", "name the layers to compute with --layers; there are: conv, head"),
    ],
)
def test_layers_that_are_not_there(build: Any, glob: str, said: str) -> None:
    assert said in build("--layers", glob)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def make(): raise RuntimeError('no luck' + chr(10) + 'at all')", "make raised: RuntimeError: no luck"),
        ("import sys\ndef make(): sys.exit(0)", "make raised: SystemExit"),
        ("def make(:", "is not valid Python"),
        ("import not_there", "raised while it was loaded: ModuleNotFoundError: No module named 'not_there'"),
        ("def make(): return 3", "returned a int, expected a torch.nn.Module"),
        ("make = 3", "has no function 'make'"),
    ],
)
def test_encoder_files_that_do_not_give_a_module(shared_lab: Any, build: Any, source: str, said: str) -> None:
    assert said in build("--encoder", shared_lab.write_encoder(source, "bad.py"))


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ("(x, x)", "returns a tuple (tensor (2, 3, 8, 8), tensor (2, 3, 8, 8)), expected one tensor"),
        ("{'x': x}", "returns a dict, expected one tensor"),
        ("x.long()", "returns torch.int64, expected a floating-point tensor"),
        ("x.mean()", "returns shape () for a batch of 2, expected [2, …]"),
        ("x[:1]", "returns shape (1, 3, 8, 8) for a batch of 2"),
        ("x[:, :0]", "returns shape (2, 0, 8, 8), which holds no number"),
        ("x.to_sparse()", "returns a torch.sparse_coo tensor"),
        ("x.to('meta')", "tensor on meta, expected a dense one"),
        ("x.nothing", "forward pass raised on a batch of shape (2, 3, 8, 8): AttributeError"),
    ],
)
def test_layers_that_do_not_give_one_tensor_a_sample(shared_lab: Any, build: Any, result: str, said: str) -> None:
    encoder = shared_lab.write_encoder(LAYER.replace("RESULT", result), "bad.py")
    assert said in build("--encoder", encoder, "--layers", "layer")


def test_a_layer_whose_shape_depends_on_the_batch(shared_lab: Any, tmp_path: Path) -> None:
    encoder = shared_lab.write_encoder(LAYER.replace("RESULT", "x[:, :, :len(x)]"), "bad.py")
    cache, source = tmp_path / "cache", shared_lab.pictures(6, name="six")
    args = shared_lab.build_args(source, cache, "--encoder", encoder, "--layers", "layer")
    assert "a feature's shape must depend on its input's shape alone" in refused(shared_lab, 2, *args)
    assert shared_lab.run("verify", "--cache", cache).status == 0
    assert shared_lab.leftovers(cache) == shared_lab.files(cache, "plans")


def test_features_that_are_all_nan_fail_every_sample(shared_lab: Any, tmp_path: Path) -> None:
    encoder = shared_lab.write_encoder(LAYER.replace("RESULT", "x / 0 * 0"), "nan.py")
    source = shared_lab.pictures(6, name="finite")
    report = shared_lab.build(source, tmp_path / "cache", "--encoder", encoder, "--layers", "layer", status=1)
    assert (report["computed"], report["failed"]) == (0, 6)
    assert {item["reason"] for item in report["failures"]} == {"the encoder returned NaN at layer layer"}
    assert shared_lab.run("verify", "--cache", tmp_path / "cache").status == 0


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--pool", "max", "pooling 'max' is not one of cls, mean, tokens"),
        ("--pool", "cls", "pooling 'cls' needs a class token, and enc.py:make has none; use mean or tokens"),
        ("--store-dtype", "int8", "storage dtype 'int8' is not one of bf16, fp16, fp32"),
        ("--compute-dtype", "fp8", "compute dtype 'fp8' is not one of"),
        ("--device", "gpu", "device 'gpu' is unknown; expected auto, cpu, cuda, cuda:N or mps"),
        ("--device", "", "device '' is unknown"),
        ("--device", "meta", "device 'meta' is unknown"),
        ("--batch-size", "0", "batch size 0 is out of range; expected at least 1"),
        ("--batch-size", "many", "Invalid value for '--batch-size'"),
        ("--workers", "0", "number of workers 0 is out of range"),
        ("--shard-mib", "0", "shard size of 0 bytes is out of range"),
        ("--shard-mib", "nan", "shard size of nan MiB is out of range"),
        ("--size", "0", "size is 0; expected 1 to 8192 pixels"),
        ("--fit", "stretch", "fit 'stretch' is not one of crop, squash, pad"),
        ("--weights", "random:x", "the seed must be a whole number"),
        ("--weights", "nowhere", "weights nowhere do not exist"),
        ("--dataset", "a/b", "dataset name 'a/b': expected letters, digits"),
        ("--dataset", "../x", "dataset name '../x'"),
        ("--dataset", "", "dataset name ''"),
        ("--nope", "1", "No such option: --nope"),
    ],
)
def test_options_with_a_bad_value(build: Any, option: str, value: str, said: str) -> None:
    assert said in build(option, value)


def test_a_device_that_this_machine_lacks_is_the_environments_failure(build: Any) -> None:
    assert "torch can use" in build("--device", "cuda:999", "--rehash", "--layers", "head", status=3)


def test_a_cache_of_a_newer_schema_is_left_alone(shared_lab: Any, tmp_path: Path) -> None:
    marker = tmp_path / "fovcache.json"
    marker.write_text('{"format":"fovcache","schema":7}')
    build = shared_lab.build_args(shared_lab.pictures(2, name="two"), tmp_path)
    for args in (build, *(("--cache", tmp_path, name) for name in ("ls", "info", "verify", "repair", "gc"))):
        ordered = args if args is build else (args[2], *args[:2])
        line = refused(shared_lab, 2, *ordered)
        assert "is a cache of schema 7, and this fovcache reads up to 0: upgrade fovcache" in line
    assert shared_lab.files(tmp_path) == ["fovcache.json"]


def test_a_folder_that_is_no_cache_is_left_alone(shared_lab: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    build = shared_lab.build_args(shared_lab.pictures(2, name="two"), tmp_path)
    assert "is not a cache: it has files but no fovcache.json" in refused(shared_lab, 2, *build)
    assert "is not a cache" in refused(shared_lab, 2, "gc", "--cache", tmp_path)
    assert shared_lab.files(tmp_path) == ["mine.txt"]


def test_a_folder_with_somebodys_tmp_in_it_is_no_cache(shared_lab: Any, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "mine.txt").write_text("mine")
    build = shared_lab.build_args(shared_lab.pictures(2, name="two"), tmp_path)
    assert "is not a cache" in refused(shared_lab, 2, *build)
    assert shared_lab.files(tmp_path) == ["tmp/mine.txt"]


def test_a_cache_path_that_cannot_be_a_folder(shared_lab: Any, tmp_path: Path) -> None:
    source, file = shared_lab.pictures(2, name="two"), tmp_path / "file"
    file.write_text("mine")
    assert "is a file, expected a folder" in refused(shared_lab, 2, *shared_lab.build_args(source, file))
    assert "cannot write" in refused(shared_lab, 3, *shared_lab.build_args(source, file / "below"))
    assert "path is empty" in refused(shared_lab, 2, "ls", "--cache", "")
    assert "buckets are not supported yet" in refused(shared_lab, 2, "ls", "--cache", "s3://bucket/x")
    assert "there is no cache in" in refused(shared_lab, 2, "ls", "--cache", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    assert file.read_text() == "mine"


def test_json_to_a_path_that_cannot_be_written_is_refused_before_the_work(
    shared_lab: Any, build: Any, tmp_path: Path
) -> None:
    assert "cannot write" in build("--layers", "head", "--json", tmp_path / "no" / "where.json", status=3)
    assert "Is a directory" in build("--layers", "head", "--json", tmp_path, status=3)
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        assert "permission denied" in build("--layers", "head", "--json", tmp_path / "x.json", status=3)
        tmp_path.chmod(0o700)


def test_exports_that_cannot_be_made(shared_lab: Any, cache: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken.h5"
    taken.write_text("mine")

    def export(out: Path, *more: object, status: int = 2) -> str:
        return refused(shared_lab, status, "export", "--cache", cache, "--out", out, "--dataset", "src", *more)

    assert "the file exists; choose another name or remove it" in export(taken)
    assert "expected a file ending in .h5, .hdf5, .safetensors" in export(tmp_path / "x.npz")
    assert "No such file or directory" in export(tmp_path / "no" / "x.h5", status=3)
    assert "no feature of dataset 'src' fits; there are: enc.py:make conv" in export(tmp_path / "x.h5", "--layer", "c")
    assert list(tmp_path.iterdir()) == [taken]
    assert taken.read_text() == "mine"


def test_names_of_datasets_that_are_not_there(shared_lab: Any, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    assert "no dataset 'scr'; nearest: src" in refused(shared_lab, 2, "info", "scr", "--cache", cache)
    assert "name one of the datasets: other, src" in refused(shared_lab, 2, "export", "--cache", cache, "--out", out)


@pytest.mark.parametrize(
    "args",
    [
        ("build",),
        ("bild",),
        ("verify", "--cache", "CACHE", "--recompute", "-1"),
        ("gc", "--cache", "CACHE", "--grace-hours", "-1"),
    ],
)
def test_command_lines_that_cannot_be_parsed(shared_lab: Any, cache: Path, args: tuple[str, ...]) -> None:
    line = refused(shared_lab, 2, *(str(cache) if value == "CACHE" else value for value in args))
    assert "--help` says more" in line


def test_no_command_at_all_shows_the_help(shared_lab: Any) -> None:
    done = shared_lab.run()
    assert done.status == 2
    assert "Build and keep a content-addressed cache" in done.err


BUILD_KEYS = {
    *("samples", "computed", "reused", "failed", "seconds", "samples_per_s", "bytes_written", "dataset"),
    *("recipes", "features", "stages", "failures"),
}


def test_json_on_standard_output_is_all_there_is_and_has_the_designs_keys(
    shared_lab: Any, cache: Path, tmp_path: Path
) -> None:
    source = shared_lab.pictures(5, seed=2, name="jsons")
    (source / "bad.png").write_bytes(b"no picture")
    done = shared_lab.run(*shared_lab.build_args(source, tmp_path / "cache", "--json", "-"))
    assert (done.status, done.err) == (1, "")
    assert done.json.keys() >= BUILD_KEYS
    assert [item.keys() for item in done.json["failures"]] == [{"uri", "stage", "reason", "permanent"}]
    assert {"digest", "layer", "pool", "dtype"} <= done.json["features"][0].keys()
    to_file = shared_lab.run(*shared_lab.build_args(source, tmp_path / "cache", "--json", tmp_path / "x.json"))
    assert "5 reused" in to_file.out
    assert json.loads((tmp_path / "x.json").read_text())["reused"] == 5

    encoder = ("--encoder", shared_lab.encoder, "--layers", "conv")
    for command, keys in {
        ("ls", "--cache", cache): None,
        ("info", "--cache", cache): {"datasets", "recipes", "shards"},
        ("info", "src", "--cache", cache): {"features", "numerics", "failures"},
        ("verify", "--cache", cache): {"files", "damaged"},
        ("repair", "--cache", cache): {"repaired", "unrepaired", "recomputed"},
        ("explain", source, "--cache", cache, *encoder): {"hits", "misses", "verdicts"},
        ("estimate", source, *encoder): {"total_bytes", "seconds"},
        ("gc", "--cache", cache): {"removed", "freed_bytes"},
        ("export", "--cache", cache, "--dataset", "src", "--out", tmp_path / "x.h5"): {"rows", "shape", "dtype"},
    }.items():
        done = shared_lab.run(*command, "--json", "-")
        assert (done.status, done.err) == (0, ""), done
        assert done.out.startswith(("{\n", "[\n"))
        assert keys is None or keys <= done.json.keys()


def test_the_installed_command_says_the_same(shared_lab: Any, cache: Path, tmp_path: Path) -> None:
    running = {
        2: shared_lab.start("build", tmp_path / "nowhere", "--cache", cache, "--encoder", "pixels"),
        3: shared_lab.start("export", "--cache", cache, "--dataset", "src", "--out", tmp_path / "no" / "x.h5"),
        0: shared_lab.start("ls", "--cache", cache, "--json", "-"),
    }
    for status, process in running.items():
        done = shared_lab.finish(process)
        assert done.status == status, done
        assert len(done.err.splitlines()) == (status > 0), done
        assert done.err.startswith("error: ") == (status > 0)
        assert not status or done.out == ""
    assert {dataset["name"] for dataset in done.json} == {"src", "other"}
