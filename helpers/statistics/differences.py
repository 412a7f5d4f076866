"""The difference of two means of answers, for these readers and for readers in general."""

import numpy as np
import pandas as pd
from scipy import special, stats

from helpers.statistics import clusters as cluster

FEW_READERS = 5  # with fewer readers there is no result for readers in general


def difference(rows: pd.DataFrame, side: pd.Series | None, general: bool = False) -> dict:
    """The mean `number` where `side` is 1 minus that where it is 0 (without `side`, just the mean),
    with a 95 % t interval (for shares on a transformed scale). An image on both sides is a pair.

    The interval is cluster-robust over prompts and patients; in `general` it is two-way, over
    readers too (Cameron, Gelbach and Miller, J Bus Econ Stat 2011), with the degrees of freedom of
    the smaller number.
    """
    values = rows["number"].to_numpy(float)
    later = np.full(len(rows), True) if side is None else side.to_numpy() == 1
    means = [values[chosen].mean() if chosen.any() else np.nan for chosen in (~later, later)]
    influence = np.where(later, 1, -1) * (values - np.where(later, means[1], means[0]))
    influence = influence / np.where(later, max(later.sum(), 1), max((~later).sum(), 1))
    groups, people = cluster.codes(rows["cluster"], len(rows)), pd.factorize(rows["reader"])[0]
    found = {} if side is None else {"before": means[0], "after": means[1]}
    found |= {
        "answers": len(rows),
        "images": rows["image_id"].nunique(),
        "readers": len(set(people)),
        "estimate": means[1] - means[0] if (~later).any() else means[1],
    }
    variance, number = cluster.variance(influence, groups), len(set(groups))
    reason = "" if cluster.equal(groups) >= cluster.FEWEST else cluster.FEW
    if general:
        both = pd.factorize(pd.MultiIndex.from_arrays([groups, people]))[0]
        of_readers, each = cluster.variance(influence, people), cluster.variance(influence, both)
        variance = max(variance + of_readers - each, variance, of_readers)
        number = min(number, found["readers"])
        few = found["readers"] < FEW_READERS
        reason = f"fewer than {FEW_READERS} readers" if few else reason
    if not reason and not variance > 0:
        alike = means[0] == means[1] or np.isnan(means[0])
        reason = "all answers are alike" if alike else "answers vary on neither side"
    if reason:
        return found | {"low": np.nan, "high": np.nan, "reason": reason}
    ends = found["estimate"], stats.t(number - 1).ppf(0.975) * np.sqrt(variance)
    low, high = _between(*ends, (~later).any(), np.isin(values, (0, 1)).all())
    return found | {"low": low, "high": high, "reason": ""}


def _between(estimate: float, half: float, paired: bool, shares: bool) -> tuple[float, float]:
    """The ends of an interval: of shares symmetric on the logit scale, of a difference of shares on
    the atanh scale, so that neither leaves the possible range.
    """
    if not shares:
        return estimate - half, estimate + half
    to, back = (np.arctanh, np.tanh) if paired else (special.logit, special.expit)
    half = half / (1 - estimate**2 if paired else estimate * (1 - estimate))
    return back(to(estimate) - half), back(to(estimate) + half)
