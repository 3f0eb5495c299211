"""Traces of a few steps: what is in the file, what is refused, and that TensorBoard loads it."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fovcache.bench.profiler.trace import ProfileTraceError, Trace, trace_run
from fovcache.errors import EnvironmentFailure, UsageError
from fovcache.pipeline.pipeline import Pipeline
from fovcache.pipeline.stage import Stage

START_S = 60.0


def _steps(trace: Trace, num_steps: int | None = None) -> None:
    layer, x = torch.nn.Linear(16, 4), torch.ones(8, 16)
    for _ in range(trace.num_steps if num_steps is None else num_steps):
        with trace.range("forward"):
            loss = layer(x).sum()
        with trace.range("backward"):
            loss.backward()
        trace.step()


def test_each_stage_is_a_range_of_the_recorded_steps(tmp_path: Path) -> None:
    result = trace_run(_steps, tmp_path / "new" / "folder", "cpu", active_steps=2)
    assert result.ranges == {"forward": 2, "backward": 2}
    assert result.missing == ()
    assert result.num_kernels == 0
    assert list((tmp_path / "new" / "folder").iterdir()) == [result.file]
    assert result.file.name.endswith(".pt.trace.json")
    document = json.loads(result.file.read_text())
    events = [event for event in document["traceEvents"] if event["ph"] == "X"]
    assert len(events) == result.num_events
    assert result.size_bytes == result.file.stat().st_size
    # What Perfetto needs of a complete event.
    assert all({"name", "ts", "dur", "pid", "tid"} <= event.keys() and event["dur"] >= 0 for event in events)
    ranges = [event for event in events if event.get("cat") == "user_annotation"]
    assert Counter(event["name"] for event in ranges if not event["name"].startswith("ProfilerStep")) == result.ranges
    forward = next(event for event in ranges if event["name"] == "forward")
    inside = [
        event["name"]
        for event in events
        if event.get("cat") == "cpu_op" and 0 <= event["ts"] - forward["ts"] <= forward["dur"]
    ]
    assert "aten::linear" in inside
    assert not any("Call stack" in event.get("args", {}) for event in events)


def test_stages_are_shown_on_the_threads_they_run_on(tmp_path: Path) -> None:
    """Threads that are older than the trace too, as those of a pipeline are."""

    def work(item: int) -> int:
        torch.ones(8).sum()
        time.sleep(0.002)
        return item

    def run(trace: Trace) -> None:
        stages = [
            Stage(id=name, name=name, resource="cpu", run=trace.wrap(name, work), num_workers=2)
            for name in ("fetch", "decode")
        ]
        with Pipeline(stages, max_results=1) as pipeline:
            for _ in pipeline.run(range(10_000)):
                with trace.range("encode"):
                    work(0)
                trace.step()
                if trace.is_done:
                    break

    def begin_early(trace: Trace) -> None:
        started = threading.Event()
        stop = threading.Event()

        def work_on() -> None:
            while not stop.is_set():
                with trace.range("old"):
                    work(0)
                started.set()

        thread = threading.Thread(target=work_on)
        thread.start()
        assert started.wait(10)
        with trace:
            run(trace)
        stop.set()
        thread.join()

    trace = Trace(tmp_path, "cpu")
    begin_early(trace)
    result = trace.result()
    assert result.ranges.keys() == {"fetch", "decode", "encode", "old"}
    assert result.ranges["encode"] == 3
    events = json.loads(result.file.read_text())["traceEvents"]
    threads = {name: {e["tid"] for e in events if e.get("name") == name and "dur" in e} for name in result.ranges}
    assert threads["encode"] == {threading.get_native_id()}
    assert len(threads["decode"]) == 2
    assert not threads["decode"] & threads["fetch"]


def test_a_range_costs_nothing_while_nothing_is_recorded(tmp_path: Path) -> None:
    trace = Trace(tmp_path, "cpu", warmup_steps=2)
    same = trace.range("decode")
    assert trace.range("encode") is same
    with trace:
        assert trace.range("encode") is same
        for _ in range(2):
            trace.step()
        assert trace.range("encode") is not same
        for _ in range(3):
            trace.step()
        assert trace.is_done
        assert trace.range("encode") is same
        trace.step()  # of no consequence
    assert trace.range("encode") is same
    trace.result()


def test_a_run_that_ends_early_has_what_was_recorded(tmp_path: Path) -> None:
    result = trace_run(lambda trace: _steps(trace, 2), tmp_path, "cpu")
    assert result.ranges["forward"] == 1


def test_a_run_that_ends_before_it_is_warm_has_no_trace(tmp_path: Path) -> None:
    with pytest.raises(ProfileTraceError, match=r"ended after 0 steps; expected more than 1, which warm up, and 4 for"):
        trace_run(lambda trace: None, tmp_path, "cpu")
    assert list(tmp_path.iterdir()) == []


def test_what_the_run_raises_is_raised_and_the_trace_is_kept(tmp_path: Path) -> None:
    def run(trace: Trace) -> None:
        _steps(trace, 3)
        raise KeyError("from the run")

    with pytest.raises(KeyError, match="from the run"):
        trace_run(run, tmp_path, "cpu")
    assert len(list(tmp_path.iterdir())) == 1
    assert trace_run(_steps, tmp_path, "cpu").ranges["forward"] == 3  # and the next one works
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_kernel_where_cuda_was_asked_for_is_an_error_and_the_file_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ProfileTraceError, match=r"no GPU kernel, though it was asked for on cuda: torch has") as caught:
        trace_run(_steps, tmp_path, "cuda")
    assert isinstance(caught.value, EnvironmentFailure)
    assert caught.value.exit_status == 3
    (file,) = tmp_path.iterdir()
    assert str(file) in str(caught.value)
    json.loads(file.read_text())


def test_kernels_are_those_of_category_kernel(tmp_path: Path) -> None:
    """Their launches, copies and the ranges on the device are none."""
    trace = Trace(tmp_path, "cuda")
    with trace:
        _steps(trace)
    (file,) = tmp_path.iterdir()
    document = json.loads(file.read_text())
    own = sum(event.get("cat") == "kernel" for event in document["traceEvents"])  # none without a GPU
    place = {"ph": "X", "pid": 0, "tid": 7, "ts": 1.0, "dur": 2.0}
    for cat, times in {"kernel": 3, "cuda_runtime": 5, "gpu_memcpy": 1, "gpu_user_annotation": 1}.items():
        document["traceEvents"] += [place | {"cat": cat, "name": "forward"}] * times
    file.write_text(json.dumps(document))
    result = trace.result()
    assert result.num_kernels == own + 3
    assert result.ranges["forward"] == 3


def test_a_damaged_trace_is_named(tmp_path: Path) -> None:
    trace = Trace(tmp_path, "cpu")
    with trace:
        _steps(trace)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ProfileTraceError, match=rf"the trace {file} is no Chrome trace: .*; is the disk full\?"):
        trace.result()


def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=f"traces cannot be written to {folder}: it, or what it lies in, is a fi"):
            Trace(folder, "cpu")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):
        closed = Path("/proc/fovcache")  # root may write anywhere but there
        if not Path("/proc/self").exists():
            pytest.skip("root may write anywhere here")
    with pytest.raises(EnvironmentFailure, match=f"cannot write traces to {closed}: "):
        Trace(closed, "cpu")


@pytest.mark.parametrize("steps", [{"warmup_steps": 0}, {"active_steps": 0}])
def test_no_warm_up_or_nothing_to_record_is_refused(tmp_path: Path, steps: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="expected at least 1 of each"):
        Trace(tmp_path, "cpu", **steps)


def test_tensorboard_loads_it(tmp_path: Path) -> None:
    """Its plugin's own answers: the run, and the overview of our worker's steps."""
    for package in ("tensorboard", "torch_tb_profiler"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (fovcache[tensorboard])")
    result = trace_run(_steps, tmp_path / "traces", "cpu")
    _as_of_a_gpu(result.file)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path / "traces"), "--load_fast", "false"]
    with (tmp_path / "log").open("wb") as log:
        board = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log)
    try:
        ask = _asker(f"http://127.0.0.1:{port}/data/plugin/pytorch_profiler")
        deadline = time.monotonic() + START_S
        runs: dict[str, Any] = {}
        while not runs.get("runs") or runs["loading"]:
            assert board.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
            try:
                runs = ask("runs")
            except OSError:
                continue  # it does not listen yet
        assert runs["runs"] == ["traces"]
        assert ask("views?run=traces") == ["Overview", "Operator", "Kernel", "Trace"]
        assert ask("workers?run=traces&view=Overview") == ["fovcache"]
        (span,) = ask("spans?run=traces&worker=fovcache")
        overview = ask(f"overview?run=traces&worker=fovcache&span={span}&view=Overview")
        assert [row[0] for row in overview["steps"]["rows"]] == ["1", "2", "3"]
        kernels = ask(f"kernel/table?run=traces&worker=fovcache&span={span}&group_by=Kernel")
        assert kernels["data"]["rows"][0][0] == "a_kernel"
    finally:
        board.terminate()
        try:
            board.wait(20)
        except subprocess.TimeoutExpired:
            board.kill()
            board.wait()


def _asker(base: str) -> Callable[[str], Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(path: str) -> Any:
        with opener.open(f"{base}/{path}", timeout=10) as answer:
            return json.load(answer)

    return ask


def _as_of_a_gpu(file: Path) -> None:
    """Kernels as a trace of a GPU has them, which the plugin reads by other code than the CPU's."""
    document = json.loads(file.read_text())
    document["deviceProperties"] = [{"id": 0, "name": "A GPU", "totalGlobalMem": 1 << 34, "numSms": 100}]
    operations = [event for event in document["traceEvents"] if event.get("cat") == "cpu_op"]
    for number, operation in enumerate(operations, 1):
        link = {"External id": operation["args"]["External id"], "correlation": number}
        here = {"ph": "X", "pid": operation["pid"], "tid": operation["tid"], "ts": operation["ts"], "dur": 0.1}
        there = {"ph": "X", "pid": 0, "tid": 7, "ts": operation["ts"] + 1, "dur": 2.0}
        place = {"device": 0, "context": 1, "stream": 7, "grid": [1, 1, 1], "block": [128, 1, 1], "blocks per SM": 1.5}
        document["traceEvents"] += [
            here | {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "args": link},
            there | {"cat": "kernel", "name": "a_kernel", "args": link | place | {"est. achieved occupancy %": 30}},
        ]
    file.write_text(json.dumps(document))
