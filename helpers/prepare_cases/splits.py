"""Train, validation and test: patients and duplicates stay together; stratified and seeded."""

import numpy as np
from sklearn.preprocessing import MultiLabelBinarizer

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
    labels = MultiLabelBinarizer().fit_transform(strata)
    counts = np.zeros((len(names), labels.shape[1] + 1))  # the last column counts rows
    np.add.at(counts, inverse, np.column_stack([labels, np.ones(len(labels))]))
    wanted_shares = np.array([shares[name] for name in SPLITS])
    chosen = _assigned(counts, wanted_shares, np.random.default_rng(seed))
    return np.array(SPLITS)[chosen[inverse]]


def _assigned(counts: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A split for every group: rarest label first, large groups first, to the split that still
    needs most of it.
    """
    wanted = shares[:, None] * counts.sum(axis=0)[None]
    chosen = np.full(len(counts), -1)
    shuffled = rng.permutation(len(counts))
    order = shuffled[np.argsort(-counts[shuffled, -1], kind="stable")]
    remaining = counts.sum(axis=0)
    open_splits = np.flatnonzero(shares > 0)
    while (chosen < 0).any():
        left = np.flatnonzero(remaining[:-1] > 0.5)
        label = min(left, key=lambda one: remaining[one], default=-1)
        for group in order[(counts[order, label] > 0) & (chosen[order] < 0)]:
            chosen[group] = max(open_splits, key=lambda s: (wanted[s, label], wanted[s, -1]))
            wanted[chosen[group]] -= counts[group]
            remaining -= counts[group]
        remaining[label] = 0
    return chosen
