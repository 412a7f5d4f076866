"""Train, validation and test: patients and duplicates stay together; stratified and seeded."""

import numpy as np

from helpers.table_columns import SPLITS


def split(
    groups: np.ndarray, strata: list[set[str]], shares: dict[str, float], seed: int
) -> np.ndarray:
    """The split of every row, shape (n,), by iterative stratification (Sechidis et al., ECML PKDD
    2011) of whole groups.

    `strata` are the labels of each row; every split gets its share of each label. Shares sum to 1.
    The result depends on the order of rows and the seed alone. Raises ValueError for shares that do
    not fit.
    """
    if (
        set(shares) != set(SPLITS)
        or min(shares.values()) < 0
        or abs(sum(shares.values()) - 1) > 1e-9
    ):
        raise ValueError(
            "Shares of train, validation and test must each be 0 or more and sum to 1: lower"
            " validation_share or test_share."
        )
    names, inverse = np.unique(groups, return_inverse=True)
    labels = sorted({label for row in strata for label in row})
    counts = np.zeros((len(names), len(labels) + 1))  # the last column counts rows
    place = {label: column for column, label in enumerate(labels)}
    for group, row in zip(inverse, strata):
        for label in row:
            counts[group, place[label]] += 1
        counts[group, -1] += 1
    chosen = _assigned(
        counts, np.array([shares[name] for name in SPLITS]), np.random.default_rng(seed)
    )
    return np.array(SPLITS)[chosen[inverse]] if len(groups) else np.array([], dtype=str)


def _assigned(counts: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A split for every group: rarest label first, large groups first, to the split that still
    needs most of it.
    """
    wanted = shares[:, None] * counts.sum(axis=0)[None]
    chosen = np.full(len(counts), -1)
    shuffled = rng.permutation(len(counts))
    order = shuffled[np.argsort(-counts[shuffled, -1], kind="stable")]
    remaining = counts.sum(axis=0)
    while (chosen < 0).any():
        left = np.where(remaining[:-1] > 0.5, remaining[:-1], np.inf)
        label = int(left.argmin()) if len(left) and np.isfinite(left.min()) else len(remaining) - 1
        for group in order[(counts[order, label] > 0) & (chosen[order] < 0)]:
            open_splits = np.flatnonzero(shares > 0)
            keys = [(wanted[s, label], wanted[s, -1], -s) for s in open_splits]
            chosen[group] = open_splits[max(range(len(keys)), key=keys.__getitem__)]
            wanted[chosen[group]] -= counts[group]
            remaining = remaining - counts[group]
        remaining[label] = 0
    return chosen
