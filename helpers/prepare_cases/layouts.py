"""What describes the files of a folder: the tables of known data sets, the user's own table, and
the names of files and folders.

Every reader of tables takes the tables and files found below a folder and returns the rows it
understands, with the columns of COLUMNS (text; '' when unknown). The first reader that knows a
file describes it.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from helpers import findings
from helpers.plurals import counted
from helpers.prepare_cases import data_sets, deidentify, file_names, metadata_tables, origins
from helpers.prepare_cases.metadata_tables import Finder, LayoutError, one_form, read_tables

COLUMNS = (
    "file",
    "layout",
    "modality",
    "origin",
    "generator",
    "made_from",
    "finding",
    "side",
    "patient_id",
    "sex",
    "age",
    "view",
    "licence",
    "credit",
    "report",
    "sha256",
    "label",
    "skip",
    "patient_in_path",
)
# Column names that a user's table may have for what we need; the first match wins. Lower case,
# without punctuation.
SYNONYMS = {
    "file": (
        "file",
        "filename",
        "file name",
        "filepath",
        "file path",
        "path",
        "image",
        "image path",
        "image file",
        "image name",
        "imagename",
        "imageid",
        "image index",
        "image id",
        "dicom id",
        "id",
    ),
    "modality": ("modality",),
    "origin": ("origin",),
    "generator": ("generator", "model"),
    "made_from": (
        "made from",
        "derived from",
        "generated from",
        "source image",
        "original image",
        "original",
        "input image",
        "parent image",
    ),
    "finding": (
        "finding",
        "findings",
        "finding labels",
        "label",
        "labels",
        "diagnosis",
        "class",
        "category",
        "pathology",
        "disease",
    ),
    "side": ("side", "laterality"),
    "patient_id": (
        "patient id",
        "patientid",
        "patient",
        "subject id",
        "subject",
        "subjectid",
        "case id",
        "pid",
    ),
    "sex": ("sex", "gender", "patient sex", "patient gender"),
    "age": ("age", "patient age", "age years"),
    "view": ("view", "view position", "viewposition", "projection"),
    "licence": ("licence", "license"),
    # not "source": in a hospital's table that is a place or a person
    "credit": ("credit", "attribution"),
    "report": ("report", "impression", "report text"),
    "sha256": ("sha256",),
}


def describe(folder: Path, files: list[str], settings) -> pd.DataFrame:
    """One row per file below `folder` (relative POSIX paths) with COLUMNS; `layout` names how the
    row was recognised.

    `settings.metadata_table` names the one CSV to use, `settings.columns` its columns as
    'yours:ours'. Raises LayoutError.
    """
    table = settings.metadata_table
    leftover = {file for file in files if file_names.LEFTOVER.search(file)}
    others = [file for file in files if file not in leftover]
    tables, unread = read_tables(folder, others, table)
    pairs, finder = _mapping(settings.columns), Finder(others)
    titles = [*dict.fromkeys(title for frame in tables.values() for title in frame.columns)]
    if titles and (missing := [theirs for theirs in pairs.values() if theirs not in titles]):
        raise LayoutError(
            f"No metadata table has the column '{missing[0]}' that `columns` names; columns there:"
            f" {metadata_tables.titles(tables.values())}."
        )
    known: dict[str, dict] = {}
    claimed = set()
    for read in (_own,) if pairs or table else (*data_sets.READERS, _own):
        for row in read(tables, finder, pairs):
            known[row["file"]] = _together(known[row["file"]], row) if row["file"] in known else row
            claimed.add((row["layout"], row["file"], deidentify.person(row.get("patient_id", ""))))
    for name in (*tables, *unread):
        said = " that cannot be read" if name in unread else ", read for labels"
        known.setdefault(name, {"file": name, "skip": f"metadata table{said}"})
    understood = any("table" in row for row in known.values())
    notes = [] if understood or not tables else _complain(tables, table, pairs)
    notes += _doubts(titles, claimed)
    if unread:
        notes.append(
            f"Warning: {counted(len(unread), 'table')} in the folder of images"
            f" {next(iter(unread.values()))}."
        )
    for row in [
        *file_names.folders(folder, others),
        *file_names.patterns(others, {row.get("layout") for row in known.values()}),
    ]:
        before = known.get(row["file"], {})
        if "table" in before or "skip" in before:
            row = {name: row.get(name, "") for name in ("modality", "patient_in_path")}
        known[row.get("file") or before["file"]] = {
            **row,
            **{name: value for name, value in before.items() if value},
        }
    notes += _of_findings(known, tables) + origins.decide(others, known, settings.origins)
    known |= {file: {"file": file, "skip": "left over from macOS or Windows"} for file in leftover}
    frame = pd.DataFrame(
        [known.get(file, {"file": file}) for file in files], columns=list(COLUMNS), dtype=object
    )
    frame = frame.fillna("").astype(str)
    frame.attrs["notes"] = notes
    return frame


def _doubts(titles: list[str], claimed: set[tuple]) -> list[str]:
    """What tables say twice: the patient of a file, given (layout, file, person), or a column."""
    notes = []
    several = Counter((layout, file) for layout, file, patient in claimed if patient)
    if files_of_several := sum(count > 1 for count in several.values()):
        notes.append(
            f"Warning: a table gives {counted(files_of_several, 'file', 'files')} more than one"
            " patient; the first one counts."
        )
    ours = {_plain(one) for names in SYNONYMS.values() for one in names}
    for title in titles:
        first, dot, number = title.rpartition(".")  # as tables.spreadsheet names a second column
        if dot and number.isdigit() and first in titles and _plain(first) in ours:
            notes.append(f"Warning: a table has the column '{first}' twice; the first one counts.")
    return notes


def _of_findings(known: dict[str, dict], tables: dict[str, pd.DataFrame]) -> list[str]:
    """Say it where a user's table gives most of its files no finding."""
    rows = [row for row in known.values() if row.get("layout") == "plain CSV"]
    labelled = [row for row in rows if row["label"]]
    lost = sum(not (row["finding"] or row["origin"]) for row in labelled)
    if rows and not labelled:
        return [
            "No column of findings was recognised (columns:"
            f" {metadata_tables.titles(tables.values())}): captions"
            " name none. Name the column with columns: ['yours:finding']."
        ]
    if lost > len(labelled) / 2:
        return [
            f"Warning: the labels of {lost} of {counted(len(labelled), 'file', 'files')} name no"
            " finding that the study knows, so their captions name none: use words of"
            " helpers/findings.py."
        ]
    return []


def _together(before: dict, row: dict) -> dict:
    """Merge two rows of one layout about one file: the second fills gaps of the first, and the
    findings of both are kept. A row of another layout is ignored, unless it says that the image is
    generated. Raises LayoutError where they contradict each other on that.
    """
    if before.get("layout") != row["layout"]:
        return row if row["origin"] == "generated" else before
    if before["origin"] and row["origin"] and before["origin"] != row["origin"]:
        raise LayoutError(
            "Real or generated? Two rows about the same file contradict each other"
            f" ('{before['origin']}' and '{row['origin']}'): correct the metadata table."
        )
    filled = row | {name: value for name, value in before.items() if value}
    filled["finding"] = "|".join(findings.from_label(f"{before['finding']}|{row['finding']}"))
    if {before["side"], row["side"]} == {"left", "right"}:
        filled["side"] = "bilateral"
    return filled


def _mapping(mapping: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for pair in mapping:
        theirs, colon, ours = str(pair).rpartition(":")
        if not colon or ours.strip() not in SYNONYMS:
            raise LayoutError(
                f"columns: '{pair}' must read yours:ours, where ours is one of"
                f" {', '.join(SYNONYMS)}."
            )
        pairs[ours.strip()] = one_form(theirs.strip())
    return pairs


def _complain(tables: dict[str, pd.DataFrame], wanted: str, pairs: dict[str, str]) -> list[str]:
    """What to say when no table names a file that is there. Raises LayoutError where the table was
    named, or is called metadata.csv.
    """
    name = wanted or min(tables, key=lambda name: (name != "metadata.csv", name.count("/"), name))
    guessed = _guessed(tables[name])
    others = [_plain(title) for title in tables[name].columns if title not in guessed.values()]
    near = [
        f"'{theirs}' ({ours})"
        for ours, names in SYNONYMS.items()
        if ours not in guessed
        for theirs in difflib.get_close_matches(names[0], others, 1, 0.6)
    ]
    needs = (
        f"its column '{guessed['file']}' must hold the files' paths below the folder, or their"
        " whole names"
        if "file" in guessed
        else "it needs a column 'file' with paths below the folder"
    )
    named = wanted or name == "metadata.csv"  # any other name may be a patient's
    sentence = (
        (f"The metadata table '{name}'" if named else "A table in the folder of images")
        + f" names no file that exists: {needs}; it has: {metadata_tables.titles([tables[name]])}."
        + (f" The closest columns: {', '.join(near)}." if near else "")
        + " Name the right columns with columns: ['yours:file', 'yours:patient_id']."
    )
    if named:
        raise LayoutError(sentence)
    return [sentence]


def _own(tables, finder, pairs):
    """A user's table: columns named as ours or by a synonym, or mapped by `columns`."""
    for name, frame in tables.items():
        columns = {
            **_guessed(frame),
            **{ours: theirs for ours, theirs in pairs.items() if theirs in frame.columns},
        }
        if "origin" not in columns:
            columns["origin"] = origins.FOUND
            frame = frame.assign(**{origins.FOUND: origins.said_by(frame, columns.get("file"))})
        named = list(finder.rows(frame, columns["file"], name)) if "file" in columns else []
        for row, file in named or ([] if "file" in pairs else _by_content(finder, frame, name)):
            values = {ours: row[theirs] for ours, theirs in columns.items() if ours != "file"}
            yield _own_row(file, values)


def _by_content(finder: Finder, frame: pd.DataFrame, table: str) -> list[tuple[dict, str]]:
    """The rows of a table with their files by whichever column names the most: three, and half."""
    taken = {
        theirs for ours, theirs in _guessed(frame).items() if ours not in ("file", "patient_id")
    }
    telling = [
        name for name in frame if frame[name].nunique() > len(frame) / 2 and name not in taken
    ]
    found = [list(finder.rows(frame, column, table)) for column in telling]
    most = max(found, key=len, default=[])
    return most if len(most) >= max(3, min(len(frame), len(finder.forms)) / 2) else []


def _guessed(frame: pd.DataFrame) -> dict[str, str]:
    plain = {_plain(column): column for column in reversed(frame.columns)}
    return {
        ours: next(plain[name] for name in names if name in plain)
        for ours, names in SYNONYMS.items()
        if set(names) & set(plain)
    }


def _plain(column: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", column.lower()).strip()


def _own_row(file: str, values: dict) -> dict:
    modality = {
        "ct": "ct",
        "x ray": "xray",
        "xray": "xray",
        "cr": "xray",
        "dx": "xray",
        "cxr": "xray",
        "radiograph": "xray",
    }
    values["modality"] = modality.get(
        re.sub(r"[^a-z]+", " ", values.get("modality", "").lower()).strip(), ""
    )
    said = values.pop("origin", "").lower()
    label = values.get("finding", "")
    if not said and len(label.split()) < 4:  # "synthetic COVID"; longer ones may be a report
        said = "generated" if file_names.origin(label)[0] == "generated" else ""
    origin = file_names.origin(said)[0].strip("?") or {"ai": "generated", "patient": "real"}.get(
        said
    )
    side = values.pop("side", "").lower()
    side = {"l": "left", "r": "right", "b": "bilateral", "both": "bilateral"}.get(
        side, side if side in findings.SIDES else ""
    )
    row = data_sets.table_row(file, "plain CSV", values.pop("finding", ""), side=side, **values)
    row["origin"] = origin or said
    if origin == "generated":
        row["generator"] = values.get("generator") or values.get("credit") or "elsewhere"
    return row
