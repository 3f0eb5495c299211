"""`foveated`: the foveated video model, before it is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fovcache.errors import UsageError
from fovcache.keys.digest import Document
from fovcache.trainable import FEATURES, InputInfo, Need
from fovcache.trainable import TEXT as TEXT_KIND

from .names import CAPTIONS, FRAME_LABELS, FRAMES, LATENTS, TEXT
from .settings import CAPTION, DEEP, LABELS, RECONSTRUCTION, FoveatedSettings, read_settings
from .sizes import SIZES

if TYPE_CHECKING:
    from torch import nn

    from .attention import ShallowAttention
    from .deep_attention import DeepAttention
    from .language_model import LanguageModel
    from .module import FoveatedModel, Patches

DEFAULT_ENCODER = "dinov2-small"


def make(settings: Mapping[str, Any]) -> Foveated:
    """The model with `settings`, those of `FoveatedSettings`. Raises UsageError."""
    return Foveated(settings=read_settings(settings))


@dataclass(frozen=True, kw_only=True)
class Foveated:
    """A foveated model that is not built."""

    settings: FoveatedSettings
    """All of them."""

    @property
    def name(self) -> str:
        """The entry point's."""
        return "foveated"

    def document(self) -> Document:
        """All settings with defaults."""
        return {"name": self.name, **self.settings.document()}

    def needs(self) -> dict[str, Need]:
        """`frames`, and what the heads predict. Raises UsageError for an encoder whose layers are not known here."""
        settings = self.settings
        found = {FRAMES: Need(kind=FEATURES, what="the encoder's final tokens", pool="tokens")}
        if settings.attention == DEEP:
            from .deep_attention import encoder_model, layers_read

            model = encoder_model(settings.encoder or DEFAULT_ENCODER)
            what = "the hidden states that go into every block of the encoder"
            layers = layers_read(model)
            found[FRAMES] = Need(kind=FEATURES, what=what, layers=layers, encoder=model.name, pool="tokens")
        if RECONSTRUCTION in settings.heads:
            found[LATENTS] = Need(kind=FEATURES, what="the frames' VAE latents", encoder="vae-sd", pool="tokens")
        if CAPTION in settings.heads:
            found[CAPTIONS] = Need(kind=TEXT_KIND, what="the captions' token ids", encoder="tokens")
        if LABELS in settings.heads:
            found[FRAME_LABELS] = Need(kind=TEXT_KIND, what="a character for each frame, its class", encoder="bytes")
        if settings.text:
            found[TEXT] = Need(kind=TEXT_KIND, what="the token ids of the text before the frames", encoder="tokens")
        return found

    def frozen(self) -> dict[str, str]:
        """The encoder, and the VAE and the tokenizer where they are used."""
        needs = self.needs()
        candidates = {"encoder": FRAMES, "vae": LATENTS, "tokenizer": CAPTIONS if CAPTIONS in needs else TEXT}
        return {part: need for part, need in candidates.items() if need in needs}

    def build(self, inputs: Mapping[str, InputInfo], seed: int) -> FoveatedModel:
        """The module, float32 on the CPU. torch's generators are as before.

        Raises UsageError for inputs that do not fit, WeightsError for weights, EnvironmentFailure for the hub.
        """
        import torch

        from ..seeded_parameters import fill
        from .language_model import build_language_model
        from .module import FoveatedModel

        settings = self.settings
        info = inputs[FRAMES]
        num_frames, num_tokens, width = _frames_shape(info)
        language_model = build_language_model(settings.size, settings.language_size, settings.language_weights, seed)
        scale = settings.visual_scale
        with torch.random.fork_rng(devices=[]):  # modules draw first values, which are written over
            module = FoveatedModel(
                settings,
                width=width,
                num_frames=num_frames,
                patches=_patches(info, num_tokens),
                attention=self._attention(info, width),
                language_model=language_model,
                heads=self._heads(inputs, num_frames, language_model),
                visual_scale=float(language_model.table.detach().std()) if scale is None else scale,
            )
        fill(module, seed, deviations=module.deviations, without="language_model.")
        return module

    def _attention(self, info: InputInfo, width: int) -> ShallowAttention | DeepAttention:
        settings = self.settings
        if settings.attention == DEEP:
            from .deep_attention import encoder_model, load_deep_attention

            return load_deep_attention(encoder_model(settings.encoder or DEFAULT_ENCODER), info)
        from .attention import ShallowAttention

        return ShallowAttention(width, settings.attention_heads or SIZES[settings.size].attention_heads)

    def _heads(
        self, inputs: Mapping[str, InputInfo], num_frames: int, language_model: LanguageModel
    ) -> dict[str, nn.Module]:
        from .captions import check_tokenizer
        from .frame_labels import LabelsHead
        from .reconstruction import ReconstructionHead

        settings, width = self.settings, self.settings.language_size.width
        for name in (CAPTIONS, TEXT):
            if name in self.needs():
                check_tokenizer(name, inputs[name], language_model)
        found: dict[str, nn.Module] = {}
        if RECONSTRUCTION in settings.heads:
            channels = settings.reconstruction_channels or SIZES[settings.size].reconstruction_channels
            found[RECONSTRUCTION] = ReconstructionHead(width, channels, num_frames, inputs[LATENTS])
        if LABELS in settings.heads:
            assert settings.alphabet is not None
            found[LABELS] = LabelsHead(width, num_frames, settings.alphabet, inputs[FRAME_LABELS])
        return found


def _frames_shape(info: InputInfo) -> tuple[int, int, int]:
    if len(info.row_shape) != 3:
        raise UsageError(
            f"{FRAMES} are of shape {info.row_shape}, expected [frames, tokens, channels]: features of clips, built "
            "with --pool tokens"
        )
    num_frames, num_tokens, width = info.row_shape
    return num_frames, num_tokens, width


def _patches(info: InputInfo, num_tokens: int) -> Patches:
    """A square grid; one row where the patches are of no square."""
    from .module import Patches

    num_prefix = int(info.recipe.get("extractor", {}).get("tokens", {}).get("prefix", 0))
    num_patches = num_tokens - num_prefix
    if num_patches < 1:
        raise UsageError(f"{FRAMES} have {num_tokens} tokens a frame, {num_prefix} of them class and register tokens")
    side = math.isqrt(num_patches)
    rows, columns = (side, side) if side * side == num_patches else (1, num_patches)
    return Patches(num_prefix, rows, columns)
