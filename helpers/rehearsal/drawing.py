"""Small drawing tools of the phantom: resampling, smooth noise, points spread over pixels."""

import numpy as np
from PIL import Image
from scipy import ndimage


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """Cubic or area resampling to (size, size)."""
    if picture.shape[0] == size:
        return picture
    method = Image.Resampling.BOX if size < picture.shape[0] else Image.Resampling.BICUBIC
    return np.asarray(
        Image.fromarray(picture.astype(np.float32), mode="F").resize((size, size), method)
    ).copy()


def noise(seed: int, size: int, cells: int, draw: int = 0) -> np.ndarray:
    """Smooth noise with standard deviation about 1 and `cells` bumps across the image, the same at
    every size.
    """
    rng = np.random.default_rng([seed, 6, cells, draw])
    return resized(rng.standard_normal((cells, cells), dtype=np.float32) * 1.4, size)


def splat(column: np.ndarray, row: np.ndarray, mass: np.ndarray, size: int) -> np.ndarray:
    """Add masses to an image; each is shared by the four pixels around it."""
    picture = np.zeros(size * size, np.float64)
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    for dx in (0, 1):
        for dy in (0, 1):
            share = mass * np.abs(1 - dx - (column - left)) * np.abs(1 - dy - (row - top))
            inside = (left + dx >= 0) & (left + dx < size) & (top + dy >= 0) & (top + dy < size)
            picture += np.bincount(
                (top + dy)[inside] * size + (left + dx)[inside], share[inside], size * size
            )
    return picture.reshape(size, size).astype(np.float32)


def vessels(points, column, row, mass, size: int, least, share, widest, more=0.0) -> np.ndarray:
    """Vessels as an image: the mass of their points, each blurred by a `share` of its radius
    (column 3 of `points`, at most `widest` mm) plus `more`, at least `least` pixels.
    """
    picture = np.zeros((size, size), np.float32)
    for low, high in ((0, 1.2), (1.2, 2.4), (2.4, 9)):
        at = (points[:, 3] >= low) & (points[:, 3] < high)
        drawn = splat(column[at], row[at], mass[at], size)
        sigma = max(least, share * (low + min(high, widest)) / 2 + more)
        picture += ndimage.gaussian_filter(drawn, sigma, truncate=3)
    return picture
