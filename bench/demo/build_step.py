"""The demo's builds: two encoders from one decode, then again, then the same clips under other labels."""

from __future__ import annotations

from fovcache.builder.encoders import Encoders
from fovcache.builder.report import BuildReport
from fovcache.builder.request import BuildOptions
from fovcache.builder.run import run_build
from fovcache.console import human_bytes, human_seconds

from .clips import DIGITS, DIRECTIONS
from .setting import DATASET, MOVES, Setting


def build_all(setting: Setting) -> dict[str, BuildReport]:
    """Build, build again, and build with the directions as labels. Raises what `run_build` does."""
    say = setting.say
    say.heading("3. Compute each frozen feature once")
    built = build(setting, setting.frozen, json="build.json")
    say.table(
        ("encoder", "layer", "pool", "dtype", "feature"),
        [(row["encoder"], row["layer"], row["pool"], row["dtype"], row["digest"][:12]) for row in built.features],
    )
    if built.computed:
        say.text(
            f"{human_bytes(built.bytes_written)} written. Each clip was downloaded and decoded once for both encoders, "
            "and the layers are read on the way through one forward pass."
        )
    else:
        say.text("An earlier run computed them.")
    say.text(
        "A feature's digest is its key: change anything that decides its numbers (a clip's bytes, frames, size, "
        "weights, layer, code), and it is another feature; change anything else, and it is a hit. The weights are "
        "random numbers here, as the demo downloads none."
    )
    say.own(
        "fovcache build clips/ --cache features --encoder dinov2-small --encoder vae-sd --layers "
        "'dinov2-small=blocks.*' --frames 8"
    )
    say.heading("4. Again, and with other labels")
    rebuilt = build(setting, setting.frozen, json="rebuild.json")
    say.text(
        "Nothing was decoded and no model was loaded: the server was asked whether its files are the same as before."
    )
    relabelled = build(setting, setting.frozen, DIRECTIONS, MOVES)
    say.text(
        "Keys are made of content, so the same clips under other labels are another dataset over the same features. In "
        "Python, as tensors in the dataset's order, with its labels:"
    )
    say.code(
        f"x, y = fovcache.open({setting.path('cache')!r}).features("
        f"layer='blocks.5', pool='tokens', dataset={MOVES!r}).tensors()",
        language="python",
    )
    return {"build": built, "rebuild": rebuilt, "relabelled": relabelled}


def build(
    setting: Setting, encoders: Encoders, manifest: str = DIGITS, dataset: str = DATASET, json: str | None = None
) -> BuildReport:
    """Show the command of a build, do it, and say what was done.

    `json` is a file's name, for the report; a run that computes nothing leaves an earlier one's as it is.
    """
    source = setting.path(manifest)
    where = {} if json is None else {"json": setting.path(json)}
    setting.command(
        "fovcache", "build", source, encoders=encoders, cache=setting.path("cache"), dataset=dataset, **where
    )
    options = BuildOptions(dataset=dataset)
    report = run_build(setting.cache.storage, [source], encoders, options, setting.on_progress)
    if json is not None and (report.computed or not (setting.folder / json).exists()):
        setting.write_json(json, report.document())
    setting.say.text(
        f"{report.samples:,} clips: {report.computed:,} computed, {report.reused:,} reused, {report.failed:,} failed, "
        f"in {human_seconds(report.seconds)}."
    )
    return report
