"""Where text may be in the pixels, cheaply: a network looks for words only in windows that hold
sharp strokes, and single letters are found by their shape.

Needs the optional OCR packages: OpenCV, onnxruntime and the networks that rapidocr brings along.
"""

import functools
from importlib.util import find_spec
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageFont

SIDE = 1280  # pixels of the shorter side at which words are looked for; small images at most thrice
LETTER_SIDE = 640  # and shapes of letters
SHEET = 448  # the most that windows take of a sheet, in pixels squared; more are made smaller
STROKE, CONTRAST, SLOPE = 0.014, 35, 12  # share of the side; grey levels; grey levels per pixel
DENSITY = 0.1  # share of a neighbourhood that is strokes
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono-Bold", "DejaVuSerif-Bold")
OBLIQUE = "DejaVuSans-Oblique"
LETTERS = "ABCDEFGHKLMNPRSTUVWXYZ12345679"  # no rings, and J is a mirrored L
TILTED = "tilted"
ONE = np.ones((3, 3), np.uint8)


@functools.cache
def _networks() -> tuple:
    """The sessions that detect and recognise, and the characters that the second knows."""
    package = find_spec("rapidocr_onnxruntime") or find_spec("rapidocr")
    folder = Path(package.origin).parent / "models"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    detect, read = (
        onnxruntime.InferenceSession(str(next(folder.glob(f"*_{task}_*.onnx"))), options)
        for task in ("det", "rec")
    )
    known = read.get_modelmeta().custom_metadata_map["character"].splitlines()
    cv2.setNumThreads(1)
    return detect, read, np.array(["", *known, " "])


def _run(session, grey: np.ndarray) -> np.ndarray:
    scaled = grey.astype(np.float32) / 127.5 - 1
    return session.run(None, {"x": np.repeat(scaled[None, None], 3, axis=1)})[0][0]


def read(grey: np.ndarray) -> tuple[str, float]:
    """What one line (H, W) uint8 says, and how sure that is, 0..1."""
    height, width = grey.shape
    wide = int(np.clip(round(48 * width / height), 32, 960))
    _, session, characters = _networks()
    found = _run(session, cv2.resize(grey, (wide, 48)))
    best = found.argmax(axis=1)
    kept = (best > 0) & np.r_[True, best[1:] != best[:-1]]
    score = float(found.max(axis=1)[kept].mean()) if kept.any() else 0.0
    return "".join(characters[best[kept]]), score


def shrunk(grey: np.ndarray, side: int) -> np.ndarray:
    """The image with a shorter side of at most `side` pixels."""
    scale = side / min(grey.shape)
    if scale >= 1:
        return grey
    return cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def upright(grey: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The line of text in a box of corners (4, 2) in pixels (x, y), as a picture of its own; high
    ones are turned.
    """
    order = [
        pick(values)
        for values in (corners.sum(axis=1), corners[:, 0] - corners[:, 1])
        for pick in (np.argmin, np.argmax)
    ]
    top_left, bottom_right, bottom_left, top_right = corners[order].astype(np.float32)
    width = max(2, round(float(np.linalg.norm(top_right - top_left))))
    height = max(2, round(float(np.linalg.norm(bottom_left - top_left))))
    target = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    source = np.stack([top_left, top_right, bottom_right, bottom_left])
    line = cv2.warpPerspective(
        grey,
        cv2.getPerspectiveTransform(source, target),
        (width, height),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.rot90(line) if height >= 1.5 * width else line


def words(grey: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Boxes of what may be lines of text: corners (4, 2) in pixels (x, y) and a score 0..1."""
    found = []
    for sheet, places in _sheets(grey):
        for corners, score in _boxes(_run(_networks()[0], sheet)[0]):
            x, y = corners.mean(axis=0)
            for left, top, width, height, scale, origin in places:
                if left <= x < left + width and top <= y < top + height:
                    found.append(((corners - [left, top]) / scale + origin, score))
    return found


def _windows(grey: np.ndarray) -> np.ndarray:
    """Rectangles (left, top, width, height) that hold many sharp strokes, white or black."""
    size = max(5, int(STROKE * min(grey.shape)) | 1)
    element = np.ones((size, size), np.uint8)
    thin = np.maximum(
        cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, element),
        cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, element),
    )
    slopes = [np.abs(cv2.Sobel(grey, cv2.CV_16S, *axis)) for axis in ((1, 0), (0, 1))]
    strokes = (thin > CONTRAST) & (np.maximum(*slopes) > 8 * SLOPE)
    dense = cv2.boxFilter(strokes.astype(np.float32), -1, (2 * size, size)) > DENSITY
    near = cv2.dilate(dense.astype(np.uint8), np.ones((2 * size, 3 * size), np.uint8))
    return cv2.connectedComponentsWithStats(near)[2][1:, :4]


def _sheets(grey: np.ndarray):
    """The windows of an image side by side on one sheet for the network, and where each lies on it:
    (left, top, width, height, scale, origin in the image).
    """
    windows = _windows(shrunk(grey, LETTER_SIDE)) / min(1, LETTER_SIDE / min(grey.shape))
    if not len(windows):
        return
    windows = windows[np.argsort(-windows[:, 3])]
    scale = min(3.0, SIDE / min(grey.shape))
    area = float((windows[:, 2:] * scale + 16).prod(axis=1).sum())
    scale *= min(1.0, SHEET / np.sqrt(area))
    pieces = []
    for left, top, width, height in windows.astype(int):
        piece = grey[top : top + height + 1, left : left + width + 1]
        pieces.append(
            cv2.resize(
                piece,
                None,
                fx=scale,
                fy=scale,
                interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
            )
        )
    across = max(SHEET, *(piece.shape[1] + 16 for piece in pieces))
    places, x, y, shelf = [], 0, 0, 0
    for piece, (left, top, *_) in zip(pieces, windows.astype(int)):
        high, wide = piece.shape
        if x + wide + 16 > across:
            x, y, shelf = 0, y + shelf + 16, 0
        places.append((x, y, wide, high, scale, (left, top)))
        x, shelf = x + wide + 16, max(shelf, high)
    down = y + shelf
    sheet = np.zeros((-(-down // 32) * 32, -(-across // 32) * 32), np.uint8)
    for piece, (x, y, wide, high, *_) in zip(pieces, places):
        sheet[y : y + high, x : x + wide] = piece
    used = max(x + wide for x, _, wide, *_ in places)
    yield sheet[:, : -(-used // 32) * 32], places


def _boxes(likely: np.ndarray, least: float = 0.2, score: float = 0.3):
    """Boxes round what the network finds likely to be text (Liao et al. 2020, DB)."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((likely > least).astype(np.uint8))
    for label, (x, y, w, h, area) in enumerate(stats[1:], 1):
        part = np.s_[y : y + h, x : x + w]
        inside = labels[part] == label
        sure = float(likely[part][inside].mean())
        if area < 6 or sure < score:
            continue
        rows, columns = np.nonzero(inside)
        points = np.column_stack([columns + x, rows + y]).astype(np.float32)
        middle, (wide, high), angle = cv2.minAreaRect(points)
        away = 1.6 * (wide + 1) * (high + 1) / (wide + high + 2)
        yield cv2.boxPoints((middle, (wide + 1 + away, high + 1 + away), angle)), sure


@functools.cache
def _shapes() -> tuple[np.ndarray, list[str], np.ndarray, list[tuple[int, bool]]]:
    """Letters and other shapes as unit vectors; their names ('' for others), logarithms of width by
    height, and the quarter turns and mirroring that they were drawn with.
    """
    drawn = [(name, picture) for font in FONTS for name, picture in _drawn(font, LETTERS)]
    drawn += list(_drawn(OBLIQUE, "LR"))
    # Letters that lie askew: those by more than a little count within a line of text alone.
    drawn += [
        (name if abs(tilt) < 20 else TILTED, np.asarray(Image.fromarray(picture).rotate(tilt)))
        for name, picture in drawn
        if name in "LR"
        for tilt in (-45, -30, -15, 15, 30, 45)
    ]
    found = []
    for name, picture in drawn + _no_letters():
        rows, columns = (np.flatnonzero((picture > 100).any(axis=axis)) for axis in (1, 0))
        inside = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        for turns in range(4) if name in ("L", "R", TILTED) else (0,):
            for mirrored in (False, True):
                view = np.rot90(inside[:, ::-1] if mirrored else inside, turns)
                wide = float(np.log(view.shape[1] / view.shape[0]))
                found.append((_unit(view), name, wide, (turns, mirrored)))
    vectors, names, wide, views = zip(*found)
    return np.array(vectors), list(names), np.array(wide), list(views)


def _drawn(font: str, letters: str):
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    for letter in letters:
        picture = Image.new("L", (100, 100))
        ImageDraw.Draw(picture).text((50, 50), letter, 255, ImageFont.truetype(path, 64), "mm")
        yield letter, np.asarray(picture)


def _no_letters() -> list[tuple[str, np.ndarray]]:
    """Arrows, discs, rings, squares and bars, as electrodes, clips and buttons look."""
    pictures = [Image.new("L", (100, 100)) for _ in range(7)]
    arrow, filled, disc, ring, thin, square, bar = map(ImageDraw.Draw, pictures)
    arrow.polygon([(50, 10), (85, 50), (62, 50), (62, 90), (38, 90), (38, 50), (15, 50)], fill=255)
    filled.polygon([(50, 10), (85, 80), (15, 80)], fill=255)
    disc.ellipse([10, 10, 90, 90], fill=255)
    ring.ellipse([10, 10, 90, 90], outline=255, width=24)
    thin.ellipse([10, 10, 90, 90], outline=255, width=10)
    square.rectangle([10, 10, 90, 90], fill=255)
    bar.rectangle([40, 5, 60, 95], fill=255)
    return [("", np.rot90(picture, turns)) for picture in pictures for turns in range(4)]


def _unit(shape: np.ndarray) -> np.ndarray:
    small = cv2.resize(shape.astype(np.float32), (20, 20), interpolation=cv2.INTER_AREA).ravel()
    small -= small.mean()
    return small / (np.linalg.norm(small) + 1e-9)


def single_letters(grey: np.ndarray, lines: list[tuple[np.ndarray, float]]) -> list[np.ndarray]:
    """The corners, in pixels, of the shapes that are letters, given small boxes that may be text.

    Weights of a logistic model, fitted to 300 shapes in 150 chest films that were judged by eye.
    What passes is read too, unless it is plainly L or R, or lies in a line of text.
    """
    chosen = []
    for box, name, view, (alike, edge, peak, plateau) in _letter_like(grey):
        left, top, right, bottom = box
        middle = np.array([left + right, top + bottom]) / 2
        inside = [
            score
            for corners, score in lines
            if (corners.min(axis=0) < middle).all() and (middle < corners.max(axis=0)).all()
        ]
        likely = max(inside, default=0.0)
        sure = 9.8 * edge + 10.2 * alike + 1.6 * np.log(peak / 255) - 1.8 * plateau - 7.6
        plain = (sure > 1 and name in "LR") or (likely > 0.6 and alike > 0.68)
        if sure + 6.7 * likely > 0 and (plain or (sure > 0.1 and _is_read(view, name))):
            chosen.append(np.array([[left, top], [right, top], [right, bottom], [left, bottom]]))
    return chosen


def _is_read(shape: np.ndarray, name: str) -> bool:
    margin = max(2, shape.shape[0] // 4)
    side = max(margin, (shape.shape[0] - shape.shape[1]) // 2 + margin)
    text, score = read(np.pad((255 * shape).astype(np.uint8), ((margin, margin), (side, side))))
    return text.upper() == name and score > (0.4 if name in "LR" else 0.75)


def _letter_like(grey: np.ndarray):
    """What looks like a letter: box (left, top, right, bottom), name, picture and signs."""
    small = shrunk(grey, LETTER_SIDE)
    scale = min(grey.shape) / min(small.shape)
    size = int(0.028 * min(small.shape)) | 1
    found = []
    for tone in (small, 255 - small):
        top = cv2.morphologyEx(tone, cv2.MORPH_TOPHAT, np.ones((size, size), np.uint8))
        found += _compact(top, tone)
    if not found:
        return
    vectors, names, wide, views = _shapes()
    alike = np.stack([_unit(shape) for _, shape, *_ in found]) @ vectors.T
    own = np.log([shape.shape[1] / shape.shape[0] for _, shape, *_ in found])
    alike -= 0.15 * np.abs(own[:, None] - wide)
    for (box, shape, peak, edge, plateau), near in zip(found, alike):
        best = int(near.argmax())
        if not names[best] or near[best] < 0.55:
            continue
        turns, mirrored = views[best]
        view = np.rot90(shape, -turns)
        view = view[:, ::-1] if mirrored else view
        yield np.array(box) * scale, names[best], view, (float(near[best]), edge, peak, plateau)


def _compact(top: np.ndarray, tone: np.ndarray):
    """Compact sharp shapes in a top hat: box, picture 0..1, height in grey levels, steepness."""
    ground = tone - top
    least = min(top.shape)
    _, labels, stats, _ = cv2.connectedComponentsWithStats((top > 26).astype(np.uint8))
    x, y, w, h, area = stats.T
    long, short = np.maximum(w, h), np.minimum(w, h)
    fits = (long >= 0.012 * least) & (long < 0.1 * least) & (short >= 0.006 * least)
    fits &= (long < 7 * short) & (area >= 14) & (area > 0.15 * w * h)
    # A letter that the edge of the image cuts cannot be read by anybody.
    fits &= (x > 0) & (y > 0) & (x + w < top.shape[1]) & (y + h < top.shape[0])
    for label in np.flatnonzero(fits):
        left, above, wide, high, pixels = stats[label]
        part = np.s_[max(0, above - 1) : above + high + 1, max(0, left - 1) : left + wide + 1]
        shape = np.where(labels[part] == label, top[part], 0).astype(np.float32)
        peak = float(np.partition(shape.ravel(), -(pixels // 8 + 1))[-(pixels // 8 + 1)])
        core = (shape > peak / 2).astype(np.uint8)
        rim = core > cv2.erode(core, ONE)
        around = top[part].astype(np.float32)
        slope = np.hypot(*(cv2.Sobel(around, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1))))
        edge = _middle(slope[rim]) / (8 * peak) if rim.any() else 0.0
        rows, columns = (np.flatnonzero(core.any(axis=axis)) for axis in (1, 0))
        if peak < 34 or edge < 0.1 or len(rows) * len(columns) < 40:
            continue
        start = part[0].start + rows[0], part[1].start + columns[0]
        inside = shape[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        y0, x0, y1, x1 = *start, start[0] + len(rows), start[1] + len(columns)
        wider = ground[max(0, y0 - 3) : y1 + 3, max(0, x0 - 3) : x1 + 3]
        within = ground[y0:y1, x0:x1]
        plateau = (float(within.max()) - _middle(wider.ravel())) / peak
        box = (x0, y0, x0 + inside.shape[1], y0 + inside.shape[0])
        yield box, np.minimum(inside / peak, 1), peak, edge, plateau


def _middle(values: np.ndarray) -> float:
    """The median, ten times as fast for a few values."""
    return float(np.partition(values, len(values) // 2)[len(values) // 2])
