"""Reads PNG, JPEG, TIFF, WebP, BMP and similar files as grey images with their full depth.

Pillow silently opens 16-bit colour as 8-bit; here it keeps its 16 bits.
"""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from helpers.formats.picture import ImageError, Picture
from helpers.formats.windowing import full_range, luminance, reduced

Image.MAX_IMAGE_PIXELS = 200_000_000  # larger images are refused before anything is decoded
# Only these: Pillow would run Ghostscript on EPS, and it reads icons, fonts and arbitrary bytes as
# images.
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "DIB", "GIF", "JPEG2000", "PPM", "AVIF")
NOT_IMAGES = {
    b"PK\x03\x04": "zip archive",
    b"\x1f\x8b": "gzip archive",
    b"%PDF": "PDF",
    b"Rar!": "rar archive",
    b"7z\xbc\xaf": "7z archive",
}
CONTROL = re.compile(rb"[\0-\x08\x0e-\x1f]")  # bytes that texts do not have
TEXT = (
    "csv",
    "tsv",
    "txt",
    "md",
    "json",
    "xml",
    "html",
    "xlsx",
    "xls",
    "yaml",
    "yml",
    "dump",
    "log",
    "py",
    "ipynb",
)


def read(path: Path, start: bytes, bits: int) -> Iterator[Picture]:
    """Every page of a raster image as a Picture.

    `start` is the file's first bytes. Raises ImageError with the reason.
    """
    # The file is opened here: Pillow maps files that it opens itself, and then reads rotated TIFFs
    # wrongly.
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")
        try:
            picture = Image.open(file, formats=FORMATS)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            raise ImageError(_what(path, start)) from None
        if picture.width * picture.height > Image.MAX_IMAGE_PIXELS:
            raise ImageError(
                f"image of {picture.width * picture.height / 1e6:.0f} megapixels: more than"
                f" {Image.MAX_IMAGE_PIXELS / 1e6:.0f} are not read"
            )
        pages = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
        for number in range(pages):
            picture.seek(number)
            page = _page(picture, path, number, bits)
            if number == pages - 1:
                picture.close()  # or Pillow's copy of a large image would be held while in use
            yield page


def _what(path: Path, start: bytes) -> str:
    if path.suffix.lower() in (".xlsx", ".xlsm", ".xls", ".ods"):
        return "spreadsheet, not an image: save it as CSV if it holds labels"
    for magic, name in NOT_IMAGES.items():
        if start.startswith(magic):
            return f"{name}, not an image: unpack it if it holds images"
    if start[:8].startswith((b"\x89PNG", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"RIFF")):
        return "damaged or unsupported image: its header cannot be read"
    return (
        "text, not an image"
        if path.suffix[1:].lower() in TEXT or not CONTROL.search(start)
        else "not an image"
    )


def _aspect(picture: Image.Image) -> float:
    """Height of a pixel over its width, from the resolutions that the file states; 1 without."""
    info = picture.info
    stated = info.get("dpi") or info.get("aspect") or info.get("jfif_density") or (1, 1)
    across, down = map(float, stated)
    # Asking a PNG for its EXIF would decode it.
    if picture.format != "PNG" and picture.getexif().get(ExifTags.Base.Orientation, 1) > 4:
        across, down = down, across
    return across / down if across > 0 and down > 0 else 1.0


def _page(picture: Image.Image, path: Path, number: int, bits: int) -> Picture:
    aspect = _aspect(picture)  # before the picture is turned
    values, deep = _values(picture, path)
    pixels, depth = _as_grey(luminance(values) if values.ndim == 3 else values, deep, bits)
    colour = values.ndim == 3 or picture.mode == "RGB"
    return Picture(
        pixels,
        depth,
        kind=f"{picture.format}, {deep} bit{' colour' if colour else ''}",
        frame=number,
        window="as stored" if deep <= bits else "full range",
        original_bits=deep,
        aspect=aspect,
    )


def _values(picture: Image.Image, path: Path) -> tuple[np.ndarray, int]:
    """Stored values, shape (H, W) or (H, W, 3) with alpha laid on black, turned as EXIF says, and
    their depth in bits.
    """
    arguments = picture.tile[0].args if picture.tile else ()
    rawmode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    if rawmode in (
        "RGB;16B",
        "RGB;16L",
        "RGB;16N",
        "RGBA;16B",
        "RGBA;16L",
        "RGBA;16N",
        "RGBX;16L",
        "RGBX;16B",
        "LA;16B",
    ):
        return _on_black(_sixteen_bit_colour(picture, path, rawmode), 65535), 16
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L")), 8
    if picture.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F", "I;16S"):
        values = np.asarray(picture)
        if picture.format == "TIFF" and picture.tag_v2.get(0x0106) == 0:
            # White is zero here: Pillow inverts 8-bit images but not deeper ones.
            white = 2 ** int(values.max()).bit_length() - 1 if values.dtype.kind == "u" else 0
            values = values.dtype.type(white) - values
        fits = values.dtype.kind in "iu" and values.min() >= 0 and values.max() < 65536
        return values, 16 if picture.mode.startswith("I;16") or fits else 32
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        return _on_black(np.asarray(picture.convert("RGBA")), 255), 8
    if picture.mode == "RGB":  # Pillow's luma is `luminance`, in a quarter of the memory
        return np.asarray(picture.convert("L")), 8
    return np.asarray(picture.convert("RGB")), 8


def _sixteen_bit_colour(picture: Image.Image, path: Path, rawmode: str) -> np.ndarray:
    """Both bytes of 16-bit colour.

    Pillow keeps the byte that its raw mode names, so the file is decoded once for each byte.
    """
    if rawmode == "LA;16B":
        # Four bytes per pixel, as in 8-bit RGBA: grey high, grey low, alpha high, alpha low.
        both = _decoded(picture, path, "RGBA", "RGBA").astype(np.uint16)
        grey, alpha = both[..., 0] * 256 + both[..., 1], both[..., 2] * 256 + both[..., 3]
        return np.dstack([grey, grey, grey, alpha])
    family, order = rawmode.split(";")
    stored = {"16B": "16B", "16L": "16L"}.get(order) or ("16L" if np.little_endian else "16B")
    other = "16L" if stored == "16B" else "16B"
    high = _decoded(picture, path, f"{family};{stored}", picture.mode).astype(np.uint16)
    low = _decoded(picture, path, f"{family};{other}", picture.mode).astype(np.uint16)
    return high * 256 + low


def _decoded(picture: Image.Image, path: Path, wanted: str, mode: str) -> np.ndarray:
    with path.open("rb") as file, Image.open(file, formats=FORMATS) as again:
        again.seek(picture.tell())
        again.tile = [
            tile._replace(args=(wanted, *tile.args[1:]) if isinstance(tile.args, tuple) else wanted)
            for tile in again.tile
        ]
        again._mode = mode
        ImageOps.exif_transpose(again, in_place=True)
        return np.asarray(again)


def _on_black(colour: np.ndarray, full: int) -> np.ndarray:
    if colour.shape[2] == 3:
        return colour
    alpha = colour[..., 3:].astype(np.float64) / full
    return np.floor(colour[..., :3] * alpha + 0.5).astype(colour.dtype)


def _as_grey(values: np.ndarray, deep: int, bits: int) -> tuple[np.ndarray, int]:
    if deep == 8:
        return values.astype(np.uint8, copy=False), 8
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError("grey values are not finite numbers")
    if deep == 32:
        return full_range(values, bits)
    used = max(8, int(values.max()).bit_length())
    return reduced(values, used, min(used, bits)), min(used, bits)
