"""A study's design in two tables: blocks.csv says what is shown one after another, questions.csv
what is asked there.

protocol_tables.py reads and checks both. 07 asks, 08 analyses by them. No pandas: the process that
faces the readers reads this too.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

READER = "reader"  # the block of the questions that a reader answers once, before all others
LABEL = "label"  # the published question
WHICH = "which"  # the question of a pair: which of the two is generated
LONGEST_TEXT, MOST_MARKS = 2000, 20
YES_NO = "yes/no"
MARKS = "marks"  # the kind of question that is answered on the image
VIEW = ("window_center", "window_width", "zoom", "inverted")
OWN_FIELDS = {
    *(*VIEW, "seconds", "reason", "salt", "block", "changes", "milliseconds", "utc"),
    *("beside", "linked"),  # of a pair: the view of the right image
}
# Ids that readings.csv has a column for, and 08 an analysis.
PUBLISHED = {LABEL, "poor_quality", "confidence", "description", "findings", "side", "cues"}
MANY = ("choices", "findings")
# Words that reveal that images are generated; readers of an `unaware` block must not see any.
NAMES_GENERATION = re.compile(
    r"\b(?:real|unreal|realis(?:tic|m)|(?:deep[- ]?)?fak(?:es?|ed|ing)|forged|fabricated"
    r"|generat(?:e[ds]?|ing|ions?|ive|ors?)|synthe(?:tics?|tically|sis|si[sz]e[ds]?|si[sz]ing)"
    r"|artificial(?:ly)?|ai|a\.i\.|gans?|(?:chat)?gpt|dall[-·]?e|diffusion|machine learning"
    r"|gen-?ai|deep learning|neural networks?|imitations?|counterfeits?"
    r"|(?:machine|computer)[- ]made|(?:made|created|drawn|produced) by (?:a )?(?:machine|computer)"
    r"|simulat(?:e[ds]?|ions?)|authentic(?:ity)?|genuine|unaware)\b",
    re.IGNORECASE,
)
CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069"
    r"\ud800-\udfff\ufffe\uffff]"
)
OLD_SET = (
    "was made before questions.csv and blocks.csv. Commit 3aa5acd is the last that reads it: use it"
    " to continue a read that has begun (nothing was changed), or make a new set with 06."
)


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

    def accepts(self, value, size: float = math.inf) -> bool:
        """Whether a value is an answer to this question at all; `size`: side of the image in
        pixels.
        """
        values = {name for name, _ in self.options}
        if self.kind == MARKS:
            proper = isinstance(value, list) and len(value) <= MOST_MARKS
            return proper and all(_is_mark(one, values, size) for one in value)
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
        """Whether it is asked, given these other answers."""
        if not self.shown_when:
            return True
        other, wanted = self.shown_when
        given = answers.get(other)
        if isinstance(given, list):
            return wanted in given
        return not empty(given) and wanted == as_text(given)


@dataclass(frozen=True)
class Block:
    """One row of blocks.csv. `images` are groups of draw.csv; a block without images shows its text
    and asks its questions once. `pairs`: one real and one generated image are shown side by side.
    `linked`: their window and zoom move together at first.
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
    pairs: bool = False
    linked: bool = False


@dataclass(frozen=True)
class Protocol:
    """The blocks in their order, and all questions in theirs."""

    blocks: tuple[Block, ...]
    questions: tuple[Question, ...]

    def questions_of(self, block: str) -> list[Question]:
        """The questions of a block, or of the reader."""
        return [question for question in self.questions if block in question.blocks]

    def scored(self) -> list[Block]:
        """The blocks whose answers count."""
        return [block for block in self.blocks if block.images and not block.tell_truth]

    def once(self) -> dict[str, list[Question]]:
        """The questions that a reader answers once, by block: the reader's own, and those of blocks
        without images.
        """
        names = [READER, *(block.block for block in self.blocks if not block.images)]
        return {name: self.questions_of(name) for name in names}

    def titles(self) -> dict[str, str]:
        """What people call each block: its title, with its id where another has the same title."""
        titles = [block.title for block in self.blocks]
        return {READER: "Before the first part"} | {
            block.block: block.title
            if titles.count(block.title) == 1
            else f"{block.title} ({block.block})"
            for block in self.blocks
        }


def empty(value) -> bool:
    """Whether a value is no answer."""
    return value is None or value == "" or value == []


def plain_text(text: str) -> str:
    """Text without control characters and without surrounding spaces."""
    return CONTROL.sub(" ", text).strip()


def as_text(value) -> str:
    """A value as answers.csv has it: several joined by |, true and false, marks as JSON."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return json.dumps(value, separators=(",", ":"), sort_keys=True)
    if isinstance(value, list):
        return "|".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_mark(value, cues: set[str], size: float) -> bool:
    """Whether this is a point or box (x, y, w, h) within an image, with a cue or ""."""
    if not isinstance(value, dict) or value.keys() != {"x", "y", "w", "h", "cue"}:
        return False
    x, y, w, h = numbers = [value[name] for name in "xywh"]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        return False
    cue, end = value["cue"], size + 0.01  # the page rounds to 0.01
    inside = 0 <= x <= x + w <= end and 0 <= y <= y + h <= end  # false for NaN
    return inside and isinstance(cue, str) and (not cue or cue in cues)


def refusal(questions: Iterable[Question], answers: Mapping, size: float = math.inf) -> str:
    """Why these answers are not complete and proper, in one sentence; "" when they are. `size`:
    side of the image in pixels.
    """
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
        elif not question.accepts(value, size):
            return f"'{question.id}': the study does not offer this answer."
    return ""


def for_page(questions: Iterable[Question]) -> list[dict]:
    """The questions as the page is given them: nothing of other blocks."""
    return [
        {name: value for name, value in asdict(question).items() if name != "blocks"}
        for question in questions
    ]
