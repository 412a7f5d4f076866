"""What the names of files and folders tell where no table does: class folders, masks, known data
sets, patients.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from helpers import findings

CREDITS = {
    "NIH ChestX-ray14": "NIH Clinical Center ChestX-ray14, Wang et al., CVPR 2017",
    "CheXpert": "CheXpert, Irvin et al., AAAI 2019",
    "MIMIC-CXR-JPG": "MIMIC-CXR-JPG, Johnson et al., 2019",
}
# How these data sets name their files, for a part of one that came without its tables.
PATTERNS = {
    "NIH ChestX-ray14": re.compile(r"(?:^|/)(?P<patient>\d{8})_\d{3}\.png$"),
    "CheXpert": re.compile(
        r"(?:^|/)(?P<patient>patient\d{5})/study\d+/view\d+_(?:frontal|(?P<view>lateral))\.(?:jpg|png)$"
    ),
    "MIMIC-CXR-JPG": re.compile(r"(?:^|/)p(?P<patient>\d{8})/s\d{8}/[0-9a-f-]{44}\.(?:jpg|dcm)$"),
}
PATIENT = re.compile(
    r"(?:^|[/_\- ])(person|patient|subject|pat)[_\- ]?(\d+)(?=[/_\-. ])", re.IGNORECASE
)
MASKS = re.compile(
    r"(?:^|[^a-z])(?:(?:left|right|lung|manual)[_\- ]?)?masks?$|^segmentations?$", re.IGNORECASE
)
DENIED = re.compile(
    r"(?:^|[^a-z])non?(?:[^a-z]|(?=covid|pneumonia|tb))(?!.*(?:finding|abnormal|disease))",
    re.IGNORECASE,
)
DATA_SET = re.compile(
    r"dataset|database|collection|repository|radiography|challenge|hospital|general", re.IGNORECASE
)


def described(file: str, layout: str, label: str = "", **values) -> dict:
    """One row of a layout: the findings and side of a label in the data set's own words, and what
    else is known.
    """
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


def folders(folder: Path, files: list[str]) -> Iterator[dict]:
    """Folders named by class; the Kaggle COVID-19 Radiography folders (with their lung masks) among
    them.
    """
    kaggle = {"covid", "normal", "lung_opacity", "viral pneumonia"}
    parents = {part.lower() for file in files for part in PurePosixPath(file).parts[:-1]}
    is_kaggle = len(kaggle & parents) >= 2 and "images" in parents
    for file in files:
        parts = PurePosixPath(file).parts[:-1]
        label = _class(parts)
        layout = (
            "Kaggle COVID-19 Radiography"
            if is_kaggle and label.lower() in kaggle
            else "folders by class"
        )
        if parts and MASKS.search(parts[-1]):
            yield {"file": file, "layout": layout, "skip": "mask of the lungs, not an image"}
        elif label:
            modality = (
                "xray" if layout.startswith("Kaggle") else _folder_modality((folder.name, *parts))
            )
            yield described(
                file, layout, label, modality=modality, patient_in_path=_patient_in_path(file)
            )


def _class(parts: tuple[str, ...]) -> str:
    """The nearest folder that names a class; '' when a nearer one denies it (non-COVID).

    A data set's own name is no class.
    """
    for part in reversed(parts):
        if DENIED.search(part):
            return ""
        if not DATA_SET.search(part) and findings.from_label(part):
            return part
    return ""


def patterns(files: list[str], with_table: set[str]) -> Iterator[dict]:
    """Files of known data sets without their tables: what their names alone tell; of `with_table`'s
    files only the patient.
    """
    for file in files:
        for layout, pattern in PATTERNS.items():
            if match := pattern.search(file):
                told = match.groupdict()
                patient = prefixed(layout.split()[0].split("-")[0].lower(), told["patient"])
                if layout in with_table:
                    yield {"file": file, "patient_id": patient}
                    break
                yield described(
                    file,
                    layout,
                    modality="xray",
                    patient_id=patient,
                    view=told.get("view") or "",
                    credit=CREDITS[layout],
                )
                break
        else:
            if patient := _patient_in_path(file):
                yield {"file": file, "patient_in_path": patient}


def _patient_in_path(file: str) -> str:
    """The patient that a path names by itself: 'person 17' of train/person17_virus_42.jpeg; '' when
    none does.
    """
    match = PATIENT.search(file)
    return f"{match[1]} {int(match[2])}".lower() if match else ""


def _folder_modality(parts: tuple[str, ...]) -> str:
    """What the nearest folder that says so holds: xray, ct; '' when none does."""
    for part in reversed(parts):
        words = set(re.split(r"[^a-z0-9]+", re.sub(r"x[-_ ]?ray", "xray", part.lower())))
        if words & {"xray", "xrays", "cxr", "radiography", "radiographs"}:
            return "xray"
        if words & {"ct", "cts"}:
            return "ct"
    return ""


def prefixed(source: str, identity) -> str:
    """A patient id that no other data set can share; '' when there is none."""
    return f"{source} {identity}" if identity else ""
