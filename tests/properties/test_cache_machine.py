"""The cache as a state machine: whatever is built, edited, damaged, repaired and collected, features stay right."""

import io
import shutil
import tempfile
from collections.abc import Set
from pathlib import Path

import numpy as np
import torch
from examples import examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from PIL import Image

import fovcache
from fovcache.derived.representation import resolve_representation
from fovcache.errors import SourceError
from fovcache.keys.digest import bytes_digest
from fovcache.keys.recipe import Feature
from fovcache.maintain.catalog import Catalog
from fovcache.maintain.gc import collect_garbage
from fovcache.maintain.repair import repair
from fovcache.maintain.verify import verify
from fovcache.store.dataset import read_dataset
from fovcache.store.layout import DATASETS, FEATURES, INDEX, MANIFESTS, MARKER, MEMO, RECIPES, REFS, SHARDS, shard_name
from fovcache.store.manifest import manifest_names, read_manifest
from fovcache.store.refs import find_ref, read_refs
from fovcache.store.shard import keys_array

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCE = {"fp32": 1e-6, "bf16": 2**-8, "fp16": 2**-11}
"""Of values in [0, 1]: one rounding step, and for fp32 another order of summing up."""
NAMES = [f"{folder}/{name}.png" for folder in ("ape", "bee") for name in ("a", "b", "c")]


def _picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)


def _png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(_picture(number)).save(file, "png")
    return file.getvalue()


CONTENTS = {bytes_digest(_png(number)): (_png(number), _picture(number)) for number in range(5)}
BROKEN = {bytes_digest(data): data for data in (_png(0)[:-40], b"no picture at all")}
ENCODINGS = st.fixed_dictionaries(
    {
        "layers": st.sampled_from([("pixels",), ("pixels8",), ("pixels", "pixels8")]),
        "pool": st.sampled_from(["mean", "tokens"]),
        "store_dtype": st.sampled_from(list(DTYPES)),
    }
)
WORK = st.fixed_dictionaries(
    {"batch_size": st.integers(1, 3), "rows_per_block": st.none() | st.integers(1, 4), "rehash": st.booleans()}
)
FOLDERS = [MARKER, RECIPES, FEATURES, SHARDS, MANIFESTS, DATASETS, REFS]
Wanted = tuple[str, str, str]
"""Layer, pooling, storage dtype."""


def _expected_row(key: str, wanted: Wanted) -> torch.Tensor:
    """What `pixels` is, computed from the picture itself."""
    layer, pool, _ = wanted
    value = torch.from_numpy(CONTENTS[key][1]).permute(2, 0, 1).to(torch.float32).div(255)
    if layer == "pixels8":
        value = value.reshape(3, 8, 4, 8, 4).mean(dim=(2, 4))
    return value if pool == "tokens" else value.mean(dim=(1, 2))


class CacheMachine(RuleBasedStateMachine):
    """`files` are the pictures as they are now; `built` those of the last build; `rows` what the cache must have."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.cache = fovcache.open(self.folder / "cache")
        self.storage = self.cache.storage
        self.files: dict[str, str] = {}
        self.built: dict[str, str] | None = None
        self.every_build: list[dict[str, str]] = []
        self.source_is_known = True
        self.rows: dict[Wanted, set[str]] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(name=st.sampled_from(NAMES), key=st.sampled_from(sorted(CONTENTS) + sorted(BROKEN)))
    def write_a_file(self, name: str, key: str) -> None:
        """A new one, the same content twice, another content under an old name, or one that is broken."""
        path = self.folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENTS[key][0] if key in CONTENTS else BROKEN[key])
        self.files[name] = key

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def remove_a_file(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.files)))
        (self.folder / "images" / name).unlink()
        del self.files[name]

    @precondition(lambda self: not self.files)
    @rule(encoding=ENCODINGS)
    def build_of_nothing(self, encoding: dict[str, object]) -> None:
        """Is refused, and changes nothing."""
        try:
            self._build(encoding)
        except SourceError:
            return
        raise AssertionError("an empty source was accepted")

    @precondition(lambda self: self.files)
    @rule(encoding=ENCODINGS, work=WORK)
    def build(self, encoding: dict[str, object], work: dict[str, object]) -> None:
        self._build_twice(encoding, work)

    def _build_twice(self, encoding: dict[str, object], work: dict[str, object]) -> None:
        """Computes exactly what is missing, counts every file once, and has nothing left to do afterwards."""
        wanted = [(layer, encoding["pool"], encoding["store_dtype"]) for layer in encoding["layers"]]
        good = {key for key in self.files.values() if key in CONTENTS}
        lacking = {key for key in good for want in wanted if key not in self.rows.get(want, set())}
        num_broken = sum(key in BROKEN for key in self.files.values())
        for expected in (len(lacking), 0):
            report = self._build(encoding, **work)
            assert (report.samples, report.computed, report.failed) == (len(self.files), expected, num_broken)
            assert report.samples == report.computed + report.reused + report.failed
            assert sorted(failure.uri for failure in report.failures) == sorted(
                name for name, key in self.files.items() if key in BROKEN
            )
        self.built = dict(self.files)
        self.every_build.append(self.built)
        self.source_is_known = True
        for want in wanted:
            if good:
                self.rows.setdefault(want, set()).update(good)

    @precondition(lambda self: self._present())
    @rule(data=st.data(), name=st.sampled_from(["simple_stats", "flat_vec"]))
    def derive(self, data: st.DataObject, name: str) -> None:
        """What is derived has the samples of its input, is a function of its rows, and is computed once."""
        layer, pool, dtype = data.draw(st.sampled_from(self._present()))
        features = self.cache.features(layer=layer, pool=pool, store_dtype=dtype)
        derived = self.cache.derive(features, name, device="cpu")
        rows = features.tensors()[0].float()
        x_NTC = rows.flatten(2).mT if pool == "tokens" else rows[:, None]
        assert derived.keys == features.keys
        assert torch.allclose(derived.tensors()[0], resolve_representation(name).compute(x_NTC), rtol=1e-5, atol=1e-6)
        before = self._listing()
        again = self.cache.derive(features, name, device="cpu")
        assert (again.keys, self._listing()) == (features.keys, before)

    def _present(self) -> list[Wanted]:
        """What the newest dataset has rows of."""
        keys = set((self.built or {}).values())
        return sorted(want for want, held in self.rows.items() if keys & held)

    @precondition(lambda self: self.built is not None)
    @rule(
        folder=st.sampled_from(FOLDERS),
        number=st.integers(0, 99),
        place=st.floats(0, 1, exclude_max=True),
        bit=st.integers(0, 7),
        cut=st.booleans(),
    )
    def damage_and_repair(self, folder: str, number: int, place: float, bit: int, cut: bool) -> None:
        """Damage to any one file is found and named; what its sources still give comes back."""
        names = sorted(name for name in self._listing() if name.startswith(folder))
        if not names:
            return
        name = names[number % len(names)]
        whole = self.storage.read(name)
        at = int(place * len(whole))
        flipped = bytes([whole[at] ^ 1 << bit])
        is_used = name in self._shards_of_manifests()
        self.storage.path(name).write_bytes(whole[:at] if cut else whole[:at] + flipped + whole[at + 1 :])
        assert [item.file for item in verify(self.storage).damaged] == [name]
        self.source_is_known &= not name.startswith(REFS)
        report = repair(self.storage, device="cpu")
        assert [item.file for item in report.damaged] == [name]
        if not report.unrepaired:
            assert report.repaired == (name,)
            self._look_again(may_gain=set(self.files.values()))  # where the samples of a lost block are not known
            if is_used and self._sources_never_changed():
                assert self.storage.read(name) == whole
            return
        assert not self._must_come_back(name)
        if verify(self.storage).damaged:  # a list of samples that no source gives any more
            assert name.startswith(DATASETS)
            self._give_up_old_datasets()
        self._look_again(may_lose=True)

    @precondition(lambda self: self.built is not None)
    @rule(only_newest=st.booleans())
    def collect(self, only_newest: bool) -> None:
        """Nothing that a dataset leads to goes, and a dry run says beforehand what goes."""
        foreseen = collect_garbage(self.storage, grace_s=0, only_newest=only_newest, dry_run=True)
        before = self._listing()
        report = collect_garbage(self.storage, grace_s=0, only_newest=only_newest)
        assert report.removed == foreseen.removed
        assert self._listing() == before - set(report.removed)
        listed = {ref.dataset for ref in read_refs(self.storage)}
        live = {sample.key for digest in listed for sample in read_dataset(self.storage, digest).samples}
        self._look_again(may_lose=True, but_not=live)

    @rule()
    def reopen_without_what_is_derived(self) -> None:
        shutil.rmtree(self.storage.path(INDEX), ignore_errors=True)
        self.storage.path(MEMO).unlink(missing_ok=True)
        self.cache = fovcache.open(self.folder / "cache")
        self.storage = self.cache.storage

    @invariant()
    def features_are_those_of_the_pictures(self) -> None:
        if self.built is None:
            return
        names = sorted(name for name, key in self.built.items() if key in CONTENTS)
        for want, keys in self.rows.items():
            if not names or not {self.built[name] for name in names} <= keys:
                continue
            features = self.cache.features(layer=want[0], pool=want[1], store_dtype=want[2])
            x, y = features.tensors()
            assert features.uris == names
            assert features.num_failed == len(self.built) - len(names)
            expected = torch.stack([_expected_row(self.built[name], want) for name in names])
            assert x.dtype == DTYPES[want[2]]
            assert torch.allclose(x.float(), expected, rtol=0, atol=TOLERANCE[want[2]])
            assert [features.classes[label] for label in y.tolist()] == [name.partition("/")[0] for name in names]

    @invariant()
    def every_byte_is_as_it_was_written(self) -> None:
        if self.built is not None:
            assert verify(self.storage).damaged == ()

    def _build(self, encoding: dict[str, object], **options: object) -> fovcache.BuildReport:
        return self.cache.build(str(self.folder / "images"), encoder="pixels", device="cpu", **encoding, **options)

    def _listing(self) -> set[str]:
        root = self.storage.root
        return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}

    def _must_come_back(self, name: str) -> bool:
        """Whether what a damaged file held can be known: lists of samples and rows of pictures that are gone cannot."""
        folder = name.partition("/")[0]
        if folder == DATASETS:
            return self.files == self.built and self.source_is_known and find_ref(self.storage, None).dataset in name
        return folder not in (MANIFESTS, SHARDS) or (folder == SHARDS and self._sources_never_changed())

    def _sources_never_changed(self) -> bool:
        return all(files == self.files for files in self.every_build)

    def _give_up_old_datasets(self) -> None:
        if not self.files:
            self.write_a_file(NAMES[0], min(CONTENTS))
        self._build_twice({"layers": ("pixels8",), "pool": "mean", "store_dtype": "bf16"}, {})
        collect_garbage(self.storage, grace_s=0, only_newest=True)

    def _look_again(
        self, *, may_gain: Set[str] = frozenset(), may_lose: bool = False, but_not: Set[str] = frozenset()
    ) -> None:
        """Take over what rows there are now, which are those of before but for these exceptions."""
        held = self._held()
        for want in held.keys() | self.rows.keys():
            keys, found = self.rows.get(want, set()), held.get(want, set())
            assert found <= keys | may_gain
            assert found >= (keys & but_not if may_lose else keys)
        self.rows = held

    def _shards_of_manifests(self) -> set[str]:
        manifests = [read_manifest(self.storage, name) for name in manifest_names(self.storage)]
        return {shard_name(manifest.recipe, shard.digest) for manifest in manifests for shard in manifest.shards}

    def _held(self) -> dict[Wanted, set[str]]:
        catalog = Catalog(self.storage)
        keys = sorted(CONTENTS)
        held: dict[Wanted, set[str]] = {}
        for feature in catalog.features:
            if catalog.representation(feature) is not None:
                continue
            found = catalog.index(feature.recipe).lookup(feature.digest, keys_array(keys))[0] >= 0
            if found.any():
                held[_wanted(feature)] = {key for key, there in zip(keys, found.tolist(), strict=True) if there}
        return held


def _wanted(feature: Feature) -> Wanted:
    return feature.layer, feature.pool, feature.dtype


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = examples(40, stateful_step_count=20)
