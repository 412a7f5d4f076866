"""How every image is shown to the readers: one frame, one grey scale and one finish.

05 measures the signs that remain after it, 06 writes the images. The code here sees only pixels and
modality, never the source: all sources are treated alike.
"""

import zlib

import numpy as np
from scipy import ndimage, optimize

from helpers import images
from helpers.formats.picture import ImageError

# Without smoothing and grain JPEG, resampling and histogram combs of a source stay visible (joint
# AUC 0.86 to 0.98 on real X-rays at 240 pixels, with them 0.50 to 0.67).
SMOOTHING = 0.7  # pixels of the reading size, standard deviation: finer than the eye resolves
GRAIN = 2.5 / 255  # of the grey range, standard deviation: below the noise of any X-ray or CT
TAIL = (
    0.011  # share of the pixels that are black, and that are white: the first window is the range
)
BRIGHTNESS, BACKGROUND = 0.6, 0.05  # mean of what is brighter than the background, and that
GAMMA = (0.5, 2.0)  # limits of the exponent that brings an image there
DARK = 0.2  # of the range above the darkest: corners up to there are the air around a CT slice


def field(array: np.ndarray, bits: int, asked: dict) -> np.ndarray:
    """What is shown of an image: with `framing` whole its own field, with common the field's
    central square without `margin` of its side all round.
    """
    array = images.without_bars(array, bits)
    if asked["framing"] == "whole":
        return array
    side = min(array.shape)
    cut = int(np.ceil(asked["margin"] * side))
    top, left = ((length - side) // 2 + cut for length in array.shape)
    return array[top : top + side - 2 * cut, left : left + side - 2 * cut]


def side(row, asked: dict) -> int:
    """The largest reading size that the image of a row (file, bits) allows, pixels."""
    return max(field(images.read_png(row.file), int(row.bits), asked).shape)


def for_reading(array: np.ndarray, bits: int, modality: str, depth: int, asked: dict) -> np.ndarray:
    """The one path of every image into a reading set: (reading_size, reading_size), uint8 or
    uint16 of values 0..2**depth-1. `asked` has reading_size, framing and margin.

    The `field` is resized by area so that its longer side fills a black square, smoothed, brought
    to one grey scale (`levelled`) and given grain. The same pixels always come out the same. Raises
    ImageError for a field whose longer side is shorter than `reading_size`: images are never
    upsampled.
    """
    shown, size = field(array, bits, asked), asked["reading_size"]
    longer = max(shown.shape)
    if longer < size:
        raise ImageError(
            f"the framing leaves {longer} of the {size} pixels needed: images are never upsampled."
        )
    shape = [max(1, round(length * size / longer)) for length in shown.shape]
    grey = ndimage.gaussian_filter(images.area_resize(shown, *shape), SMOOTHING, mode="nearest")
    random = np.random.default_rng(zlib.crc32(np.ascontiguousarray(shown).data))
    grey = levelled(grey, modality) + random.normal(0, GRAIN, grey.shape)
    grey, top_level = _stretched(grey, *_ends(grey)), 2**depth - 1
    # Black and white are the tails alone, so that their shares are the same in every image.
    grey = np.where((grey > 0) & (grey < 1), 1 + np.floor(grey * (top_level - 1)), grey * top_level)
    top, bottom, left, right = images.padding(grey.shape)
    canvas = np.pad(grey, ((top, bottom), (left, right)))
    return canvas.astype(np.uint8 if depth <= 8 else np.uint16)


def levelled(grey: np.ndarray, modality: str) -> np.ndarray:
    """Grey levels mapped to 0..1 by one monotone rule, so that every image begins with the same
    window.

    The darkest and brightest TAIL of the pixels become 0 and 1 and a power brings the mean of what
    is brighter than BACKGROUND to BRIGHTNESS. Around a CT slice is air, and how grey that is tells
    who windowed it: there everything up to the corners' level becomes 0.
    """
    low, high = _ends(grey)
    if modality == "ct":
        side = max(1, min(grey.shape) // 16)
        corners = [grey[y, x] for y in np.s_[:side, -side:] for x in np.s_[:side, -side:]]
        air = float(np.median([np.percentile(corner, 95) for corner in corners]))
        low = air if low < air < low + DARK * (high - low) else low
    grey = _stretched(grey, low, high)
    inside = grey[grey > BACKGROUND]

    def too_bright(gamma: float) -> float:
        return float((inside**gamma).mean()) - BRIGHTNESS if inside.size else 0.0

    dark, bright = (too_bright(gamma) for gamma in GAMMA)
    if dark > 0 > bright:
        return grey ** optimize.brentq(too_bright, *GAMMA, xtol=1e-3)
    return grey ** GAMMA[0 if dark <= 0 else 1]


def _ends(grey: np.ndarray) -> np.ndarray:
    return np.percentile(grey, (100 * TAIL, 100 * (1 - TAIL)))


def _stretched(grey: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
