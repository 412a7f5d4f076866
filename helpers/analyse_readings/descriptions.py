"""The findings that readers ticked or named in free text: how often, and how well readers agree on
them.
"""

import pandas as pd

from helpers import findings
from helpers.statistics import accuracy, agreement
from helpers.table_columns import column_names


def seen(joined: pd.DataFrame) -> pd.DataFrame:
    """One row per finding that a reader gave an image: image_id, reader, finding, ticked, in_text
    (negation respected).
    """
    rows = []
    for answer in joined[joined["presentation"] == 1].to_dict("records"):
        ticked = set(answer["findings"].split("|")) if pd.notna(answer["findings"]) else set()
        named = (
            set(findings.in_text(answer["description"]))
            if pd.notna(answer["description"])
            else set()
        )
        for finding in sorted(ticked | named):
            row = {"finding": finding, "ticked": finding in ticked, "in_text": finding in named}
            rows.append(answer | row)
    columns = ["image_id", "reader", "modality", "origin", "label", "finding", "ticked", "in_text"]
    return pd.DataFrame(rows, columns=columns)


def counted(found: pd.DataFrame, joined: pd.DataFrame) -> pd.DataFrame:
    """How often every finding was given, by modality and origin; columns as in
    table_columns.TABLES["findings_counted"].
    """
    first = joined[joined["presentation"] == 1]
    total = first.groupby(["modality", "origin"]).size()
    groups = found.groupby(["modality", "origin", "finding"])
    table = groups.agg(
        answers=("image_id", "size"),
        images=("image_id", "nunique"),
        ticked=("ticked", "sum"),
        in_text=("in_text", "sum"),
    )
    table = table.reset_index()
    table["of_answers"] = [
        int(total[modality, origin]) for modality, origin in zip(table["modality"], table["origin"])
    ]
    table["share"] = table["answers"] / table["of_answers"]
    table["name"] = table["finding"].map(findings.FINDINGS).fillna(table["finding"])
    return table.sort_values(
        ["modality", "origin", "answers", "finding"], ascending=[True, True, False, True]
    ).reset_index(drop=True)


def agreement_on(found: pd.DataFrame, joined: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    """Agreement between readers on whether a finding is there, one row per finding: the number of
    images with several answers on which all readers agree, with the share's interval (by prompt and
    patient), and the coefficients percent, Fleiss and Gwet. These have no interval, because rare
    findings allow none.
    """
    first = joined[joined["presentation"] == 1]
    rated = first.assign(there="no").pivot(index="image_id", columns="reader", values="there")
    rows = []
    for finding, given in found.groupby("finding"):
        yes = given.drop_duplicates(["image_id", "reader"]).assign(yes=True)
        yes = yes.pivot(index="image_id", columns="reader", values="yes")
        yes = yes.reindex(index=rated.index, columns=rated.columns).notna()
        ratings = rated.mask(yes & rated.notna(), "yes")
        several = ratings[ratings.notna().sum(axis=1) >= 2]
        alike = several.nunique(axis=1) == 1
        share = accuracy.share(alike, shown["cluster"].reindex(alike.index))
        measured = agreement.coefficients(ratings, ["no", "yes"])
        rows.append(
            {
                "finding": finding,
                "name": findings.FINDINGS.get(finding, finding),
                "answers": len(given),
                "images": given["image_id"].nunique(),
                "alike": share["count"],
                "of_images": share["total"],
                "share": share["estimate"],
                "low": share["low"],
                "high": share["high"],
                **{name: measured.estimate[name] for name in ("percent", "fleiss", "gwet")},
                "reason": measured.reason["fleiss"] or share["reason"],
            }
        )
    table = pd.DataFrame(rows, columns=column_names("findings_agreement"))
    order = ["answers", "finding"]
    return table.sort_values(order, ascending=[False, True]).reset_index(drop=True)


def examples(joined: pd.DataFrame, each: int = 3) -> pd.DataFrame:
    """The readers' own words: for every modality, origin and label, the longest descriptions of
    different images.
    """
    first = joined[(joined["presentation"] == 1) & joined["description"].notna()]
    first = first.assign(length=first["description"].str.len()).sort_values(
        ["length", "blind_id"], ascending=[False, True]
    )
    first = first.drop_duplicates(["modality", "origin", "label", "description"])
    chosen = first.groupby(["modality", "origin", "label"], sort=True).head(each)
    return chosen.sort_values(["modality", "origin", "label", "reader", "image_id"])[
        column_names("descriptions")
    ].reset_index(drop=True)
