"""The report in a real browser: it renders, says nothing on the console, and asks nobody for anything."""

import http.server
import re
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from example_ablations import full_ablation, hostile_ablation, hostile_arms, made_arms
from example_profiles import full_profile
from PIL import Image

from fovcache.reports import ReportFiles, Results, write_report, write_results
from fovcache.reports.palette import stage_colours

pytestmark = pytest.mark.slow

MEASURE = """
<script>
addEventListener("load", () => {
  const shown = [...document.images].map(i => `${i.naturalWidth}x${i.naturalHeight} ${i.currentSrc === i.src}`);
  document.title = `${document.documentElement.scrollWidth <= innerWidth}; ${shown.join("; ")}`;
});
</script>
"""
WIDTH, HEIGHT = 1100, 1500
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
NAMES = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """Headless, one folder of settings a call, at most 30 s each."""

    def __init__(self, path: str, folder: Path) -> None:
        self._path, self._folder, self._num = path, folder, 0

    def run(self, page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
        self._num += 1
        command = [
            self._path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--no-proxy-server", "--enable-logging=stderr", "--v=0", f"--window-size={WIDTH},{HEIGHT}", *QUIET,
            f"--user-data-dir={self._folder / f'user{self._num}'}", *flags, page.resolve().as_uri(),
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, cwd=self._folder)


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH")
    folder = tmp_path / "browser"
    folder.mkdir()
    return Browser(path, folder)


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """A server on localhost, and the paths that it was asked for."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_page_renders_and_asks_nobody(browser: Browser, asked: tuple[str, list[str]], tmp_path: Path) -> None:
    address, paths = asked
    hostile = f'<img src="{address}/image"><script src="{address}/script"></script><script>console.log("ran")</script>'
    full = full_profile()
    stages = tuple(replace(stage, name=f"{stage.name} {hostile}") for stage in full.stages)
    html = write_report(replace(full, stages=stages, warnings=(hostile,)), tmp_path / "report").html

    done = browser.run(html, "--dump-dom")
    assert "<h1>Stage-time profile</h1>" in done.stdout
    assert done.stdout.rstrip().endswith("</html>")
    assert "CONSOLE" not in done.stderr
    assert paths == []

    # The same text in a page that does not escape it is noticed by all three.
    careless = tmp_path / "careless.html"
    careless.write_text(f"<!DOCTYPE html><title>x</title>{hostile}")
    done = browser.run(careless, "--dump-dom")
    assert "CONSOLE" in done.stderr
    assert set(paths) >= {"/image", "/script"}


@pytest.fixture(scope="module")
def profile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a profile, for those who only read it."""
    return write_report(full_profile(), tmp_path_factory.mktemp("profile")).html


def test_the_policy_blocks_what_should_ever_get_in(
    browser: Browser, asked: tuple[str, list[str]], profile_page: Path, tmp_path: Path
) -> None:
    address, paths = asked
    text = profile_page.read_text()
    assert "</main>" in text
    html = tmp_path / "odd.html"
    html.write_text(text.replace("</main>", f'<img src="{address}/image"><script>console.log("ran")</script></main>'))
    done = browser.run(html, "--dump-dom")
    assert "Content Security Policy" in done.stderr
    assert not re.search(r'CONSOLE[^\n]*"ran"', done.stderr)
    assert paths == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_looks_as_it_should(browser: Browser, profile_page: Path, tmp_path: Path, scheme: str) -> None:
    shot = tmp_path / "shot.png"
    browser.run(profile_page, f"--screenshot={shot}", f"--blink-settings=preferredColorScheme={int(scheme == 'light')}")
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[:2] == (HEIGHT, WIDTH)
    is_light = pixels[5, 5].mean() > 128
    assert is_light == (scheme == "light")
    assert (np.abs(pixels - pixels[5, 5]).sum(axis=2) > 60).mean() > 0.03  # there is ink
    for stage in ("fetch", "decode", "vae_encode", "backward"):  # and the figure's bars are among it
        colour = stage_colours([stage])[stage]
        wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert (np.abs(pixels - wanted).max(axis=2) <= 4).sum() > 300, stage
    right = pixels[:, -20:]
    assert (right == pixels[5, 5]).all()  # nothing runs out of the window


def test_the_page_of_a_folder_renders_and_asks_nobody(
    browser: Browser, asked: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fovcache.reports.figures.DPI", 40)  # what they show is not looked at
    address, paths = asked
    hostile = f'<img src="{address}/image"><script src="{address}/script"></script><script>console.log("ran")</script>'
    results = Results(
        name=f"results {hostile}",
        profiles={},
        ablations={f"odd {hostile}": hostile_ablation(hostile)},
        arms={f"odd {hostile}": hostile_arms(hostile)},
        warnings=(hostile,),
    )
    html = write_results(results, tmp_path / "report").html
    done = browser.run(html, "--dump-dom")
    assert "Method and environment" in done.stdout
    assert done.stdout.rstrip().endswith("</html>")
    printed = browser.run(html, f"--print-to-pdf={tmp_path / 'report.pdf'}")
    assert "CONSOLE" not in done.stderr + printed.stderr
    assert paths == []
    pdf = (tmp_path / "report.pdf").read_bytes()
    assert pdf.count(b"/Subtype /Image") >= 4
    assert len(re.findall(rb"/Type /Page\b", pdf)) > 2


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    results = Results(
        name="results",
        profiles={"profile.json": full_profile()},
        ablations={"ablation.json": full_ablation()},
        arms={"ablation.json": made_arms(full_ablation())},
    )
    return write_results(results, tmp_path_factory.mktemp("results"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_pictures_of_a_folders_page_are_there(
    browser: Browser, files: ReportFiles, tmp_path: Path, scheme: str
) -> None:
    flag = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    shot = tmp_path / "shot.png"
    browser.run(files.html, f"--screenshot={shot}", flag)
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (pixels[5, 5].mean() > 128) == (scheme == "light")
    assert (np.abs(pixels - pixels[5, 5]).sum(axis=2) > 60).mean() > 0.03
    assert (pixels[:, -20:] == pixels[5, 5]).all()  # nothing runs out of the window

    # The page's own policy lets no script run, so a copy without it is asked what it shows.
    text = files.html.read_text()
    policy = '<meta http-equiv="Content-Security-Policy"'
    assert text.count(policy) == 1
    measured = tmp_path / "measured.html"
    measured.write_text(text.replace(policy, '<meta name="policy"').replace("</body>", f"{MEASURE}</body>"))
    dom = browser.run(measured, "--dump-dom", flag).stdout
    found = re.search(r"<title>(\w+); (.*?)</title>", dom)
    assert found is not None, dom[:300]
    fits, shown = found.groups()
    assert fits == "true"
    sizes = [struct.unpack(">II", path.read_bytes()[16:24]) for path in files.pngs]
    assert len(sizes) == 9
    assert shown.split("; ") == [f"{width}x{height} {str(scheme == 'light').lower()}" for width, height in sizes]
