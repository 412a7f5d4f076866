"""Copies of the same picture: found by perceptual hash, confirmed by correlation, grouped.

A perceptual hash is the sign of the low frequencies of the picture (Zauner 2010, "pHash"): it survives recompression,
resizing, another depth and another brightness.
"""

from collections.abc import Iterator

import numpy as np
from scipy.fft import dctn

from helpers.images import area_resize

SIDE = 32  # pixels of a thumbnail
DISTANCE = 10  # of 64 bits; candidates only, correlation decides
CORRELATION = 0.985
BLOCK = 4096


def thumbnail(array: np.ndarray, bits: int) -> np.ndarray:
    """The picture at 32 x 32, shape (32, 32) uint8, its grey values spread evenly by rank so that windowing does not matter."""
    height, width = min(SIDE, array.shape[0]), min(SIDE, array.shape[1])
    small = area_resize(array, height, width)
    if small.shape != (SIDE, SIDE):
        small = small[np.arange(SIDE) * height // SIDE][:, np.arange(SIDE) * width // SIDE]
    low, high = float(small.min()), float(small.max())
    return np.floor((small - low) * (255 / max(high - low, 1e-9)) + 0.5).astype(np.uint8)


def perceptual_hash(small: np.ndarray) -> int:
    """64 bits: the signs of the 8 x 8 lowest frequencies of a thumbnail against their median, the mean left out."""
    low = dctn(small.astype(np.float32), norm="ortho")[:8, :8].ravel()
    bits = low > np.median(low[1:])
    bits[0] = False
    return int(np.packbits(bits).view(">u8")[0])


def near_pairs(hashes: np.ndarray, distance: int = DISTANCE) -> Iterator[np.ndarray]:
    """Pairs (i, j), i < j, of 64-bit hashes that differ in at most `distance` bits, in arrays of shape (pairs, 2).

    All pairs are compared, block by block: the result is exact, memory does not grow with the number of hashes.
    """
    hashes = np.ascontiguousarray(hashes, dtype=np.uint64)
    rows = 64
    for top in range(0, len(hashes), rows):
        own = hashes[top : top + rows, None]
        for left in range(top, len(hashes), BLOCK):
            near = np.bitwise_count(own ^ hashes[None, left : left + BLOCK]) <= distance
            if near.any():
                i, j = np.nonzero(near)
                pairs = np.column_stack([i + top, j + left])
                yield pairs[pairs[:, 0] < pairs[:, 1]]


def groups(hashes: np.ndarray, thumbnails: np.ndarray, correlation: float = CORRELATION, distance: int = DISTANCE) -> np.ndarray:
    """Group number of every picture, shape (n,): the index of its group's first picture; alone means its own index.

    Two pictures are copies when their hashes are near and their thumbnails, shape (n, 32, 32) uint8, correlate at least so much.
    """
    parent = np.arange(len(hashes))
    for pairs in near_pairs(hashes, distance):
        for start in range(0, len(pairs), BLOCK):
            part = pairs[start : start + BLOCK]
            for i, j in part[correlations(thumbnails[part[:, 0]], thumbnails[part[:, 1]]) >= correlation]:
                _join(parent, int(i), int(j))
    return np.array([_root(parent, i) for i in range(len(parent))], dtype=int)


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlation of each pair of thumbnails, shapes (n, 32, 32) -> (n,)."""
    a, b = (_centred(thumbnails) for thumbnails in (first, second))
    return np.einsum("ij,ij->i", a, b) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-9)


def _centred(thumbnails: np.ndarray) -> np.ndarray:
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    return flat - flat.mean(axis=1, keepdims=True)


def _root(parent: np.ndarray, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = int(parent[i])
    return i


def _join(parent: np.ndarray, i: int, j: int) -> None:
    a, b = _root(parent, i), _root(parent, j)
    parent[max(a, b)] = min(a, b)
