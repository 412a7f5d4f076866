"""Metadata tables as data sets and hospitals write them, and the file that each row describes."""

import bisect
import difflib
import gzip
import itertools
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import pandas as pd

from helpers import tables

IMAGE_ENDING = re.compile(r"\.(?:png|jpe?g|dcm|tiff?|webp|bmp)$")


class LayoutError(ValueError):
    """A metadata table that cannot be used; the message says which and what to do."""


def titles(frames: Iterable[pd.DataFrame]) -> str:
    """The first names of columns, for a message. A first line with dates or numbers is no header
    and may name a patient.
    """
    named = [f.columns for f in frames if not re.search(r"\d{3}|\d[.,:/-]\d", " ".join(f.columns))]
    columns = dict.fromkeys(itertools.chain.from_iterable(named))
    return ", ".join([*columns][:12]) or "none, but its first line must name them"


def one_form(text: str) -> str:
    """A name in the Unicode form used for comparing: letter and accent are one character."""
    return unicodedata.normalize("NFC", text)


def read_tables(
    folder: Path, files: list[str], wanted: str
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Every CSV or TSV (also gzipped) below the folder by its name, as text; and why others cannot
    be read.

    Raises LayoutError for a wanted one that is missing or cannot be read.
    """
    names = [
        file
        for file in files
        if re.search(r"\.(csv|tsv)(\.gz)?$", file, re.IGNORECASE) and (folder / file).is_file()
    ]
    chosen = [name for name in names if not wanted or one_form(name) == one_form(wanted)]
    if wanted and not chosen:
        near = difflib.get_close_matches(wanted, names, 1)  # others may be named after patients
        raise LayoutError(
            f"The metadata table '{wanted}' is not in the folder"
            + (f"; did you mean '{near[0]}'?" if near else ".")
        )
    found, unread = {}, {}
    for name in chosen:
        try:
            content = (folder / name).read_bytes()
            content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
            found[name] = tables.spreadsheet(content).rename(columns=one_form)
        except (ValueError, OSError, EOFError, zlib.error) as error:
            why = str(getattr(error, "strerror", None) or error).strip()  # without its path
            unread[name] = f"cannot be read ({why}): save it as CSV with one header line"
            if wanted or name == "metadata.csv":
                raise LayoutError(f"The metadata table '{name}' {unread[name]}.") from None
    return found, unread


class Finder:
    """Finds the file that a data set means by a path, a name or a name without its ending."""

    def __init__(self, files: list[str]):
        self.real = {one_form(file): file for file in files}
        self.forms = sorted(self.real)
        self.by_tail: dict[int, dict[str, list[str]]] = {}

    def below(self, folder: str) -> Iterator[str]:
        """The files below a folder."""
        folder = one_form(folder).strip("/") + "/"
        first = bisect.bisect_left(self.forms, folder)
        inside = itertools.takewhile(lambda form: form.startswith(folder), self.forms[first:])
        return map(self.real.get, inside)

    def rows(self, frame: pd.DataFrame, column: str, table: str) -> Iterator[tuple[dict, str]]:
        """The rows of a table whose column names a file that is there, each with that file."""
        named = [str(value).strip().replace("\\", "/") for value in frame[column]]
        parts = _telling(named)
        for row, name in zip(frame.to_dict("records"), named):
            if file := self.find(name, table, parts):
                yield row, file

    def find(self, named: str, table: str, parts: int = 1) -> str:
        """The file, '' when there is none or when it could be several; the last `parts` of its path
        have to agree.
        """
        named = one_form(named).removeprefix("./").strip("/")
        if not named:
            return ""
        for path in ((PurePosixPath(one_form(table)).parent / named).as_posix(), named):
            if path in self.real:
                return self.real[path]
        tail = "/".join(named.lower().split("/")[-parts:])
        tails = self._tails(parts)
        found = tails.get(tail) or tails.get(IMAGE_ENDING.sub("", tail), [])
        if len(found) > 1:
            found = _longest_tail(found, named)
        return self.real[found[0]] if len(found) == 1 else ""

    def _tails(self, parts: int) -> dict[str, list[str]]:
        """Files by the last `parts` of their paths, with and without endings; lower case."""
        if parts not in self.by_tail:
            tails = self.by_tail[parts] = {}
            for file in self.forms:
                *folders, name = file.lower().split("/")[-parts:]
                for variant in {name, name.split(".")[0], PurePosixPath(name).stem}:
                    tails.setdefault("/".join([*folders, variant]), []).append(file)
        return self.by_tail[parts]


def _telling(named: list[str]) -> int:
    """How many of the last parts of the paths distinguish the files of a table: three for CheXpert,
    since every study has a view1_frontal.jpg.
    """
    different = {name.lower() for name in named}
    for parts in range(1, 5):
        if len({"/".join(name.split("/")[-parts:]) for name in different}) == len(different):
            return parts
    return 5


def _longest_tail(found: list[str], named: str) -> list[str]:
    """Those of the files whose last folders agree most with the named path."""

    def agreeing(file: str) -> int:
        ours, theirs = (PurePosixPath(path.lower()).parts[-2::-1] for path in (file, named))
        return next(
            (count for count, (a, b) in enumerate(zip(ours, theirs)) if a != b),
            min(len(ours), len(theirs)),
        )

    best = max(agreeing(file) for file in found)
    return [file for file in found if agreeing(file) == best]
