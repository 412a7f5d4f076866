"""What a study's blocks ask of the draw and of its texts: which images each shows, and that nothing
before its turn gives away what an unaware block keeps back.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from helpers import protocol, tables
from helpers.assemble_reading_set.draw import BlindingError
from helpers.runner.places import ROOT

# The page's own words, in every language, are sent before any block.
PAGE_WORDS = ROOT / "helpers" / "reading" / "static"


def read_protocol(questions: Path, blocks: Path) -> protocol.Protocol:
    """questions.csv and blocks.csv, checked. Raises TableError or ProtocolError naming the row."""
    asked, shown = (
        tables.filled_in(path, name).astype(object)
        for path, name in ((questions, "questions"), (blocks, "blocks"))
    )
    rows = ([*frame.where(frame.notna(), "").to_dict("records")] for frame in (asked, shown))
    return protocol.build(*rows, str(blocks.parent))


def presented(drawn: pd.DataFrame, designed: protocol.Protocol) -> pd.DataFrame:
    """One row per presentation: the images drawn, once for every block that shows their group.

    Images that only make readers used to the page come once, in the first such block. Raises
    BlindingError for a group that no block shows or nobody drew, and where the truth of images
    would be told that are scored elsewhere.
    """
    groups, parts = drawn["group"].fillna("main"), []
    for block in designed.blocks:
        own = drawn[groups.isin(block.images)]
        if lacking := {*block.images} - {*groups}:
            raise BlindingError(
                f"blocks.csv: block '{block.block}' shows '{min(lacking)}', which draw.csv does not"
                " have in its column group."
            )
        if block.tell_truth and not own["training"].all():
            raise BlindingError(
                f"blocks.csv: block '{block.block}' tells the truth of its images: in draw.csv they"
                " must be training, of a group of their own."
            )
        seen = parts and own["image_id"].isin(pd.concat(parts)["image_id"])
        warm_up = own["training"] & (not block.tell_truth)
        parts.append(own[~(warm_up & seen)] if parts else own)
        parts[-1] = parts[-1].assign(block=block.block)
        if block in designed.scored() and own["training"].all():
            raise BlindingError(f"blocks.csv: block '{block.block}' shows no image that is scored.")
    shown = {group for block in designed.blocks for group in block.images}
    if unseen := {*groups} - shown:
        raise BlindingError(f"draw.csv: no block of blocks.csv shows the group '{min(unseen)}'.")
    return pd.concat(parts, ignore_index=True)


def write(folder: Path, designed: protocol.Protocol) -> None:
    """questions.csv and blocks.csv of a reading set, as the reading host reads them."""
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


def _options(question: protocol.Question) -> str | None:
    told = {"scale": "{1}", "findings": "{0}", "side": ""}.get(question.kind, "{0}={1}")
    return "|".join(told.format(*pair) for pair in question.options) or None


def to_tell(key: pd.DataFrame, designed: protocol.Protocol) -> pd.DataFrame:
    """blind_id and truth of the images of blocks that tell it: none of them is scored."""
    telling = [block.block for block in designed.blocks if block.tell_truth]
    rows = key[key["block"].isin(telling)]
    truth = rows["origin"].map({"real": "real", "generated": "fake"})
    return pd.DataFrame({"blind_id": rows["blind_id"], "truth": truth})


def refuse_names_of_generation(
    study: str, texts: Mapping[str, str], designed: protocol.Protocol
) -> None:
    """Raises BlindingError for a text before the end of the last unaware block that names
    generation: the study's name, what is shown at sign-in and consent, the page's words, titles,
    instructions and questions.
    """
    unaware = [number for number, block in enumerate(designed.blocks) if block.unaware]
    if not unaware:
        return
    told = {f"the study's name, '{study}'": study.replace("_", " ")}
    told |= {f"{name} of study.yaml": str(text) for name, text in texts.items()}
    told["consent.txt"] = told.pop("consent of study.yaml", "")
    names = [protocol.READER]
    for block in designed.blocks[: unaware[-1] + 1]:
        told[f"blocks.csv, block '{block.block}'"] = f"{block.title}\n{block.instructions}"
        names.append(block.block)
    for question in designed.questions:
        if {*names} & {*question.blocks}:
            said = f"{question.id.replace('_', ' ')}\n{question.text}\n{question.options}"
            told[f"questions.csv, question '{question.id}'"] = said
    for path in sorted(PAGE_WORDS.glob("texts.*.json")):
        told[path.name] = json.dumps(json.loads(path.read_text()), ensure_ascii=False)
    for where, text in told.items():
        if found := protocol.NAMES_GENERATION.search(text):
            raise BlindingError(
                f"{where}: '{found[0]}' would tell the readers of an unaware block what they are"
                " not to know: say it in other words, or in a later block."
            )


def concerns(designed: protocol.Protocol) -> list[str]:
    """What the design asks of those who answer for it, one sentence each."""
    unaware = [block for block in designed.blocks if block.unaware]
    last = designed.blocks[-1]
    found = {
        "Readers are not told at first what the study is about: the ethics board must allow such"
        " incomplete disclosure, and the debriefing that follows.": unaware,
        "No block without images follows the last read: readers who were kept unaware must be"
        " debriefed before they lock.": unaware and last.images,
        "An unaware block has no lock: its answers could still be changed by readers who know.": (
            [block for block in unaware if block.images and not block.lock]
        ),
    }
    return [sentence for sentence, holds in found.items() if holds]
