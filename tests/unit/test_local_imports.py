"""Modules that a user's encoder imports: what is keyed is what runs, and this process keeps its own."""

from __future__ import annotations

import importlib
import os
import py_compile
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fovcache
from fovcache.extract.user_module import UserModule

Write = Callable[..., str]
NET = """
{imports}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Identity()

    def forward(self, x):
        {late}
        return self.out(x * helper.GAIN)


def make():
    return Net()
"""


def gain(encoder: str) -> float:
    """What the encoder multiplies by, as it runs."""
    session = UserModule.load(encoder).session(["out"], torch.device("cpu"), "float32")
    return session.encode(torch.ones(1, 3, 2, 2))["out"].mean().item()


def source(encoder: str) -> dict[str, str]:
    return dict(UserModule.load(encoder).identity()["source"])


def net(imports: str = "", late: str = "pass") -> str:
    return NET.format(imports=imports, late=late)


def rewrite(path: Path, text: str) -> None:
    """An edit that size and time do not show."""
    stat = path.stat()
    assert len(text) == stat.st_size
    path.write_text(text)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("imports", "late", "helper"),
    [
        ("import helper", "pass", "helper.py"),
        ("", "import helper", "helper.py"),
        ("from package import helper", "pass", "package/helper.py"),
        ("import package.helper as helper", "pass", "package/helper.py"),
        ("from regular import helper", "pass", "regular/helper.py"),
        ("from regular.deep import helper", "pass", "regular/deep/helper.py"),
        ("import importlib\nhelper = importlib.import_module('helper')", "pass", "helper.py"),
    ],
)
def test_an_edit_of_a_helper_is_keyed_and_runs(
    tmp_path: Path, write_encoder: Write, imports: str, late: str, helper: str
) -> None:
    packages = {"regular/__init__.py": "", "regular/deep/__init__.py": ""}
    encoder = write_encoder(tmp_path, net(imports, late), {**packages, helper: "GAIN = 2.0\n"})
    name = helper.removesuffix(".py").replace("/", ".")
    before = source(encoder)
    assert name in before
    assert gain(encoder) == 2
    rewrite(tmp_path / helper, "GAIN = 3.0\n")
    assert gain(encoder) == 3
    assert {key for key, digest in source(encoder).items() if before[key] != digest} == {name}


def test_a_relative_import_in_a_package_is_keyed(tmp_path: Path, write_encoder: Write) -> None:
    files = {
        "package/__init__.py": "from .helper import GAIN\n",
        "package/helper.py": "def f():\n    from . import other\n\nGAIN = 2.0\n",
        "package/other.py": "",
        "package/unused.py": "",
        "unused.py": "",
    }
    encoder = write_encoder(tmp_path, net("import package as helper"), files)
    assert set(source(encoder)) == {"encoder.py", "package", "package.helper", "package.other"}


def test_a_helper_that_this_process_imported_earlier_is_read_again_and_its_own_stays(
    tmp_path: Path, write_encoder: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = write_encoder(
        tmp_path, net("import helper_of_a_script as helper"), {"helper_of_a_script.py": "GAIN = 2.0\n"}
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("helper_of_a_script")
    monkeypatch.setitem(sys.modules, "helper_of_a_script", own)
    rewrite(tmp_path / "helper_of_a_script.py", "GAIN = 3.0\n")
    assert gain(encoder) == 3
    assert sys.modules["helper_of_a_script"] is own
    assert own.GAIN == 2.0


def test_a_helper_elsewhere_on_the_path_is_keyed_and_read_again(
    tmp_path: Path, write_encoder: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "library").mkdir()
    library = tmp_path / "library" / "library_of_mine.py"
    library.write_text("GAIN = 2.0\n")
    monkeypatch.syspath_prepend(library.parent)
    encoder = write_encoder(tmp_path / "encoder", net("import library_of_mine as helper"))
    before = source(encoder)["library_of_mine"]
    assert gain(encoder) == 2
    rewrite(library, "GAIN = 3.0\n")
    assert gain(encoder) == 3
    assert source(encoder)["library_of_mine"] != before


def test_an_old_bytecode_cache_is_not_believed(tmp_path: Path, write_encoder: Write) -> None:
    encoder = write_encoder(tmp_path, net("import helper"), {"helper.py": "GAIN = 2.0\n"})
    py_compile.compile(str(tmp_path / "helper.py"))
    rewrite(tmp_path / "helper.py", "GAIN = 3.0\n")
    plain = [sys.executable, "-c", "import helper; print(helper.GAIN)"]
    done = subprocess.run(plain, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2.0", "Python itself is fooled, or this test shows nothing"
    assert gain(encoder) == 3


def test_nothing_is_left_behind(tmp_path: Path, write_encoder: Write) -> None:
    helpers = {"helper.py": "GAIN = 2.0\n", "spaces/inner.py": ""}
    encoder = write_encoder(tmp_path, net("import helper\nimport spaces.inner"), helpers)
    modules, path, finders = set(sys.modules), list(sys.path), list(sys.meta_path)
    assert gain(encoder) == 2
    broken = write_encoder(tmp_path / "broken", "import helper\nraise RuntimeError\n", {"helper.py": ""})
    with pytest.raises(fovcache.FovcacheError):
        UserModule.load(broken)
    assert (set(sys.modules), sys.path, sys.meta_path) == (modules, path, finders)


def test_installed_libraries_are_neither_keyed_nor_imported_again(tmp_path: Path, write_encoder: Write) -> None:
    (tmp_path / "torch").mkdir()  # a folder of data, say; Python does not take it for the library
    (tmp_path / "torch" / "notes.py").write_text("")
    helper = "import json\nimport torch\nimport numpy\nimport fovcache\nGAIN = 2.0\n"
    before = (sys.modules["torch"], sys.modules["fovcache"])
    encoder = write_encoder(tmp_path, net("import helper"), {"helper.py": helper})
    assert set(source(encoder)) == {"encoder.py", "helper"}
    assert gain(encoder) == 2
    assert (sys.modules["torch"], sys.modules["fovcache"]) == before


def test_dataclasses_with_annotations_as_text_work(tmp_path: Path, write_encoder: Write) -> None:
    helper = (
        "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass C:\n    gain: float\n"
    )
    encoder = write_encoder(tmp_path, net("import helper\nhelper.GAIN = helper.C(2.0).gain"), {"helper.py": helper})
    assert gain(encoder) == 2
