"""The poster's key figure: images around a QR code. The code opens the companion page and is the
target of its augmented reality, so poster and page take every position from here.

A black rim, with white paper inside and outside, surrounds the figure: its outer edge gives the
figure's plane more precisely than the code's corners, which are close together.

Lengths are in units of half an image's side, from the figure's upper left corner.
"""

import io

import segno

CODE, QUIET = 4, 4  # side of the code with its margin in units; the margin in modules (ISO 18004)
PAPER, RIM, GAP = 0.3, 0.1, 0.2  # white paper outside the rim; the rim; white around every image
WIDE = 20  # number of images above which a figure has two columns on each side


def layout(images: int) -> dict:
    """Width and height of the figure, its paper, rim and gap, the code's box (x, y, size), and
    x and y of its tiles: those above and below the code, then its sides from the inside outwards.
    """
    columns = 2 if images >= WIDE else 1 if images else 0
    left, top = PAPER + 2 * columns, PAPER + (2 if columns else 0)
    cells = [(left + x, y) for y in (PAPER, top + CODE) for x in (0, 2)] if columns else []
    for column in range(1, columns + 1):
        sides = (left - 2 * column, left + CODE + 2 * (column - 1))
        cells += [(x, PAPER + y) for y in (0, 2, 4, 6) for x in sides]
    return {
        "width": 2 * left + CODE,
        "height": 2 * top + CODE,
        "paper": PAPER,
        "rim": RIM,
        "gap": GAP,
        "box": {"x": left, "y": top, "size": CODE},
        "tiles": [{"x": x, "y": y} for x, y in cells],
    }


def code(address: str, box: dict) -> tuple[bytes, dict]:
    """The QR code of an address as SVG with its margin, and the position of its modules if it fills
    `box`: x, y and size, in the units of the figure.
    """
    made = segno.make(address, error="m", micro=False)
    drawn = io.BytesIO()
    made.save(drawn, kind="svg", border=QUIET, light="#fff", xmldecl=False, svgclass=None)
    modules = made.symbol_size(border=0)[0]
    module = box["size"] / (modules + 2 * QUIET)
    place = {"x": box["x"] + QUIET * module, "y": box["y"] + QUIET * module}
    return drawn.getvalue(), place | {"size": modules * module}
