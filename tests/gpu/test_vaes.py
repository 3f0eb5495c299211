"""The VAEs on a GPU: the CPU's latents and, for a sample, the CPU's noise."""

import numpy as np
import pytest
import torch

from fovcache.extract.extractor import resolve_extractor

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CASES = [("vae-sd", "mean"), ("vae-sd", "mean+logvar"), ("vae-sd", "sample:0"), ("vae-tiny", "mean")]


def latents(name: str, posterior: str, device: torch.device, compute_dtype: str) -> torch.Tensor:
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    vae = resolve_extractor(name, "random:0").with_posterior(posterior)
    batch = vae.input.prepare(vae.input.collate([frames]).to(device))
    session = vae.session(["latent"], device, compute_dtype)
    try:
        latent = session.encode(batch)["latent"]
    finally:
        session.close()
    assert latent.device.type == device.type
    return latent.cpu()


@pytest.mark.parametrize(("name", "posterior"), CASES)
def test_latents_are_the_cpu_s(name: str, posterior: str) -> None:
    found, expected = (latents(name, posterior, device, "float32") for device in (CUDA, CPU))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("name", "posterior"), CASES)
def test_a_half_is_near_float32(name: str, posterior: str, compute_dtype: str) -> None:
    found, expected = latents(name, posterior, CUDA, compute_dtype), latents(name, posterior, CPU, "float32")
    similarity = torch.nn.functional.cosine_similarity(found.flatten(1), expected.flatten(1))
    assert similarity.min() > 0.999
