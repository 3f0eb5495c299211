"""What is taken of a VAE's posterior: the mean, the mean and log-variance, or a sample that a frame always gets."""

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from fovcache.errors import UsageError
from fovcache.models.posterior import Posterior, frame_noise


def frames(num: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, side, side, 3)).astype(np.uint8)


def moments(num: int, spread: float = 1.0) -> torch.Tensor:
    return torch.randn(num, 8, 4, 4, generator=torch.Generator().manual_seed(0)) * spread


def taken(text: str, values: torch.Tensor, pixels: np.ndarray) -> torch.Tensor:
    return Posterior.parse(text).latent(values, lambda: torch.from_numpy(pixels))


@pytest.mark.parametrize("text", ["", "Mean", "mode", "sample", "sample:", "sample:-1", "sample:x", "sample:1.5"])
def test_an_unknown_posterior_is_an_error_that_lists_what_there_is(text: str) -> None:
    with pytest.raises(UsageError, match=r"is unknown; there are: mean, mean\+logvar, sample:SEED"):
        Posterior.parse(text)


def test_a_seed_goes_with_a_sample() -> None:
    assert Posterior.parse("sample:7") == Posterior(kind="sample", seed=7)
    for kind, seed in (("sample", None), ("mean", 7)):
        with pytest.raises(UsageError, match="a seed goes with 'sample' alone"):
            Posterior(kind=kind, seed=seed)


def test_mean_and_log_variance_are_diffusers_own() -> None:
    values = moments(3, spread=30)  # beyond both ends of the clamp
    expected = DiagonalGaussianDistribution(values)
    assert torch.equal(taken("mean", values, frames(3)), expected.mean)
    both = taken("mean+logvar", values, frames(3))
    assert torch.equal(both, torch.cat([expected.mean, expected.logvar], dim=1))
    assert (both[:, 4:].min(), both[:, 4:].max()) == (-30, 20)


def test_a_sample_is_the_mean_and_noise_times_the_deviation() -> None:
    values, pixels = moments(3), frames(3)
    expected = DiagonalGaussianDistribution(values)
    noise = np.stack([frame_noise(frame, 5, (4, 4, 4)) for frame in pixels])
    torch.testing.assert_close(
        taken("sample:5", values, pixels), expected.mean + expected.std * torch.from_numpy(noise), rtol=0, atol=1e-6
    )


def test_samples_are_distributed_as_diffusers_samples_are() -> None:
    values = moments(1).expand(20_000, -1, -1, -1)
    numbered = np.zeros((20_000, 1, 1, 3), np.uint8)
    numbered[:, 0, 0, :2] = np.arange(20_000)[:, None] // (1, 256) % 256
    drawn = taken("sample:0", values, numbered)
    expected = DiagonalGaussianDistribution(values[:1])
    standard = (drawn - expected.mean) / expected.std
    assert standard.mean(dim=0).abs().max() < 5 / 20_000**0.5
    assert (standard.std(dim=0) - 1).abs().max() < 5 / 40_000**0.5


def test_noise_is_of_the_frame_and_the_seed_and_not_of_its_place() -> None:
    values, pixels = moments(1).expand(4, -1, -1, -1), frames(4)
    together = taken("sample:0", values, pixels)
    order = [2, 0, 2]
    assert torch.equal(taken("sample:0", values[:3], pixels[order]), together[order])
    assert torch.equal(taken("sample:0", values[:1], pixels[3:]), together[3:])
    assert not torch.equal(taken("sample:1", values, pixels), together)


def test_noise_differs_by_one_level_of_one_pixel_and_by_the_frame_s_shape() -> None:
    (frame,) = frames(1)
    other = frame.copy()
    other[3, 5, 1] ^= 1
    noises = [frame_noise(each, 0, (4, 4)) for each in (frame, other, frame.reshape(4, 16, 3))]
    assert len({noise.tobytes() for noise in noises}) == 3
    assert np.array_equal(frame_noise(frame.copy(order="F"), 0, (4, 4)), noises[0])


def test_the_rule_of_the_noise_stays() -> None:
    """It is a part of keys: another draw needs another NOISE_RULE."""
    frame = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3)
    expected = [0.19100317, -0.17314427, -1.13323855, 0.44482121]
    assert np.allclose(frame_noise(frame, 7, (4,)), expected, rtol=0, atol=1e-6)
