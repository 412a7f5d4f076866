"""Simulated patients:

X-rays and CT slices of one parametric chest, and a folder of them as 12-bit DICOM.

The patient's right is on the image's left. Everything follows from a seed.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.files import sha256, write_atomically
from helpers.rehearsal.anatomy import CLEAN_SIDE, FINDINGS
from helpers.rehearsal.phantom_ct import ct_slice
from helpers.rehearsal.phantom_xray import FIELD_MM, xray

LABELS = {
    "no_finding": "No Finding",
    "effusion": "Effusion",
    "consolidation": "Consolidation",
    "infiltrates": "Infiltration",
    "nodule": "Nodule",
    "pneumothorax": "Pneumothorax",
    "cardiomegaly": "Cardiomegaly",
}
SHARES = (0.34, 0.15, 0.13, 0.13, 0.09, 0.07, 0.09)
DX, CT = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.2"


def write_cases(
    folder: Path, patients: int = 230, seed: int = 0, size: int = 320, ct_patients: int = 30
) -> pd.DataFrame:
    """A folder of simulated patients:

    DICOM X-rays (one to three per patient), CT slices (two per patient) and metadata.csv.
    Idempotent: existing files are kept, so an interrupted call can be repeated. Returns the
    metadata, one row per file (file, modality, origin, finding, patient_id, sex, age, view,
    licence, credit, sha256). A side is given in the label as hospitals do: "Effusion (left)".
    """
    folder = Path(folder)
    if (folder / "metadata.csv").exists():
        return pd.read_csv(folder / "metadata.csv", dtype=str)
    rows = []
    for number in range(patients + ct_patients):
        modality = "xray" if number < patients else "ct"
        chance = np.random.default_rng([seed, number, 8])
        visits = 2 if modality == "ct" else 1 + int(chance.choice(3, p=(0.5, 0.28, 0.22)))
        person = seed * 100_003 + number
        rows += [_write_case(folder, modality, person, visit, size) for visit in range(visits)]
    frame = pd.DataFrame(rows).astype(str)
    write_atomically(folder / "metadata.csv", frame.to_csv(index=False).encode())
    return frame


def _write_case(folder, modality, person, visit, size) -> dict:
    """Write one image unless it is there; returns its row of metadata.csv."""
    rng = np.random.default_rng([person, 9])
    finding, side = str(rng.choice(FINDINGS, p=SHARES)), str(rng.choice(["left", "right"]))
    sex, age = str(rng.choice(["F", "M"])), int(rng.integers(21, 92))
    view = str(rng.choice(["PA", "AP"], p=(0.65, 0.35)))
    # Most people return with the same finding; some have recovered.
    if visit and rng.random() < 0.3:
        finding = "no_finding"
    patient = {"id": f"PHANTOM-{person:06d}", "sex": sex, "age": age}
    patient |= {"view": view if modality == "xray" else "axial", "visit": visit}
    file = f"{modality}/{patient['id'].lower()}_{visit}.dcm"
    if not (folder / file).exists():
        pixels = (
            xray(person, finding, side, size, view, visit, sex)
            if modality == "xray"
            else np.clip(
                ct_slice(person, finding, side, size, visit=visit, sex=sex).astype(np.int32) + 1024,
                0,
                4095,
            ).astype(np.uint16)
        )
        _write(folder / file, _dicom(pixels, modality, patient))
    shown = CLEAN_SIDE.get(finding, side)
    label = LABELS[finding] + (f" ({shown})" if shown else "")
    return {
        "file": file,
        "modality": modality,
        "origin": "real",
        "finding": label,
        "patient_id": patient["id"],
        "sex": sex,
        "age": age,
        "view": patient["view"],
        "licence": "MIT (simulated)",
        "credit": "rehearsal phantom, no patient",
        "sha256": sha256(folder / file),
    }


def _write(path, content):
    # The file is renamed into place but not flushed: hundreds of flushes would cost more than
    # drawing lost files again after a power cut.
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").write_bytes(content)
    path.with_suffix(".part").replace(path)


def _dicom(pixels, modality, patient) -> bytes:
    """A DICOM file with 12 bits stored in 16, MONOCHROME2; a CT's stored values are HU + 1024."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    uid = f"2.25.{int(hashlib.sha256(f'{patient}'.encode()).hexdigest()[:30], 16)}"
    both = {
        "SOPClassUID": DX if modality == "xray" else CT,
        "SOPInstanceUID": uid,
        "StudyInstanceUID": uid + ".1",
        "SeriesInstanceUID": uid + ".2",
        "Modality": "DX" if modality == "xray" else "CT",
        "PatientName": "Simulated^Patient",
        "PatientID": patient["id"],
        "PatientSex": patient["sex"],
        "PatientAge": f"{patient['age']:03d}Y",
        "StudyDate": f"2020{1 + patient['visit']:02d}15",
        "SeriesDescription": "rehearsal phantom",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelSpacing": [FIELD_MM / max(pixels.shape)] * 2,
        "PixelData": pixels.astype("<u2").tobytes(),
    }
    own = {
        "xray": {
            "ViewPosition": patient["view"],
            "PresentationIntentType": "FOR PRESENTATION",
            "BurnedInAnnotation": "NO",
            "WindowCenter": 2048,
            "WindowWidth": 4096,
            "RescaleIntercept": 0,
            "RescaleSlope": 1,
            "PresentationLUTShape": "IDENTITY",
        },
        "ct": {
            "SliceThickness": 3,
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "RescaleIntercept": -1024,
            "RescaleSlope": 1,
            "RescaleType": "HU",
            "WindowCenter": -600,
            "WindowWidth": 1500,
        },
    }
    data = FileDataset(None, {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    for name, value in (both | own[modality]).items():
        setattr(data, name, value)
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
