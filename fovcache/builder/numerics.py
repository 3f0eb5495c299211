"""The numerics id: what beside the recipe can move a feature's last bits."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from ..keys.digest import Document

if TYPE_CHECKING:
    import torch


def numerics_id(device: torch.device, software: Document) -> Document:
    """Torch minor version, device, matmul precision, attention backend, and the decoder's major version."""
    import torch

    return {
        "decoder": decoder_id(software),
        "torch": ".".join(torch.__version__.split("+")[0].split(".")[:2]),
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "attention": _attention_backends(device),
    }


def decoder_id(software: Document) -> str:
    """What decodes, and its major version: all that whole numbers depend on beside the recipe."""
    version = str(software.get("version", ""))
    return f"{software.get('name', '')} {version.partition('.')[0]}".strip()


def _attention_backends(device: torch.device) -> str:
    import torch

    if device.type != "cuda":
        return "default"
    backends = torch.backends.cuda
    enabled = {
        "flash": backends.flash_sdp_enabled(),
        "efficient": backends.mem_efficient_sdp_enabled(),
        "math": backends.math_sdp_enabled(),
        "cudnn": backends.cudnn_sdp_enabled(),
    }
    return "+".join(name for name, on in enabled.items() if on)
