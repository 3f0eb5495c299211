"""The house's rules, read from the sources: who imports whom and how, file sizes, links, dependencies."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("bench", "models", "probes", "reports")  # fovcache itself is the fifth, called "core" below
MAY_IMPORT = {
    "core": {"core"},
    "models": {"models", "core"},
    "probes": {"probes", "core"},
    "bench": {"bench", "core", "models", "probes"},
    "reports": {"reports"},  # and results' dataclasses
}
PACKAGE_OF = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "huggingface_hub": "huggingface-hub",
    "pynvml": "nvidia-ml-py",
}
RESULTS = (
    "fovcache.bench.profiler.result.",
    "fovcache.probes.result.",
    "fovcache.probes.quality.result.",
    "fovcache.probes.train.result.",
    "fovcache.maintain.contents.",
)
"""What reports are made of."""
MAY_SHOW = ("fovcache.bench.cli", "fovcache.bench.report_command")
"""What writes reports: the command, and the file that holds what two of its commands do."""
MAX_LINES = 400
# Split, so that this file names none.
REGISTRIES = ["pypi" + ".org", "python" + "hosted", "download." + "pytorch", "ana" + "conda", "npm" + "js"]
REGISTRIES += ["index" + "-url", "find" + "-links", "trusted" + "-host"]


def test_imports_keep_the_rules(house_files: list[Path]) -> None:
    modules = {_dotted(path): path for path in house_files if _is_ours(path)}
    assert {"fovcache", *(f"fovcache.{room}" for room in ROOMS)} <= modules.keys()
    broken = [
        f"{path.relative_to(ROOT)}: {rule}"
        for name, path in modules.items()
        for rule in _broken_rules(
            name, name if path.name == "__init__.py" else name.rpartition(".")[0], path.read_text()
        )
    ]
    assert not broken, "\n".join(broken)


def test_the_rules_catch_what_they_should() -> None:
    for name, source in [
        ("fovcache.cache", "from .errors import E\nfrom .store.shard import S\nimport os"),
        ("fovcache.store.shard", "from ..errors import E\nfrom . import manifest"),
        ("fovcache.bench.demo", "from fovcache.models.pixels import make\nfrom fovcache import Cache"),
        ("fovcache.bench.demo", "from .profile import measure"),
        ("fovcache.bench.cli", "from fovcache.reports.page import write_report"),
        ("fovcache.reports.page", "from fovcache.bench.profiler.result import Profile"),
        ("fovcache.reports.page", "from fovcache.probes.result import Ablation"),
    ]:
        assert not list(_broken_rules(name, name, source)), (name, source)
    for name, source in [
        ("fovcache.cache", "from fovcache.models import pixels"),
        ("fovcache.cache", "def f():\n    import fovcache.bench"),
        ("fovcache.cache", "from . import probes"),
        ("fovcache.cache", "from fovcache.errors import E"),
        ("fovcache.cache", "from .cli import main"),
        ("fovcache.store.shard", "from fovcache.store.manifest import M"),
        ("fovcache.models.pixels", "from ..errors import E"),
        ("fovcache.models.pixels", "from fovcache.bench import demo"),
        ("fovcache.models.pixels", "from fovcache.probes import heads"),
        ("fovcache.bench.demo", "from fovcache.reports import html"),
        ("fovcache.bench.demo", "import models"),
        ("fovcache.bench.cli", "from fovcache import cli"),
        ("fovcache.reports.html", "from fovcache.errors import E"),
        ("fovcache.reports.html", "from fovcache.bench.profiler.predict import predict"),
        ("fovcache.reports.html", "from fovcache.probes.run import run_ablation"),
    ]:
        assert list(_broken_rules(name, name.rpartition(".")[0], source)), (name, source)


def test_files_stay_small_and_named_after_a_noun(house_files: list[Path]) -> None:
    sources = [path for path in house_files if path.suffix == ".py"]
    assert sources
    sizes = {path: len(path.read_text().splitlines()) for path in sources}
    assert not {path: lines for path, lines in sizes.items() if lines > MAX_LINES}
    assert not [path for path in sources if path.name == "utils.py"]


def test_links_are_relative_and_lead_to_the_rooms() -> None:
    links = {path.name: str(path.readlink()) for path in (ROOT / "fovcache").iterdir() if path.is_symlink()}
    assert links == {room: f"../{room}" for room in ROOMS}


def test_each_dependency_gives_its_reason_and_is_pinned() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    project = tomllib.loads(text)["project"]
    for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
        assert re.search(rf'^    "{re.escape(requirement)}",  # \S', text, re.MULTILINE), requirement
        assert re.match(r"[\w.-]+", requirement)[0] in pins, requirement
    assert not {"torchvision", "timm"} & pins.keys()


def test_what_is_imported_is_declared(house_files: list[Path]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    packages = {re.match(r"[\w.-]+", requirement)[0] for requirement in declared}
    imported = {
        target.split(".")[0]
        for path in house_files
        if _is_ours(path)
        for is_relative, target in _targets(path.read_text(), "fovcache")
        if not is_relative
    }
    third_party = imported - {"fovcache", *sys.stdlib_module_names}
    assert {PACKAGE_OF.get(name, name) for name in third_party} <= packages


def test_no_file_names_a_registry(house_files: list[Path]) -> None:
    found = [
        (path.relative_to(ROOT), name)
        for path in house_files
        for name in REGISTRIES
        if name.encode() in path.read_bytes().lower()
    ]
    assert not found


def _is_ours(path: Path) -> bool:
    return path.suffix == ".py" and path.relative_to(ROOT).parts[0] in ("fovcache", *ROOMS)


def _dotted(path: Path) -> str:
    """`models/pixels.py` is fovcache.models.pixels, `fovcache/store/__init__.py` fovcache.store."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "fovcache" else ("fovcache", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(name: str) -> str:
    return next((room for room in ROOMS if (name + ".").startswith(f"fovcache.{room}.")), "core")


def _broken_rules(name: str, package: str, source: str) -> Iterator[str]:
    """The rules that a module's imports break, each as a line for people."""
    for is_relative, target in _targets(source, package):
        if target.split(".")[0] in ROOMS:
            yield f"imports {target}: say fovcache.{target}"
        if target.split(".")[0] != "fovcache":
            continue
        may_show = name in MAY_SHOW and _room(target) == "reports"
        is_result = _room(name) == "reports" and target.startswith(RESULTS)
        if _room(target) not in MAY_IMPORT[_room(name)] and not may_show and not is_result:
            yield f"{_room(name)} must not import {target}"
        if "cli" in target.split("."):
            yield f"imports {target}: nothing imports a cli"
        if is_relative != (_room(target) == _room(name)):
            yield f"imports {target}: relative inside a folder, absolute between folders"


def _targets(source: str, package: str) -> Iterator[tuple[bool, str]]:
    """(is it relative, the absolute dotted name) of everything imported, wherever in the file."""
    parts = package.split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((False, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = parts[: len(parts) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.level > 0, f"{base}.{alias.name}") for alias in node.names)
