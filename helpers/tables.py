"""Reading and writing tables, checked against their declared columns (table_columns.py).

`python -m helpers.tables` prints the text of outputs/README.md.
"""

from pathlib import Path

import pandas as pd

from helpers.files import write_atomically
from helpers.table_columns import DTYPES, TABLES, Column, columns


class TableError(ValueError):
    """A table on disk or in memory that does not have the declared columns."""


def empty(name: str) -> pd.DataFrame:
    """A table with its columns and no rows."""
    return check(pd.DataFrame({column.name: [] for column in columns(name)}), name)


def check(frame: pd.DataFrame, name: str, where: str = "") -> pd.DataFrame:
    """The frame with declared dtypes and order of columns (missing optional ones added empty).

    Raises TableError naming the table, the column and the first offending row.
    """
    where = where or f"{name}.csv"
    declared = columns(name)
    unknown = [c for c in frame.columns if c not in {column.name for column in declared}]
    if unknown:
        raise TableError(
            f"{where}: unknown column '{unknown[0]}'; known are"
            f" {', '.join(c.name for c in declared)}."
        )
    checked = {}
    for column in declared:
        if column.name not in frame.columns:
            if column.required:
                raise TableError(f"{where}: column '{column.name}' ({column.meaning}) is missing.")
            values = pd.Series([pd.NA] * len(frame), index=frame.index)
        else:
            values = frame[column.name]
        checked[column.name] = _typed(values, column, where)
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
            f"{where}: column '{column.name}' is empty in row"
            f" {int(typed.isna().to_numpy().argmax()) + 1}."
        )
    if column.choices:
        wrong = ~(typed.isna() | typed.isin(column.choices)).to_numpy(dtype=bool)
        if wrong.any():
            row = int(wrong.argmax())
            raise TableError(
                f"{where}: column '{column.name}' row {row + 1} is '{typed.iloc[row]}'; allowed:"
                f" {', '.join(column.choices)}."
            )
    return typed


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
            "`outputs/<study>/<run>/` holds what one run made; this file is printed by `python -m"
            " helpers.tables` and checked by a test."
        ),
        (
            "Every run folder also has `manifest.json` (status, times, commit, parameters, inputs"
            " and files with hashes, versions) and,"
        ),
        (
            "from a batch run, the executed `notebook.ipynb`. Empty cells are missing values; lists"
            " inside a cell are joined by `|`."
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
            choices = f" ({', '.join(column.choices)})" if column.choices else ""
            star = " *" if column.required else ""
            lines.append(
                f"| {column.name}{star} | {column.kind} |"
                f" {column.meaning.replace('|', chr(92) + '|')}{choices} |"
            )
    return "\n".join([*lines, "", "\\* never empty", ""])


if __name__ == "__main__":
    print(document(), end="")
