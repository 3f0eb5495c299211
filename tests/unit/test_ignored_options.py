"""What a build was asked for and cannot use is said."""

from pathlib import Path
from typing import Any

import pytest

import fovcache


@pytest.mark.parametrize("options", [{"frames": 4}, {"fps": 2.0}])
def test_options_of_clips_are_said_to_be_ignored_where_there_are_only_stills(
    options: dict[str, Any], make_images: Any, tmp_path: Path
) -> None:
    images = make_images(tmp_path / "images", num=2)
    cache = fovcache.open(tmp_path / "cache")
    report = cache.build(str(images), encoder="pixels", layers=["*"], **options)
    assert [text for text in report.warnings if "says nothing of still images" in text]
    assert not cache.build(str(images), encoder="pixels", layers=["*"]).warnings
