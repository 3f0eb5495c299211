"""Heads of a closed form run where their rows are, in float64, and say there what they say on the CPU."""

import numpy as np
import pytest
import torch

from fovcache.probes.evaluate import run_trial
from fovcache.probes.heads.head import Head, make_head
from fovcache.probes.splits import Partition

pytestmark = pytest.mark.needs_cuda


@pytest.mark.parametrize(("num", "dims"), [(800, 50), (120, 600)])
@pytest.mark.parametrize(
    "head",
    [
        make_head("ridge"),
        make_head("ridge", {"select": "leave-one-out"}),
        make_head("logistic"),
        make_head("knn"),
        make_head("knn", {"metric": "cosine"}),
    ],
    ids=["ridge", "leave-one-out", "logistic", "knn", "cosine"],
)
def test_a_trial_on_the_gpu_is_the_trial_on_the_cpu(num: int, dims: int, head: Head) -> None:
    chance = np.random.default_rng(0)
    y = np.arange(num) % 4
    x = torch.from_numpy(chance.standard_normal((num, dims)) + 0.5 * chance.standard_normal((4, dims))[y])
    sides = np.split(chance.permutation(num), [num // 2, num * 3 // 4])
    parts = Partition(train=np.sort(sides[0]), validation=np.sort(sides[1]), test=np.sort(sides[2]))
    here, there = (run_trial(each.float(), y, parts, head, 4) for each in (x, x.cuda()))
    assert (here.setting, here.num_effective) == (there.setting, there.num_effective)
    assert (here.predictions == there.predictions).all()


def test_coefficients_on_the_gpu_are_those_of_the_cpu() -> None:
    chance = np.random.default_rng(0)
    x, y = torch.from_numpy(chance.standard_normal((300, 40))), np.arange(300) % 3
    head = make_head("ridge", {"strengths": [0.1, 10, 1000]})
    here, there = (head.fit_rows(each, y, 3).coefficients_SKD.cpu() for each in (x, x.cuda()))
    assert (here - there).norm() <= 1e-10 * here.norm()
    head = make_head("logistic", {"strengths": [0.1, 10, 1000], "tolerance": 1e-12})
    here, there = (head.fit_rows(each, y, 3).coefficients_SCD.cpu() for each in (x, x.cuda()))
    assert (here - there).norm() <= 1e-4 * here.norm()
