"""DICOM files as grey pictures with their depth: decode, rescale, window, photometric interpretation.

Of the header only what `Header` names is ever returned.
"""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from helpers.images import ImageError, Picture, luminance, window

XRAY_MODALITIES = ("CR", "DX", "RG", "XC", "RF", "DR")
CHEST = re.compile(r"CHEST|THORA|LUNG|RIB|TORSO|HEART|CARDIA|STERN|CLAVIC|TAP|CAP|WHOLE ?BODY|TRUNK|PULMO", re.IGNORECASE)
MOST_PIXELS = 200_000_000  # of one frame; more is taken for a damaged header


@dataclass
class Header:
    """The columns of a DICOM header that may be used; identifying ones never leave the import unhashed."""

    modality: str = ""
    view: str = ""
    patient_id: str = ""
    sex: str = ""
    age: str = ""
    series: str = ""
    position: float | None = None
    extra: dict = field(default_factory=dict)


def looks_like(start: bytes) -> bool:
    """Whether a file's first bytes are DICOM's: the marker after the preamble, or a first group 0002 or 0008 without one."""
    return start[128:132] == b"DICM" or start[:4] in (
        b"\x02\x00\x00\x00",
        b"\x08\x00\x05\x00",
        b"\x08\x00\x08\x00",
        b"\x08\x00\x16\x00",
        b"\x00\x08\x00\x05",
    )


def read(
    path: Path, lung_center: float, lung_width: float, bits: int, known_modality: str = "", xray_window: str = "file"
) -> Iterator[Picture]:
    """Every frame of a DICOM file as a Picture; CT in the lung window (Hounsfield units), X-rays as their file says.

    `bits` is the deepest grey depth wanted. `known_modality` (xray, ct) is what the metadata says and overrules the header.
    Raises ImageError with the reason when the file holds no picture of that kind.
    """
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, force=True)
            header = _header(dataset, known_modality)
            for number, values in enumerate(_frames(dataset)):
                yield _picture(dataset, values, number, header, lung_center, lung_width, bits, xray_window)
        except ImageError:
            raise
        except Exception as error:  # a damaged file fails anywhere inside pydicom or a decoder, with any exception
            raise ImageError(f"damaged or unsupported DICOM ({type(error).__name__})") from None


def header_only(path: Path) -> Header:
    """The usable columns of a DICOM header, without its pixels. Raises ImageError."""
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _columns(pydicom.dcmread(path, force=True, stop_before_pixels=True))
        except Exception as error:
            raise ImageError(f"damaged or unsupported DICOM ({type(error).__name__})") from None


def _columns(dataset) -> Header:
    view = str(dataset.get("ViewPosition") or "").upper()
    position = dataset.get("ImagePositionPatient")
    modality = str(dataset.get("Modality") or "").upper()
    return Header(
        modality="ct" if modality == "CT" else "xray" if modality in XRAY_MODALITIES else modality,
        view={"LATERAL": "LL", "RL": "LL", "LAT": "LL"}.get(view, view),
        patient_id=str(dataset.get("PatientID") or ""),
        sex=str(dataset.get("PatientSex") or ""),
        age=str(dataset.get("PatientAge") or ""),
        series=str(dataset.get("SeriesInstanceUID") or ""),
        position=float(position[2]) if position and len(position) == 3 else None,
    )


def _header(dataset, known_modality: str) -> Header:
    header = _columns(dataset)
    if "PixelData" not in dataset and "FloatPixelData" not in dataset and "DoubleFloatPixelData" not in dataset:
        raise ImageError("DICOM without pixel data" if "SOPClassUID" in dataset or "PatientID" in dataset else "not an image")
    if known_modality:
        header.modality = known_modality
    elif header.modality not in ("xray", "ct"):
        raise ImageError(
            f"DICOM modality {re.sub('[^A-Z]', '', header.modality)[:6] or 'missing'} is neither X-ray nor CT; a metadata table can say what it is"
        )
    elif (part := str(dataset.get("BodyPartExamined") or "")) and not CHEST.search(part):
        raise ImageError("DICOM of another body part than the chest")
    if "LOCALIZER" in [str(value).upper() for value in dataset.get("ImageType") or []]:
        raise ImageError("CT localizer, not a slice")
    if header.modality == "ct":
        header.view = "axial"
    if int(dataset.Rows) * int(dataset.Columns) > MOST_PIXELS:
        raise ImageError("DICOM header asks for an impossible number of pixels")
    return header


def _frames(dataset) -> Iterator[np.ndarray]:
    """Frames as stored values, shape (H, W) or (H, W, 3), colour already RGB."""
    from pydicom.pixels import apply_color_lut, iter_pixels
    from pydicom.uid import JPEGExtended12Bit

    if "PhotometricInterpretation" not in dataset:
        dataset.PhotometricInterpretation = "MONOCHROME2"
    if not getattr(dataset.file_meta, "TransferSyntaxUID", None):
        dataset.file_meta.TransferSyntaxUID = _guessed_syntax(dataset)
    if dataset.file_meta.TransferSyntaxUID == JPEGExtended12Bit and int(dataset.get("BitsStored") or 8) != 8:
        frames = _jpeg_of_12_bits(dataset)
    elif int(dataset.get("NumberOfFrames") or 1) == 1:
        frames = [dataset.pixel_array]
    else:
        frames = iter_pixels(dataset)
    for frame in frames:
        yield apply_color_lut(frame, dataset) if dataset.PhotometricInterpretation == "PALETTE COLOR" else frame


def _jpeg_of_12_bits(dataset) -> np.ndarray:
    """All frames of 12-bit JPEG Extended, shape (frames, H, W): GDCM decodes it, but pydicom's plugin does not ask it to."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(dataset.filename))
    if not reader.Read():
        raise ImageError("damaged or unsupported DICOM (12-bit JPEG)")
    image = reader.GetImage()
    stored = np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), dtype="<i2" if dataset.PixelRepresentation else "<u2")
    return stored.reshape(-1, int(dataset.Rows), int(dataset.Columns))


def _guessed_syntax(dataset) -> str:
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if dataset.original_encoding[0]:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if dataset.original_encoding[1] else ExplicitVRBigEndian


def _picture(dataset, values, number, header, lung_center, lung_width, bits, xray_window) -> Picture:
    if values.ndim == 3:
        values = luminance(values)
    stored_bits = int(dataset.get("BitsStored") or values.dtype.itemsize * 8)
    picture = Picture(None, bits, kind=_kind(dataset), frame=number, header=header, original_bits=stored_bits)
    if header.modality == "ct":
        picture.hounsfield = rescaled(dataset, values).astype(np.float32)
        if picture.hounsfield.min() > -200:
            raise ImageError("CT without air: its values are not in Hounsfield units")
        picture.window = f"{lung_center:g}/{lung_width:g}"
        picture.pixels, picture.clipped = window(picture.hounsfield, lung_center, lung_width, bits)
        return picture
    picture.pixels, picture.bits, picture.window, picture.clipped = grey(dataset, values, bits, xray_window)
    return picture


def _kind(dataset) -> str:
    name = dataset.file_meta.TransferSyntaxUID.name
    return "DICOM, " + re.sub(r" \(.*|, (?:Hierarchical|Non-Hierarchical).*| Image Compression", "", name)


def rescaled(dataset, values: np.ndarray) -> np.ndarray:
    """Modality values: the modality LUT or slope and intercept (PS3.3 C.11.1), Hounsfield units for CT."""
    from pydicom.pixels import apply_modality_lut

    slope, intercept = float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)
    if dataset.get("ModalityLUTSequence") or values.dtype.itemsize > 2:
        return apply_modality_lut(values, dataset)
    if slope == 1 and intercept == int(intercept):
        return values.astype(np.int32) + int(intercept)  # whole numbers stay whole, so that their depth is known
    return values.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def grey(dataset, values: np.ndarray, bits: int, xray_window: str = "file") -> tuple[np.ndarray, int, str, float]:
    """One X-ray frame as grey values, white dense, whatever MONOCHROME it is: (pixels, bits, window used, share clipped).

    `xray_window` 'file' takes the file's first VOI LUT or window; 'full', or a file without one, or one whose window
    shows nothing, takes the range from the darkest to the brightest value, clipping nothing.
    """
    from pydicom.pixels import apply_voi

    modality_values = rescaled(dataset, values)
    depth = min(bits, max(int(dataset.get("BitsStored") or 16), 8))
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    used, clipped = "full range", 0.0
    pixels = None
    if xray_window == "file" and dataset.get("VOILUTSequence"):
        shown = apply_voi(modality_values.astype(np.int64 if modality_values.dtype.kind == "f" else modality_values.dtype), dataset)
        table_bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        depth, used = min(bits, table_bits), "VOI LUT"
        pixels = reduced(shown, table_bits, depth)
    elif xray_window == "file" and (wanted := stored_window(dataset)):
        pixels, clipped = window(modality_values, *wanted[:2], depth, wanted[2])
        used = f"{wanted[0]:g}/{wanted[1]:g}"
    if pixels is None or pixels.min() == pixels.max():
        pixels, depth = full_range(modality_values, bits)
        used, clipped = "full range", 0.0
    if inverted:
        pixels = (2**depth - 1 - pixels.astype(np.int32)).astype(pixels.dtype)
    return pixels, depth, used, clipped


def stored_window(dataset) -> tuple[float, float, str] | None:
    """The file's first window that can be used: (center, width, function)."""
    from pydicom.multival import MultiValue

    centers, widths = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if centers is None or widths is None or centers == "" or widths == "":
        return None
    center = float(centers[0] if isinstance(centers, MultiValue) else centers)
    width = float(widths[0] if isinstance(widths, MultiValue) else widths)
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    return (center, width, function) if width >= (1 if function == "LINEAR" else 1e-6) and np.isfinite([center, width]).all() else None


def full_range(values: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """Values spread over a depth just large enough to keep every step apart (8 to `bits`): (pixels, depth).

    Whole numbers that fill 8 bits come back as they are.
    """
    low, high = float(values.min()), float(values.max())
    if low >= 0 and 127 < high <= 255 and values.dtype.kind in "iu":
        return values.astype(np.uint8), 8
    depth = min(bits, max(8, int(np.ceil(np.log2(max(high - low, 1) + 1))))) if values.dtype.kind in "iu" else bits
    span = max(high - low, 1e-12)
    pixels = np.floor((values.astype(np.float64) - low) * ((2**depth - 1) / span) + 0.5)
    return pixels.astype(np.uint8 if depth <= 8 else np.uint16), depth


def reduced(values: np.ndarray, bits: int, depth: int) -> np.ndarray:
    """Values of 0..2**bits-1 rounded to a smaller depth."""
    scaled = np.floor(values.astype(np.float64) * ((2**depth - 1) / (2**bits - 1)) + 0.5) if depth < bits else values
    return np.asarray(scaled).astype(np.uint8 if depth <= 8 else np.uint16)
