"""Text in the pixels - names, dates, "PORTABLE", L and R - found by OCR and masked by one rule for
every source.

What is masked in real images must be masked in generated ones too, or the mask would give the
source away.
"""

import functools
import re
from importlib.util import find_spec

import numpy as np
from PIL import Image, ImageDraw

from helpers.formats.picture import ImageError
from helpers.images import area_resize, eight_bits

# pixels at which text is looked for; at 1024 one marker in ten was missed, at 736 one in three
OCR_SIDE = 1280
BOX_THRESHOLD = 0.3  # low, so that single letters are found; `_is_text` sorts out what is none
CONFIDENT = 0.5  # recognition score from which words of four letters and more are believed
SURE = 0.8  # and shorter ones, or large letters: clips were read as T at 0.68, ribs as INS at 0.54
MARKER_SURE = 0.75  # at the second look; wires and clips never were L or R at more than 0.62
THIN = 0.12  # of the image's side: the shorter side of what can be a line of text
SMALL = 0.012  # of the image's area: the most that one or two letters take
LETTERS = re.compile(r"[A-Za-zÀ-ÿ0-9]")
MARKER = re.compile(r"[LR][A-Z.]{0,3}")


class MissingOCR(RuntimeError):
    """The OCR package is not there; the message says how to get it or do without."""


@functools.cache
def _engine():
    """What finds text, from an RGB image to (corners, text, score) of all that may be some, and
    what reads one line, from an RGB image to (text, score).
    """
    if find_spec("rapidocr_onnxruntime") is None and find_spec("rapidocr") is None:
        raise MissingOCR(
            "Finding burned-in text needs the package rapidocr-onnxruntime (rapidocr from Python"
            " 3.13): pip install -e '.[ocr]', or set burned_in_text: keep if you know that the"
            " images carry no names."
        )
    try:
        if find_spec("rapidocr_onnxruntime") is None:
            return _later_engine()
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise MissingOCR(
            f"The OCR package does not load ({error}): on Debian `apt install libgl1 libglib2.0-0`"
            " helps."
        ) from None
    engine = RapidOCR(
        intra_op_num_threads=1,
        inter_op_num_threads=1,
        det_limit_side_len=OCR_SIDE,
        det_limit_type="min",
        det_thresh=0.2,
    )

    def find_in(image: np.ndarray) -> list[tuple]:
        # Small images are enlarged, but not beyond what their letters need.
        engine.text_det.limit_side_len = min(OCR_SIDE, 3 * min(image.shape[:2]))
        return engine(image, use_cls=False, text_score=0.0, box_thresh=BOX_THRESHOLD)[0] or []

    return find_in, lambda image: tuple(engine.text_rec([image])[0][0][:2])


def _later_engine():
    """The same from the successor of the package, which is the one for Python 3.13 and later."""
    from rapidocr import RapidOCR

    runtime = "EngineConfig.onnxruntime"
    engine = RapidOCR(
        params={
            "Global.text_score": 0.0,
            "Global.log_level": "error",
            "Det.limit_side_len": OCR_SIDE,
            "Det.limit_type": "min",
            "Det.thresh": 0.2,
            "Det.box_thresh": BOX_THRESHOLD,
            f"{runtime}.intra_op_num_threads": 1,
            f"{runtime}.inter_op_num_threads": 1,
        }
    )

    def find_in(image: np.ndarray) -> list[tuple]:
        found = engine(image, use_det=True, use_cls=False, use_rec=True)
        return [] if found.boxes is None else list(zip(found.boxes, found.txts, found.scores))

    def read(image: np.ndarray) -> tuple[str, float]:
        found = engine(image, use_det=False, use_cls=False, use_rec=True)
        return (found.txts[0], found.scores[0]) if found.txts else ("", 0.0)

    return find_in, read


def check() -> None:
    """Raises MissingOCR, with what to do, when text cannot be looked for on this machine."""
    _engine()


def find(array: np.ndarray, bits: int) -> list[np.ndarray]:
    """Boxes of burned-in text in an image (H, W) of values 0..2**bits-1: corners (4, 2) as shares
    (x, y) of width and height.

    A box counts when letters were read in it with confidence, or when a second look finds a marker.
    """
    height, width = array.shape
    scale = min(1.0, OCR_SIDE / min(height, width))
    grey = eight_bits(array, bits)
    if scale < 1:
        grey = np.floor(
            area_resize(grey, round(height * scale), round(width * scale)) + 0.5
        ).astype(np.uint8)
    found = _engine()[0](np.dstack([grey] * 3))
    size = np.array([grey.shape[1], grey.shape[0]], dtype=float)
    boxes = [
        (np.asarray(corners, dtype=float) / size, str(text), float(score))
        for corners, text, score in found
    ]
    return [
        corners
        for corners, text, score in boxes
        if _is_text(corners, text, score) or _is_marker(grey, corners)
    ]


def _is_text(corners: np.ndarray, text: str, score: float) -> bool:
    """Whether what was read is text: a word, or a few small letters that were surely read."""
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
    small = float(np.prod(np.ptp(corners, axis=0))) < SMALL
    length = len(LETTERS.findall(text))
    if min(sides) > THIN or not length:
        return False
    if score >= SURE:
        return small or length > 2
    return score >= CONFIDENT and length > 3 and (small or length > 5)


def _is_marker(grey: np.ndarray, corners: np.ndarray) -> bool:
    """A second look at a small box: L or R in a frame, in a ring, lying, mirrored or upside down.

    Anatomy, clips and wires are not read as L or R whichever way they are turned.
    """
    low, high = (corners.min(axis=0), corners.max(axis=0))
    if float(np.prod(high - low)) >= SMALL:
        return False
    shape = np.array(grey.shape[::-1])
    read = _engine()[1]
    for margin in (0.15, -0.15, -0.3):  # with what is around it, then without frame and ring
        away = margin * ((high - low) * shape).min()
        left, top = np.maximum(low * shape - away, 0).astype(int)
        right, bottom = np.ceil(high * shape + away).astype(int)
        crop = grey[top:bottom, left:right]
        if min(crop.shape) < 6:
            continue
        enlarged = (48 * side // min(crop.shape) for side in crop.shape[::-1])
        crop = np.asarray(Image.fromarray(crop).resize(tuple(enlarged)))
        for look in (crop, crop[:, ::-1], *(np.rot90(crop, turns) for turns in (1, 2, 3))):
            text, score = read(np.dstack([look] * 3))
            if MARKER.fullmatch(str(text).strip()) and float(score) >= MARKER_SURE:
                return True
    return False


def mask(array: np.ndarray, boxes: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """The image with every box painted over in the median grey around it, and the share of the
    image painted.
    """
    painted, touched = array.copy(), np.zeros(array.shape, dtype=bool)
    for corners in boxes:
        inside = _filled(corners, array.shape, 1.25)
        ring = _filled(corners, array.shape, 1.8) & ~inside
        painted[inside] = np.median(array[ring]) if ring.any() else np.median(array)
        touched |= inside
    return painted, float(touched.mean())


def _filled(corners: np.ndarray, shape: tuple[int, int], growth: float) -> np.ndarray:
    """Which pixels lie in a box that has grown about its centre by a share of its shorter side."""
    centre = corners.mean(axis=0)
    points = corners * [shape[1], shape[0]]
    middle = centre * [shape[1], shape[0]]
    away = points - middle
    shorter = min(np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1))
    grown = points + np.sign(away) * ((growth - 1) * shorter / 2 + 1)
    picture = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(picture).polygon([tuple(point) for point in grown], fill=1)
    return np.asarray(picture)


def mask_text(array: np.ndarray, bits: int) -> tuple[np.ndarray, float]:
    """Find and mask: the rule for every source.

    Returns the image and the share of it that was painted over.
    """
    return mask(array, find(array, bits))


def crop(array: np.ndarray, bits: int, corners: np.ndarray) -> Image.Image:
    """The neighbourhood of a box, for a person to look at."""
    if array.ndim != 2:
        raise ImageError("a crop needs one channel")
    height, width = array.shape
    low, high = corners.min(axis=0) - 0.03, corners.max(axis=0) + 0.03
    left, top = (np.clip(low, 0, 1) * [width, height]).astype(int)
    right, bottom = np.ceil(np.clip(high, 0, 1) * [width, height]).astype(int)
    return Image.fromarray(eight_bits(array[top:bottom, left:right], bits))
