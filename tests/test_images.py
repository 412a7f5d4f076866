"""Images: lossless PNG, windows as DICOM defines them, padding and area means."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers import images
from helpers.formats.picture import ImageError
from helpers.formats.windowing import window

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)


@given(hnp.arrays(np.uint8, SHAPES) | hnp.arrays(np.uint16, SHAPES), st.sampled_from([0, 1, 6]))
def test_png_keeps_every_value(tmp_path_factory, array, level):
    path = tmp_path_factory.mktemp("png") / "picture.png"
    path.write_bytes(images.write_png(array, level))
    back = images.read_png(path)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_png_carries_nothing_but_pixels():
    content = images.write_png(np.zeros((4, 4), np.uint8))
    chunks, place = [], 8
    while place < len(content):
        length = int.from_bytes(content[place : place + 4])
        chunks.append(content[place + 4 : place + 8])
        place += 12 + length
    assert chunks == [b"IHDR", b"IDAT", b"IEND"]


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)), np.zeros((0, 2), np.uint8)]
)
def test_other_arrays_are_no_pictures(array):
    with pytest.raises(ImageError):
        images.write_png(array)


@given(hnp.arrays(np.uint16, SHAPES, elements=st.integers(0, 4095)), st.integers(1, 50))
def test_standardise_pads_to_a_square_and_never_enlarges(array, size):
    result = images.standardise(array, size, 12)
    longer = max(array.shape)
    assert result.shape == (min(size, longer),) * 2
    assert result.dtype == np.uint16
    assert result.max() <= max(array.max(), 0)
    top, bottom, left, right = images.padding(array.shape)
    assert abs(top - bottom) <= 1 and abs(left - right) <= 1
    if size >= longer:
        np.testing.assert_array_equal(
            result[top : top + array.shape[0], left : left + array.shape[1]], array
        )
        assert result.sum() == array.sum()


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(5, 60), st.integers(5, 60))),
    st.integers(1, 5),
    st.integers(1, 5),
)
def test_area_resize_keeps_the_mean(array, height, width):
    np.testing.assert_allclose(
        images.area_resize(array, height, width).mean(), array.mean(), rtol=1e-4, atol=1e-3
    )


def test_area_resize_by_a_whole_factor_is_the_mean_of_blocks():
    array = np.random.default_rng(0).integers(0, 256, (12, 20)).astype(np.uint8)
    np.testing.assert_allclose(
        images.area_resize(array, 4, 5), array.reshape(4, 3, 5, 4).mean(axis=(1, 3)), rtol=1e-5
    )


def test_nothing_is_flipped():
    array = np.zeros((300, 200), np.uint8)
    array[:30, :20] = 255  # bright in the upper left
    result = images.standardise(array, 100, 8)
    assert result[:8, 17:22].mean() > 200 and result[-50:].max() == 0 and result[:, 60:].max() == 0


def test_values_beyond_the_depth_are_refused_not_clipped():
    with pytest.raises(ImageError, match="do not fit 8 bits"):
        images.standardise(np.full((4, 4), 256, np.uint16), 4, 8)


def linear(x, center, width, high):
    """PS3.3 C.11.2.1.2, written down as pseudo code in the standard."""
    if x <= center - 0.5 - (width - 1) / 2:
        return 0
    if x > center - 0.5 + (width - 1) / 2:
        return high
    return ((x - (center - 0.5)) / (width - 1) + 0.5) * high


@given(
    hnp.arrays(np.int16, SHAPES),
    st.integers(-2000, 2000),
    st.integers(2, 4000),
    st.sampled_from([8, 12, 16]),
)
@settings(max_examples=60)
def test_window_is_the_standards_formula(values, center, width, bits):
    pixels, clipped = window(values, center, width, bits)
    expected = np.array(
        [[linear(int(x), center, width, 2**bits - 1) for x in row] for row in values]
    )
    assert np.abs(pixels - expected).max() <= 0.51 + 2**bits * 1e-6
    assert 0 <= clipped <= 1
    order = np.argsort(values, axis=None)
    assert (np.diff(pixels.ravel()[order].astype(int)) >= 0).all(), (
        "a window keeps the order of values"
    )


@pytest.mark.parametrize(
    ("function", "middle"), [("LINEAR", 128), ("LINEAR_EXACT", 128), ("SIGMOID", 128)]
)
def test_window_functions_agree_at_the_centre(function, middle):
    pixels, _ = window(np.array([[-1e6, 40, 1e6]]), 40, 400, 8, function)
    assert pixels[0, 0] == 0 and pixels[0, 2] == 255
    assert abs(int(pixels[0, 1]) - middle) <= 1


def test_contact_sheet_marks_what_is_simulated(tmp_path):
    (tmp_path / "a.png").write_bytes(images.write_png(np.full((8, 8), 4095, np.uint16)))
    frame = pd.DataFrame(
        {"path": ["a.png"], "bits": [12], "finding": ["effusion"], "simulated": [False]}
    )
    plain = np.asarray(images.contact_sheet(frame, tmp_path))
    marked = np.asarray(images.contact_sheet(frame.assign(simulated=True), tmp_path))
    assert marked.shape[0] > plain.shape[0] and (marked[14:28, :60] < 128).any(), "a second line"
    assert (plain[17:140, 4:120] == 255).all(), "a white 12-bit image is white"
    assert images.contact_sheet(frame.iloc[:0], tmp_path).height < 40


def test_reading_what_is_no_png_says_so(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"GIF89a")
    with pytest.raises(ImageError, match=r"a\.png"):
        images.read_png(path)


@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (200, 200)])
def test_an_image_keeps_its_shape_and_its_borders(shape):
    array = np.full(shape, 90, np.uint8)
    array[[0, -1]], array[:, [0, -1]] = 255, 255  # a marked border: no pixel of it may go
    kept = images.fitted(array, 150, 8)
    assert kept.shape == tuple(length * 150 // max(shape) for length in shape)
    assert min(kept[0].min(), kept[-1].min(), kept[:, 0].min(), kept[:, -1].min()) > 150
    np.testing.assert_array_equal(images.fitted(array, 400, 8), array)
    np.testing.assert_array_equal(images.without_bars(kept, 8), kept)


@pytest.mark.parametrize("shape", [(128, 100), (100, 128)])
def test_bars_that_padding_made_or_a_generator_drew_are_found_again(shape):
    random = np.random.default_rng(0)
    array = random.integers(30, 256, shape).astype(np.uint8)
    padded = images.standardise(array, 128, 8)
    np.testing.assert_array_equal(images.without_bars(padded, 8), array)
    drawn = np.where(padded == 0, random.integers(0, 12, padded.shape), padded).astype(np.uint8)
    np.testing.assert_array_equal(images.without_bars(drawn, 8), array)


def test_air_and_dark_edges_are_no_bars():
    slice_ = np.zeros((128, 128), np.uint8)
    slice_[30:98, 20:108] = 120  # air all round, as on a CT slice
    np.testing.assert_array_equal(images.without_bars(slice_, 8), slice_)
    film = np.full((128, 128), 120, np.uint8)
    film[:, :9] = 3  # one dark edge
    np.testing.assert_array_equal(images.without_bars(film, 8), film)
    portrait = np.full((160, 128), 120, np.uint8)
    portrait[:, :9], portrait[:, -9:] = 0, 0  # never padded to a square: its own
    np.testing.assert_array_equal(images.without_bars(portrait, 8), portrait)
