"""Single letters in the pixels - L and R, drawn or of lead, initials, digits - found by shape.

Needs OpenCV and, for what the shape leaves open, the networks of text_detection.
"""

import functools
import itertools
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from helpers.text_detection import read, shrunk

SIDE = 640  # larger images are reduced to this shorter side, pixels, before letters are sought
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono-Bold", "DejaVuSerif-Bold")
OBLIQUE = "DejaVuSans-Oblique"
LETTERS = "ABCDEFGHKLMNPRSTUVWXYZ12345679"  # no rings, and J is a mirrored L
TILTED = "tilted"
ONE = np.ones((3, 3), np.uint8)


@functools.cache
def _shapes() -> tuple[np.ndarray, list[str], np.ndarray, list[tuple[int, bool]]]:
    """Letters and other shapes as unit vectors; their names ('' for others), logarithms of width by
    height, and the quarter turns and mirroring that they were drawn with.
    """
    drawn = [(name, picture) for font in FONTS for name, picture in _drawn(font, LETTERS)]
    drawn += list(_drawn(OBLIQUE, "LR")) + _lead_letters((36, 46, 58), (11, 16, 21), (11, 17))
    # Letters may be rotated. Those rotated by 20 degrees or more count only in a line of text.
    drawn += [
        (name if abs(tilt) < 20 else TILTED, np.asarray(Image.fromarray(picture).rotate(tilt)))
        for name, picture in drawn
        if name in "LR"
        for tilt in (-45, -30, -15, 15, 30, 45)
    ]
    drawn += _lead_letters((66,), (24, 32), (20, 27))
    found = []
    for name, picture in drawn + _no_letters():
        rows, columns = (np.flatnonzero((picture > 100).any(axis=axis)) for axis in (1, 0))
        inside = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        for turns in range(4) if name in ("L", "R", TILTED) else (0,):
            for mirrored in (False, True):
                view = np.rot90(inside[:, ::-1] if mirrored else inside, turns)
                wide = float(np.log(view.shape[1] / view.shape[0]))
                found.append((view, name, wide, (turns, mirrored)))
    shapes, names, wide, views = zip(*found)
    return _units(shapes), list(names), np.array(wide, np.float32), list(views)


def _drawn(font: str, letters: str):
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    for letter in letters:
        picture = Image.new("L", (100, 100))
        ImageDraw.Draw(picture).text((50, 50), letter, 255, ImageFont.truetype(path, 64), "mm")
        yield letter, np.asarray(picture)


def _lead_letters(widths: tuple, stems: tuple, feet: tuple) -> list[tuple[str, np.ndarray]]:
    """L as it is cut out of lead, 80 pixels high: its width and those of its stem and foot differ
    from print.
    """
    found = []
    for width, stem, foot in itertools.product(widths, stems, feet):
        picture = Image.new("L", (100, 100))
        pen = ImageDraw.Draw(picture)
        pen.rectangle([20, 10, 20 + stem, 90], fill=255)
        pen.rectangle([20, 90 - foot, 20 + width, 90], fill=255)
        found.append(("L", np.asarray(picture)))
    return found


def _no_letters() -> list[tuple[str, np.ndarray]]:
    """Arrows, discs, rings, squares and bars, as electrodes, clips, wires and buttons look."""
    arrow = [(50, 10), (85, 50), (62, 50), (62, 90), (38, 90), (38, 50), (15, 50)]
    drawn = [
        ("polygon", arrow, {"fill": 255}),
        ("polygon", [(50, 10), (85, 80), (15, 80)], {"fill": 255}),
        ("ellipse", [10, 10, 90, 90], {"fill": 255}),
        ("ellipse", [10, 10, 90, 90], {"outline": 255, "width": 24}),
        ("ellipse", [10, 10, 90, 90], {"outline": 255, "width": 10}),
        ("rectangle", [10, 10, 90, 90], {"fill": 255}),
        ("rectangle", [40, 5, 60, 95], {"fill": 255}),
    ]
    drawn += [
        ("line", [(50 - across, 20), (50 + across, 80)], {"fill": 255, "width": width})
        for across, width in itertools.product((12, 20, 30), (12, 20, 30))
    ]
    found = []
    for shape, where, how in drawn:
        picture = Image.new("L", (100, 100))
        getattr(ImageDraw.Draw(picture), shape)(where, **how)
        found += [("", np.rot90(picture, turns)) for turns in range(4)]
    return found


def _units(shapes) -> np.ndarray:
    """Pictures as unit vectors of 20 x 20 pixels without their mean."""
    small = np.array(
        [
            cv2.resize(shape.astype(np.float32), (20, 20), interpolation=cv2.INTER_AREA).ravel()
            for shape in shapes
        ]
    )
    small -= small.mean(axis=1, keepdims=True)
    return small / (np.linalg.norm(small, axis=1, keepdims=True) + 1e-9)


def single_letters(grey: np.ndarray, lines: list[tuple[np.ndarray, float]]) -> list[np.ndarray]:
    """The corners, in pixels, of the shapes that are letters, given small boxes that may be text.

    The weights are those of a logistic model, fitted to 300 shapes in 150 chest films that were
    judged by eye. A shape that passes must also be read as a letter, unless it is plainly L or R or
    lies in a line of text or beside initials, as on markers.
    """
    chosen = []
    for box, name, view, (alike, edge, peak, plateau) in _letter_like(grey):
        left, top, right, bottom = box
        middle = np.array([left + right, top + bottom]) / 2
        away = max(right - left, bottom - top)
        cut = min(left, top) <= 0 or (np.array([bottom, right]) >= grey.shape).any()
        likely, beside = _likely(lines, middle, 0), _likely(lines, middle, away)
        sure = 9.8 * edge + 10.2 * alike + 1.6 * np.log(peak / 255) - 1.8 * plateau - 7.6
        askew = 0.06 if name == TILTED else 0
        plain = name in ("L", "R", TILTED) and (
            (sure > 1 + 5 * askew and alike > 0.7 + askew)
            or (sure > 0.2 and alike > 0.88)
            or (sure + 2 * beside > 1 and alike > 0.7 + askew)
            or (sure > 0.4 and likely > 0.9)
        )
        plain |= likely > 0.6 and alike > 0.68 and sure > -2
        # The edge of the image cuts arrows and wires too: only what is plainly L or R counts there.
        if cut and (beside < 0.85 or alike < 0.8 or name not in ("L", "R")):
            continue
        passes = sure + 6.7 * likely > 0
        # R is hardly ever read by mistake, however faint; L is, in the corners of bright ground.
        faint = (name == "R" and sure > -3.2) or (name == "L" and sure > -0.6 and alike > 0.74)
        if not (passes and plain):
            known = any((one[0] < middle).all() and (middle < one[2]).all() for one in chosen)
            if known or not ((passes and sure > 0.1) or faint):
                continue
            usual = 0.4 if name in "LR" else 0.75
            if not _is_read(view, name, usual if passes and sure > 0.1 else 0.8):
                continue
        chosen.append(np.array([[left, top], [right, top], [right, bottom], [left, bottom]]))
    return chosen


def _likely(lines: list[tuple[np.ndarray, float]], point: np.ndarray, away: float) -> float:
    """The best score of the boxes that hold a point or come so near to it, in pixels."""
    return max(
        (
            score
            for corners, score in lines
            if (corners.min(axis=0) - away < point).all()
            and (point < corners.max(axis=0) + away).all()
        ),
        default=0.0,
    )


def _is_read(shape: np.ndarray, name: str, least: float) -> bool:
    margin = max(2, shape.shape[0] // 4)
    side = max(margin, (shape.shape[0] - shape.shape[1]) // 2 + margin)
    text, score = read(np.pad((255 * shape).astype(np.uint8), ((margin, margin), (side, side))))
    return text.upper().strip(".") == name and score > least


def _letter_like(grey: np.ndarray):
    """Shapes that look like letters: box (left, top, right, bottom), name, picture, and features
    (likeness, steepness, height, and how far the ground under the shape rises).
    """
    small = shrunk(grey, SIDE)
    scale = min(grey.shape) / min(small.shape)
    size = int(0.028 * min(small.shape)) | 1
    vectors, names, wide, views = _shapes()
    for tone in (small, 255 - small):
        top = cv2.morphologyEx(tone, cv2.MORPH_TOPHAT, np.ones((size, size), np.uint8))
        found = list(_compact(top))
        if not found:
            continue
        alike = _units([shape for _, shape, *_ in found]) @ vectors.T
        own = np.log([shape.shape[1] / shape.shape[0] for _, shape, *_ in found], dtype=np.float32)
        alike -= np.float32(0.15) * np.abs(own[:, None] - wide)
        best = alike.argmax(axis=1)
        for (box, shape, peak, edge), like, near in zip(found, alike.max(axis=1), best):
            if not names[near] or like < 0.55:
                continue
            turns, mirrored = views[near]
            view = np.rot90(shape, -turns)
            view = view[:, ::-1] if mirrored else view
            signs = float(like), edge, peak, _rise(tone - top, box) / peak
            yield np.array(box) * scale, names[near], view, signs


def _rise(ground: np.ndarray, box: tuple[int, int, int, int]) -> float:
    """How far the ground under a shape rises above the ground around it, in grey levels."""
    left, above, right, below = box
    wider = ground[max(0, above - 3) : below + 3, max(0, left - 3) : right + 3].ravel()
    half = len(wider) // 2  # np.median takes ten times as long for a few values
    return float(ground[above:below, left:right].max()) - float(np.partition(wider, half)[half])


def _compact(top: np.ndarray):
    """Compact sharp shapes in a top hat: box, picture 0..1, height in grey levels, steepness.

    A letter may touch another or a bone, or lie half on bright ground. So each shape is tried
    twice: its core, the pixels above half its height, and the whole shape.
    """
    seen, mask = set(), (top > 26).astype(np.uint8)
    for largest in (0.3, 0.1):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        mask, *shapes = _cores(top, np.flatnonzero(mask), labels, stats, largest)
        for label, peak, edge in zip(*shapes):
            x, y, w, h, _ = stats[label]
            own = labels[y : y + h, x : x + w] == label
            inner = (own & mask[y : y + h, x : x + w]).astype(np.uint8)
            core = np.prod(cv2.boundingRect(inner)[2:])
            for within, height in ((inner, peak), (own, 0.4 * peak)):
                left, above, wide, high = cv2.boundingRect(within.astype(np.uint8))
                box = (left + x, above + y, left + x + wide, above + y + high)
                if wide * high < 40 or max(wide, high) >= 0.1 * min(top.shape):
                    continue
                # The whole shape is tried only if it is much larger than the core.
                if box in seen or (within is own and wide * high < 1.5 * core):
                    continue
                seen.add(box)
                part = np.s_[above : above + high, left : left + wide]
                shape = np.where(own[part], top[box[1] : box[3], box[0] : box[2]], 0)
                yield box, np.minimum(shape / np.float32(height), 1), float(peak), float(edge)


def _cores(top: np.ndarray, marked: np.ndarray, labels: np.ndarray, stats, largest: float):
    """Of the marked pixels, those above half the height of their shape, or bright ones of a shape
    that is too large; and labels, heights and steepness of the shapes that are sharp, up to
    `largest` of the side.
    """
    least = min(top.shape)
    w, h, area = stats.T[2:]
    long, short = np.maximum(w, h), np.minimum(w, h)
    fits = (long >= 0.012 * least) & (long < largest * least) & (short >= 0.006 * least)
    fits &= (long < 7 * short) & (area >= 14) & (area > 0.15 * w * h)
    all_labels = labels.ravel()[marked]
    inside, label = marked[fits[all_labels]], all_labels[fits[all_labels]]
    grey = top.ravel()[inside]
    peak, edge = np.zeros((2, len(stats)))
    peak[fits] = _ranked(label, grey, area[fits], area[fits] - area[fits] // 8 - 1)
    core = np.zeros(top.shape, np.uint8)
    core.ravel()[inside] = (grey > peak[label] / 2) & (peak[label] >= 34)
    rim = np.flatnonzero(core > cv2.erode(core, ONE))
    slopes = [cv2.Sobel(top, cv2.CV_16S, *axis).ravel()[rim] for axis in ((1, 0), (0, 1))]
    owner = labels.ravel()[rim]
    counts = np.bincount(owner, minlength=len(stats))
    some = counts > 0
    counts = counts[some]
    edge[some] = _ranked(owner, np.hypot(*slopes), counts, counts // 2) / (8 * peak[some])
    # A letter may hang on the bright frame of a film, by pixels that are darker than both.
    large = marked[(long >= largest * least)[all_labels]]
    core.ravel()[large[top.ravel()[large] > 120]] = 1
    sharp = np.flatnonzero(edge >= 0.1)
    return core, sharp, peak[sharp], edge[sharp]


def _ranked(owner: np.ndarray, values: np.ndarray, counts: np.ndarray, ranks: np.ndarray):
    """For each owner, in order of its number, the value that has this rank among its values, which
    are below 4096.
    """
    return np.sort(4096.0 * owner + values)[np.cumsum(counts) - counts + ranks] % 4096
