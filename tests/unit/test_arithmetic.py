"""Full precision: the user's settings, old and new, do not reach what is computed, and come back."""

import subprocess
import sys

import pytest
import torch

OLD = "torch.set_float32_matmul_precision('{0}')"
NEW = "torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = '{0}'"
EVERYWHERE = "torch.backends.fp32_precision = '{0}'"
PROGRAM = """
import torch
from fovcache.derived.arithmetic import _highest, full_precision
def settings():
    new = hasattr(torch.backends, "fp32_precision")
    if not new:
        return [torch.get_float32_matmul_precision()]
    return [torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision]
{setting}
before = settings()
assert not before[0] in ("ieee", "none", "highest"), before
with full_precision(torch.device("cpu")):
    assert set(settings()) <= {{"ieee", "none", "highest"}}, settings()
    with full_precision(torch.device("cpu")):
        assert not torch.is_grad_enabled()
    assert set(settings()) <= {{"ieee", "none", "highest"}}, settings()
assert settings() == before, settings()
assert torch.is_grad_enabled()
{finally_}
"""
OLD_ONLY = """
with _highest():
    assert torch.get_float32_matmul_precision() == "highest"
assert torch.get_float32_matmul_precision() == "high"
"""
STILL_INHERITED = """
torch.backends.fp32_precision = "ieee"
assert set(settings()) <= {"ieee", "none"}, settings()
"""


@pytest.mark.parametrize(
    ("setting", "finally_"),
    [
        (OLD.format("high"), OLD_ONLY),
        (OLD.format("medium"), ""),
        (NEW.format("tf32"), ""),
        (EVERYWHERE.format("tf32"), STILL_INHERITED),
    ],
    ids=["old high", "old medium", "each backend", "all backends"],
)
def test_settings_of_products_do_not_matter_and_come_back(setting: str, finally_: str) -> None:
    """In a process of its own: torch's settings are the process's."""
    if "fp32_precision" in setting and not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this torch has no setting for each backend")
    program = PROGRAM.format(setting=setting, finally_=finally_)
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
