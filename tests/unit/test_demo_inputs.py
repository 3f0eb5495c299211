"""The demo's clips show what their labels say, and its server gives them to whoever asks on this machine."""

import csv
import http.client
import socket
import threading
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import fovcache
from fovcache.bench.demo.clips import port_of, write_clips, write_manifests
from fovcache.bench.demo.moving_digits import (
    DIGIT_SIDE,
    DIRECTIONS,
    NUM_FRAMES,
    SIDE,
    MovingDigit,
    encode,
    frames,
    moving_digits,
    pictures,
)
from fovcache.bench.demo.server import served


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


def shown(clip: MovingDigit, folder: Path) -> np.ndarray:
    """What a player shows of a clip, float64 [frames, SIDE, SIDE]."""
    path = folder / clip.name
    path.write_bytes(encode(clip, pictures()[clip.source]))
    decoded, pts_s = fovcache.read_clip(path, num_frames=NUM_FRAMES)
    assert decoded.shape == (NUM_FRAMES, SIDE, SIDE, 3)
    assert np.ptp(np.diff(pts_s)) < 1e-6
    return decoded.mean(axis=-1)


def test_there_are_as_many_clips_of_every_digit_and_direction() -> None:
    clips = moving_digits()
    assert 600 <= len(clips) <= 650
    assert len(set(Counter((clip.digit, clip.direction) for clip in clips).values())) == 1
    assert len({clip.name for clip in clips}) == len(clips)
    labels = load_digits().target
    for group in {clip.group for clip in clips}:
        members = [clip for clip in clips if clip.group == group]
        assert [clip.direction for clip in members] == list(DIRECTIONS)
        assert {clip.digit for clip in members} == {int(labels[int(group)])}


def test_a_source_digit_is_shown_enlarged() -> None:
    images, enlarged = load_digits().images, pictures()
    assert enlarged.shape == (len(images), DIGIT_SIDE, DIGIT_SIDE)
    coarse = enlarged.reshape(len(images), 8, DIGIT_SIDE // 8, 8, DIGIT_SIDE // 8).mean(axis=(2, 4))
    likeness = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(coarse, images, strict=True)]
    assert min(likeness) > 0.95


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_clip_shows_its_digit_going_its_way(direction: str, tmp_path: Path) -> None:
    (clip,) = [each for each in moving_digits(10) if (each.digit, each.direction) == (7, direction)]
    picture = pictures()[clip.source]
    seen = shown(clip, tmp_path)
    for number, frame in enumerate(frames(clip, picture)):
        assert np.abs(seen[number] - frame).mean() < 2  # lossy
        row, column = clip.corner(number)
        assert np.array_equal(frame[row : row + DIGIT_SIDE, column : column + DIGIT_SIDE], picture)
        assert frame.sum() == picture.sum()
    places = np.arange(SIDE)
    middles = np.stack([seen.sum(2) @ places, seen.sum(1) @ places]) / seen.sum((1, 2))  # rows and columns
    assert np.allclose((middles[:, -1] - middles[:, 0]) / (NUM_FRAMES - 1), DIRECTIONS[direction], atol=0.05)


def test_every_digit_stays_in_the_frame_and_starts_somewhere_else() -> None:
    clips = moving_digits()
    corners = np.array([[clip.corner(number) for number in range(NUM_FRAMES)] for clip in clips])
    assert corners.min() >= 0
    assert corners.max() <= SIDE - DIGIT_SIDE
    assert len({tuple(corner) for corner in corners[:, 0]}) > 50


def test_a_clip_is_encoded_to_the_same_bytes_whoever_does_it() -> None:
    clips, digits = moving_digits(10), pictures()
    first = [encode(clip, digits[clip.source]) for clip in clips]
    assert len(set(first)) == len(first)
    second: dict[str, bytes] = {}

    def again(some: list[MovingDigit]) -> None:
        second.update({clip.name: encode(clip, digits[clip.source]) for clip in some})

    threads = [threading.Thread(target=again, args=(clips[start::3],)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [second[clip.name] for clip in clips] == first


def test_manifests_label_the_same_clips_by_digit_and_by_direction(tmp_path: Path) -> None:
    written = write_clips(tmp_path / "clips", 20)
    assert (written.num_clips, written.num_sources, written.num_written) == (80, 20, 80)
    write_manifests(tmp_path, "http://127.0.0.1:4321", 20)
    digits, moves = (
        list(csv.DictReader((tmp_path / name).read_text().splitlines())) for name in ("digits.csv", "directions.csv")
    )
    assert [(row["uri"], row["group"]) for row in digits] == [(row["uri"], row["group"]) for row in moves]
    assert {row["uri"].rpartition("/")[2] for row in digits} == {path.name for path in (tmp_path / "clips").iterdir()}
    for digit, move in zip(digits, moves, strict=True):
        assert digit["uri"] == f"http://127.0.0.1:4321/{digit['group']}-{move['label']}.mp4"
        assert digit["label"] == str(load_digits().target[int(digit["group"])])
    assert port_of(tmp_path) == 4321


def test_what_is_whole_is_not_written_again(tmp_path: Path) -> None:
    write_clips(tmp_path, 10)
    torn, gone, *others = sorted(tmp_path.iterdir())
    before = {path: path.stat().st_mtime_ns for path in others}
    whole = torn.read_bytes()
    torn.write_bytes(whole[:100])
    gone.unlink()
    assert write_clips(tmp_path, 10).num_written == 2
    assert torn.read_bytes() == whole
    assert {path: path.stat().st_mtime_ns for path in others} == before


def test_the_port_is_unknown_without_a_manifest_that_names_it(tmp_path: Path) -> None:
    assert port_of(tmp_path) is None
    for text in ("", "uri,label\n", "uri\nclips/a.mp4\n", "path\nx\n", "uri\nhttp://[::1/x\n", "uri\nhttp://h:x/\n"):
        (tmp_path / "digits.csv").write_text(text)
        assert port_of(tmp_path) is None


def test_clips_are_served_to_this_machine_and_asked_for_once(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"clip")
    with served(tmp_path, 0) as url:
        host, port = url.removeprefix("http://").split(":")
        assert host == "127.0.0.1"
        connection = http.client.HTTPConnection(host, int(port), timeout=5)
        connection.request("GET", "/a.mp4")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"clip")
        modified = answer.headers["Last-Modified"]
        connection.request("GET", "/a.mp4", headers={"If-Modified-Since": modified})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (304, b"")
        for path in ("/b.mp4", "/../a.mp4.secret", "/%2e%2e/%2e%2e/etc/passwd"):
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 404
            answer.read()
        connection.close()
    with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port)), timeout=5):
        pass


def test_a_port_that_is_taken_is_not_waited_for(tmp_path: Path) -> None:
    with served(tmp_path, 0) as first:
        port = int(first.rpartition(":")[2])
        with served(tmp_path, port) as second:
            assert first != second
    with served(tmp_path, port) as third:
        assert third == first


def test_no_proxy_is_asked_for_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"clip")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org")
    with served(tmp_path, 0) as url, urllib.request.urlopen(f"{url}/a.mp4", timeout=5) as answer:
        assert answer.read() == b"clip"
        assert urllib.request.proxy_bypass("example.org")
    assert not urllib.request.proxy_bypass("127.0.0.1")


def test_a_silent_connection_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with served(tmp_path, 0) as url:
        silent = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5)
    silent.close()
    assert "demo-server" not in {thread.name for thread in threading.enumerate()}
