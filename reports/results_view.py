"""What the page and the Markdown of a folder of results are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fovcache.maintain.contents import CacheContents
from fovcache.probes.quality.result import Quality
from fovcache.probes.result import Ablation
from fovcache.probes.train.result import TrainSuite

from . import numbers
from .ablation_view import AblationView, ablation_view
from .cache_tables import cache_tables
from .names import listed, shown
from .picture import Picture
from .profile_view import ProfileView, profile_view
from .quality_view import QualityView, quality_view
from .results import Results
from .summary import Card, cards, sentences
from .table import Table, count, duration, size, table, text
from .train_view import TrainView, train_view


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheView:
    """A cache on a page."""

    prefix: str
    """What the ids of its elements begin with."""
    sizes: str
    """How large it is, in a sentence."""
    tables: dict[str, Table]
    """By name; empty ones too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsView:
    """A folder of results on a page."""

    title: str
    """Of the page."""
    subtitle: str
    """Datasets, encoders, machine."""
    cards: tuple[Card, ...]
    """The figures on top."""
    sentences: tuple[str, ...]
    """What a reader in a hurry reads."""
    warnings: tuple[str, ...]
    """What was left out, and what the ablations warn of."""
    profiles: tuple[ProfileView, ...]
    """Where the time goes."""
    builds: Table
    """Builds, cold and warm; may be empty."""
    caches: tuple[CacheView, ...]
    """What is in them."""
    ablations: tuple[AblationView, ...]
    """What was read out of features."""
    qualities: tuple[QualityView, ...]
    """How features are spread."""
    trainings: tuple[TrainView, ...]
    """Controlled training."""
    titles: dict[str, str]
    """Of sections, by the prefix of their ids."""

    @property
    def pictures(self) -> Iterator[Picture]:
        """All of them, in the page's order."""
        for profile in self.profiles:
            yield from profile.pictures.values()
        for quality in self.qualities:
            yield from quality.pictures.values()
        for ablation in self.ablations:
            yield from (*ablation.pictures.values(), *ablation.confusions)
        for training in self.trainings:
            yield from training.pictures.values()

    @property
    def sections(self) -> Iterator[tuple[str, str]]:
        """(id, title) of the page's sections below the summary."""
        yield from ((f"{view.prefix}time", self.titles[view.prefix]) for view in self.profiles)
        if self.builds.rows:
            yield "builds", "Building the cache"
        yield from ((f"{view.prefix}contents", self.titles[view.prefix]) for view in self.caches)
        yield from ((f"{view.prefix}results", self.titles[view.prefix]) for view in self.qualities)
        yield from ((f"{view.prefix}results", self.titles[view.prefix]) for view in self.ablations)
        yield from ((f"{view.prefix}results", self.titles[view.prefix]) for view in self.trainings)
        yield "method", "Method and environment"


def results_view(results: Results) -> ResultsView:
    """All of a report but its form; draws the figures."""
    profiles = tuple(
        profile_view(profile, name=file, prefix=f"profile-{number}-", level=3, number=number)
        for number, (file, profile) in enumerate(results.profiles.items(), 1)
    )
    caches = tuple(_cache_view(cache, number) for number, cache in enumerate(results.caches, 1))
    ablations = tuple(
        ablation_view(ablation, file=file, number=number, arms=results.arms.get(file, ()), cells=results.cells)
        for number, (file, ablation) in enumerate(results.ablations.items(), 1)
    )
    qualities = tuple(
        quality_view(quality, file=file, number=number)
        for number, (file, quality) in enumerate(results.qualities.items(), 1)
    )
    trainings = tuple(
        train_view(suite, file=file, number=number) for number, (file, suite) in enumerate(results.trainings.items(), 1)
    )
    titles = {
        view.prefix: "Where the time goes" + (f": {shown(view.name)}" if len(profiles) > 1 else "") for view in profiles
    }
    titles |= {
        view.prefix: "What is in the cache" + (f": {shown(cache.path)}" if len(caches) > 1 else "")
        for view, cache in zip(caches, results.caches, strict=True)
    }
    titles |= {view.prefix: f"Feature quality: {shown(view.quality.encoder)}" for view in qualities}
    titles |= {view.prefix: f"Ablation: {shown(view.ablation.name)}" for view in ablations}
    titles |= {view.prefix: f"Controlled training: {shown(view.suite.name)}" for view in trainings}
    return ResultsView(
        title=f"Report: {shown(results.name)}",
        subtitle=_subtitle(results),
        cards=tuple(cards(results)),
        sentences=tuple(sentences(results)),
        warnings=(
            *results.warnings,
            *(warning for view in qualities for warning in view.quality.warnings),
            *(warning for view in ablations for warning in view.ablation.warnings),
            *(warning for view in trainings for warning in view.suite.warnings),
        ),
        profiles=profiles,
        builds=_builds(results),
        caches=caches,
        ablations=ablations,
        qualities=qualities,
        trainings=trainings,
        titles=titles,
    )


def _subtitle(results: Results) -> str:
    ablations, profiles = results.ablations.values(), results.profiles.values()
    looked_at: list[Ablation | Quality | TrainSuite] = [
        *ablations, *results.qualities.values(), *results.trainings.values()
    ]  # fmt: skip
    datasets = dict.fromkeys([each.dataset for each in looked_at] + [build.dataset for build in results.builds])
    encoders = dict.fromkeys(each.encoder for cache in results.caches for each in cache.recipes)
    encoders |= dict.fromkeys(str(name) for each in profiles for name in each.settings.get("encoders") or ())
    environments = [each.environment for each in profiles] + [dict(each.environment) for each in looked_at]
    machines = dict.fromkeys(str(each.get("gpu") or each["cpu"]) for each in environments if each.get("cpu"))
    return " · ".join(filter(None, (listed(names, 4) for names in (datasets, encoders, machines))))


def _cache_view(cache: CacheContents, number: int) -> CacheView:
    prefix = f"cache-{number}-"
    sizes = (
        f"{shown(cache.path)}: {numbers.count(cache.num_shards)} files of rows, {numbers.size(cache.shard_bytes)}; "
        f"with datasets, manifests and indexes {numbers.size(cache.total_bytes)}."
    )
    if cache.num_lost:
        sizes += f" {numbers.count(cache.num_lost)} blocks are damaged or gone; `fovcache verify` names them."
    return CacheView(prefix=prefix, sizes=sizes, tables=cache_tables(cache, prefix))


def _builds(results: Results) -> Table:
    columns = ("build", "<dataset", "samples", "computed", "reused", "failed", "time", "loading", "written")
    rows = (
        [
            text(each.file),
            text(each.dataset),
            count(each.samples),
            count(each.computed),
            count(each.reused),
            count(each.failed),
            duration(each.seconds),
            duration(each.load_seconds),
            size(each.bytes_written),
        ]
        for each in results.builds
    )
    caption = "Builds. Loading the encoder is not in their time; a build that computes nothing opens no video."
    return table("builds-table", caption, columns, rows)
