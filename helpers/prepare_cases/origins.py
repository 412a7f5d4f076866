"""Whether files are real or generated: what the names of folders and files, tables and the user's
answers say.
"""

import re
from collections import Counter

import pandas as pd

from helpers.plurals import counted
from helpers.prepare_cases import file_names
from helpers.prepare_cases.file_names import CREDITS
from helpers.prepare_cases.metadata_tables import LayoutError
from helpers.table_columns import ORIGINS
from helpers.tables import SAID

FOUND = " origin"  # a column for what `said_by` finds; no title begins with a space


def decide(files: list[str], known: dict[str, dict], answers: list[str]) -> list[str]:
    """Let folder and file names decide the origin of images, and say so. Raises LayoutError with a
    question where they do not decide or contradict a table.
    """
    answered = dict(str(pair).rpartition(":")[::2] for pair in answers)
    if set(answered.values()) - set(ORIGINS):
        raise LayoutError(
            f"origins: {answers} must read word:real or word:generated, for example"
            " samples:generated."
        )
    decided, asking = Counter(), Counter()
    for file in files:
        row = known.setdefault(file, {"file": file})
        said, word = file_names.origin(file)
        by_table = row.get("origin") or ""
        if by_table not in ("", *ORIGINS):
            said, word, by_table = "?", by_table, ""
        if word in answered:
            said = by_table = row["origin"] = answered[word]
        if "skip" in row or not said or said == by_table == "real":
            continue
        if (said == "?" and not by_table) or {said, by_table} == set(ORIGINS):
            asking[word, by_table] += 1
        elif said == "generated" or by_table == "generated":
            decided[word] += not by_table
            _as_generated(row)
    for (word, by_table), count in asking.items():
        raise LayoutError(
            f"Real or generated? {counted(count, 'file has', 'files have')} '{word}' in the"
            " folder, the name or a table, "
            + (f"and a table says {by_table}." if by_table else "which can mean either.")
            + f" Answer in the YAML of 01: origins: ['{word}:generated'] or ['{word}:real']."
        )
    return [
        f"{counted(count, 'file counts', 'files count')} as generated, not as patients: '{word}' is"
        f" in the folder or name (if that is wrong: origins: ['{word}:real'])."
        for word, count in decided.items()
        if count
    ]


def _as_generated(row: dict) -> None:
    credit = row.get("credit", "") if "table" in row else ""
    row |= {"origin": "generated", "credit": credit, "patient_id": "", "patient_in_path": ""}
    row["generator"] = row.get("generator") or credit or "elsewhere"
    if "table" not in row and row.get("layout") in CREDITS:
        row["layout"] = ""  # a data set of real images did not make it


def said_by(frame: pd.DataFrame, file: str | None) -> pd.Series | str:
    """What the rows say of the origin where no column is called so: a column whose cells all do
    ('fake', 'real'), one that is called 'fake' and says yes or no, or a generator; '' without.
    """
    for title in frame.columns.drop(file or []):
        cells = {cell: file_names.origin(cell)[0] for cell in frame[title].unique() if cell}
        asked, _ = file_names.origin(title)
        answers = {cell: SAID.get(re.sub(r"\.0$", "", cell.casefold())) for cell in cells}
        if asked in ORIGINS and None not in answers.values():
            other = next(one for one in ORIGINS if one != asked)
            cells = {cell: asked if yes else other for cell, yes in answers.items()}
        if cells and set(cells.values()) <= set(ORIGINS):
            return frame[title].map(cells).fillna("")
    makers = next((title for title in frame if title.lower() == "generator"), None)
    return frame[makers].map(lambda name: "generated" if name else "") if makers else ""
