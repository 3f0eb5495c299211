"""What the model calls its inputs."""

from __future__ import annotations

FRAMES = "frames"
LATENTS = "latents"
CAPTIONS = "captions"
FRAME_LABELS = "frame_labels"
TEXT = "text"
