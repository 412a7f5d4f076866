"""PNG, JPEG, TIFF, WebP: depth kept, colour and transparency reduced, EXIF obeyed, damage named."""

import struct
import zlib

import dicom_files
import numpy as np
import pytest
from dicom_files import chest_xray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import images
from helpers.formats import rasters
from helpers.formats.picture import ImageError
from helpers.formats.windowing import luminance


def read(path, **options):
    return dicom_files.read(path, **options)[0]


def png16(path, values):
    """A 16-bit PNG of grey (H, W), grey and alpha, RGB or RGBA (H, W, 2 to 4):

    Pillow writes grey alone.
    """
    values = values[..., None] if values.ndim == 2 else values
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name, content):
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


DEEP = chest_xray(96, bits=16)
FLAT = chest_xray(96, bits=8)


@pytest.mark.parametrize("name", ["grey.png", "grey.tif"])
def test_sixteen_bit_grey_keeps_every_value(tmp_path, name):
    Image.fromarray(DEEP).save(tmp_path / name)
    shown = read(tmp_path / name)
    assert shown.bits == 16 and shown.original_bits == 16
    np.testing.assert_array_equal(shown.pixels, DEEP)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bit_colour_keeps_its_low_byte(tmp_path, channels):
    opaque = np.full(DEEP.shape, 65535, np.uint16)
    values = {2: [DEEP, opaque], 3: [DEEP] * 3, 4: [*[DEEP] * 3, opaque]}[channels]
    shown = read(png16(tmp_path / "deep.png", np.dstack(values)))
    assert shown.bits == 16
    np.testing.assert_array_equal(shown.pixels, DEEP)


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_colour_tiff_keeps_its_low_byte(tmp_path, order):
    height, width = DEEP.shape
    pixels = np.dstack([DEEP] * 3).astype(f"{order}u2").tobytes()
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 3, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 14),
        (277, 3, 1, 3),
    ]
    tags += [(278, 3, 1, height), (279, 4, 1, len(pixels)), (284, 3, 1, 1)]
    content = (
        (b"II" if order == "<" else b"MM")
        + struct.pack(f"{order}HI", 42, 14 + len(pixels))
        + struct.pack(f"{order}3H", 16, 16, 16)
        + pixels
    )
    content += struct.pack(f"{order}H", len(tags))
    for tag, kind, count, value in tags:
        short = kind == 3 and count == 1
        content += struct.pack(f"{order}HHI", tag, kind, count) + struct.pack(
            f"{order}HH" if short else f"{order}I", *((value, 0) if short else (value,))
        )
    (tmp_path / "deep.tif").write_bytes(content + b"\0\0\0\0")
    np.testing.assert_array_equal(read(tmp_path / "deep.tif").pixels, DEEP)


def test_twelve_bits_in_a_sixteen_bit_file_are_not_black(tmp_path):
    values = chest_xray(96, bits=12)
    Image.fromarray(values).save(tmp_path / "twelve.png")
    shown = read(tmp_path / "twelve.png")
    assert shown.bits == int(values.max()).bit_length()
    np.testing.assert_array_equal(shown.pixels, values)


def test_a_shallower_depth_is_rounded_not_clipped(tmp_path):
    Image.fromarray(DEEP).save(tmp_path / "deep.png")
    shown = read(tmp_path / "deep.png", bits=12)
    assert shown.bits == 12
    assert np.abs(shown.pixels / 4095 - DEEP / 65535).max() < 1 / 4095


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.webp", "a.gif", "misnamed.dcm"])
def test_eight_bits_come_back_as_they_are(tmp_path, name):
    form = {"webp": {"lossless": True, "format": "WEBP"}, "dcm": {"format": "PNG"}}.get(
        name.split(".")[1], {}
    )
    Image.fromarray(FLAT).save(tmp_path / name, **form)
    np.testing.assert_array_equal(read(tmp_path / name).pixels, FLAT)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "CMYK", "1", "I", "F"])
def test_every_mode_becomes_grey(tmp_path, mode):
    picture = Image.fromarray(FLAT)
    converted = picture.convert("RGB").convert("CMYK") if mode == "CMYK" else picture.convert(mode)
    converted.save(tmp_path / "a.tif")
    shown = read(tmp_path / "a.tif")
    assert shown.pixels.shape == FLAT.shape
    grey = images.eight_bits(shown.pixels, shown.bits).astype(float)
    assert np.corrcoef(grey.ravel(), FLAT.ravel())[0, 1] > (0.1 if mode == "1" else 0.99)


def test_transparent_is_black_whatever_colour_lies_below(tmp_path):
    colour = np.dstack([np.full((70, 70), 200, np.uint8)] * 3 + [np.full((70, 70), 255, np.uint8)])
    colour[:35, :, 3] = 0
    Image.fromarray(colour).save(tmp_path / "a.png")
    pixels = read(tmp_path / "a.png").pixels
    assert (pixels[:35] == 0).all() and (pixels[35:] == 200).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed(tmp_path, orientation):
    upright = np.zeros((80, 100), np.uint8)
    upright[:20, :30] = 255
    inverse = {
        2: 0,
        3: 3,
        4: 1,
        5: 5,
        6: 2,
        7: 6,
        8: 4,
    }  # the transposition that undoes each orientation's
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(inverse[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "a.png").pixels, upright)


def test_every_page_of_a_tiff_is_read(tmp_path):
    pages = [Image.fromarray(chest_xray(80, seed, 8)) for seed in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert [one.frame for one in dicom_files.read(tmp_path / "a.tif")] == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.png", b"", "empty file"),
        ("notes.txt", b"some words", "text, not an image"),
        ("a.zip", b"PK\x03\x04" + b"\0" * 50, "zip archive"),
        ("a.pdf", b"%PDF-1.7\n", "PDF"),
        ("a.bin", bytes(range(256)), "not an image"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "damaged or unsupported image"),
    ],
)
def test_what_is_no_picture_says_what_it_is(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        list(dicom_files.read(tmp_path / name))


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    picture = Image.fromarray(FLAT)
    for name in ("a.png", "a.jpg", "a.tif", "a.webp"):
        picture.save(folder / name)
    png16(folder / "deep.png", np.dstack([DEEP] * 3))
    return folder / "damaged", [path.read_bytes() for path in sorted(folder.iterdir())]


@given(
    st.integers(0, 4),
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_damaged_files_give_a_picture_or_a_reason(originals, which, cut, flips):
    path, contents = originals
    content = bytearray(contents[which][: int(len(contents[which]) * cut)])
    for place, value in flips:
        if content:
            content[int(place * (len(content) - 1))] = value
    path.write_bytes(bytes(content))
    try:
        for one in dicom_files.read(path):
            assert one.pixels.ndim == 2
    except ImageError as error:
        assert str(error)


def test_white_is_zero_tiffs_are_turned_round_at_every_depth(tmp_path):
    for values in (FLAT, DEEP, DEEP.astype(np.float32), DEEP / np.float32(2**16)):
        path = tmp_path / "a.tif"
        turned = values.dtype.type(2 ** int(values.max()).bit_length() - 1) - values
        Image.fromarray(turned).save(path)
        expected = read(path).pixels
        Image.fromarray(values).save(path)
        content = bytearray(path.read_bytes())
        start = int.from_bytes(content[4:8], "little")
        for entry in range(int.from_bytes(content[start : start + 2], "little")):
            place = start + 2 + 12 * entry
            if int.from_bytes(content[place : place + 2], "little") == 262:
                content[place + 8 : place + 10] = b"\0\0"
        path.write_bytes(content)
        np.testing.assert_array_equal(read(path).pixels, expected)


@pytest.mark.parametrize("suffix", ["jpg", "tif", "webp"])
def test_exif_orientation_is_obeyed_once_in_every_format(tmp_path, suffix):
    upright = np.zeros((80, 100), np.uint8)
    upright[:20, :30] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / f"a.{suffix}", exif=exif)
    assert np.abs(read(tmp_path / f"a.{suffix}").pixels.astype(int) - upright).mean() < 4


@pytest.mark.parametrize("suffix", ["jpg", "tif", "png", "bmp"])
def test_a_resolution_that_differs_across_and_down_gives_square_pixels(tmp_path, suffix):
    Image.fromarray(FLAT).save(tmp_path / f"a.{suffix}", dpi=(300, 150))
    assert read(tmp_path / f"a.{suffix}").pixels.shape == (96, 48)
    Image.fromarray(FLAT).save(tmp_path / f"b.{suffix}", dpi=(300, 300))
    assert read(tmp_path / f"b.{suffix}").pixels.shape == (96, 96)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_a_resolution_is_that_of_the_stored_rows(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(FLAT).save(tmp_path / f"a.{suffix}", dpi=(300, 150), exif=exif)
    assert read(tmp_path / f"a.{suffix}").pixels.shape == (48, 96)


@pytest.mark.parametrize("name", ["a.eps", "a.ico", "a.pdf"])
def test_what_pillow_would_also_open_is_no_radiograph(tmp_path, name):
    Image.fromarray(FLAT).save(tmp_path / name)
    with pytest.raises(ImageError, match="not an image"):
        read(tmp_path / name)


def test_an_enormous_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("L", (400, 300)).save(tmp_path / "flat.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400 * 300 - 1)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    monkeypatch.setattr(rasters.Image, "MAX_IMAGE_PIXELS", 400 * 300 - 1)
    with pytest.raises(ImageError, match="more than 0 are not read"):
        read(tmp_path / "flat.png")


def test_colour_is_turned_grey_as_pillow_does_and_equal_channels_stay(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (64, 80, 3)).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.png")
    np.testing.assert_allclose(read(tmp_path / "a.png").pixels, luminance(colour), atol=1)
    Image.fromarray(np.repeat(colour[..., :1], 3, axis=2)).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read(tmp_path / "b.png").pixels, colour[..., 0])
