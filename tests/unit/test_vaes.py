"""The VAEs against diffusers' own, their checkpoints, and what is wrong with some."""

import gc
import json
import math
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

from fovcache.errors import LayerError, WeightsError
from fovcache.extract.seeded_init import seeded_tensors
from fovcache.models import vae_sd, vae_tiny
from fovcache.models.autoencoder import Autoencoder, memory_format
from fovcache.models.posterior import frame_noise

CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"
SD = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def kl() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(**SD, scaling_factor=0.13025).eval()


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory: pytest.TempPathFactory, kl: AutoencoderKL) -> Path:
    folder = tmp_path_factory.mktemp("sd")
    kl.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny() -> AutoencoderTiny:
    torch.manual_seed(0)
    return AutoencoderTiny().eval()


@pytest.fixture
def tiny_folder(tmp_path: Path, tiny: AutoencoderTiny) -> Path:
    tiny.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def latents(extractor: Autoencoder, frames: np.ndarray, compute_dtype: str = "float32") -> torch.Tensor:
    batch = extractor.input.prepare(extractor.input.collate([frames]))
    return extractor.session(["latent"], CPU, compute_dtype).encode(batch)["latent"]


def as_diffusers_takes_it(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def change_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def test_vae_sd_gives_diffusers_moments(kl: AutoencoderKL, sd_folder: Path, frames: np.ndarray) -> None:
    with torch.no_grad():
        expected = kl.encode(as_diffusers_takes_it(frames)).latent_dist
    vae = vae_sd.make(str(sd_folder))
    mean = latents(vae, frames)
    torch.testing.assert_close(mean, expected.mean, rtol=1e-4, atol=1e-5)
    both = latents(vae.with_posterior("mean+logvar"), frames)
    torch.testing.assert_close(both, torch.cat([expected.mean, expected.logvar], 1), rtol=1e-4, atol=1e-5)
    assert both.is_contiguous()
    assert mean.is_contiguous()

    sample = latents(vae.with_posterior("sample:3"), frames[[2, 0]])
    noise = (sample - expected.mean[[2, 0]]) / expected.std[[2, 0]]
    for row, frame in zip(noise, frames[[2, 0]], strict=True):
        torch.testing.assert_close(row, torch.from_numpy(frame_noise(frame, 3, (4, 4, 6))), rtol=0, atol=1e-3)


def test_vae_tiny_gives_diffusers_latents(tiny: AutoencoderTiny, tiny_folder: Path, frames: np.ndarray) -> None:
    with torch.no_grad():
        expected = tiny.encode(as_diffusers_takes_it(frames)).latents
        of_other_range = tiny.encode(torch.from_numpy(frames).permute(0, 3, 1, 2) / 255).latents
    found = latents(vae_tiny.make(str(tiny_folder)), frames)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (found - of_other_range).abs().max() > 1e-3


def test_the_network_of_vae_tiny_sees_frames_from_0_to_1(frames: np.ndarray) -> None:
    vae = vae_tiny.make("random:0")
    batch = vae.input.prepare(vae.input.collate([frames]))
    assert torch.equal(batch, torch.from_numpy(frames).permute(0, 3, 1, 2) / 255)


@pytest.mark.parametrize(
    ("make", "model", "config", "num_parameters"),
    [(vae_sd.make, AutoencoderKL, SD, 83_653_863), (vae_tiny.make, AutoencoderTiny, {}, 2_445_063)],
)
def test_the_canonical_state_dict_is_diffusers(
    make: Callable[[str], Autoencoder], model: type[torch.nn.Module], config: dict, num_parameters: int
) -> None:
    shapes = make("random:0").architecture.shapes
    with torch.device("meta"):
        state = model(**config).state_dict()
    assert shapes == {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert sum(map(math.prod, shapes.values())) == num_parameters


def test_seeded_weights_are_those_of_the_whole_model(frames: np.ndarray) -> None:
    """Only the encoder is kept, and has the values that it has beside its decoder."""
    vae = vae_tiny.make("random:3")
    whole = AutoencoderTiny().eval()
    state = seeded_tensors(dict(vae.architecture.shapes), 3)
    whole.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    with torch.no_grad():
        expected = whole.encode(as_diffusers_takes_it(frames)).latents
    torch.testing.assert_close(latents(vae, frames), expected, rtol=1e-4, atol=1e-5)
    assert vae.identity() == vae_tiny.make("random:3").identity()
    assert vae.identity() != vae_tiny.make("random:4").identity()


def test_a_decoder_need_not_be_there_and_attention_may_have_its_old_names(
    sd_folder: Path, tmp_path: Path, frames: np.ndarray
) -> None:
    tensors = {}
    for name, tensor in load_file(sd_folder / WEIGHTS).items():
        for new, old in OLD_NAMES.items():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
        if not name.startswith(("decoder.", "post_quant_conv.")):
            tensors[name] = tensor
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in tensors
    shutil.copy(sd_folder / "config.json", tmp_path)
    save_file(tensors, tmp_path / WEIGHTS)
    assert torch.equal(latents(vae_sd.make(str(tmp_path)), frames), latents(vae_sd.make(str(sd_folder)), frames))


def test_halves_in_a_checkpoint_are_computed_with_in_float32(tiny_folder: Path, frames: np.ndarray) -> None:
    change_tensors(tiny_folder, lambda state: state.update({name: value.half() for name, value in state.items()}))
    halved = vae_tiny.make(str(tiny_folder))
    change_tensors(tiny_folder, lambda state: state.update({name: value.float() for name, value in state.items()}))
    assert torch.equal(latents(halved, frames), latents(vae_tiny.make(str(tiny_folder)), frames))


def test_a_pipeline_s_folder_has_its_vae_inside(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline/model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    shutil.copytree(tiny_folder, tmp_path / "pipeline/vae")
    assert vae_tiny.make(str(tmp_path / "pipeline")).identity() == vae_tiny.make(str(tiny_folder)).identity()


def test_a_pipeline_in_the_hub_cache_has_its_vae_inside(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "hub/models--someone--pipeline"
    shutil.copytree(tiny_folder, repository / "snapshots/0123/vae")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0123")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert vae_tiny.make("someone/pipeline").identity() == vae_tiny.make(str(tiny_folder)).identity()


def test_tensors_that_do_not_fit_are_named(tiny_folder: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        del state["encoder.layers.14.bias"]
        state["encoder.layers.2.weight"] = torch.zeros(64, 64, 1, 1)
        state["encoder.layers.20.weight"] = torch.zeros(3)
        state["decoder.layers.99.weight"] = torch.zeros(3)  # of a part that is not needed

    change_tensors(tiny_folder, change)
    vae = vae_tiny.make(str(tiny_folder))
    with pytest.raises(WeightsError) as caught:
        vae.session(["latent"], CPU, "float32")
    for words in (
        "1 missing: encoder.layers.14.bias",
        "1 of another shape: encoder.layers.2.weight (checkpoint (64, 64, 1, 1), model (64, 64, 3, 3))",
        "1 unexpected: encoder.layers.20.weight",
        "vae-tiny",
    ):
        assert words in str(caught.value)
    assert "decoder" not in str(caught.value)


def test_another_architecture_is_named(tiny_folder: Path) -> None:
    with pytest.raises(WeightsError, match="no vae-sd: _class_name is 'AutoencoderTiny', expected 'AutoencoderKL'"):
        vae_sd.make(str(tiny_folder))
    change_config(tiny_folder, latent_channels=16)
    with pytest.raises(WeightsError, match="no vae-tiny: latent_channels is 16, expected 4"):
        vae_tiny.make(str(tiny_folder))
    change_config(tiny_folder, latent_channels=4, scaling_factor="big")
    with pytest.raises(WeightsError, match="scaling_factor is 'big', expected a number"):
        vae_tiny.make(str(tiny_folder))


def test_the_scaling_factor_is_in_the_recipe_and_not_in_the_latents(
    sd_folder: Path, tiny_folder: Path, frames: np.ndarray
) -> None:
    assert vae_sd.make("random:0").identity()["scaling_factor"] == 0.18215
    assert vae_sd.make(str(sd_folder)).identity()["scaling_factor"] == 0.13025
    before = vae_tiny.make(str(tiny_folder))
    assert (before.identity()["scaling_factor"], before.identity()["shift_factor"]) == (1.0, 0.0)
    change_config(tiny_folder, scaling_factor=2.0, shift_factor=0.5)
    after = vae_tiny.make(str(tiny_folder))
    assert (after.identity()["scaling_factor"], after.identity()["shift_factor"]) == (2.0, 0.5)
    assert torch.equal(latents(before, frames), latents(after, frames))


def test_there_is_one_layer() -> None:
    vae = vae_tiny.make("random:0")
    assert vae.layers() == vae.default_layers() == ("latent",)
    with pytest.raises(LayerError, match="no layer matches 'latents'; nearest: latent"):
        vae.session(["latents"], CPU, "float32")


def test_a_closed_session_lets_the_model_go() -> None:
    session = vae_tiny.make("random:0").session(["latent"], CPU, "float32")
    network = weakref.ref(session._network)
    session.close()
    gc.collect()
    assert network() is None


def test_convolutions_get_the_layout_that_is_faster() -> None:
    session = vae_tiny.make("random:0").session(["latent"], CPU, "float32")
    assert session._network.encoder.layers[2].weight.is_contiguous(memory_format=torch.channels_last)
    cuda = torch.device("cuda")
    assert memory_format(cuda, "bfloat16") == memory_format(cuda, "float16") == torch.channels_last
    assert memory_format(cuda, "float32") == memory_format(torch.device("mps"), "float16") == torch.contiguous_format
