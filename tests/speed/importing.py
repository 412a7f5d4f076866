"""How fast stage 01 imports, beside the plain loop that anyone would write, and how much memory it
takes.

The work of both is the same: 512 px CT slices as 12-bit DICOM to PNG. Ours also hashes,
fingerprints and keeps a journal.
"""

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import conftest
import numpy as np
import pandas as pd

from helpers.prepare_cases import duplicates, importing
from speed import measurement

CELL = {"min_lung_share": 0.0, "slices": 10**6, "burned_in_text": "keep"}


def measure(files: int = 300, hashes: int = 100_000) -> pd.DataFrame:
    """One row a measurement, columns measurement.COLUMNS."""
    with tempfile.TemporaryDirectory() as folder:
        source = slices(Path(folder) / "in", files)
        plain = files / _timed(lambda: plain_loop(source, Path(folder) / "plain"))
        ours = files / _timed(lambda: list(_import(source, Path(folder), "ours")))
        one = files / _timed(lambda: list(_import(source, Path(folder), "one", workers=1)))
    cores = len(os.sched_getaffinity(0))
    values = np.random.default_rng(0).integers(0, 2**63, hashes, dtype=np.uint64)
    fraction = min(hashes, 5000)
    naive = _timed(lambda: naive_pairs(values[:fraction].tolist())) * (hashes / fraction) ** 2
    pairs = _timed(lambda: sum(len(some) for some in duplicates.near_pairs(values)))
    plainly = "baseline: pydicom, window, resize, Pillow's default PNG, one process"
    twice = f"baseline: two Python loops over {fraction:,} hashes, extrapolated"
    return pd.DataFrame(
        [
            measurement.row(
                "import", f"DICOM to PNG, {cores} cores", plain, ours, "files/s", plainly
            ),
            measurement.row(
                "import",
                "DICOM to PNG, 1 process",
                plain,
                one,
                "files/s",
                "hashes, fingerprints and journal included",
            ),
            measurement.row(
                "duplicates", f"near pairs of {hashes:,} hashes", naive, pairs, "s", twice
            ),
        ]
    )


def memory(files: int = 20_000) -> pd.DataFrame:
    """Peak resident memory, in MB, of the importing process and all its workers with `files` files,
    beside a twentieth of them.
    """
    peaks = []
    for count in (max(files // 20, 1), files):
        # A fresh process each, so that one measurement does not inherit the peak of another.
        with (
            tempfile.TemporaryDirectory() as folder,
            ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        ):
            peaks.append(pool.submit(_peak, folder, count).result())
    few, many = peaks
    note = f"baseline: the same import of {max(files // 20, 1):,} files; flat is 1"
    return pd.DataFrame(
        [measurement.row("import", f"peak memory, {files:,} files", few, many, "MB", note)]
    )


def _peak(folder: str, count: int) -> float:
    import psutil

    source = slices(Path(folder) / "in", count, size=128, different=50)
    itself, peak = psutil.Process(), 0
    for number, _ in enumerate(_import(source, Path(folder), "ours")):
        if number % 50 == 0:
            peak = max(
                peak,
                sum(
                    process.memory_info().rss
                    for process in [itself, *itself.children(recursive=True)]
                ),
            )
    return peak / 2**20


def slices(folder: Path, count: int, size: int = 512, different: int = 20) -> Path:
    """A folder of CT slices as uncompressed DICOM, a few different ones under many names."""
    from helpers.rehearsal import phantom_ct

    folder.mkdir(parents=True)
    contents = []
    for number in range(min(count, different)):
        hounsfield = phantom_ct.ct_slice(number, size=size)
        contents.append(_dicom(hounsfield))
    for number in range(count):
        (folder / f"{number:06d}.dcm").write_bytes(contents[number % len(contents)])
    return folder


def _dicom(hounsfield: np.ndarray) -> bytes:
    import io

    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = (
        CTImageStorage,
        generate_uid(),
        "CT",
    )
    dataset.Rows, dataset.Columns = hounsfield.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = (
        1,
        "MONOCHROME2",
        1,
    )
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.PixelData = np.ascontiguousarray(hounsfield, dtype="<i2").tobytes()
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _import(source: Path, folder: Path, name: str, workers: int = 0):
    known = [
        {"file": file, "modality": "ct", "sha256": "", "skip": ""}
        for file in importing.files_below(source)
    ]
    asked = conftest.values("01_prepare_cases", workers=workers, **CELL)
    return importing.take(
        source, known, folder / name, folder / f"{name}.jsonl", asked, b"speed", {}
    )


def plain_loop(source: Path, target: Path) -> None:
    """The baseline: one process, pydicom, a window in numpy, Pillow's resize and default PNG; no
    hashes, no bookkeeping.
    """
    import pydicom
    from PIL import Image

    target.mkdir()
    for path in sorted(source.iterdir()):
        dataset = pydicom.dcmread(path)
        hounsfield = dataset.pixel_array * float(dataset.RescaleSlope) + float(
            dataset.RescaleIntercept
        )
        shown = np.clip((hounsfield + 600) / 1500 + 0.5, 0, 1) * 255
        Image.fromarray(shown.astype(np.uint8)).resize((512, 512), Image.Resampling.BILINEAR).save(
            target / f"{path.stem}.png"
        )


def naive_pairs(hashes: list[int]) -> int:
    """The baseline: two loops."""
    return sum(
        (a ^ b).bit_count() <= duplicates.DISTANCE
        for i, a in enumerate(hashes)
        for b in hashes[i + 1 :]
    )


def _timed(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
