"""Copies: found after recompression, resizing and another window; strangers left apart; exact and
bounded.
"""

import io

import numpy as np
import pytest
from dicom_files import chest_xray
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy.stats import rankdata

from helpers import images
from helpers.prepare_cases import duplicates


def found(*pictures):
    hashes = np.array([duplicates.perceptual_hash(one) for one in pictures], dtype=np.uint64)
    return duplicates.groups(
        hashes, np.stack([duplicates.fingerprint(one) for one in pictures])
    ).tolist()


def recompressed(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer))


def labelled(array):
    picture = Image.fromarray(array)
    draw = ImageDraw.Draw(picture)
    draw.text((12, 12), "PORTABLE 12:30", fill=255, font=ImageFont.load_default(16))
    draw.text((220, 25), "L", fill=255, font=ImageFont.load_default(30))
    return np.asarray(picture)


ORIGINAL = chest_xray(256, seed=1, bits=8)
COPIES = {
    "exact": ORIGINAL,
    "recompressed": recompressed(ORIGINAL),
    "half the size": images.standardise(ORIGINAL, 128, 8),
    "12 bits": ORIGINAL.astype(np.uint16) * 16,
    "brighter": (255 * (ORIGINAL / 255) ** 0.7).astype(np.uint8),
    "squashed": np.asarray(Image.fromarray(ORIGINAL).resize((224, 150), Image.Resampling.BILINEAR)),
    "equalised": np.asarray(ImageOps.equalize(Image.fromarray(ORIGINAL))),
    "mirrored": ORIGINAL[:, ::-1],
    "inverted": 255 - ORIGINAL,
    "mirrored and inverted": 255 - ORIGINAL[:, ::-1],
    "cropped on the left": ORIGINAL[:, 8:],
    "cropped on the right": ORIGINAL[:, :-8],
    "cropped at the top": ORIGINAL[8:],
    "cropped at the bottom": ORIGINAL[:-8],
    "labelled": labelled(ORIGINAL),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_grouped_and_other_patients_are_not(name):
    others = [chest_xray(256, seed=seed, bits=8) for seed in range(2, 8)]
    assert found(ORIGINAL, *others, COPIES[name]) == [0, 1, 2, 3, 4, 5, 6, 0]


def test_copies_of_copies_are_one_group():
    assert found(*COPIES.values()) == [0] * len(COPIES)


@given(hnp.arrays(np.uint64, st.integers(0, 60), elements=st.integers(0, 2**12)), st.integers(0, 6))
def test_near_pairs_are_all_pairs_within_the_distance(hashes, distance):
    expected = {
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= distance
    }
    listed = [
        tuple(pair) for pairs in duplicates.near_pairs(hashes, distance) for pair in pairs.tolist()
    ]
    assert set(listed) == expected and len(listed) == len(expected)


def test_near_pairs_across_blocks(monkeypatch):
    monkeypatch.setattr(duplicates, "ROWS", 3)
    monkeypatch.setattr(duplicates, "BLOCK", 5)
    hashes = np.arange(40, dtype=np.uint64) % 7
    assert sum(len(pairs) for pairs in duplicates.near_pairs(hashes, 0)) == sum(
        k * (k - 1) // 2 for k in (6, 6, 6, 6, 6, 5, 5)
    )


def test_many_identical_pictures_are_one_group_without_comparing_all_pairs():
    same = np.broadcast_to(duplicates.fingerprint(ORIGINAL), (20_000, 64, 64))
    assert set(duplicates.groups(np.full(20_000, 5, np.uint64), same).tolist()) == {0}


@pytest.mark.soak
def test_a_hundred_thousand_hashes_within_bounded_memory(record_property):
    import resource
    import time

    hashes = np.random.default_rng(0).integers(0, 2**63, 100_000, dtype=np.uint64)
    hashes[-1] = hashes[0] ^ np.uint64(0b1011)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    pairs = {tuple(pair) for some in duplicates.near_pairs(hashes) for pair in some.tolist()}
    record_property("seconds", round(time.monotonic() - began, 1))
    assert (0, 99_999) in pairs
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 200


@given(st.integers(0, 2**32 - 1), st.integers(2, 300))
def test_equal_greys_share_the_rank_in_the_middle_of_theirs(seed, greys):
    array = np.random.default_rng(seed).integers(0, greys, (16, 16)).astype(np.uint16)
    expected = (rankdata(array).ravel() - 1) * 2 / 255 - 1
    np.testing.assert_allclose(duplicates.ranks(array, 16).ravel(), expected, atol=1e-6)
