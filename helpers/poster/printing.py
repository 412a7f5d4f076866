"""Makes the poster as PDF and PNG: typst gets data and images and lays out one page."""

import json
import tempfile
from pathlib import Path

import matplotlib
import typst

from helpers.poster import texts
from helpers.runner import runs

PAPERS = {"a0": (1189, 841), "48x36": (1219.2, 914.4)}  # width and height in mm
FONTS = (Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVuSans*.ttf")
FONTS = {f"fonts/{path.name}": path for path in FONTS}
# As PDF/A, a text with a character that no font has is refused, where a poster would show a box.
LETTERS = """#set document(date: datetime(year: 2000, month: 1, day: 1))
#set text(font: "DejaVu Sans")
#read("letters.txt")"""
ACCENT = "#C24E00"  # "fake" of the figures, a little darker: white paper and text need contrast
TIME = 946684800  # one date for every poster: the same study gives the same file


def write(run: runs.Run, data: dict, files: dict[str, bytes | Path]) -> dict:
    """Write poster.pdf, poster.png and poster.json of a run; returns the content of poster.json.

    `data` is read by templates/poster.typ; `files` are the images and figures that it names. In the
    result, "figure" is the position of the key figure as shares of the page's width and height,
    "points" the size of the text, and "address" the content of the QR code. Raises RunError when
    the study's texts fit at no readable size, a logo cannot be read, or no font has a character.
    """
    width, height = PAPERS[run.parameters.paper]
    data |= {"paper": {"width": width, "height": height}, "accent": ACCENT}
    written = json.dumps(data, ensure_ascii=False)
    letters = " ".join(sorted(set(written)))
    own = {"data.json": written.encode(), "letters.txt": letters.encode()}
    own |= {"letters.typ": LETTERS.encode()}
    own |= {"poster.typ": texts.FOLDER / "poster.typ", **FONTS}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (files | own).items():
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        alone = own_fonts_do(run, folder)
        fonts = [f"{folder}/fonts"]
        page = f"{folder}/poster.typ"
        compiler = typst.Compiler(page, folder, fonts, ignore_system_fonts=alone)
        found = {}
        try:
            about = json.loads(compiler.query("<about>", field="value"))
        except RuntimeError as error:
            raise runs.RunError(
                f"{run.name}: the poster cannot be typeset ({error}): a logo must be a whole PNG,"
                " JPEG, WebP or SVG file."
            ) from None
        for part in about:
            found |= part
        if not found["size"]:
            raise runs.RunError(
                f"{run.name}: the texts of {run.parameters.texts} do not fit on one page in a"
                " readable size: shorten title, affiliations or references."
            )
        run.write_bytes("poster.pdf", compiler.compile(format="pdf", timestamp=TIME))
        run.write_bytes(
            "poster.png", compiler.compile(format="png", ppi=run.parameters.dots_per_inch)
        )
    about = {
        "figure": {
            "left": found["x"] / width,
            "top": found["y"] / height,
            "width": found["width"] / width,
            "height": found["height"] / height,
        },
        "points": found["size"],
        "paper": run.parameters.paper,
        "address": data["address"],
    }
    run.write_json("poster.json", about)
    return about


def own_fonts_do(run: runs.Run, folder: str) -> bool:
    """Whether DejaVu Sans and typst's own fonts have every character of letters.txt in `folder`.

    If not, the fonts of this machine have them; raises RunError if they do not.
    """
    for alone in (True, False):
        page = typst.Compiler(
            f"{folder}/letters.typ", folder, [f"{folder}/fonts"], ignore_system_fonts=alone
        )
        try:
            page.compile(format="pdf", pdf_standards="a-2b")
            return alone
        except typst.TypstError as error:
            problem = error
    raise runs.RunError(
        f"{run.name}: no font on this machine has every character of the poster's texts"
        f" ({problem}): install one that has them, for example Noto Sans."
    )
