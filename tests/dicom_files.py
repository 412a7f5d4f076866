"""DICOM files made for tests."""

from pathlib import Path

import conftest
import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from helpers import images


def read(path: Path, modality: str = "", **changes) -> list:
    """Every image of a file as stage 01 reads it, all of its depth and every slice kept."""
    asked = conftest.values("01_prepare_cases", **{"bits": 16, "min_lung_share": 0.0, **changes})
    return list(images.read(path, asked, modality))


def write(
    path: Path,
    pixels: np.ndarray,
    bits: int = 12,
    photometric: str = "MONOCHROME2",
    modality: str = "DX",
    **tags,
) -> Path:
    """A little-endian DICOM file of an image (H, W) or frames (n, H, W), uint8 or (u)int16, with
    more tags by keyword.
    """
    pixels = np.asarray(pixels)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.PatientName, dataset.PatientID, dataset.Modality = "Secret^Name", "SECRET-17", modality
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def chest_slice(size: int = 128, seed: int = 0) -> np.ndarray:
    """A CT slice in HU: air, an oval body, two lungs, noise; int16 (size, size)."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    hounsfield = np.full((size, size), -1000.0)
    hounsfield[(x / 0.8) ** 2 + (y / 0.6) ** 2 < 1] = 40
    for side in (-1, 1):
        hounsfield[((x - side * 0.36) / 0.27) ** 2 + (y / 0.42) ** 2 < 1] = -820
    return (hounsfield + np.random.default_rng(seed).normal(0, 12, hounsfield.shape)).astype(
        np.int16
    )


def chest_xray(size: int = 128, seed: int = 0, bits: int = 12) -> np.ndarray:
    """An X-ray of its own anatomy for every seed: bright body, two dark lungs, smooth structure;
    uint16 or uint8.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    picture = 0.7 - 0.2 * x**2
    for side in (-1, 1):
        picture -= 0.4 * np.exp(-(((x - side * 0.4) / 0.25) ** 2) - (y / 0.5) ** 2)
    for _ in range(30):
        cx, cy, width = rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.9), rng.uniform(0.03, 0.12)
        picture += rng.normal(0, 0.12) * np.exp(
            -(((x - cx) / width) ** 2) - ((y - cy) / width) ** 2
        )
    return (np.clip(picture, 0, 1) * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)
