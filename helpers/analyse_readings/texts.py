"""The report's texts: templates/*.md, filled in from the results and the context. Also formats
numbers for people.
"""

import re
import unicodedata
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from helpers import figures, findings
from helpers.analyse_readings import report_figures
from helpers.plurals import counted
from helpers.statistics import accuracy, design
from helpers.statistics.clusters import FEWEST
from helpers.table_columns import LABELS

KINDS = {"xray": "X-rays", "ct": "CT images"}
BANDS = ((0.2, "slight"), (0.4, "fair"), (0.6, "moderate"), (0.8, "substantial"))
UNFILLED = "enter "  # a new study's study.yaml has placeholders
MOST_MODULES = 3  # changed modules that a sentence names
NBSP = "\u00a0"
JOINERS = "\u200c\u200d"  # Persian and Indian words, and compound signs, need them
SPACES = re.compile(r"[ \t\r\n]+")
GOING_BACK = {
    "never": "an answer could not be changed",
    "until next": "an answer could be changed until the next one was saved",
    "until locked": "answers could be changed until the reader locked them",
}


def percent(share: float | None) -> str:
    """23 % for 9 of 40 (halves are rounded up); "under 1 %" for a small share above 0."""
    if share is None:
        return "–"
    if 0 < share < 0.005 or 0.995 <= share < 1:
        return f"under 1{NBSP}%" if share < 0.5 else f"over 99{NBSP}%"
    return f"{value(100 * share, 0)}{NBSP}%"


def percents(shares: list[float]) -> str:
    """13 % to 43 %, or 100 % if all are equal."""
    return " to ".join(dict.fromkeys((percent(min(shares)), percent(max(shares)))))


def value(number: float | str | None, digits: int = 2) -> str:
    """A number for people, with halves rounded away from zero; ∞ or – if it is not finite."""
    if number is None or number == "inf":
        return "–" if number is None else "∞"
    exact = Decimal(repr(round(float(number), 12)))
    rounded = exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{abs(rounded) if rounded == 0 else rounded}".replace("-", "−")


def interval(low: float | None, high: float | None, digits: int = 0) -> str:
    """5 to 36 % for shares (digits 0), 0.12 to 0.44 for coefficients (digits 2); empty without an
    interval.
    """
    if low is None or high is None:
        return ""
    if digits == 0:
        return f"{value(100 * low, 0)} to {value(100 * high, 0)}{NBSP}%"
    return f"{value(low, digits)} to {value(high, digits)}"


def p_value(p: float | None) -> str:
    """p = .031, p < .001."""
    if p is None:
        return "p not defined"
    return "p < .001" if p < 0.001 else f"p = {value(p, 3)}".replace("0.", ".")


def p_cell(p: float | None) -> str:
    """.031, < .001: a p-value in a column of its own."""
    return value(p) if p is None else p_value(p).removeprefix("p ").removeprefix("= ")


def count(part: dict, what: str = "", more: str = "") -> str:
    """3 of 20 (15 %; 95 % interval 5 to 36 %), with `what` after the numbers and `more` at the end
    of the brackets.
    """
    if not part["total"]:
        return "none (no image has the answers that this needs)"
    held = (
        f"95 % interval {interval(part['low'], part['high'])}"
        if part["low"] is not None
        else f"no interval: {part['reason']}"
    )
    return f"{part['count']} of {part['total']}{what} ({percent(part['estimate'])}; {held}{more})"


def estimate(row: dict, low: str = "low", high: str = "high") -> str:
    """0.62 (95 % interval 0.51 to 0.72), or the reason why it has no value or no interval."""
    if row["estimate"] is None:
        return f"has no value: {row['reason']}"
    if row[low] is None:
        return f"{value(row['estimate'])} (no interval: {row['reason']})"
    return f"{value(row['estimate'])} (95 % interval {interval(row[low], row[high], 2)})"


def area(row: dict) -> str:
    """0.62 (0.51 to 0.72), or 0.62 without an interval."""
    held = interval(row["low"], row["high"], 2)
    return value(row["estimate"]) + (f" ({held})" if held else "")


def band(coefficient: float) -> str:
    """Landis and Koch's word for a coefficient as it is printed: 0.21 to 0.40 is fair."""
    printed = float(value(coefficient).replace("−", "-"))
    word = next((name for edge, name in BANDS if printed <= edge), "almost perfect")
    return "poor" if printed < 0 else word


def were(number: int, one: str = "was", several: str = "were") -> str:
    """The form of the verb for `number`; 0 takes the plural."""
    return one if number == 1 else several


def everyone(readers: int) -> str:
    """both readers, all 5 readers, the only reader."""
    return {1: "the only reader", 2: "both readers"}.get(readers, f"all {readers} readers")


def two(readers: int) -> str:
    """both readers, at least two readers: who must agree where two are enough."""
    return everyone(2) if readers == 2 else "at least two readers"


def knew(design: dict) -> str:
    """How many readers stated prior knowledge of AI."""
    if design["readers"] == 1:
        return f"this reader stated {'' if design['prior_ai'] else 'no '}prior knowledge of AI"
    return f"{design['prior_ai'] or 'none'} of them stated prior knowledge of AI"


def changing(reading: dict) -> str:
    """Whether answers could be changed; `reading`: the parameters of 07."""
    return GOING_BACK.get(
        reading.get("going_back"), "whether an answer could be changed is not recorded"
    )


def cell(row: dict) -> str:
    """3 of 20, 15 % (5 to 36 %), chance level 20 %; or the reason why there is no value."""
    if row["estimate"] is None:
        return row["reason"]
    digits = 2 if row["count"] is None else 0
    held = interval(row["low"], row["high"], digits)
    if digits:
        said = value(row["estimate"])
    elif row["stratum"] == "stratified":
        said = percent(row["estimate"])
    else:
        said = f"{row['count']} of {row['total']}, {percent(row['estimate'])}"
    said += f" ({held or row['reason']})"
    said += (
        f", chance level {percent(row['chance'])}"
        if row["chance"] is not None and not digits
        else ""
    )
    return said + (f"; {row['left_out']} left out" if row["left_out"] else "")


def several(number: int, what: str) -> str:
    """no training case, 1 reader, 6 readers."""
    return counted(number, what) if number else f"no {what}"


def source(row: dict) -> str:
    """X-ray, generated by tiny-sd: 20 images."""
    by = f" by {row['generator']}" if row["generator"] else ""
    return (
        f"{figures.NAMES[row['modality']]}, {row['origin']}{by}: {several(row['images'], 'image')}"
    )


def quoted(question: dict) -> str:
    """“Which?” (after “yes” to “Do you know AI?”): a question with the one that it follows."""
    follows = question.get("follows")  # results of an earlier version do not have it
    after = f" (after {follows})" if follows else ""
    return f"“{question['text']}”{after}"


def plan_changes(changes: list[str]) -> list[str]:
    """The changes of the analysis plan as a sentence can list them: many modules as a number. The
    report's appendix lists them all.
    """
    modules = [change for change in changes if change.startswith("helpers/")]
    if len(modules) <= MOST_MODULES:
        return changes
    number = f"{len(modules)} modules of its code changed (the report's appendix lists them)"
    return [change for change in changes if change not in modules] + [number]


def finding_names(ids: str) -> str:
    """Effusion, Mass for effusion|mass; also the names of modalities and sources."""
    names = findings.FINDINGS | figures.NAMES
    return ", ".join(names.get(part, part) for part in ids.split("|"))


def printable(words: str) -> str:
    """The text on one line, without control characters, characters that change the text direction
    and other invisible ones; the two that join or part letters stay.
    """
    kept = (c for c in words if c in JOINERS or unicodedata.category(c) != "Cf")
    allowed = NBSP + JOINERS
    return SPACES.sub(" ", "".join(c if c.isprintable() or c in allowed else " " for c in kept))


FOLDER = Path(__file__).parent / "templates"
TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER),
    undefined=StrictUndefined,
    autoescape=select_autoescape(["html"]),
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=lambda said: printable(said) if type(said) is str else said,
)
TEMPLATES.globals |= {
    **{
        name: thing
        for name, thing in globals().items()
        if callable(thing) and getattr(thing, "__module__", "") == __name__
    },
    "KINDS": KINDS,
    "NAMES": figures.NAMES,
    "LABELS": LABELS,
    "COEFFICIENTS": report_figures.COEFFICIENTS,
    "STRONG": design.STRONG,
    "FEWEST": FEWEST,
    "wilson": accuracy.wilson,
}
TEMPLATES.filters |= {
    "named": lambda row: (row.get("coefficient") or row["measure"], row),
    "points": lambda difference: value(100 * difference, 0),
}


def fill(name: str, **values) -> str:
    """A template of templates/, filled in. Raises UndefinedError for a placeholder without a
    value.
    """
    return TEMPLATES.get_template(name).render(values)


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text. Empty lines separate them, and "- " begins the next item of a list;
    other line breaks become spaces.
    """
    lines = (SPACES.sub(" ", part).strip() for part in re.split(r"\n\s*\n|\n(?=- )", text))
    return [re.sub(r"\s+([,;:)]|\.(?=\s|$))", r"\1", line) for line in lines if line]


def parts(name: str, **values) -> dict[str, list[str]]:
    """The parts of a template that begin with ##: heading -> paragraphs."""
    found = re.split(r"^## (.*)$", fill(name, **values), flags=re.M)
    return {title: paragraphs(text) for title, text in zip(found[1::2], found[2::2])}


def written(results: dict, context: dict) -> dict[str, list[str]]:
    """Every text of the report, by heading of templates/report.md. `context`: see
    report.context.
    """
    return parts("report.md", **results, context=context)


def captions(results: dict, chosen: dict[str, int | None], most: int = 0) -> dict[str, list[str]]:
    """Title and note of every figure. `chosen`: the number of images for each gallery, which shows
    at most `most` of them; None leaves the number out.
    """
    readers, galleries = results["design"]["readers"], {}
    for name, count in chosen.items():
        title = report_figures.GALLERIES[name].format(people=everyone(readers), two=two(readers))
        number = "" if count is None else f": {count}"
        if count and count > most:
            number += f", of which {most} {were(most, 'is', 'are')} shown"
        galleries[name] = title + number
    return parts("figures.md", **results, galleries=galleries)


def checklist(results: dict, context: dict) -> list[dict]:
    """The items of the reporting guidelines: rows guideline, item, topic, status (filled or open),
    text.
    """
    rows = []
    for guideline, items in parts("checklist.md", **results, context=context).items():
        for line in items:
            item, topic, text = (part.strip() for part in line[2:].split("|", 2))
            filled = bool(text) and not text.startswith(UNFILLED)
            rows.append(
                {
                    "guideline": guideline,
                    "item": item,
                    "topic": topic,
                    "status": "filled" if filled else "open",
                    "text": text if filled else "",
                }
            )
    return rows
