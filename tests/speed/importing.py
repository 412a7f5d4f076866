"""How fast stage 01 imports, beside the plain loop that anyone would write, and how much memory it
takes.

The work of both is the same: 512 px CT slices as 12-bit DICOM to PNG. Ours also hashes,
fingerprints and keeps a journal.
"""

import multiprocessing
import os
import shutil
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


def masking(files: int = 60) -> pd.DataFrame:
    """Importing X-rays with the default `burned_in_text: mask`, beside a loop that gives every
    image to RapidOCR as it comes (it uses all cores) and paints over what was read.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = written_on(Path(folder) / "in", files)
        plain = files / _timed(lambda: plain_masking(source, Path(folder) / "plain"))
        asked = CELL | {"burned_in_text": "mask"}
        ours = files / _timed(lambda: list(_import(source, Path(folder), "ours", cell=asked)))
    note = "baseline: RapidOCR on every image; half of them carry a name"
    what = f"X-rays with text masked, {len(os.sched_getaffinity(0))} cores"
    return pd.DataFrame([measurement.row("import", what, plain, ours, "files/s", note)])


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


def written_on(folder: Path, count: int, side: int = 1024, different: int = 10) -> Path:
    """A folder of X-rays (PNG), a few different ones under many names; every second carries a name,
    a date and a letter.
    """
    from PIL import Image, ImageDraw

    from helpers.rehearsal import phantom_xray

    folder.mkdir(parents=True)
    for number in range(min(count, different)):
        grey = (phantom_xray.xray(number, size=side) >> 4).astype(np.uint8)
        drawn = Image.fromarray(grey)
        if number % 2:
            pen = ImageDraw.Draw(drawn)
            pen.text((0.03 * side, 0.03 * side), "DOE JANE 12.03.1950", 255, font_size=side // 32)
            pen.text((0.93 * side, 0.05 * side), "L", 255, font_size=side // 16)
        drawn.save(folder / f"{number:04d}.png")
    for number in range(different, count):
        shutil.copy(folder / f"{number % different:04d}.png", folder / f"{number:04d}.png")
    return folder


def _import(source: Path, folder: Path, name: str, workers: int = 0, cell: dict = CELL):
    known = [
        {
            "file": file,
            "modality": "ct" if str(file).endswith(".dcm") else "xray",
            "sha256": "",
            "skip": "",
        }
        for file in importing.files_below(source)
    ]
    asked = conftest.values("01_prepare_cases", workers=workers, **cell)
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


def plain_masking(source: Path, target: Path) -> None:
    """The baseline: one process, RapidOCR as it comes, black over every box that it read, Pillow's
    resize and default PNG; no hashes, no bookkeeping.
    """
    from importlib import import_module
    from importlib.util import find_spec

    from PIL import Image, ImageDraw

    name = "rapidocr_onnxruntime" if find_spec("rapidocr_onnxruntime") else "rapidocr"
    engine = import_module(name).RapidOCR()
    target.mkdir()
    for path in sorted(source.iterdir()):
        image = Image.open(path).convert("L")
        found = engine(np.asarray(image))
        boxes = found[0] if isinstance(found, tuple) else found.boxes
        for box in boxes if boxes is not None else []:
            corners = box[0] if isinstance(found, tuple) else box
            ImageDraw.Draw(image).polygon([tuple(corner) for corner in corners], fill=0)
        image.resize((512, 512), Image.Resampling.BILINEAR).save(target / path.name)


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
