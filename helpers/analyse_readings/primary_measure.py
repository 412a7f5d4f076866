"""The primary measure: the only one, named in the settings of 08 before anybody reads."""

import math
from pathlib import Path

import pandas as pd

from helpers.analyse_readings import joined
from helpers.assemble_reading_set import seal
from helpers.runner import runs
from helpers.statistics import multireader
from helpers.statistics.clusters import FEW_ON_A_SIDE
from helpers.statistics.differences import FEW_READERS

GUESSING = {"area": 0.5, "accuracy": 0.5, "agreement": 0.0}


def named_before(sealed: Path, run: runs.Run) -> bool:
    """Whether the plan frozen with the reading set names the primary measure (a plan of an earlier
    version does not). Raises AnalysisError if it names another measure.
    """
    planned = seal.planned(sealed, run).get("primary")
    if planned not in (None, run.parameters.primary):
        raise joined.AnalysisError(
            f"primary is '{run.parameters.primary}', but the plan frozen before the read names"
            f" '{planned}': set it back to that. The other measures are in the report's appendix."
        )
    return planned is not None


def measure(settings, found: dict, labels: pd.DataFrame, shown: pd.DataFrame, groups) -> dict:
    """The primary measure over all images: measure, guessing (its value for guessers), estimate,
    low, high, general (whether the interval is for readers in general or only for these), readers,
    images, answers, p and reason.

    area: mean area under the ROC curve, from label and confidence. accuracy: mean balanced accuracy
    of "fake" against the rest, which is the area from that label alone. agreement: Cohen's kappa of
    two readers, Fleiss' of more. `found`: the multi-reader results and the agreement table.
    """
    name = settings.primary
    row = {"measure": name, "guessing": GUESSING[name], "general": False, "p": None}
    if name == "agreement":
        kappa = "cohen" if labels.shape[1] == 2 else "fleiss"
        rows = found["agreement"].query("group == 'all'").set_index("coefficient")
        parts = rows.loc[kappa, ["estimate", "low", "high", "readers", "images", "reason"]]
        return row | parts.to_dict() | {"answers": int(labels.notna().sum().sum())}
    these, general = (found["multireader"][f"{who} all"] for who in ("these", "general"))
    if name == "accuracy":
        said = labels.eq("fake").astype(float).where(labels.notna())
        these = with_shown(multireader.these_readers(said, shown["truth"], clusters=groups))
        general = with_shown(
            multireader.multireader(
                said, shown["truth"], clusters=groups, covariance=settings.covariance
            )
        )
    enough = general["readers"] >= FEW_READERS and pd.notna(general.get("shown", [None])[0])
    chosen = general if enough else these
    row |= {n: chosen[n] for n in ("estimate", "readers", "images", "answers", "reason")}
    low, high = chosen.get("shown", (None, None))
    row |= {"low": low, "high": high, "general": bool(enough)}
    return row | {"p": general["p"] if enough else None}


def with_shown(row: pd.Series) -> dict:
    """A row with `shown`, the interval that the report prints: within 0 and 1."""
    if "df" not in row or "margin" in row:
        return row.to_dict()
    shown, reason = multireader.possible(row), row["reason"]
    if not reason and math.isnan(shown[0]):
        reason = FEW_ON_A_SIDE
    return row.to_dict() | {"shown": shown, "reason": reason}
