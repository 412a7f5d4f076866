"""What came with a paid image: its format, size and content credentials (C2PA), read from the bytes
as received.
"""

import hashlib
import io
import struct

from PIL import Image, UnidentifiedImageError

SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}


class UnusableImage(ValueError):
    """Bytes that are no whole PNG, JPEG or WebP."""


def examine(content: bytes) -> dict:
    """Format, width, height, sha256 and content credentials of an image file.

    Raises UnusableImage when it doesn't decode.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            kind, (width, height) = picture.format, picture.size
    except (
        UnidentifiedImageError,
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise UnusableImage(f"does not decode: {error}") from None
    if kind not in SUFFIXES:
        raise UnusableImage(f"is {kind}, not PNG, JPEG or WebP")
    if not _ends(content, kind):
        raise UnusableImage(f"is a {kind} without its end")
    digest = hashlib.sha256(content).hexdigest()
    return {
        "format": kind,
        "width": width,
        "height": height,
        "bytes": len(content),
        "sha256": digest,
        "c2pa": content_credentials(content),
    }


def _ends(content: bytes, kind: str) -> bool:
    """Whether the file's last part is there; a decoder may be content with the pixels."""
    if kind == "PNG":
        return any(
            name == b"IEND" for name, _ in _png_chunks(content[: content.rfind(b"IEND") + 8])
        )
    if kind == "JPEG":
        return content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda")
    return len(content) >= 8 + struct.unpack("<I", content[4:8])[0]


def content_credentials(content: bytes) -> dict:
    """The C2PA manifest store inside a file (PNG caBX, JPEG APP11, WebP C2PA chunk): present,
    bytes, sha256, whether it names c2pa.

    The claim's signature is not checked: recorded is that the file carried it and which one (C2PA
    specification 2.1, appendix A).
    """
    if content.startswith(b"\x89PNG"):
        store = b"".join(data for kind, data in _png_chunks(content) if kind == b"caBX")
    elif content.startswith(b"\xff\xd8"):
        store = b"".join(_jpeg_jumbf(content))
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        store = b"".join(data for kind, data in _riff_chunks(content) if kind == b"C2PA")
    else:
        store = b""
    if not store:
        return {"present": False}
    return {
        "present": True,
        "bytes": len(store),
        "sha256": hashlib.sha256(store).hexdigest(),
        "labelled_c2pa": b"c2pa" in store,
    }


def _png_chunks(content):
    at = 8
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        yield kind, content[at + 8 : at + 8 + length]
        at += 12 + length


def _riff_chunks(content):
    at = 12
    while at + 8 <= len(content):
        kind, length = struct.unpack("<4sI", content[at : at + 8])
        yield kind, content[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _jpeg_jumbf(content):
    """Payloads of the APP11 segments that carry JUMBF boxes, up to the image data."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] not in (0xDA, 0xD9):
        length = struct.unpack(">H", content[at + 2 : at + 4])[0]
        segment = content[at + 4 : at + 2 + length]
        if content[at + 1] == 0xEB and segment[:2] == b"JP":
            # Two bytes JP, box instance, packet number; from the second packet on the box header is
            # repeated.
            first = struct.unpack(">I", segment[4:8])[0] == 1
            yield segment[8:] if first else segment[16:]
        at += 2 + length
