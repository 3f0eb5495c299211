"""What a shard costs beside its rows: at most 2 % where a row has 4 KiB or more, else at most 48 bytes a row."""

from pathlib import Path

import pytest
import torch

from fovcache.keys.digest import bytes_digest
from fovcache.store.shard import write_shard
from fovcache.store.storage import LocalStorage

SHARD_BYTES = 4 << 20
"""A sixteenth of a build's default, so the header weighs 16 times as much as in earnest."""


@pytest.mark.parametrize(
    ("num_features", "width", "dtype"),
    [
        pytest.param(1, 10, torch.bfloat16, id="logits"),
        pytest.param(1, 384, torch.bfloat16, id="class-token"),
        pytest.param(1, 1, torch.float32, id="smallest"),
        pytest.param(12, 384, torch.bfloat16, id="class-tokens-of-12-blocks"),
        pytest.param(1, 1024, torch.float32, id="4-KiB"),
        pytest.param(3, 32 * 32 * 4, torch.float16, id="latents"),
        pytest.param(1, 257 * 384, torch.bfloat16, id="all-tokens"),
    ],
)
def test_a_full_shard_has_little_overhead(num_features: int, width: int, dtype: torch.dtype, tmp_path: Path) -> None:
    row_bytes = num_features * width * dtype.itemsize
    num_rows = min(65536, SHARD_BYTES // row_bytes)
    keys = [bytes_digest(b"key %d" % number) for number in range(num_rows)]
    features = {bytes_digest(b"%d" % n): torch.zeros((num_rows, width), dtype=dtype) for n in range(num_features)}
    shard = write_shard(LocalStorage(tmp_path), recipe="ab" * 32, block="cd" * 32, keys=keys, features=features)
    (file,) = tmp_path.glob("shards/*/*")
    overhead = file.stat().st_size - num_rows * row_bytes
    assert shard.size_bytes == file.stat().st_size
    assert overhead <= (0.02 * num_rows * row_bytes if row_bytes >= 4096 else 48 * num_rows)
