"""What the study may read from a DICOM header, and whether it describes a chest image at all.

Only the fields of `picture.Header` are ever returned; identifying columns never leave the import
unhashed.
"""

import re

import numpy as np
from pydicom.dataset import Dataset

from helpers.formats.picture import Header, ImageError

XRAY_MODALITIES = ("CR", "DX", "RG", "RF", "DR")
# "other" and words that converters write; they do not say what the image shows.
UNSAID_MODALITIES = (
    "",
    "OT",
    "SC",
)
CHEST = re.compile(
    r"CHEST|THORA|TORA[CX]|TÓRAX|POITRINE|LUNG|RIB|TORSO|HEART|CARDIA|STERN|CLAVIC|TAP|CAP|WHOLE"
    r" ?BODY|TRUNK|PULMO",
    re.IGNORECASE,
)
UNSAID_PARTS = re.compile(r"(UNKNOWN|UNDEFINED|UNSPECIFIED|OTHER|NONE|N/?A|-+)?", re.IGNORECASE)
MOST_PIXELS = 200_000_000  # of one frame; a higher number means a damaged header
FOR_PROCESSING = (
    "1.2.840.10008.5.1.4.1.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.1.3.1",
)
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
ITEM = b"\xfe\xff\x00\xe0"  # with which encapsulated pixel data begins
# Where enhanced multi-frame objects store what single frames have at the top level (PS3.3 C.7.6.16
# and C.8.15).
FUNCTIONAL_GROUPS = (
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "CTImageFrameTypeSequence",
)


def numbers(dataset, name: str) -> list[float | None]:
    """The values of a tag of decimal numbers, a comma read as a point; None for other values."""
    element = dataset.get_item(name)
    value = element.value if element else None
    if isinstance(value, bytes):  # raw value: pydicom refuses the whole tag for one odd value
        value = value.decode("latin-1").strip("\0 ").split("\\")
    elif value is None or isinstance(value, str | int | float):
        value = [] if value is None else [value]
    return [_number(str(one)) for one in value] if any(str(one).strip() for one in value) else []


def _number(text: str) -> float | None:
    try:
        number = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def factor(dataset, name: str, default: float) -> float:
    """RescaleSlope or RescaleIntercept. Raises ImageError naming the tag that cannot be read."""
    values = numbers(dataset, name)
    if values and values[0] is None:
        raise ImageError(f"{name} in the DICOM header is not a number")
    return values[0] if values else default


def complete(dataset) -> None:
    """Set tags that decoding needs to what the rest of the header implies, if they are missing,
    empty or malformed. Raises ImageError if the header counts fewer pixels than are there.
    """
    photometric = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
    photometric = re.sub(r"^(?:MONOCHROM|GR[AE]Y).*?([12]?)$", r"MONOCHROME\1", photometric)
    photometric += "2" if photometric == "MONOCHROME" else ""
    frames = int(dataset.get("NumberOfFrames") or 0)
    places = int(dataset.Rows) * int(dataset.Columns) * max(frames, 1)
    given = {
        name: int(dataset.get(name) or 0)
        for name in ("SamplesPerPixel", "BitsAllocated", "BitsStored")
    }
    samples = given["SamplesPerPixel"] or (3 if photometric.startswith(("RGB", "YBR")) else 1)
    content = dataset.get("PixelData") or b""
    each = 8 * len(content) / max(places * samples, 1)  # bits, if native
    allocated = given["BitsAllocated"] or (8 if each < 16 else 16 if each < 32 else 32)
    if not given["SamplesPerPixel"] and not photometric and each >= 3 * allocated:
        samples, each = 3, each / 3
    high = dataset.get("HighBit")
    stored = given["BitsStored"] or (allocated if high in (None, "") else int(high) + 1)
    dataset.SamplesPerPixel, dataset.BitsAllocated = samples, allocated
    dataset.BitsStored = min(stored, allocated)
    if high in (None, ""):
        dataset.HighBit = dataset.BitsStored - 1
    dataset.PhotometricInterpretation = photometric or ("RGB" if samples == 3 else "MONOCHROME2")
    if samples == 3 and dataset.get("PlanarConfiguration") in (None, ""):
        dataset.PlanarConfiguration = 0
    there = 1 if content.startswith(ITEM) else max(int(each / allocated), 1)
    # Up to a hundredth may fill up a block.
    if not content.startswith(ITEM) and each > 1.01 * allocated * (1 if frames else there):
        raise ImageError("damaged DICOM: more pixels than its header says, so part would be lost")
    dataset.NumberOfFrames = frames or there


def directions(frame, modality: str) -> list[str]:
    """Where the rows and the columns of an image point to in the patient, as letters of
    L, R, A, P, H, F; empty when the header does not say.
    """
    plane = numbers(frame, "ImageOrientationPatient")
    if modality == "ct" and len(plane) == 6 and None not in plane:
        vectors = np.array(plane).reshape(2, 3)
        if np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=0.1):
            axes = np.abs(vectors).argmax(axis=1)
            return [
                "RAF"[axis] if vector[axis] < 0 else "LPH"[axis]
                for axis, vector in zip(axes, vectors)
            ]
    said = [str(value).strip().upper()[:1] for value in frame.get("PatientOrientation") or []]
    return said if len(said) == 2 and all(said) else []


def aspect(frame) -> float:
    """Height of a pixel over its width; 1 when the header does not say."""
    for name in (
        "PixelSpacing",
        "ImagerPixelSpacing",
        "NominalScannedPixelSpacing",
        "PixelAspectRatio",
    ):
        values = numbers(frame, name)
        if len(values) == 2 and None not in values and min(values) > 0:
            return values[0] / values[1]
    return 1.0


def columns(dataset) -> Header:
    """The usable columns of a pydicom dataset."""
    modality = str(dataset.get("Modality") or "").strip().upper()
    views = [item.get("CodeMeaning") or "" for item in dataset.get("ViewCodeSequence") or []]
    return Header(
        modality="ct" if modality == "CT" else "xray" if modality in XRAY_MODALITIES else modality,
        view=str(dataset.get("ViewPosition") or " ".join(map(str, views))),
        patient_id=str(dataset.get("PatientID") or ""),
        sex=str(dataset.get("PatientSex") or ""),
        age=str(dataset.get("PatientAge") or ""),
        study=str(dataset.get("StudyInstanceUID") or ""),
        series=str(dataset.get("SeriesInstanceUID") or ""),
    )


def of_chest(dataset, known_modality: str = "", default_modality: str = "") -> Header:
    """The header of a chest image. Raises ImageError with the reason when it is not one.

    `known_modality` comes from a metadata table and overrules the header; `default_modality` is
    used if neither states it.
    """
    header = columns(dataset)
    if not any(name in dataset for name in PIXELS):
        raise ImageError(
            "DICOM without pixel data" if len(dataset) else "damaged DICOM: cut off before its end"
        )
    if known_modality:
        header.modality = known_modality
    elif default_modality and header.modality in UNSAID_MODALITIES:
        header.modality = default_modality
    if not header.modality:
        raise ImageError(
            "DICOM without a modality; default_modality or a metadata table can state it"
        )
    if header.modality not in ("xray", "ct"):
        raise ImageError(
            f"DICOM modality {re.sub('[^A-Z]', '', header.modality)[:6]} is neither X-ray nor CT; a"
            " metadata table can state another"
        )
    if not known_modality and not (
        UNSAID_PARTS.fullmatch(part := str(dataset.get("BodyPartExamined") or "").strip())
        or CHEST.search(part)
    ):
        raise ImageError("DICOM of another body part than the chest")
    intent = str(dataset.get("PresentationIntentType") or "")
    if intent == "FOR PROCESSING" or (
        not intent and str(dataset.get("SOPClassUID") or "") in FOR_PROCESSING
    ):
        raise ImageError("raw detector data (FOR PROCESSING), not the image that radiologists see")
    if header.modality == "ct" and int(dataset.get("SamplesPerPixel") or 1) > 1:
        raise ImageError("CT in colour: a screen capture, not a slice")
    if int(dataset.Rows) * int(dataset.Columns) > MOST_PIXELS:
        raise ImageError("DICOM header asks for an impossible number of pixels")
    return header


def of_frame(dataset, number: int):
    """The dataset as it applies to one frame: itself, or with the values of the frame's functional
    groups.
    """
    shared, per_frame = (
        dataset.get(f"{name}FunctionalGroupsSequence") or [] for name in ("Shared", "PerFrame")
    )
    groups = [*shared, *per_frame[number : number + 1]]
    if not groups:
        return dataset
    frame = Dataset()
    tags = [tag for tag in dataset.keys() if tag.group < 0x7FE0]  # noqa: SIM118
    # All but the pixels, as stored, because pydicom refuses to convert an odd value.
    frame.update({tag: dataset.get_item(tag) for tag in tags})
    for group in groups:
        for name in FUNCTIONAL_GROUPS:
            for item in group.get(name) or []:
                frame.update(dict(item.items()))
    return frame


def slice_position(frame) -> float | None:
    """Where a CT slice lies along the body, mm.

    Raises ImageError for a localizer or a reformat that is not axial.
    """
    kinds = [
        str(value).upper() for name in ("ImageType", "FrameType") for value in frame.get(name) or []
    ]
    if "LOCALIZER" in kinds:
        raise ImageError("CT localizer, not a slice")
    plane, position = (
        numbers(frame, name) for name in ("ImageOrientationPatient", "ImagePositionPatient")
    )
    known = len(plane) == 6 and None not in plane and any(plane)
    if (
        known and abs(np.cross(plane[:3], plane[3:])[2]) < 0.8
    ):  # a tilted gantry gives at least 0.87
        raise ImageError("CT reformat that is not axial")
    return position[2] if len(position) == 3 else None
