"""The protocol's own intervals hold the truth of made populations as often as they say."""

from fovcache.probes.statistics.coverage import (
    GIVEN_POPULATIONS,
    RESPLIT_POPULATIONS,
    Coverage,
    simulate_given,
    simulate_resplit,
)


def found(rows: list[Coverage], method: str, num_seeds: int) -> Coverage:
    return next(row for row in rows if (row.method, row.num_seeds) == (method, num_seeds))


def test_corrected_intervals_of_resplits_cover_and_plain_ones_do_not() -> None:
    rows = simulate_resplit(RESPLIT_POPULATIONS[0], 80)
    for num_seeds in (5, 10):
        assert found(rows, "corrected resampled t", num_seeds).coverage >= 0.87  # .95 ± .024
    assert found(rows, "plain t", 10).coverage < 0.85
    assert found(rows, "percentile bootstrap", 10).coverage < 0.75


def test_intervals_over_given_items_cover_and_those_over_seeds_do_not() -> None:
    rows = simulate_given(GIVEN_POPULATIONS[-1], 40)
    assert found(rows, "test items × seeds", 5).coverage >= 0.84  # .95 ± .034
    assert found(rows, "plain t over seeds", 5).coverage < 0.7
