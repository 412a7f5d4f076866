"""Images as the study keeps them: one channel, their own shape, 8 or 16 bit PNG.

Depth is kept: a 12-bit image is stored in uint16 with values 0..4095, and `bits` says so.

Shape: every stage stores an image in its own shape, without bars (`fitted`). So `width` and
`height` of images.csv are the true shape, and 02 requests the shapes of 01. For a model that needs
squares, `standardise` adds dark bars, and `without_bars` removes them from the squares that the
model draws. assemble_reading_set/framing.py frames images for the readers.
"""

import functools
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy import sparse

from helpers.formats import rasters, volumes
from helpers.formats.picture import ImageError, Picture

BAR_LEVEL = 0.06  # share of the grey range: every pixel of a bar is darker
BAR_LEAST = 0.015  # share of the side: narrower bars stay, because they may be a film's own edge


def read(path: Path, settings, modality: str = "") -> Iterator[Picture]:
    """Every image in a file, whatever its name: DICOM frames, lung slices of a NIfTI volume, or a
    raster image.

    `settings` has the parameters of stage 01 as attributes; `modality` (xray, ct) is known from
    elsewhere. Raises ImageError with the reason.
    """
    from helpers.formats import dicom  # pydicom belongs to an extra that only 01 needs

    with Path(path).open("rb") as file:
        start = file.read(400)
    if not start:
        raise ImageError("empty file")
    if dicom.looks_like(start):
        kind, found = "DICOM", dicom.read(path, settings, modality)
    elif volumes.looks_like(start):
        kind, found = "NIfTI", volumes.read(Path(path), settings)
    else:
        kind, found = "image", rasters.read(Path(path), start, settings.bits)
    try:
        yield from map(_with_square_pixels, found)
    except ImageError:
        raise
    except Exception as error:  # decoders fail anywhere on a damaged file, with any exception
        raise ImageError(f"damaged or unsupported {kind} ({type(error).__name__})") from None


def _with_square_pixels(picture: Picture) -> Picture:
    """The image with square pixels: it gets fewer pixels along the side on which they are
    shorter.
    """
    height, width = picture.pixels.shape
    if 0.1 < picture.aspect < 0.99:
        height = max(1, round(height * picture.aspect))
    elif 1.01 < picture.aspect < 10:
        width = max(1, round(width / picture.aspect))
    if (height, width) != picture.pixels.shape:
        resized = np.floor(area_resize(picture.pixels, height, width) + 0.5)
        picture.pixels = resized.astype(picture.pixels.dtype)
    return picture


def read_png(path: Path) -> np.ndarray:
    """A stored image, shape (H, W), uint8 or uint16.

    Raises ImageError when it is not a one-channel PNG.
    """
    try:
        with Image.open(path) as picture:
            if picture.format != "PNG" or picture.mode not in ("L", "I;16", "I;16B", "I"):
                raise ImageError(
                    f"{Path(path).name}: is {picture.format} {picture.mode}, not a one-channel PNG"
                    " of 8 or 16 bit."
                )
            array = np.asarray(picture)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{Path(path).name}: cannot be read as PNG ({error}).") from None
    return array if array.dtype == np.uint8 else array.astype(np.uint16)


def write_png(array: np.ndarray, compress_level: int = 1) -> bytes:
    """The PNG file of an image, shape (H, W), uint8 (mode L) or uint16 (I;16).

    No text, time or other chunk is written. With level 1 zlib looks only for runs: on real CT and
    X-rays this is faster than its usual strategy, and the files are smaller. Raises ImageError for
    other arrays.
    """
    array = np.asarray(array)
    if array.ndim != 2 or array.dtype not in (np.uint8, np.uint16) or array.size == 0:
        raise ImageError(
            f"An image must have shape (H, W) and dtype uint8 or uint16, not {array.shape}"
            f" {array.dtype}."
        )
    file = io.BytesIO()
    strategy = zlib.Z_RLE if compress_level == 1 else zlib.Z_DEFAULT_STRATEGY
    Image.fromarray(array).save(file, "PNG", compress_level=compress_level, compress_type=strategy)
    return file.getvalue()


def padding(shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Pixels that make an image square: (top, bottom, left, right), centred."""
    height, width = shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return top, side - height - top, left, side - width - left


def fitted(array: np.ndarray, size: int, bits: int) -> np.ndarray:
    """The image in its own shape, with its longer side reduced to `size` pixels by area averaging.
    Smaller images are not enlarged.

    `array` has shape (H, W) and values 0..2**bits-1; so has the result, as uint8 for up to 8 bits,
    else uint16. Nothing is cropped, padded, flipped or clipped. Raises ImageError for values out of
    range.
    """
    array = np.asarray(array)
    if array.ndim != 2 or array.size == 0 or size < 1 or not 1 <= bits <= 16:
        raise ImageError(
            f"Cannot standardise shape {array.shape} to {size} pixels with {bits} bits."
        )
    if array.min() < 0 or array.max() >= 2**bits:
        raise ImageError(f"Grey values {array.min()} to {array.max()} do not fit {bits} bits.")
    longer = max(array.shape)
    if longer > size:
        shape = (max(1, round(length * size / longer)) for length in array.shape)
        array = np.floor(area_resize(array, *shape) + 0.5)
    return array.astype(np.uint8 if bits <= 8 else np.uint16)


def standardise(array: np.ndarray, size: int, bits: int) -> np.ndarray:
    """The image `fitted` to `size`, and padded to a square with bars of value 0."""
    array = fitted(array, size, bits)
    top, bottom, left, right = padding(array.shape)
    return np.pad(array, ((top, bottom), (left, right)))


def without_bars(array: np.ndarray, bits: int) -> np.ndarray:
    """A square image without the bars that `standardise` adds, or that a generator drew because it
    learned from padded images.

    The rule is the same for every source and sees only pixels. A bar is dark throughout
    (BAR_LEVEL). Bars come in pairs of about equal width, on one pair of sides only. So a film's own
    dark edge and the air around a CT slice are not taken for bars.
    """
    height, width = array.shape
    dark = array <= BAR_LEVEL * (2**bits - 1)
    found = []
    for lines in (dark.all(axis=1), dark.all(axis=0)):
        first, last = int(np.argmin(lines)), int(np.argmin(lines[::-1]))
        found.append((first, last) if min(first, last) >= BAR_LEAST * len(lines) else (0, 0))
    (top, bottom), (left, right) = found
    paired = abs(top - bottom) + abs(left - right) <= 1 + BAR_LEAST * height
    if height != width or (top and left) or not paired:
        return array
    return array[top : height - bottom, left : width - right]


def area_resize(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Mean grey over each target pixel's exact area, shape (height, width), float32; only for
    reduction.
    """
    rows, columns = _overlap(array.shape[0], height), _overlap(array.shape[1], width)
    return (columns @ (rows @ array.astype(np.float32)).T).T


@functools.lru_cache(maxsize=64)
def _overlap(before: int, after: int) -> sparse.csr_matrix:
    """Sparse (after, before) matrix: the share of each new pixel that each old pixel covers; rows
    sum to 1.
    """
    edges = np.unique(
        np.concatenate([np.arange(before + 1) * after, np.arange(after + 1) * before])
    )
    middles, lengths = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    new, old = (middles // before).astype(int), (middles // after).astype(int)
    return sparse.csr_matrix(
        (lengths.astype(np.float32) / before, (new, old)), shape=(after, before)
    )


def eight_bits(array: np.ndarray, bits: int) -> np.ndarray:
    """The image's full range 0..2**bits-1 as 0..255 uint8, for the eye."""
    if bits == 8:
        return array.astype(np.uint8, copy=False)
    return np.floor(array.astype(np.float32) * (255 / (2**bits - 1)) + 0.5).astype(np.uint8)


def contact_sheet(
    frame: pd.DataFrame,
    folder: Path,
    titles: str | list[str] = "finding",
    columns: int = 8,
    tile: int = 128,
) -> Image.Image:
    """Thumbnails of the rows of an images.csv (paths relative to `folder`) on one sheet, mode L,
    row by row.

    `titles` is a column of the frame or one text per row; simulated images say so.
    """
    if not len(frame):
        sheet = Image.new("L", (2 * tile, 24), 255)
        ImageDraw.Draw(sheet).text(
            (4, 4), "no such images", fill=90, font=ImageFont.load_default(13)
        )
        return sheet
    texts = frame[titles].fillna("").tolist() if isinstance(titles, str) else list(titles)
    marked = [str(getattr(row, "simulated", "")) == "True" for row in frame.itertuples()]
    columns, caption = min(columns, len(frame)), 30 if any(marked) else 16
    rows = -(-len(frame) // columns)
    sheet = Image.new("L", (columns * (tile + 4), rows * (tile + caption + 4)), 255)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for place, (row, text, mark) in enumerate(zip(frame.itertuples(), texts, marked)):
        x, y = place % columns * (tile + 4), place // columns * (tile + caption + 4)
        picture = Image.fromarray(eight_bits(read_png(Path(folder) / row.path), int(row.bits)))
        thumbnail = ImageOps.pad(picture, (tile, tile), Image.Resampling.BOX)
        sheet.paste(thumbnail, (x + 2, y + caption))
        said = _shortened(str(text), draw, font, tile) + mark * "\nsimulated"
        draw.multiline_text((x + 3, y + 2), said, fill=0, font=font, spacing=2)
    return sheet


def _shortened(text: str, draw: ImageDraw.ImageDraw, font, width: int) -> str:
    while len(text) > 1 and draw.textlength(text, font=font) > width:
        text = text[:-2] + "…"
    return text


def effective_bits(array: np.ndarray, bits: int) -> int:
    """Bit depth as the grey levels show it: 8 for an image of 8 bits that was stretched to 12."""
    levels = np.unique(array).astype(np.int64)
    step = int(np.diff(levels).min()) if levels.size > 1 else 1
    return max(1, bits - int(np.log2(step)))
