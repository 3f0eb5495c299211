"""The report of a folder of results as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .ablation_view import AblationView
from .markdown import escaped, markdown_picture, markdown_table
from .numbers import entries
from .profile_tables import profile_tables
from .profile_view import ProfileView
from .quality_view import QualityView
from .results_view import ResultsView
from .train_view import TrainView


def results_markdown(view: ResultsView, figures: str) -> str:
    """All tables and sentences of the page; pictures are in the folder `figures`."""
    return "\n".join(_lines(view, figures)) + "\n"


def _lines(view: ResultsView, figures: str) -> Iterator[str]:
    yield from (f"# {escaped(view.title)}", "", escaped(view.subtitle), "")
    yield from (f"- {escaped(sentence)}" for sentence in view.sentences)
    if view.warnings:
        yield from ("", "## Warnings", "", *(f"- {escaped(warning)}" for warning in view.warnings))
    for profile in view.profiles:
        yield from _profile(profile, view.titles[profile.prefix], figures)
    if view.builds.rows:
        yield from ("", "## Building the cache", *markdown_table(view.builds))
    for cache in view.caches:
        yield from ("", f"## {escaped(view.titles[cache.prefix])}", "", escaped(cache.sizes))
        for table in cache.tables.values():
            yield from markdown_table(table)
    for quality in view.qualities:
        yield from _quality(quality, view.titles[quality.prefix], figures)
    for ablation in view.ablations:
        yield from _ablation(ablation, view.titles[ablation.prefix], figures)
    for training in view.trainings:
        yield from _training(training, view.titles[training.prefix], figures)
    yield from ("", "## Method and environment")
    for profile in view.profiles:
        yield from ("", f"### {escaped(view.titles[profile.prefix])}", "")
        yield f"- 95 % intervals: {escaped(profile.profile.ci_method)}"
        yield from _facts(profile.profile.environment)
        yield from _facts(profile.profile.settings)
    for quality in view.qualities:
        yield from ("", f"### {escaped(view.titles[quality.prefix])}", "")
        yield from (f"- {escaped(name)}: {escaped(text)}" for name, text in quality.quality.definitions.items())
        yield from markdown_table(quality.tables["features"])
        yield ""
        yield from _facts(quality.quality.environment)
    for ablation in view.ablations:
        yield from ("", f"### {escaped(view.titles[ablation.prefix])}", "")
        yield f"- estimand: {escaped(ablation.ablation.estimand)}"
        yield f"- 95 % intervals: {escaped(ablation.ablation.interval)}"
        yield from _facts(ablation.ablation.protocol)
        yield from markdown_table(ablation.tables["features"])
        yield ""
        yield from _facts(ablation.ablation.environment)
    for training in view.trainings:
        suite = training.suite
        yield from ("", f"### {escaped(view.titles[training.prefix])}", "")
        for mapping in (suite.model, suite.settings, suite.data, suite.environment):
            yield from _facts(mapping)


def _profile(view: ProfileView, title: str, figures: str) -> Iterator[str]:
    profile = view.profile
    yield from ("", f"## {escaped(title)}")
    if profile.fault:
        yield from ("", f"Ended early, in {escaped(profile.fault.stage)}: {escaped(profile.fault.reason)}")
    if profile.bottleneck:
        yield from ("", f"Bottleneck: {escaped(profile.bottleneck.reason)}")
    yield from ("", *(f"- {escaped(sentence)}" for sentence in (*profile.advice, *profile.warnings)))
    for picture in view.pictures.values():
        yield from markdown_picture(picture, figures)
    for table in profile_tables(view):
        yield from markdown_table(table)


def _ablation(view: AblationView, title: str, figures: str) -> Iterator[str]:
    yield from ("", f"## {escaped(title)}", "", escaped(view.data))
    for picture in (*view.pictures.values(), *view.confusions):
        yield from markdown_picture(picture, figures)
    if view.changes:
        yield from ("", *(f"- {escaped(change)}" for change in view.changes))
    for name, table in view.tables.items():
        if name != "features":  # it is under the method
            yield from markdown_table(table)


def _quality(view: QualityView, title: str, figures: str) -> Iterator[str]:
    yield from ("", f"## {escaped(title)}", "", *(f"- {escaped(sentence)}" for sentence in view.data))
    for picture in view.pictures.values():
        yield from markdown_picture(picture, figures)
    for name in ("ranks", "spread", "cka"):
        yield from markdown_table(view.tables[name])


def _training(view: TrainView, title: str, figures: str) -> Iterator[str]:
    yield from ("", f"## {escaped(title)}", "", f"**{escaped(view.verdict)}**")
    yield from markdown_table(view.tables["conditions"])
    if view.control:
        yield from ("", escaped(view.control))
    yield from markdown_table(view.tables["control"])
    yield from markdown_table(view.tables["diagnostics"])
    yield from ("", *(f"- {escaped(sentence)}" for sentence in view.data))
    for picture in view.pictures.values():
        yield from markdown_picture(picture, figures)
    for name, table in view.tables.items():
        if name not in ("conditions", "control", "diagnostics"):
            yield from markdown_table(table)


def _facts(mapping: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"- {escaped(label)}: {escaped(text)}" for label, text, _ in entries(mapping))
