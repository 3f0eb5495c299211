"""The demo's ablations: what tells the digit, and what tells where it goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from fovcache.builder.request import pick_device
from fovcache.probes.config import read_config
from fovcache.probes.result import NO_CONTROL, SHUFFLED_LABELS, Ablation
from fovcache.probes.run import run_ablation
from fovcache.probes.tables.ablation_tables import accuracy, experiments_table, interval, sentences

from ..profiler.environment import environment
from .ablation_config import ablation_config
from .setting import DATASET, MOVES, Setting

DIGITS_NAME, MOVES_NAME = "ablation", "moves"
"""Names of the configuration files without their ending, and of the folders of results."""
_EXPERIMENTS: Mapping[str, Sequence[str]] = {
    "vit_early": ("vit:embed", "vit:blocks.0"),
    "vit_late": ("vit:blocks.5", "vit:blocks.11"),
    "latents": ("vae:latent",),
    "own": ("own:**",),
}


def ablate_digits(setting: Setting, own_recipe: str) -> Ablation:
    """Which layers tell the digit, and how they are read best. Raises what `run_ablation` does."""
    say = setting.say
    say.heading("6. What knows which digit it is?")
    say.text(
        "A representation turns a layer's matrix (the tokens of all frames × channels) into a few numbers: "
        "simple_stats into five, flat_vec into every one that it has. A linear head reads the digit out of those of an "
        "experiment's layers."
    )
    config = ablation_config(
        dataset=DATASET,
        seeds=setting.size.num_seeds,
        representations=("simple_stats", "distribution", "spectral", "frequency", "ensemble", "flat_vec"),
        experiments=_EXPERIMENTS,
        own_recipe=own_recipe,
    )
    found = _ablate(setting, DIGITS_NAME, config)
    say.text(". ".join(_capitalised(sentences(found))) + ".")
    best = max(
        (each for each in found.estimates if each.control == NO_CONTROL and each.experiment in _EXPERIMENTS),
        key=lambda each: each.mean,
    )
    shuffled = found.estimate(best.representation, best.experiment, SHUFFLED_LABELS)
    say.text(
        f"The best is {best.representation} of {best.experiment}: {accuracy(best)}, 95 % interval {interval(best)}, "
        f"where chance is {best.chance:.3f} and the same with shuffled labels gets {accuracy(shuffled)}. Random layers "
        "are as many, drawn from all encoders: an experiment that does not beat them owes nothing to its choice of "
        "layers. Nobody trained these encoders; with --weights, the same table says what training adds."
    )
    say.text(
        f"Killed and run again, it does what is missing. On your own features: copy {setting.path(DIGITS_NAME)}.toml "
        "and name your cache, dataset, encoders and layers."
    )
    return found


def ablate_moves(setting: Setting, own_recipe: str) -> Ablation:
    """The same of the directions. Raises what `run_ablation` does."""
    say = setting.say
    say.heading("7. What knows where it goes?")
    config = ablation_config(
        dataset=MOVES,
        seeds=setting.size.num_seeds,
        representations=("simple_stats", "flat_vec"),
        experiments=_EXPERIMENTS,
        own_recipe=own_recipe,
        single_layers=False,
        random_layers=False,
    )
    found = _ablate(setting, MOVES_NAME, config)
    say.text(
        "The same features under other labels: nothing was encoded for this. The direction shows only in the order of "
        "the frames. Statistics over all tokens know little of it, and flat_vec keeps it: a clip's row is [frames, …] "
        "and is not averaged over time unless you ask for that."
    )
    return found


def _ablate(setting: Setting, name: str, config: str) -> Ablation:
    path, out = setting.folder / f"{name}.toml", setting.folder / name
    path.write_text(config)
    setting.command("fovbench", "ablate", str(path), out=str(out))
    chosen = read_config(path)
    found = run_ablation(chosen, out, setting.on_progress, environment=environment(pick_device(chosen.device)))
    table = experiments_table(found)
    setting.say.table(table.columns, table.rows)
    for failure in found.failures:
        setting.say.text(f"failed: {failure.representation} of {failure.experiment}: {failure.reason}")
    return found


def _capitalised(texts: Iterable[str]) -> Iterator[str]:
    return (text[0].upper() + text[1:] for text in texts)
