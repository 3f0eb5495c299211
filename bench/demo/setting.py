"""What the demo's steps share: the folder, the encoders, what was said so far."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fovcache
from fovcache.builder.encoders import ALL, Encoders
from fovcache.builder.progress import OnProgress
from fovcache.errors import UsageError

from ..profiler.commands import encoder_flags
from .moving_digits import NUM_SOURCES, SIDE
from .transcript import Transcript

VIT, VAE = "vit-tiny", "vae-tiny"
NUM_FRAMES = 4
"""Of a clip's frames, spread evenly over it, these are encoded."""
DATASET, MOVES = "digits", "moves"
"""The datasets' names: the same clips, labelled by digit and by direction."""

WriteReport = Callable[[Path], Path]
"""Makes the report of a folder; its path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSize:
    """How much of it is done."""

    num_sources: int = NUM_SOURCES
    """Source digits; four clips of each."""
    num_profiled: int = 40
    """Clips that each run of the profile is measured on."""
    is_verified: bool = True
    """Whether the profile's predictions are measured too."""
    num_seeds: int = 5
    """Splits that each cell of an ablation is run on."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A demo in a folder."""

    folder: Path
    """Where everything goes, as it is shown to people."""
    say: Transcript
    """What people are told."""
    on_progress: OnProgress
    """Told how far a step is."""
    size: DemoSize
    """How much is done."""

    @classmethod
    def at(cls, out: Path, say: Transcript, on_progress: OnProgress, size: DemoSize) -> Setting:
        """A demo in the folder `out`. Raises UsageError when that is a file."""
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out {out} is a file, expected a folder or a name that is free")
        return cls(folder=Path(os.path.relpath(out)), say=say, on_progress=on_progress, size=size)

    def path(self, name: str) -> str:
        """Something in the folder, as it is shown."""
        return str(self.folder / name)

    @cached_property
    def cache(self) -> fovcache.Cache:
        """The cache in the folder."""
        return fovcache.open(self.folder / "cache")

    @cached_property
    def frozen(self) -> Encoders:
        """The two named encoders."""
        return Encoders(
            encoders=(VIT, VAE),
            weights={ALL: "random:0"},
            layers={VIT: ("embed", "blocks.0", "blocks.5", "blocks.11")},
            pool={VIT: "tokens"},
            common={"size": SIDE, "frames": NUM_FRAMES},
        )

    def own(self, file: str) -> Encoders:
        """The user's own encoder, in a file of the folder."""
        return Encoders(
            encoders=(f"{self.path(file)}:make",),
            weights={ALL: "random:0"},
            layers={ALL: ("block*",)},
            pool={ALL: "mean"},
            common={"frames": NUM_FRAMES},
        )

    def write_json(self, name: str, document: Any) -> None:
        """What a command's `--json` writes, for the report. Raises OSError."""
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        (self.folder / name).write_text(text + "\n", encoding="utf-8")

    def command(self, *words: str, encoders: Encoders | None = None, vae: str = "", **options: str) -> None:
        """Show a command as it can be typed: its words, its encoders, its options."""
        flags = [word for name, value in options.items() for word in (f"--{name}", value)]
        if encoders is not None:
            names = (("--vae" if name == vae else "--encoder", name) for name in encoders.encoders)
            flags += [word for pair in names for word in pair]
            flags += encoder_flags(encoders, encoders.encoders)
        self.say.code(shlex.join([*words, *flags]))
