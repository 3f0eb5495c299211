"""The demo: profile, build, ablate, report, on clips that it makes, and what each step's numbers mean.

Everything is done in this process by the library; the commands shown do the same when they are typed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from fovcache.builder.progress import OnProgress
from fovcache.console import Output, human_bytes, human_seconds
from fovcache.maintain.verify import VerifyReport, verify

from .ablation_step import ablate_digits, ablate_moves
from .build_step import build_all
from .clips import CLIPS, port_of
from .inputs_step import say_how_to_serve, write_inputs
from .own_encoder_step import build_own, write_examples
from .profile_step import profile
from .server import PORT, served
from .setting import DemoSize, Setting, WriteReport
from .transcript import Transcript

TRANSCRIPT = "transcript.md"
"""The file's name: what was said."""


def run_demo(
    out: Path, output: Output, on_progress: OnProgress, write_report: WriteReport, *, size: DemoSize | None = None
) -> dict[str, Any]:
    """Run the demo in the folder `out`; what it came to, as `--json` writes it, with the report's path as `report`.

    `status` is 0, or 1 when a clip or a trial failed or damage was found. Raises UsageError when something of the
    user's is in the way, EnvironmentFailure when the machine fails.
    """
    setting = Setting.at(out, Transcript(output), on_progress, size or DemoSize())
    started = time.perf_counter()
    clips = setting.folder / CLIPS
    clips.mkdir(parents=True, exist_ok=True)
    write_examples(setting.folder)
    with served(clips, port_of(setting.folder) or PORT) as url:
        inputs = write_inputs(setting, url)
        profiled = profile(setting)
        builds = build_all(setting)
        own, explained = build_own(setting)
    digits, moves = (ablate(setting, own.recipes[0]) for ablate in (ablate_digits, ablate_moves))
    verified = _verify(setting)
    report = _report(setting, write_report)
    seconds = time.perf_counter() - started
    setting.say.text(f"All of it took {human_seconds(seconds)}.")
    say_how_to_serve(setting, url)
    setting.say.text(f"What was said here is also in {setting.path(TRANSCRIPT)}. The report:")
    (setting.folder / TRANSCRIPT).write_text(setting.say.markdown("fovbench demo"))
    parts: list[Any] = [profiled, *builds.values(), own, digits, moves, verified]
    return {
        "clips": inputs,
        "profile": profiled.document(),
        **{name: report.document() for name, report in builds.items()},
        "own": own.document(),
        "explain": explained,
        "ablation": digits.document(),
        "moves": moves.document(),
        "verify": verified.document(),
        "seconds": seconds,
        "status": max(part.exit_status for part in parts),
        "report": str(report),
    }


def _report(setting: Setting, write_report: WriteReport) -> Path:
    setting.say.heading("9. Report")
    setting.command("fovbench", "report", str(setting.folder))
    setting.say.text(
        "One HTML file that needs nothing else: where the time goes, what the cache holds and where it comes from, "
        "both ablations."
    )
    return Path(os.path.relpath(write_report(setting.folder)))


def _verify(setting: Setting) -> VerifyReport:
    say = setting.say
    say.heading("8. Is it whole?")
    setting.command("fovcache", "verify", cache=setting.path("cache"))
    report = verify(setting.cache.storage, setting.on_progress)
    say.text(
        f"{report.files} files, {human_bytes(report.size_bytes)} of shards, every byte compared with its digest: "
        f"{len(report.damaged)} damaged."
    )
    return report
