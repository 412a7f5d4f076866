"""One file of the folder: read, standardised and stored, or the reason why not."""

import base64
import errno
import functools
import hashlib
import pickle
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from helpers import burned_in_text, images
from helpers.formats import volumes
from helpers.formats.picture import ImageError, Picture
from helpers.prepare_cases import deidentify, duplicates

# The only endings that may be shown: an ending such as that of scan.smith can be a person's name.
ENDING = re.compile(
    r"\.(csv|tsv|txt|md|json|xml|xlsx|pdf|html|zip|gz|npy"
    r"|dcm|png|jpg|jpeg|tif|tiff|webp|bmp|gif|nii)$",
    re.IGNORECASE,
)


@dataclass
class ImportedFile:
    """The result of one file: its images, or the reason why it has none."""

    file: str
    kind: str = ""
    reason: str = ""
    pictures: list[dict] = field(default_factory=list)


def take_files(job: Path, numbers: list[int]) -> list[ImportedFile]:
    """The files of a job (see importing.take) that stand at these places in its list."""
    known, *common = _read(job, job.stat().st_mtime_ns)
    return [take_file(known[number], *common) for number in numbers]


def crashed(job: Path, number: int) -> ImportedFile:
    """The result for a file that killed its worker."""
    file = _read(job, job.stat().st_mtime_ns)[0][number]["file"]
    return ImportedFile(file, reason="damaged: the decoder crashed on it")


@functools.lru_cache(maxsize=1)
def _read(job: Path, written: int) -> tuple:
    return pickle.loads(job.read_bytes())


def take_file(
    row: dict, folder: Path, target: Path, settings, secret: bytes, decisions: dict[str, str]
) -> ImportedFile:
    """One file (keys file, modality, sha256, skip): its images stored in `target`, or the reason
    why there are none.

    `settings` has the parameters of stage 01, `decisions` a person's decisions on images with text
    (image id -> mask, reject or keep).
    """
    ending = ENDING.search(row["file"])
    taken = ImportedFile(row["file"], ending[1].lower() if ending else "", row.get("skip", ""))
    if taken.reason:
        return taken
    reasons = []
    try:
        path = _readable(folder / row["file"], row.get("sha256", ""))
        for picture in images.read(path, settings, row.get("modality", "")):
            taken.kind = picture.kind
            try:
                taken.pictures.append(_store(picture, row, target, settings, secret, decisions))
            except ImageError as error:
                reasons.append(str(error))
    except ImageError as error:
        reasons = [str(error)]
        for picture in taken.pictures:
            (target.parent / picture["path"]).unlink(missing_ok=True)
        taken.pictures = []
    except OSError as error:
        if error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
        ):  # the error is about the target, not about this file
            raise
        reasons = [f"cannot be read ({error.strerror})"]
    if not taken.pictures:
        taken.reason = reasons[0] if reasons else "holds no image"
    return taken


def _readable(path: Path, sha256: str) -> Path:
    if path.is_dir():
        raise ImageError("link to a folder, not followed")
    if not path.is_file():  # reading a pipe would wait forever
        raise ImageError("cannot be read (a broken link, or not a regular file)")
    if sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != sha256.lower():
        raise ImageError("is not the file in the metadata: its SHA-256 differs")
    return path


def _store(
    picture: Picture,
    row: dict,
    target: Path,
    settings,
    secret: bytes,
    decisions: dict[str, str],
) -> dict:
    modality = row.get("modality") or picture.header.modality
    modality = modality or ("ct" if picture.hounsfield is not None else settings.default_modality)
    lung = volumes.lung_share(picture.hounsfield) if picture.hounsfield is not None else None
    if lung is not None and lung < settings.min_lung_share:
        raise ImageError(
            "CT slice that shows little lung (less than"
            f" {100 * settings.min_lung_share:.0f} % of the body)"
        )
    _refuse(picture, modality, settings.min_pixels)
    image_id = deidentify.pseudonym(secret, "picture", f"{row['file']}#{picture.frame}", 12)
    policy = decisions.get(image_id, settings.burned_in_text)
    shown, masked, crops = _without_text(picture, policy)
    pixels = images.fitted(shown, settings.size, picture.bits)
    content = images.write_png(pixels)
    partial = target / f"{image_id}.part"
    partial.write_bytes(content)
    partial.replace(target / f"{image_id}.png")
    height, width = picture.pixels.shape
    return {
        "image_id": image_id,
        "path": f"{target.name}/{image_id}.png",
        "sha256": hashlib.sha256(content).hexdigest(),
        "modality": modality,
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "bits": picture.bits,
        "frame": picture.frame,
        "kind": picture.kind,
        "original_width": width,
        "original_height": height,
        "original_bits": picture.original_bits,
        "window": picture.window,
        "clipped": round(picture.clipped, 5),
        "mean_grey": round(float(pixels.mean()) / (2**picture.bits - 1), 5),
        "lung_share": None if lung is None else round(lung, 4),
        "phash": f"{duplicates.perceptual_hash(pixels):016x}",
        "fingerprint": duplicates.fingerprint(pixels),
        "masked": round(masked, 5),
        "inverted": modality == "xray" and looks_inverted(pixels),
        "crops": crops,
        "doubt": picture.doubt or ("" if picture.hounsfield is not None else "no header"),
        "header": asdict(picture.header),
    }


def looks_inverted(pixels: np.ndarray) -> bool:
    """Whether the middle and the bottom of a chest X-ray are darker than its lungs: about 1 in 160
    real X-rays is, mostly laterals.
    """
    ranks = duplicates.ranks(pixels, 16)
    lungs = ranks[4:11, 3:6].mean() + ranks[4:11, 10:13].mean()
    return bool(ranks[4:12, 7:9].mean() + ranks[13:15, 3:13].mean() - lungs < -0.5)


def _refuse(picture: Picture, modality: str, min_pixels: int) -> None:
    height, width = picture.pixels.shape
    if modality not in ("xray", "ct"):
        raise ImageError(
            "neither the file nor a metadata table says whether it is an X-ray or CT: set"
            " default_modality"
        )
    if min(height, width) < min_pixels:
        raise ImageError(f"smaller than {min_pixels} pixels ({width} x {height})")
    if np.isin(picture.pixels, (picture.pixels.min(), picture.pixels.max())).all():
        raise ImageError("at most two grey values: empty, or a mask")


def _without_text(picture: Picture, policy: str) -> tuple[np.ndarray, float, list[str]]:
    """The image as the policy on burned-in text wants it, the share masked, and crops (PNG, base64)
    for a person to look at.
    """
    boxes = burned_in_text.find(picture.pixels, picture.bits) if policy != "keep" else []
    if boxes and policy == "reject":
        raise ImageError("text in the pixels")
    if policy == "review":
        crops = [burned_in_text.crop(picture.pixels, picture.bits, corners) for corners in boxes]
        encoded = [base64.b64encode(images.write_png(np.asarray(crop))).decode() for crop in crops]
        return picture.pixels, 0.0, encoded
    return *burned_in_text.mask(picture.pixels, boxes), []
