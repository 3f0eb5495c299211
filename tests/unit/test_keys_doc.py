"""docs/keys.md is true: its example is built, and each change in its table gives the answer that stands beside it."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fovcache.builder.request import BuildOptions, EncoderRequest
from fovcache.builder.run import run_build
from fovcache.cli import app
from fovcache.errors import FingerprintError
from fovcache.maintain.explain import ExplainReport, explain
from fovcache.maintain.recompute import recompute_some
from fovcache.store.storage import LocalStorage

ASKED = {"encoder": "encoder.py:make", "weights": "random:0", "layers": ("conv1",), "pool": "mean"}
OPTIONS = BuildOptions(num_workers=2, device="cpu")


@pytest.fixture(scope="module")
def doc(root: Path) -> str:
    return (root / "docs" / "keys.md").read_text()


@pytest.fixture(scope="module")
def built(doc: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The doc's files, eight photos, and a cache of their features."""
    folder = tmp_path_factory.mktemp("built")
    blocks = re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", doc, re.DOTALL)
    assert [name for name, _ in blocks] == ["helpers.py", "encoder.py"]
    for name, text in blocks:
        (folder / name).write_text(text)
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 256, (40, 48, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / label / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        report = run_build(LocalStorage("features"), ["photos"], EncoderRequest(**ASKED), OPTIONS)
    assert (report.computed, report.failed) == (8, 0)
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to change, which is also the working folder."""
    shutil.copytree(built, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    yield
    logging.captureWarnings(capture=False)
    logging.getLogger("fovcache").handlers.clear()
    logging.getLogger("py.warnings").handlers.clear()


def ask(**changes: object) -> ExplainReport:
    return explain(LocalStorage("features"), ["photos"], EncoderRequest(**{**ASKED, **changes}), OPTIONS)


def replace_in(name: str, old: str, new: str) -> None:
    text = Path(name).read_text()
    assert old in text
    Path(name).write_text(text.replace(old, new))


def change_a_pixel() -> None:
    path = Path("photos/cat/1.png")
    image = Image.open(path)
    image.putpixel((0, 0), (1, 2, 3))
    image.save(path)


ROWS: dict[str, Callable[[], ExplainReport]] = {
    "`forward` in encoder.py": lambda: (replace_in("encoder.py", "activate(self", "2 * activate(self"), ask())[1],
    "`activate` in helpers.py": lambda: (replace_in("helpers.py", "relu", "tanh"), ask())[1],
    "`--weights random:1`": lambda: ask(weights="random:1"),
    "`--size 64`": lambda: ask(size=64),
    "`--compute-dtype bf16`": lambda: ask(compute_dtype="bf16"),
    "`--store-dtype fp32`": lambda: ask(store_dtype="fp32"),
    "`--pool tokens`": lambda: ask(pool="tokens"),
    "`--layers conv1,conv2`": lambda: ask(layers=("conv1", "conv2")),
    "a pixel of an image": lambda: (change_a_pixel(), ask())[1],
}


def table(doc: str) -> dict[str, str]:
    """Change → reason."""
    text = doc[doc.index("| change | reason |") :].split("\n\n")[0]
    return dict(line.strip("| ").split(" | ") for line in text.splitlines()[2:])


def without_digests(text: str) -> str:
    return re.sub(r"\b[0-9a-f]{12}…", "DIGEST…", text)


def test_every_row_of_the_table_is_tried(doc: str) -> None:
    assert list(table(doc)) == list(ROWS)


@pytest.mark.parametrize("change", ROWS)
def test_a_change_gives_the_reason_in_the_table(doc: str, folder: Path, change: str) -> None:
    report = ROWS[change]()
    assert report.misses == (1 if "pixel" in change else 8)
    (reason,) = {verdict.reason for verdict in report.verdicts if verdict.state == "miss"}
    assert without_digests(reason) == without_digests(table(doc)[change])


def test_what_the_doc_calls_a_hit_is_one(folder: Path) -> None:
    shutil.copy("photos/cat/0.png", "photos/cat/copied.png")
    Path("photos/cat/1.png").rename("photos/dog/renamed.png")
    Path("photos/cat/2.png").touch()
    Path("elsewhere").mkdir()
    for name in ("encoder.py", "helpers.py"):
        Path(name).rename(f"elsewhere/{name}")
    request = EncoderRequest(**{**ASKED, "encoder": "elsewhere/encoder.py:make"})
    options = BuildOptions(num_workers=1, batch_size=3, shard_bytes=2048)
    assert explain(LocalStorage("features"), ["photos"], request, options).hits == 9


def test_the_names_of_files_are_in_the_key_as_the_doc_says(folder: Path) -> None:
    Path("encoder.py").rename("net.py")
    assert ask(encoder="net.py:make").hits == 0


def test_a_comment_is_source_and_version_stands_for_the_source(folder: Path) -> None:
    replace_in("encoder.py", "image_size = 32", 'image_size = 32\n    version = "2"')
    run_build(LocalStorage("features"), ["photos"], EncoderRequest(**ASKED), OPTIONS)
    assert ask().hits == 8
    replace_in("encoder.py", "import torch\n", "import torch  # a comment\n")
    assert ask().hits == 8
    assert ask(weights="random:1").hits == 0
    replace_in("encoder.py", '    version = "2"\n', "")
    assert ask().hits == 0


@pytest.mark.parametrize(
    "holder",
    [
        "self.scale = read()",
        "self._scale = read()",
        "self.scales = {'low': [read()]}",
        "self.register_buffer('scale', torch.tensor(read()), persistent=False)",
        "self.scale = importlib.import_module('com' + 'puted').scale",
        "global SCALE; SCALE = read()",
    ],
)
def test_a_value_that_the_factory_reads_counts_wherever_it_is_kept(folder: Path, holder: str) -> None:
    imports = "import importlib, pathlib\ndef read():\n    return float(pathlib.Path('scale.txt').read_text())\n"
    replace_in("encoder.py", "import torch\n", f"{imports}import torch\n")
    replace_in("encoder.py", "super().__init__()", f"super().__init__()\n        {holder}")
    Path("scale.txt").write_text("1")
    Path("computed.py").write_text("scale = 1")
    run_build(LocalStorage("features"), ["photos"], EncoderRequest(**ASKED), OPTIONS)
    assert ask().hits == 8
    Path("scale.txt").write_text("3")
    Path("computed.py").write_text("scale = 3")
    assert ask().hits == 0


@pytest.mark.parametrize(
    ("setup", "scale"),
    [
        ("", "float(pathlib.Path('scale.txt').read_text())"),
        ("", "importlib.import_module('com' + 'puted').scale"),
        ("class Config:\n    scale = float(pathlib.Path('scale.txt').read_text())\nCONFIG = Config()", "CONFIG.scale"),
    ],
)
def test_what_the_doc_says_is_not_seen_is_found_by_recomputing(folder: Path, setup: str, scale: str) -> None:
    replace_in("encoder.py", "import torch\n", f"import importlib, pathlib\n{setup}\nimport torch\n")
    replace_in("encoder.py", "self.conv1(x)", f"self.conv1({scale} * x)")
    Path("scale.txt").write_text("1")
    Path("computed.py").write_text("scale = 1")
    run_build(LocalStorage("features"), ["photos"], EncoderRequest(**ASKED), OPTIONS)
    assert recompute_some(LocalStorage("features"), 8, device="cpu")["within_tolerance"]
    Path("scale.txt").write_text("3")
    Path("computed.py").write_text("scale = 3")
    assert ask().hits == 8, "the doc says that this is not seen"
    assert not recompute_some(LocalStorage("features"), 8, device="cpu")["within_tolerance"]


def test_a_closure_on_the_module_is_refused_in_the_docs_words(doc: str, folder: Path) -> None:
    replace_in(
        "encoder.py", "super().__init__()", "super().__init__()\n        two = 2\n        self.activate = lambda x: two"
    )
    with pytest.raises(FingerprintError) as refused:
        ask()
    assert f"error: {refused.value}\n" in doc


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("image_size = 16", "input.clip.size"),
        ("image_mean = (0.1, 0.2, 0.3)", "input.preprocessing.mean"),
        ("image_std = (0.1, 0.2, 0.3)", "input.preprocessing.std"),
        ("has_class_token = True", "extractor.tokens.class"),
        ("num_prefix_tokens = 2", "extractor.tokens.prefix"),
    ],
)
def test_what_the_doc_calls_a_recipe_field_is_one(doc: str, folder: Path, line: str, field: str) -> None:
    """With `version`, so that the source does not tell."""
    replace_in("encoder.py", "image_size = 32", 'image_size = 32\n    version = "1"')
    run_build(LocalStorage("features"), ["photos"], EncoderRequest(**ASKED), OPTIONS)
    replace_in("encoder.py", 'version = "1"', f'version = "1"\n    {line}')
    report = ask()
    assert {verdict.field for verdict in report.verdicts} == {field}
    assert f"`{line.split()[0]}`" in doc


def test_a_path_on_the_module_is_left_out_and_other_texts_are_not(folder: Path) -> None:
    replace_in("encoder.py", "import torch\n", "import pathlib\n\nimport torch\n")
    reads = "super().__init__()\n        self.text = pathlib.Path('text.txt').read_text()"
    replace_in("encoder.py", "super().__init__()", reads)
    Path("text.txt").write_text("/here/a")
    run_build(LocalStorage("features"), ["photos"], EncoderRequest(**ASKED), OPTIONS)
    Path("text.txt").write_text("/there/b")
    assert ask().hits == 8
    for text in ("gelu", "mean/std"):
        Path("text.txt").write_text(text)
        assert ask().hits == 0


@pytest.mark.parametrize("shown", ["--size 64", ""])
def test_what_explain_prints_is_printed_in_the_doc(
    doc: str, folder: Path, capsys: pytest.CaptureFixture[str], shown: str
) -> None:
    command = re.search(r"```sh\nfovcache build (.*)\n```", doc)
    assert command is not None
    if not shown:  # the example of a failure
        path = Path("photos/dog/3.png")
        path.write_bytes(path.read_bytes()[:900])
        run_build(LocalStorage("features"), ["photos"], EncoderRequest(**ASKED), OPTIONS)
    assert app(["explain", *shlex.split(command[1]), *shown.split()], standalone_mode=False) in (None, 0)
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    assert f"```\n{printed}\n```" in doc
