"""Several encoders in one build: every clip decoded once, and the same features as one by one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_files import save_tokenizer

import fovcache
from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.builder.encoders import Encoders
from fovcache.builder.units import Work, units_of
from fovcache.cli import app
from fovcache.console import run_command
from fovcache.decode import video as video_module
from fovcache.errors import LayerError, UsageError, WeightsError
from fovcache.sources.place import Place
from fovcache.sources.sample import Location

NET = """
class Net(nn.Module):
    image_size = {size}

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 5)
        self.top = nn.Conv2d(4, 2, 3)

    def forward(self, x):
        return self.top(self.stem(x) * (float("nan") if x.mean() < {dark} else 1))


def make():
    return Net()
"""
COMMON: dict[str, Any] = {"store_dtype": "fp32", "frames": 4, "batch_size": 2, "num_workers": 2, "shard_bytes": 20_000}
NUM_VIDEOS = 5


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for seed in range(NUM_VIDEOS):
        make_video(folder / f"{seed}.mp4", MadeVideo(num_frames=12, seed=seed))
    return folder


@pytest.fixture
def small(write_encoder: Callable[..., str], tmp_path: Path) -> str:
    return write_encoder(tmp_path / "encoders", NET.format(size=24, dark=-1), name="small.py")


@pytest.fixture
def large(write_encoder: Callable[..., str], tmp_path: Path) -> str:
    return write_encoder(tmp_path / "encoders", NET.format(size=40, dark=-1), name="large.py")


@pytest.fixture
def num_decoded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many videos were read for their frames so far."""
    calls = itertools.count()
    original = video_module.read_table

    def counted(*args: Any, **kwargs: Any) -> Any:
        next(calls)
        return original(*args, **kwargs)

    monkeypatch.setattr(video_module, "read_table", counted)
    return lambda: int(repr(calls).strip("count()"))


def rows_of(cache: fovcache.Cache, encoder: str, layer: str) -> torch.Tensor:
    return cache.features(encoder=encoder, layer=layer).tensors()[0]


def test_one_pass_gives_what_one_by_one_does_and_decodes_each_video_once(
    videos: Path, small: str, large: str, tmp_path: Path, num_decoded: Callable[[], int]
) -> None:
    together = fovcache.open(tmp_path / "together")
    layers = {small: ["stem"], large: ["top"]}
    report = together.build(str(videos), encoder=[small, large], weights="random:0", layers=layers, **COMMON)
    assert num_decoded() == NUM_VIDEOS
    assert (report.samples, report.computed, report.reused, report.failed) == (NUM_VIDEOS, NUM_VIDEOS, 0, 0)
    assert [(row["encoder"], row["layer"]) for row in report.features] == [
        ("small.py:make", "stem"),
        ("large.py:make", "top"),
    ]
    apart = fovcache.open(tmp_path / "apart")
    for encoder in (small, large):
        apart.build(str(videos), encoder=encoder, weights="random:0", layers=layers[encoder], **COMMON)
    assert num_decoded() == 3 * NUM_VIDEOS
    assert files(together) == files(apart)
    for encoder in (small, large):
        (layer,) = layers[encoder]
        assert torch.equal(rows_of(together, encoder, layer), rows_of(apart, encoder, layer))
    assert (
        together.build(str(videos), encoder=[small, large], weights="random:0", layers=layers, **COMMON).computed == 0
    )
    assert num_decoded() == 3 * NUM_VIDEOS


def test_a_further_layer_is_all_that_a_second_pass_writes(
    videos: Path, small: str, large: str, tmp_path: Path, num_decoded: Callable[[], int]
) -> None:
    cache = fovcache.open(tmp_path / "cache")
    asked: dict[str, Any] = {"encoder": [small, large], "weights": "random:0", **COMMON}
    cache.build(str(videos), layers={small: ["stem"], large: ["top"]}, **asked)
    before, decoded = files(cache), num_decoded()
    report = cache.build(str(videos), layers={small: ["stem", "top"], large: ["top"]}, **asked)
    assert report.computed == NUM_VIDEOS
    assert num_decoded() - decoded == NUM_VIDEOS
    new = files(cache).keys() - before.keys()
    features = cache.features(encoder=small, layer="top")
    assert report.bytes_written == sum(cache.storage.path(name).stat().st_size for name in new if "shards" in name)
    written = {tuple(json.loads(cache.storage.read(name))["features"]) for name in new if name.startswith("manifests")}
    assert written == {(features.feature.digest,)}


def test_a_glob_for_all_goes_where_it_fits_and_one_that_fits_none_is_an_error(small: str) -> None:
    both = Encoders(encoders=(small, "pixels"), weights={small: "random:0"}, layers={"": ("stem",)})
    assert [[feature.layer for feature in each.each[0].features] for each in both.resolve()] == [["stem"], ["pixels8"]]
    with pytest.raises(LayerError, match="no layer matches 'stam'; nearest: stem"):
        Encoders(encoders=(small, "pixels"), weights={small: "random:0"}, layers={"": ("stem", "stam")}).resolve()


def test_what_cannot_be_meant_is_refused(small: str, large: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected one or more, each once"):
        Encoders(encoders=(small, small))
    with pytest.raises(UsageError, match="say which of the encoders they are for"):
        Encoders(encoders=(small, large), weights={"": str(tmp_path)})
    with pytest.raises(UsageError, match="there is no such encoder"):
        Encoders(encoders=(small, large), pool={"other": "mean"})
    with pytest.raises(WeightsError, match="'pixels' has none"):
        Encoders(encoders=("pixels", small), weights={"": "random:0"}, layers={"": ("*",)}).resolve()
    with pytest.raises(UsageError, match="a posterior is a VAE's"):
        Encoders(encoders=("pixels",), posterior={"": "mean"}).resolve()


def test_options_of_frames_are_for_those_that_read_frames(tmp_path: Path) -> None:
    weights = {"tokens": str(save_tokenizer(tmp_path / "tokenizer"))}
    for option in ({"frames": 8}, {"fps": 2.0}, {"size": 32}):
        for encoders in (("bytes",), ("bytes", "tokens")):
            of_captions = Encoders(encoders=encoders, weights=weights if len(encoders) > 1 else {}, common=option)
            with pytest.raises(UsageError, match="are for frames, and this encoder reads caption"):
                of_captions.resolve()
        Encoders(encoders=("bytes", "tokens", "pixels"), weights=weights, common=option).resolve()


def test_a_sample_that_one_encoder_fails_on_is_one_failed_sample_with_the_other_rows_kept(
    write_encoder: Callable[..., str], small: str, make_images: Callable[..., Path], tmp_path: Path
) -> None:
    from PIL import Image

    folder = make_images(tmp_path / "images", 4, size=32)
    Image.new("RGB", (32, 32)).save(folder / "black.png")
    picky = write_encoder(tmp_path / "encoders", NET.format(size=None, dark=0.1), name="picky.py")
    cache = fovcache.open(tmp_path / "cache")
    options = {**COMMON, "batch_size": 1}
    report = cache.build(str(folder), encoder=[small, picky], weights="random:0", layers=["top"], **options)
    assert (report.samples, report.computed, report.reused, report.failed) == (5, 4, 0, 1)
    assert [(failure.uri, failure.stage) for failure in report.failures] == [("black.png", "encode")]
    assert (len(cache.features(encoder=small)), len(cache.features(encoder=picky))) == (5, 4)


def test_names_before_an_equals_sign_are_encoders_and_nothing_else(
    videos: Path, small: str, large: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    odd = tmp_path / "odd=1"
    command = ["build", str(videos), "--cache", str(odd), "--encoder", small, "--encoder", large, "--frames", "2"]
    command += ["--weights", f"{large}=random:1", "--weights", f"{small}=random:0"]
    command += ["--layers", f"{small}=stem,top", "--layers", f"{large}=top", "--pool", f"{small}=tokens"]
    monkeypatch.setattr("sys.argv", ["fovcache", *command, "--device", "cpu", "--json", "-"])
    with pytest.raises(SystemExit) as left:
        run_command(app)
    assert left.value.code == 0
    listed = [(row["encoder"], row["layer"], row["pool"]) for row in json.loads(capsys.readouterr().out)["features"]]
    expected = [
        ("small.py:make", "stem", "tokens"),
        ("small.py:make", "top", "tokens"),
        ("large.py:make", "top", "mean"),
    ]
    assert listed == expected


@given(st.data())
def test_units_keep_every_chain_in_order_and_meet_where_chains_are_in_the_order_of_samples(data: st.DataObject) -> None:
    keys = [f"k{number}" for number in range(data.draw(st.integers(1, 12)))]
    contents = data.draw(st.lists(st.sampled_from("ab"), min_size=len(keys), max_size=len(keys)))
    place = Place(where="file", path="file")
    locations = {k: Location(place=place, content=c, suffix=".mp4") for k, c in zip(keys, contents, strict=True)}
    is_sorted = data.draw(st.booleans())
    chains = []
    for _ in range(data.draw(st.integers(1, 3))):
        wanted = [key for key in keys if data.draw(st.booleans())]
        wanted = wanted if is_sorted else data.draw(st.permutations(wanted))
        cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(wanted) - 1)))) | {0, len(wanted)})
        blocks = [tuple(wanted[a:b]) for a, b in itertools.pairwise(cuts) if a < b <= len(wanted)]
        chains.append([FakeWork(keys, data.draw(st.integers(1, 4))) for keys in blocks])
    units = list(units_of(chains, locations))  # type: ignore[arg-type]
    for chain in chains:
        mine = [(key, place) for unit in units for key in unit.keys for place in unit.places if place.work in chain]
        assert [key for key, _ in mine] == [key for work in chain for key in work.block.keys]
        for work in chain:
            slots = [place.slot for _, place in mine if place.work is work]
            assert slots == [number // work.slot_size for number in range(len(work.block.keys))]
    for unit in units:
        assert len({locations[key].content for key in unit.keys}) == 1
    if is_sorted:
        seen = [key for unit in units for key in unit.keys]
        assert seen == [key for key in keys if key in set(seen)]


class FakeBlock:
    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys


class FakeWork(Work):
    """A block of keys without an encoder."""

    def __init__(self, keys: tuple[str, ...], slot_size: int) -> None:
        object.__setattr__(self, "block", FakeBlock(keys))
        object.__setattr__(self, "slot_size", slot_size)
        object.__setattr__(self, "resolved", type("Nothing", (), {"spec": None}))


def files(cache: fovcache.Cache) -> dict[str, bytes]:
    """Everything that says what was computed, without times."""
    found = {}
    for path in sorted(Path(cache.storage.root).rglob("*")):
        name = str(path.relative_to(cache.storage.root))
        if path.is_file() and name.split("/")[0] in ("shards", "features", "recipes", "datasets"):
            found[name] = path.read_bytes()
        if path.is_file() and name.startswith("manifests"):
            document = json.loads(path.read_bytes())
            kept = {key: value for key, value in document.items() if key not in ("provenance", "digest")}
            found[name] = json.dumps(kept).encode()
    return found


@pytest.mark.needs_shared
def test_layers_and_latents_of_the_real_clips_in_one_pass_and_a_further_layer_in_a_second(
    shared: Path, tmp_path: Path, num_decoded: Callable[[], int]
) -> None:
    cache = fovcache.open(tmp_path / "cache")
    asked: dict[str, Any] = {"encoder": ["dinov2-small", "vae-tiny"], "weights": "random:0", "frames": 1}
    clips = sorted((shared / "data" / "clips").glob("*.m??"))

    def build(layers: list[str]) -> fovcache.BuildReport:
        return cache.build(str(shared / "data" / "clips"), layers=layers, store_dtype="fp32", device="cpu", **asked)

    report = build(["blocks.11"])
    assert (report.samples, report.failed) == (len(clips), 1)
    assert num_decoded() == len(clips)
    assert cache.features(layer="latent").row_shape == (1, 4, 32, 32)
    before = files(cache)
    again = build(["blocks.11", "blocks.2"])
    assert again.computed == report.computed
    assert num_decoded() == 2 * len(clips) - 1  # and not the damaged one again
    new = [name for name in files(cache) if name not in before]
    assert sum("shards" in name for name in new) == 1
    added = cache.features(layer="blocks.2")
    assert again.bytes_written < 1.2 * len(added) * 384 * 4 + 4096
