"""Made clips as lossless videos in tar shards, each with its labels as a caption beside it."""

from __future__ import annotations

import io
import json
import tarfile
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from fovcache.builder.progress import OnProgress, Progress, silent
from fovcache.errors import UsageError, environment_failure

from .clips import NUM_FRAMES, SIDE, TASKS, CueClips, draw_clips, frames_of

MADE = "made_cues.json"
"""What the files are of; written last, so that a folder that has it is whole."""
SPLITS = ("train", "validation")
FURTHER = ("encoder.py", "cue.toml")
"""What lies beside the clips: the encoder, and the configuration of `fovbench train`."""
SHARD_CLIPS = 2_000
RATE = Fraction(NUM_FRAMES)
"""Frames a second: a clip lasts one."""
VERSION = 1
"""Of what is drawn and how it is written; raised when that changes."""


def write_cues(
    folder: Path, *, num_train: int, num_validation: int, seed: int = 0, on_progress: OnProgress = silent
) -> None:
    """Write `TASK/SPLIT-NNNN.tar` with `SPLIT-NNNNNN.mkv` and `.txt` for both tasks, and FURTHER.

    The same bytes for the same numbers, seed and version of FFmpeg; a folder that is whole is left alone. Raises
    UsageError for one that holds something else, EnvironmentFailure where it cannot be written.
    """
    numbers = dict(zip(SPLITS, (num_train, num_validation), strict=True))
    for split, num in numbers.items():
        if num < 1:
            raise UsageError(f"{num} clips of {split} were asked for, expected at least 1")
    made = json.dumps({"version": VERSION, "seed": seed, **numbers}, indent=2) + "\n"
    total, done = len(TASKS) * sum(numbers.values()), 0
    try:
        if _is_whole(folder, made):
            return
        for task in TASKS:
            (folder / task).mkdir(parents=True, exist_ok=True)
            for number, (split, num) in enumerate(numbers.items()):
                clips = draw_clips(task, num, seed, number)
                for first in range(0, num, SHARD_CLIPS):
                    end = min(first + SHARD_CLIPS, num)
                    _write_shard(folder / task / f"{split}-{first // SHARD_CLIPS:04d}.tar", clips, split, first, end)
                    done += end - first
                    on_progress(Progress(stage="write", done=done, total=total))
        for name in FURTHER:
            _replace(folder / name, (files(__package__) / name).read_bytes())
        _replace(folder / MADE, made.encode())
    except OSError as error:
        raise environment_failure(error, f"write {folder}") from error


def encode(frames_tyx3: np.ndarray) -> bytes:
    """A clip as FFV1 in Matroska: every pixel comes back as it was."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="matroska", container_options={"fflags": "+bitexact"}) as container:
        # Level 1 has no slices and no checksums: a quarter faster both ways on frames this small.
        stream: Any = container.add_stream("ffv1", rate=RATE, options={"level": "1", "flags": "+bitexact"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "bgr0"
        stream.codec_context.thread_count = 1
        for number, picture in enumerate(frames_tyx3):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = number, 1 / RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _is_whole(folder: Path, made: str) -> bool:
    """Raises UsageError for a folder with other clips, or that is not empty and has none."""
    marker = folder / MADE
    if marker.is_file():
        if marker.read_text() != made:
            raise UsageError(f"{folder} holds other made clips, which {marker} describes: choose another folder")
        return True
    strange = [path.name for path in sorted(folder.glob("*")) if path.name not in (*TASKS, *FURTHER)]
    if strange:
        raise UsageError(f"{folder} holds {strange[0]!r}, and no clips that were made here: choose another folder")
    return False


def _write_shard(path: Path, clips: CueClips, split: str, first: int, end: int) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for number in range(first, end):
            video = encode(frames_of(clips.symbols_ntc[number], clips.marks_nt[number]))
            for suffix, content in (("mkv", video), ("txt", clips.captions[number].encode())):
                member = tarfile.TarInfo(f"{split}-{number:06d}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    _replace(path, data.getvalue())


def _replace(path: Path, data: bytes) -> None:
    """A file that is there is whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
