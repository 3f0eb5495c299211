"""The fingerprint of a torch module: every tensor and every plain setting that decides what it computes.

The tensors are the state dict, buffers that are not saved in it, and tensors held as ordinary attributes. The
settings are the attributes of each submodule (a stride, an epsilon, a `scale` read from a configuration file)
and its hooks, and the constants of the user's own files: a factory may take them from anywhere, so the source
alone does not decide them. Paths and devices are left out: what lies at a path shows in the weights, and moving
it must not change a key.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import math
import re
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import nn

from ..errors import FingerprintError
from .digest import canonical_json, document_digest

USER_NAMESPACE = "fovcache_user_"
"""How the Python modules are named, each anew, that users' encoder files are run as."""

_PACKAGE = __name__.partition(".")[0]
_KEYED_ELSEWHERE = frozenset({"version", "layers", "image_size", "image_mean", "image_std"})
"""Attributes of the encoder itself that stand in the recipe by their own names, or do not decide a layer."""


_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_PATH = re.compile(r"(/|~[^/\\]*[/\\]|\.{1,2}[/\\]|\\\\|[A-Za-z]:[/\\]).", re.DOTALL)
"""An absolute path, or one relative to here; `mean/std` is a text like any other."""
_DEVICE = re.compile(r"(cpu|cuda|mps)(:\d+)?")
_METHODS = (types.FunctionType, classmethod, staticmethod, property, functools.cached_property)


class _Unknown(Exception):
    """A value of a kind that has no stable fingerprint."""


def module_state_digest(module: nn.Module, *, local_modules: Mapping[str, types.ModuleType]) -> str:
    """BLAKE3 over the module's tensors (name, dtype, shape, bytes) and settings, in sorted name order.

    `local_modules` are the Python modules that are the user's own, by name: an attribute of an unknown kind on
    one of their classes, and a function or object of theirs anywhere, raises FingerprintError, because it may
    decide what is computed. Of installed libraries it is passed over: their public scalars and tensors say what
    differs.
    """
    local = frozenset(local_modules)
    settings = _Settings(local, {})
    constants = {
        "" if name.startswith(USER_NAMESPACE) else name: settings.constants(vars(python_module))
        for name, python_module in local_modules.items()
    }
    return document_digest([_digest(module, local, {}), constants])


def _digest(module: nn.Module, local: frozenset[str], outer: Mapping[int, str]) -> str:
    places = {id(submodule): f"{'.' * len(outer)}{path}" for path, submodule in module.named_modules()}
    settings = _Settings(local, {**places, **outer})
    hasher = blake3()
    for name, tensor in sorted(_named_tensors(module)):
        value = tensor.detach().to("cpu").contiguous()
        header = canonical_json([name, str(value.dtype), list(value.shape)])
        hasher.update(b"tensor\n" + header + b"\n")
        hasher.update(value.reshape(-1).view(torch.uint8).numpy().data)
    for path, submodule in sorted(module.named_modules()):
        found = settings.of(path, submodule)
        hasher.update(b"module\n" + canonical_json([path, settings.name(type(submodule)), found]) + b"\n")
    return hasher.hexdigest()


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
    for path, submodule in module.named_modules():
        for name, value in vars(submodule).items():
            if isinstance(value, torch.Tensor):
                yield f"{path}.{name}" if path else name, value


@dataclasses.dataclass(frozen=True)
class _Settings:
    """Makes JSON of settings, equal for equal ones."""

    local: frozenset[str]
    """The names of the Python modules that are the user's own."""
    places: Mapping[int, str]
    """Where in the encoder each torch module stands, by id."""

    def of(self, path: str, module: nn.Module) -> dict[str, Any]:
        """What stands on a submodule that is no tensor and may decide what it computes."""
        found: dict[str, Any] = {}
        for name, value, is_strict in self._attributes(module):
            if not path and name in _KEYED_ELSEWHERE:
                continue
            try:
                found[name] = self.plain(value)
            except _Unknown as unknown:
                if is_strict or (not name.startswith("_") and self._is_local(value)):
                    where = f"{path}.{name}" if path else name
                    raise FingerprintError(
                        f"the encoder's attribute {where!r} is {unknown}, which has no stable fingerprint; keep "
                        "numbers, strings, tensors or submodules there, start the name with '_' if it does not decide "
                        'the output, or set `version = "…"` on the module to name its version yourself'
                    ) from None
        return found

    def constants(self, namespace: Mapping[str, Any]) -> dict[str, Any]:
        """The plain values in the namespace of one of the user's files."""
        found = {}
        for name, value in namespace.items():
            if not (name.startswith("__") or callable(value)):
                with contextlib.suppress(_Unknown):
                    found[name] = self.plain(value)
        return found

    def _attributes(self, module: nn.Module) -> Iterator[tuple[str, Any, bool]]:
        """(name, value, whether it must have a fingerprint) of everything but tensors and submodules."""
        is_ours = type(module).__module__ in self.local
        for kind in reversed(type(module).__mro__):
            if kind.__module__ in self.local:
                own = [(name, value) for name, value in vars(kind).items() if not isinstance(value, _METHODS)]
                yield from ((name, value, False) for name, value in own if not name.startswith("_"))
        for name, value in vars(module).items():
            is_private = name.startswith("_")
            if name not in _OF_EVERY_MODULE and not isinstance(value, torch.Tensor) and (is_ours or not is_private):
                yield name, value, is_ours and not is_private
        for kind_of_hook in ("_forward_pre_hooks", "_forward_hooks"):
            for at, hook in enumerate(vars(module)[kind_of_hook].values()):
                if str(getattr(hook, "__module__", "")).partition(".")[0] != _PACKAGE:  # the build's own taps
                    yield f"{kind_of_hook[1:]}.{at}", hook, False

    def _is_local(self, value: Any) -> bool:
        return bool({getattr(value, "__module__", None), type(value).__module__} & self.local)

    def name(self, value: Any) -> str:
        """The name of a function or class, with its module where that is the user's: libraries move theirs about."""
        module = str(getattr(value, "__module__", ""))
        with_module = module in self.local and not module.startswith(USER_NAMESPACE)
        return f"{module}.{value.__qualname__}" if with_module else str(value.__qualname__)

    def plain(self, value: Any) -> Any:
        """A JSON value that is equal for equal settings, or _Unknown."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, enum.Enum):
            return {"enum": f"{self.name(type(value))}.{value.name}"}
        if isinstance(value, str):
            return "path" if _PATH.match(value) else "device" if _DEVICE.fullmatch(value) else value
        if isinstance(value, PurePath):
            return "path"
        if isinstance(value, int):
            return value if abs(value) < 2**53 else {"int": str(value)}
        if isinstance(value, float):
            return value if math.isfinite(value) else {"float": repr(value)}
        if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
            return {"torch": str(value)}
        if isinstance(value, torch.device):
            return "device"
        if isinstance(value, np.generic):
            return self.plain(value.item())
        if isinstance(value, np.ndarray | torch.Tensor):
            return _plain_array(value)
        try:
            return self._plain_container(value)
        except RecursionError:
            raise _Unknown("nested without end") from None

    def _plain_container(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self.plain(item) for item in value]
        if isinstance(value, set | frozenset):
            return {"set": sorted((self.plain(item) for item in value), key=canonical_json)}
        if isinstance(value, dict):
            return {"dict": sorted(([self.plain(k), self.plain(v)] for k, v in value.items()), key=canonical_json)}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: self.plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
            return {"dataclass": [self.name(type(value)), fields]}
        if isinstance(value, nn.Module):
            place = self.places.get(id(value))
            return {"module": _digest(value, self.local, self.places) if place is None else place}
        return self._plain_callable(value)

    def _plain_callable(self, value: Any) -> Any:
        if isinstance(value, functools.partial):
            return {"partial": self.plain([value.func, value.args, value.keywords])}
        if isinstance(value, types.FunctionType):
            if value.__closure__ and not _is_importable(value):
                raise _Unknown(f"the closure {value.__qualname__!r}")
            name = value.__name__ if value.__closure__ else self.name(value)
            return {"function": [name, *self.plain([value.__defaults__, value.__kwdefaults__])]}
        if isinstance(value, types.MethodType | types.BuiltinFunctionType):
            owner = value.__self__
            is_named = owner is None or isinstance(owner, type | types.ModuleType)
            return {"method": [self.name(value), None if is_named else self.plain(owner)]}
        if isinstance(value, type):
            return {"name": self.name(value)}
        raise _Unknown(f"an object of class {self.name(type(value))}")


def _is_importable(function: types.FunctionType) -> bool:
    """Whether it is what its module has under its name, as `torch.nn.functional.max_pool2d` is."""
    return getattr(sys.modules.get(function.__module__), function.__name__, None) is function


def _plain_array(value: np.ndarray | torch.Tensor) -> Any:
    if isinstance(value, torch.Tensor):
        flat = value.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
        return {"tensor": [str(value.dtype), list(value.shape), blake3(flat.numpy().data).hexdigest()]}
    if value.dtype.hasobject:
        raise _Unknown("a numpy array of objects")
    digest = blake3(np.ascontiguousarray(value).tobytes()).hexdigest()
    return {"array": [str(value.dtype), list(value.shape), digest]}
