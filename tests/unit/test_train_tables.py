"""Controlled training as tables, sentences and a page."""

from __future__ import annotations

from dataclasses import replace

from example_trainings import made_suite

from fovcache.probes.train.result import BASE, FAILED, MAIN, STOPPED
from fovcache.probes.train.suite.page import page
from fovcache.probes.train.suite.tables import plan_sentences, plans_table, runs_table, sentences, shown_tables


def test_every_table_has_its_rows() -> None:
    suite = made_suite()
    tables = {table.title: table for table in shown_tables(suite)}
    assert [len(table.rows) for table in tables.values() if len(table.columns) != len(table.rows[0])] == []
    assert len(tables["Runs"].rows) == len(suite.runs)
    assert tables["Arms"].rows[-1] == ("control task", 'dataset = "global" (the main task: "cue")')
    conditions = tables["Verdict"].rows
    assert [row[1] for row in conditions] == ["yes"] * 5 + ["–"]
    assert conditions[-1][0] == "diagnostic, biased: coarse/fine within the base, main task"
    control = tables["The same comparison on the negative control"].rows
    assert [row[1] for row in control] == ["no", "yes", "–"]
    parts = [row[1] for row in tables["Parameters, audited before training"].rows]
    assert parts == ["attention", "language_model", "reconstruction"] * 2  # the base's, and all arms'


def test_failed_runs_are_shown_with_how() -> None:
    suite = made_suite()
    run = replace(suite.runs[1], state=FAILED, reason="step 7: the loss is nan", evaluations=(), samples_per_second=0.0)
    suite = replace(suite, runs=(suite.runs[0], run, replace(suite.runs[2], state=STOPPED, reason="SIGTERM")))
    cells = runs_table(suite).rows[1]
    assert (cells[0], cells[3], cells[4], cells[6]) == (run.arm, "failed", "–", "–")
    said = list(sentences(suite))
    assert said[0].endswith("runs: 1 done, 1 stopped, 1 failed")
    assert f"{run.arm}, seed {run.seed} failed: step 7: the loss is nan" in said
    assert suite.exit_status == 1


def test_what_may_be_said_is_said_last() -> None:
    said = list(sentences(made_suite()))
    assert any(line.startswith("3 seeds: no exact paired test could go below p = 0.25") for line in said)
    assert said[-2] == "verdict: a finer look helps: all 5 conditions hold"
    assert said[-1].startswith("control: no benefit on the control task: ")


def test_a_plan_is_of_all_seeds() -> None:
    suite = made_suite((0,), tasks=(MAIN,))
    runs = [run for run in suite.runs if run.arm == BASE]
    assert runs[0].plan is not None
    plan = replace(runs[0].plan, spent=replace(runs[0].plan.spent, compute_s=3600), disk_bytes=2**20)
    suite = replace(suite, runs=(replace(runs[0], plan=plan), replace(runs[0], plan=plan, arm="coarse")))
    table = plans_table(suite)
    assert [len(row) for row in table.rows] == [len(table.columns)] * 2
    (said,) = plan_sentences(suite, num_seeds=3, jobs=2)
    assert said.startswith("all 6 runs: 3 h 00 min, 2 at a time, and 6.0 MiB of disk")


def test_the_page_shows_names_as_they_are() -> None:
    suite = made_suite()
    text = page(replace(suite, name="<b>|x", warnings=("a | b",)))
    assert text.startswith("# Training \\<b\\>\\|x\n")
    assert "- warning: a \\| b" in text
    assert "| arm | task |" in text
    for title in ("## Runs", "## Verdict", "## Model", "## Recipe", "## Environment"):
        assert f"\n{title}\n" in text
