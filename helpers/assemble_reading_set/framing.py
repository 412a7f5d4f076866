"""How every image is shown to the readers: with one frame, one grey scale and one finish.

05 measures the signs of the source that remain, and 06 writes the images. This code sees only
pixels and modality, never the source, so all sources are treated alike.
"""

import zlib
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import ndimage, optimize

from helpers import images
from helpers.formats.picture import ImageError

# Without smoothing and grain, a source's JPEG, resampling and histogram combs stay visible (on real
# X-rays at 240 pixels the joint AUC is 0.86 to 0.98 without and 0.50 to 0.67 with them).
SMOOTHING = 0.7  # pixels of the reading size, standard deviation: finer than the eye resolves
GRAIN = 2.5 / 255  # of the grey range, standard deviation: below the noise of any X-ray or CT
TAIL = 0.011  # share of pixels that become black, and that become white
BRIGHTNESS, BACKGROUND = 0.6, 0.05  # target mean of all pixels brighter than the background level
GAMMA = (0.33, 3.0)  # limits of the exponent that brings an image to that mean
# Target mean of the darker half of those pixels in CT, and limits of the bend that brings it there:
# just enough for the border level of a source with clipped whites (upper bound of its AUC below
# 0.6). Every bend also amplifies the signs in the noise: the spectrum of the rehearsal's CT had an
# AUC of 0.98 with 0.7, and 0.72 without.
DARKER, BEND = 0.28, 0.15
# Shares of the grey range of a CT slice. Air is at most AIR above the darkest level, the
# surroundings of the body at most NEAR above air, and padding has at most FLAT noise.
AIR, NEAR, FLAT = 0.3, 0.04, 0.004


def field(array: np.ndarray, bits: int, settings: dict) -> np.ndarray:
    """The part of an image that is shown: without bars; with `framing` common only the central
    square of that, less `margin` of its side at each edge.
    """
    array = images.without_bars(array, bits)
    if settings["framing"] == "whole":
        return array
    side = min(array.shape)
    cut = int(np.ceil(settings["margin"] * side))
    top, left = ((length - side) // 2 + cut for length in array.shape)
    return array[top : top + side - 2 * cut, left : left + side - 2 * cut]


def side(row, settings: dict) -> int:
    """The largest reading size that the image of a row (file, bits) allows, pixels."""
    return max(field(images.read_png(row.file), int(row.bits), settings).shape)


def common_depth(rows: pd.DataFrame) -> int:
    """Bits at which images (file, bits) are shown together: those of the image with the fewest,
    because more would distinguish the others. Not below 8, where grain hides how coarse one is, and
    fewer would spoil all.
    """
    found = (images.effective_bits(images.read_png(r.file), int(r.bits)) for r in rows.itertuples())
    return max(8, min(found, default=8))


def for_reading(
    array: np.ndarray, bits: int, modality: str, depth: int, settings: dict
) -> np.ndarray:
    """The only path of an image into a reading set: (reading_size, reading_size), uint8 or uint16
    of values 0..2**depth-1. `settings` has reading_size, framing and margin.

    The `field` is resized by area so that its longer side fills a black square, smoothed, brought
    to one grey scale (`levelled`) and given grain. The same pixels always give the same result.
    Raises ImageError for a field whose longer side is shorter than `reading_size`: images are never
    upsampled.
    """
    shown, size = field(array, bits, settings), settings["reading_size"]
    longer = max(shown.shape)
    if longer < size:
        raise ImageError(
            f"the framing leaves {longer} of the {size} pixels needed: images are never upsampled."
        )
    shape = [max(1, round(length * size / longer)) for length in shown.shape]
    grey = ndimage.gaussian_filter(images.area_resize(shown, *shape), SMOOTHING, mode="nearest")
    random = np.random.default_rng(zlib.crc32(np.ascontiguousarray(shown).data))
    around = _around(grey) if modality == "ct" else np.zeros(grey.shape, bool)
    grey = levelled(grey, around, modality) + random.normal(0, GRAIN, grey.shape)
    grey, top_level = _stretched(grey, *_ends(grey, around)), 2**depth - 1
    grey[around] = 0
    # Only the tails become black and white, so their shares are the same in every image.
    grey = np.where((grey > 0) & (grey < 1), 1 + np.floor(grey * (top_level - 1)), grey * top_level)
    top, bottom, left, right = images.padding(grey.shape)
    grey = np.pad(grey, ((top, bottom), (left, right)))
    return grey.astype(np.uint8 if depth <= 8 else np.uint16)


def levelled(grey: np.ndarray, around: np.ndarray, modality: str) -> np.ndarray:
    """Grey levels mapped to 0..1 by one monotone rule, so that every image begins with the same
    window.

    The darkest and brightest TAIL of the pixels that are not `around` the body become 0 and 1, and
    a power brings the mean of the pixels brighter than BACKGROUND to BRIGHTNESS. In CT, where soft
    tissue may or may not be clipped to white, a bend brings the mean of the darker half to DARKER.
    """
    grey = np.where(around, 0, _stretched(grey, *_ends(grey, around)))
    counts, edges = np.histogram(grey[grey > BACKGROUND], 512, (0, 1))
    level, all_of_it = (edges[:-1] + edges[1:]) / 2, counts / max(counts.sum(), 1)
    half = all_of_it * (np.cumsum(all_of_it) <= 0.5)
    half /= max(half.sum(), 1e-9)

    def power(bend: float) -> float:
        return _root(lambda gamma: all_of_it @ _curve(level, gamma, bend) - BRIGHTNESS, *GAMMA)

    def too_bright(bend: float) -> float:
        return half @ _curve(level, power(bend), bend) - DARKER

    bend = _root(too_bright, -BEND, BEND) if modality == "ct" else 0.0
    return _curve(grey, power(bend), bend)


def _curve(grey: np.ndarray, gamma: float, bend: float) -> np.ndarray:
    grey = grey**gamma
    return grey + 2 * bend * grey * (1 - grey) * (grey - 0.5)


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """The zero of a falling function, or the end of the interval that is nearest to it."""
    if falling(low) > 0 > falling(high):
        return optimize.brentq(falling, low, high, xtol=1e-3)
    return low if falling(low) <= 0 else high


def _around(grey: np.ndarray) -> np.ndarray:
    """The surroundings of the body in a CT slice: connected to the edge and no brighter than air.

    The grey of air reveals who windowed a slice. So does the circle of its reconstruction, which
    has no noise outside. Air is as grey as the two darkest corners or, where these have no noise,
    as the darkest middle of a side. A slice that shows nothing but body has no surroundings.
    """
    low, high = _ends(grey, np.zeros(grey.shape, bool))
    side = max(1, min(grey.shape) // 16)
    corners = [grey[y, x] for y in np.s_[:side, -side:] for x in np.s_[:side, -side:]]
    # Two corners may show the table, or an arm.
    corners = sorted(corners, key=lambda corner: float(np.percentile(corner, 95)))[:2]
    levels = [float(np.percentile(corners[1], 95))]
    if max(float(np.ptp(corner)) for corner in corners) < FLAT * (high - low):
        middle = [slice((length - side) // 2, (length + side) // 2 + 1) for length in grey.shape]
        ends = (side, -1 - side)  # the circle only touches the edge itself
        lines = [grey[y, middle[1]] for y in ends] + [grey[middle[0], x] for x in ends]
        levels.append(min(float(np.percentile(line, 95)) for line in lines))
    air = max((level for level in levels if level < low + AIR * (high - low)), default=-np.inf)
    labels, _ = ndimage.label(ndimage.gaussian_filter(grey, 1.5) <= air + NEAR * (high - low))
    edge = np.concatenate([labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel()])
    return np.isin(labels, edge[edge > 0])


def _ends(grey: np.ndarray, around: np.ndarray) -> tuple[float, float]:
    """The grey levels that become black (from a share of the pixels not `around`) and white (from a
    share of all).
    """
    low = np.percentile(grey[~around], 100 * TAIL)
    return float(low), float(np.percentile(grey, 100 * (1 - TAIL)))


def _stretched(grey: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
