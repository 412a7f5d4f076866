"""NIfTI volumes and the lung in CT slices: which slices show it, and how much of it."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from helpers.formats.picture import ImageError, Picture
from helpers.formats.windowing import window

TISSUE_HU = (
    -400
)  # between lung (about -850) and soft tissue (about 50), as in the usual lung thresholding
NO_AFFINE = "NIfTI without affine"
LUNG_HU = (-970, -500)  # gas in bowel and airways is darker, fat and soft tissue brighter


def looks_like(start: bytes) -> bool:
    """Whether a file's first bytes are NIfTI-1 or NIfTI-2, plain or gzipped."""
    if start[:2] == b"\x1f\x8b":
        try:
            start = zlib.decompressobj(31).decompress(start, 400)
        except zlib.error:
            return False
    return start[344:347] in (b"n+1", b"ni1") or start[4:7] in (b"n+2", b"ni2")


def read(path: Path, settings) -> Iterator[Picture]:
    """Axial slices of a NIfTI chest CT that show lung, at most `settings.slices`, evenly spaced
    from apex to base.

    They are oriented as radiologists view them: the patient's right on the left, the front at the
    top. `settings` has the parameters of stage 01. Raises ImageError.
    """
    volume, aspect, doubt = axial(path)
    if volume.min() > -500:
        raise ImageError("NIfTI volume whose values are not Hounsfield units")
    shares = np.array([lung_share(volume[k]) for k in range(len(volume))])
    chosen = spaced(shares, settings.slices, settings.min_lung_share)
    if not chosen:
        raise ImageError("NIfTI volume that shows little lung in every slice")
    for number, k in enumerate(chosen):
        pixels, clipped = window(
            volume[k], settings.lung_center, settings.lung_width, settings.bits
        )
        yield Picture(
            pixels,
            settings.bits,
            kind="NIfTI",
            frame=number,
            hounsfield=volume[k],
            window=f"{settings.lung_center:g}/{settings.lung_width:g}",
            clipped=clipped,
            original_bits=16,
            aspect=aspect,
            doubt=doubt,
        )


def axial(path: Path) -> tuple[np.ndarray, float, str]:
    """Three values: the volume as (slices, rows, columns) float32, slices from feet to head, rows
    to the back, columns to the patient's left; the height of a pixel over its width; and what is
    unknown about its orientation.
    """
    import nibabel

    try:
        image = nibabel.load(path)
    except nibabel.filebasedimages.ImageFileError:
        image = _misnamed(path)
    doubt = "" if image.header["qform_code"] or image.header["sform_code"] else NO_AFFINE
    if not _turns(image.affine):
        other = image.header.get_qform()
        doubt = "NIfTI with a broken sform; its qform is used" if _turns(other) else NO_AFFINE
        other = other if _turns(other) else np.diag([-1, -1, 1, 1])
        image = type(image)(image.dataobj, other)
    if len(image.shape) < 3 or np.prod(image.shape[3:]) != 1:
        raise ImageError(f"NIfTI with {len(image.shape)} dimensions, not a volume")
    image = nibabel.as_closest_canonical(image)
    values = np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3])
    volume = np.ascontiguousarray(values[::-1, ::-1].transpose(2, 1, 0))
    known = np.isfinite(volume)
    if not known.all():
        volume[~known] = volume[known].min() if known.any() else 0  # outside the field of view
    wide, high = np.linalg.norm(image.affine[:3, :2], axis=0)
    return volume, float(high / wide), doubt


def _turns(affine: np.ndarray) -> bool:
    """Whether an affine gives every axis a direction."""
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-9)


def _misnamed(path: Path):
    """A NIfTI image whose name does not end as its content wants it."""
    import nibabel

    content = path.read_bytes()
    content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    kind = nibabel.Nifti2Image if content[4:7] in (b"n+2", b"ni2") else nibabel.Nifti1Image
    return kind.from_bytes(content)


def lung_share(hounsfield: np.ndarray) -> float:
    """Share of the body's area in a CT slice, shape (H, W) in HU, that is lung: as dark as aerated
    lung, inside the body.
    """
    step = max(1, min(hounsfield.shape) // 128)
    small = hounsfield[::step, ::step]
    tissue = ndimage.binary_opening(small > TISSUE_HU, iterations=1)
    labels, count = ndimage.label(tissue)
    if not count:
        return 0.0
    largest = 1 + np.bincount(labels.ravel())[1:].argmax()
    body = _enclosed(labels == largest)
    inside = body & (small >= LUNG_HU[0]) & (small <= LUNG_HU[1])
    return float(inside.sum() / body.sum())


def _enclosed(tissue: np.ndarray) -> np.ndarray:
    """The tissue and what lies between tissue along both axes: also where the field of view cuts
    the chest open.
    """
    along_rows = (
        np.maximum.accumulate(tissue, axis=1)
        & np.maximum.accumulate(tissue[:, ::-1], axis=1)[:, ::-1]
    )
    along_columns = (
        np.maximum.accumulate(tissue, axis=0) & np.maximum.accumulate(tissue[::-1], axis=0)[::-1]
    )
    return along_rows & along_columns


def spaced(shares: np.ndarray, slices: int, min_share: float = 0.0) -> list[int]:
    """Indices of at most `slices` slices, evenly spaced among those with enough lung:

    `min_share` and a third of the largest share.
    """
    if not len(shares) or shares.max() <= 0:
        return []
    showing = np.flatnonzero(shares >= max(shares.max() / 3, min_share))
    places = (
        np.linspace(0, len(showing) - 1, min(slices, len(showing)) + 2)[1:-1]
        if slices < len(showing)
        else np.arange(len(showing))
    )
    return [int(showing[round(place)]) for place in places]
