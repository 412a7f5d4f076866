"""Text in the pixels - names, dates, "PORTABLE", L and R - found by OCR and masked by one rule for
every source.

What is masked in real images must be masked in generated ones too, or the mask would give the
source away.
"""

import importlib
import re
from importlib.util import find_spec

import numpy as np
from PIL import Image, ImageDraw

from helpers.images import eight_bits

CONFIDENT = 0.5  # least recognition score of words of four letters and more
SURE = 0.8  # of shorter words and large letters: clips were read as T at 0.68, ribs as INS at 0.54
MARKER_SURE = 0.4  # of a marker, at the second look
LIKELY = 0.85  # least detection score of a box that is looked at again
THIN = 0.12  # largest height of a line of text, share of the image's side
SMALL = 0.012  # largest marker, share of the image's area
ALONE = re.compile(r"[A-Za-zÀ-ÿ0-9]")
MARKER = re.compile(r"[A-Z0-9.]{1,4}")
WORD = re.compile(r"[\w .,:/-]{5,}")
NO_LETTER = {"I", "O", "Q", "T", "0"}  # wires, electrodes and arrows are misread as these


class MissingOCR(RuntimeError):
    """The OCR package is not installed; the message says how to install it or do without."""


def check() -> None:
    """Raises MissingOCR, with what to do, when text cannot be looked for on this machine."""
    if find_spec("rapidocr_onnxruntime") is None and find_spec("rapidocr") is None:
        raise MissingOCR(
            "Finding burned-in text needs the package rapidocr-onnxruntime (rapidocr from Python"
            " 3.13): pip install -e '.[ocr]', or set burned_in_text: keep if you know that the"
            " images carry no names."
        )
    try:
        importlib.import_module("helpers.letter_shapes")
    except ImportError as error:
        raise MissingOCR(
            f"The OCR package does not load ({error}): on Debian `apt install libgl1 libglib2.0-0`"
            " helps."
        ) from None


def find(array: np.ndarray, bits: int) -> list[np.ndarray]:
    """Boxes of burned-in text in an image (H, W) of values 0..2**bits-1: corners (4, 2) as shares
    (x, y) of width and height.

    A box counts when letters were read in it with confidence, when a second look finds a marker, or
    when it holds what has the shape of a letter.
    """
    check()
    from helpers import letter_shapes
    from helpers import text_detection as detection

    grey = detection.shrunk(eight_bits(array, bits), detection.SIDE)
    boxes = [
        (corners, score, np.prod(np.ptp(corners, axis=0)) < SMALL * grey.size)
        for corners, score in detection.words(grey)
    ]
    lines = [(corners, score) for corners, score, small in boxes if small]
    found = letter_shapes.single_letters(grey, lines)
    middles = np.array([corners.mean(axis=0) for corners in found]).reshape(-1, 2)
    for corners, score, small in boxes:
        inside = ((middles > corners.min(axis=0)) & (middles < corners.max(axis=0))).all(axis=1)
        line = detection.upright(grey, corners)
        if (
            (small and inside.any())
            or _is_text(corners / grey.shape[::-1], small, *detection.read(line))
            or (score > LIKELY and _is_read_another_way(line, small))
        ):
            found.append(corners)
    return [corners / grey.shape[::-1] for corners in found]


def _is_text(corners: np.ndarray, small: bool, text: str, score: float) -> bool:
    """Whether what was read is text: a word, or a few small letters that were surely read."""
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
    length = len(ALONE.findall(text))
    if min(sides) > THIN or not length or text.strip() in NO_LETTER:
        return False
    if score >= SURE:
        return small or length > 2
    return score >= CONFIDENT and length > 3 and (small or length > 5)


def _is_read_another_way(line: np.ndarray, small: bool) -> bool:
    """A second look at a box: words that run upward, upside down or mirrored; in a small box also
    letters or digits in a frame or a ring.
    """
    from helpers import text_detection as detection

    away = round(0.2 * min(line.shape))
    inner = line[away : -away or None, away : -away or None]
    turned = [np.rot90(line, turns) for turns in (1, 2, 3)]
    views = (line, line[:, ::-1], inner, inner[:, ::-1], *turned)
    for view in views if small else (line[:, ::-1], turned[1]):
        text, score = detection.read(np.ascontiguousarray(view))
        if "↑" in text:
            return False
        if WORD.fullmatch(text) and score >= SURE:
            return True
        if small and MARKER.fullmatch(text) and text not in NO_LETTER and score >= MARKER_SURE:
            return True
    return False


def mask(array: np.ndarray, boxes: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """The image with every box painted over in the median grey around it, and the share of the
    image painted.
    """
    painted, touched = array.copy(), np.zeros(array.shape, dtype=bool)
    for corners in boxes:
        inner, outer = (_grown(corners, array.shape, growth) for growth in (1.25, 1.8))
        left, top = np.maximum(np.floor(outer.min(axis=0)), 0).astype(int)
        right, bottom = np.ceil(outer.max(axis=0)).astype(int) + 1
        near = np.s_[top:bottom, left:right]
        inside, wider = (
            _filled(points - [left, top], array[near].shape) for points in (inner, outer)
        )
        ring = wider & ~inside
        painted[near][inside] = np.median(array[near][ring] if ring.any() else array)
        touched[near] |= inside
    return painted, float(touched.mean())


def _grown(corners: np.ndarray, shape: tuple[int, int], growth: float) -> np.ndarray:
    """The corners, in pixels, of a box that has grown about its centre by a share of its shorter
    side.
    """
    points = corners * [shape[1], shape[0]]
    shorter = min(np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1))
    return points + np.sign(points - points.mean(axis=0)) * ((growth - 1) * shorter / 2 + 1)


def _filled(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Which pixels of a part of an image lie in a polygon of points (x, y)."""
    picture = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(picture).polygon([tuple(point) for point in points], fill=1)
    return np.asarray(picture)


def mask_text(array: np.ndarray, bits: int) -> tuple[np.ndarray, float]:
    """Find and mask: the rule for every source.

    Returns the image and the share of it that was painted over.
    """
    return mask(array, find(array, bits))


def crop(array: np.ndarray, bits: int, corners: np.ndarray) -> Image.Image:
    """The neighbourhood of a box, for a person to look at."""
    height, width = array.shape
    low, high = corners.min(axis=0) - 0.03, corners.max(axis=0) + 0.03
    left, top = (np.clip(low, 0, 1) * [width, height]).astype(int)
    right, bottom = np.ceil(np.clip(high, 0, 1) * [width, height]).astype(int)
    return Image.fromarray(eight_bits(array[top:bottom, left:right], bits))
