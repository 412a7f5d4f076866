"""The findings that readers ticked or named in free text: how often, how well readers agree on
them, and whether they are those expected: of the prompt (generated images) or of the data set's
label (real images).
"""

import numpy as np
import pandas as pd

from helpers import findings
from helpers.statistics import accuracy, agreement
from helpers.statistics.differences import difference
from helpers.table_columns import column_names

READERS = "these readers"
EXAMPLES = 3  # in the readers' own words, of a modality, origin and label


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
        rows += [
            answer | {"finding": one, "ticked": one in ticked, "in_text": one in named}
            for one in sorted(ticked | named)
        ]
    columns = ["image_id", "reader", "modality", "origin", "label", "finding", "ticked", "in_text"]
    return pd.DataFrame(rows, columns=columns)


def finding_counts(found: pd.DataFrame, joined: pd.DataFrame) -> pd.DataFrame:
    """How often every finding was given, by modality and origin; columns as in
    table_columns.TABLES["findings_counted"].
    """
    kinds = ["modality", "origin"]
    total = joined[joined["presentation"] == 1].groupby(kinds).size()
    table = found.groupby([*kinds, "finding"]).agg(
        answers=("image_id", "size"),
        images=("image_id", "nunique"),
        ticked=("ticked", "sum"),
        in_text=("in_text", "sum"),
    )
    table = table.reset_index().join(total.rename("of_answers"), on=kinds)
    table["share"] = table["answers"] / table["of_answers"]
    table["name"] = table["finding"].map(findings.FINDINGS).fillna(table["finding"])
    return table.sort_values(
        [*kinds, "answers", "finding"], ascending=[True, True, False, True], ignore_index=True
    )


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
    return table.sort_values(["answers", "finding"], ascending=[False, True], ignore_index=True)


def examples(joined: pd.DataFrame) -> pd.DataFrame:
    """The readers' own words: for every modality, origin and label, the longest descriptions of
    different images.
    """
    first = joined[(joined["presentation"] == 1) & joined["description"].notna()]
    first = first.assign(length=first["description"].str.len()).sort_values(
        ["length", "blind_id"], ascending=[False, True]
    )
    first = first.drop_duplicates(["modality", "origin", "label", "description"])
    chosen = first.groupby(["modality", "origin", "label"]).head(EXAMPLES)
    order = ["modality", "origin", "label", "reader", "image_id"]
    return chosen.sort_values(order, ignore_index=True)[column_names("descriptions")]


def expected(found: pd.DataFrame, answers: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    """One row per described first answer and finding that is expected in any image of its modality
    and origin: image_id, reader, origin, finding, asked, named (both yes or no), truth, cluster.

    `found`: see `seen`. Answers without a word or a tick, and images without a known
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


def expected_table(every: pd.DataFrame) -> pd.DataFrame:
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


def expected_summary(every: pd.DataFrame, answers: pd.DataFrame) -> dict:
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
        about[origin] = {
            "given": len(given),
            "described": int((said | given["description"].notna()).sum()),
            "known": int(given["true_finding"].notna().sum()),
            **compared(own, own["asked"].astype(int)),
        }
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
