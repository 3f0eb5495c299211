"""Reading a LoRA's safetensors file strictly: every matrix of a template and nothing else, or why not.

Files come from anywhere. The header is checked before anything is read by it, names are shown cut and escaped, and no
tensor is passed over.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DamageError, SampleError
from ..store.safetensors_file import TensorInfo, parse_header
from .lora_alpha import default_alphas
from .lora_keys import ALPHA, LoraKey, component, lora_key
from .lora_template import LoraTemplate

READING = 1
"""Raised when the same file gives other numbers, or when what is refused changes."""

_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_READ = {**_FLOATS, "I64": "<i8", "I32": "<i4"}
_ITEM_BYTES = {
    **{dtype: int(numpy[-1]) for dtype, numpy in _READ.items()},
    **dict.fromkeys(("U64",), 8),
    **dict.fromkeys(("U32",), 4),
    **dict.fromkeys(("I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
_NO_PRODUCT = re.compile(r"dora_scale|lora_magnitude_vector|hada_w|lokr_w|lora_mid|oft_|\.diff")
_NUM_SHOWN = 3
_MOST_CHARACTERS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFile:
    """The header of a LoRA's file, sorted by what its tensors are."""

    tensors: Mapping[str, TensorInfo]
    """Every tensor by its name in the file."""
    metadata: Mapping[str, str]
    """The header's own texts."""
    parts: Mapping[LoraKey, str]
    """Names of factors and alphas, by module (as the file calls it, in dots) and part."""
    foreign: tuple[str, ...]
    """Tensors that are no part of a LoRA."""
    twice: tuple[str, ...]
    """Tensors that say again what another one says."""


def open_lora(data: bytes) -> LoraFile:
    """Read the header. Raises SampleError for bytes that are no safetensors file."""
    try:
        tensors, metadata = parse_header(data, len(data), "the file", _ITEM_BYTES)
    except DamageError as error:
        raise _failure(f"{error}; expected a safetensors file") from error
    parts: dict[LoraKey, str] = {}
    foreign, twice = [], []
    for name in tensors:
        key = lora_key(name)
        if key is None:
            foreign.append(name)
        elif key in parts:
            twice.append(name)
        else:
            parts[key] = name
    return LoraFile(tensors=tensors, metadata=metadata, parts=parts, foreign=tuple(foreign), twice=tuple(twice))


def read_lora(data: bytes, template: LoraTemplate, encoder: str) -> np.ndarray:
    """float32 [rank · scalars_per_rank + modules]: the factors in the template's order, then each module's alpha.

    float16, bfloat16 and float32 are kept exactly, float64 is rounded. Where the file has no alpha it is the rank, so
    that ΔW is up · down. Raises SampleError that names what does not fit the template.
    """
    file = open_lora(data)
    parts = _fitted(file, template, encoder)
    rank = _rank(file, parts, template, encoder)
    factors = template.factors
    row = np.empty(rank * template.scalars_per_rank + len(template.modules), np.float32)
    begin = 0
    with np.errstate(over="ignore"):  # what becomes infinite is named below
        for key in factors:
            size = rank * template.size(key)
            row[begin : begin + size] = _numbers(data, file.tensors[parts[key]])
            begin += size
        row[begin:] = _alphas(data, file, parts, template, rank)
    if not np.isfinite(row).all():
        _refuse_what_is_not_finite(data, file, parts, row[begin:], template)
    return row


def _fitted(file: LoraFile, template: LoraTemplate, encoder: str) -> dict[LoraKey, str]:
    """The file's tensors by the template's names. Raises SampleError unless they are those of the template."""
    parts: dict[LoraKey, str] = {}
    unknown, twice = list(file.foreign), list(file.twice)
    texts: list[str] = []
    for key, name in file.parts.items():
        module = template.find(key.module)
        own = LoraKey(module=module or key.module, part=key.part)
        if module is None:
            (texts if component(key.module) else unknown).append(name)
        elif own in parts:
            twice.append(name)
        else:
            parts[own] = name
    missing = [f"{key.module} ({key.part})" for key in template.factors if key not in parts]
    used = [name for key, name in parts.items() if key.part != ALPHA]
    no_floats = [f"{_shown(name)} ({file.tensors[name].dtype})" for name in used if not _is_float(file, name)]
    problems = {
        "matrices are missing": missing,
        f"tensors are of a text encoder, of which {encoder!r} has no matrix": list(map(_shown, texts)),
        "tensors are none of its matrices": list(map(_shown, unknown)),
        "tensors say the same matrix again": list(map(_shown, twice)),
        "tensors are not of float64, float32, float16 or bfloat16": no_floats,
    }
    if said := "; ".join(f"{len(names)} {what}: {_few(names)}" for what, names in problems.items() if names):
        raise _failure(f"{said}. {_expected(template, encoder)}{_way_out(file, unknown, texts, encoder)}")
    return parts


def _is_float(file: LoraFile, name: str) -> bool:
    return file.tensors[name].dtype in _FLOATS


def _expected(template: LoraTemplate, encoder: str) -> str:
    num = len(template.modules)
    return (
        f"{encoder!r} expects down and up of {num} modules, {2 * num} matrices, such as {next(iter(template.modules))}"
    )


def _way_out(file: LoraFile, unknown: Sequence[str], texts: Sequence[str], encoder: str) -> str:
    if any(_NO_PRODUCT.search(name) for name in unknown):
        return "; DoRA, LoHa, LoKr and the like are no products of two factors, and are not read"
    if not any(key.part != ALPHA for key in file.parts):
        return "; nothing in the file is a LoRA's factor: a whole checkpoint is not read"
    if texts or unknown or encoder != "lora":
        return "; for LoRAs of other modules use --encoder lora --weights FILE.safetensors, one of them as the template"
    return "; all files of a data set need the modules of the template"


def _rank(file: LoraFile, parts: Mapping[LoraKey, str], template: LoraTemplate, encoder: str) -> int:
    """The one rank of all factors. Raises SampleError."""
    ranks: dict[int, list[str]] = {}
    misshapen = []
    for key in template.factors:
        shape = file.tensors[parts[key]].shape
        rank = template.rank_of(key, shape)
        if rank is None:
            expected = ", ".join("rank" if size == -1 else str(size) for size in template.shape(key, -1))
            misshapen.append(f"{_shown(parts[key])} ({list(shape)}, expected [{expected}])")
        else:
            ranks.setdefault(rank, []).append(parts[key])
    if misshapen:
        raise _failure(
            f"{len(misshapen)} matrices are of another shape: {_few(misshapen)}. {_expected(template, encoder)}; a "
            "LoRA of another model needs a template of its own: --encoder lora --weights FILE.safetensors"
        )
    if len(ranks) > 1:
        shown = ", ".join(
            f"{len(names)} of rank {rank} (such as {_shown(names[0])})" for rank, names in sorted(ranks.items())
        )
        raise _failure(f"the matrices are of {len(ranks)} ranks: {shown}; expected one rank in a file")
    return next(iter(ranks))


def _alphas(
    data: bytes, file: LoraFile, parts: Mapping[LoraKey, str], template: LoraTemplate, rank: int
) -> list[float]:
    """By module: its tensor's, else what the metadata say, else the rank. Raises SampleError."""
    found = default_alphas(file.metadata, template.modules, rank)
    for at, module in enumerate(template.modules):
        name = parts.get(LoraKey(module=module, part=ALPHA))
        if name is None:
            continue
        info = file.tensors[name]
        if info.dtype not in _READ or np.prod(info.shape) != 1:
            raise _failure(f"{_shown(name)} is {list(info.shape)} of {info.dtype}; an alpha is one number")
        found[at] = float(_numbers(data, info)[0])
    return found


def _numbers(data: bytes, info: TensorInfo) -> np.ndarray:
    """The tensor's numbers, flat."""
    count = info.size_bytes // _ITEM_BYTES[info.dtype]
    values = np.frombuffer(data, _READ[info.dtype], count, info.offset)
    return (values.astype(np.uint32) << 16).view(np.float32) if info.dtype == "BF16" else values


def _refuse_what_is_not_finite(
    data: bytes, file: LoraFile, parts: Mapping[LoraKey, str], alphas: np.ndarray, template: LoraTemplate
) -> None:
    bad = []
    for key in template.factors:
        values = _numbers(data, file.tensors[parts[key]])
        with np.errstate(over="ignore"):
            kept = values.astype(np.float32)
        kinds = {"NaN": np.isnan(values), "infinite": np.isinf(values)}
        kinds["too large for float32"] = np.isinf(kept) & ~np.isinf(values)
        counts = Counter({kind: int(mask.sum()) for kind, mask in kinds.items()})
        bad += [f"{_shown(parts[key])} ({num} {kind})" for kind, num in counts.items() if num]
    bad += [f"{name}'s alpha" for name, alpha in zip(template.modules, alphas, strict=True) if not np.isfinite(alpha)]
    raise _failure(f"{len(bad)} matrices hold numbers that are not finite: {_few(bad)}; its training has diverged")


def _failure(reason: str) -> SampleError:
    return SampleError("decode", reason, permanent=True)


def _shown(name: str) -> str:
    """A tensor's name as it can be printed: it is whatever the file says."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "…"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_NUM_SHOWN]) + (f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else "")
