"""The configuration of an ablation: what it means, and what is refused in one line that names it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from fovcache.errors import UsageError
from fovcache.probes.config import (
    ENCODER_KEYS,
    TABLE_KEYS,
    TOP_KEYS,
    AblationConfig,
    EncoderChoice,
    RepresentationChoice,
    read_config,
)
from fovcache.probes.heads.head import HEADS, head_settings

WHOLE = """
cache = "cache"
dataset = "digits"
seeds = [0, 3]
representations = ["simple_stats", {name = "spectral", method = "exact"}]
single_layers = false
device = "cpu"
[encoders.vit]
encoder = "vit-tiny"
weights = "random:0"
pool = "tokens"
store_dtype = "bf16"
recipe = "0123abcd"
[experiments]
all = ["vit:**"]
early = ["vit:blocks.[01]", "vit:embed"]
[split]
kind = "resplit"
test = 0.2
validation = 0.1
group = false
[head]
kind = "logistic"
strengths = [0.1, 1]
[controls]
shuffled_labels = false
random_layers = false
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "conf.toml"
        path.write_text(text)
        return path

    return write


def test_every_key_is_read(write, tmp_path: Path) -> None:
    config = read_config(write(WHOLE))
    assert config.name == "conf"
    assert config.cache_path == tmp_path / "cache"  # where the file is, not where the command runs
    assert (config.dataset, config.seeds, config.single_layers, config.device) == ("digits", (0, 3), False, "cpu")
    assert [each.label for each in config.representations] == ["simple_stats", "spectral(method=exact)"]
    assert config.encoders == {
        "vit": EncoderChoice(
            encoder="vit-tiny", weights="random:0", pool="tokens", store_dtype="bf16", recipe="0123abcd"
        )
    }
    assert config.experiments == {"all": ("vit:**",), "early": ("vit:blocks.[01]", "vit:embed")}
    assert (config.split.kind, config.split.test, config.split.validation, config.split.group) == (
        "resplit",
        0.2,
        0.1,
        False,
    )
    assert (config.head.kind, config.head.settings) == ("logistic", {"strengths": [0.1, 1]})
    assert (config.controls.shuffled_labels, config.controls.random_layers) == (False, False)


def test_a_cache_is_all_that_must_be_named(write) -> None:
    config = read_config(write('cache = "/somewhere/cache"'))
    assert config.cache_path == Path("/somewhere/cache")
    assert config.seeds == (0, 1, 2, 3, 4)
    assert config.single_layers
    assert config.controls.shuffled_labels
    assert config.controls.random_layers
    names = [each.name for each in config.representations]
    assert {"simple_stats", "spectral", "ensemble"} <= set(names)
    assert "flat_vec" not in names


TOP = 'cache = "c"\n'
REFUSED = {
    "": "there is no key 'cache', which is required",
    "cach = 'c'": "there is no key 'cach'; nearest: cache",
    TOP + "[split]\ntset = 0.5": "[split]: there is no key 'tset'; nearest: test",
    TOP + "[head]\nalpha = 1": "[head]: a ridge head has no setting 'alpha'",
    TOP + "[controls]\nshuffled_label = true": "[controls]: there is no key 'shuffled_label'; nearest: shuffled_labels",
    TOP + "[encoders.a]\nweight = 'x'": "[encoders.a]: there is no key 'weight'; nearest: weights",
    TOP + "[splits]\ntest = 0.5": "there is no key 'splits'; nearest: split",
    "cache = 3": "cache = 3, expected a text",
    "cache = ''": "cache = '', expected a text",
    TOP + "seeds = 0": "seeds = 0, expected how many, at least 1",
    TOP + "seeds = true": "seeds = True, expected",
    TOP + "seeds = []": "seeds = [], expected",
    TOP + "seeds = [1, -2]": "seeds = [1, -2], expected",
    TOP + "seeds = [1, 1]": "seeds holds 1 twice",
    TOP + "seeds = 2.5": "seeds = 2.5, expected",
    TOP + "representations = []": "representations = [], expected a list of names, at least one",
    TOP + "representations = 'stats'": "representations = 'stats', expected a list",
    TOP + "representations = ['spectrum']": "no representation named 'spectrum'; nearest: spectral",
    TOP + "representations = ['stats', 'stats']": "representations holds 'stats' twice",
    TOP + "representations = [{method = 'exact'}]": "representations holds {'method': 'exact'}, expected a name or",
    TOP + "representations = [{name = 'stats', metod = 1}]": "representation 'stats' does not take these parameters",
    TOP + "single_layers = 1": "single_layers = 1, expected true or false",
    TOP + "encoders = 3": "encoders = 3, expected a table",
    TOP + "[encoders]\na = 'vit'": "[encoders]: a = 'vit', expected a table",
    TOP + "[encoders.'a:b']": "encoder 'a:b': an alias is made of letters",
    TOP + "[encoders.a]\npool = 'tokns'": "[encoders.a]: pool = 'tokns' is not one of cls, mean, tokens; nearest",
    TOP + "[experiments]": "[experiments]: there are no experiments",
    TOP + "[experiments]\nall = []": "[experiments]: all = [], expected a list of layer globs, at least one",
    TOP + "[experiments]\nall = '**'": "[experiments]: all = '**', expected a list of layer globs",
    TOP + "[experiments]\nall = ['**', 3]": "[experiments]: all holds 3, expected layer globs",
    TOP + "[experiments]\na = ['x']\na = ['y']": "is not a TOML file: Cannot overwrite a value",
    TOP + "[split]\nkind = 'givn'": "[split]: kind = 'givn' is not one of resplit, given, independent; nearest: given",
    TOP + "[split]\ntest = 1.5": "[split]: test = 1.5, expected a fraction between 0 and 1",
    TOP + "[split]\ntest = nan": "[split]: test = nan, expected a fraction between 0 and 1",
    TOP + "[split]\ntest = 0.6\nvalidation = 0.4": "[split]: test = 0.6 and validation = 0.4 leave nothing",
    TOP + "[split]\nkind = 'given'\ntest = 0.3": "[split]: test is a share of a resplit",
    TOP + "[split]\nshots = 0": "[split]: shots = 0, expected how many samples of each class train has, at least 1",
    TOP + "[split]\nshots = 2.5": "[split]: shots = 2.5, expected how many",
    TOP + "seeds_vary = []": "seeds_vary = [], expected a list of some of split, initialisation, order, at least one",
    TOP + "seeds_vary = ['order', 'splits']": "seeds_vary holds 'splits'; nearest: split",
    TOP + "seeds_vary = ['order']\n[split]\nkind = 'independent'": "gives each seed samples of its own, and seeds_vary",
    TOP + "[split]\ngroup = 'yes'": "[split]: group = 'yes', expected true or false",
    TOP + "[head]\nkind = 'mpl'": "[head]: kind = 'mpl' is not one of ridge, logistic, linear, mlp, knn; nearest: mlp",
    TOP + "[head]\nstrengths = []": "[head]: a head needs at least one strength",
    TOP + "[head]\nstrengths = [1, 0]": "[head]: strengths holds 0, expected numbers above 0",
    TOP + "[head]\nstrengths = [inf]": "[head]: strengths holds inf, expected numbers above 0",
    TOP + "[head]\nstrengths = [1, 1.0]": "[head]: strengths = [1, 1.0] holds one of them twice",
    "cache = ": "is not a TOML file: Invalid value",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_meant_is_one_line_that_names_file_table_and_key(write, text: str) -> None:
    path = write(text)
    with pytest.raises(UsageError) as error:
        read_config(path)
    said = str(error.value)
    assert REFUSED[text] in said
    assert said.startswith(str(path))
    assert "\n" not in said


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no configuration file"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="is a folder"):
        read_config(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'cache = "\xe9"')
    with pytest.raises(UsageError, match="not UTF-8"):
        read_config(tmp_path / "latin.toml")


def test_a_configuration_made_in_python_is_checked_too() -> None:
    config = AblationConfig(name="mine", cache="c", representations=(RepresentationChoice(name="stats"),))
    assert config.experiments == {}
    with pytest.raises(UsageError, match="names no layers"):
        AblationConfig(name="mine", cache="c", experiments={"none": ()})
    with pytest.raises(UsageError, match="no representation named 'stat'"):
        RepresentationChoice(name="stat")


def test_the_page_shows_a_configuration_with_every_key(write, root: Path) -> None:
    page = (root / "docs" / "ablations.md").read_text()
    shown = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    for text in shown:
        assert read_config(write(text)).experiments
    tables = tomllib.loads(shown[0])
    assert set(tables) == {*TOP_KEYS, *TABLE_KEYS, "encoders", "experiments", "head", "arms"}
    assert {name: set(tables[name]) for name in TABLE_KEYS} == {name: set(keys) for name, keys in TABLE_KEYS.items()}
    assert set(tables["encoders"]["vit"]) == set(ENCODER_KEYS)
    for kind in HEADS:
        said = re.findall(rf"^\| `{kind}` \|.*$", page, re.MULTILINE)
        assert len(said) == 1
        assert [name for name in head_settings(kind) if f"`{name}`" not in said[0]] == []
