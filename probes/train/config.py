"""The configuration of controlled training: what `fovbench train` reads, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fovcache.errors import UsageError, nearest
from fovcache.sources.address import shown_uri
from fovcache.trainable import FEATURES, LABELS, TEXT, Trainable, resolve_trainable

from ..toml_table import TomlTable, read_toml
from .recipe import read_settings
from .settings import TrainSettings

CACHED, ONLINE, STREAM = "cached", "online", "stream"
DATA_KINDS = (CACHED, ONLINE, STREAM)
DEFAULT_SEEDS = (0, 1, 2)
KEYS = ("cache", "dataset", "seeds", "recipe", "device", "model", "inputs", "data", "split", "train")
INPUT_KEYS = ("encoder", "layer", "pool", "weights", "store_dtype", "recipe", "max_tokens")
DATA_KEYS = {
    CACHED: ("kind",),
    ONLINE: ("kind", "sources", "encode_batch_size"),
    STREAM: ("kind", "sources", "encode_batch_size", "window_gb", "shuffle_shards"),
}
"""What is read of `[data]`, by kind."""
SPLIT_KEYS = ("train", "validation")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputChoice:
    """Which feature of the cache a need of the model is; what is None is left to the model's need, or must be unique
    in the cache."""

    encoder: str | None = None
    """The extractor's name or `PATH.py:FACTORY`."""
    layer: str | None = None
    """Its layer, where the need names none."""
    pool: str | None = None
    """Pooling."""
    weights: str | None = None
    """What the extractor's build was given."""
    store_dtype: str | None = None
    """As stored."""
    recipe: str | None = None
    """The beginning of its digest."""
    max_tokens: int | None = None
    """Of text: longer ones are cut, and how many were is said; None for no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataChoice:
    """Where batches come from."""

    kind: str = CACHED
    """`cached`: rows of the cache. `online`: decoded and encoded anew for every batch, for comparison. `stream`:
    fetched, decoded, encoded, used once and let go, the cache holding a window of it."""
    sources: tuple[str, ...] = ()
    """Of `stream`: tar shards or other sources, as `fovcache build` takes them; of `online` those that were built."""
    window_gb: float = 10.0
    """Of `stream`: most that is on disk at once, downloads and features together, 10^9 bytes."""
    shuffle_shards: bool = True
    """Of `stream`: whether sources are taken in an order by the seed."""
    encode_batch_size: int | None = None
    """Of `online` and `stream`: samples that are encoded at once; None for the process's share of a step, and of a
    stream for what a build takes."""

    def __post_init__(self) -> None:
        if self.kind not in DATA_KINDS:
            raise UsageError(f"kind = {self.kind!r}{nearest(self.kind, DATA_KINDS)}")
        if self.kind == CACHED and self.sources:
            raise UsageError('sources are for kind = "online" or "stream"; a cached run reads its dataset')
        if self.kind != CACHED and not self.sources:
            raise UsageError(f"kind = {self.kind!r} needs sources, such as those that `fovcache build` is given")
        if not self.window_gb > 0:
            raise UsageError(f"window_gb = {self.window_gb}, expected more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitChoice:
    """The train set and the validation set, by the dataset's own splits."""

    train: str | None = None
    """None: the split `train` if there is one, else all that is not in the validation set."""
    validation: str | None = None
    """None: the split `validation` or `val` if there is one, else drawn by content: the samples whose keys have the
    smallest digests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictChoice:
    """Which arms the verdict compares; a name without an arm leaves its condition open."""

    metric: str = "loss"
    """The value that is compared, smaller being better."""
    coarse: str = "coarse"
    """Trained independently on as many samples."""
    coarse_matched: str = "coarse_matched"
    """The same, trained for as much compute."""
    random: str = "random_query"
    """Its queries are drawn at random."""
    shuffled: str = "shuffled_query"
    """Its queries are other samples'."""
    tolerance: float = 0.03
    """Of the negative control's ratio around 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One arm on one task: everything that decides a run but its seed."""

    cache: str
    """The cache's folder, as it was given."""
    folder: Path = Path()
    """Where a relative `cache` starts."""
    dataset: str | None = None
    """Its name or digest; None for the only one there is."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    kind: str
    """The model's name."""
    model: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Its settings, as they were given."""
    inputs: Mapping[str, InputChoice] = field(default_factory=dict, hash=False)
    """By the model's names for its needs."""
    data: DataChoice = field(default_factory=DataChoice)
    """Where batches come from."""
    split: SplitChoice = field(default_factory=SplitChoice)
    """How samples are divided."""
    train: TrainSettings
    """The recipe."""

    @property
    def cache_path(self) -> Path:
        """The cache's folder."""
        return self.folder / self.cache

    def trainable(self) -> Trainable:
        """The model, not built. Raises UsageError for a name or settings that are not known."""
        return resolve_trainable(self.kind, self.model)

    def document(self) -> dict[str, Any]:
        """Everything that decides a run but its seed, by dotted names, defaults filled in: what arms are compared by,
        and what a resumed run must agree with."""
        found: dict[str, Any] = {"cache": self.cache, "dataset": self.dataset, "device": self.device}
        found["model.kind"] = self.kind
        found |= {f"model.{key}": value for key, value in dict(self.trainable().document()).items() if key != "name"}
        for name, choice in self.inputs.items():
            found |= {f"inputs.{name}.{key}": value for key, value in asdict(choice).items() if value is not None}
        for table, values in (("data", self.data), ("split", self.split), ("train", self.train)):
            found |= {f"{table}.{key}": value for key, value in asdict(values).items()}
        found["data.sources"] = tuple(shown_uri(source) for source in self.data.sources)  # URLs may hold secrets
        return found


def read_cell(top: TomlTable, folder: Path) -> TrainConfig:
    """The configuration in a table. Raises UsageError, each time in one line with the file's name."""
    model = top.table("model", None)
    if model is None:
        raise top.error("there is no table [model], which is required: it names the `kind` of model")
    kind = model.required_text("kind")
    data = _data(top)
    config = top.make(
        TrainConfig,
        cache=top.required_text("cache"),
        folder=folder,
        dataset=top.text("dataset"),
        device=top.text("device", "auto") or "auto",
        kind=kind,
        model={key: model.raw(key) for key in model.keys if key != "kind"},
        inputs=_inputs(top),
        data=data,
        split=_split(top, is_stream=data.kind == STREAM),
        train=read_settings(top, folder),
    )
    _check_inputs(top, config)
    return config


def _check_inputs(top: TomlTable, config: TrainConfig) -> None:
    """Every [inputs.NAME] must be of a need that the model has, and say only what is read for its kind."""
    needs = top.make(lambda: config.trainable()).needs()
    for name, choice in config.inputs.items():
        if name not in needs:
            raise top.error(f"[inputs.{name}]: the model {config.kind!r} reads no such input{nearest(name, needs)}")
        kind = needs[name].kind
        if kind == LABELS:
            raise top.error(f"[inputs.{name}]: labels are the dataset's own; leave the table out")
        if kind != TEXT and choice.max_tokens is not None:
            raise top.error(f"[inputs.{name}]: max_tokens is for text, and this input is {kind}")
        if kind == FEATURES and needs[name].layers and choice.layer is not None:
            raise top.error(
                f"[inputs.{name}]: the model reads {len(needs[name].layers)} layers of its own choice; leave layer out"
            )


def _inputs(top: TomlTable) -> dict[str, InputChoice]:
    tables = top.table("inputs", None)
    return {} if tables is None else {name: _input(tables, name) for name in tables.keys}


def _input(tables: TomlTable, name: str) -> InputChoice:
    table = tables.table(name, INPUT_KEYS)
    assert table is not None
    texts = {key: table.text(key) for key in INPUT_KEYS if key != "max_tokens"}
    return InputChoice(**texts, max_tokens=table.count("max_tokens", None))


def _data(top: TomlTable) -> DataChoice:
    table = top.table("data", DATA_KEYS[STREAM])
    if table is None:
        return DataChoice()
    kind = table.text("kind", CACHED, allowed=DATA_KINDS) or CACHED
    for key in table.keys:
        if key not in DATA_KEYS[kind]:
            raise table.error(f"{key} is not read with kind = {kind!r}; leave it out")
    return table.make(
        DataChoice,
        kind=kind,
        sources=table.texts("sources", of="sources") or (),
        window_gb=table.number("window_gb", 10.0),
        shuffle_shards=table.flag("shuffle_shards", True),
        encode_batch_size=table.count("encode_batch_size", None),
    )


def _split(top: TomlTable, *, is_stream: bool) -> SplitChoice:
    table = top.table("split", SPLIT_KEYS)
    if table is None:
        return SplitChoice()
    if is_stream and "train" in table:
        raise table.error("train is not read with a stream, which trains on its own sources; leave it out")
    return SplitChoice(train=table.text("train"), validation=table.text("validation"))


def read_top(path: Path) -> TomlTable:
    """The top of a configuration with the tables of its suite too. Raises UsageError, EnvironmentFailure."""
    return read_toml(path, (*KEYS, "arms", "control", "verdict"))
