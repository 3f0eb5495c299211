"""What a run's warm-up leaves on the disk: nothing, however it ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_training import ToyFeed, train_toy

from fovcache.probes.train.feed import FeedBatch
from fovcache.probes.train.result import STOPPED
from fovcache.probes.train.run import How


def test_only_a_plan_leaves_nothing(tmp_path: Path) -> None:
    run = train_toy(tmp_path / "run", how=How(plan_only=True))
    assert run.plan is not None
    assert run.plan.spent.wall_s > 0
    assert (run.state, run.samples_seen, run.evaluations) == (STOPPED, 0, ())
    assert not list(tmp_path.iterdir())


def test_what_a_killed_warmup_left_goes(tmp_path: Path) -> None:
    left = tmp_path / ".plan" / "0" / "0"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    train_toy(tmp_path, samples=8)
    assert {each.name for each in tmp_path.iterdir()} == {"checkpoints", "identity.json", "log.jsonl", "run.json"}


def test_a_warmup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    class Dying(ToyFeed):
        def validation_batches(self) -> Iterator[FeedBatch]:
            assert [each.name for each in (tmp_path / "a" / "run" / ".plan").iterdir()] == ["0"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path / "a" / "run", feed=Dying(), how=How())
    assert not list(tmp_path.iterdir())
