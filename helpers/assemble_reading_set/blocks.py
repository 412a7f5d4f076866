"""What a study's blocks require of the draw and of its texts: the images of each block, and that no
earlier text reveals what an unaware block holds back.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from helpers import protocol, protocol_tables, table_columns, tables
from helpers.assemble_reading_set.draw import BlindingError, read_draw
from helpers.files import write_atomically
from helpers.runner import folders, parameters, runs

# The page's own words, in every language, reach the reader before any block.
PAGE_WORDS = folders.ROOT / "helpers" / "reading" / "static"
FOR_READERS = ("contact", "protocol", "ethics", "language")
PROTOCOL = ("questions", "blocks")
LENGTHS_OF_TIME = re.compile(
    r"\b(?:day|week|month|tag|woche|monat|jour|semaine|mois)", re.IGNORECASE
)


def read_design(run: runs.Run) -> tuple[pd.DataFrame, protocol.Protocol, list[str]]:
    """The design of a run of 06: draw.csv, the protocol of questions.csv and blocks.csv, and what
    the design requires of the people responsible for it (one sentence each).

    Raises ProtocolError with one line per mistake: in a table, between the tables, and in a text
    that would reveal to the readers of an unaware block what they must not know yet.
    """
    files = {name: run.beside(run.parameters[name]) for name in ("draw", "consent", *PROTOCOL)}
    designed, mistakes = understood(*(files[name] for name in PROTOCOL))
    wanted, texts = tables.empty("draw"), for_readers(run.study)
    try:
        wanted = read_draw(files["draw"])
        mistakes += misfits(wanted, designed)
    except (tables.TableError, BlindingError) as error:
        mistakes.append(("draw.csv", 0, str(error)))
    try:
        texts["consent"] = paragraphs(files["consent"])
    except BlindingError as error:
        mistakes.append(("consent.txt", 0, str(error)))
    mistakes += names_of_generation(texts, designed)
    if mistakes:
        raise protocol_tables.ProtocolError(protocol_tables.in_order(mistakes))
    return wanted, designed, concerns(designed, texts["consent"])


def understood(
    questions: Path, blocks: Path
) -> tuple[protocol.Protocol, list[protocol_tables.Mistake]]:
    """The protocol of both tables, and their mistakes."""
    rows, mistakes = [], []
    for path, name in zip((questions, blocks), PROTOCOL):
        try:
            frame, wrong = tables.as_far_as_understood(path, name)
        except tables.TableError as error:
            frame, wrong = tables.empty(name), [(-1, str(error))]
        mistakes += [(f"{name}.csv", *one) for one in wrong]
        frame = frame.reindex(columns=table_columns.column_names(name)).astype(object)
        rows.append(frame.where(frame.notna(), "").to_dict("records"))
    designed, more = protocol_tables.parse(*rows, str(blocks.parent))
    return designed, mistakes + more


def misfits(wanted: pd.DataFrame, designed: protocol.Protocol) -> list[protocol_tables.Mistake]:
    """Where blocks.csv and draw.csv do not fit: a group that no block shows or nobody draws, images
    whose truth is told although they are scored, blocks without scored images, uneven pairs.
    """
    wanted = wanted[wanted["count"] > 0]
    groups, found = wanted["group"].fillna("main"), []
    for place, block in enumerate(designed.blocks):
        part, own = f"blocks.csv: part “{block.title}”", wanted[groups.isin(block.images)]
        unscored = own["training"].all()
        lacking = sorted({*block.images} - {*groups})
        said = [f"{part} shows '{n}', which no row of draw.csv has as its group." for n in lacking]
        if block.tell_truth and not unscored:
            said.append(
                f"{part} tells the truth of its images: in draw.csv they must be training images in"
                " a group of their own."
            )
        if block in designed.scored() and unscored and not lacking:
            said.append(f"{part} shows no image that is scored.")
        said += [f"{part} shows pairs, but {odd}" for odd in _uneven(own)] if block.pairs else []
        found += [("blocks.csv", place, sentence) for sentence in said]
    shown = {group for block in designed.blocks for group in block.images}
    return found + [
        ("draw.csv", 0, f"draw.csv: no part of blocks.csv shows the group '{group}'.")
        for group in sorted({*groups} - shown)
    ]


def _uneven(wanted: pd.DataFrame) -> Iterator[str]:
    for (training, modality), rows in wanted.groupby(["training", "modality"]):
        made, real = (rows.loc[rows["origin"] == o, "count"].sum() for o in ("generated", "real"))
        if made != real:
            yield (
                f"draw.csv gives it {made} generated and {real} real {modality} images"
                f" {'for training ' if training else ''}in its groups: draw as many of each"
                " (finding match)."
            )


def presented(drawn: pd.DataFrame, designed: protocol.Protocol) -> pd.DataFrame:
    """One row per presentation: the images drawn, once for every block that shows their group.

    Warm-up images come once, in the first block that shows them.
    """
    groups, parts = drawn["group"].fillna("main"), []
    for block in designed.blocks:
        own = drawn[groups.isin(block.images)]
        warm_up = own["training"] & (not block.tell_truth)
        seen = {image_id for part in parts for image_id in part["image_id"]}
        again = warm_up & own["image_id"].isin(seen)
        parts.append(own[~again].assign(block=block.block))
    return pd.concat(parts, ignore_index=True)


def write(folder: Path, designed: protocol.Protocol, key: pd.DataFrame) -> None:
    """Write questions.csv and blocks.csv of a reading set for the reading host and, with blocks
    that tell the truth, to_tell.csv.
    """
    blocks = [asdict(block) | {"images": "|".join(block.images)} for block in designed.blocks]
    questions = [
        {
            "id": question.id,
            "block": "|".join(question.blocks),
            "text": question.text,
            "kind": question.kind,
            "options": _options(question),
            "required": question.required,
            "shown_when": "=".join(question.shown_when or ()) or None,
        }
        for question in designed.questions
    ]
    tables.write(pd.DataFrame(blocks), folder / "blocks.csv")
    tables.write(pd.DataFrame(questions), folder / "questions.csv")
    if len(telling := to_tell(key, designed)):
        write_atomically(folder / "to_tell.csv", telling.to_csv(index=False).encode())


def _options(question: protocol.Question) -> str | None:
    choice_form = {"scale": "{1}", "findings": "{0}", "side": ""}.get(question.kind, "{0}={1}")
    return "|".join(choice_form.format(*pair) for pair in question.options) or None


def to_tell(key: pd.DataFrame, designed: protocol.Protocol) -> pd.DataFrame:
    """blind_id and truth of the images in blocks that tell the truth; none of these images is
    scored. The truth of a pair is the side of the generated image.
    """
    telling = [block.block for block in designed.blocks if block.tell_truth]
    rows = key[key["block"].isin(telling) & (key["pair"].isna() | (key["pair"] == key["blind_id"]))]
    alone = rows["origin"].map({"real": "real", "generated": "fake"})
    side = rows["origin"].map({"real": "right", "generated": "left"})
    return pd.DataFrame(
        {"blind_id": rows["blind_id"], "truth": alone.where(rows["pair"].isna(), side)}
    )


def for_readers(study: str) -> dict[str, str]:
    """The texts of study.yaml that readers see before any block."""
    path = folders.params_folder(study) / "study.yaml"
    texts = parameters.read_yaml(path) if path.exists() else {}
    return {"study": study} | {name: texts[name] for name in FOR_READERS if name in texts}


def paragraphs(path: Path) -> str:
    """A text for the readers as the page shows it: an empty line begins a paragraph, and other line
    breaks become spaces.

    Raises BlindingError for a file that is absent, says nothing or is not UTF-8.
    """
    try:
        texts = protocol_tables.paragraphs(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise BlindingError(f"{path} is not UTF-8: save it in that encoding.") from None
    except FileNotFoundError:
        raise BlindingError(f"{path} does not exist: write the text for the readers.") from None
    if not texts:
        raise BlindingError(f"{path} is empty: write the text for the readers.")
    return texts


def as_words(name: str) -> str:
    """A name as separate words: fake_lungs2 as 'fake lungs '."""
    return re.sub(r"[\W\d_]+", " ", name)


def names_of_generation(
    shown: Mapping[str, str], designed: protocol.Protocol
) -> list[protocol_tables.Mistake]:
    """Texts before the end of the last unaware block that name generation: the study's name and
    what is `shown` at sign-in and consent, the page's words, titles, instructions and questions.
    """
    unaware = [number for number, block in enumerate(designed.blocks) if block.unaware]
    if not unaware:
        return []
    texts = [
        ("study.yaml", 0, f"study.yaml: its {name}", str(text))
        for name, text in shown.items()
        if name not in ("study", "consent", "language")
    ]
    name = shown["study"]
    texts.append(("study.yaml", 0, f"the study's name, '{name}'", as_words(name)))
    texts.append(("consent.txt", 0, "consent.txt", shown.get("consent", "")))
    early = designed.blocks[: unaware[-1] + 1]
    for place, block in enumerate(early):
        said = f"{block.title}\n{block.instructions}"
        texts.append(("blocks.csv", place, f"blocks.csv, part “{block.title}”", said))
    told = [
        (
            "blocks.csv",
            place,
            f"blocks.csv, part “{block.title}”: it tells the truth (tell_truth)"
            " before the last unaware part has ended: move it to a later place.",
        )
        for place, block in enumerate(early)
        if block.tell_truth
    ]
    names = {protocol.READER, *(block.block for block in early)}
    for place, question in enumerate(designed.questions):
        said = f"{as_words(question.id)}\n{question.text}\n{question.options}"
        where = f"questions.csv, question '{question.id}'"
        if names & {*question.blocks}:
            texts.append(("questions.csv", place, where, said))
    for path in sorted(PAGE_WORDS.glob("texts.*.json")):
        said = json.dumps(json.loads(path.read_text()), ensure_ascii=False)
        texts.append((path.name, 0, path.name, said))
    return told + [
        (
            *at,
            f"{where}: {' and '.join(sorted(words))} would reveal to unaware readers what they must"
            " not know yet: use other words, or move it to a later part.",
        )
        for *at, where, text in texts
        if (words := {f"'{word}'" for word in protocol.NAMES_GENERATION.findall(text)})
    ]


def concerns(designed: protocol.Protocol, consent: str) -> list[str]:
    """What the design requires of those responsible for it, one sentence each."""
    unaware = [block for block in designed.blocks if block.unaware]
    found = {
        "Readers are not told at first what the study is about: the ethics board must allow such"
        " incomplete disclosure and the debriefing that follows.": unaware,
        "No part without images follows the last read: readers who were kept unaware must be"
        " debriefed before they lock.": unaware and designed.blocks[-1].images,
        "An unaware part has no lock: its answers could still be changed by readers who know.": (
            [block for block in unaware if block.images and not block.lock]
        ),
        **{
            f"consent.txt names no days, weeks or months, but the part “{block.title}” opens"
            f" {block.after_days:g} days after the previous one: readers must know this when they"
            " agree.": not LENGTHS_OF_TIME.search(consent)
            for block in designed.blocks
            if block.after_days
        },
    }
    return [sentence for sentence, holds in found.items() if holds]
