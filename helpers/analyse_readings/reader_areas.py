"""Areas under the ROC curve in the report: of each reader, of these readers and of readers in
general, compared, and the power of the study.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from helpers.analyse_readings import effects, image_sets, joined
from helpers.analyse_readings.primary_measure import with_shown
from helpers.statistics import accuracy, comparisons, multireader
from helpers.statistics.differences import FEW_READERS
from helpers.table_columns import column_names


def curves(scores: pd.DataFrame, truth: pd.Series, groups) -> pd.DataFrame:
    """The points of every reader's ROC curve."""
    return image_sets.per_reader(scores, truth, lambda score, kind: accuracy.roc(kind, score))


def mean_area(scores: pd.DataFrame, truth: pd.Series, groups) -> pd.DataFrame:
    """The mean area of these readers with its interval, one row."""
    row = within(multireader.these_readers(scores, truth, clusters=groups))
    return row.assign(real=int((truth == 0).sum()), generated=int(truth.sum()))


def within(found: pd.Series) -> pd.DataFrame:
    """A row with the interval that the report prints."""
    row = with_shown(found)
    row["low"], row["high"] = row.pop("shown")
    return pd.DataFrame([row])


def area(score: pd.Series, truth: pd.Series, clusters=None, strata=None) -> pd.DataFrame:
    """A reader's area with an interval that stays between 0 and 1, one row."""
    found = multireader.these_readers(score.to_frame(), truth, clusters=clusters, strata=strata)
    row = within(found).drop(columns=["readers", "incomplete", "answers", "fewest"])
    return row.assign(dropped=int(score.isna().sum()))


def compared(scores: pd.DataFrame, shown: pd.DataFrame, readers: pd.DataFrame) -> pd.DataFrame:
    """Which is harder to spot: pairs of generators beside the same real images, and the two
    modalities. Also readers with and without prior knowledge of AI. Columns as table_columns
    comparisons; a positive difference means that `a` is easier to spot (or that the readers `a` do
    better).
    """
    rows, groups, truth = [], image_sets.clusters(shown), shown["truth"]
    for by in ("modality", "generator"):
        for a, b in combinations(sorted(shown[by].dropna().unique()), 2):
            sets = [shown[by].eq(name).fillna(False).astype(bool) for name in (a, b)]
            if by == "generator":
                sets = [image_sets.beside_real(shown, own) for own in sets]
            found = comparisons.of_images(scores, truth, *sets, groups)
            if by == "generator" and (sets[0] ^ sets[1])[truth == 0].any():
                found = found.reindex(["area_a", "area_b", "estimate", "readers", "images"])
                found["reason"] = "the two did not make images of the same modalities"
            rows.append({"by": by, "a": a, "b": b} | found.to_dict())
    knew = readers.set_index("reader_id")["prior_ai"].rename(joined.reader_names(readers))
    answering = scores.columns[scores.notna().any()]
    sides = [[n for n in answering if pd.notna(knew[n]) and knew[n] == y] for y in (True, False)]
    if all(sides):
        found = comparisons.of_readers(scores, truth, *sides, groups)
        rows.append({"by": "prior knowledge of AI", "a": "yes", "b": "no"} | found.to_dict())
    table = pd.DataFrame(rows).reindex(columns=column_names("comparisons"))
    table.loc[
        table["readers"] < FEW_READERS, ["general_low", "general_high", "statistic", "df", "p"]
    ] = np.nan
    return effects.adjusted(table)


def many_readers(settings, scores: pd.DataFrame, shown: pd.DataFrame) -> dict:
    """The mean area of readers in general (both covariances, equivalence to chance, bootstrap) and
    of these readers, also per modality and stratified.
    """
    truth, groups = shown["truth"], image_sets.clusters(shown)
    found = {
        name: multireader.multireader(scores, truth, covariance=name, clusters=groups)
        for name in multireader.COVARIANCES
    }
    found["equivalence"] = multireader.equivalence(found[settings.covariance], settings.margin)
    found["bootstrap"] = multireader.bootstrap(
        scores, truth, settings.replicates, settings.seed, clusters=groups
    )
    for name, part, options in image_sets.strata(shown):
        own = scores.loc[part.index], part["truth"]
        found[f"these {name}"] = multireader.these_readers(*own, **options)
        found[f"general {name}"] = multireader.multireader(
            *own, **options, covariance=settings.covariance
        )
    return {name: with_shown(row) for name, row in found.items()}


def study_power(settings, scores: pd.DataFrame, truth: pd.Series) -> list[dict]:
    """How often a study with these readers and images would find that true areas of 0.6, 0.7 and
    0.8 differ from 0.5.
    """
    real, generated = int((truth == 0).sum()), int((truth == 1).sum())
    readers = int(scores.notna().any().sum())
    if min(real, generated) < 2 or readers < FEW_READERS or settings.power_studies == 0:
        return []
    size = {"readers": readers, "real": real, "generated": generated}
    options = size | {"studies": settings.power_studies, "seed": settings.seed}
    return [
        size | {"auc": auc, **multireader.power(auc, **options).to_dict()}
        for auc in (0.6, 0.7, 0.8)
    ]
