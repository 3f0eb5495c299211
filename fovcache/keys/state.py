"""The fingerprint of a torch module: every tensor and every plain setting that decides what it computes.

The tensors are the state dict, buffers that are not saved in it, and tensors held as ordinary attributes. The
settings are the public attributes of each submodule (a stride, an epsilon, a `scale` read from a
configuration file): a factory may read them from anywhere, so the source alone does not decide them. Paths
are left out: what lies at a path shows in the weights, and moving it must not change a key.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import types
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import nn

from ..errors import FingerprintError
from .digest import canonical_json

_KEYED_ELSEWHERE = frozenset({"version", "layers", "image_size", "image_mean", "image_std"})
"""Attributes of the encoder itself that stand in the recipe by their own names, or do not decide a layer."""


class _Unknown(Exception):
    """A value of a kind that has no stable fingerprint."""


def module_state_digest(module: nn.Module, *, local_modules: frozenset[str]) -> str:
    """BLAKE3 over the module's tensors (name, dtype, shape, bytes) and settings, in sorted name order.

    `local_modules` are the names of the Python modules that are the user's own: an attribute of an unknown
    kind on one of their classes raises FingerprintError, because it may decide what is computed. On
    classes of installed libraries it is passed over: their public scalars and tensors say what differs.
    """
    hasher = blake3()
    for name, tensor in sorted(_named_tensors(module)):
        value = tensor.detach().to("cpu").contiguous()
        header = canonical_json([name, str(value.dtype), list(value.shape)])
        hasher.update(b"tensor\n" + header + b"\n")
        hasher.update(value.reshape(-1).view(torch.uint8).numpy().data)
    for path, submodule in sorted(module.named_modules()):
        kind = type(submodule)
        settings = _settings(path, submodule, strict=kind.__module__ in local_modules)
        hasher.update(b"module\n" + canonical_json([path, kind.__qualname__, settings]) + b"\n")
    return hasher.hexdigest()


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
    for path, submodule in module.named_modules():
        for name, value in vars(submodule).items():
            if isinstance(value, torch.Tensor):
                yield f"{path}.{name}" if path else name, value


def _settings(path: str, module: nn.Module, *, strict: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or name == "training" or isinstance(value, torch.Tensor):
            continue
        if not path and name in _KEYED_ELSEWHERE:
            continue
        try:
            found[name] = _plain(value)
        except _Unknown as unknown:
            if strict:
                where = f"{path}.{name}" if path else name
                raise FingerprintError(
                    f"the encoder's attribute {where!r} is {unknown}, which has no stable fingerprint; keep "
                    "numbers, strings, tensors or submodules there, start the name with '_' if it does not decide "
                    'the output, or set `version = "…"` on the module to name its version yourself'
                ) from None
    return found


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text


def _plain(value: Any) -> Any:
    """A JSON value that is equal for equal settings, or _Unknown."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return {"enum": f"{type(value).__qualname__}.{value.name}"}
    if isinstance(value, str):
        return "path" if _is_path(value) else value
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
        return _plain(value.item())
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise _Unknown("a numpy array of objects")
        digest = blake3(np.ascontiguousarray(value).tobytes()).hexdigest()
        return {"array": [str(value.dtype), list(value.shape), digest]}
    if isinstance(value, torch.Tensor):
        flat = value.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
        return {"tensor": [str(value.dtype), list(value.shape), blake3(flat.numpy().data).hexdigest()]}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted((_plain(item) for item in value), key=canonical_json)}
    if isinstance(value, dict):
        return {"dict": sorted(([_plain(k), _plain(v)] for k, v in value.items()), key=canonical_json)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"dataclass": [type(value).__qualname__, fields]}
    return _plain_callable(value)


def _plain_callable(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return "module"
    if isinstance(value, functools.partial):
        return {"partial": [_plain(value.func), _plain(value.args), _plain(value.keywords)]}
    if isinstance(value, types.FunctionType):
        if value.__closure__:
            raise _Unknown(f"the closure {value.__qualname__!r}")
        return {"function": f"{value.__qualname__}"}
    if isinstance(value, types.MethodType):
        return {"method": value.__qualname__}
    if isinstance(value, types.BuiltinFunctionType | type):
        return {"name": value.__qualname__}
    raise _Unknown(f"a {type(value).__module__}.{type(value).__qualname__}")
