"""Where a named model's weights come from: `random:SEED`, a local folder, or a hub id.

A folder holds config.json and safetensors files, as `save_pretrained` writes them; a sharded one has an index.
Only tensors that a requested layer needs are read, by their canonical names: those of the model's checkpoint on the
hub. Nothing here builds a model.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fovcache.errors import WeightsError, environment_failure
from fovcache.extract.seeded_init import INIT_VERSION, parse_seed, seeded_stream
from fovcache.keys.digest import Document, canonical_json, document_digest, file_digest

from .hub import CONFIG_FILE, PROCESSOR_FILE, hub_folder, is_hub_id

if TYPE_CHECKING:
    import torch

_NOT_IN_DIGEST = frozenset({"transformers_version", "_diffusers_version", "dtype", "torch_dtype"})
_PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5"})
_MAIN_FILES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
_EXPECTED = "expected a folder with config.json and safetensors files, a hub id owner/name, or random:SEED"

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model's configuration and where its tensors are. Make one with `open_checkpoint`."""

    name: str
    """The encoder's name, for errors."""
    source: str
    """`random:SEED`, the folder or the hub id, for errors."""
    config: Mapping[str, Any]
    """The folder's config.json; for seeded weights the architecture's own."""
    processor: Mapping[str, Any] | None = None
    """The folder's preprocessor_config.json, None where there is none."""
    folder: Path | None = None
    """The folder, None for seeded weights."""
    seed: int | None = None
    """The seed, None for a folder."""

    def __post_init__(self) -> None:
        assert (self.folder is None) != (self.seed is None)

    @property
    def label(self) -> str:
        """How errors call it: `weights SOURCE`."""
        return f"weights {self.source}"

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The safetensors files that are read, sorted by name; none for seeded weights. Raises WeightsError."""
        return () if self.folder is None else _safetensors_files(self.folder, self.label)

    def identity(self) -> Document:
        """`{digest}` of a folder's files and configuration, or configuration, seed and initialiser's version."""
        return self._identity

    @cached_property
    def _identity(self) -> Document:
        if self.seed is not None:
            return {"config": dict(self.config), "seed": self.seed, "init": INIT_VERSION}
        decisive = {k: v for k, v in self.config.items() if not k.startswith("_") and k not in _NOT_IN_DIGEST}
        try:
            digests = [file_digest(file) for file in self.files]
        except OSError as error:
            raise environment_failure(error, f"read {self.label}") from error
        document = {"config": decisive, "safetensors": digests}
        return {"digest": document_digest(document)}

    @cached_property
    def headers(self) -> Mapping[str, tuple[Path, Shape, str]]:
        """`{tensor name: (file, shape, dtype as safetensors names it)}` of a folder. Raises WeightsError."""
        found: dict[str, tuple[Path, Shape, str]] = {}
        for file in self.files:
            with _reading(file) as opened:
                for name in opened.keys():  # noqa: SIM118 - not a mapping
                    if name in found:
                        raise WeightsError(f"{self.label}: {name} stands in {found[name][0].name} and in {file.name}")
                    part = opened.get_slice(name)
                    found[name] = (file, tuple(part.get_shape()), part.get_dtype())
        return found

    def load(
        self,
        shapes: Mapping[str, Shape],
        *,
        parts: Sequence[str] = ("",),
        unused: Iterable[str] = (),
        embeddings: Iterable[str] = (),
        rename: Callable[[str], str] = str,
    ) -> dict[str, torch.Tensor]:
        """`{canonical name: float32 tensor}` of the parts of a model that are needed.

        `shapes` is the whole canonical state dict, name → shape; `parts` are prefixes of the canonical names that are
        needed; `unused` names tensors in them that may be there or not and are not read; `embeddings` names those
        that seeded weights fill as embeddings; `rename` makes a canonical name of a folder's.
        Raises WeightsError that names every needed tensor that is missing, of another shape, or not expected.
        """
        needed = {name for name in shapes if name.startswith(tuple(parts))} - frozenset(unused)
        if self.seed is not None:
            return self._seeded(shapes, needed, frozenset(embeddings))
        names = self._canonical(rename)
        self._check(shapes, needed, names, tuple(parts), frozenset(unused))
        return self._read({name: names[name] for name in needed})

    def _seeded(
        self, shapes: Mapping[str, Shape], needed: set[str], embeddings: frozenset[str]
    ) -> dict[str, torch.Tensor]:
        import torch

        assert self.seed is not None
        tensors: dict[str, torch.Tensor] = {}
        for name, value in seeded_stream(shapes, self.seed, embeddings=embeddings):
            if name in needed:
                tensors[name] = torch.from_numpy(value)
            if len(tensors) == len(needed):
                break
        return tensors

    def _canonical(self, rename: Callable[[str], str]) -> dict[str, str]:
        names: dict[str, str] = {}
        for name in self.headers:
            if (canonical := rename(name)) in names:
                raise WeightsError(f"{self.label}: {name} and {names[canonical]} are the same tensor {canonical}")
            names[canonical] = name
        return names

    def _check(
        self,
        shapes: Mapping[str, Shape],
        needed: set[str],
        names: Mapping[str, str],
        parts: tuple[str, ...],
        unused: frozenset[str],
    ) -> None:
        missing = sorted(needed - names.keys())
        unexpected = sorted(n for n in names if n.startswith(parts) and n not in shapes and n not in unused)
        mismatched, wrong_type = [], []
        for name in sorted(needed & names.keys()):
            _, shape, dtype = self.headers[names[name]]
            if shape != shapes[name]:
                mismatched.append(f"{name} (checkpoint {shape}, model {shapes[name]})")
            if not dtype.startswith(("F", "BF")):
                wrong_type.append(f"{name} ({dtype})")
        problems = [
            ("missing", missing),
            ("of another shape", mismatched),
            ("unexpected", unexpected),
            ("not of floating point", wrong_type),
        ]
        if said := "; ".join(f"{len(found)} {what}: {few(found)}" for what, found in problems if found):
            raise WeightsError(f"{self.label} do not fit the encoder {self.name!r}: {said}")

    def _read(self, names: Mapping[str, str]) -> dict[str, torch.Tensor]:
        import torch

        tensors = {}
        for file in self.files:
            with _reading(file) as opened:
                for canonical, name in names.items():
                    if self.headers[name][0] == file:
                        tensors[canonical] = opened.get_tensor(name).to(torch.float32)
        return tensors


def open_checkpoint(
    weights: str | None,
    *,
    name: str,
    hub_id: str | None,
    config: Mapping[str, Any],
    subfolder: str | None = None,
    with_processor: bool = False,
) -> Checkpoint:
    """The checkpoint that `weights` names: `random:SEED`, a folder, a hub id; None for `hub_id`.

    `name` is the encoder's, `config` its configuration for seeded weights; `subfolder` is where a folder or repository
    without a config.json of its own may keep the model; `with_processor` says that preprocessor_config.json is wanted,
    so that a model in the local hub cache without it is looked up again.
    Raises WeightsError for what is missing or refused, EnvironmentFailure when the hub cannot be reached.
    """
    if weights is None:
        if hub_id is None:
            raise WeightsError(
                f"the encoder {name!r} has no weights of its own: give --weights random:0, or --weights DIR with a "
                "folder of config.json and safetensors files"
            )
        weights = hub_id
    seed = parse_seed(weights)
    if seed is not None:
        return Checkpoint(name=name, source=weights, config=config, seed=seed)
    path = Path(weights)
    if not path.exists():
        if not is_hub_id(weights):
            raise WeightsError(f"weights {weights!r} do not exist; {_EXPECTED}")
        path = hub_folder(weights, with_processor=with_processor, subfolder=subfolder)
    if not path.is_dir():
        raise WeightsError(f"weights {weights!r} are a file; {_EXPECTED}, here {str(path.parent)!r}")
    if subfolder is not None and not (path / CONFIG_FILE).exists() and (path / subfolder / CONFIG_FILE).exists():
        path = path / subfolder
    label = f"weights {weights}"
    _safetensors_files(path, label)
    loaded = _json_object(path / CONFIG_FILE, label)
    processor = path / PROCESSOR_FILE
    return Checkpoint(
        name=name,
        source=weights,
        config=loaded,
        processor=_json_object(processor, label) if processor.exists() else None,
        folder=path,
    )


def few(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _safetensors_files(folder: Path, label: str) -> tuple[Path, ...]:
    """The index's files where there is one, else the main file, else every safetensors file."""
    files = sorted(folder.glob("*.safetensors"))
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) == 1 and not any((folder / name).exists() for name in _MAIN_FILES):
        return _indexed_files(indices[0], label)
    if main := [file for file in files if file.name in _MAIN_FILES]:
        return tuple(main)
    if not files:
        pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in _PICKLE_SUFFIXES]
        if pickles:
            raise WeightsError(
                f"{label} hold only {few(pickles)}; pickled checkpoints can run code and are refused: load them where "
                "you trust them and write safetensors with the model's save_pretrained(DIR)"
            )
        raise WeightsError(f"{label} hold no safetensors file, and pickled ones are refused; {_EXPECTED}")
    return tuple(files)


def _indexed_files(index: Path, label: str) -> tuple[Path, ...]:
    weight_map = _json_object(index, label).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise WeightsError(f"{label}: {index.name} has no 'weight_map' of tensor names to files")
    names = sorted({str(name) for name in weight_map.values()})
    if outside := [name for name in names if Path(name).name != name]:
        raise WeightsError(f"{label}: {index.name} names {few(outside)}, expected files beside it")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise WeightsError(f"{label}: {few(missing)}, which {index.name} names, are not there")
    return tuple(index.parent / name for name in names)


def _json_object(path: Path, label: str) -> Mapping[str, Any]:
    if not path.is_file():
        raise WeightsError(f"{label} hold no {path.name}; {_EXPECTED}")
    try:
        value = json.loads(path.read_bytes())
        canonical_json(value)
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{label}: {path.name} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{label}: {path.name} holds a {type(value).__name__}, expected a JSON object")
    return value


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[Any]:
    """A safetensors file opened for reading; what is wrong with it is a WeightsError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"weights {file} cannot be read: {error}") from error
