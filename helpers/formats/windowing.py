"""How values become grey: the window rule (DICOM PS3.3 C.11.2.1.2), the full range, fewer bits,
colour to grey.
"""

import numpy as np
from scipy import special

from helpers.formats.picture import ImageError


def window(
    values: np.ndarray, center: float, width: float, bits: int, function: str = "LINEAR"
) -> tuple[np.ndarray, float]:
    """Values in a window as grey 0..2**bits-1 (uint8 or uint16), and the share of pixels outside
    it.

    PS3.3 C.11.2.1.2: LINEAR, LINEAR_EXACT or SIGMOID; rounded to the nearest grey. Raises
    ImageError for a width that is too small.
    """
    if width < (1 if function == "LINEAR" else np.finfo(np.float32).tiny):
        raise ImageError(f"window width {width:g} is too small")
    values = np.asarray(
        values, dtype=np.float32 if np.asarray(values).dtype.itemsize <= 4 else np.float64
    )
    if function == "SIGMOID":
        share = special.expit(4 * (values - center) / width)
    elif function == "LINEAR_EXACT":
        share = (values - center) / width + 0.5
    else:
        share = (
            (values - (center - 0.5)) / (width - 1) + 0.5
            if width > 1
            else (values > center - 0.5).astype(np.float32)
        )
    clipped = float(np.mean((share < 0) | (share > 1)))
    np.clip(share, 0, 1, out=share)
    return (
        np.floor(share * (2**bits - 1) + 0.5).astype(np.uint8 if bits <= 8 else np.uint16),
        clipped,
    )


def luminance(colour: np.ndarray) -> np.ndarray:
    """Grey of an RGB image (H, W, 3), same depth; equal channels give that channel, others ITU-R
    BT.601 luma.
    """
    if (colour[..., 0] == colour[..., 1]).all() and (colour[..., 1] == colour[..., 2]).all():
        return np.ascontiguousarray(colour[..., 0])
    return np.floor(
        colour[..., :3].astype(np.float32) @ np.float32([0.299, 0.587, 0.114]) + 0.5
    ).astype(colour.dtype)


def full_range(values: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """Values spread over a depth just large enough to keep every step apart (8 to `bits`): (pixels,
    depth).

    Whole numbers that fill 8 bits come back as they are.
    """
    low, high = float(values.min()), float(values.max())
    if low >= 0 and 127 < high <= 255 and values.dtype.kind in "iu":
        return values.astype(np.uint8), 8
    depth = (
        min(bits, max(8, int(np.ceil(np.log2(max(high - low, 1) + 1)))))
        if values.dtype.kind in "iu"
        else bits
    )
    span = max(high - low, 1e-12)
    pixels = np.floor((values.astype(np.float64) - low) * ((2**depth - 1) / span) + 0.5)
    return pixels.astype(np.uint8 if depth <= 8 else np.uint16), depth


def reduced(values: np.ndarray, bits: int, depth: int) -> np.ndarray:
    """Values of 0..2**bits-1 rounded to a smaller depth."""
    scaled = (
        np.floor(values.astype(np.float64) * ((2**depth - 1) / (2**bits - 1)) + 0.5)
        if depth < bits
        else values
    )
    return np.asarray(scaled).astype(np.uint8 if depth <= 8 else np.uint16)
