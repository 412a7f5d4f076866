"""Stage 05 beside a plain loop over all pairs, neighbours and relabellings."""

import time

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from helpers.audit import alignment, copies, fidelity, leakage
from speed import measurement


def measure(
    samples: int = 8, cases: int = 400, pictures: int = 1500, permutations: int = 200
) -> pd.DataFrame:
    """Seconds of ours and of a plain baseline, side by side; columns measurement.COLUMNS."""
    return pd.DataFrame(
        [_search(samples, cases), _neighbours(pictures), _permutations(permutations)]
    )


def _search(samples: int, cases: int) -> dict:
    random = np.random.default_rng(0)
    looked_for, known = (
        random.normal(0, 1, (count, alignment.SIDE, alignment.SIDE)).astype(np.float32)
        for count in (samples, cases)
    )

    every = np.ones((samples, cases), bool)

    def ours():
        for sample, likeliest in zip(looked_for, copies._search(looked_for, known, every)):
            alignment.aligned(sample, known[likeliest])

    def plain():
        alignment.aligned(looked_for[0], known)

    note = f"baseline: {samples} times one sample aligned with all {cases} cases"
    return measurement.row(
        "copies",
        f"{samples} samples against {cases} cases",
        _seconds(plain) * samples,
        _seconds(ours),
        "s",
        note,
    )


def _neighbours(pictures: int) -> dict:
    random = np.random.default_rng(0)
    made, real = (random.normal(0, 1, (pictures, 64)).astype(np.float32) for _ in range(2))

    def plain():
        for points in (made, real):
            for point in points[: pictures // 10]:
                np.sort(np.linalg.norm(points - point, axis=1))[5]

    note = f"baseline: sorting point by point, a tenth of {pictures} timed"
    ours = _seconds(lambda: fidelity.neighbourhoods(made, real))
    return measurement.row(
        "fidelity", f"neighbourhoods of {pictures}", _seconds(plain) * 10, ours, "s", note
    )


def _permutations(permutations: int) -> dict:
    random = np.random.default_rng(0)
    facts = pd.DataFrame(random.normal(0, 1, (300, 10)))
    truth, groups = np.arange(300) < 150, np.arange(300).astype(str)

    def plain():
        for _ in range(permutations // 10):
            for train, test in GroupKFold(5).split(facts, truth, groups):
                Ridge().fit(facts.iloc[train], random.permutation(truth)[train]).predict(
                    facts.iloc[test]
                )

    def ours():
        leakage.separability(facts, truth, groups, seed=0, permutations=permutations)

    note = (
        "baseline: one refit a relabelling and fold, a tenth timed, for the joint and all ten"
        " single signs"
    )
    return measurement.row(
        "leakage",
        f"{permutations} relabellings, 11 discriminants",
        _seconds(plain) * 10 * 11,
        _seconds(ours),
        "s",
        note,
    )


def _seconds(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
