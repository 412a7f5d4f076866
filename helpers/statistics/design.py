"""Planning: the number of images, the association of truth with something visible, and the range
that partly published counts allow.
"""

from collections.abc import Sequence
from itertools import combinations
from math import ceil, comb

import numpy as np
import pandas as pd
from scipy import optimize, stats

EXACT_TABLES = 2_000_000
STRONG = 0.3  # Cramér's V above which truth is called associated with something else


def sample_size(
    kappa0: float,
    kappa1: float,
    shares: float | Sequence[float],
    readers: int = 2,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int:
    """Images needed to distinguish kappa1 from kappa0 (two-sided, goodness of fit; Donner and
    Eliasziw 1992, Altaye et al. 2001; three and more categories: Donner and Rotondi 2010).

    `shares` of the answers: the prevalence of a binary label, or one share per category. Every
    image is rated by all `readers`. Raises ValueError for impossible values.
    """
    parts = np.atleast_1d(np.asarray(shares, dtype=float))
    if not (0 <= kappa0 < 1 and 0 <= kappa1 <= 1 and readers >= 2 and 0 < power < 1):
        raise ValueError("kappa must lie in [0, 1), power in (0, 1), and readers must be 2 or more")
    if not ((parts > 0) & (parts < 1)).all() or (len(parts) > 1 and abs(parts.sum() - 1) > 1e-6):
        raise ValueError("the expected shares of answers must lie between 0 and 1, and add up to 1")
    if kappa0 == kappa1:
        raise ValueError("kappa0 and kappa1 are equal: no number of images distinguishes them")
    cells = _votes if len(parts) == 1 else _unanimous
    null, other = (cells(kappa, parts, readers) for kappa in (kappa0, kappa1))
    effect = ((other - null) ** 2 / null).sum()
    critical = stats.chi2.ppf(1 - alpha, 1)
    noncentrality = optimize.brentq(
        lambda value: stats.ncx2.sf(critical, 1, value) - power, 1e-6, 1e4
    )
    return ceil(noncentrality / effect)


def _votes(kappa: float, prevalence: np.ndarray, readers: int) -> np.ndarray:
    """P(0, 1, …, readers say yes): with probability kappa all say the same; otherwise each answers
    independently.
    """
    independent = stats.binom.pmf(np.arange(readers + 1), readers, prevalence)
    together = np.zeros(readers + 1)
    together[[0, -1]] = 1 - prevalence[0], prevalence[0]
    return kappa * together + (1 - kappa) * independent


def _unanimous(kappa: float, shares: np.ndarray, readers: int) -> np.ndarray:
    """P(all say the first category), …, P(not all say the same): Dirichlet-multinomial."""
    others = np.arange(1, readers)[:, None] * kappa
    alike = shares * ((shares * (1 - kappa) + others) / (1 - kappa + others)).prod(axis=0)
    return np.append(alike, 1 - alike.sum())


def imbalance(truth, values) -> dict:
    """How strongly truth (0 or 1 per image) is associated with something readers can see, such as
    modality.

    Images whose value is missing are left out. Returns v (Cramér's, 0 to 1; 0 if nothing varies)
    and alone: the values, shared by two or more images, that occur with one truth only.
    """
    known = pd.DataFrame({"truth": np.asarray(truth), "value": np.asarray(values, dtype=object)})
    table = pd.crosstab(known["value"], known["truth"])
    if min(table.shape, default=0) < 2:
        return {"v": 0.0, "alone": []}
    alone = table.index[(table == 0).any(axis=1) & (table.sum(axis=1) > 1)]
    return {"v": float(stats.contingency.association(table)), "alone": [str(v) for v in alone]}


def bounds(images: int, both: dict, categories: list) -> pd.DataFrame:
    """Lowest and highest value of every two-reader coefficient over all tables that agree with
    published counts.

    `both` gives, for some categories, the number of the `images` that both readers put into it; all
    other counts are free. Returns columns low, high, exact, tables (count), undefined (those
    without a value), one row per coefficient. All tables are enumerated up to EXACT_TABLES of them;
    beyond that, only tables whose free images lie in at most three cells are examined, `exact` is
    False, and the true range is at least as wide.
    """
    left = images - sum(both.values())
    size = len(categories)
    known = [list(categories).index(c) * (size + 1) for c in both]
    free = [cell for cell in range(size * size) if cell not in known]
    exact = comb(left + len(free) - 1, len(free) - 1) <= EXACT_TABLES
    parts = _compositions(left, len(free)) if exact else _faces(left, len(free))
    tables = np.zeros((len(parts), size * size), dtype=np.int32)
    tables[:, known] = list(both.values())
    tables[:, free] = parts
    values = pd.DataFrame(two_reader_coefficients(tables.reshape(-1, size, size)))
    found = pd.DataFrame({"low": values.min(), "high": values.max()})
    return found.assign(exact=exact, tables=len(values), undefined=values.isna().sum())


def two_reader_coefficients(tables: np.ndarray) -> dict[str, np.ndarray]:
    """Unweighted coefficients of many cross tables at once, (tables, q, q) -> name: (tables,); nan
    where undefined.
    """
    total = tables.sum(axis=(1, 2)).astype(float)
    size = tables.shape[1]
    observed = np.trace(tables, axis1=1, axis2=2) / total
    rows, columns = tables.sum(axis=2) / total[:, None], tables.sum(axis=1) / total[:, None]
    mean = (rows + columns) / 2
    own, pooled = (rows * columns).sum(axis=1), (mean**2).sum(axis=1)
    spread = (1 - pooled) / (size - 1)
    corrected = observed + (1 - observed) / (2 * total)
    return {
        "percent": observed,
        "cohen": _beyond(observed, own),
        "scott": _beyond(observed, pooled),
        "conger": _beyond(observed, own),
        "fleiss": _beyond(observed, pooled),
        "gwet": _beyond(observed, spread),
        "brennan_prediger": _beyond(observed, np.full(len(tables), 1 / size)),
        "krippendorff": _beyond(corrected, pooled),
    }


def _beyond(observed: np.ndarray, chance: np.ndarray) -> np.ndarray:
    possible = np.where(1 - chance > 1e-12, 1 - chance, np.nan)
    return (observed - chance) / possible


def _compositions(total: int, parts: int) -> np.ndarray:
    """All ways to put `total` images into `parts` cells, (ways, parts)."""
    rows, left = np.zeros((1, 0), dtype=np.int32), np.array([total])
    for _ in range(parts - 1):
        times = left + 1
        ends = np.cumsum(times)
        value = np.arange(ends[-1]) - np.repeat(ends - times, times)
        rows = np.column_stack([np.repeat(rows, times, axis=0), value.astype(np.int32)])
        left = np.repeat(left, times) - value
    return np.column_stack([rows, left.astype(np.int32)])


def _faces(total: int, parts: int) -> np.ndarray:
    """Ways that use at most three cells, in steps that make about 40 levels."""
    grid = np.unique(np.linspace(0, total, min(total, 40) + 1).astype(int))
    first, second = np.meshgrid(grid, grid, indexing="ij")
    fits = first + second <= total
    trio = np.column_stack([first[fits], second[fits], total - first[fits] - second[fits]])
    found = []
    for cells in combinations(range(parts), min(3, parts)):
        rows = np.zeros((len(trio), parts), dtype=np.int32)
        rows[:, cells] = trio
        found.append(rows)
    return np.unique(np.concatenate(found), axis=0)
