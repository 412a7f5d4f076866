"""Blind and hand over a reading set: nothing but pixels differs between two of its files.

What is drawn: draw.py. In which block: blocks.py. How it is shown: framing.py. reading_set/ =
reading_set.csv, images/<blind_id>.png, study.json, questions.csv, blocks.csv, commitment.json: all
that a reading host needs, without the truth of any image that is scored (to_tell.csv has that of
images to learn from). The key is sealed beside it (seal.py).
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from helpers import burned_in_text, images, licences, protocol, table_columns, tables
from helpers.assemble_reading_set import blocks, framing, seal
from helpers.assemble_reading_set.draw import BlindingError
from helpers.files import write_atomically
from helpers.runner import parameters, places, run_folder, runs
from helpers.runner.progress import progress

FOR_READERS = ("contact", "protocol", "ethics", "language")
MAIN = "main"  # the only block of a set that is written without a protocol
# every file of a reading set is dated 2000-01-01T00:00:00Z: when it was made would tell its kind
SAME_TIME = 946684800


def write_set(
    drawn: pd.DataFrame,
    folder: Path,
    study: str,
    asked: dict,
    name: str = "",
    texts: dict[str, str] | None = None,
    designed: protocol.Protocol | None = None,
) -> pd.DataFrame:
    """Write reading_set.csv, images/, study.json (with `texts` for the readers) and the protocol
    into `folder`; returns the key table.

    Every image goes one path: text masked where stage 01 masks it, framing.for_reading at the same
    size, framing, margin (of `asked`) and depth, stored (not compressed) PNG without metadata, the
    same date and mode. What is there already is left. `name` tells two sets of a study apart: the
    same image gets another blind_id in each, and in each block. Raises ImageError for an image
    smaller than reading_size.
    """
    folder = Path(folder)
    # The depth of the poorest image: more would tell the others apart.
    depth = min(
        images.effective_bits(images.read_png(file), int(bits))
        for file, bits in zip(drawn["file"], drawn["bits"])
    )
    unmasked = without_masks(study, drawn["run"])
    drawn = blocks.presented(drawn, designed) if designed else drawn.assign(block=MAIN)
    rows, first, repeat_of = [], {}, {}
    presentations = list(drawn.sort_values("part").itertuples())
    for image in progress(presentations, "blinding"):
        said = f"{image.image_id} {image.repeat} {image.block}".encode()
        blind_id = seal.derive(study, f"blind id {name}", said).hex()[:16]
        array, bits = images.read_png(image.file), int(image.bits)
        if image.run in unmasked:
            array, _ = burned_in_text.mask_text(array, bits)
        shown = framing.for_reading(array, bits, image.modality, depth, asked)
        content = images.write_png(shown, compress_level=0)
        path = folder / "images" / f"{blind_id}.png"
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)
        os.utime(path, (SAME_TIME, SAME_TIME))
        checksum = seal.derive(study, f"checksum {blind_id}", content).hex()
        rows.append((blind_id, f"images/{path.name}", checksum, image.part))
        if image.repeat:
            repeat_of[blind_id] = first[image.image_id, image.block]
        first.setdefault((image.image_id, image.block), blind_id)
    key = pd.DataFrame(presentations).assign(blind_id=[row[0] for row in rows])
    key = key.assign(repeat_of=key["blind_id"].map(repeat_of)).sort_values("blind_id")
    told = pd.DataFrame(rows, columns=["blind_id", "path", "checksum", "part"])
    told = told.merge(key[["blind_id", "modality", "training", "block"]], on="blind_id")
    # Sorted by an opaque id: the order of the rows says nothing either.
    tables.write(told.sort_values("blind_id"), folder / "reading_set.csv")
    if designed:
        blocks.write(folder, designed)
        telling = blocks.to_tell(key, designed)
        if len(telling):
            write_atomically(folder / "to_tell.csv", telling.to_csv(index=False).encode())
    page = for_readers(study) | (texts or {}) | {"size": asked["reading_size"], "bits": depth}
    write_atomically(
        folder / "study.json",
        (json.dumps(page, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode(),
    )
    return tables.check(key[[column.name for column in table_columns.columns("key")]], "key")


def without_masks(study: str, names: Iterable[str]) -> set[str]:
    """Runs whose images still have to go through stage 01's rule for burned-in text; none when 01
    keeps text.
    """
    policies = {
        name: runs.load(study, name).parameters.get("burned_in_text") for name in set(names)
    }
    masking = any(policy not in (None, "keep") for policy in policies.values())
    return {name for name, policy in policies.items() if policy is None and masking}


def for_readers(study: str) -> dict[str, str]:
    """What study.yaml tells readers before any block."""
    path = places.params_folder(study) / "study.yaml"
    told = parameters.read_yaml(path) if path.exists() else {}
    return {"study": study} | {name: told[name] for name in FOR_READERS if name in told}


def paragraphs(path: Path) -> str:
    """A text for the readers as the page shows it: an empty line begins a paragraph, other line
    breaks are the editor's.

    Raises BlindingError for a file that says nothing or is not UTF-8.
    """
    try:
        told = protocol.paragraphs(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise BlindingError(f"{path} is not UTF-8: save it in that encoding.") from None
    if not told:
        raise BlindingError(f"{path} is empty: write the text for the readers.")
    return told


def begun(study: str, name: str) -> list[str]:
    """Runs of stage 07 in which somebody has begun to read the set of run `name`: then it is never
    redone.
    """
    found = []
    for mark in sorted(places.outputs_folder(study).glob("07_*/begun.json")):
        reading = runs.load(study, mark.parent.name)
        if (
            run_folder.begun(reading.folder)
            and reading.parameters.get("reading_set", "06_assemble_reading_set") == name
        ):
            found.append(reading.name)
    return found


def assemble(
    run: runs.Run, drawn: pd.DataFrame, audited: runs.Run, designed: protocol.Protocol
) -> dict:
    """Write and seal the reading set of a run of stage 06 at the reading size that 05 `audited`;
    returns its commitment. On a finished run only that.

    Raises BlindingError when somebody has begun to read this set (another draw is another variant),
    and for a text that an unaware block must not have.
    """
    reading_set, asked = run.folder / "reading_set", run.parameters
    if run.finished:
        return seal.read_commitment(reading_set)
    if reading := begun(run.study, run.name):
        raise BlindingError(
            f"{reading[0]} has begun to read {run.name}: it is never redone. Give the new draw"
            " another variant."
        )
    if any(drawn["simulated"]):
        run.mark_simulated("images")
    texts = {"consent": paragraphs(run.beside(asked.consent))}
    told = for_readers(run.study) | texts
    blocks.refuse_names_of_generation(
        run.study,
        {name: told[name] for name in told if name not in ("study", "language")},
        designed,
    )
    shown = {**audited.parameters, "framing": asked.framing}
    key = write_set(drawn, reading_set, run.study, shown, run.name, texts, designed)
    run.write("sources.csv", licences.sources(drawn))
    git = run.manifest.get("git")
    return seal.seal(key, reading_set, run.folder / "sealed", run.study, asked.readers, git)


def cut_shares(drawn: pd.DataFrame, asked: dict) -> dict[str, float]:
    """The mean share of their own field that the framing cuts off the images drawn, by source."""
    shares = []
    for row in drawn.itertuples():
        array, bits = images.read_png(row.file), int(row.bits)
        whole = images.without_bars(array, bits).size
        shares.append(1 - framing.field(array, bits, asked).size / whole)
    return pd.Series(shares, dtype=float).groupby(drawn["run"].to_numpy()).mean().round(4).to_dict()


def framed(set_run: runs.Run) -> str:
    """How the images of a finished run of 06 were framed, how much that cut off each source, and
    how many images were left out as too small: sentences for the report.
    """
    told = set_run.manifest.get("summary", {})
    if "framing" not in told:
        return ""
    cut = ", ".join(f"{name} {share:.0%}" for name, share in told["cut"].items())
    small = ", ".join(f"{count} of {name}" for name, count in told["too_small"].items())
    how = {
        "whole": "Every image is shown whole on a black square; nothing is cut off.",
        "common": f"Every image, real or generated, is cut to its central square (cut off: {cut}).",
    }
    left_out = f" Left out because smaller than the reading size: {small}." if small else ""
    return how[told["framing"]] + left_out


def read_set(folder: Path) -> pd.DataFrame:
    """reading_set.csv with the grey depth `bits` that all its images have."""
    bits = json.loads((Path(folder) / "study.json").read_text())["bits"]
    return tables.read(Path(folder) / "reading_set.csv").assign(bits=bits)


def import_readings(came_back: Path, reading_set: Path) -> dict[str, pd.DataFrame]:
    """Readings that came back from a reading host: events, readings, readers, checked against the
    set that was sent.

    Raises BlindingError for another set's images, an unknown reader, an answer given twice, a
    reader whose events have a gap, or an answer that no event backs. The chain of hashes is the
    store's to verify.
    """
    came_back = Path(came_back)
    names = ("events", "readings", "readers")
    events, readings, readers = (tables.read(came_back / f"{name}.csv") for name in names)
    answers = tables.read(came_back / "answers.csv", "given_answers")
    shown = tables.read(Path(reading_set) / "reading_set.csv")["blind_id"]
    for name, rows in (("events", events), ("readings", readings), ("answers", answers)):
        _refuse(
            rows[rows["blind_id"].notna() & ~rows["blind_id"].isin(shown)],
            came_back / f"{name}.csv",
            "image {blind_id} is not in the reading set that was sent: these are readings of"
            " another set.",
        )
        _refuse(
            rows[~rows["reader_id"].isin(readers["reader_id"])],
            came_back / f"{name}.csv",
            "reader {reader_id} is not in readers.csv: copy all three tables again.",
        )
    answer = ["reader_id", "blind_id"]
    _refuse(
        readings[readings.duplicated(answer)],
        came_back / "readings.csv",
        "reader {reader_id} has two final answers for {blind_id}.",
    )
    expected = events.sort_values("sequence").groupby("reader_id").cumcount().sort_index() + 1
    _refuse(
        events[events["sequence"] != expected],
        came_back / "events.csv",
        "events of reader {reader_id} are missing: export them again from the store.",
    )
    backed = pd.MultiIndex.from_frame(events[answer])
    asked = answers[answers["blind_id"].notna()]
    for name, rows in (("readings", readings), ("answers", asked)):
        _refuse(
            rows[~pd.MultiIndex.from_frame(rows[answer]).isin(backed)],
            came_back / f"{name}.csv",
            "the answer of {reader_id} to {blind_id} has no event in events.csv.",
        )
    return {"events": events, "readings": readings, "readers": readers, "answers": answers}


def _refuse(wrong: pd.DataFrame, path: Path, sentence: str) -> None:
    """Raise BlindingError with the sentence filled from the first of the wrong rows, if any."""
    if len(wrong):
        raise BlindingError(f"{path}: {sentence.format(**wrong.iloc[0])}")
