"""What a named vision transformer is: its configuration, and its tensors' canonical names and shapes.

Canonical names are those of the model's checkpoint on the hub. They stay, whatever a version of transformers calls
its modules, so that seeded weights and errors do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fovcache.errors import WeightsError
from fovcache.extract.extractor import TokenLayout

from .checkpoint import Checkpoint, Shape

if TYPE_CHECKING:
    import torch

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A family of vision transformers, as transformers knows it."""

    model_type: str
    """`model_type` of its config.json."""
    whole_type: str | None = None
    """`model_type` of a larger model whose `vision_config` and tensors may hold it."""
    model_class: str
    """Its class in transformers; the configuration's is that model's `config_class`."""
    model_options: Config
    """Further arguments of the class."""
    defaults: Config
    """What config.json may leave out, and all of it that is read."""
    sizes: tuple[str, ...]
    """The keys of `defaults` that a name stands for."""
    shapes: Callable[[Config], dict[str, Shape]]
    """The canonical state dict of a configuration, name → shape, without `prefix`."""
    prefix: str = ""
    """What the canonical names begin with. The names below are without it."""
    patches: str
    """The patch projection's weight, which every checkpoint has."""
    blocks: str
    """What the blocks' names begin with, before their number."""
    norm: str
    """What the final norm's names begin with."""
    pooler: str | None = None
    """What the pooling head's names begin with, None where it has none."""
    unused: tuple[str, ...] = ()
    """Tensors that may be there or not, and decide nothing."""
    embeddings: tuple[str, ...] = ()
    """Tensors that seeded weights fill as embeddings, where the name does not say so."""
    has_class_token: bool
    """Whether token 0 is a class token."""
    processor: Callable[[Config], Config]
    """preprocessor_config.json as published for a configuration: for seeded weights, and what a folder's leaves out."""

    def layers(self, config: Config) -> tuple[str, ...]:
        """`embed`, `blocks.i`, `norm`, and `pooler` where there is one: in the order in which they run."""
        blocks = [f"blocks.{number}" for number in range(config["num_hidden_layers"])]
        return ("embed", *blocks, "norm", *(["pooler"] if config.get("vision_use_head") else []))

    def parts(self, layers: Sequence[str]) -> tuple[str, ...]:
        """What the canonical names of these layers' own tensors begin with."""
        prefixes = {"embed": "embeddings", "norm": self.norm, "pooler": self.pooler}
        names = [f"{self.blocks}{layer[7:]}" if layer.startswith("blocks.") else prefixes[layer] for layer in layers]
        return tuple(f"{self.prefix}{name}." for name in names)

    def tokens(self, config: Config) -> TokenLayout:
        """Where class and register tokens are."""
        num_prefix = int(self.has_class_token) + config.get("num_register_tokens", 0)
        return TokenLayout(has_class_token=self.has_class_token, num_prefix_tokens=num_prefix)

    def state(self, config: Config) -> dict[str, Shape]:
        """The canonical state dict: name → shape."""
        return {f"{self.prefix}{name}": shape for name, shape in self.shapes(config).items()}

    def load(self, checkpoint: Checkpoint, config: Config, layers: Sequence[str]) -> dict[str, torch.Tensor]:
        """`{canonical name: float32 tensor}` of what these layers have. Raises WeightsError."""
        return checkpoint.load(
            self.state(config),
            parts=self.parts(layers),
            unused=[f"{self.prefix}{name}" for name in self.unused],
            embeddings=[f"{self.prefix}{name}" for name in self.embeddings],
            rename=self._canonical(checkpoint.headers),
        )

    def _canonical(self, names: Iterable[str]) -> Callable[[str], str]:
        """What makes canonical names of a folder's: a larger model there puts something else before them."""
        anchors = [name for name in names if name == self.patches or name.endswith(f".{self.patches}")]
        before = min(anchors, key=len, default=self.patches).removesuffix(self.patches)
        return lambda name: f"{self.prefix}{name[len(before) :]}" if name.startswith(before) else f"other: {name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedModel:
    """One size of an architecture, under the name that users select it by."""

    name: str
    """The encoder's name."""
    architecture: Architecture
    """Its family."""
    hub_id: str | None
    """Its weights on the hub; None where there are none."""
    config: Config
    """Its configuration: keys of the architecture's defaults."""

    def full_config(self) -> dict[str, Any]:
        """The configuration with the architecture's defaults and its `model_type`."""
        return {"model_type": self.architecture.model_type, **self.architecture.defaults, **self.config}

    def config_of(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The checkpoint's configuration, which must be of this model's size. Raises WeightsError."""
        if checkpoint.seed is not None:
            return self.full_config()
        found = read_config(checkpoint, self.architecture)
        if found is None:
            what = f"a {checkpoint.config.get('model_type', 'model without a model_type')}"
            raise WeightsError(
                f"{checkpoint.label} hold {what}, and the encoder {self.name!r} is a {self.architecture.model_type}"
                f"{_fitting(checkpoint)}"
            )
        mine = self.full_config()
        unlike = [key for key in self.architecture.sizes if found[key] != mine[key]]
        if unlike:
            said = ", ".join(f"{key} {found[key]} (not {mine[key]})" for key in unlike)
            raise WeightsError(
                f"{checkpoint.label} hold another size of {self.architecture.model_type} than the encoder "
                f"{self.name!r}: {said}{_fitting(checkpoint)}"
            )
        return found


def read_config(checkpoint: Checkpoint, architecture: Architecture) -> dict[str, Any] | None:
    """The part of config.json that is read, defaults filled in; None for another architecture. Raises WeightsError."""
    config = checkpoint.config
    if architecture.whole_type is not None and config.get("model_type") == architecture.whole_type:
        config = config.get("vision_config") or {}
    elif config.get("model_type") != architecture.model_type:
        return None
    found = {key: config.get(key, value) for key, value in architecture.defaults.items()}
    size = found["image_size"]
    if isinstance(size, list) and len(set(map(str, size))) == 1:
        found["image_size"] = size[0]
    for key, value in found.items():
        expected = architecture.defaults[key]
        kind = (int, float) if isinstance(expected, float) else type(expected)
        if not isinstance(value, kind) or isinstance(value, bool) != isinstance(expected, bool):
            raise WeightsError(f"{checkpoint.label}: config.json has {key} {value!r}, expected one like {expected!r}")
    if not 1 <= found["patch_size"] <= found["image_size"]:
        raise WeightsError(
            f"{checkpoint.label}: config.json has patch_size {found['patch_size']} and image_size "
            f"{found['image_size']}, expected an image of at least one patch"
        )
    return found


def _fitting(checkpoint: Checkpoint) -> str:
    """Which names a checkpoint would fit, for an error."""
    from .dinov2 import DINOV2_MODELS
    from .siglip import SIGLIP_MODELS
    from .vit import VIT_MODELS

    fitting = []
    for model in [*DINOV2_MODELS, *SIGLIP_MODELS, *VIT_MODELS]:
        found = read_config(checkpoint, model.architecture)
        full = model.full_config()
        if found is not None and all(found[key] == full[key] for key in model.architecture.sizes):
            fitting.append(model.name)
    if fitting:
        return f"; they fit {' or '.join(fitting)}"
    return "; no encoder here is like them: give one of your own as PATH.py:FACTORY"


def with_bias(name: str, *shape: int) -> dict[str, Shape]:
    """A weight, and its bias of as many numbers as the weight has rows."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
