"""A block is computed again under the limits that it was computed under."""

from typing import Any

import pytest

from fovcache.builder.request import EncoderRequest, recorded_limits, resolve
from fovcache.decode.limits import Limits


def test_limits_are_recorded_with_a_clips_software_and_read_back() -> None:
    limits = Limits(max_pixels=10**9, max_duration_s=10**6)
    _, clips = resolve(EncoderRequest(encoder="pixels", layers=("*",)), limits).each
    assert recorded_limits({"software": clips.spec.software()}) == limits


@pytest.mark.parametrize("software", [None, {}, {"max_pixels": "many", "max_duration_s": -1}])
def test_what_records_none_has_the_usual_ones(software: dict[str, Any] | None) -> None:
    assert recorded_limits({"software": software}) == Limits()
