"""Checkpoints: every tensor accounted for, none unpickled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fovcache.errors import WeightsError
from fovcache.extract.weights import apply_weights, read_checkpoint


def _net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {name: torch.rand_like(value.float()).to(value.dtype) for name, value in _net().state_dict().items()}


def _apply(folder: Path, state: dict[str, torch.Tensor]) -> nn.Module:
    save_file(state, folder / "model.safetensors")
    module = _net()
    apply_weights(module, str(folder / "model.safetensors"))
    return module


def test_every_tensor_arrives(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    loaded = _apply(tmp_path, state).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_batch_counters_may_be_missing(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    del state["1.num_batches_tracked"]
    assert torch.equal(_apply(tmp_path, state).state_dict()["1.weight"], state["1.weight"])


def test_what_is_missing_mismatched_and_unexpected_is_named_at_once(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    del state["0.bias"]
    state["2.weight"] = torch.zeros(5, 4)
    state["1.extra"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        _apply(tmp_path, state)
    said = str(caught.value)
    assert "1 missing: 0.bias" in said
    assert "2.weight (checkpoint (5, 4), model (2, 4))" in said
    assert "1 unexpected: 1.extra" in said


def test_a_part_that_the_encoder_lacks_is_left_out(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    state["head.weight"] = torch.zeros(3)
    assert torch.equal(_apply(tmp_path, state).state_dict()["0.weight"], state["0.weight"])


def test_a_folder_of_shards_is_one_checkpoint_and_no_name_stands_twice(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    save_file({name: value for name, value in state.items() if name.startswith("0")}, tmp_path / "a.safetensors")
    save_file({name: value for name, value in state.items() if not name.startswith("0")}, tmp_path / "b.safetensors")
    assert read_checkpoint(tmp_path).keys() == state.keys()
    save_file({"0.bias": state["0.bias"]}, tmp_path / "c.safetensors")
    with pytest.raises(WeightsError, match=r"0\.bias stand in more than one file"):
        read_checkpoint(tmp_path)


def test_a_pickled_checkpoint_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(WeightsError, match=r"found pytorch_model\.bin.*refused"):
        read_checkpoint(tmp_path)
    with pytest.raises(WeightsError, match="refused"):
        read_checkpoint(tmp_path / "pytorch_model.bin")


def test_absent_and_damaged_files_are_said_to_be(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WeightsError, match="do not exist"):
        read_checkpoint(tmp_path / "nothing")
    save_file(state, tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="cannot be read"):
        read_checkpoint(tmp_path)
