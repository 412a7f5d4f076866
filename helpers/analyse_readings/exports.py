"""Exports for recomputing: the report's main numbers as a table, and the scores for iMRMC and
RJafroc.
"""

import datetime
import io

import pandas as pd

from helpers.analyse_readings import image_sets
from helpers.statistics.differences import FEW_READERS
from helpers.table_columns import column_names

AGREEMENT = ("percent", "cohen", "fleiss", "gwet", "krippendorff")
ALIKE = {"all_real": "all real", "all_uncertain": "all uncertain", "two_fake": "two fake"}
NOT_AGAIN = ("criterion", "dprime ordinal")  # these need more than the formulas of recompute.py


def main_numbers(found: dict) -> pd.DataFrame:
    """The numbers that recompute.py and recompute.R compute again, as in results.json: columns
    number, group, reader, estimate, low, high.
    """
    rows = [
        (said, f"{row['modality']} {row['origin']}", "", row[name])
        for row in found["headline"]
        for name, said in ALIKE.items()
    ]
    rows += [
        (row["coefficient"], row["group"], "", row)
        for row in found["agreement"]
        if row["coefficient"] in AGREEMENT and " " not in row["group"]
    ]
    rows += [
        (row["measure"], row["policy"], row["reader"], row)
        for row in found["accuracy"]
        if row["stratum"] == image_sets.OVERALL and not row["measure"].startswith(NOT_AGAIN)
    ]
    rows += [
        ("area", row["stratum"], row["reader"], row)
        for row in found["areas"]
        if row["stratum"] == image_sets.OVERALL
    ]
    these, general = (found["multireader"][f"{whose} all"] for whose in ("these", "general"))
    rows.append(("mean area", "these readers", "", _shown(these)))
    if general["readers"] >= FEW_READERS:
        method = found["settings"]["covariance"]
        group, p = f"readers in general, {method}", found["multireader"][method]["p"]
        told = _shown(general)
        rows.append(("mean area", group, "", told))
        p = p if told["low"] is not None else None  # the report has both or neither
        rows.append(("p of the mean area", group, "", {"estimate": p}))
    for row in found["comparisons"]:
        if row["by"] == "prior knowledge of AI":
            continue
        pair = f"{row['by']}: {row['a']} minus {row['b']}"
        rows.append(("difference of mean areas, these readers", pair, "", row))
        if row["general_low"] is not None:
            general = row | {"low": row["general_low"], "high": row["general_high"]}
            rows.append(("difference of mean areas, readers in general", pair, "", general))
    table = pd.DataFrame(
        [
            [number, group, reader, *(part.get(name) for name in ("estimate", "low", "high"))]
            for number, group, reader, part in rows
        ],
        columns=column_names("main_numbers"),
    )
    return table[table["estimate"].notna()].reset_index(drop=True)


def _shown(row: dict) -> dict:
    low, high = row.get("shown") or (None, None)
    return {"estimate": row["estimate"], "low": low, "high": high}


def imrmc(scores: pd.DataFrame, simulated) -> str:
    """The scores in iMRMC's format. `scores` has case and reader (integers), truth and score;
    `simulated` says what is simulated.
    """
    truth = scores.drop_duplicates("case").sort_values("case")
    generated, readers = int(truth["truth"].sum()), scores["reader"].nunique()
    lines = [f"SIMULATED {', '.join(simulated)}"] if simulated else []
    lines += [
        "0 is a real and 1 a generated image; a higher score means more surely generated.",
        f"N0:{len(truth) - generated}",
        f"N1:{generated}",
        f"NR:{readers}",
        "NM:1",
        "BEGIN DATA:",
    ]
    lines += [f"-1,{case},truth,{kind}" for case, kind in zip(truth["case"], truth["truth"])]
    lines += [
        f"{reader},{case},1,{score:g}"
        for reader, case, score in scores[["reader", "case", "score"]].itertuples(index=False)
    ]
    return "\n".join(lines) + "\n"


def rjafroc(scores: pd.DataFrame, simulated) -> bytes:
    """The same as a workbook for RJafroc. RJafroc treats a missing score as the lowest one, so
    images that a reader did not score are left out.
    """
    readers = scores["reader"].drop_duplicates().sort_values()
    complete = scores.groupby("case")["reader"].transform("size") == len(readers)
    rated = scores[complete].rename(columns={"reader": "ReaderID", "case": "CaseID"})
    rated = rated.assign(ModalityID=1, LesionID=rated["truth"], Weight=rated["truth"])
    truth = rated.drop_duplicates("CaseID").sort_values("CaseID")
    columns = {"ReaderID": ",".join(map(str, readers)), "ModalityID": "1", "Paradigm": ""}
    truth = truth.assign(**columns).reset_index(drop=True)
    truth["Paradigm"] = pd.Series(["ROC", "FCTRL"]).reindex(truth.index)
    ids, target = ["ReaderID", "ModalityID", "CaseID"], io.BytesIO()
    rated = rated.assign(FP_Rating=rated["score"], TP_Rating=rated["score"])
    sheets = {
        "TRUTH": truth[["CaseID", "LesionID", "Weight", "ReaderID", "ModalityID", "Paradigm"]],
        "FP": rated.loc[rated["truth"] == 0, [*ids, "FP_Rating"]],
        "TP": rated.loc[rated["truth"] == 1, [*ids, "LesionID", "TP_Rating"]],
    }
    with pd.ExcelWriter(target, engine="xlsxwriter") as book:
        # The file has the same bytes every time.
        about = {"created": datetime.datetime(2000, 1, 1)}
        marked = {"title": f"SIMULATED: {', '.join(simulated)}"} if simulated else {}
        book.book.set_properties(about | marked)
        for name, sheet in sheets.items():
            sheet.to_excel(book, sheet_name=name, index=False)
    return target.getvalue()
