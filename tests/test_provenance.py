"""What came with an image, read from its bytes."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from helpers.generate_openai import paid_images, provenance
from helpers.rehearsal import image_api_answers

JUMBF = struct.pack(">I4s", 20, b"jumb") + b"\0\0\0\x0cjumdc2pa"


def picture(kind, mode="RGB", **how):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64 * 48 * 3, dtype=np.uint8).reshape(48, 64, 3)).convert(mode).save(
        buffer, kind, **how
    )
    return buffer.getvalue()


def test_content_credentials_in_a_png():
    plain = picture("PNG")
    assert provenance.examine(plain)["c2pa"] == {"present": False}
    found = provenance.examine(image_api_answers.with_credentials(plain))
    assert (
        found["c2pa"]["present"]
        and found["c2pa"]["labelled_c2pa"]
        and (found["width"], found["height"]) == (64, 48)
    )
    chunk = (
        struct.pack(">I", len(JUMBF))
        + b"caBX"
        + JUMBF
        + struct.pack(">I", zlib.crc32(b"caBX" + JUMBF))
    )
    assert provenance.content_credentials(plain[:33] + chunk + plain[33:])["bytes"] == len(JUMBF)


def test_content_credentials_in_a_jpeg_of_several_segments():
    plain = picture("JPEG")
    store = JUMBF + bytes(100)
    store = struct.pack(">I", len(store)) + store[4:]
    parts = []
    for number, content in enumerate((store[:50], store[:8] + store[50:]), 1):
        segment = b"JP" + struct.pack(">HI", 1, number) + content
        parts.append(b"\xff\xeb" + struct.pack(">H", len(segment) + 2) + segment)
    assert provenance.examine(plain)["c2pa"] == {"present": False}
    found = provenance.content_credentials(plain[:2] + b"".join(parts) + plain[2:])
    assert (
        found["present"]
        and found["bytes"] == len(store)
        and found["sha256"] == __import__("hashlib").sha256(store).hexdigest()
    )


def test_content_credentials_in_a_webp():
    plain = picture("WEBP")
    chunk = b"C2PA" + struct.pack("<I", len(JUMBF)) + JUMBF
    content = plain + chunk
    content = content[:4] + struct.pack("<I", len(content) - 8) + content[8:]
    assert provenance.content_credentials(plain) == {"present": False}
    assert provenance.content_credentials(content)["bytes"] == len(JUMBF)


@pytest.mark.parametrize(
    "content", [b"", b"not an image", picture("PNG")[:100], picture("GIF"), b"\x89PNG\r\n\x1a\n"]
)
def test_what_does_not_decode_is_refused(content):
    with pytest.raises(provenance.UnusableImage):
        provenance.examine(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_file_without_its_last_bytes_is_refused_though_its_pixels_are_there(kind):
    content = picture(kind)
    assert provenance.examine(content)["bytes"] == len(content)
    with pytest.raises(provenance.UnusableImage):
        provenance.examine(content[: -10 if kind == "PNG" else -1])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_grey_copies_of_every_kind_of_png(tmp_path, mode):
    path = tmp_path / "a.png"
    path.write_bytes(picture("PNG", mode))
    grey = paid_images.grey(path)
    assert grey.shape == (48, 64) and grey.dtype == np.uint8 and grey.std() > 10


def test_sixteen_bits_are_scaled_and_transparency_is_black(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(path)
    assert (paid_images.grey(path) == 156).all()
    Image.fromarray(
        np.dstack([np.full((4, 4, 3), 200, np.uint8), np.zeros((4, 4), np.uint8)])
    ).save(path)
    assert (paid_images.grey(path) == 0).all()
