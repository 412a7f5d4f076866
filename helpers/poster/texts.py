"""What poster and companion page say: study.yaml, and sentences written from results.json."""

import re
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from helpers.analyse_readings import checklists, report, sentences
from helpers.runner import parameters, runs

LISTS = ("authors", "affiliations", "references", "logos")
TEMPLATES = Path(__file__).parent / "templates"


def told(run: runs.Run) -> dict:
    """study.yaml with every key that the poster uses: title, question, contact, protocol, ethics
    and the lists authors ("Name (1, 2)"), affiliations, references and logos.

    Raises ParameterError for a list that is none of texts, RunError for a logo that is not there.
    """
    path = run.beside(run.parameters.texts)
    given = {"title": run.study, "question": "", "contact": "", "protocol": "", "ethics": ""}
    given |= parameters.read_yaml(path)
    for name in LISTS:
        value = given.get(name, [])
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise parameters.ParameterError(
                f"{path}: '{name}' must be a list of texts, one per line that begins with “- ”."
            )
        given[name] = value
    given["logos"] = [run.beside(name) for name in given["logos"]]
    return {
        name: " ".join(value.split()) if isinstance(value, str) else value
        for name, value in given.items()
    }


def sections(found: dict, told: dict, **known) -> dict[str, list[str]]:
    """The paragraphs of every section of templates/texts.md, by name."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string((TEMPLATES / "texts.md").read_text()).render(
        found=found,
        told=told,
        context=found["context"],
        checklists=checklists,
        report=report,
        sentences=sentences,
        **known,
    )
    parts = re.split(r"^## (\w+)\n", page, flags=re.M)[1:]
    return {
        name: [" ".join(part.split()) for part in re.split(r"\n\s*\n", body) if part.strip()]
        for name, body in zip(parts[::2], parts[1::2])
    }
