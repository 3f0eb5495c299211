"""A named vision transformer as an extractor: layers `embed`, `blocks.i`, `norm`, and `pooler` where there is one.

The model is transformers' own, cut after the deepest block asked for: the blocks after it are neither loaded nor run.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fovcache.errors import WeightsError
from fovcache.extract.extractor import InputSpec, TokenLayout
from fovcache.extract.layers import select_layers
from fovcache.extract.precision import full_float32
from fovcache.keys.digest import Document

from .architecture import Architecture, Config, NamedModel
from .autocast import autocast
from .checkpoint import Checkpoint, open_checkpoint
from .preprocessing import check_sides, frame_input
from .quiet import quiet

VERSION = 1
"""Of what is done with the weights here; raised when a change here changes activations."""


@dataclass(frozen=True, kw_only=True)
class VisionTransformer:
    """A vision transformer that is known by its configuration; the model itself is made for a session."""

    model: NamedModel
    """Which."""
    checkpoint: Checkpoint
    """Its weights."""
    config: Config
    """Its configuration, all keys of the architecture's defaults."""

    @classmethod
    def open(cls, model: NamedModel, weights: str | None) -> VisionTransformer:
        """The named model with `weights`: `random:SEED`, a folder, a hub id, None for its own on the hub.

        Raises WeightsError, EnvironmentFailure.
        """
        checkpoint = open_checkpoint(
            weights, name=model.name, hub_id=model.hub_id, config=model.full_config(), with_processor=True
        )
        return cls(model=model, checkpoint=checkpoint, config=model.config_of(checkpoint))

    @property
    def name(self) -> str:
        """The entry point's name."""
        return self.model.name

    @property
    def processor(self) -> Config:
        """The configuration of the model's own image processor."""
        return {**self.model.architecture.processor(self.config), **(self.checkpoint.processor or {})}

    @functools.cached_property
    def input(self) -> InputSpec:
        """As the checkpoint's preprocessor_config.json says, else as published. Raises WeightsError."""
        patch, trained_size = self.config["patch_size"], self.config["image_size"]
        return frame_input(self.processor, patch=patch, trained_size=trained_size, label=self.checkpoint.label)

    @property
    def tokens(self) -> TokenLayout:
        """Class and register tokens come first; SigLIP has none."""
        return self.model.architecture.tokens(self.config)

    def identity(self) -> Document:
        """Name, weights, token layout. Builds no model."""
        tokens = self.tokens
        return {
            "name": self.name,
            "version": VERSION,
            "weights": self.checkpoint.identity(),
            "tokens": {"class": tokens.has_class_token, "prefix": tokens.num_prefix_tokens},
        }

    def layers(self) -> tuple[str, ...]:
        """`embed`, `blocks.0` …, `norm`, and SigLIP's `pooler`."""
        return self.model.architecture.layers(self.config)

    def default_layers(self) -> tuple[str, ...]:
        """The last block."""
        return (f"blocks.{self.config['num_hidden_layers'] - 1}",)

    def session(self, layers: Sequence[str], device: torch.device, compute_dtype: str) -> VisionSession:
        """The model on `device`, as deep as `layers` need it. Raises WeightsError, EncoderError."""
        autocast(device, compute_dtype)  # before anything is loaded
        wanted = select_layers(layers, self.layers())
        model = _build(self, wanted).to(device)
        return VisionSession(self, model, wanted, device, compute_dtype)


class VisionSession:
    """A model on a device, cut after the deepest of its layers."""

    def __init__(
        self,
        extractor: VisionTransformer,
        model: nn.Module,
        layers: Sequence[str],
        device: torch.device,
        compute_dtype: str,
    ) -> None:
        self._patch = int(extractor.config["patch_size"])
        self._trained_size = int(extractor.config["image_size"])
        self._device = device
        self._compute_dtype = compute_dtype
        self._model: nn.Module | None = model
        self._outputs: dict[str, torch.Tensor] = {}
        for layer in layers:
            _module_of(model, extractor.model.architecture, layer).register_forward_hook(self._keep(layer))

    def encode(self, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`{layer: [rows, tokens, channels]}`, `pooler` [rows, channels], of float32 [rows, 3, height, width].

        Raises EncoderError for frames that are no whole number of patches, torch.OutOfMemoryError.
        """
        assert self._model is not None, "the session is closed"
        options = self._position_options(*batch.shape[-2:])
        self._outputs = {}
        with (
            torch.inference_mode(),
            full_float32(self._device),
            autocast(self._device, self._compute_dtype),
        ):
            self._model(batch, **options)
        outputs, self._outputs = self._outputs, {}
        return outputs

    def close(self) -> None:
        """Let the model go."""
        self._model = None

    def _keep(self, layer: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            self._outputs[layer] = output[0] if isinstance(output, tuple) else output  # by transformers' version

        return keep

    def _position_options(self, height: int, width: int) -> dict[str, bool]:
        """At another size than it was trained at, its position embeddings are interpolated; some must be asked to."""
        check_sides(height, width, self._patch, self._trained_size)
        assert self._model is not None
        name = "interpolate_pos_encoding"
        must_be_asked = name in inspect.signature(self._model.forward).parameters
        return {name: True} if must_be_asked and not height == width == self._trained_size else {}


def _build(extractor: VisionTransformer, layers: Sequence[str]) -> nn.Module:
    """transformers' model in evaluation mode, its tensors in place, cut after the deepest of `layers`."""
    import transformers

    architecture, every = extractor.model.architecture, extractor.layers()
    needed = every[: every.index(layers[-1]) + 1]
    config = {**extractor.config, "num_hidden_layers": sum(layer.startswith("blocks.") for layer in needed)}
    if architecture.pooler is not None:
        config["vision_use_head"] = "pooler" in needed
    tensors = architecture.load(extractor.checkpoint, extractor.config, needed)
    for name, shape in architecture.state(config).items():
        tensors.setdefault(name, torch.zeros(shape))  # in the model whether needed or not: a mask token, the final norm
    kind = getattr(transformers, architecture.model_class)
    try:
        with quiet("transformers"), torch.random.fork_rng(devices=[]):  # some versions draw numbers, and drop them
            model, info = kind.from_pretrained(
                None,
                config=kind.config_class(**config),
                state_dict=tensors,
                dtype=torch.float32,
                attn_implementation="sdpa",
                output_loading_info=True,
                **architecture.model_options,
            )
    except (KeyError, TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise WeightsError(f"{extractor.checkpoint.label}: transformers cannot build the model: {said}") from error
    if strange := [f"{what} {sorted(map(str, names))[0]}" for what, names in info.items() if names]:
        raise WeightsError(
            f"{extractor.checkpoint.label}: transformers {transformers.__version__} loads {extractor.name} otherwise "
            f"than expected ({', '.join(strange)}); another version of it may help"
        )
    if "norm" not in needed:
        setattr(_core(model), architecture.norm, nn.Identity())
    built: nn.Module = model.eval().requires_grad_(False)
    return built


def _module_of(model: nn.Module, architecture: Architecture, layer: str) -> nn.Module:
    """The module whose output a layer is, wherever this version of transformers has it."""
    core = _core(model)
    if layer.startswith("blocks."):
        blocks = next(module for module in core.modules() if isinstance(module, nn.ModuleList))
        return blocks[int(layer.removeprefix("blocks."))]
    names = {"embed": "embeddings", "norm": architecture.norm, "pooler": architecture.pooler}
    return core.get_submodule(str(names[layer]))


def _core(model: nn.Module) -> nn.Module:
    """The module that has the embeddings, the blocks and the norm: in some versions one inside the model."""
    inner: nn.Module = getattr(model, "vision_model", model)
    return inner
