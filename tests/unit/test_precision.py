"""float32 on CUDA is float32 in convolutions too; the settings are torch's, and are there without a GPU."""

from collections.abc import Iterator

import pytest
import torch

from fovcache.extract.precision import full_float32

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """torch's own before each test, and after it."""
    assert torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


def test_tf32_is_off_for_cuda_and_back_on_afterwards() -> None:
    with full_float32(CUDA):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32
    with full_float32(CPU):
        assert torch.backends.cudnn.allow_tf32


def test_it_is_back_on_after_an_error() -> None:
    with pytest.raises(ValueError, match="forward"), full_float32(CUDA):
        raise ValueError("forward")
    assert torch.backends.cudnn.allow_tf32


def test_a_user_who_asks_for_less_gets_it() -> None:
    torch.set_float32_matmul_precision("high")
    with full_float32(CUDA):
        assert torch.backends.cudnn.allow_tf32


def test_what_a_user_turned_off_stays_off() -> None:
    torch.backends.cudnn.allow_tf32 = False
    with full_float32(CUDA):
        assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9 has no setting by operation")
def test_settings_by_operation_are_the_users() -> None:
    conv = torch.backends.cudnn.conv
    conv.fp32_precision = "ieee"
    with full_float32(CUDA):
        assert conv.fp32_precision == "ieee"
    assert conv.fp32_precision == "ieee"
    conv.fp32_precision = "tf32"
