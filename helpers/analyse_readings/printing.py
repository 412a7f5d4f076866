"""Makes report.pdf: typst lays out the page report.html for print."""

import json
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import typst

from helpers.analyse_readings import report, texts

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
TIME = 946684800  # one date for every report: the same study gives the same file


def pdf(results: dict, context: dict, figures: dict[str, dict]) -> bytes:
    """The report on A4. `figures`: bytes by name and format; see report.render."""
    page = report.render(results, context, figures, files=True).decode()
    main = page[page.index("<main>") : page.index("</main>") + len("</main>")]
    data = {
        "main": nodes(ElementTree.fromstring(main)),
        "simulated": context["simulated"],
        "title": context["study_texts"].get("title", context["study"]),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, picture in figures.items():
            (Path(folder) / f"{name}.svg").write_bytes(picture["svg"])
        (Path(folder) / "report.json").write_text(json.dumps(data))
        source = Path(folder) / "report.typ"
        source.write_bytes((Path(__file__).parent / "templates" / "report.typ").read_bytes())
        compiler = typst.Compiler(source, folder, [FONTS], ignore_system_fonts=True)
        return compiler.compile(format="pdf", timestamp=TIME)


def nodes(element: ElementTree.Element) -> dict:
    """An element of the page: tag, attributes, and `parts`, its texts and elements in order."""
    parts = [element.text]
    for child in element:
        parts += [nodes(child), child.tail]
    parts = [texts.SPACES.sub(" ", p) if isinstance(p, str) else p for p in parts if p]
    return {"tag": element.tag, "class": "", **element.attrib, "parts": parts}
