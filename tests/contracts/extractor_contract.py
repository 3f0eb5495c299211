"""What every extractor promises, whatever it reads. Subclass the contract for each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fovcache
from fovcache.builder.request import EncoderRequest, resolve
from fovcache.errors import EncoderError, LayerError, SampleError
from fovcache.extract.extractor import Extractor, Item, resolve_extractor
from fovcache.keys.digest import canonical_json, document_digest

FINGERPRINT = """
import sys
from fovcache.builder.request import EncoderRequest, resolve
encoder, weights, *layers = sys.argv[1:]
request = EncoderRequest(encoder=encoder, weights=weights or None, layers=tuple(layers))
print([feature.digest for each in resolve(request).each for feature in each.features])
"""


class ExtractorContract:
    """Subclass it with the fixtures `encoder` and `files`."""

    weights: str | None = None
    has_default_layers = True
    has_float_rows = True
    device = torch.device("cpu")
    size: int | None = None
    """Pixels of frames, where the encoder's own are more than a test has time for."""
    garbage = b"\xff\xfenothing that can be read\x80"
    """Bytes that are no sample."""

    @pytest.fixture
    def encoder(self) -> str:
        """Its name, or `PATH.py:FACTORY`."""
        raise NotImplementedError

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        """At least three different samples of equal shape, by file name."""
        raise NotImplementedError

    @pytest.fixture
    def extractor(self, encoder: str) -> Extractor:
        return resolve_extractor(encoder, self.weights)

    @pytest.fixture
    def items(self, extractor: Extractor, files: dict[str, bytes]) -> list[Item]:
        spec = extractor.input if self.size is None else extractor.input.with_geometry(size=self.size, fit=None)
        return [spec.read(data, name) for name, data in files.items()]

    @pytest.fixture
    def folder(self, tmp_path: Path, files: dict[str, bytes]) -> Path:
        (tmp_path / "samples").mkdir()
        for name, data in files.items():
            (tmp_path / "samples" / name).write_bytes(data)
        return tmp_path / "samples"

    @pytest.fixture
    def outputs(
        self, request: pytest.FixtureRequest, extractor: Extractor, items: list[Item]
    ) -> dict[str, torch.Tensor]:
        """Of all layers for `items`, by a session of their own: the first test to want them computes them for all."""
        if "_outputs" not in vars(request.cls):
            request.cls._outputs = self.encode(extractor, items)
        return dict(request.cls._outputs)

    def built_layers(self, extractor: Extractor) -> tuple[str, ...]:
        """Those that are built: fewer than all, where they are very many."""
        return extractor.layers()

    def batch(self, extractor: Extractor, items: list[Item]) -> torch.Tensor:
        return extractor.input.prepare(extractor.input.collate(items).to(self.device))

    def encode(self, extractor: Extractor, items: list[Item], layers: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
        session = extractor.session(layers or extractor.layers(), self.device, "float32")
        try:
            return dict(session.encode(self.batch(extractor, items)))
        finally:
            getattr(session, "close", lambda: None)()

    def test_what_it_is_is_json_and_the_same_in_another_process(self, encoder: str, extractor: Extractor) -> None:
        for document in (extractor.identity(), extractor.input.document(), extractor.input.software()):
            assert len(document_digest(document)) == 64
        assert canonical_json(extractor.identity()) == canonical_json(
            resolve_extractor(encoder, self.weights).identity()
        )
        layers = extractor.layers()
        resolution = resolve(EncoderRequest(encoder=encoder, weights=self.weights, layers=layers))
        digests = [feature.digest for each in resolution.each for feature in each.features]
        command = [sys.executable, "-c", FINGERPRINT, encoder, self.weights or "", *layers]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert done.stdout.strip() == str(digests)

    def test_it_names_itself_and_its_layers(self, encoder: str, extractor: Extractor) -> None:
        assert extractor.name == encoder.rpartition("/")[2]
        assert extractor.identity()["name"] == extractor.name
        layers = extractor.layers()
        assert layers
        assert len(set(layers)) == len(layers)
        if self.has_default_layers:
            assert set(extractor.default_layers()) <= set(layers)
        else:
            with pytest.raises(EncoderError, match=f"there are: {', '.join(layers)}"):
                extractor.default_layers()

    def test_suffixes_are_lower_case_with_a_dot(self, extractor: Extractor, files: dict[str, bytes]) -> None:
        suffixes = extractor.input.suffixes()
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in suffixes)
        assert {Path(name).suffix for name in files} <= suffixes

    def test_samples_of_one_shape_share_a_batch(self, extractor: Extractor, items: list[Item]) -> None:
        assert len({extractor.input.shape(item) for item in items}) == 1
        collated = extractor.input.collate(items)
        batch = extractor.input.prepare(collated.to(self.device))
        assert collated.device.type == "cpu"
        assert len(collated) == len(batch) == sum(extractor.input.rows_of(item) or 1 for item in items)
        assert batch.device.type == self.device.type

    def test_a_placeholder_has_the_shape_asked_for_and_changes_no_neighbour(
        self, extractor: Extractor, items: list[Item], outputs: dict[str, torch.Tensor]
    ) -> None:
        shape = extractor.input.shape(items[0])
        placeholder = extractor.input.placeholder(shape)
        assert extractor.input.shape(placeholder) == shape
        with_placeholder = self.encode(extractor, [*items[:-1], placeholder])
        num_rows = sum(extractor.input.rows_of(item) or 1 for item in items[:-1])
        for layer in extractor.layers():
            assert torch.equal(outputs[layer][:num_rows], with_placeholder[layer][:num_rows])

    def test_bytes_that_are_no_sample_are_a_sample_error(self, extractor: Extractor, files: dict[str, bytes]) -> None:
        with pytest.raises(SampleError) as caught:
            extractor.input.read(self.garbage, next(iter(files)))
        assert caught.value.stage == "decode"
        assert caught.value.permanent

    def test_every_layer_gives_a_row_for_each_row_of_the_batch(
        self, extractor: Extractor, items: list[Item], outputs: dict[str, torch.Tensor]
    ) -> None:
        assert set(outputs) == set(extractor.layers())
        for output in outputs.values():
            assert output.ndim >= 2
            assert len(output) == sum(extractor.input.rows_of(item) or 1 for item in items)
            assert output.is_floating_point() == self.has_float_rows
            assert output.device.type == self.device.type

    def test_the_same_batch_gives_the_same_bits(
        self, extractor: Extractor, items: list[Item], outputs: dict[str, torch.Tensor]
    ) -> None:
        again = self.encode(extractor, items)
        for layer in extractor.layers():
            assert torch.equal(again[layer], outputs[layer])

    def test_different_samples_give_different_rows(self, items: list[Item], outputs: dict[str, torch.Tensor]) -> None:
        for output in outputs.values():
            rows = output.reshape(len(items), -1)
            assert len({row.cpu().numpy().tobytes() for row in rows}) == len(items)

    def test_a_part_of_the_layers_has_the_same_values(
        self, extractor: Extractor, items: list[Item], outputs: dict[str, torch.Tensor]
    ) -> None:
        for layer in extractor.layers():
            (own,) = self.encode(extractor, items, (layer,)).items()
            assert own[0] == layer
            assert torch.equal(own[1], outputs[layer])

    def test_an_unknown_layer_is_an_error_with_the_nearest(self, encoder: str, extractor: Extractor) -> None:
        layer = extractor.layers()[-1]
        with pytest.raises(LayerError, match=f"no layer matches '{layer}x'; nearest: .*{layer}"):
            resolve(EncoderRequest(encoder=encoder, weights=self.weights, layers=(f"{layer}x",)))

    def test_it_builds_like_any_other(
        self,
        encoder: str,
        extractor: Extractor,
        items: list[Item],
        files: dict[str, bytes],
        folder: Path,
        tmp_path: Path,
        outputs: dict[str, torch.Tensor],
    ) -> None:
        cache = fovcache.open(tmp_path / "cache")
        request = {
            "encoder": encoder,
            "weights": self.weights,
            "size": self.size,
            "pool": "tokens",
            "store_dtype": "fp32",
        }
        (folder / f"zz{Path(next(iter(files))).suffix}").write_bytes(self.garbage)
        first, *others = self.built_layers(extractor)

        def build(layers: list[str]) -> fovcache.BuildReport:
            options = {"device": self.device.type, "num_workers": 1, "batch_size": len(items)}
            return cache.build(str(folder), layers=layers, **request, **options)

        report = build([first])
        assert (report.samples, report.computed, report.failed) == (len(files) + 1, len(files), 1)
        assert (report.failures[0].stage, report.failures[0].permanent) == ("decode", True)
        assert build([first]).computed == 0
        shards = cache.storage.path("shards")
        before = set(shards.rglob("*.safetensors"))
        assert build([first, *others]).computed == (len(files) if others else 0)
        assert before <= set(shards.rglob("*.safetensors"))
        order = sorted(range(len(files)), key=list(files).__getitem__)
        for layer in (first, *others):
            features = cache.features(layer=layer)
            assert features.num_failed == 1
            rows = outputs[layer].cpu().reshape(len(items), *features.row_shape)[order]
            torch.testing.assert_close(features.tensors()[0], rows, rtol=1e-4, atol=1e-5)


class DeepExtractorContract(ExtractorContract):
    """For extractors whose layers follow one another and whose last counts its runs in LAST_LAYER_RUNS."""

    def test_layers_after_the_deepest_one_asked_for_are_not_run(
        self, extractor: Extractor, items: list[Item], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, last = extractor.layers()[0], extractor.layers()[-1]
        batch = self.batch(extractor, items)
        shallow, deep = (extractor.session(layers, self.device, "float32") for layers in ([first], [first, last]))
        shallow.encode(batch)  # an encoder may run its first pass to the end, to see which layers run once
        monkeypatch.setenv("LAST_LAYER_RUNS", "0")
        for _ in range(3):
            assert set(shallow.encode(batch)) == {first}
        assert os.environ["LAST_LAYER_RUNS"] == "0"
        deep.encode(batch)
        assert os.environ["LAST_LAYER_RUNS"] == "1"
        assert set(shallow.encode(batch)) == {first}
