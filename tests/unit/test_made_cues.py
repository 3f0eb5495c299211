"""Made cues are what they say: videos that decode to their grids, labels that follow from the pixels, known floors."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import fovcache
from fovcache.bench.made_cues.__main__ import main
from fovcache.bench.made_cues.clips import CUE, GLOBAL, RICHNESS, TASKS, draw_clips
from fovcache.bench.made_cues.encoder import make
from fovcache.bench.made_cues.files import write_cues
from fovcache.errors import UsageError
from fovcache.probes.train.result import BASE, CONTROL, DONE, MAIN
from fovcache.probes.train.run import train_run
from fovcache.probes.train.suite.suite_config import read_suite_config
from fovcache.trainable import InputInfo, resolve_trainable

NUM = {"train": 64, "validation": 16}
COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)], np.uint8)  # of symbols 0 to 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a few clips, and a cache of both tasks."""
    folder = tmp_path_factory.mktemp("cues")
    write_cues(folder, num_train=NUM["train"], num_validation=NUM["validation"])
    for task in TASKS:
        report = fovcache.open(folder / "cache").build(
            [f"{split}={folder}/{task}/{split}-*.tar" for split in NUM],
            encoder=[f"{folder}/encoder.py:make", "bytes"],
            layers=["tokens"],
            pool="tokens",
            frames=4,
            store_dtype="fp32",
            dataset=task,
            device="cpu",
        )
        assert report.failed == 0
    return folder


def clips(folder: Path, task: str, split: str) -> list[tuple[str, np.ndarray, str]]:
    """Name, frames uint8 [4, 32, 32, 3] and caption of each clip, by tarfile and PyAV alone."""
    found = []
    for path in sorted((folder / task).glob(f"{split}-*.tar")):
        with tarfile.open(path) as archive:
            parts = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
        for name in (name for name in parts if name.endswith(".mkv")):
            with av.open(io.BytesIO(parts[name])) as video:
                frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
            found.append((name, np.stack(frames), parts[name.replace(".mkv", ".txt")].decode()))
    return found


def seen(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symbols [4, 16] and marked cell [4], of pixels; every pixel must be as they say."""
    cells = frames.reshape(4, 4, 8, 4, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(4, 16, 8, 8, 3)
    symbols = (cells[:, :, None, 0, 0] == COLOURS).all(-1).argmax(-1)
    is_marked = cells[:, :, 4, 4, 0] == 255
    assert (is_marked.sum(1) == 1).all()
    painted = np.broadcast_to(COLOURS[symbols][:, :, None, None], cells.shape).copy()
    painted[:, :, 2:6, 2:6] = 255 * is_marked[:, :, None, None, None]
    assert (painted == cells).all()
    return symbols, is_marked.argmax(1)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", NUM)
def test_videos_decode_to_their_grids_exactly(made: Path, task: str, split: str) -> None:
    found = clips(made, task, split)
    drawn = draw_clips(task, NUM[split], 0, list(NUM).index(split))
    assert [name for name, _, _ in found] == [f"{split}-{number:06d}.mkv" for number in range(NUM[split])]
    for number, (_, frames, caption) in enumerate(found):
        symbols, marks = seen(frames)
        assert (symbols == drawn.symbols_ntc[number]).all()
        assert (marks == drawn.marks_nt[number]).all()
        assert caption == drawn.captions[number]


@pytest.mark.parametrize("split", NUM)
def test_the_cue_is_what_stands_where_the_mark_was_a_frame_before(made: Path, split: str) -> None:
    for _, frames, caption in clips(made, CUE, split):
        symbols, marks = seen(frames)
        assert caption == "." + "".join(str(symbols[t, marks[t - 1]]) for t in (1, 2, 3))


def test_whoever_counts_a_frame_knows_little_of_the_cue_and_all_there_is_of_the_global_task() -> None:
    def cross_entropy(logits_nf4: np.ndarray, labels_nf: np.ndarray) -> float:
        log_sum = np.log(np.exp(logits_nf4).sum(-1))
        return float((log_sum - np.take_along_axis(logits_nf4, labels_nf[..., None], -1)[..., 0]).mean())

    def counted(task: str) -> tuple[np.ndarray, np.ndarray]:
        drawn = draw_clips(task, 20_000, 1)
        counts = (drawn.symbols_ntc[..., None] == np.arange(4)).sum(2)
        first = int(task == CUE)
        return counts[:, first:], np.array([[int(letter) for letter in text[first:]] for text in drawn.captions])

    counts, labels = counted(CUE)
    with np.errstate(divide="ignore"):
        shares = np.log(counts / 16)  # the label is one of 16 cells, any of them
    assert cross_entropy(shares, labels) == pytest.approx(1.286, abs=0.01)
    counts, labels = counted(GLOBAL)
    ratio = (RICHNESS + (1 - RICHNESS) / 4) / ((1 - RICHNESS) / 4)
    assert cross_entropy(counts * np.log(ratio), labels) == pytest.approx(0.695, abs=0.015)
    assert (counts.argmax(-1) == labels).mean() == pytest.approx(0.73, abs=0.02)


def test_the_cache_holds_what_the_encoder_says_of_the_pixels(made: Path) -> None:
    encoder = make().eval()
    cache = fovcache.open(made / "cache")
    for task in TASKS:
        features = cache.features(layer="tokens", dataset=task, split="validation")
        rows = features.tensors()[0]
        assert rows.shape == (NUM["validation"], 4, 17, 64)
        expected = {}
        for name, frames, _ in clips(made, task, "validation"):
            pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
            with torch.inference_mode():
                expected[name] = encoder(pixels)
        for row, uri in zip(rows, features.uris, strict=True):
            name = re.split("[/#]", uri)[-1]
            torch.testing.assert_close(row, expected[name], rtol=1e-4, atol=1e-4)


def painted(symbols_ntc: np.ndarray, marks_nt: np.ndarray) -> torch.Tensor:
    """float32 [n · 4, 3, 32, 32] in [-1, 1]: frames of such clips, with no code of theirs."""
    cells = np.repeat(np.repeat(COLOURS[symbols_ntc].reshape(-1, 4, 4, 3), 8, axis=1), 8, axis=2)
    inner = np.kron(np.ones((4, 4), bool), np.pad(np.ones((4, 4), bool), 2))
    is_marked = (np.arange(16) == marks_nt.reshape(-1, 1)).reshape(-1, 4, 4).repeat(8, axis=1).repeat(8, axis=2)
    pixels = np.where(inner[..., None], 255 * is_marked[..., None], cells).astype(np.float32)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1


def tokens_of(task: str, num: int, split: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The encoder's tokens float32 [num, 4, 17, 64] of clips that no file holds, and the bytes of their captions."""
    drawn = draw_clips(task, num, 0, split)
    encoder = make()
    with torch.inference_mode():
        blocks = [
            encoder(painted(drawn.symbols_ntc[first : first + 500], drawn.marks_nt[first : first + 500]))
            for first in range(0, num, 500)
        ]
    tokens = torch.cat(blocks).view(num, 4, 17, 64).clone()
    return tokens, torch.tensor([[*caption.encode(), 256] for caption in drawn.captions])


def test_a_mark_is_what_stands_out_of_a_frame() -> None:
    tokens = tokens_of(CUE, 200)[0][:, :, 1:]
    norms = (tokens - tokens.mean((0, 1))).norm(dim=-1)
    marks = torch.from_numpy(draw_clips(CUE, 200, 0).marks_nt).long()
    is_marked = torch.arange(16) == marks[..., None]
    assert float(norms[is_marked].min()) > 1.5 * float(norms[~is_marked].median())
    assert torch.equal(norms.argmax(-1), marks)


def test_a_look_that_is_led_by_the_mark_learns_what_no_count_can_tell() -> None:
    tokens, captions = tokens_of(CUE, 6000)
    unseen = dict(zip(("frames", "frame_labels"), tokens_of(CUE, 500, split=1), strict=True))
    settings = {"size": "tiny", "heads": ["labels"], "alphabet": "0123", "coarse_weight": 0.0}
    inputs = {
        "frames": InputInfo(row_shape=(4, 17, 64), dtype="fp32", recipe={"extractor": {"tokens": {"prefix": 1}}}),
        "frame_labels": InputInfo(row_shape=(5,), dtype="int64"),
    }
    module = resolve_trainable("foveated", settings).build(inputs, 0)
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    num_steps = 250
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=num_steps, pct_start=0.1)
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0)).repeat(3)
    for step in range(num_steps):
        rows = order[64 * step : 64 * (step + 1)]
        optimiser.zero_grad()
        module({"frames": tokens[rows], "frame_labels": captions[rows]})["loss"].mean().backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    with torch.inference_mode():
        values = {name: float(each.mean()) for name, each in module.eval()(unseen).items()}
    assert values["fine"] < 1.1  # counting cells comes to 1.29
    assert values["coarse"] > 1.29


def test_what_lies_beside_them_asks_for_the_runs_of_the_claim(made: Path) -> None:
    suite = read_suite_config(made / "cue.toml")
    assert suite.base.train.num_steps == 1500
    assert suite.base.cache_path == made / "cache"
    assert {name: arm.change.words() for name, arm in suite.arms.items()} == {
        "coarse": 'model.mode = "coarse" (base: "fine")',
        "coarse_matched": "train.samples = 192000 (coarse: 96000)",
        "random_query": 'model.queries = "random" (base: "predicted")',
        "shuffled_query": 'model.queries = "shuffled" (base: "predicted")',
    }
    assert suite.control is not None
    assert suite.control.change.words() == 'dataset = "global" (the main task: "cue")'
    assert suite.seeds == (0, 1, 2)
    assert {(cell.arm, cell.task) for cell in suite.cells} == {
        *((arm, MAIN) for arm in (BASE, *suite.arms)),
        *((arm, CONTROL) for arm in (BASE, "coarse")),
    }


def test_both_tasks_train_from_the_files(made: Path, tmp_path: Path) -> None:
    text = (made / "cue.toml").read_text()
    for key, value in {"samples": 64, "warmup_samples": 16, "evaluate_every": 64, "checkpoint_every": 64}.items():
        text = re.sub(rf"^{key} = \S+", f"{key} = {value}", text, flags=re.MULTILINE)
    (made / "short.toml").write_text(text.replace("batch_size = 64", "batch_size = 16"))
    wanted = [(BASE, MAIN), ("coarse", MAIN), (BASE, CONTROL)]
    cells = {(cell.arm, cell.task): cell for cell in read_suite_config(made / "short.toml").cells if cell.seed == 0}
    runs = {
        (arm, task): train_run(cells[arm, task].config, tmp_path / arm / task, seed=0, arm=arm, task=task)
        for arm, task in wanted
    }
    for run in runs.values():
        assert (run.state, run.samples_seen, run.num_validation) == (DONE, 64, NUM["validation"])
        assert 0.5 < run.final["loss"] < 3
    assert runs[BASE, MAIN].validation_hash == runs["coarse", MAIN].validation_hash
    assert runs[BASE, MAIN].validation_hash != runs[BASE, CONTROL].validation_hash
    base, coarse = (runs[arm, MAIN].final for arm in (BASE, "coarse"))
    assert base["loss"] == base["fine"] != coarse["loss"] == coarse["coarse"]


def test_the_same_command_writes_the_same_bytes_and_leaves_them_alone(tmp_path: Path) -> None:
    def run(folder: str, *options: str) -> dict[str, bytes]:
        assert main([str(tmp_path / folder), "--train", "5", "--validation", "2", *options]) == 0
        files = sorted(path for path in (tmp_path / folder).rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path / folder)): path.read_bytes() for path in files}

    first = run("first")
    assert set(first) == {
        *(f"{task}/{split}-0000.tar" for task in TASKS for split in NUM),
        *("encoder.py", "cue.toml", "made_cues.json"),
    }
    assert run("second") == first
    edited = tmp_path / "first" / "cue.toml"
    edited.write_text("# mine\n")
    assert run("first")["cue.toml"] == b"# mine\n"
    assert run("third", "--seed", "1")["cue/train-0000.tar"] != first["cue/train-0000.tar"]


def test_seeds_and_splits_are_other_clips() -> None:
    for task in TASKS:
        assert draw_clips(task, 3, 7).captions != draw_clips(task, 3, 8).captions
        assert draw_clips(task, 3, 7).captions != draw_clips(task, 3, 7, 1).captions
        assert (draw_clips(task, 3, 7).symbols_ntc == draw_clips(task, 3, 7).symbols_ntc).all()


def test_what_is_not_there_to_be_written_over_is_refused(tmp_path: Path) -> None:
    write_cues(tmp_path / "made", num_train=2, num_validation=1)
    with pytest.raises(UsageError, match="holds other made clips"):
        write_cues(tmp_path / "made", num_train=2, num_validation=1, seed=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        write_cues(tmp_path / "mine", num_train=2, num_validation=1)
    with pytest.raises(UsageError, match="0 clips of validation"):
        write_cues(tmp_path / "none", num_train=2, num_validation=0)
    with pytest.raises(UsageError, match="'qlobal'"):
        draw_clips("qlobal", 1, 0)


def test_the_command_says_what_it_made(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fovcache.bench.made_cues", str(tmp_path / "made")]
    done = subprocess.run(
        [*command, "--train", "3", "--validation", "2"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"5 clips of each task \(cue, global\), \S+ KiB, in ", done.stdout)
    assert json.loads((tmp_path / "made" / "made_cues.json").read_text()) == {
        "version": 1,
        "seed": 0,
        "train": 3,
        "validation": 2,
    }
    done = subprocess.run([*command, "--train", "4"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == UsageError.exit_status
    assert done.stderr.startswith(f"error: {tmp_path / 'made'} holds other made clips")
