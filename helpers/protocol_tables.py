"""Reads a study's design from questions.csv and blocks.csv, and says what does not fit together.

No pandas: the process that faces the readers reads this too.
"""

import csv
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from helpers.findings import FINDINGS, SIDES
from helpers.protocol import (
    LABEL,
    MARKS,
    OWN_FIELDS,
    READER,
    WHICH,
    YES_NO,
    Block,
    Protocol,
    Question,
    plain_text,
)
from helpers.table_columns import LABELS, QUESTION_KINDS

MOST_STEPS = 9
ID = r"[a-z][a-z0-9_]{0,30}"


class ProtocolError(ValueError):
    """Blocks or questions that do not fit together: one line per mistake, with table and row."""


# A mistake: its file, its place there, and a sentence that begins with the file.
Mistake = tuple[str, int, str]


def load(folder: Path) -> Protocol:
    """The protocol that 06 put into a reading set. Raises ProtocolError or FileNotFoundError."""
    rows = []
    for name in ("questions", "blocks"):
        with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            rows.append(list(csv.DictReader(file)))
    return build(*rows, str(folder))


def build(questions: list[dict], blocks: list[dict], where: str) -> Protocol:
    """The protocol of the rows of questions.csv and blocks.csv; `where`: the folder, for errors.

    Raises ProtocolError with one sentence per mistake: which row, and what to do.
    """
    protocol, mistakes = parse(questions, blocks, where)
    if mistakes:
        raise ProtocolError(in_order(mistakes))
    return protocol


def in_order(mistakes: Iterable[Mistake]) -> str:
    """One line per mistake, in the order of files and rows."""
    return "\n".join(said for *_, said in sorted(mistakes, key=lambda one: one[:2]))


def parse(
    question_rows: list[dict], block_rows: list[dict], where: str
) -> tuple[Protocol, list[Mistake]]:
    """As `build`, but returns all mistakes beside the protocol as far as it is understood. A
    missing required cell is not among them: tables.filled_in names it.
    """
    mistakes: list[Mistake] = []
    at = [partial(_note, mistakes, Path(where) / f"{name}.csv") for name in ("blocks", "questions")]
    notes = [partial(at[0], place, "") for place in range(len(block_rows))]
    blocks = tuple(map(_block, block_rows, notes))
    for name in ("block", "order"):
        values = [getattr(block, name) for block in blocks]
        for place, (note, value) in enumerate(zip(notes, values)):
            note(value and value in values[:place], f"{name} '{value}' appears twice.")
    blocks = tuple(sorted(blocks, key=lambda block: block.order))
    with_images = tuple(block.block for block in blocks if block.images)
    pairs = tuple(block.block for block in blocks if block.pairs)
    known = {READER, *(block.block for block in blocks)}
    alone = tuple(name for name in with_images if name not in pairs)
    notes = [
        partial(at[1], place, f"question '{row['id']}': ")
        for place, row in enumerate(question_rows)
    ]
    questions = tuple(
        _question(row, pairs if row["id"] == WHICH else alone, known, note)
        for row, note in zip(question_rows, notes)
    )
    protocol = Protocol(blocks, questions)
    for question, note in zip(questions, notes):
        _check_question(question, protocol, note)
    resolved = (_when(question, note, protocol) for question, note in zip(questions, notes))
    protocol = Protocol(blocks, tuple(resolved))
    _check_all(
        protocol, partial(at[0], len(block_rows), ""), partial(at[1], len(question_rows), "")
    )
    return protocol, mistakes


def _note(mistakes: list[Mistake], at: Path, place: int, about: str, wrong, sentence: str) -> None:
    if wrong:
        mistakes.append((at.name, place, f"{at}: {about}{sentence}"))


def _yes(row: Mapping, name: str) -> bool:
    return str(row.get(name) or "").lower() == "true"


def _parts(row: Mapping, name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in (row.get(name) or "").split("|") if part.strip())


def _block(row: Mapping, note: Callable) -> Block:
    name, block = row["block"], f"block '{row['block']}'"
    proper = re.fullmatch(ID, name) and name != READER
    note(
        name and not proper,
        f"{block} is not an id: an id has small letters, digits and _, and is not '{READER}'.",
    )
    block = f"part “{row['title']}”" if row["title"] else block
    days, images = float(row.get("after_days") or 0), _parts(row, "images")
    note(days < 0, f"after_days of {block} is below 0.")
    tells, pairs, linked = (_yes(row, name) for name in ("tell_truth", "pairs", "linked"))
    note(tells and not images, f"{block} has tell_truth but shows no images.")
    note(pairs and not images, f"{block} has pairs but shows no images.")
    note(linked and not pairs, f"{block} has linked but no pairs.")
    return Block(
        name,
        int(row["order"] or 0),
        row["title"],
        paragraphs(row.get("instructions") or ""),
        images,
        _yes(row, "unaware"),
        tells,
        _yes(row, "lock"),
        days,
        pairs,
        linked,
    )


def paragraphs(text: str) -> str:
    """A text as the page shows it: an empty line begins a paragraph, other line breaks are the
    editor's.
    """
    parts = (" ".join(part.split()) for part in re.split(r"\n[ \t]*\n", text))
    return "\n\n".join(part for part in parts if part)


def _question(row: Mapping, everywhere: tuple, known: set[str], note: Callable) -> Question:
    name, kind = row["id"], row["kind"]
    proper = re.fullmatch(ID, name) and name not in OWN_FIELDS
    note(
        name and not proper,
        f"an id has small letters, digits and _, and is none of {', '.join(sorted(OWN_FIELDS))}.",
    )
    blocks = _parts(row, "block") or everywhere
    for block in blocks:
        note(
            block not in known,
            f"there is no block '{block}'; known: {', '.join(sorted(known))}.",
        )
    note(kind and kind not in QUESTION_KINDS, f"kind must be one of {', '.join(QUESTION_KINDS)}.")
    when = row.get("shown_when") or ""
    other, _, value = (part.strip() for part in when.partition("="))
    note(when and not (other and value), "shown_when must read question=value.")
    options, required = _options(row, kind, note), _yes(row, "required")
    when = (other, value) if other and value else None
    return Question(name, row["text"], kind, options, required, when, blocks)


def _options(row: Mapping, kind: str, note: Callable) -> tuple[tuple[str, str], ...]:
    """value=text pairs; a bare text is its own value, a step of a scale has its number."""
    given = _parts(row, "options")
    if kind == "side":
        return tuple((side, side) for side in SIDES)
    if kind == "findings":
        for one in given:
            note(one not in FINDINGS, f"'{one}' is not a finding in helpers/findings.py.")
        return tuple((one, FINDINGS.get(one, one)) for one in given or FINDINGS)
    if kind == "scale":
        note(
            not 2 <= len(given) <= MOST_STEPS,
            f"a scale needs 2 to {MOST_STEPS} options, its steps from low to high.",
        )
        return tuple((str(number), text) for number, text in enumerate(given, 1))
    wants = kind in ("choice", "choices")
    note(wants and len(given) < 2, f"a {kind} needs options, like a=First|b=Second.")
    without = kind in ("text", "number", "yes/no")
    note(without and given, f"a {kind} has no options.")
    parts = [[part.strip() for part in one.split("=", 1)] for one in given]
    pairs = [(plain_text(both[0]), both[-1]) for both in parts]
    values = [value for value, _ in pairs]
    note(
        not all(value and text for value, text in pairs),
        "every option has a value and a text, like a=First.",
    )
    for place, value in enumerate(values):
        note(value in values[:place], f"option '{value}' appears twice.")
    return () if without else tuple(pairs)


def _check_question(question: Question, protocol: Protocol, note: Callable) -> None:
    """Check that its id appears once in each of its blocks, and that it fits what they show."""
    titles, values = protocol.titles(), [value for value, _ in question.options]
    for block in question.blocks:
        first = next(one for one in protocol.questions_of(block) if one.id == question.id)
        note(first is not question, f"it appears twice in part “{titles.get(block, block)}”.")
    published = question.kind == "choice" and {"real", "fake"} <= {*values} <= {*LABELS}
    note(
        question.id == LABEL and not published,
        f"'{LABEL}' is the published question, a choice of real, fake and uncertain; give another"
        " question another id.",
    )
    forced = question.required and question.kind == "choice" and values == ["left", "right"]
    note(
        question.id == WHICH and not forced,
        "it must be a forced choice: a required choice with the options left=…|right=….",
    )
    for block in protocol.blocks:
        if block.block not in question.blocks:
            continue
        shows = f"it is asked in part “{titles[block.block]}”, which shows"
        note(question.id == WHICH and not block.pairs, f"{shows} no pairs.")
        note(question.id == LABEL and block.pairs, f"{shows} pairs, but it is about one image.")
    single = {block.block for block in protocol.blocks if block.images and not block.pairs}
    for block in {*question.blocks} - single if question.kind == MARKS else ():
        note(
            True,
            f"it is asked in part “{titles.get(block, block)}”, which shows no single image to"
            " mark.",
        )


def _when(question: Question, note: Callable, protocol: Protocol) -> Question:
    """The question with shown_when as answers have it: a table may say yes or an option's text."""
    other, said = question.shown_when or ("", "")
    value = said
    for block in question.blocks if other else ():
        questions = protocol.questions_of(block)
        earlier = {one.id: one for one in questions[: questions.index(question)]}
        never = f"shown_when {other}={said} cannot be met: "
        choosing = [name for name, one in earlier.items() if one.options or one.kind == YES_NO]
        note(
            other not in choosing,
            f"{never}part “{protocol.titles().get(block, block)}” asks no question '{other}' with"
            f" options, or yes/no, before it; it asks {', '.join(choosing) or 'none'}.",
        )
        if other in choosing:
            offered = earlier[other].options or (("true", "yes"), ("false", "no"))
            meant = {name.casefold(): v for v, text in offered for name in (text, v)}
            names = [text if earlier[other].kind == YES_NO else v for v, text in offered]
            write = " or ".join(f"{other}={name}" for name in names)
            note(said.casefold() not in meant, f"{never}write {write}.")
            value = meant.get(said.casefold(), said)
    return replace(question, shown_when=(other, value) if other else None)


def _check_all(protocol: Protocol, of_blocks: Callable, of_questions: Callable) -> None:
    """Check that images are shown, that each block with images asks something, and that a scored
    one asks the published question.
    """
    of_blocks(not any(block.images for block in protocol.blocks), "no block shows images.")
    ids = {
        block.block: {question.id for question in protocol.questions_of(block.block)}
        for block in protocol.blocks
    }
    for block in protocol.blocks:
        name = block.block
        part = f"part “{protocol.titles()[name]}”"
        of_questions(block.images and not ids[name], f"nothing is asked in {part}.")
        of_questions(
            block.pairs and WHICH not in ids[name],
            f"{part} must ask '{WHICH}' ({name}), because blocks.csv has pairs there.",
        )
    of_questions(
        not any(LABEL in ids[block.block] for block in protocol.scored()),
        f"no block asks '{LABEL}' of images that are scored; 08 needs it.",
    )
