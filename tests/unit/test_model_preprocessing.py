"""Frames are made as the model's own image processor makes them; what it asks for besides is refused by name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fovcache
from fovcache.builder.request import EncoderRequest, resolve
from fovcache.decode.sampling import Sampling
from fovcache.errors import EncoderError, WeightsError
from fovcache.extract.clips import ClipInput
from fovcache.extract.extractor import Extractor, resolve_extractor
from fovcache.models.preprocessing import PatchInput, frame_input
from fovcache.models.vision_transformer import VisionTransformer

PROCESSORS = {
    "dinov2-small": "BitImageProcessor",
    "dinov2-with-registers-small": "BitImageProcessor",
    "siglip-base": "SiglipImageProcessor",
    "siglip-so400m": "SiglipImageProcessor",
    "vit-tiny": "ViTImageProcessor",
}
SIZES = [(333, 517), (640, 357), (100, 130), (257, 256)]
DINOV2: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_convert_rgb": True,
    "image_processor_type": "BitImageProcessor",
}


def photograph(height: int, width: int) -> np.ndarray:
    """Waves, edges, fine texture and flat areas: uint8 [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(x / 7 + y / 13), 128 + 100 * np.cos(x / 3), (x * y) % 256]
    pixels = np.stack(waves, axis=-1).clip(0, 255).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (height // 3, width // 2, 3))
    pixels[: height // 3, width // 4 : width // 4 + width // 2] = noise
    pixels[height // 2 :, : width // 3] = (200, 30, 90)
    return pixels


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def theirs(extractor: Extractor, images: list[np.ndarray]) -> torch.Tensor:
    """What transformers' own processor makes of RGB images, without torchvision."""
    import transformers

    assert isinstance(extractor, VisionTransformer)
    name = PROCESSORS[extractor.name]
    kind = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    processor = kind(**extractor.processor)
    return torch.cat([processor(Image.fromarray(image), return_tensors="pt")["pixel_values"] for image in images])


def similarity(a: torch.Tensor, b: torch.Tensor) -> float:
    """The least cosine of a row."""
    return torch.nn.functional.cosine_similarity(a.double().flatten(1), b.double().flatten(1)).min().item()


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_the_models_own_processor(name: str) -> None:
    extractor = resolve_extractor(name, "random:0")
    images = [photograph(*size) for size in SIZES]
    spec = extractor.input
    ours = spec.prepare(spec.collate([spec.read(png(image), "a.png") for image in images]))
    expected = theirs(extractor, images)
    side = 384 if name == "siglip-so400m" else 224
    assert ours.shape == expected.shape == (len(SIZES), 3, side, side)
    assert similarity(ours, expected) >= 0.9999


@pytest.mark.needs_shared
@pytest.mark.parametrize("name", ["dinov2-small", "vit-tiny"])
def test_frames_of_real_clips_and_their_features_are_close_to_the_processors(name: str, shared: Path) -> None:
    extractor = resolve_extractor(name, "random:0")
    assert isinstance(extractor.input, PatchInput)
    spec = ClipInput.like(extractor.input, sampling=Sampling(num_frames=2), backend="pyav")
    ours, expected = [], []
    for clip in ("01_dog.mp4", "nasa_13013.mp4", "flipping_a_pancake.mkv"):
        path = shared / "data" / "clips" / clip
        ours.append(spec.prepare(spec.collate([spec.read(path.read_bytes(), clip)])))
        frames, _ = fovcache.read_clip(path, num_frames=2, size=None)
        expected.append(theirs(extractor, list(frames)))
    assert similarity(torch.cat(ours), torch.cat(expected)) >= 0.999
    session = extractor.session(extractor.default_layers(), torch.device("cpu"), "float32")
    ((_, a),) = session.encode(torch.cat(ours)).items()
    ((_, b),) = session.encode(torch.cat(expected)).items()
    assert similarity(a[:, 0], b[:, 0]) >= 0.999
    assert similarity(a, b) >= 0.999


def test_all_of_it_is_in_the_recipe() -> None:
    (stills, clips) = (
        each.recipe.input for each in resolve(EncoderRequest(encoder="dinov2-small", weights="random:0")).each
    )
    for document in (stills, clips):
        assert {"size": 224, "fit": "crop", "short_side": 256}.items() <= document["clip"].items()
        assert "bicubic" in document["clip"]["interpolation"]
        assert document["preprocessing"] == {
            "scale": "1/255",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        }


@pytest.mark.parametrize(("size", "nearest"), [(225, "224, 238"), (10, "14"), (223, "210, 224")])
def test_a_size_of_no_whole_patches_is_refused_before_anything_is_read(size: int, nearest: str) -> None:
    with pytest.raises(EncoderError, match=f"{size} is no multiple of 14, the encoder's patch; nearest: {nearest}$"):
        resolve(EncoderRequest(encoder="dinov2-small", weights="random:0", size=size))


def test_the_size_that_a_model_was_trained_at_is_taken_though_it_is_no_whole_number_of_patches() -> None:
    spec = resolve_extractor("siglip-so400m", "random:0").input
    assert isinstance(spec, PatchInput)
    assert (spec.size, spec.size % spec.patch) == (384, 6)


def made(**changes: Any) -> PatchInput:
    return frame_input(DINOV2 | changes, patch=14, trained_size=518, label="weights DIR")


def test_what_a_configuration_may_ask_for() -> None:
    assert (made().size, made().fit, made().short_side, made().interpolation) == (224, "crop", 256, "bicubic")
    flat = made(size={"height": 224, "width": 224}, do_center_crop=False, resample=2)
    assert (flat.size, flat.fit, flat.short_side, flat.interpolation) == (
        224,
        "squash",
        None,
        "bilinear",
    )
    assert made(size=256) == made()
    assert made(size=224, do_center_crop=False).fit == "squash"
    assert made(size={"shortest_edge": 224}).short_side is None
    assert made(do_normalize=False).mean is None


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("do_resize", {"do_resize": False}),
        ("do_rescale", {"do_rescale": False}),
        ("rescale_factor", {"rescale_factor": 1 / 127.5}),
        ("rescale_factor", {"rescale_factor": "1/255"}),
        ("resample", {"resample": 1}),
        ("do_pad", {"do_pad": True}),
        ("do_flip_channel_order", {"do_flip_channel_order": True}),
        ("do_center_crop", {"do_center_crop": False}),
        ("crop_size", {"crop_size": {"height": 224, "width": 196}}),
        ("crop_size", {"crop_size": None}),
        ("size", {"size": {"shortest_edge": 200}}),
        ("size", {"size": {"longest_edge": 256}}),
        ("size", {"size": {"height": 256, "width": 224}}),
        ("size", {"size": "large"}),
        ("crop_size", {"size": {"height": 256, "width": 256}}),
        ("image_mean", {"image_mean": [0.5]}),
        ("image_std", {"image_std": "half"}),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=rf"^weights DIR: preprocessor_config.json has {field} .*, expected "):
        made(**changes)
