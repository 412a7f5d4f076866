"""How known data sets describe their files: one function per data set, which recognises it by the
columns of its tables.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import pandas as pd

from helpers.prepare_cases import file_names
from helpers.prepare_cases.file_names import CREDITS, prefixed
from helpers.prepare_cases.metadata_tables import Finder

CHEXPERT_LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)


def table_row(file: str, layout: str, label: str = "", **values) -> dict:
    """A row that a table gives. All known data sets are of real images."""
    described = file_names.described(file, layout, label, **values)
    return {**described, "origin": "real", "table": True}


def _with(tables: dict[str, pd.DataFrame], *columns: str) -> list[tuple[str, pd.DataFrame]]:
    return [(name, frame) for name, frame in tables.items() if set(columns) <= set(frame.columns)]


def _rows(
    tables: dict[str, pd.DataFrame], finder: Finder, file: str, *columns: str
) -> Iterator[tuple[dict, str]]:
    """The rows of every table with these columns, and the file that their column `file` names."""
    for name, frame in _with(tables, file, *columns):
        for row, found in finder.rows(frame, file, name):
            yield row | {"table": name}, found


def _nih(tables, finder, pairs):
    for row, file in _rows(tables, finder, "Image Index", "Finding Labels"):
        yield table_row(
            file,
            "NIH ChestX-ray14",
            row["Finding Labels"],
            modality="xray",
            patient_id=prefixed("nih", row.get("Patient ID")),
            sex=row.get("Patient Gender", "") or row.get("Patient Sex", ""),
            age=row.get("Patient Age", ""),
            view=row.get("View Position", ""),
            credit=CREDITS["NIH ChestX-ray14"],
        )


def _chexpert(tables, finder, pairs):
    for row, file in _rows(tables, finder, "Path", "No Finding", "Pleural Effusion"):
        lateral = row.get("Frontal/Lateral", "").lower() == "lateral"
        patient = re.search(r"patient\d+", row["Path"])
        yield table_row(
            file,
            "CheXpert",
            _positive(row),
            modality="xray",
            patient_id=prefixed("chexpert", patient[0] if patient else ""),
            sex=row.get("Sex", ""),
            age=row.get("Age", ""),
            view="lateral" if lateral else row.get("AP/PA", ""),
            credit=CREDITS["CheXpert"],
        )


def _positive(row: dict) -> str:
    """Labels that the labeller is sure of (1); uncertain (-1) and absent ones are not asserted."""
    return "|".join(label for label in CHEXPERT_LABELS if row.get(label, "") in ("1", "1.0"))


def _mimic(tables, finder, pairs):
    labels = {
        (row["subject_id"], row["study_id"]): _positive(row)
        for _, frame in reversed(
            _with(tables, "subject_id", "study_id", "No Finding")
        )  # CheXpert's labeller before NegBio's
        for row in frame.to_dict("records")
    }
    for row, file in _rows(tables, finder, "dicom_id", "subject_id", "study_id"):
        yield table_row(
            file,
            "MIMIC-CXR-JPG",
            labels.get((row["subject_id"], row["study_id"]), ""),
            modality="xray",
            patient_id=prefixed("mimic", row["subject_id"]),
            view=row.get("ViewPosition", ""),
            report=finder.find(f"s{row['study_id']}.txt", row["table"]),
            credit=CREDITS["MIMIC-CXR-JPG"],
        )


def _rsna(tables, finder, pairs):
    found = {column: _with(tables, "patientId", column) for column in ("class", "Target")}
    classes, targets = (
        {row["patientId"]: row[column] for _, frame in named for row in frame.to_dict("records")}
        for column, named in found.items()
    )
    names = [name for named in found.values() for name, _ in named]
    for patient in {**classes, **targets}:
        label = classes.get(patient) or {"1": "Lung Opacity"}.get(targets.get(patient, ""), "")
        if file := finder.find(patient, names[0]):
            yield table_row(
                file,
                "RSNA Pneumonia",
                label,
                modality="xray",
                patient_id=prefixed("rsna", patient),
                credit="RSNA Pneumonia Detection Challenge 2018 / NIH Clinical Center",
            )


def _hannover(tables, finder, pairs):
    for row, file in _rows(tables, finder, "image_id", "patient_id", "admission_offset"):
        yield table_row(
            file,
            "Hannover COVID-19",
            "COVID-19",
            modality="ct" if row.get("modality", "").upper() == "CT" else "xray",
            patient_id=prefixed("hannover", row["patient_id"]),
            sex=row.get("sex", ""),
            age=row.get("age", ""),
            view=row.get("projection", "") or row.get("view", ""),
            licence="CC BY 3.0",
            credit="COVID-19 Image Repository, Hannover Medical School, Winther et al., "
            "doi 10.25835/0090041",
        )


def _tcia(tables, finder, pairs):
    """TCIA's manifest names one folder per series; patient and view come from the DICOM header."""
    for name, frame in _with(tables, "Series UID", "Subject ID", "File Location"):
        for row in frame.to_dict("records"):
            location = row["File Location"].replace("\\", "/").removeprefix("./").strip("/")
            for file in finder.below((PurePosixPath(name).parent / location).as_posix()):
                yield table_row(
                    file,
                    "TCIA",
                    modality="ct" if row.get("Modality") == "CT" else "",
                    patient_id=prefixed("tcia", row["Subject ID"]),
                    credit=f"{row.get('Collection', '')}, The Cancer Imaging Archive".lstrip(", "),
                    licence=row.get("License Name", ""),
                )


READERS = (_nih, _chexpert, _mimic, _rsna, _hannover, _tcia)
