"""The demo's first step: clips on disk, served on localhost, and manifests of them."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Any

from fovcache.console import human_bytes

from .clips import CLIPS, DIGITS, DIRECTIONS, write_clips, write_manifests
from .moving_digits import DIRECTIONS as MOVES
from .moving_digits import NUM_FRAMES, RATE, SIDE
from .server import HOST
from .setting import Setting


def write_inputs(setting: Setting, url: str) -> dict[str, Any]:
    """Write what is missing of the clips, which are at `url`, and their manifests. Raises OSError."""
    say, size = setting.say, setting.size
    say.heading("1. Clips")
    if (setting.folder / "cache").exists():
        say.text(f"{setting.folder} is there from an earlier run: what is whole in it is used again.")
    clips = write_clips(setting.folder / CLIPS, size.num_sources)
    write_manifests(setting.folder, url, size.num_sources)
    say.text(
        f"{clips.num_clips:,} H.264 clips of {SIDE} × {SIDE} pixels and {float(NUM_FRAMES / RATE):g} s, "
        f"{human_bytes(clips.size_bytes)}: each of {clips.num_sources} handwritten digits that come with scikit-learn, "
        f"moving in {len(MOVES)} directions. {clips.num_written:,} written, "
        f"{clips.num_clips - clips.num_written:,} already there. While this runs they are served at {url}."
    )
    say.text(
        f"{setting.path(DIGITS)} has a line uri,label,group for each: the label is the digit, and the group is the "
        "source digit, so that no split has the same handwriting on both sides. "
        f"{DIRECTIONS} lists the same clips with the direction as their label. Your own data can be such a manifest, a "
        "folder, tar shards or a list of URLs."
    )
    return {**asdict(clips), "url": url}


def say_how_to_serve(setting: Setting, url: str) -> None:
    """The server ends with the demo, and the commands above need it."""
    port = url.rpartition(":")[2]
    setting.say.text("To type these commands yourself, serve the clips again, in another terminal:")
    setting.say.text(f"python3 -m http.server {port} --bind {HOST} --directory {shlex.quote(setting.path(CLIPS))}")
