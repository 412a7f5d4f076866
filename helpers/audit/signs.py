"""What an image's file and pixels show besides the anatomy: shape, depth, border, grey levels,
spectrum, traces of JPEG.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import fft, ndimage

from helpers import images
from helpers.assemble_reading_set import framing
from helpers.audit.features import radial_power
from helpers.runner.progress import progress

BANDS = 10
# central pixels on which spectrum and compression are measured, at the image's own sampling
TILE = 256


def facts_before(pool: pd.DataFrame) -> pd.DataFrame:
    """Facts of the files and images as the runs hold them, one row per image."""
    rows = []
    for row in progress(list(pool.itertuples()), "facts before"):
        array = images.read_png(row.file)
        height, width = array.shape
        shape_and_file = {
            "shape_width": width,
            "shape_height": height,
            "shape_aspect": np.log(width / height),
            "file_bytes_per_pixel": Path(row.file).stat().st_size / array.size,
            "file_notes": len(Image.open(row.file).info),
        }
        rows.append(shape_and_file | picture_facts(array, int(row.bits)))
    return pd.DataFrame(rows)


def facts_after(pool: pd.DataFrame, settings: dict) -> pd.DataFrame:
    """Facts of the images as a reader would see them; missing where an image is too small for the
    reading size.
    """
    rows = list(pool.itertuples())
    large = [framing.side(row, settings) >= settings["reading_size"] for row in rows]
    depth = framing.common_depth(pool[np.array(large, bool)])
    found = []
    for row, fits in zip(progress(rows, "facts after"), large):
        if fits:
            pixels = images.read_png(row.file)
            shown = framing.for_reading(pixels, int(row.bits), row.modality, depth, settings)
        found.append(picture_facts(shown, depth) if fits else {})
    columns = list(picture_facts(np.zeros((16, 16), np.uint8), 8))
    return pd.DataFrame(found, columns=columns, dtype=float)


def picture_facts(array: np.ndarray, bits: int) -> dict[str, float]:
    """What the pixels show about their history, not about the chest: depth, border, grey levels,
    histogram, spectrum, compression.
    """
    grey = array.astype(np.float32) / (2**bits - 1)
    top, left = (
        (length - min(length, TILE)) // 2 // 8 * 8 for length in array.shape
    )  # a multiple of 8 keeps JPEG's grid in place
    tile = grey[top : top + TILE, left : left + TILE]
    return {
        "depth_bits": bits,
        "depth_effective_bits": images.effective_bits(array, bits),
        **_border(grey),
        **_levels(grey),
        **_histogram(array, bits),
        **_spectrum(tile),
        **_compression(tile),
    }


def _border(grey: np.ndarray) -> dict[str, float]:
    """For each edge, how far the outermost line departs from the extrapolation of the next two,
    relative to lines inside the image; and bars.
    """
    found = {}
    sides = {"top": grey, "bottom": grey[::-1], "left": grey.T, "right": grey.T[::-1]}
    for name, lines in sides.items():
        usual = np.abs(np.diff(lines[1:13], 2, axis=0)).mean() if len(lines) > 13 else 0.0
        jump = (np.abs(np.diff(lines[:3], 2, axis=0)).mean() + 1e-4) / (usual + 1e-4)
        bar = np.argmin((np.abs(lines - lines[0, 0]) < 1e-6).all(axis=1))
        found[f"border_{name}_jump"] = float(np.log(jump))
        found[f"border_{name}_bar"] = float(np.log1p(bar))
    return found


def _levels(grey: np.ndarray) -> dict[str, float]:
    """Grey of the whole image, the corners, the outermost lines, the darkest and brightest 1 %, and
    the background (the most frequent of 64 levels), as a share of the range.
    """
    side = max(1, min(grey.shape) // 16)
    corners = [grey[y, x].mean() for y in np.s_[:side, -side:] for x in np.s_[:side, -side:]]
    low, high = np.percentile(grey, (1, 99))
    commonest = np.bincount((grey * 63 + 0.5).astype(int).ravel()).argmax() / 63
    return {
        "level_mean": float(grey.mean()),
        "level_corner": float(np.mean(corners)),
        "level_border": float(
            np.concatenate([grey[[0, -1]].ravel(), grey[:, [0, -1]].ravel()]).mean()
        ),
        "level_background": float(commonest),
        "level_darkest": float(low),
        "level_brightest": float(high),
    }


def _histogram(array: np.ndarray, bits: int) -> dict[str, float]:
    """Empty levels and unevenness of neighbouring levels between the 2nd and 98th percentile, and
    the clipped ends.
    """
    # Deep images are examined in 256 levels and, for finer combs, in their own levels.
    coarse = (array >> max(bits - 8, 0)).ravel()
    low, high = np.percentile(coarse, (2, 98)).astype(int)
    counts = np.bincount(coarse)[low : high + 1].astype(float)
    smooth = ndimage.uniform_filter1d(counts, 9, mode="nearest")
    uneven = np.abs(counts - smooth).sum() / max(np.sqrt(np.maximum(smooth, 1)).sum(), 1)
    inner = np.bincount((array - array.min()).ravel())
    expected = np.exp(-inner.sum() / len(inner))  # empty levels of an even histogram
    return {
        "comb_empty_levels": float((counts == 0).mean()),
        "comb_unevenness": float(np.log(uneven + 1e-3)),
        "comb_fine": float((inner == 0).mean() - expected),
        "clip_black": float((array == 0).mean()),
        "clip_white": float((array == 2**bits - 1).mean()),
    }


def _spectrum(tile: np.ndarray) -> dict[str, float]:
    """Shape of the power spectrum by rings, its peaks where upsampling leaves them, and the noise
    level (Immerkaer 1996).
    """
    power = radial_power(tile, BANDS)
    shape = np.log10(power[1:] / (power.sum() + 1e-12) + 1e-9)
    found = {f"spectrum_{n}": float(value) for n, value in enumerate(shape, 1)}
    noise = ndimage.convolve(tile, np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32))[
        1:-1, 1:-1
    ]
    lines = [np.abs(np.fft.rfft(noise, axis=axis)).mean(1 - axis) + 1e-6 for axis in (1, 0)]
    for fraction, name in ((0.5, "half"), (0.25, "quarter")):
        peaks = [line[round(fraction * 2 * (len(line) - 1))] / np.median(line) for line in lines]
        found[f"spectrum_peak_{name}"] = float(np.log(peaks).mean())
    return found | {"noise_level": float(np.log(np.abs(noise).mean() + 1e-5))}


def _compression(tile: np.ndarray) -> dict[str, float]:
    """JPEG's traces: jumps every 8 pixels, and cosine coefficients of 8×8 blocks that were rounded
    to zero.
    """
    height, width = (length // 8 * 8 for length in tile.shape)
    tile = tile[:height, :width] * 255
    jumps = []
    for across in (np.abs(np.diff(tile, axis=1)).mean(0), np.abs(np.diff(tile, axis=0)).mean(1)):
        phases = np.array([across[phase::8].mean() for phase in range(8)])
        jumps.append(np.log((phases[7] + 0.05) / (np.median(phases) + 0.05)))
    blocks = (
        fft.dctn(tile.reshape(height // 8, 8, width // 8, 8), axes=(1, 3), norm="ortho")
        .transpose(0, 2, 1, 3)
        .reshape(-1, 8, 8)
    )
    order = np.add.outer(np.arange(8), np.arange(8))
    high, middle = blocks[:, order >= 10], blocks[:, (order >= 3) & (order < 6)]
    return {
        "jpeg_blocking": float(np.mean(jumps)),
        "jpeg_rounded_high": float((np.abs(high) < 1).mean()),
        "jpeg_rounded_middle": float((np.abs(middle) < 1).mean()),
        "jpeg_steps": _steps(blocks),
    }


def _steps(blocks: np.ndarray) -> float:
    """How strongly the low cosine coefficients cluster at multiples of one step, which is the
    effect of quantisation (Fan & de Queiroz 2003).
    """
    best = []
    for row, column in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0)):
        values = blocks[:, row, column]
        values = values[np.abs(values) > 1.5]
        best.append(
            max((np.cos(2 * np.pi * values / step).mean() for step in range(3, 25)), default=0.0)
            if values.size > 8
            else 0.0
        )
    return float(np.mean(best))
