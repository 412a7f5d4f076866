"""Changes during the read: a slope within each reader, and its mean over readers.

Two stages (Feldman 1988): least squares within each reader, then the readers' slopes as a sample.
Nothing is assumed about how readers differ. Because readers have different orders, an effect of
images does not look like an effect of time.
"""

import numpy as np
import pandas as pd
from scipy import special

from helpers.statistics.clusters import UPPER

FEWEST_ANSWERS = 10  # minimum answers of a reader for a slope
FIFTHS = 5


def slopes(answers: pd.DataFrame, outcome: str, by: str) -> pd.DataFrame:
    """Each reader's slope of `outcome` on `by` among images of the same kind, with its variance
    (HC2: White 1980, MacKinnon and White 1985): columns slope, variance, answers; index reader.

    `answers` has one row per answer and columns reader and kind. Readers with fewer than
    FEWEST_ANSWERS, or whose `by` does not vary, are left out.
    """
    rows = {}
    for reader, own in answers.dropna(subset=[outcome, by]).groupby("reader"):
        columns = own[[outcome, by]].astype(float)
        groups = own["kind"].to_numpy()
        y, x = (columns - columns.groupby(groups).transform("mean")).to_numpy().T
        spread = (x**2).sum()
        if len(own) < FEWEST_ANSWERS or spread < 1e-9:
            continue
        slope = x @ y / spread
        sizes = pd.Series(groups).groupby(groups).transform("size").to_numpy()
        leverage = np.minimum(1 / sizes + x**2 / spread, 1 - 1e-9)
        noise = (y - slope * x) ** 2 / (1 - leverage)
        rows[reader] = (slope, (x**2 * noise).sum() / spread**2, len(own))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["slope", "variance", "answers"])


def mean_slope(found: pd.DataFrame, general: int) -> dict:
    """The mean over readers: estimate, low, high, statistic, df, p, readers, answers, reason.

    With at least `general` readers it holds for readers in general (t over the readers' slopes),
    otherwise only for these readers (normal, without p).
    """
    readers, row = len(found), dict.fromkeys(("estimate", "low", "high", "statistic"), np.nan)
    row |= {"df": np.nan, "p": np.nan, "readers": readers, "answers": int(found["answers"].sum())}
    if not readers:
        return row | {"reason": f"no reader has {FEWEST_ANSWERS} answers to compare"}
    row["estimate"] = estimate = found["slope"].mean()
    few = readers < general
    of_each = found["variance"].sum() / readers if few else found["slope"].var()
    se, df = np.sqrt(of_each / readers), np.inf if few else readers - 1.0
    if not se > 1e-12:
        return row | {"reason": "it is the same throughout"}
    half, statistic = special.stdtrit(df, UPPER) * se, estimate / se
    row |= {"low": estimate - half, "high": estimate + half, "reason": ""}
    if not few:
        row |= {"statistic": statistic, "df": df, "p": 2 * special.stdtr(df, -abs(statistic))}
    return row


def course(answers: pd.DataFrame, outcome: str, general: int) -> pd.DataFrame:
    """`outcome` in each fifth of the read, mean over readers (each counts the same): columns fifth,
    estimate, low, high, readers, answers. Intervals (t over readers) need at least `general`
    readers.

    `answers` has columns reader and share, from 0 for a reader's first image to 1 for the last.
    """
    known = answers.dropna(subset=[outcome])
    fifth = np.minimum((known["share"] * FIFTHS).astype(int), FIFTHS - 1) + 1
    rows = []
    for number, part in known.groupby(fifth):
        means = part[outcome].astype(float).groupby(part["reader"]).mean()
        readers, mean, half = len(means), means.mean(), np.nan
        if readers >= general:
            half = special.stdtrit(readers - 1, UPPER) * means.std(ddof=1) / np.sqrt(readers)
        rows.append((number, mean, mean - half, mean + half, readers, len(part)))
    return pd.DataFrame(rows, columns=["fifth", "estimate", "low", "high", "readers", "answers"])
