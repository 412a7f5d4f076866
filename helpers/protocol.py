"""A study's design in two tables: blocks.csv says what is shown one after another, questions.csv
what is asked there.

06 checks both and puts them into the reading set; 07 asks, 08 analyses by them. No pandas: the
process that faces the readers reads this too.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from helpers.findings import FINDINGS, SIDES
from helpers.table_columns import LABELS, QUESTION_KINDS

READER = "reader"  # the block of the questions that a reader answers once, before all others
LABEL = "label"  # the published question
LONGEST_TEXT, MOST_STEPS = 2000, 9
VIEW = ("window_center", "window_width", "zoom", "inverted")
OWN_FIELDS = {*VIEW, "seconds", "reason", "salt", "block", "changes", "milliseconds", "utc"}
# Ids that readings.csv has a column for, and 08 an analysis.
PUBLISHED = {LABEL, "poor_quality", "confidence", "description", "findings", "side", "cues"}
MANY = ("choices", "findings")
# What names generation, as whole words; readers of an `unaware` block must meet none of them.
NAMES_GENERATION = re.compile(
    r"\b(?:real|fakes?|faked|deep ?fakes?|generat(?:e[ds]?|ing|ions?|ive|ors?)"
    r"|synthe(?:tic(?:ally)?|si[sz]ed?)|artificial(?:ly)?|ai|a\.i\.|gans?|dall[-·]?e|diffusion|simulat(?:ed|ions?)"
    r"|authentic(?:ity)?|genuine|unaware)\b",
    re.IGNORECASE,
)
OLD_SET = (
    "was made before questions.csv and blocks.csv. Commit 3aa5acd is the last that reads it: go on"
    " there with a read that has begun (nothing was changed), or make the set anew with 06."
)


class ProtocolError(ValueError):
    """Blocks or questions that do not fit together; the message names the table and the row."""


@dataclass(frozen=True)
class Question:
    """One row of questions.csv. `options` are (value, text) pairs; those of a scale are its steps,
    1 upwards.
    """

    id: str
    text: str
    kind: str
    options: tuple[tuple[str, str], ...]
    required: bool
    shown_when: tuple[str, str] | None
    blocks: tuple[str, ...]

    def accepts(self, value) -> bool:
        """Whether a value is an answer to this question at all."""
        values = {name for name, _ in self.options}
        if self.kind in MANY:
            proper = isinstance(value, list) and all(isinstance(one, str) for one in value)
            return proper and {*value} <= values and len({*value}) == len(value)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return {
            "choice": isinstance(value, str) and value in values,
            "side": isinstance(value, str) and value in values,
            "scale": number and value in range(1, len(self.options) + 1),
            "text": isinstance(value, str) and len(value) <= LONGEST_TEXT,
            "number": number and 0 <= value <= 1000,
            "yes/no": isinstance(value, bool),
        }[self.kind]

    def is_shown(self, answers: Mapping) -> bool:
        """Whether it is asked beside these answers."""
        if not self.shown_when:
            return True
        other, wanted = self.shown_when
        given = answers.get(other)
        return wanted in (given if isinstance(given, list) else [as_text(given)])


@dataclass(frozen=True)
class Block:
    """One row of blocks.csv. `images` are groups of draw.csv; a block without images shows its text
    and asks its questions once.
    """

    block: str
    order: int
    title: str
    instructions: str
    images: tuple[str, ...]
    unaware: bool
    tell_truth: bool
    lock: bool
    after_days: float


@dataclass(frozen=True)
class Protocol:
    """The blocks in their order, and all questions in theirs."""

    blocks: tuple[Block, ...]
    questions: tuple[Question, ...]

    def asked(self, block: str) -> list[Question]:
        """The questions of a block, or of the reader."""
        return [question for question in self.questions if block in question.blocks]

    def scored(self) -> list[Block]:
        """The blocks whose answers count."""
        return [block for block in self.blocks if block.images and not block.tell_truth]


def empty(value) -> bool:
    """Whether a value is no answer."""
    return value is None or value == "" or value == []


def as_text(value) -> str:
    """A value as answers.csv has it: several joined by |, true and false."""
    if isinstance(value, list):
        return "|".join(value)
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}"
        if (isinstance(value, float))
        else str(value)
    )


def refusal(questions: Iterable[Question], answers: Mapping) -> str:
    """Why these answers are not complete and proper, in one sentence; "" when they are."""
    questions = list(questions)
    known = OWN_FIELDS | {question.id for question in questions}
    for name, value in answers.items():
        if name not in known and not empty(value):
            return f"'{name}' is not asked here."
    for question in questions:
        value = answers.get(question.id)
        if not question.is_shown(answers):
            if not empty(value):
                return f"'{question.id}' is not asked here."
        elif empty(value):
            if question.required:
                return f"'{question.id}' is needed."
        elif not question.accepts(value):
            return f"'{question.id}': that is no answer that the study offers."
    return ""


def for_page(questions: Iterable[Question]) -> list[dict]:
    """The questions as the page is given them: nothing of other blocks."""
    rows = (asdict(question) for question in questions)
    return [{name: value for name, value in row.items() if name != "blocks"} for row in rows]


# --- from the tables


def load(folder: Path) -> Protocol:
    """The protocol that 06 put into a reading set. Raises ProtocolError or FileNotFoundError."""
    rows = []
    for name in ("questions", "blocks"):
        with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            rows.append(list(csv.DictReader(file)))
    return build(*rows, str(folder))


def build(asked: list[dict], shown: list[dict], where: str) -> Protocol:
    """The protocol of the rows of questions.csv and blocks.csv; `where`: the folder, for errors.

    Raises ProtocolError naming the row and what to do.
    """
    at = Path(where) / "blocks.csv"
    blocks = tuple(sorted((_block(row, at) for row in shown), key=lambda block: block.order))
    _refuse(not any(block.images for block in blocks), f"{at}: no block shows images.")
    for name in ("block", "order"):
        _refuse_twice([getattr(block, name) for block in blocks], f"{at}: {name}")
    at = Path(where) / "questions.csv"
    with_images = tuple(block.block for block in blocks if block.images)
    known = {READER, *(block.block for block in blocks)}
    questions = tuple(_question(row, with_images, known, at) for row in asked)
    protocol = Protocol(blocks, questions)
    for block in known:
        _check_block(protocol.asked(block), block, at)
    labelled = {block.block for block in protocol.scored()} & {
        block for one in questions if one.id == LABEL for block in one.blocks
    }
    _refuse(not labelled, f"{at}: no block asks '{LABEL}' of images that are scored; 08 needs it.")
    silent = [name for name in with_images if not protocol.asked(name)]
    _refuse(silent, f"{at}: nothing is asked in block '{(silent or [''])[0]}'.")
    return protocol


def _refuse(wrong, sentence: str) -> None:
    if wrong:
        raise ProtocolError(sentence)


def _refuse_twice(values: list, what: str) -> None:
    twice = [value for value in values if values.count(value) > 1]
    _refuse(twice, f"{what} '{(twice or [''])[0]}' is there twice.")


def _yes(row: Mapping, name: str) -> bool:
    return str(row.get(name) or "").lower() == "true"


def _parts(row: Mapping, name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in (row.get(name) or "").split("|") if part.strip())


def _block(row: Mapping, at: Path) -> Block:
    name, title = row["block"], row["title"]
    _refuse(
        not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name) or name == READER,
        f"{at}: block '{name}' is no id: small letters, digits and _, and not '{READER}'.",
    )
    days, images = float(row.get("after_days") or 0), _parts(row, "images")
    _refuse(days < 0, f"{at}: after_days of block '{name}' is below 0.")
    _refuse(
        _yes(row, "tell_truth") and not images,
        f"{at}: block '{name}' has tell_truth but shows no images.",
    )
    return Block(
        name,
        int(row["order"]),
        title,
        paragraphs(row.get("instructions") or ""),
        images,
        _yes(row, "unaware"),
        _yes(row, "tell_truth"),
        _yes(row, "lock"),
        days,
    )


def paragraphs(text: str) -> str:
    """A text as the page shows it: an empty line begins a paragraph, other line breaks are the
    editor's.
    """
    told = (" ".join(part.split()) for part in re.split(r"\n[ \t]*\n", text))
    return "\n\n".join(part for part in told if part)


def _question(row: Mapping, with_images: tuple, known: set[str], at: Path) -> Question:
    name, kind = row["id"], row["kind"]
    told = f"{at}: question '{name}'"
    _refuse(
        not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name) or name in OWN_FIELDS,
        f"{told}: an id is small letters, digits and _, and none of"
        f" {', '.join(sorted(OWN_FIELDS))}.",
    )
    blocks = _parts(row, "block") or with_images
    strange = [block for block in blocks if block not in known]
    _refuse(
        strange,
        f"{told}: there is no block '{(strange or [''])[0]}'; known: {', '.join(sorted(known))}.",
    )
    _refuse(kind not in QUESTION_KINDS, f"{told}: kind is one of {', '.join(QUESTION_KINDS)}.")
    when = row.get("shown_when") or ""
    other, equals, value = (part.strip() for part in when.partition("="))
    _refuse(when and not (other and equals and value), f"{told}: shown_when reads question=value.")
    return Question(
        name,
        row["text"],
        kind,
        _options(row, kind, told),
        _yes(row, "required"),
        (other, value) if when else None,
        blocks,
    )


def _options(row: Mapping, kind: str, told: str) -> tuple[tuple[str, str], ...]:
    """value=text pairs; a bare text is its own value, a step of a scale has its number."""
    given = _parts(row, "options")
    if kind == "side":
        return tuple((side, side) for side in SIDES)
    if kind == "findings":
        strange = [one for one in given if one not in FINDINGS]
        _refuse(strange, f"{told}: '{(strange or [''])[0]}' is no finding of helpers/findings.py.")
        return tuple((one, FINDINGS[one]) for one in given or FINDINGS)
    if kind == "scale":
        _refuse(
            not 2 <= len(given) <= MOST_STEPS,
            f"{told}: a scale needs 2 to {MOST_STEPS} options, its steps from low to high.",
        )
        return tuple((str(number), text) for number, text in enumerate(given, 1))
    wants = kind in ("choice", "choices")
    _refuse(wants and len(given) < 2, f"{told}: a {kind} needs options, like a=First|b=Second.")
    _refuse(not wants and given, f"{told}: a {kind} has no options.")
    pairs = [(one.partition("=")[0].strip(), one.rpartition("=")[2].strip()) for one in given]
    _refuse_twice([value for value, _ in pairs], f"{told}: option")
    values = {value for value, _ in pairs}
    _refuse(
        row["id"] == LABEL and (kind != "choice" or not {"real", "fake"} <= values <= {*LABELS}),
        f"{told}: '{LABEL}' is the published question, a choice of real, fake and uncertain; give"
        " another question another id.",
    )
    return tuple(pairs)


def _check_block(asked: list[Question], block: str, at: Path) -> None:
    """Ids are there once, and shown_when names an earlier question and a value that it can have."""
    _refuse_twice([question.id for question in asked], f"{at}: in block '{block}' the question")
    before: dict[str, Question] = {}
    for question in asked:
        other, value = question.shown_when or ("", "")
        if question.shown_when:
            kind = before[other].kind if other in before else ""
            values = [name for name, _ in before[other].options] if kind else []
            values = ["true", "false"] if kind == "yes/no" else values
            _refuse(
                value not in values,
                f"{at}: question '{question.id}' is shown when {other}={value}, which no earlier"
                f" question of block '{block}' can be.",
            )
        before[question.id] = question
