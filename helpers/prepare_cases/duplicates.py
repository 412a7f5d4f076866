"""Copies of the same image: found by perceptual hash, confirmed by correlation, grouped.

A perceptual hash is the sign of the low frequencies of the image (Zauner 2010, "pHash"): it
survives recompression, resizing, another depth and another brightness. All chests are alike in it,
so that fine structure decides: on 1,019 real X-rays the most alike images of different patients
correlated 0.88, recompressed, halved and rewindowed copies 0.91 to 1. Images that were cropped or
turned are not found.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from scipy import ndimage
from scipy.fft import dctn

from helpers.images import area_resize

SIDE = 64  # pixels of a fingerprint
DISTANCE = 10  # of 64 bits; candidates only, correlation decides
CORRELATION = 0.91
ROWS, BLOCK = 64, 4096  # hashes compared at once: small enough for a core's cache


def small(array: np.ndarray, side: int = SIDE) -> np.ndarray:
    """The image at (side, side), float32; smaller images are enlarged by repeating pixels."""
    height, width = min(side, array.shape[0]), min(side, array.shape[1])
    reduced = area_resize(array, height, width)
    return reduced[np.arange(side) * height // side][:, np.arange(side) * width // side]


def perceptual_hash(array: np.ndarray) -> int:
    """64 bits: the signs of the 8 x 8 lowest frequencies of the image at 32 x 32 against their
    median, the mean left out.
    """
    low = dctn(small(array, 32), norm="ortho")[:8, :8].ravel()
    bits = low > np.median(low[1:])
    bits[0] = False
    return int(np.packbits(bits).view(">u8")[0])


def fingerprint(array: np.ndarray) -> np.ndarray:
    """Fine structure of the image, shape (64, 64) int8: what a Gaussian blur of 3 of 64 pixels
    takes away.
    """
    picture = small(array)
    fine = picture - ndimage.gaussian_filter(picture, 3)
    return np.round(fine * (127 / max(float(np.abs(fine).max()), 1e-9))).astype(np.int8)


def near_pairs(hashes: np.ndarray, distance: int = DISTANCE) -> Iterator[np.ndarray]:
    """Pairs (i, j), i < j, of 64-bit hashes that differ in at most `distance` bits, in arrays of
    shape (pairs, 2).

    All pairs are compared, block by block: the result is exact, memory does not grow with the
    number of hashes.
    """
    hashes = np.ascontiguousarray(hashes, dtype=np.uint64)
    for top in range(0, len(hashes), ROWS):
        own = hashes[top : top + ROWS, None]
        for left in range(top, len(hashes), BLOCK):
            near = np.bitwise_count(own ^ hashes[None, left : left + BLOCK]) <= distance
            if near.any():
                i, j = np.nonzero(near)
                pairs = np.column_stack([i + top, j + left])
                yield pairs[pairs[:, 0] < pairs[:, 1]]


def groups(
    hashes: np.ndarray,
    fingerprints: np.ndarray,
    places: np.ndarray | None = None,
    correlation: float = CORRELATION,
    distance: int = DISTANCE,
) -> np.ndarray:
    """Group number of every image, shape (n,): the index of its group's first image; alone means
    its own index.

    Two images are copies when their hashes are near and their fingerprints, shape (n, 64, 64) int8
    (may be a memory map), correlate at least so much; copies of copies are one group. `places` says
    which fingerprint belongs to which hash.
    """
    places = np.arange(len(hashes)) if places is None else places
    seen: dict[bytes, int] = {}
    first = np.array(
        [
            seen.setdefault(hashlib.sha256(np.ascontiguousarray(one)).digest(), n)
            for n, one in enumerate(fingerprints[place] for place in places)
        ],
        dtype=int,
    )
    parent = first.copy()
    different = np.flatnonzero(first == np.arange(len(first)))
    for pairs in near_pairs(np.asarray(hashes, dtype=np.uint64)[different], distance):
        for start in range(0, len(pairs), 4096):
            part = different[pairs[start : start + 4096]]
            alike = (
                correlations(fingerprints[places[part[:, 0]]], fingerprints[places[part[:, 1]]])
                >= correlation
            )
            for i, j in part[alike]:
                _join(parent, int(i), int(j))
    return np.array([_root(parent, i) for i in range(len(parent))], dtype=int)


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlation of each pair of fingerprints, shapes (n, 64, 64) -> (n,)."""
    a, b = (_centred(fingerprints) for fingerprints in (first, second))
    return np.einsum("ij,ij->i", a, b) / np.maximum(
        np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-9
    )


def _centred(fingerprints: np.ndarray) -> np.ndarray:
    flat = fingerprints.reshape(len(fingerprints), -1).astype(np.float32)
    return flat - flat.mean(axis=1, keepdims=True)


def _root(parent: np.ndarray, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = int(parent[i])
    return i


def _join(parent: np.ndarray, i: int, j: int) -> None:
    a, b = _root(parent, i), _root(parent, j)
    parent[max(a, b)] = min(a, b)
