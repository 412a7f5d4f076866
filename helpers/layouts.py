"""How known data sets say what their files are: one function a layout, each recognised by itself.

Every function takes the tables and files found below a folder and returns the rows it understands, with the
columns of COLUMNS (text; '' when unknown). A file belongs to the first layout that knows it.
"""

import csv
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from helpers import findings

COLUMNS = (
    "file", "layout", "modality", "origin", "generator", "finding", "side", "patient_id", "sex", "age", "view", "licence", "credit", "report",
    "sha256", "label", "skip",
)  # fmt: skip
CHEXPERT_LABELS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
# Columns that a table of one's own may use for what we need, first come first served; lower case, without punctuation.
SYNONYMS = {
    "file": ("file", "filename", "file name", "filepath", "file path", "path", "image", "image path", "image file", "image name", "image index", "image id", "dicom id", "id"),
    "modality": ("modality",),
    "origin": ("origin",),
    "generator": ("generator", "model"),
    "finding": ("finding", "findings", "finding labels", "label", "labels", "diagnosis", "class", "category", "pathology", "disease"),
    "side": ("side", "laterality"),
    "patient_id": ("patient id", "patientid", "patient", "subject id", "subject", "subjectid", "case id", "pid"),
    "sex": ("sex", "gender", "patient sex", "patient gender"),
    "age": ("age", "patient age", "age years"),
    "view": ("view", "view position", "viewposition", "projection"),
    "licence": ("licence", "license"),
    "credit": ("credit", "source", "attribution"),
    "report": ("report", "impression", "report text"),
    "sha256": ("sha256",),
}  # fmt: skip


class LayoutError(ValueError):
    """A metadata table that cannot be used; the message says which and what to do."""


def describe(folder: Path, files: list[str], table: str = "", mapping: Iterable[str] = ()) -> pd.DataFrame:
    """One row a file below `folder` (relative POSIX paths) with COLUMNS; `layout` names how the row was recognised.

    `table` names the one CSV to use, `mapping` its columns as 'theirs:ours'. Raises LayoutError.
    """
    tables = _tables(folder, files, table)
    pairs = _mapping(mapping)
    known: dict[str, dict] = {}
    readers = (_own,) if pairs or table else (_nih, _chexpert, _mimic, _rsna, _hannover, _tcia, _own)
    for read in readers:
        for row in read(tables, Finder(files), pairs):
            known.setdefault(row["file"], row)
    for name in tables:
        known.setdefault(name, {"file": name, "skip": "metadata table, read for labels"})
    if not any("layout" in row for row in known.values()):
        _complain(tables, table, pairs)
    for row in _folders(folder, [file for file in files if file not in known]):
        known[row["file"]] = row
    return pd.DataFrame([known.get(file, {"file": file}) for file in files], columns=list(COLUMNS), dtype=object).fillna("").astype(str)


def _tables(folder: Path, files: list[str], wanted: str) -> dict[str, pd.DataFrame]:
    """Every CSV or TSV (also gzipped) below the folder by its name, as text. Raises LayoutError for a wanted one that is missing."""
    names = [file for file in files if re.search(r"\.(csv|tsv)(\.gz)?$", file, re.IGNORECASE)]
    if wanted and wanted not in names:
        raise LayoutError(f"The metadata table '{wanted}' is not in the folder; tables there: {', '.join(names) or 'none'}.")
    tables = {}
    for name in [wanted] if wanted else names:
        try:
            separator = "\t" if ".tsv" in name.lower() else _separator(folder / name)
            frame = pd.read_csv(folder / name, sep=separator, dtype=str, keep_default_na=False, encoding_errors="replace")
        except (ValueError, OSError, csv.Error, EOFError) as error:
            if wanted or name == "metadata.csv":
                raise LayoutError(f"The metadata table '{name}' cannot be read ({error}): save it as CSV with one header line.") from None
            continue
        frame.columns = [str(column).lstrip("\ufeff").strip() for column in frame.columns]
        tables[name] = frame
    return tables


def _separator(path: Path) -> str:
    if path.suffix == ".gz":
        return ","
    first = path.open(encoding="utf-8", errors="replace").readline()
    return ";" if first.count(";") > first.count(",") else "\t" if first.count("\t") > first.count(",") else ","


def _mapping(mapping: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for pair in mapping:
        theirs, colon, ours = str(pair).rpartition(":")
        if not colon or ours.strip() not in SYNONYMS:
            raise LayoutError(f"columns: '{pair}' must read theirs:ours with ours one of {', '.join(SYNONYMS)}.")
        pairs[ours.strip()] = theirs.strip()
    return pairs


def _complain(tables: dict[str, pd.DataFrame], wanted: str, pairs: dict[str, str]) -> None:
    name = wanted or next((name for name in tables if name == "metadata.csv"), "")
    if not name:
        return
    columns = ", ".join(tables[name].columns[:12])
    missing = [theirs for theirs in pairs.values() if theirs not in tables[name].columns]
    if missing:
        raise LayoutError(f"The metadata table '{name}' has no column '{missing[0]}' that `columns` names; it has: {columns}.")
    raise LayoutError(
        f"The metadata table '{name}' names no file that is there: it needs a column 'file' with paths below the folder; it has: {columns}. "
        "Name the right column with columns: ['theirs:file']."
    )


class Finder:
    """Which file a data set means by a path, a name or a name without its ending."""

    def __init__(self, files: list[str]):
        self.exact = set(files)
        self.by_name: dict[str, list[str]] = {}
        for file in files:
            path = PurePosixPath(file)
            for name in {path.name.lower(), path.name.split(".")[0].lower(), path.stem.lower()}:
                self.by_name.setdefault(name, []).append(file)

    def find(self, named: str, table: str) -> str:
        """The file, '' when there is none or when it could be several."""
        named = named.strip().replace("\\", "/").lstrip("./") if named else ""
        if not named:
            return ""
        beside = (PurePosixPath(table).parent / named).as_posix()
        if beside in self.exact or named in self.exact:
            return beside if beside in self.exact else named
        found = self.by_name.get(PurePosixPath(named).name.lower(), [])
        if len(found) > 1:
            found = _longest_tail(found, named)
        return found[0] if len(found) == 1 else ""


def _longest_tail(found: list[str], named: str) -> list[str]:
    """Those of the files whose last folders agree most with the named path."""

    def agreeing(file: str) -> int:
        count = 0
        for ours, theirs in zip(PurePosixPath(file).parts[::-1], PurePosixPath(named).parts[::-1]):
            if ours.lower() != theirs.lower() and count:
                break
            count += 1
        return count

    best = max(agreeing(file) for file in found)
    return [file for file in found if agreeing(file) == best]


def _with(tables: dict[str, pd.DataFrame], *columns: str) -> list[tuple[str, pd.DataFrame]]:
    return [(name, frame) for name, frame in tables.items() if set(columns) <= set(frame.columns)]


def _row(file: str, layout: str, label: str = "", **values) -> dict:
    side = values.pop("side", "") or findings.side_in_text(label)
    return {
        "file": file,
        "layout": layout,
        "origin": "real",
        "label": label,
        "finding": "|".join(findings.from_label(label)),
        "side": side,
        **values,
    }


def _nih(tables, finder, pairs):
    for name, frame in _with(tables, "Image Index", "Finding Labels"):
        for row in frame.to_dict("records"):
            if file := finder.find(row["Image Index"], name):
                yield _row(
                    file, "NIH ChestX-ray14", row["Finding Labels"], modality="xray", patient_id=_prefixed("nih", row.get("Patient ID")),
                    sex=row.get("Patient Gender", "") or row.get("Patient Sex", ""), age=row.get("Patient Age", ""), view=row.get("View Position", ""),
                    credit="NIH Clinical Center ChestX-ray14, Wang et al., CVPR 2017",
                )  # fmt: skip


def _chexpert(tables, finder, pairs):
    for name, frame in _with(tables, "Path", "No Finding", "Pleural Effusion"):
        for row in frame.to_dict("records"):
            if file := finder.find(row["Path"], name):
                lateral = row.get("Frontal/Lateral", "").lower() == "lateral"
                patient = re.search(r"patient\d+", row["Path"])
                yield _row(
                    file, "CheXpert", _positive(row), modality="xray", patient_id=_prefixed("chexpert", patient[0] if patient else ""),
                    sex=row.get("Sex", ""), age=row.get("Age", ""), view="lateral" if lateral else row.get("AP/PA", ""),
                    credit="CheXpert, Irvin et al., AAAI 2019",
                )  # fmt: skip


def _positive(row: dict) -> str:
    """Labels that the labeller is sure of (1); uncertain (-1) and absent ones are not asserted."""
    return "|".join(label for label in CHEXPERT_LABELS if row.get(label, "") in ("1", "1.0"))


def _mimic(tables, finder, pairs):
    labels = {
        (row["subject_id"], row["study_id"]): _positive(row)
        for _, frame in _with(tables, "subject_id", "study_id", "No Finding")
        for row in frame.to_dict("records")
    }
    for name, frame in _with(tables, "dicom_id", "subject_id", "study_id"):
        for row in frame.to_dict("records"):
            if file := finder.find(row["dicom_id"], name):
                yield _row(
                    file, "MIMIC-CXR-JPG", labels.get((row["subject_id"], row["study_id"]), ""), modality="xray",
                    patient_id=_prefixed("mimic", row["subject_id"]), view=row.get("ViewPosition", ""),
                    report=finder.find(f"s{row['study_id']}.txt", name), credit="MIMIC-CXR-JPG, Johnson et al., 2019",
                )  # fmt: skip


def _rsna(tables, finder, pairs):
    classes = {row["patientId"]: row["class"] for _, frame in _with(tables, "patientId", "class") for row in frame.to_dict("records")}
    targets = {row["patientId"]: row["Target"] for _, frame in _with(tables, "patientId", "Target") for row in frame.to_dict("records")}
    names = [name for name, _ in [*_with(tables, "patientId", "class"), *_with(tables, "patientId", "Target")]]
    for patient in {**classes, **targets}:
        label = classes.get(patient) or {"1": "Lung Opacity"}.get(targets.get(patient, ""), "")
        if file := finder.find(patient, names[0]):
            yield _row(
                file,
                "RSNA Pneumonia",
                label,
                modality="xray",
                patient_id=_prefixed("rsna", patient),
                credit="RSNA Pneumonia Detection Challenge 2018 / NIH Clinical Center",
            )


def _hannover(tables, finder, pairs):
    for name, frame in _with(tables, "image_id", "patient_id", "admission_offset"):
        for row in frame.to_dict("records"):
            if file := finder.find(row["image_id"], name):
                yield _row(
                    file, "Hannover COVID-19", "COVID-19", modality="ct" if row.get("modality", "").upper() == "CT" else "xray",
                    patient_id=_prefixed("hannover", row["patient_id"]), sex=row.get("sex", ""), age=row.get("age", ""),
                    view=row.get("projection", "") or row.get("view", ""), licence="CC BY 3.0",
                    credit="COVID-19 Image Repository, Hannover Medical School, Winther et al., doi 10.25835/0090041",
                )  # fmt: skip


def _tcia(tables, finder, pairs):
    """TCIA's manifest names one folder a series; patient and view come from the DICOM header."""
    for name, frame in _with(tables, "Series UID", "Subject ID", "File Location"):
        for row in frame.to_dict("records"):
            location = row["File Location"].replace("\\", "/").removeprefix("./").strip("/")
            beside = (PurePosixPath(name).parent / location).as_posix() + "/"
            modality = {"CT": "ct", "CR": "xray", "DX": "xray"}.get(row.get("Modality", ""), "")
            for file in [file for file in finder.exact if file.startswith(beside)]:
                yield _row(
                    file, "TCIA", modality=modality, patient_id=_prefixed("tcia", row["Subject ID"]),
                    credit=f"{row.get('Collection', '')}, The Cancer Imaging Archive".lstrip(", "), licence=row.get("License Name", ""),
                )  # fmt: skip


def _own(tables, finder, pairs):
    """A table of one's own: columns named as ours or by a synonym, or mapped by `columns`."""
    for name, frame in tables.items():
        columns = {**_guessed(frame), **{ours: theirs for ours, theirs in pairs.items() if theirs in frame.columns}}
        if "file" not in columns:
            continue
        for row in frame.to_dict("records"):
            values = {ours: row[theirs].strip() for ours, theirs in columns.items()}
            if file := finder.find(values.pop("file"), name):
                yield _own_row(file, name, values)


def _guessed(frame: pd.DataFrame) -> dict[str, str]:
    plain = {re.sub(r"[^a-z0-9]+", " ", column.lower()).strip(): column for column in reversed(frame.columns)}
    return {ours: next(plain[name] for name in names if name in plain) for ours, names in SYNONYMS.items() if set(names) & set(plain)}


def _own_row(file: str, name: str, values: dict) -> dict:
    modality = {"ct": "ct", "x ray": "xray", "xray": "xray", "cr": "xray", "dx": "xray", "cxr": "xray", "radiograph": "xray"}
    values["modality"] = modality.get(re.sub(r"[^a-z]+", " ", values.get("modality", "").lower()).strip(), "")
    origin = values.pop("origin", "").lower()
    generated = origin in ("generated", "fake", "synthetic", "ai")
    side = values.pop("side", "").lower()
    side = {"l": "left", "r": "right", "b": "bilateral", "both": "bilateral"}.get(side, side if side in findings.SIDES else "")
    row = _row(file, "plain CSV", values.pop("finding", ""), side=side, **values)
    row["origin"] = "generated" if generated else "real"
    if generated:
        row["generator"] = values.get("generator") or values.get("credit") or "elsewhere"
    return row


def _folders(folder: Path, files: list[str]):
    """Folders named by class; the Kaggle COVID-19 Radiography folders (with their lung masks) among them."""
    kaggle = {"covid", "normal", "lung_opacity", "viral pneumonia"}
    parents = {part.lower() for file in files for part in PurePosixPath(file).parts[:-1]}
    is_kaggle = len(kaggle & parents) >= 2 and "images" in parents
    for file in files:
        parts = PurePosixPath(file).parts[:-1]
        if is_kaggle and parts and parts[-1].lower() == "masks":
            yield {"file": file, "layout": "Kaggle COVID-19 Radiography", "skip": "mask of the lungs, not a picture"}
            continue
        label = next((part for part in reversed(parts) if findings.from_label(part)), "")
        if label:
            layout = "Kaggle COVID-19 Radiography" if is_kaggle and label.lower() in kaggle else "folders by class"
            yield _row(file, layout, label, modality=_folder_modality(parts))


def _folder_modality(parts: tuple[str, ...]) -> str:
    words = set(re.split(r"[^a-z0-9]+", " ".join(parts).lower()))
    return "ct" if words & {"ct", "cts"} else "xray" if words & {"xray", "xrays", "cxr", "radiography", "radiographs", "ray"} else ""


def _prefixed(source: str, identity) -> str:
    return f"{source} {identity}" if identity else ""
