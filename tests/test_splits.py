"""Splits: whole groups, near the shares wanted, in every stratum, the same for the same seed."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.prepare_cases import splits
from helpers.statistics import clusters

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8) | st.none()), min_size=1, max_size=60)
)
def test_connected_rows_share_a_group_and_others_do_not(rows):
    first, second = pd.Series([a for a, _ in rows]), pd.Series([b for _, b in rows], dtype="Int64")
    group = clusters.connected(first, second)
    neighbours = {
        i: {
            j
            for j, (a, b) in enumerate(rows)
            if a == rows[i][0] or (b is not None and b == rows[i][1])
        }
        for i in range(len(rows))
    }
    for i in range(len(rows)):
        reached, edge = {i}, {i}
        while edge:
            edge = {k for j in edge for k in neighbours[j]} - reached
            reached |= edge
        assert set(np.flatnonzero(group == group[i])) == reached


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abcd")), max_size=120),
    st.integers(0, 5),
)
def test_a_group_never_crosses_a_split(rows, seed):
    groups = np.array([group for group, _ in rows], dtype=int)
    chosen = splits.split(groups, [{label} for _, label in rows], SHARES, seed)
    assert all(len(set(chosen[groups == group])) == 1 for group in set(groups.tolist()))
    assert set(chosen) <= set(SHARES)
    np.testing.assert_array_equal(
        chosen, splits.split(groups, [{label} for _, label in rows], SHARES, seed)
    )


def test_every_stratum_gets_its_share():
    rng = np.random.default_rng(0)
    strata = [
        {str(label), f"view {view}"}
        for label, view in zip(
            rng.choice(8, 3000, p=[0.4, 0.2, 0.15, 0.1, 0.06, 0.05, 0.03, 0.01]),
            rng.integers(0, 2, 3000),
        )
    ]
    groups = np.sort(rng.integers(0, 1500, 3000))
    chosen = splits.split(groups, strata, SHARES, 1)
    for label in {label for row in strata for label in row}:
        mine = chosen[[label in row for row in strata]]
        for name, share in SHARES.items():
            assert abs((mine == name).mean() - share) < 0.02 + 1.5 / len(mine)


def test_another_seed_is_another_split():
    groups, strata = np.arange(100), [{"a"}] * 100
    assert (
        splits.split(groups, strata, SHARES, 1) != splits.split(groups, strata, SHARES, 2)
    ).any()


@pytest.mark.parametrize(
    "shares",
    [
        {"train": 0.5, "validation": 0.1, "test": 0.2},
        {"train": -0.1, "validation": 0.5, "test": 0.6},
        {"train": 1.0},
    ],
)
def test_shares_that_do_not_fit_are_refused(shares):
    with pytest.raises(ValueError, match="sum to 1"):
        splits.split(np.arange(3), [{"a"}] * 3, shares, 1)


def test_no_test_share_means_no_test_rows():
    chosen = splits.split(
        np.arange(50), [{"a"}] * 50, {"train": 0.9, "validation": 0.1, "test": 0.0}, 1
    )
    assert "test" not in chosen and (chosen == "validation").sum() == 5
