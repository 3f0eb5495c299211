"""Made results of controlled training for tests of reports: all conditions hold, seeds that fail, hostile names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fovcache.probes.train.config import VerdictChoice
from fovcache.probes.train.result import (
    BASE,
    CONTROL,
    DONE,
    FAILED,
    MAIN,
    STOPPED,
    AttentionMap,
    Evaluation,
    ParameterGroup,
    Plan,
    Run,
    Spent,
    TrainSuite,
)
from fovcache.probes.train.suite.verdict import judge, judge_control

ARMS = {
    "coarse": 'model.mode = "coarse" (base: "fine")',
    "coarse_matched": "train.samples = 96000 (base: 48000)",
    "random_query": 'model.query = "random" (base: "predicted")',
    "shuffled_query": 'model.query = "shuffled" (base: "predicted")',
}
SAMPLES = 48_000
_LEARNT = {MAIN: {BASE: 0.009}, CONTROL: {}}
_BEST = {MAIN: 1.30, CONTROL: 0.70}


def made_suite(seeds: tuple[int, ...] = (0, 1, 2), *, tasks: tuple[str, ...] = (MAIN, CONTROL)) -> TrainSuite:
    """The base learns the main task and its arms do not; none gains anything on the control."""
    runs = tuple(made_run(arm, task, seed) for task in tasks for arm in (BASE, *ARMS) for seed in seeds)
    return TrainSuite(
        name="cue",
        cache="features",
        dataset="made-cues",
        model={"kind": "foveated", "mode": "fine", "width": 64, "num_heads": 4},
        settings={"samples": SAMPLES, "batch_size": 64, "learning_rate": 3e-3, "schedule": "cosine"},
        data={"kind": "cached", "dataset": "ab" * 32},
        arms=ARMS,
        runs=runs,
        verdict=judge(runs, VerdictChoice()),
        control_verdict=judge_control(runs, VerdictChoice()),
        control='dataset = "global" (the main task: "cue")' if CONTROL in tasks else "",
        environment={"cpu": "AMD EPYC 7B13", "cores": 4, "versions": {"torch": "2.13.0"}},
        seconds=812.4,
        warnings=("the cache was written under another version of torch",),
    )


def made_run(arm: str = BASE, task: str = MAIN, seed: int = 0, *, num: int = 12) -> Run:
    """Evaluated before training and `num` times more."""
    chance = np.random.default_rng([seed, *map(ord, arm + task)])
    samples = 2 * SAMPLES if arm == "coarse_matched" else SAMPLES
    evaluations = tuple(
        Evaluation(samples_seen=samples * place // num, values=_values(arm, task, place / num, chance), seconds=0.21)
        for place in range(num + 1)
    )
    spent = Spent(compute_s=20.4 * samples / SAMPLES, data_s=0.2, evaluation_s=2.6, checkpoint_s=0.5, other_s=0.9)
    off = chance.uniform(0.92, 1.08)
    planned = Spent(compute_s=spent.compute_s * off, data_s=0.25, evaluation_s=2.7, checkpoint_s=0.45, other_s=0.6)
    return Run(
        arm=arm,
        task=task,
        seed=seed,
        state=DONE,
        samples_seen=samples,
        steps=samples // 64,
        evaluations=evaluations,
        validation_hash=("cd" if task == MAIN else "ef") * 32,
        num_validation=1000,
        parameters=(
            ParameterGroup(part="attention", trained=16_640, unused=0 if arm == BASE else 64, frozen=0),
            ParameterGroup(part="language_model", trained=112_384, unused=0, frozen=0),
            ParameterGroup(part="reconstruction", trained=0, unused=8_256, frozen=4_096),
        ),
        samples_per_second=samples / (spent.compute_s + spent.data_s + spent.other_s),
        data_wait_share=spent.data_s / (spent.compute_s + spent.data_s + spent.other_s),
        kernel_active_share=None,
        peak_memory_bytes=412_000_000 + seed * 1000,
        num_resumed=0,
        spent=spent,
        plan=Plan(
            samples=samples,
            steps=samples // 64,
            evaluations=num + 1,
            checkpoints=3,
            spent=planned,
            wall_ci95_s=(planned.wall_s * 0.93, planned.wall_s * 1.07),
            warmup_steps=20,
            dropped_steps=5,
            disk_bytes=9_000_000,
            memory_bytes=400_000_000,
        ),
        attention=_maps(arm, task, chance),
    )


def suite_with_failures() -> TrainSuite:
    """A seed that failed, one that was stopped, one that was never evaluated, and one that was taken up again."""
    suite = made_suite()
    runs = {(run.task, run.arm, run.seed): run for run in suite.runs}
    runs[MAIN, BASE, 1] = replace(
        (run := runs[MAIN, BASE, 1]), state=FAILED, reason="the loss is not a number at step 310",
        evaluations=run.evaluations[:6], samples_seen=19_840, steps=310, attention=(),
    )  # fmt: skip
    runs[MAIN, "coarse", 2] = replace(
        (run := runs[MAIN, "coarse", 2]), state=STOPPED, reason="SIGTERM", evaluations=run.evaluations[:8]
    )
    runs[MAIN, "random_query", 0] = replace(
        runs[MAIN, "random_query", 0], state=FAILED, reason="out of memory with a micro-batch of 1", evaluations=(),
        samples_seen=0, steps=0, plan=None, parameters=(), attention=(),
    )  # fmt: skip
    runs[CONTROL, BASE, 0] = replace(
        (run := runs[CONTROL, BASE, 0]), num_resumed=2, spent=replace(run.spent, compute_s=4.1),
        kernel_active_share=0.41, events=("step 120: out of memory, micro-batches of 32",),
    )  # fmt: skip
    every = tuple(runs.values())
    choice = VerdictChoice()
    return replace(suite, runs=every, verdict=judge(every, choice), control_verdict=judge_control(every, choice))


def bare_suite() -> TrainSuite:
    """One run with one evaluation, no plan, no maps, no verdict."""
    run = replace(made_run(num=1), plan=None, attention=(), parameters=())
    run = replace(run, evaluations=(Evaluation(samples_seen=SAMPLES, values={"loss": 0.7}, seconds=0.1),))
    return replace(made_suite((0,), tasks=()), runs=(run,), arms={}, verdict=None, warnings=())


def hostile_suite(text: str) -> TrainSuite:
    """`text` in place of every text that comes from files."""
    suite = suite_with_failures()
    assert suite.verdict is not None
    names = {arm: f"{text}{number}" for number, arm in enumerate(ARMS)}
    runs = tuple(
        replace(
            run,
            arm=names.get(run.arm, run.arm),
            state=run.state if run.arm in (BASE, "coarse") else text,
            task=MAIN if run.task == MAIN else text,
            reason=text,
            events=(text,),
            validation_hash=text,
            evaluations=tuple(replace(each, values={**each.values, f"entropy{text}": 0.5}) for each in run.evaluations),
            parameters=tuple(replace(each, part=text) for each in run.parameters),
            attention=tuple(replace(each, name=text, sample=text) for each in run.attention),
        )
        for run in suite.runs
    )
    conditions = tuple(replace(each, name=text, said=text) for each in suite.verdict.conditions)
    return replace(
        suite,
        name=text,
        cache=text,
        dataset=text,
        model={text: text},
        settings={text: {text: [text]}},
        data={text: text},
        arms=dict.fromkeys(names.values(), text),
        runs=runs,
        verdict=replace(suite.verdict, sentence=text, conditions=conditions),
        control_verdict=replace(suite.verdict, sentence=text, conditions=conditions[:2]),
        control=text,
        environment={text: text, "nested": {text: [text]}},
        warnings=(text,),
    )


def _values(arm: str, task: str, done: float, chance: np.random.Generator) -> Mapping[str, float]:
    best = _LEARNT[task].get(arm, _BEST[task]) * math.exp(chance.normal(0, 0.004 if task == CONTROL else 0.1))
    best = max(best, 1.27) if task == MAIN and arm != BASE else best
    loss = best + (1.39 - best) * math.exp(-9 * done)
    looks_at_all = 0.98 - 0.9 * (task == MAIN and arm == BASE) * (1 - math.exp(-8 * done))
    return {
        "loss": loss,
        "fine": loss,
        "coarse": loss * (1.14 if arm == BASE else 1.02) + chance.uniform(0, 0.01),
        "entropy_static": 0.97 - 0.03 * done + chance.uniform(-0.01, 0.01),
        "entropy_dynamic": looks_at_all + chance.uniform(-0.02, 0.02),
        "query_diversity": 0.05 + 0.8 * done * (arm == BASE) + chance.uniform(0, 0.05),
    }


def _maps(arm: str, task: str, chance: np.random.Generator) -> tuple[AttentionMap, ...]:
    names = ("coarse", "fine") if arm != "coarse" else ("coarse",)
    return tuple(
        AttentionMap(
            name=name, sample=f"clips/{sample:05d}.npy", frames=_frames(name == "fine" and task == MAIN, chance)
        )
        for sample in range(2)
        for name in names
    )


def _frames(is_sharp: bool, chance: np.random.Generator) -> tuple[tuple[tuple[float, ...], ...], ...]:
    logits = chance.normal(0, 0.2, (4, 4, 4))
    if is_sharp:
        for frame in logits:
            frame[tuple(chance.integers(0, 4, 2))] += 5
    shares = np.exp(logits) / np.exp(logits).sum((1, 2), keepdims=True)
    return tuple(tuple(tuple(float(value) for value in line) for line in frame) for frame in shares)
