"""The VAEs, at their true sizes with seeded weights, on frames of 64 pixels."""

import io

import numpy as np
import pytest
import torch
from extractor_contract import ExtractorContract
from PIL import Image

from fovcache.builder.request import EncoderRequest, resolve
from fovcache.errors import EncoderError, UsageError
from fovcache.extract.extractor import Extractor, Item


def pictures(num: int = 3) -> dict[str, bytes]:
    files = {}
    for number in range(num):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3)).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((100, 80), Image.Resampling.BICUBIC).save(buffer, "PNG")
        files[f"{number}.png"] = buffer.getvalue()
    return files


class VaeContract(ExtractorContract):
    """Subclass it with `name`."""

    weights = "random:0"
    size = 64
    name: str

    @pytest.fixture
    def encoder(self) -> str:
        return self.name

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        return pictures()

    def request(self, **options: object) -> EncoderRequest:
        return EncoderRequest(encoder=self.name, weights=self.weights, **options)

    def test_a_latent_has_an_eighth_of_the_frame_s_sides(
        self, extractor: Extractor, items: list[Item], outputs: dict[str, torch.Tensor]
    ) -> None:
        assert outputs["latent"].shape == (len(items), 4, 8, 8)
        wide = torch.rand(1, 3, 24, 40)
        session = extractor.session(["latent"], self.device, "float32")
        assert session.encode(wide)["latent"].shape == (1, 4, 3, 5)

    def test_frames_are_256_pixels_and_latents_are_kept_as_they_are(self) -> None:
        (stills, clips) = resolve(self.request()).each
        assert (stills.spec.size, stills.spec.fit, clips.spec.size, clips.spec.fit) == (256, "crop", 256, "crop")
        assert {feature.pool for each in (stills, clips) for feature in each.features} == {"tokens"}
        assert {feature.layer for feature in stills.features} == {"latent"}

    def test_the_mean_over_space_can_be_asked_for_and_a_class_token_cannot(self) -> None:
        assert resolve(self.request(pool="mean")).each[0].features[0].pool == "mean"
        with pytest.raises(EncoderError, match=f"needs a class token, and {self.name} has none"):
            resolve(self.request(pool="cls"))

    @pytest.mark.parametrize(("size", "nearest"), [(250, "248, 256"), (3, "8"), (65, "64, 72")])
    def test_a_size_that_is_no_multiple_of_8_is_an_error_with_the_nearest(self, size: int, nearest: str) -> None:
        with pytest.raises(EncoderError, match=f"{size} is no multiple of 8, .*; nearest: {nearest}$"):
            resolve(self.request(size=size))

    def test_frames_that_are_no_multiple_of_8_are_an_error(self, extractor: Extractor) -> None:
        session = extractor.session(["latent"], self.device, "float32")
        with pytest.raises(EncoderError, match="frames of 64 × 60 px: 60 is no multiple of 8"):
            session.encode(torch.zeros(1, 3, 64, 60))

    @pytest.mark.parametrize("compute_dtype", ["bfloat16", "float16"])
    def test_a_half_is_near_float32(self, extractor: Extractor, items: list[Item], compute_dtype: str) -> None:
        batch = self.batch(extractor, items[:1])
        latent = extractor.session(["latent"], self.device, compute_dtype).encode(batch)["latent"]
        expected = self.encode(extractor, items[:1])["latent"]
        assert latent.dtype == expected.dtype == torch.float32
        assert not torch.equal(latent, expected)
        similarity = torch.nn.functional.cosine_similarity(latent.flatten(1), expected.flatten(1))
        assert similarity.min() > 0.999

    def test_a_device_without_autocast_is_named(self, extractor: Extractor) -> None:
        with pytest.raises(EncoderError, match="bfloat16: device 'meta' cannot compute in it; use float32"):
            extractor.session(["latent"], torch.device("meta"), "bfloat16")


class TestVaeSd(VaeContract):
    name = "vae-sd"

    def test_the_posterior_is_in_the_key(self) -> None:
        texts = [None, "mean", "mean+logvar", "sample:0", "sample:1"]
        recipes = [resolve(self.request(posterior=text)).each[0].recipe for text in texts]
        assert recipes[0].digest == recipes[1].digest
        assert len({recipe.digest for recipe in recipes}) == 4
        assert [recipe.posterior for recipe in recipes[1:]] == [
            {"kind": "mean"},
            {"kind": "mean+logvar"},
            {"kind": "sample", "seed": 0, "noise": 1},
            {"kind": "sample", "seed": 1, "noise": 1},
        ]


class TestVaeTiny(VaeContract):
    name = "vae-tiny"

    @pytest.mark.parametrize("text", ["mean+logvar", "sample:0"])
    def test_it_has_no_distribution(self, text: str) -> None:
        assert resolve(self.request(posterior="mean")).each[0].recipe == resolve(self.request()).each[0].recipe
        with pytest.raises(UsageError, match="vae-tiny gives one latent and no distribution"):
            resolve(self.request(posterior=text))
