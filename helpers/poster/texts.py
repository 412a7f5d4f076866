"""The texts of the poster and the companion page: study.yaml, and sentences written from
results.json.
"""

import re
from pathlib import Path

from jinja2 import FileSystemLoader

from helpers.analyse_readings import texts
from helpers.runner import parameters, runs

TEXTS = ("title", "question", "contact", "protocol", "ethics")
LISTS = ("authors", "affiliations", "references", "logos")
FOLDER = Path(__file__).parent / "templates"
# The same placeholders and number formats as in the report's texts.
TEMPLATES = texts.TEMPLATES.overlay(loader=FileSystemLoader(FOLDER))


def study_texts(run: runs.Run) -> dict:
    """study.yaml with every key that the poster uses: title, question, contact, protocol, ethics
    and the lists authors ("Name (1, 2)"), affiliations, references and logos.

    Raises ParameterError for a list in place of a text or with items that are not texts, RunError
    for a missing logo.
    """
    path = run.beside(run.parameters.texts)
    given = {**dict.fromkeys(TEXTS, ""), "title": run.study, **parameters.read_yaml(path)}
    for name in TEXTS:
        if isinstance(given[name], list):
            raise parameters.ParameterError(f"{path}: '{name}' must be one text, not a list.")
        given[name] = texts.printable(str(given[name])).strip()
    for name in LISTS:
        value = given.get(name, [])
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise parameters.ParameterError(
                f"{path}: '{name}' must be a list of texts, one per line that begins with “- ”."
            )
        given[name] = [texts.printable(item).strip() for item in value]
    return given | {"logos": [run.beside(name) for name in given["logos"]]}


def sections(found: dict, study_texts: dict, **known) -> dict[str, list[str]]:
    """The paragraphs of every section of templates/texts.md, by name. `found`: results.json."""
    numbers = {name: value for name, value in found.items() if name != "context"}
    written = texts.written(numbers, found["context"])
    page = TEMPLATES.get_template("texts.md").render(
        **found, study_texts=study_texts, written=written, **known
    )
    parts = re.split(r"^## (\w+)$", page, flags=re.M)[1:]
    return {name: texts.paragraphs(body) for name, body in zip(parts[::2], parts[1::2])}


def card(row: dict) -> dict:
    """The headline for one kind of image: a title, and number, text and interval of each line."""
    people = texts.everyone(row["readers"])
    about = "identified as" if row["origin"] == "generated" else "wrongly called"
    lines = {"all_real": f"called real by {people}", "all_uncertain": f"left {people} uncertain"}
    if row["readers"] >= 2:
        lines["two_fake"] = f"{about} fake by {texts.two(row['readers'])}"
    return {
        "origin": row["origin"],
        "title": f"{row['images']} {row['origin']} {texts.KINDS[row['modality']]}",
        "lines": [_line(row[name], text) for name, text in lines.items()],
    }


def _line(part: dict, text: str) -> dict:
    number, _, held = texts.count(part).partition(" (")
    return {"number": number, "text": text, "interval": held.removesuffix(")")}
