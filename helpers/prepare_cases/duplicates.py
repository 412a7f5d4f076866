"""Duplicates of an image: found by perceptual hash, confirmed by correlation, grouped.

A perceptual hash holds the signs of the image's low frequencies (Zauner 2010, "pHash"), here of the
ranks of its grey values at a fixed shape. It survives recompression, resizing, squashing to a
square, another depth, brightness or equalisation. In a mirrored image the signs of the odd columns
are flipped; in an inverted image all signs are. All chests have similar hashes, so fine structure
decides. For this comparison the second image is mirrored if necessary, and both are cropped
slightly on either side.
"""

import functools
import hashlib
from collections.abc import Iterator

import numpy as np
from scipy import ndimage
from scipy.fft import dctn

from helpers.images import area_resize
from helpers.statistics import clusters

SIDE = 64  # pixels of a fingerprint
DISTANCE = 12  # of 64 bits; candidates only, correlation decides
# On 1,019 real X-rays: at most 0.73 between patients, 0.8 or more after a crop of 3 % on one side.
CORRELATION = 0.77
OF_PHANTOMS = 0.9  # phantoms come from one template, so they are more alike than people
PROMISING = 0.3  # correlation above which a crop is searched for
CROPS = (0.01, 0.02, 0.03, 0.04, 0.05)  # shares of a side
MIRROR = int("01010101" * 8, 2)  # the odd columns of the frequencies
ROWS, BLOCK = 64, 4096  # hashes compared at once: small enough for a core's cache


def small(array: np.ndarray, side: int = SIDE) -> np.ndarray:
    """The image at (side, side), float32; smaller images are enlarged by repeating pixels."""
    height, width = min(side, array.shape[0]), min(side, array.shape[1])
    reduced = area_resize(array, height, width)
    return reduced[np.arange(side) * height // side][:, np.arange(side) * width // side]


def ranks(array: np.ndarray, side: int) -> np.ndarray:
    """The image at (side, side) with every grey value replaced by its rank, -1 to 1."""
    values = small(array, side)
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count + 1) / 2  # equal values share one; scipy.stats loads for 1 s
    return middle[place].reshape(values.shape) * (2 / (values.size - 1)) - 1


def perceptual_hash(array: np.ndarray) -> int:
    """64 bits: the signs of the 8 x 8 lowest frequencies of the image's ranks at 32 x 32, the mean
    left out.
    """
    bits = (dctn(ranks(array, 32), norm="ortho")[:8, :8] > 0).ravel()
    bits[0] = False
    return int(np.packbits(bits).view(">u8")[0])


def fingerprint(array: np.ndarray) -> np.ndarray:
    """Fine structure of the image, shape (64, 64) int8: its ranks minus their Gaussian blur (sigma
    3 of 64 pixels), divided by the local standard deviation of that difference (sigma 6).
    """
    values = ranks(array, SIDE)
    fine = values - ndimage.gaussian_filter(values, 3)
    fine /= np.sqrt(ndimage.gaussian_filter(fine**2, 6)) + 0.02
    return np.round(np.clip(fine, -3, 3) * (127 / 3)).astype(np.int8)


def near_pairs(
    hashes: np.ndarray, distance: int = DISTANCE, turned: int = 0
) -> Iterator[np.ndarray]:
    """Pairs (i, j), i < j, of 64-bit hashes that are near each other, in arrays of shape (pairs,
    2). Two hashes are near if, after the bits in `turned` are flipped in one of them, at most
    `distance` bits differ, or all but that many (an inverted image).

    All pairs are compared, block by block. The result is exact, and memory does not grow with the
    number of hashes.
    """
    hashes = np.ascontiguousarray(hashes, dtype=np.uint64)
    for top in range(0, len(hashes), ROWS):
        own = hashes[top : top + ROWS, None] ^ np.uint64(turned)
        for left in range(top, len(hashes), BLOCK):
            differing = np.bitwise_count(own ^ hashes[None, left : left + BLOCK])
            near = (differing <= distance) | (differing >= 63 - distance)
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
    """Group number of every image, shape (n,): the index of its group's first image. An image
    without duplicates has its own index.

    Two images are duplicates when their hashes are near and their fingerprints, shape (n, 64, 64)
    int8 (may be a memory map), correlate at least `correlation`; duplicates of duplicates join one
    group. `places` says which fingerprint belongs to which hash.
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
    alike = [np.column_stack([np.arange(len(hashes)), first])]
    different = np.flatnonzero(first == np.arange(len(first)))
    own = np.asarray(hashes, dtype=np.uint64)[different]
    for turned in (0, MIRROR):
        for pairs in near_pairs(own, distance, turned):
            for start in range(0, len(pairs), 4096):
                part = different[pairs[start : start + 4096]]
                first, second = (fingerprints[places[part[:, side]]] for side in (0, 1))
                second = second[:, :, ::-1] if turned else second
                alike.append(part[correlations(first, second) >= correlation])
    return clusters.linked(np.concatenate(alike), len(hashes))


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How similar each pair of fingerprints is, shapes (n, 64, 64) -> (n,): Pearson correlation, of
    either sign, the best over small crops where these can matter.
    """
    first, second = first.astype(np.float32), second.astype(np.float32)
    best = _correlated(first, second)
    near = (best > PROMISING) & (best < CORRELATION)
    if near.any():
        tried = [
            _correlated(cropped, other)
            for one, other in ((first[near], second[near]), (second[near], first[near]))
            for weights in _crops()
            for cropped in (weights @ one, one @ weights.T)
        ]
        best[near] = np.max([best[near], *tried], axis=0)
    return best


def _correlated(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (one.reshape(len(one), SIDE**2) for one in (a, b))
    a, b = (one - one.mean(axis=1, keepdims=True) for one in (a, b))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.abs(np.einsum("ij,ij->i", a, b)) / np.maximum(lengths, 1e-9)


@functools.cache
def _crops() -> np.ndarray:
    """Matrices, shape (10, 64, 64), that cut a share from one end of 64 pixels and enlarge the rest
    to 64 again.
    """
    shares = np.array(CROPS)[:, None]
    places = (np.arange(SIDE) + 0.5) * (1 - shares) - 0.5
    places = np.concatenate([places, places + shares * SIDE])
    return np.maximum(0, 1 - np.abs(places[..., None] - np.arange(SIDE))).astype(np.float32)
