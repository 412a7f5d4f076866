"""Reads and writes tables, checked against their declared columns (table_columns.py).

`read` and `write` are for tables that the study writes, `filled_in` is for tables that people fill
in, and `spreadsheet` for tables with unknown columns.

`python -m helpers.tables` prints the text of outputs/README.md.
"""

import codecs
import csv
import difflib
import io
import re
from pathlib import Path

import pandas as pd

from helpers.files import write_atomically
from helpers.table_columns import DTYPES, TABLES, Column, columns

SEPARATORS = (",", ";", "\t", "|")
NO_TEXT = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"<")  # workbooks of two kinds, web pages
ROUNDED = re.compile(r"\d(?:[.,]\d+)?E\+\d+")  # what spreadsheets make of ids with many digits
SAID = {
    **dict.fromkeys(("true", "yes", "y", "1", "wahr", "ja", "vrai", "oui"), True),
    **dict.fromkeys(("false", "no", "n", "0", "falsch", "nein", "faux", "non"), False),
}


class TableError(ValueError):
    """A table on disk or in memory that does not have the declared columns."""


def empty(name: str) -> pd.DataFrame:
    """A table with its columns and no rows."""
    return check(pd.DataFrame({column.name: [] for column in columns(name)}), name)


def check(frame: pd.DataFrame, name: str, where: str = "") -> pd.DataFrame:
    """Check a frame; returns it with the declared dtypes and column order (missing optional columns
    are added empty).

    Raises TableError naming the table, the column and the first offending row.
    """
    where = where or f"{name}.csv"
    declared = columns(name)
    if frame.index.name != "row":  # numbered as by `spreadsheet`
        frame = frame.set_axis(pd.RangeIndex(1, len(frame) + 1))
    unknown = [c for c in frame.columns if c not in {column.name for column in declared}]
    if unknown:
        raise TableError(
            f"{where}: unknown column '{unknown[0]}'; known are"
            f" {', '.join(c.name for c in declared)}."
        )
    missing = [c for c in declared if c.required and c.name not in frame.columns]
    if missing:
        raise TableError(f"{where}: column '{missing[0].name}' ({missing[0].meaning}) is missing.")
    frame = frame.reindex(columns=[c.name for c in declared])
    checked = {c.name: _typed(frame[c.name], c, where) for c in declared}
    return pd.DataFrame(checked).reset_index(drop=True)


def _typed(values: pd.Series, column: Column, where: str) -> pd.Series:
    if column.kind == "yes/no":
        values = values.map(
            lambda v: {"True": True, "true": True, "False": False, "false": False}.get(v, v),
            na_action="ignore",
        )
    try:
        typed = values.astype(DTYPES[column.kind])
    except (ValueError, TypeError, OverflowError) as error:
        raise TableError(
            f"{where}: column '{column.name}' must be {column.kind} ({column.meaning}): {error}."
        ) from None
    if column.required and typed.isna().any():
        raise TableError(
            f"{where}: column '{column.name}' is empty in row {typed.index[typed.isna()][0]}."
        )
    if column.choices and column.kind != "ids":
        wrong = typed[~(typed.isna() | typed.isin(column.choices)).astype(bool)]
        if len(wrong):
            raise TableError(
                f"{where}: column '{column.name}' row {wrong.index[0]} is '{wrong.iloc[0]}';"
                f" allowed: {', '.join(column.choices)}."
            )
    return typed


def spreadsheet(content: bytes) -> pd.DataFrame:
    """The cells of a table that a spreadsheet or an editor saved, as text without surrounding
    spaces. Blank rows and columns are left out; the index `row` is the number that a spreadsheet
    shows.

    The separator is one of SEPARATORS, perhaps named by a `sep=` line; the text is UTF-8, UTF-16 or
    in the Windows code page of western Europe. Raises ValueError for text that is not a table.
    """
    if content.startswith(NO_TEXT):
        raise ValueError("it is a workbook or a web page, not text")
    text = _decoded(content)
    declared_separator = re.match(r"""\s*["']?sep=(.)["']?[ \t]*[\r\n]+""", text, re.IGNORECASE)
    text = text[declared_separator.end() :] if declared_separator else text
    blank = re.match(r"(?:[ \t]*(?:\r\n|\r|\n))*", text)[0]
    text = text[len(blank) :]
    if not text.strip():
        raise ValueError("it is empty")
    lines = text.splitlines()
    separator = declared_separator[1] if declared_separator else max(SEPARATORS, key=lines[0].count)
    cells = pd.read_csv(
        io.StringIO(text),
        sep=separator,
        header=None,
        names=range(1 + max(line.count(separator) for line in lines)),
        dtype=str,
        keep_default_na=False,
        skip_blank_lines=False,
        skipinitialspace=True,
    )
    cells = cells.fillna("").apply(lambda column: column.str.strip())
    first = len(blank.splitlines()) + 1
    cells.index = pd.RangeIndex(first, first + len(cells), name="row")
    cells = cells[(cells != "").any(axis=1)]
    cells = cells.loc[:, (cells != "").any()]
    beyond = cells.loc[:, lines[0].count(separator) + 1 :]
    if (beyond != "").any(axis=None):
        raise ValueError(f"row {beyond.index[(beyond != '').any(axis=1)][0]} is too long")
    names = cells.iloc[0].where(cells.iloc[0] != "", "unnamed")
    again = names.groupby(names).cumcount()
    return cells.iloc[1:].set_axis(
        names.where(again == 0, names + "." + again.astype(str)).tolist(), axis=1
    )


def _decoded(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    for encoding, zeros in (("utf-16-le", content[1:200:2]), ("utf-16-be", content[:200:2])):
        if zeros.count(0) > len(zeros) / 2:
            return content.decode(encoding, "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def read_spreadsheet(path: Path) -> pd.DataFrame:
    """`spreadsheet` of a file. Raises TableError with one sentence that names it."""
    path = Path(path)
    try:
        return spreadsheet(path.read_bytes())
    except FileNotFoundError:
        raise TableError(f"{path} does not exist.") from None
    except (ValueError, csv.Error, OSError) as error:
        raise TableError(
            f"{path} cannot be read as a table ({str(error).strip()}): save it as CSV with one"
            " header line."
        ) from None


def filled_in(path: Path, name: str) -> pd.DataFrame:
    """A checked table that people filled in. It may have any spreadsheet's format, columns, choices
    and ids in upper or lower case, and counts such as 10.0; undeclared columns are left out.

    Raises TableError with one line per mistake: file, row, column, and the nearest value for what
    is not understood.
    """
    frame, mistakes = as_far_as_understood(path, name)
    if mistakes:
        raise TableError("\n".join(said for _, said in sorted(mistakes)))
    return check(frame, name, str(path))


def as_far_as_understood(path: Path, name: str) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    """As `filled_in`, but returns the table with such cells missing, and each mistake: its place
    among the rows (-1: the header) and a sentence. Raises TableError for a file that is no table.
    """
    declared = {_plain(column.name): column for column in columns(name)}
    frame = read_spreadsheet(path)
    titles = [*map(_plain, frame.columns)]
    absent = {key: column for key, column in declared.items() if key not in titles}
    known, mistakes = {}, []
    for title in frame.columns:
        again = declared.get(_plain(re.sub(r"\.\d+$", "", title)))
        if again and again.name in known:
            mistakes.append((-1, f"{path}: column '{again.name}' is there twice."))
        elif column := declared.get(_plain(title)):
            understood = [_understood(cell, column) for cell in frame[title]]
            known[column.name] = [value for value, _ in understood]
            mistakes += [
                (place, f"{path} row {row}, column '{column.name}'{wrong}")
                for place, (row, (_, wrong)) in enumerate(zip(frame.index, understood))
                if wrong
            ]
        elif near := _nearest(_plain(title), absent):
            said = f"column '{title}' is not known; did you mean '{absent.pop(near).name}'?"
            mistakes.append((-1, f"{path}: {said}"))
    mistakes += [
        (-1, f"{path}: column '{column.name}' ({column.meaning}) is missing.")
        for column in absent.values()
        if column.required
    ]
    return pd.DataFrame(known, frame.index, dtype=object), mistakes


def _understood(cell: str, column: Column):
    """A cell as the column's kind wants it, missing when empty, and what is wrong with it."""
    if not cell:
        return pd.NA, " is empty." if column.required else ""
    choices = {_plain(choice): choice for choice in column.choices}
    number = re.fullmatch(r"(-?\d{1,15})(?:[.,]0{1,2})?", cell)
    if column.kind == "integer" and number:
        return int(number[1]), ""
    if column.kind == "number" and re.fullmatch(r"-?\d*[.,]?\d+(e-?\d+)?", cell, re.IGNORECASE):
        return float(cell.replace(",", ".")), ""
    if column.kind == "yes/no" and cell.casefold() in SAID:
        return SAID[cell.casefold()], ""
    if column.kind == "text" and not choices:
        rounded = ROUNDED.fullmatch(cell)
        return cell, f": '{cell}' was rounded: format the column as text." if rounded else ""
    parts = re.split(r"[|;,+]", cell) if column.kind == "ids" else [cell]
    parts = [_plain(part) for part in parts if part.strip()]
    wrong = [part for part in parts if part not in choices]
    if choices and not wrong:
        return "|".join(choices[part] for part in parts), ""
    wanted = {"integer": "a whole number", "number": "a number", "yes/no": "true or false"}
    near = _nearest(wrong[0], choices) if choices else ""
    return pd.NA, (
        f": '{cell}' is not {wanted.get(column.kind) or 'one of ' + ', '.join(column.choices)}"
        + (f"; did you mean '{choices[near]}'?" if near else ".")
    )


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.casefold())


def _nearest(word: str, known) -> str:
    inside = [one for one in known if one and one in word]
    near = difflib.get_close_matches(word, list(known), 1, 0.7)
    return near[0] if near else max(inside, key=len, default="")


def read(path: Path, name: str = "") -> pd.DataFrame:
    """A table from disk, checked.

    `name` defaults to the file's stem. Raises TableError or FileNotFoundError.
    """
    path = Path(path)
    try:
        frame = pd.read_csv(path, dtype="string", keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} does not exist: run the stage that writes it first."
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise TableError(f"{path}: not a CSV table: {error}.") from None
    return check(frame, name or path.stem, str(path))


def write(frame: pd.DataFrame, path: Path, name: str = "") -> pd.DataFrame:
    """Check the frame and write it atomically as UTF-8 CSV; returns the checked frame."""
    path = Path(path)
    checked = check(frame, name or path.stem, str(path))
    write_atomically(path, checked.to_csv(index=False).encode())
    return checked


def document() -> str:
    """The text of outputs/README.md: every table with its columns."""
    lines = [
        "# What a study writes",
        "",
        (
            "`outputs/<study>/<run>/` holds the results of one run. `python -m helpers.tables`"
            " prints this file, and a test checks it."
        ),
        (
            "Every run folder also has `manifest.json` (status, times, commit, parameters, inputs"
            " and files with hashes, versions) and,"
        ),
        (
            "from a batch run, the executed `notebook.ipynb`. An empty cell is a missing value. A"
            " list inside a cell is joined by `|`."
        ),
    ]
    for name, (purpose, declared) in TABLES.items():
        lines += [
            "",
            f"## {name}.csv",
            "",
            purpose,
            "",
            "| column | kind | meaning |",
            "|---|---|---|",
        ]
        for column in declared:
            named = all(choice in column.meaning for choice in column.choices)
            listed = not named and column.kind != "ids"
            choices = f" ({', '.join(column.choices)})" if listed else ""
            star = " *" if column.required else ""
            lines.append(
                f"| {column.name}{star} | {column.kind} |"
                f" {column.meaning.replace('|', chr(92) + '|')}{choices} |"
            )
    return "\n".join([*lines, "", "\\* never empty", ""])


if __name__ == "__main__":
    print(document(), end="")
