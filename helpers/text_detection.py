"""Where words may be in the pixels, cheaply: a network looks for them only in windows that hold
sharp strokes.

Needs the optional OCR packages: OpenCV, onnxruntime and the networks that rapidocr brings along.
"""

import functools
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

SIDE = 1280  # shorter side, pixels, at which words are sought; images grow at most threefold
COARSE_SIDE = 640  # shorter side, pixels, at which sharp strokes are sought
SHEET = 448  # square root of the largest area, pixels, of all windows; else they are made smaller
WHOLE_SIDE = 512  # shorter side, pixels, at which the whole image is looked at too, for faint words
WHOLE_SURE = 0.85  # least score there: vessels reached 0.73
GAP = 16  # black pixels round each window, without which letters at its edge are not found
STROKE, CONTRAST, SLOPE = 0.014, 35, 12  # share of the side; grey levels; grey levels per pixel
DENSITY = 0.1  # share of a neighbourhood that is strokes


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
    """The line of text in a box of corners (4, 2) in pixels (x, y), as an image of its own; an
    upright box is turned.
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
    """Boxes of what may be lines of text: corners (4, 2) in pixels (x, y) and a score 0..1.

    Faint or blurred words have no sharp strokes, so the whole image is looked at as well.
    """
    sheet, places = _sheet(grey)
    found = []
    for corners, score in _detected(sheet) if places else ():
        x, y = corners.mean(axis=0)
        for left, top, width, height, scale, origin in places:
            if left <= x < left + width and top <= y < top + height:
                found.append(((corners - [left, top]) / scale + origin, score))
    whole = shrunk(grey, WHOLE_SIDE)
    scale = min(grey.shape) / min(whole.shape)
    down, right = (-side % 32 for side in whole.shape)
    for corners, score in _detected(np.pad(whole, ((0, down), (0, right))), WHOLE_SURE):
        if not any(_same(corners * scale, one) for one, _ in found):
            found.append((corners * scale, score))
    return found


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two boxes overlap by more than half of what they cover together."""
    low = np.maximum(one.min(axis=0), other.min(axis=0))
    high = np.minimum(one.max(axis=0), other.max(axis=0))
    shared = np.prod(np.maximum(high - low, 0))
    return shared > 0.5 * (np.prod(np.ptp(one, axis=0)) + np.prod(np.ptp(other, axis=0)) - shared)


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


def _sheet(grey: np.ndarray) -> tuple[np.ndarray | None, list[tuple]]:
    """The windows of an image side by side on one sheet for the network, and where each lies on it:
    (left, top, width, height, scale, origin in the image).
    """
    windows = _windows(shrunk(grey, COARSE_SIDE)) / min(1, COARSE_SIDE / min(grey.shape))
    if not len(windows):
        return None, []
    windows = windows[np.argsort(-windows[:, 3])]
    scale = min(3.0, SIDE / min(grey.shape))
    area = float((windows[:, 2:] * scale + GAP).prod(axis=1).sum())
    scale *= min(1.0, SHEET / np.sqrt(area))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    windows = windows.astype(int)
    pieces = [
        cv2.resize(grey[y : y + h + 1, x : x + w + 1], None, fx=scale, fy=scale, interpolation=how)
        for x, y, w, h in windows
    ]
    widest = max(piece.shape[1] for piece in pieces) + 2 * GAP
    widths = range(widest, max(SHEET, widest) + 32, 32)
    tried = [_shelves([piece.shape for piece in pieces], width) for width in widths]
    shape, corners = min(tried, key=lambda found: np.prod(found[0]))
    sheet, places = np.zeros(shape, np.uint8), []
    for piece, (x, y), origin in zip(pieces, corners, windows[:, :2]):
        high, wide = piece.shape
        sheet[y : y + high, x : x + wide] = piece
        places.append((x, y, wide, high, scale, origin))
    return sheet, places


def _shelves(shapes: list[tuple], across: int) -> tuple[tuple[int, int], list[tuple]]:
    """Pieces (height, width), the tallest first, laid in rows `across` pixels wide: the shape of
    the sheet and the corner (x, y) of each piece.
    """
    corners, x, y, shelf, used = [], GAP, GAP, 0, 0
    for high, wide in shapes:
        if x + wide + GAP > across:
            x, y, shelf = GAP, y + shelf + GAP, 0
        corners.append((x, y))
        x, shelf = x + wide + GAP, max(shelf, high)
        used = max(used, x)
    return (-(-(y + shelf + GAP) // 32) * 32, -(-used // 32) * 32), corners


def _detected(grey: np.ndarray, least_score: float = 0.3, least: float = 0.2):
    """Boxes round what the network finds likely to be text (Liao et al. 2020, DB), and scores."""
    likely = _run(_networks()[0], grey)[0]
    _, labels, stats, _ = cv2.connectedComponentsWithStats((likely > least).astype(np.uint8))
    for label, (x, y, w, h, area) in enumerate(stats[1:], 1):
        part = np.s_[y : y + h, x : x + w]
        inside = labels[part] == label
        sure = float(likely[part][inside].mean())
        if area < 6 or sure < least_score:
            continue
        rows, columns = np.nonzero(inside)
        points = np.column_stack([columns + x, rows + y]).astype(np.float32)
        middle, (wide, high), angle = cv2.minAreaRect(points)
        away = 1.6 * (wide + 1) * (high + 1) / (wide + high + 2)
        yield cv2.boxPoints((middle, (wide + 1 + away, high + 1 + away), angle)), sure
