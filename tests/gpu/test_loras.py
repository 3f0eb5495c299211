"""LoRAs on a GPU: the file's numbers, and the CPU's numbers of ΔW."""

import pytest
import torch
from lora_files import lora_bytes, made_lora

from fovcache.extract.extractor import resolve_extractor

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("rank", [1, 4])
def test_rows_are_the_cpu_s(rank: int) -> None:
    extractor = resolve_extractor("lora-sd15")
    items = [extractor.input.read(lora_bytes(made_lora(rank, seed)), "it") for seed in range(3)]
    rows = {}
    for device in (CPU, CUDA):
        session = extractor.session(extractor.layers(), device, "float32")
        rows[device] = session.encode(extractor.input.prepare(extractor.input.collate(items).to(device)))
    for layer, expected in rows[CPU].items():
        found = rows[CUDA][layer]
        assert found.device.type == "cuda"
        if layer.endswith(".delta"):
            torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
        else:
            assert torch.equal(found.cpu(), expected)
