"""The demo's encoder of one's own: a file, its features, and what an edit of it means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fovcache.builder.encoders import ALL, Encoders
from fovcache.builder.report import BuildReport
from fovcache.builder.request import BuildOptions, EncoderRequest
from fovcache.errors import UsageError
from fovcache.maintain.explain import explain

from .build_step import build
from .clips import DIGITS
from .setting import Setting

FILE, EDITED = "encoder.py", "edited/encoder.py"
_EXAMPLE = Path(__file__).with_name("example_encoder.py")
_EDIT = ("torch.relu(", "torch.tanh(")


def write_examples(folder: Path) -> None:
    """Write the example's file and an edit of it. Raises UsageError where the user has changed one."""
    text = _EXAMPLE.read_text()
    _write_example(folder / FILE, text)
    _write_example(folder / EDITED, text.replace(*_EDIT))


def build_own(setting: Setting) -> tuple[BuildReport, dict[str, Any]]:
    """Build with the example's file, and explain what an edit of it would miss."""
    say = setting.say
    say.heading("5. An encoder of your own")
    say.text(
        f"{setting.path(FILE)} is a small convolutional network, yours to copy: a file with a function that returns a "
        "torch module."
    )
    built = build(setting, setting.own(FILE))
    say.text(
        f"{setting.path(EDITED)} is a copy with tanh in place of ReLU: the same file name and weights, other features. "
        "A cache that goes by names would serve the old ones. This is what a build would do, and why:"
    )
    edited = setting.own(EDITED)
    source = setting.path(DIGITS)
    setting.command("fovcache", "explain", source, encoders=edited, cache=setting.path("cache"))
    found = explain(setting.cache.storage, [source], _request(edited), BuildOptions())
    groups = [(count, verdict.state, verdict.field, verdict.reason) for count, verdict in found.groups()]
    say.table((">clips", "state", "field", "reason"), groups)
    names = ("clips", "state", "field", "reason")
    return built, {"misses": found.misses, "groups": [dict(zip(names, group, strict=True)) for group in groups]}


def _request(one: Encoders) -> EncoderRequest:
    return EncoderRequest(
        encoder=one.encoders[0],
        weights=one.weights[ALL],
        layers=tuple(one.layers[ALL]),
        pool=one.pool[ALL],
        **one.common,
    )


def _write_example(path: Path, text: str) -> None:
    """Write a file that the demo runs, unless the user has made it their own."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text)
        temporary.replace(path)
    elif path.read_text() != text:
        raise UsageError(
            f"{path} is not what the demo writes there: keep your version under another name, or give another --out"
        )
