"""The fingerprint of a module: two that compute different things never share one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fovcache.errors import FingerprintError
from fovcache.extract.user_module import UserModule

NET = """
import enum, functools, math
import numpy as np

VALUE = os.environ["TEST_VALUE"]
NUMBER = float(VALUE) if VALUE.replace(".", "").isdigit() else 0.0


class Mode(enum.Enum):
    A = "1"
    B = "2"


class Box:
    def __init__(self, value):
        self.value = value

    def apply(self, x):
        return x


def scaled(x, scale=1.0):
    return x * scale


{top}


class Net(nn.Module):
    {body}

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(2, 2)
        self.two = nn.Linear(2, 2)
        {init}
        for parameter in self.parameters():
            nn.init.ones_(parameter)

    def forward(self, x):
        return x


def make():
    net = Net()
    {after}
    return net
"""


@pytest.fixture
def state(encoder_file: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`state(value, init="…", …)`: the state digest of the net, which finds `value` in its environment."""

    def digest(value: str, top: str = "", body: str = "pass", init: str = "pass", after: str = "pass") -> str:
        monkeypatch.setenv("TEST_VALUE", value)
        encoder = encoder_file(NET.replace("VALUE = os.environ", "_V = VALUE = os.environ").format(**locals()))
        return str(UserModule.load(encoder).identity()["state"])

    return digest


# Every line depends on the environment alone, so the source says nothing. `del VALUE, …` takes away what would differ
# anyway: the constants of the file, which are keyed too.
FORGET = "global VALUE, NUMBER, _V; VALUE = NUMBER = _V = None"
DECIDING = {
    "a number": "net.x = NUMBER",
    "a private number": "net._x = NUMBER",
    "a text": "net.x = VALUE",
    "a text with a slash": "net.x = VALUE + '/std'",
    "a flag": "net.x = NUMBER == 1",
    "a tuple": "net.x = (1, [NUMBER])",
    "a dict": "net.x = {'a': NUMBER}",
    "a set": "net.x = {NUMBER, 5}",
    "an infinity or not": "net.x = math.inf if NUMBER == 1 else -math.inf",
    "a large integer": "net.x = 2**60 + int(NUMBER)",
    "an enum": "net.x = Mode(VALUE)",
    "a dtype": "net.x = torch.float32 if NUMBER == 1 else torch.float16",
    "an array": "net.x = np.full(3, NUMBER)",
    "an array's shape": "net.x = np.zeros((int(NUMBER), 2 // int(NUMBER)))",
    "a numpy scalar": "net.x = np.float32(NUMBER)",
    "a tensor": "net.x = torch.tensor(NUMBER)",
    "a private tensor": "net._x = torch.tensor(NUMBER)",
    "a tensor in a list": "net.x = [torch.tensor(NUMBER)]",
    "a tensor's dtype": "net.x = torch.zeros(1, dtype=torch.int32 if NUMBER == 1 else torch.float32)",
    "a buffer": "net.register_buffer('x', torch.tensor(NUMBER))",
    "a buffer that is not saved": "net.register_buffer('x', torch.tensor(NUMBER), persistent=False)",
    "a function": "net.x = torch.relu if NUMBER == 1 else torch.tanh",
    "a function of torch that is a closure": "F = nn.functional; net.x = F.max_pool2d if NUMBER == 1 else F.max_pool1d",
    "a default argument": "net.x = lambda x, scale=NUMBER: x * scale",
    "a keyword default": "exec('def f(x, *, s=n): return x', d := dict(n=NUMBER)); net.x = d['f']",
    "a partial": "net.x = functools.partial(scaled, scale=NUMBER)",
    "a class": "net.x = nn.ReLU if NUMBER == 1 else nn.GELU",
    "the kind of a layer": "net.two = nn.ReLU() if NUMBER == 1 else nn.GELU()",
    "a layer's setting": "net.two = nn.LeakyReLU(NUMBER)",
    "a module in a plain list": "net.x = [nn.PReLU(init=NUMBER)]",
    "a module in a dict": "net.x = {1: nn.ModuleList([nn.PReLU(init=NUMBER)])}",
    "which submodules a list names": "net.x = [net.one, net.two][:: 1 if NUMBER == 1 else -1]",
    "which module a method is of": "net.x = (net.one if NUMBER == 1 else net.two).forward",
    "a hook": "net.one.register_forward_hook(functools.partial(scaled, scale=NUMBER))",
    "a hook before": "net.one.register_forward_pre_hook(functools.partial(scaled, scale=NUMBER))",
}


@pytest.mark.parametrize("line", DECIDING.values(), ids=DECIDING.keys())
def test_what_decides_the_output_is_in_the_fingerprint(state: Callable[..., str], line: str) -> None:
    after = f"global VALUE, NUMBER, _V; {line}; VALUE = NUMBER = _V = None"
    one, two = state("1", after=after), state("2", after=after)
    assert one != two
    assert state("1", after=after) == one


@pytest.mark.parametrize(
    "place",
    [
        {"body": "gain = NUMBER", "after": FORGET},
        {"top": "GAIN = NUMBER", "after": FORGET},
        {"top": "_GAIN = {'gain': [NUMBER]}", "after": FORGET},
    ],
    ids=["an attribute of the class", "a constant", "a private constant"],
)
def test_what_stands_outside_the_module_is_in_the_fingerprint(state: Callable[..., str], place: dict[str, str]) -> None:
    assert state("1", **place) != state("2", **place)
    assert state("1", after=FORGET) == state("2", after=FORGET)


@pytest.mark.parametrize(
    "line",
    [
        "net.x = VALUE",
        "net.x = [VALUE]",
        "net.x = {'weights': VALUE}",
    ],
)
@pytest.mark.parametrize(
    ("one", "two"),
    [("/data/a", "/mnt/b"), ("~/a", "~/b"), ("../a", "../b"), ("C:\\a", "D:\\b"), ("\\\\host\\a", "/a")],
)
def test_paths_are_not_in_the_fingerprint(state: Callable[..., str], line: str, one: str, two: str) -> None:
    assert state(one, after=line) == state(two, after=line)


def test_path_objects_are_not_in_the_fingerprint(state: Callable[..., str]) -> None:
    after = "from pathlib import Path; net.x = Path(VALUE) / 'weights'"
    assert state("/data", after=after) == state("/mnt", after=after)


@pytest.mark.parametrize(("one", "two"), [("cpu", "cuda"), ("cuda:0", "cuda:1")])
def test_devices_are_not_in_the_fingerprint(state: Callable[..., str], one: str, two: str) -> None:
    after = "net.x = VALUE; net.y = torch.device(VALUE)"
    assert state(one, after=after) == state(two, after=after)


def test_the_mode_is_not_in_the_fingerprint(state: Callable[..., str]) -> None:
    assert state("1", after="net.train(True)") == state("1", after="net.train(False)")


UNKNOWN = {
    "a closure": ("net.x = (lambda scale: lambda x: x * scale)(NUMBER)", "'x' is the closure"),
    "an object": ("net.x = Box(NUMBER)", "'x' is an object of class Box"),
    "an object in a dict": ("net.x = {'box': Box(NUMBER)}", "'x' is an object of class Box"),
    "a method of an object": ("net.x = Box(NUMBER).apply", "'x' is an object of class Box"),
    "an object of a library": ("net.x = os.environ", "'x' is an object of class _Environ"),
    "a random generator": ("net.x = torch.Generator()", "'x' is an object of class Generator"),
    "a list without end": ("net.x = []; net.x.append(net.x)", "'x' is nested without end"),
    "an array of objects": ("net.x = np.array([Box(1)])", "'x' is a numpy array of objects"),
    "a closure for forward": ("net.forward = (lambda scale: lambda x: x * scale)(NUMBER)", "'forward' is the closure"),
    "a closure on a layer of torch": (
        "net.one.forward = (lambda s: lambda x: x * s)(NUMBER)",
        "'one.forward' is the cl",
    ),
    "an object on a layer of torch": ("net.one.box = Box(NUMBER)", "'one.box' is an object of class Box"),
    "a closure as a hook": (
        "net.one.register_forward_hook((lambda s: lambda m, a, o: o * s)(NUMBER))",
        "hook.*closure",
    ),
}


@pytest.mark.parametrize(("line", "said"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_has_no_fingerprint_is_an_error_that_names_it(state: Callable[..., str], line: str, said: str) -> None:
    with pytest.raises(FingerprintError, match=said) as caught:
        state("1", after=line)
    assert "`version =" in str(caught.value)
    state("1", after=f"{line}; net.version = '3'")


def test_a_private_name_says_that_an_object_decides_nothing(state: Callable[..., str]) -> None:
    state("1", after="net._x = Box(NUMBER); net._log = print")


def test_a_librarys_own_objects_are_passed_over(state: Callable[..., str]) -> None:
    state("1", after="net.one.x = os.environ")


MOVED = """
import helper

HERE = __file__


def make():
    net = nn.Sequential(nn.PReLU())
    net.helper = helper.f
    net.weights = os.path.join(os.path.dirname(__file__), "weights.safetensors")
    return net
"""


def test_a_moved_encoder_has_the_same_fingerprint(tmp_path: Path, write_encoder: Callable[..., str]) -> None:
    helpers = {"helper.py": "def f(x):\n    return x\n"}
    places = [write_encoder(tmp_path / place, MOVED, helpers) for place in ("here", "there/deep")]
    assert len({UserModule.load(encoder).identity()["state"] for encoder in places}) == 1
