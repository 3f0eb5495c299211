"""Intervals of differences hold the truth, and corrected tests find nothing where there is nothing."""

import pytest

from fovcache.probes.splits import GIVEN, INDEPENDENT, RESPLIT
from fovcache.probes.statistics.coverage import RESPLIT_POPULATIONS
from fovcache.probes.statistics.paired_coverage import NO_DIFFERENCE, simulate_family, simulate_pairs


@pytest.mark.parametrize("kind", [RESPLIT, INDEPENDENT, GIVEN])
def test_intervals_of_differences_cover(kind: str) -> None:
    for row in simulate_pairs(RESPLIT_POPULATIONS[0], kind, 8):
        assert row.coverage >= 0.6  # .95 ± .077
        assert row.of != NO_DIFFERENCE or row.found <= 0.4


def test_holms_correction_keeps_false_findings_rare() -> None:
    for row in simulate_family(RESPLIT_POPULATIONS[0], 12):
        assert row.any_holm <= row.any
        assert row.each <= 0.15
        assert row.any_holm <= 0.34  # .05 ± .063
