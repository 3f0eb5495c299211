"""Named tensors of any dtype as a safetensors file, those that share memory once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from fovcache.errors import DamageError, UsageError
from fovcache.store.safetensors_file import file_parts
from fovcache.store.shard import tensor_bytes

_SHARED = "shared"
_DTYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def tensor_file(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> list[bytes | memoryview]:
    """The parts of a file. Tied tensors are written under the first of their names, and the others refer to it.

    Tensors of the CPU are not copied. Raises UsageError for what is no tensor or of a dtype that has no name.
    """
    written: dict[str, tuple[str, tuple[int, ...], memoryview]] = {}
    first: dict[tuple[object, ...], str] = {}
    shared: dict[str, str] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or tensor.dtype not in _DTYPES:
            kind = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise UsageError(
                f"{name} is of {kind}, which a checkpoint cannot hold; expected {', '.join(map(str, _DTYPES))}"
            )
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and first.setdefault(place, name) != name:
            shared[name] = first[place]
        else:
            plain = tensor.detach().to("cpu").contiguous()
            written[name] = (_DTYPES[tensor.dtype], tuple(tensor.shape), tensor_bytes(plain))
    return file_parts(written, {**(metadata or {}), _SHARED: json.dumps(shared)})


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """`(tensors, metadata)` of such a file; tied tensors are one object. Raises DamageError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        for name, of in json.loads(metadata.pop(_SHARED)).items():
            tensors[name] = tensors[of]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DamageError(f"{path} is damaged: {error}") from error
    return tensors, metadata
