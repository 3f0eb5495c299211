"""The demo's profile: where the time of training on its clips goes."""

from __future__ import annotations

from collections.abc import Iterator

from fovcache.errors import EnvironmentFailure

from ..profiler.advice import doubts
from ..profiler.frozen import ProfileRequest
from ..profiler.result import Profile
from ..profiler.run import Extras, run_profile
from ..profiler.tables import run_table, stage_table, what_if_table
from .clips import DIGITS
from .setting import VAE, Setting

PROFILE = "profile.json"
"""The file's name, where the report looks for it."""


def profile(setting: Setting) -> Profile:
    """Profile training on the clips, and measure what it predicts. Raises EnvironmentFailure when it ends early."""
    say = setting.say
    say.heading("2. Where does the time go?")
    setting.command(
        "fovbench",
        "profile",
        setting.path(DIGITS),
        *(["--verify"] if setting.size.is_verified else []),
        encoders=setting.frozen,
        vae=VAE,
        samples=str(setting.size.num_profiled),
        json=setting.path(PROFILE),
    )
    request = ProfileRequest(
        sources=(setting.path(DIGITS),),
        encoders=setting.frozen,
        vaes=frozenset([VAE]),
        num_samples=setting.size.num_profiled,
    )
    found = run_profile(request, Extras(verify=setting.size.is_verified), on_progress=setting.on_progress)
    if found.fault is not None:
        raise EnvironmentFailure(f"the profile ended early: {found.fault.stage}: {found.fault.reason}")
    setting.write_json(PROFILE, found.document())
    for table in (stage_table(found), run_table(found), what_if_table(found.predicted)):
        say.table(table.columns, table.rows)
    for sentence in (*meaning(found), *doubts(found)):
        say.text(sentence[0].upper() + sentence[1:])
    say.own("fovbench profile clips/ --encoder dinov2-small --vae vae-sd --frames 8 --verify")
    return found


def meaning(found: Profile) -> Iterator[str]:
    """What the tables of a profile say, in sentences."""
    slowest = max(found.stages, key=lambda stage: stage.total_s)
    yield (
        "First the stages one at a time, in ms a clip: a download from localhost, decoding, the two frozen encoders, "
        f"and the training step of a linear head. {slowest.name} has {slowest.share:.0%} of it, and every epoch pays "
        "that again. Then all stages at once, as in training. Then what changes would bring, predicted from the "
        "stages' times and, with --verify, measured."
    )
    cached = next((change for change in found.predicted if change.id == "cached_all"), None)
    if cached is not None and cached.measured is not None and found.overlapped is not None:
        before, after = found.overlapped.samples_per_hour, cached.measured.samples_per_hour
        yield (
            f"With what both encoders give in a cache, an epoch is {after / before:,.0f} times as fast here; predicted "
            f"was {cached.speedup:,.0f}. That is what the next steps build."
        )
