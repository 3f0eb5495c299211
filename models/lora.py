"""LoRAs as samples: `lora-sd15` for Stable Diffusion 1.5, and `lora` for LoRAs of any model by a file as the template.

Layers are the named matrices, `MODULE.lora.down.weight` [rank, inputs] and `MODULE.lora.up.weight` [outputs, rank], and
`MODULE.delta`, numbers of their product. A factor's row holds the file's numbers exactly where it is stored as fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fovcache.errors import EncoderError, SampleError, WeightsError, environment_failure
from fovcache.extract.extractor import TokenLayout
from fovcache.extract.layers import layer_order
from fovcache.extract.lora_file import LoraFile, open_lora
from fovcache.extract.lora_keys import ALPHA, DOWN, UP, LoraKey
from fovcache.extract.lora_template import LoraTemplate, Shape
from fovcache.extract.matrices import MatrixInput
from fovcache.keys.digest import Document

from .lora_delta import delta_document, delta_numbers, sketches
from .lora_shapes import MODULES

if TYPE_CHECKING:
    import torch

_VERSION = 1
_DELTA = ".delta"


class Lora:
    """The matrices of LoRAs that adapt the modules of a template."""

    tokens = TokenLayout()
    default_pool = "tokens"

    def __init__(self, name: str, template: LoraTemplate, *, is_given: bool) -> None:
        """`is_given` says that the template is a user's file."""
        self.name = name
        self._template = template
        self._is_given = is_given

    @property
    def input(self) -> MatrixInput:
        """Safetensors files with the modules of the template."""
        return MatrixInput(template=self._template, encoder=self.name)

    def identity(self) -> Document:
        """Its name, its version and the delta's rule; of a user's template the digest of names and shapes."""
        weights = {"weights": {"digest": self._template.digest}} if self._is_given else {}
        return {"name": self.name, "version": _VERSION, "delta": delta_document(), **weights}

    def layers(self) -> tuple[str, ...]:
        """Every factor, then every product."""
        return (*self.default_layers(), *(f"{module}{_DELTA}" for module in self._template.modules))

    def default_layers(self) -> tuple[str, ...]:
        """Every factor."""
        return tuple(_layer(key) for key in self._template.factors)

    def session(self, layers: Sequence[str], device: torch.device, compute_dtype: str) -> LoraSession:
        """A session that computes `layers`. Raises EncoderError for a compute dtype other than float32."""
        if compute_dtype != "float32":
            raise EncoderError(
                f"compute dtype {compute_dtype!r}: {self.name} copies float32 and computes in float64; leave "
                "--compute-dtype out"
            )
        return LoraSession(self._template, layers, device)


class LoraSession:
    """Cuts the layers out of what was read, and computes products where they are asked for."""

    def __init__(self, template: LoraTemplate, layers: Sequence[str], device: torch.device) -> None:
        self._template = template
        self._layers = tuple(layers)
        self._begins: dict[LoraKey, int] = {}
        begin = 0
        for key in template.factors:
            self._begins[key] = begin
            begin += template.size(key)
        self._factors = {_layer(key): key for key in self._begins}
        self._at = {module: at for at, module in enumerate(template.modules)}
        # MPS has no float64.
        self._device = device if device.type != "mps" else "cpu"
        products = [layer.removesuffix(_DELTA) for layer in self._layers if layer not in self._factors]
        self._sketches = {}
        for module in products:
            left, right = sketches(module, *template.matrices[module])
            self._sketches[module] = left.to(self._device), right.to(self._device)

    def encode(self, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`{layer: [n, rank, inputs], [n, outputs, rank] or [n, numbers]}` of float32 [n, F]."""
        return {
            layer: self._factor(batch, self._factors[layer])
            if layer in self._factors
            else self._product(batch, layer.removesuffix(_DELTA))
            for layer in self._layers
        }

    def _rank(self, batch: torch.Tensor) -> int:
        return (batch.shape[1] - len(self._at)) // self._template.scalars_per_rank

    def _factor(self, batch: torch.Tensor, key: LoraKey) -> torch.Tensor:
        """A view of the batch."""
        rank, size = self._rank(batch), self._template.size(key)
        begin = rank * self._begins[key]
        rows, columns = (rank, size) if key.part == DOWN else (size, rank)
        return batch[:, begin : begin + rank * size].view(len(batch), rows, columns)

    def _product(self, batch: torch.Tensor, module: str) -> torch.Tensor:
        import torch

        up, down = (
            self._factor(batch, LoraKey(module=module, part=part)).to(self._device, torch.float64)
            for part in (UP, DOWN)
        )
        alpha = batch[:, self._template.scalars_per_rank * self._rank(batch) + self._at[module]]
        scale = alpha.to(self._device, torch.float64) / self._rank(batch)
        numbers = delta_numbers(up, down, scale, self._sketches[module])
        return numbers.to(batch.device, torch.float32)


def sd15(weights: str | None) -> Lora:
    """`lora-sd15`: `to_q` and `to_v` of every transformer block of Stable Diffusion 1.5's U-Net, 128 matrices.

    Raises WeightsError when weights are given: it has none.
    """
    if weights is not None:
        raise WeightsError(
            f"weights {weights!r} were given, and the encoder 'lora-sd15' has none; for a template of your own take "
            "--encoder lora"
        )
    return Lora("lora-sd15", LoraTemplate(modules=MODULES), is_given=False)


def by_template(weights: str | None) -> Lora:
    """`lora`: the modules of a safetensors file of the user's. Raises WeightsError, EnvironmentFailure."""
    if weights is None or not weights.endswith(".safetensors"):
        given = "" if weights is None else f", not {weights!r}"
        raise WeightsError(
            "the encoder 'lora' takes its matrices' names and shapes from a LoRA of yours: give --weights "
            f"FILE.safetensors{given}"
        )
    return Lora("lora", _template_of(Path(weights)), is_given=True)


def _template_of(path: Path) -> LoraTemplate:
    """Names and shapes of a file, without its rank. Raises WeightsError."""
    try:
        file = open_lora(path.read_bytes())
    except FileNotFoundError as error:
        raise WeightsError(f"weights {path} do not exist; expected a LoRA's .safetensors file") from error
    except OSError as error:
        raise environment_failure(error, f"read weights {path}") from error
    except SampleError as error:
        raise WeightsError(f"weights {path} are no template: {error.reason}") from error
    if odd := [*file.foreign, *file.twice]:
        raise WeightsError(
            f"weights {path} are no template: {len(odd)} of {len(file.tensors)} tensors are no factors of a LoRA, or "
            f"are there twice, such as {ascii(odd[0])[:120]}"
        )
    modules: dict[str, Shape] = {}
    for module in sorted({key.module for key in file.parts if key.part != ALPHA}, key=layer_order):
        modules[module] = _weight_shape(module, file, path)
    if not modules:
        raise WeightsError(f"weights {path} are no template: they hold no factor of a LoRA")
    return LoraTemplate(modules=modules)


def _weight_shape(module: str, file: LoraFile, path: Path) -> Shape:
    """Of the adapted weight: the outputs of `up`, and of `down` all but the rank. Raises WeightsError."""
    names = (file.parts.get(LoraKey(module=module, part=part)) for part in (UP, DOWN))
    up, down = ((file.tensors[name].shape if name is not None else ()) for name in names)
    is_pair = len(up) == len(down) >= 2 and up[1] == down[0] and all(size == 1 for size in up[2:])
    if not is_pair or 0 in (*up, *down):
        raise WeightsError(
            f"weights {path} are no template: module {module} has down {list(down)} and up {list(up)}; expected "
            "[rank, inputs, …] and [outputs, rank, …]"
        )
    return (up[0], *down[1:])


def _layer(key: LoraKey) -> str:
    return f"{key.module}.lora.{key.part}.weight"
