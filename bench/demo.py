"""The demo: digits as image files, a small encoder, a build, a probe, and what each step's numbers mean.

Everything is done in this process by the library; the commands shown do the same when they are typed.
"""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import fovcache
from fovcache.builder.progress import OnProgress
from fovcache.builder.request import BuildOptions, EncoderRequest
from fovcache.builder.run import run_build
from fovcache.console import Output, human_bytes, human_seconds
from fovcache.errors import UsageError
from fovcache.maintain.catalog import Catalog
from fovcache.maintain.estimate import estimate
from fovcache.maintain.explain import explain
from fovcache.maintain.listing import list_cache
from fovcache.maintain.verify import verify

from .digits import write_digits
from .linear_probe import ProbeResult, probe
from .transcript import Transcript

_EXAMPLE = Path(__file__).with_name("example_encoder.py")
_EDIT = ("torch.relu(", "torch.tanh(")
_DATASET = "digits"


def run_demo(out: Path, output: Output, on_progress: OnProgress) -> dict[str, Any]:
    """Run the demo in the folder `out`; what it came to, as `--json` writes it, with the report's path as `report`.

    Raises UsageError when something of the user's is in the way, EnvironmentFailure when the machine fails.
    """
    return _Demo(out, Transcript(output), on_progress).run()


class _Demo:
    def __init__(self, out: Path, say: Transcript, on_progress: OnProgress) -> None:
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out {out} is a file, expected a folder or a name that is free")
        self.folder = Path(os.path.relpath(out))
        self.say = say
        self.on_progress = on_progress
        self.sources = [f"{split}={self.folder / split}" for split in ("train", "test")]
        self.encoder_file = self.folder / "encoder.py"
        self.edited_file = self.folder / "edited" / "encoder.py"
        self.own = EncoderRequest(
            encoder=f"{self.encoder_file}:make", weights="random:0", layers=("block*",), pool="mean"
        )
        self.edited = replace(self.own, encoder=f"{self.edited_file}:make")
        self.pixels = EncoderRequest(encoder="pixels", layers=("pixels8",), pool="tokens")

    @cached_property
    def cache(self) -> fovcache.Cache:
        return fovcache.open(self.folder / "cache")

    def run(self) -> dict[str, Any]:
        started = time.perf_counter()
        images = self._write_inputs()
        estimated = self._estimate()
        built = self._build()
        rebuilt = self._rebuild()
        explained = self._explain()
        baseline = self._build_baseline()
        listed = self._list()
        probes = self._probe(baseline, built)
        verified = self._verify()
        seconds = time.perf_counter() - started
        self.say.lines(f"All of it took {human_seconds(seconds)}. What was said here is also in:")
        report = self.folder / "report.md"
        report.write_text(self.say.markdown("fovbench demo"))
        return {
            "images": images,
            "estimate": estimated,
            "build": built.document(),
            "rebuild": rebuilt.document(),
            "explain": explained,
            "baseline": baseline.document(),
            "datasets": listed,
            "probes": probes,
            "verify": verified,
            "seconds": seconds,
            "report": str(report),
        }

    def _write_inputs(self) -> dict[str, Any]:
        is_known = self.encoder_file.exists()
        self.say.heading(f"Images and an encoder, in {self.folder}")
        if is_known:
            self.say.lines("The folder is there from an earlier run: what is whole in it is used again.")
        _write_example(self.encoder_file, _EXAMPLE.read_text())
        _write_example(self.edited_file, _EXAMPLE.read_text().replace(*_EDIT))
        images = write_digits(self.folder)
        num_images = images.num_train + images.num_test
        self.say.lines(
            f"{num_images:,} handwritten digits of 8 × 8 pixels, which come with scikit-learn, as PNG files:",
            f"{images.num_written:,} written, {num_images - images.num_written:,} already there. "
            f"train/DIGIT/ has {images.num_train:,} of them, test/DIGIT/ {images.num_test:,};",
            "the folder's name is the label, and equal images are on one side.",
            "encoder.py is a small convolutional network, yours to copy. Its weights are random, nobody trained it.",
        )
        return asdict(images)

    def _estimate(self) -> dict[str, Any]:
        self.say.heading("1. What would it cost?")
        self.say.code(self._command("estimate", self.own))
        found = estimate(self.sources, self.own, BuildOptions(), self.cache.storage)
        self.say.lines(
            f"{found.to_compute:,} of {found.samples:,} images need computing, {human_bytes(found.row_bytes)} of "
            f"features each: {human_bytes(found.total_bytes)} in all,",
            f"in about {human_seconds(found.seconds)}. Decoding takes {found.decode_s * 1e3:.2f} ms an image on one "
            f"thread, the encoder {found.encode_s * 1e3:.2f} ms (measured on {found.measured_on} images).",
        )
        return found.document()

    def _build(self) -> fovcache.BuildReport:
        self.say.heading("2. Build: three layers in one pass")
        self.say.code(self._command("build", self.own, dataset=_DATASET))
        report = self._run_build(self.own)
        self.say.table(
            ("layer", "pool", "dtype", "feature"),
            [(row["layer"], row["pool"], row["dtype"], row["digest"][:12]) for row in report.features],
        )
        self.say.lines(
            _counts(report),
            "Each image is decoded once and goes through the network once; its layers are read on the way, averaged",
            "over space (mean) and stored as bfloat16. The feature's digest is its key: change anything that decides",
            "the numbers, and it is another feature.",
        )
        return report

    def _rebuild(self) -> fovcache.BuildReport:
        self.say.heading("3. The same again, then after an edit")
        self.say.code(self._command("build", self.own, dataset=_DATASET))
        report = self._run_build(self.own)
        self.say.lines(_counts(report), "Nothing was decoded, and the network did not run.")
        return report

    def _explain(self) -> dict[str, Any]:
        self.say.lines(
            f"{self.edited_file} is a copy with tanh in place of ReLU: the same file name and weights, other features.",
            "A cache that goes by names would serve the old ones. This is what a build would do, and why:",
        )
        self.say.code(self._command("explain", self.edited))
        report = explain(self.cache.storage, self.sources, self.edited, BuildOptions())
        groups = [(count, verdict.state, verdict.field, verdict.reason) for count, verdict in report.groups()]
        self.say.table((">images", "state", "field", "reason"), groups)
        names = ("images", "state", "field", "reason")
        counts = {"hits": report.hits, "misses": report.misses, "failed": report.failed}
        return {**counts, "groups": [dict(zip(names, group, strict=True)) for group in groups]}

    def _build_baseline(self) -> fovcache.BuildReport:
        self.say.heading("4. A baseline, and what the cache holds")
        self.say.lines(
            "`pixels` comes with fovcache: the image itself, no network. A network is worth what it adds to that."
        )
        self.say.code(self._command("build", self.pixels, dataset=_DATASET))
        report = self._run_build(self.pixels)
        self.say.lines(_counts(report))
        return report

    def _list(self) -> list[dict[str, Any]]:
        self.say.code(shlex.join(["fovcache", "ls", *self._cache_flag()]))
        listed = list_cache(Catalog(self.cache.storage))
        fields = ("encoder", "layer", "pool", "dtype", "row_shape", "rows")
        rows = [
            (dataset["name"], *(feature[field] for field in fields))
            for dataset in listed
            for feature in dataset["features"]
        ]
        self.say.table(("dataset", "encoder", "layer", "pool", "dtype", "row shape", ">rows"), rows)
        return listed

    def _probe(self, *reports: fovcache.BuildReport) -> list[dict[str, Any]]:
        self.say.heading("5. A linear probe of each feature")
        self.say.lines("Features are read as tensors, with the labels, in the dataset's order:")
        self.say.code(
            f"x, y = fovcache.open({str(self.folder / 'cache')!r}).features("
            f"layer='block3', dataset={_DATASET!r}, split='train').tensors()",
            language="python",
        )
        results = [
            self._probe_one(report.recipes[0], feature["layer"]) for report in reports for feature in report.features
        ]
        self.say.table(
            ("layer", ">numbers", ">C", ">validation", ">test", "95 % interval"), [_probe_row(r) for r in results]
        )
        first = results[0]
        self.say.lines(
            f"Test accuracy of scikit-learn's LogisticRegression on {first.num_test:,} images, fitted on "
            f"{first.num_train:,}. Chance, always answering train's",
            f"most frequent digit, is {first.chance:.3f}. C, the inverse regularisation strength, was chosen on a "
            "quarter of train (validation);",
            "test was scored once a row. The interval (Wilson's) is that of so many test images, not of training.",
            "The network is untrained, so don't be surprised when plain pixels do better: its filters are random",
            "numbers. Give trained ones (--weights FILE.safetensors), and the same commands show what training gave.",
        )
        return [asdict(result) for result in results]

    def _probe_one(self, recipe: str, layer: str) -> ProbeResult:
        train, test = (
            self.cache.features(recipe=recipe, layer=layer, dataset=_DATASET, split=split)
            for split in ("train", "test")
        )
        return probe(train, test)

    def _verify(self) -> dict[str, Any]:
        self.say.heading("6. Is it whole?")
        self.say.code(shlex.join(["fovcache", "verify", *self._cache_flag()]))
        report = verify(self.cache.storage, self.on_progress)
        self.say.lines(
            f"{report.files} files, {human_bytes(report.size_bytes)} of shards, every byte compared with its digest: "
            f"{len(report.damaged)} damaged."
        )
        return report.document()

    def _run_build(self, request: EncoderRequest) -> fovcache.BuildReport:
        options = BuildOptions(dataset=_DATASET)
        return run_build(self.cache.storage, self.sources, request, options, self.on_progress)

    def _command(self, name: str, request: EncoderRequest, *, dataset: str | None = None) -> str:
        flags = {
            "encoder": request.encoder,
            "weights": request.weights,
            "layers": ",".join(request.layers),
            "pool": request.pool,
            "dataset": dataset,
        }
        texts = [text for flag, value in flags.items() if value is not None for text in (f"--{flag}", value)]
        return shlex.join(["fovcache", name, *self.sources, *self._cache_flag(), *texts])

    def _cache_flag(self) -> tuple[str, str]:
        return "--cache", str(self.folder / "cache")


def _write_example(path: Path, text: str) -> None:
    """Write a file that the demo runs, unless the user has made it their own."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text)
        temporary.replace(path)
    elif path.read_text() != text:
        raise UsageError(
            f"{path} is not what the demo writes there: keep your version under another name, or give another --out"
        )


def _counts(report: fovcache.BuildReport) -> str:
    return (
        f"{report.samples:,} images: {report.computed:,} computed, {report.reused:,} reused, {report.failed:,} failed, "
        f"in {human_seconds(report.seconds)}."
    )


def _probe_row(result: ProbeResult) -> tuple[object, ...]:
    low, high = result.interval
    accuracies = (f"{result.validation_accuracy:.3f}", f"{result.test_accuracy:.3f}", f"{low:.3f} to {high:.3f}")
    return (result.layer, result.num_dims, f"{result.strength:g}", *accuracies)
