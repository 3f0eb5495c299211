"""Weights by hub id: downloaded once, found without network afterwards, and refused in one plain line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import COMMIT, HubServer
from safetensors.numpy import save
from tokenizer_files import END, made_tokenizer

TOKEN = "hf_averysecrettokenthatmustnotshow"
OPEN = """
import json, sys
from fovcache.errors import FovcacheError
from fovcache.extract.extractor import resolve_extractor
from fovcache.models.checkpoint import open_checkpoint
for weights in sys.argv[1:]:
    try:
        options = {"subfolder": "vae"} if "pipeline" in weights else {"with_processor": True}
        if "words" in weights:
            print(json.dumps(resolve_extractor("tokens", weights).identity()))
            continue
        found = open_checkpoint(weights, name="little", hub_id="team/default", config={}, **options)
        said = {**found.identity(), "files": sorted(path.name for path in found.folder.iterdir()), "label": found.label}
    except FovcacheError as error:
        said = {"error": type(error).__name__, "status": error.exit_status, "said": str(error)}
    print(json.dumps(said))
"""
CONFIG = b'{"model_type": "little"}'
WEIGHTS = save({"a": np.ones(3, np.float32)})
MODELS = {
    "team/model": {
        "config.json": CONFIG,
        "preprocessor_config.json": b"{}",
        "model.safetensors": WEIGHTS,
        "pytorch_model.bin": b"a pickle",
        "README.md": b"about it",
        "other/model.safetensors": b"of another model",
    },
    "team/no-processor": {"config.json": CONFIG, "model.safetensors": WEIGHTS},
    "team/pipeline": {
        "model_index.json": b"{}",
        "everything.safetensors": WEIGHTS * 9,
        "vae/config.json": CONFIG,
        "vae/diffusion_pytorch_model.safetensors": WEIGHTS,
        "unet/diffusion_pytorch_model.safetensors": WEIGHTS * 9,
    },
    "team/words": {
        "tokenizer.json": made_tokenizer().to_str().encode(),
        "special_tokens_map.json": json.dumps({"eos_token": END}).encode(),
    },
    "team/pickled": {"config.json": CONFIG, "pytorch_model.bin": b"a pickle"},
}
REFUSALS = {
    "team/gated": (403, "GatedRepo"),
    "team/gated-401": (401, "GatedRepo"),
    "team/private": (401, ""),
    "team/broken": (500, ""),
}
ADVICE = "give a folder with --weights DIR (config.json and safetensors files), or random weights with random:0"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    server = HubServer(MODELS, REFUSALS)
    yield server
    server.close()


def open_in_a_process(hub: HubServer, home: Path, *weights: str, **environment: str) -> list[dict[str, Any]]:
    """What a process with a hub cache of its own finds, one for each of `weights`; it says nothing else."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "NO_PROXY": "*", **environment}
    done = subprocess.run(
        [sys.executable, "-c", OPEN, *weights], env=clean | own, capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert TOKEN not in done.stdout
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_model_is_downloaded_once_and_found_without_network_afterwards(hub: HubServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    ids = ("team/model", f"team/model@{COMMIT}", "team/no-processor")
    first, pinned, bare = open_in_a_process(hub, home, *ids)
    assert first["files"] == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert first["label"] == "weights team/model"
    assert first["digest"] == pinned["digest"] == bare["digest"]
    assert hub.authorizations == {f"Bearer {TOKEN}"}
    requested = len(hub.requests)
    assert all("/team/" in request for request in hub.requests)  # and no telemetry
    assert not [request for request in hub.requests if "other/" in request or ".bin" in request]
    assert open_in_a_process(hub, home, "team/model") == [first]
    assert len(hub.requests) == requested
    hub.close()
    assert open_in_a_process(hub, home, *ids) == [first, pinned, bare]
    assert open_in_a_process(hub, home, *ids, HF_HUB_OFFLINE="1") == [first, pinned, bare]


def test_of_a_pipeline_only_the_subfolder_is_downloaded(hub: HubServer, tmp_path: Path) -> None:
    (first,) = open_in_a_process(hub, tmp_path / "home", "team/pipeline")
    assert first["files"] == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert not [request for request in hub.requests if "unet/" in request or "everything" in request]
    hub.close()
    assert open_in_a_process(hub, tmp_path / "home", "team/pipeline") == [first]


def test_a_tokenizer_without_a_configuration_is_found_without_network_too(hub: HubServer, tmp_path: Path) -> None:
    (first,) = open_in_a_process(hub, tmp_path / "home", "team/words")
    assert first["end_text"] == END
    hub.close()
    assert open_in_a_process(hub, tmp_path / "home", "team/words") == [first]
    assert open_in_a_process(hub, tmp_path / "home", "team/words", HF_HUB_OFFLINE="1") == [first]


def test_what_the_hub_refuses_is_one_plain_line(hub: HubServer, tmp_path: Path) -> None:
    refused = {
        "team/absent": "has no such model that may be read",
        "team/private": "has no such model that may be read",
        "team/gated": "the model is gated; accept its terms on the hub and set HF_TOKEN",
        "team/gated-401": "the model is gated; accept its terms on the hub and set HF_TOKEN",
        "team/model@v9": "the hub has no such revision of the model",
        "te--am/mo..del": "is no hub id",
    }
    for (weights, said), answer in zip(
        refused.items(), open_in_a_process(hub, tmp_path / "home", *refused), strict=True
    ):
        assert (answer["error"], answer["status"]) == ("WeightsError", 2)
        assert answer["said"].startswith(f"weights {weights!r}")
        assert said in answer["said"]
        assert answer["said"].endswith(ADVICE)
        assert "\n" not in answer["said"]
    (pickled,) = open_in_a_process(hub, tmp_path / "home", "team/pickled")
    assert pickled["error"] == "WeightsError"
    assert "weights team/pickled hold no safetensors file" in pickled["said"]


def test_a_hub_that_cannot_be_reached_is_a_failure_of_the_environment(hub: HubServer, tmp_path: Path) -> None:
    (broken,) = open_in_a_process(hub, tmp_path / "home", "team/broken")
    hub.close()
    (refused,) = open_in_a_process(hub, tmp_path / "home", "team/model")
    (offline,) = open_in_a_process(hub, tmp_path / "home", "team/model", HF_HUB_OFFLINE="1")
    for answer in (broken, refused, offline):
        assert (answer["error"], answer["status"]) == ("EnvironmentFailure", 3)
        assert "are not in the local hub cache, and " in answer["said"]
        assert answer["said"].endswith(ADVICE)
        assert "\n" not in answer["said"]
    assert "the hub cannot be reached" in broken["said"]
    assert refused["said"].startswith("weights 'team/model' are not in")
    assert "HF_HUB_OFFLINE forbids downloads" in offline["said"]


def test_a_download_that_was_stopped_is_finished(hub: HubServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (whole,) = open_in_a_process(hub, home, "team/model")
    (weights,) = home.rglob("snapshots/*/model.safetensors")
    weights.resolve().unlink()
    weights.unlink()
    assert open_in_a_process(hub, home, "team/model") == [whole]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_cache_that_cannot_be_written_is_said(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o500)
    (answer,) = open_in_a_process(hub, tmp_path / "home", "team/model")
    assert answer["error"] == "EnvironmentFailure"
    assert "cannot download weights 'team/model': permission denied" in answer["said"]
