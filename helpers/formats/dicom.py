"""DICOM files as grey images with their depth: decode, rescale, window, photometric interpretation.

What may be read from a header is in dicom_header.py.
"""

import io
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, iter_pixels, pixel_array
from pydicom.pixels.utils import get_j2k_parameters
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
)

from helpers.formats import dicom_header
from helpers.formats.picture import ImageError, Picture
from helpers.formats.windowing import full_range, luminance, reduced, window

AIR_HU = -1000
JPEG_2000 = "1.2.840.10008.1.2.4.9"  # as these transfer syntaxes begin
NATIVE = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5",
)
# A window does not fit the values when more than this share of pixels is black or white, or when
# the pixels take up less than this share of the grey range.
USELESS_CLIPPED, USELESS_RANGE = 0.9, 0.1


def looks_like(start: bytes) -> bool:
    """Whether a file's first bytes are DICOM's: the marker with or without its preamble, or a first
    group 0002 or 0008 without either.
    """
    first_group, first_element = start[:2], start[2:4]
    little = first_group in (b"\x02\x00", b"\x08\x00") and first_element[1:] == b"\x00"
    big = first_group == b"\x00\x08" and first_element[:1] == b"\x00"
    return start[128:132] == b"DICM" or start[:4] == b"DICM" or little or big


def read(path: Path, settings, known_modality: str = "") -> Iterator[Picture]:
    """Every frame of a DICOM file as an image: CT in the lung window (Hounsfield units), X-rays as
    `xray_window` says.

    `settings` has the parameters of stage 01. `known_modality` (xray, ct) comes from the metadata
    and overrules the header; `settings.default_modality` is used if neither states it. Raises
    ImageError with the reason when the file holds no image of that kind.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = _dataset(path)
        header = dicom_header.of_chest(dataset, known_modality, settings.default_modality)
        dicom_header.complete(dataset)
        for number, values in enumerate(_frames(dataset)):
            frame = dicom_header.of_frame(dataset, number)
            place = dicom_header.slice_position(frame) if header.modality == "ct" else None
            picture = Picture(
                None, settings.bits, _kind(dataset), number, replace(header, position=place)
            )
            yield _upright(_drawn(picture, frame, values, settings), frame)


def _dataset(path: Path):
    with Path(path).open("rb") as file:
        preamble_is_missing = file.read(4) == b"DICM"
    return pydicom.dcmread(
        io.BytesIO(Path(path).read_bytes()[4:]) if preamble_is_missing else path, force=True
    )


def _frames(dataset) -> Iterator[np.ndarray]:
    """Frames as stored values, shape (H, W) or (H, W, 3), colour already RGB."""
    if not getattr(dataset.file_meta, "TransferSyntaxUID", None):
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    if (
        dataset.file_meta.TransferSyntaxUID == JPEGExtended12Bit
        and int(dataset.get("BitsStored") or 8) != 8
    ):
        frames = _jpeg_of_12_bits(dataset)
    else:
        _correct_sign(dataset)
        frames = _in_low_bits(dataset)
    for frame in frames:
        yield (
            apply_color_lut(frame, dataset)
            if dataset.PhotometricInterpretation == "PALETTE COLOR"
            else frame
        )


def _in_low_bits(dataset) -> Iterator[np.ndarray]:
    """Frames whose values lie in the low bits. Old files may have another High Bit, and some
    headers state the wrong number of bits.
    """
    stored, allocated = int(dataset.BitsStored), int(dataset.BitsAllocated)
    high = min(int(dataset.HighBit), allocated - 1)
    native = dataset.file_meta.TransferSyntaxUID in NATIVE and "PixelData" in dataset
    if not native or allocated == stored or allocated not in (8, 16, 32):
        yield from _decoded(dataset)
        return
    dataset.BitsStored = allocated
    for whole in list(_decoded(dataset)):
        above = allocated - max(high + 1, stored)
        low = (whole << above) >> above
        if _jumps(whole) < _jumps(low):  # more bits are used than the header says
            dataset.BitsStored = int(np.abs(whole.astype(np.int64)).max()).bit_length()
            yield whole
            continue
        dataset.BitsStored = stored
        yield low >> (high + 1 - stored) if high >= stored and low.max() >= 2**stored else low


def _jumps(values: np.ndarray) -> int:
    """How much neighbouring pixels differ; this is largest where values wrap."""
    return int(np.abs(np.diff(values.astype(np.int64), axis=1)).sum())


def _decoded(dataset) -> Iterable[np.ndarray]:
    return (
        [dataset.pixel_array]
        if int(dataset.get("NumberOfFrames") or 1) == 1
        else iter_pixels(dataset)
    )


def _correct_sign(dataset) -> None:
    """If the header does not state the sign, or JPEG 2000 data contradicts it, choose the sign that
    gives the smoother image: with the wrong sign, values jump where they wrap.
    """
    sign = dataset.get("PixelRepresentation")
    if sign not in (None, ""):
        if not dataset.file_meta.TransferSyntaxUID.startswith(JPEG_2000):
            return
        frames = int(dataset.get("NumberOfFrames") or 1)
        data = next(generate_frames(dataset.PixelData, number_of_frames=frames))
        if get_j2k_parameters(data).get("is_signed") in (None, bool(sign)):
            return
    jumps = {}
    for tried in (int(sign or 0), 1 - int(sign or 0)):
        dataset.PixelRepresentation = tried
        jumps[tried] = _jumps(pixel_array(dataset, index=0))
    dataset.PixelRepresentation = min(jumps, key=jumps.__getitem__)


def _jpeg_of_12_bits(dataset) -> np.ndarray:
    """All frames of 12-bit JPEG Extended, shape (frames, H, W):

    GDCM decodes it, but pydicom's plugin does not ask it to.
    """
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(dataset.filename))
    if not reader.Read():
        raise ImageError("damaged or unsupported DICOM (12-bit JPEG)")
    image = reader.GetImage()
    stored = np.frombuffer(
        image.GetBuffer().encode("utf-8", "surrogateescape"),
        dtype="<i2" if dataset.PixelRepresentation else "<u2",
    )
    return stored.reshape(-1, int(dataset.Rows), int(dataset.Columns))


def _drawn(picture: Picture, frame, values: np.ndarray, settings) -> Picture:
    picture.original_bits = int(frame.get("BitsStored") or values.dtype.itemsize * 8)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError("grey values are not finite numbers")
    if values.ndim == 3:
        depth = values.dtype.itemsize * 8
        picture.bits = min(depth, picture.bits)
        picture.pixels = reduced(luminance(values), depth, picture.bits)
        picture.window = "as stored"
    elif picture.header.modality == "ct":
        picture.hounsfield = hounsfield(frame, values)
        picture.window = f"{settings.lung_center:g}/{settings.lung_width:g}"
        picture.pixels, picture.clipped = window(
            picture.hounsfield, settings.lung_center, settings.lung_width, picture.bits
        )
    else:
        picture.pixels, picture.bits, picture.window, picture.clipped = grey(
            frame, values, picture.bits, settings.xray_window
        )
    return picture


def _upright(picture: Picture, frame) -> Picture:
    """The image as radiologists view it: the patient's right on the left, and the front (CT) or the
    head (X-ray) at the top.
    """
    modality = picture.header.modality
    down, up = ("P", "A") if modality == "ct" else ("F", "H")
    says = dicom_header.directions(frame, modality)
    picture.aspect = dicom_header.aspect(frame)
    if says and says[0] in (down, up):
        picture.pixels = np.swapaxes(picture.pixels, 0, 1)
        picture.aspect = 1 / picture.aspect
        says = says[::-1]
    if says and says[0] == "R":
        picture.pixels = picture.pixels[:, ::-1]
    if says and says[1] == up:
        picture.pixels = picture.pixels[::-1]
    if modality == "ct" and not (says and says[0] in "LR" and says[1] in (down, up)):
        picture.doubt = "DICOM without orientation"
    picture.pixels = np.ascontiguousarray(picture.pixels)
    return picture


def hounsfield(dataset, values: np.ndarray) -> np.ndarray:
    """A CT frame in Hounsfield units, float32; padding outside the field of view becomes air.

    Raises ImageError for other values.
    """
    units, outside = rescaled(dataset, values).astype(np.float32), padding(dataset, values)
    if units[~outside].min() > -200:
        raise ImageError("CT without air: its values are not in Hounsfield units")
    units[outside] = AIR_HU
    return units


def padding(dataset, values: np.ndarray) -> np.ndarray:
    """Mask of the stored values that only fill the frame and are not measurements (PS3.3
    C.7.5.1.1.2): boolean, shape as `values`.
    """
    first = dataset.get("PixelPaddingValue")
    if not isinstance(first, int) or values.dtype.kind not in "iu":
        return np.zeros(values.shape, dtype=bool)
    last = dataset.get("PixelPaddingRangeLimit", first)
    low, high = sorted(int(np.int64(value).astype(values.dtype)) for value in (first, last))
    outside = (values >= low) & (values <= high)
    return outside if not outside.all() else np.zeros(values.shape, dtype=bool)


def _kind(dataset) -> str:
    name = dataset.file_meta.TransferSyntaxUID.name
    if name[:1].isdigit():
        return "DICOM, private transfer syntax"
    return "DICOM, " + re.sub(
        r" \(.*|, (?:Hierarchical|Non-Hierarchical).*| Image Compression", "", name
    )


def rescaled(dataset, values: np.ndarray) -> np.ndarray:
    """Modality values: the modality LUT or slope and intercept (PS3.3 C.11.1), Hounsfield units for
    CT.
    """
    if dataset.get("ModalityLUTSequence"):
        return apply_modality_lut(values, dataset)
    slope = dicom_header.factor(dataset, "RescaleSlope", 1.0)
    intercept = dicom_header.factor(dataset, "RescaleIntercept", 0.0)
    if values.dtype.itemsize > 2:
        return values.astype(np.float64) * slope + intercept
    if slope == 1 and intercept == int(intercept):
        return values.astype(np.int32) + int(intercept)  # whole numbers keep their depth
    return values.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def grey(
    dataset, values: np.ndarray, bits: int, xray_window: str
) -> tuple[np.ndarray, int, str, float]:
    """One X-ray frame as grey values, white dense, whatever MONOCHROME it is: (pixels, bits, window
    used, share clipped).

    `xray_window` 'file' takes the file's first VOI LUT or window. With 'full', or where neither
    shows much, the range from the darkest to the brightest value is taken and nothing is clipped.
    Padding is black.
    """
    modality_values, outside = rescaled(dataset, values), padding(dataset, values)
    if outside.any():
        modality_values = np.where(outside, modality_values[~outside].min(), modality_values)
    depth = min(bits, max(int(dataset.get("BitsStored") or 16), 8))
    pixels, used, clipped = None, "full range", 0.0
    if xray_window == "file" and dataset.get("VOILUTSequence"):
        with suppress(Exception):  # pydicom fails in many ways on a table that is no table
            pixels, depth = _looked_up(dataset, modality_values, bits)
            used = "VOI LUT"
    if xray_window == "file" and pixels is None and (wanted := stored_window(dataset)):
        pixels, clipped = window(modality_values, *wanted[:2], depth, wanted[2])
        used = f"{wanted[0]:g}/{wanted[1]:g}"
    if pixels is None or _shows_little(pixels, 2**depth - 1):
        pixels, depth = full_range(modality_values, bits)
        used, clipped = "full range", 0.0
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    if dataset.PhotometricInterpretation == "MONOCHROME1" or shape == "INVERSE":
        pixels = (2**depth - 1 - pixels.astype(np.int32)).astype(pixels.dtype)
    pixels[outside] = 0
    return pixels, depth, used, clipped


def _shows_little(pixels: np.ndarray, white: int) -> bool:
    clipped = np.isin(pixels, (0, white)).mean()
    return clipped > USELESS_CLIPPED or np.ptp(pixels) < USELESS_RANGE * white


def _looked_up(dataset, modality_values: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """Values through the file's first VOI LUT (PS3.3 C.11.2.1.1), and their depth."""
    shown = apply_voi(
        modality_values.astype(
            np.int64 if modality_values.dtype.kind == "f" else modality_values.dtype
        ),
        dataset,
    )
    table_bits = max(int(dataset.VOILUTSequence[0].LUTDescriptor[2]), int(shown.max()).bit_length())
    return reduced(shown, table_bits, min(bits, table_bits)), min(bits, table_bits)


def stored_window(dataset) -> tuple[float, float, str] | None:
    """The file's first window that can be used: (center, width, function)."""
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    centers, widths = (
        dicom_header.numbers(dataset, f"Window{name}") for name in ("Center", "Width")
    )
    for center, width in zip(centers, widths):
        if None not in (center, width) and width > (1 if function == "LINEAR" else 1e-6):
            return center, width, function
    return None
