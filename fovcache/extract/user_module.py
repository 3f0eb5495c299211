"""A user's own encoder: `PATH.py:FACTORY`, a function that returns a `torch.nn.Module`.

The module is fed float32 RGB in [0, 1], [batch, 3, height, width]. It may set `image_size` (pixels),
`image_mean` and `image_std` (applied for it), `layers` (the names that can be asked for; all submodules by
default), `has_class_token` and `num_prefix_tokens` (for sequence outputs) and `version`, which then stands
for the source in the key.
"""

from __future__ import annotations

import functools
import itertools
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..errors import EncoderError, FovcacheError, nearest
from ..keys.digest import Document
from ..keys.source_code import source_digests
from ..keys.state import USER_NAMESPACE, module_state_digest
from .extractor import InputSpec, TokenLayout
from .frames import FrameInput
from .layers import select_layers
from .local_imports import LocalImports
from .precision import full_float32
from .taps import LayerTaps, describe_forward_error, is_out_of_memory
from .weights import apply_weights

_counter = itertools.count()


class UserModule:
    """An extractor made of a user's file. Build one with `UserModule.load`."""

    def __init__(
        self,
        *,
        name: str,
        module: nn.Module,
        source: Mapping[str, str],
        local: Mapping[str, types.ModuleType],
        imports: LocalImports,
    ) -> None:
        self._name = name
        self._module = module
        self._source = source
        self._local = local
        self._imports = imports
        self._input = FrameInput(
            size=_attribute(module, "image_size", int),
            mean=_triple(module, "image_mean"),
            std=_triple(module, "image_std"),
        )
        self._tokens = TokenLayout(
            has_class_token=bool(_attribute(module, "has_class_token", bool)),
            num_prefix_tokens=_attribute(module, "num_prefix_tokens", int)
            or int(bool(_attribute(module, "has_class_token", bool))),
        )

    @classmethod
    def load(cls, encoder: str, weights: str | None = None) -> UserModule:
        """Run the factory of `PATH.py:FACTORY` and fill in `weights` (safetensors or `random:SEED`).

        Raises EncoderError when the file, the factory or what it returns is not as expected.
        """
        path_text, colon, factory_name = encoder.rpartition(":")
        if not colon or not factory_name.isidentifier():
            raise EncoderError(
                f"encoder {encoder!r}: expected PATH.py:FACTORY, with the name of a function in that file"
            )
        path = Path(path_text)
        if not path.is_file():
            raise EncoderError(f"encoder file {path} does not exist")
        digests = source_digests(path)
        imports = LocalImports(path.resolve().parent, digests)
        with imports:
            namespace = _execute(path)
            module = _call_factory(namespace, factory_name, path)
        digests |= imports.digests()  # and those that no import statement names
        _check_filled(module)
        if weights is not None:
            with torch.no_grad():
                apply_weights(module, weights)
        module.eval().requires_grad_(False)
        version = getattr(module, "version", None)
        if version is not None and not isinstance(version, str | int):
            raise EncoderError(f"{encoder}: version is {version!r}, expected a string or a whole number")
        return cls(
            name=f"{path.name}:{factory_name}",
            module=module,
            source={"version": str(version)} if version is not None else digests,
            local={} if version is not None else {**imports.modules, namespace.__name__: namespace},
            imports=imports,
        )

    @property
    def name(self) -> str:
        """`FILE.py:FACTORY`."""
        return self._name

    @property
    def input(self) -> InputSpec:
        """Frames at the module's own geometry and normalisation."""
        return self._input

    @property
    def tokens(self) -> TokenLayout:
        """As the module's attributes say; by default no class token."""
        return self._tokens

    @functools.cached_property
    def _state(self) -> str:
        return module_state_digest(self._module, local_modules=self._local)

    def identity(self) -> Document:
        """Factory, source digests (or version), state digest, token layout."""
        return {
            "name": self._name,
            "source": dict(self._source),
            "state": self._state,
            "tokens": {"class": self._tokens.has_class_token, "prefix": self._tokens.num_prefix_tokens},
        }

    def layers(self) -> tuple[str, ...]:
        """The module's `layers`, else every submodule by its `named_modules()` name."""
        every = tuple(name for name, _ in self._module.named_modules() if name)
        declared = getattr(self._module, "layers", None)
        if declared is None or isinstance(declared, nn.Module):
            return every
        names = tuple(str(name) for name in declared)
        for name in names:
            if name not in every:
                raise EncoderError(
                    f"{self._name}: `layers` names {name!r}, which is no submodule{nearest(name, every)}"
                )
        return names

    def default_layers(self) -> tuple[str, ...]:
        """None: a user's module has no canonical last block, so layers must be named."""
        raise EncoderError(
            f"{self._name}: name the layers to compute with --layers; there are: {', '.join(self.layers())}"
        )

    def session(self, layers: Sequence[str], device: torch.device, compute_dtype: str) -> UserSession:
        """The module on `device`, tapped at `layers`."""
        select_layers(layers, self.layers())
        return UserSession(self._module.to(device), layers, device, compute_dtype, self._imports)


class UserSession:
    """A user's module on a device, computing some of its layers."""

    def __init__(
        self, module: nn.Module, layers: Sequence[str], device: torch.device, compute_dtype: str, imports: LocalImports
    ) -> None:
        self._imports = imports
        self._taps = LayerTaps(module, layers)
        self._device = device
        self._dtype = getattr(torch, compute_dtype)

    def encode(self, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`{layer: [rows, …]}`. Raises LayerError, EncoderError, torch.OutOfMemoryError."""
        autocast = self._dtype != torch.float32
        try:
            with (
                self._imports,
                torch.inference_mode(),
                full_float32(self._device),
                torch.autocast(self._device.type, dtype=self._dtype, enabled=autocast),
            ):
                return self._taps(batch)
        except FovcacheError:
            raise
        except Exception as error:  # a user's code may raise anything; the run ends with its words
            if is_out_of_memory(error):
                raise
            raise describe_forward_error(error, batch) from error

    def close(self) -> None:
        """Take the taps off the module."""
        self._taps.close()


def _execute(path: Path) -> types.ModuleType:
    """Run a file's source as a module of its own: the bytes as they are now, never a bytecode cache."""
    module = types.ModuleType(f"{USER_NAMESPACE}{path.stem}_{next(_counter)}")
    module.__file__ = str(path.resolve())
    sys.modules[module.__name__] = module  # dataclasses and typing look their module up
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # noqa: S102 - running it is the point
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise EncoderError(f"{path} raised while it was loaded: {_one_line(error)}") from error
    return module


def _call_factory(namespace: types.ModuleType, factory_name: str, path: Path) -> nn.Module:
    factory = getattr(namespace, factory_name, None)
    if not callable(factory):
        functions = [name for name, value in vars(namespace).items() if isinstance(value, types.FunctionType)]
        raise EncoderError(f"{path} has no function {factory_name!r}{nearest(factory_name, functions)}")
    try:
        module = factory()
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise EncoderError(f"{path}:{factory_name} raised: {_one_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise EncoderError(f"{path}:{factory_name} returned a {type(module).__name__}, expected a torch.nn.Module")
    return module


def _check_filled(module: nn.Module) -> None:
    """Refuse tensors without data, which no weights could be copied into."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(tensor) or tensor.is_meta:
            kind = "is lazy" if is_lazy(tensor) else "lies on the meta device"
            raise EncoderError(f"the encoder's {name!r} {kind} and has no data; expected a module with its shapes set")


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ").strip().splitlines()[0]


def _attribute(module: nn.Module, name: str, kind: type) -> Any:
    value = getattr(module, name, None)
    if value is None or isinstance(value, kind):
        return value
    raise EncoderError(f"the encoder's {name} is {value!r}, expected {kind.__name__}")


def _triple(module: nn.Module, name: str) -> tuple[float, float, float] | None:
    value = getattr(module, name, None)
    if value is None:
        return None
    numbers = value.tolist() if isinstance(value, torch.Tensor) else value
    try:
        red, green, blue = (float(number) for number in numbers)
    except (TypeError, ValueError) as error:
        raise EncoderError(f"the encoder's {name} is {value!r}, expected three numbers") from error
    return red, green, blue
