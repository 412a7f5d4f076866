"""Compares what readers saw with what was expected: findings of the prompt (generated images) or of
the data set's label (real images), and whether readers ticked or named them.
"""

import numpy as np
import pandas as pd

from helpers import findings
from helpers.statistics import accuracy
from helpers.statistics.differences import difference

READERS = "these readers"


def pairs(found: pd.DataFrame, answers: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    """One row per described first answer and finding that is expected in any image of its modality
    and origin: image_id, reader, origin, finding, asked, named (both yes or no), truth, cluster.

    `found`: see descriptions.seen. Answers without a word or a tick, and images without a known
    finding, are left out, because they carry no information.
    """
    first = answers[answers["presentation"] == 1]
    described = first["findings"].notna() | first["description"].notna()
    first = first[described & first["true_finding"].notna()]
    wanted = first.assign(finding=first["true_finding"].str.split("|")).explode("finding")
    kinds = wanted[["modality", "origin", "finding"]].drop_duplicates()
    every = first[["image_id", "reader", "modality", "origin", "truth"]]
    every = every.merge(kinds, on=["modality", "origin"])
    for name, table in (("asked", wanted), ("named", found)):
        keys = ["image_id", "reader", "finding"]
        every[name] = pd.MultiIndex.from_frame(every[keys]).isin(
            pd.MultiIndex.from_frame(table[keys])
        )
    return every.assign(cluster=every["image_id"].map(shown["cluster"]))


def table(every: pd.DataFrame) -> pd.DataFrame:
    """Sensitivity and specificity of every finding, by origin and reader (and of all together):
    columns as in table_columns.TABLES["findings_asked"].
    """
    rows = []
    for (finding, origin), part in every.groupby(["finding", "origin"]):
        readers = sorted(part["reader"].unique(), key=lambda name: int(name[1:]))
        for reader in (READERS, *readers):
            own = part if reader == READERS else part[part["reader"] == reader]
            yes, no = own[own["asked"]], own[~own["asked"]]
            of = accuracy.unit([int(origin == "generated")])
            hits = accuracy.share(yes["named"], yes["cluster"], of=of)
            silent = accuracy.share(~no["named"], no["cluster"], of=of)
            rows.append(
                {
                    "finding": finding,
                    "name": findings.FINDINGS.get(finding, finding),
                    "origin": origin,
                    "reader": reader,
                    "named": hits["count"],
                    "asked": hits["total"],
                    "sensitivity": hits["estimate"],
                    **{name: hits[name] for name in ("low", "high", "reason")},
                    "silent": silent["count"],
                    "others": silent["total"],
                    "specificity": silent["estimate"],
                    **{f"others_{n}": silent[n] for n in ("low", "high", "reason")},
                }
            )
    return pd.DataFrame(rows)


def summary(every: pd.DataFrame, answers: pd.DataFrame) -> dict:
    """By origin: how often conditions were named where they were expected and where they were not,
    and the difference with its interval for these readers and (`general`) for readers in general.
    `contrast` has the share named where expected, generated minus real.

    "No finding" is not a condition. If a share is missing, `reason` says why.
    """
    first, ill = answers[answers["presentation"] == 1], every[every["finding"] != "no_finding"]
    ill = ill.assign(number=ill["named"].astype(float))
    about = {}
    for origin, given in first.groupby("origin"):
        own, said = ill[ill["origin"] == origin], given["findings"].notna()
        row = {
            "given": len(given),
            "described": int((said | given["description"].notna()).sum()),
            "known": int(given["true_finding"].notna().sum()),
        }
        about[origin] = row | compared(own, own["asked"].astype(int))
    wanted = ill[ill["asked"]]
    if wanted["truth"].nunique() == 2:
        about["contrast"] = compared(wanted, wanted["truth"])
    return about


def compared(rows: pd.DataFrame, side: pd.Series) -> dict:
    """The difference of both means, for these readers and in general, or the reason why there is
    none.
    """
    if side.nunique() < 2:
        lacking = "without" if side.any() else "with"
        return {
            **dict.fromkeys(("estimate", "low", "high", "general")),
            "reason": f"no described image {lacking} an expected condition",
        }
    ends = difference(rows, side, general=True)
    general = None if np.isnan(ends["low"]) else [ends["low"], ends["high"]]
    return difference(rows, side) | {"general": general}
