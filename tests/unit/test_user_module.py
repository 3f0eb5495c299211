"""A user's encoder file: what it may do, and one clear line for what it may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fovcache.errors import EncoderError, LayerError
from fovcache.extract.extractor import resolve_extractor
from fovcache.extract.user_module import UserModule

Write = Callable[..., str]
CPU = torch.device("cpu")
NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU(inplace=True)
        self.b = nn.Conv2d(4, 5, 3)
        {init}

    def forward(self, x):
        {forward}


def make():
    return Net()
"""
FORWARD = "return self.b(self.act(self.a(x)))"


def net(encoder_file: Write, *, init: str = "pass", forward: str = FORWARD) -> UserModule:
    return UserModule.load(encoder_file(NET.format(init=init, forward=forward)))


def encode(module: UserModule, *layers: str, batch: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    session = module.session(layers, CPU, "float32")
    try:
        return dict(session.encode(torch.rand(2, 3, 12, 12) if batch is None else batch))
    finally:
        session.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def make():\n    raise KeyError('no table')\n", r"make raised: KeyError: 'no table'"),
        ("def make():\n    return 3\n", r"returned a int, expected a torch\.nn\.Module"),
        ("def makes():\n    pass\n", r"no function 'make'; nearest: makes"),
        ("make = 3\n", r"no function 'make'"),
        ("raise RuntimeError('at import')\n", r"raised while it was loaded: RuntimeError: at import"),
        ("def make(:\n", r"not valid Python"),
        ("import nothing_of_that_name\n", r"nothing_of_that_name"),
        (
            "def make():\n    m = nn.Identity()\n    m.image_size = 'big'\n    return m\n",
            r"image_size is 'big', expected int",
        ),
        (
            "def make():\n    m = nn.Identity()\n    m.image_mean = (1, 2)\n    return m\n",
            r"image_mean .*three numbers",
        ),
        ("def make():\n    m = nn.Identity()\n    m.image_std = (0, 1, 1)\n    return m\n", r"image_std .*positive"),
        ("def make():\n    m = nn.Identity()\n    m.version = 1.5\n    return m\n", r"version is 1\.5"),
        ("def make():\n    m = nn.Sequential(nn.ReLU())\n    m.layers = ['1']\n    return m\n", r"`layers` names '1'"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_to_be_in_one_line(encoder_file: Write, text: str, said: str) -> None:
    with pytest.raises(EncoderError, match=said) as caught:
        UserModule.load(encoder_file(text)).layers()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoder", ["nowhere.py:make", "nowhere.py", "nowhere.py:", "nowhere.py:not a name"])
def test_an_encoder_that_is_not_there_or_not_named_is_an_error(encoder: str) -> None:
    with pytest.raises(EncoderError, match=r"nowhere\.py"):
        resolve_extractor(encoder)


def test_an_unknown_name_is_an_error_with_the_nearest() -> None:
    with pytest.raises(EncoderError, match="nearest: pixels"):
        resolve_extractor("pixel")


def test_layers_are_the_outputs_as_they_left_the_module(encoder_file: Write) -> None:
    module = net(encoder_file)
    batch = torch.rand(2, 3, 12, 12)
    outputs = encode(module, "a", "act", "b", batch=batch)
    assert (outputs["a"] < 0).any(), "the in-place ReLU that follows must not reach what was read"
    assert torch.equal(outputs["act"], outputs["a"].relu())
    assert torch.equal(outputs["b"], module._module(batch))


def test_nothing_after_the_deepest_layer_runs_once_it_is_known(encoder_file: Write) -> None:
    module = net(
        encoder_file,
        forward="x = self.act(self.a(x))\n        self._passes += 1\n        return self.b(x)",
        init="self._passes = 0",
    )
    session = module.session(["a"], CPU, "float32")
    for _ in range(3):
        session.encode(torch.rand(1, 3, 8, 8))
    assert module._module._passes == 1


@pytest.mark.parametrize(
    ("forward", "layer", "said"),
    [
        ("return self.b(self.a(self.act(self.act(x))))", "act", "run 2 times"),
        ("return self.a(x)", "b", "not run by the forward pass"),
        (
            "return self.b(self.a(x.unsqueeze(0)[0][:1]).expand(1, -1, -1, -1))",
            "b",
            r"returns shape \(1, 5.* batch of 2",
        ),
        ("self.a(x)\n        raise ValueError('odd size\\nsecond line')", "a", r"ValueError: odd size$"),
    ],
)
def test_a_layer_without_one_output_per_sample_is_refused(
    encoder_file: Write, forward: str, layer: str, said: str
) -> None:
    with pytest.raises(EncoderError, match=said):
        encode(net(encoder_file, forward=forward), layer)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return x, x", r"returns a tuple \(tensor \(2, 3, 12, 12\), .*expected one tensor"),
        ("return {'x': x}", "returns a dict"),
        ("return x.argmax(1)", "returns torch.int64, expected a floating-point tensor"),
        ("return x.mean((1, 2, 3))", "at least two dimensions"),
        ("return x[:, :0]", "no number"),
        ("return None", "NoneType"),
    ],
)
def test_a_layer_that_returns_anything_but_a_tensor_is_refused(encoder_file: Write, body: str, said: str) -> None:
    text = f"""
class Odd(nn.Module):
    def forward(self, x):
        {body}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.odd = Odd()

    def forward(self, x):
        return self.odd(x)


def make():
    return Net()
"""
    with pytest.raises(LayerError, match=said):
        encode(UserModule.load(encoder_file(text)), "odd")


def test_an_unknown_layer_names_the_nearest_and_without_layers_all_are_listed(encoder_file: Write) -> None:
    module = net(encoder_file)
    with pytest.raises(LayerError, match="'ac'; nearest: a"):
        module.session(["ac"], CPU, "float32")
    with pytest.raises(EncoderError, match="there are: a, act, b"):
        module.default_layers()


def test_two_encoders_with_helpers_of_one_name_do_not_mix(tmp_path: Path, write_encoder: Write) -> None:
    text = "from helpers import width\n\n\ndef make():\n    return nn.Sequential(nn.Conv2d(3, width, 1))\n"
    widths = {}
    for number in (3, 7):
        encoder = write_encoder(tmp_path / str(number), text, {"helpers.py": f"width = {number}\n"})
        widths[number] = encode(UserModule.load(encoder), "0")["0"].shape[1]
    assert widths == {3: 3, 7: 7}


def test_the_module_is_in_evaluation_mode_without_gradients(encoder_file: Write) -> None:
    module = net(encoder_file, init="self.drop = nn.Dropout(0.5)", forward="return self.drop(self.b(self.a(x)))")
    batch = torch.rand(2, 3, 12, 12)
    first, second = (encode(module, "drop", batch=batch)["drop"] for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad


def test_a_layer_that_only_some_batches_reach_is_refused(encoder_file: Write) -> None:
    module = net(encoder_file, forward="x = self.a(x)\n        return self.b(x) if x.mean() > 0 else x")
    module._module.a.weight.fill_(1)
    session = module.session(["b"], CPU, "float32")
    session.encode(torch.ones(2, 3, 12, 12))
    with pytest.raises(LayerError, match="'b' ran for the first batch and not for a later one"):
        session.encode(-torch.ones(2, 3, 12, 12))


def test_a_pass_through_the_module_itself_is_not_a_sessions(encoder_file: Write) -> None:
    module = net(encoder_file)
    session = module.session(["a"], CPU, "float32")
    session.encode(torch.rand(2, 3, 12, 12))
    assert module._module(torch.rand(2, 3, 12, 12)).shape == (2, 5, 8, 8)  # whole, though the session is open


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("nn.LazyConv2d(3, 1)", r"'0\.weight' is lazy and has no data"),
        ("nn.Conv2d(3, 3, 1, device='meta')", r"'0\.weight' lies on the meta device"),
    ],
)
def test_a_module_without_data_is_refused_whatever_its_weights(encoder_file: Write, layer: str, said: str) -> None:
    encoder = encoder_file(f"def make():\n    return nn.Sequential({layer})\n")
    for weights in (None, "random:0"):
        with pytest.raises(EncoderError, match=said):
            UserModule.load(encoder, weights)


@pytest.mark.parametrize("place", ["raise SystemExit('usage: train.py DATA')", "def make():\n    raise SystemExit(2)"])
def test_a_file_that_exits_is_an_error_and_no_exit(encoder_file: Write, place: str) -> None:
    with pytest.raises(EncoderError, match=r"raised.*: SystemExit: (usage|2)"):
        UserModule.load(encoder_file(f"{place}\n"))
