"""Blinds and hands over a reading set: its image files differ only in their pixels.

draw.py decides which images are drawn, blocks.py in which block they appear, framing.py how they
are shown. reading_set/ = reading_set.csv, images/<blind_id>.png, study.json, questions.csv,
blocks.csv, commitment.json: all that a reading host needs, without the truth of any image that is
scored (to_tell.csv has the truth of images to learn from). The key is sealed beside it (seal.py).
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from helpers import burned_in_text, images, licences, protocol, table_columns, tables
from helpers.assemble_reading_set import blocks, envelope, framing, pairs, seal
from helpers.assemble_reading_set.draw import BlindingError
from helpers.files import write_atomically
from helpers.runner import folders, run_folder, runs
from helpers.runner.progress import progress

MAIN = "main"  # the only block of a set written without a protocol
# every file is dated 2000-01-01T00:00:00Z: its real date would reveal its source
SAME_TIME = 946684800


def write_set(
    drawn: pd.DataFrame,
    folder: Path,
    study: str,
    settings: dict,
    name: str = "",
    texts: dict[str, str] | None = None,
    designed: protocol.Protocol | None = None,
) -> pd.DataFrame:
    """Write reading_set.csv, images/, study.json (with `texts` for the readers) and the protocol
    into `folder`; returns the key table.

    Every image takes the same path: text masked where stage 01 masks it, framing.for_reading at the
    same size, framing, margin (of `settings`) and depth, stored (not compressed) PNG without
    metadata, the same date and mode. Existing files are left as they are. `name` distinguishes two
    sets of a study: the same image gets a different blind_id in each set and in each block. Raises
    ImageError for an image smaller than reading_size.
    """
    depth = framing.common_depth(drawn)
    unmasked = without_masks(study, drawn["run"])
    drawn = blocks.presented(drawn, designed) if designed else drawn.assign(block=MAIN)
    if designed:
        drawn = pairs.paired(
            drawn, designed, lambda said: envelope.derive(study, f"pairs {name}", said.encode())
        )
    rows, drawn = [], drawn.sort_values("part")
    for image in progress(list(drawn.itertuples()), "blinding"):
        said = f"{image.image_id} {image.repeat} {image.block}".encode()
        blind_id = envelope.derive(study, f"blind id {name}", said).hex()[:16]
        content = _standardised(image, depth, settings, image.run in unmasked)
        path = folder / "images" / f"{blind_id}.png"
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)
        os.utime(path, (SAME_TIME, SAME_TIME))
        checksum = envelope.derive(study, f"checksum {blind_id}", content).hex()
        rows.append((blind_id, f"images/{path.name}", checksum, image.part))
    table = pd.DataFrame(rows, columns=["blind_id", "path", "checksum", "part"])
    key = _key(drawn.assign(blind_id=table["blind_id"].to_numpy()))
    table = table.merge(key[["blind_id", "modality", "training", "block", "pair"]], on="blind_id")
    # Sorted by an opaque id, so that the order of the rows reveals nothing.
    tables.write(table.sort_values("blind_id"), folder / "reading_set.csv")
    if designed:
        blocks.write(folder, designed, key)
    shown = {"size": settings["reading_size"], "bits": depth}
    page = blocks.for_readers(study) | (texts or {}) | shown
    content = json.dumps(page, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_atomically(folder / "study.json", content.encode())
    return tables.check(key[table_columns.column_names("key")], "key")


def _key(shown: pd.DataFrame) -> pd.DataFrame:
    """What each blind_id of the presentations `shown` repeats, and the left image of its pair."""
    first = shown.groupby(["image_id", "block"])["blind_id"].transform("first")
    of_image = dict(zip(zip(shown["image_id"], shown["block"]), first))
    left = zip(shown.get("left", pd.Series(pd.NA, shown.index)), shown["block"])
    pair = pd.array([of_image.get(both) for both in left], dtype="string")
    return shown.assign(repeat_of=first.where(shown["repeat"]), pair=pair).sort_values("blind_id")


def _standardised(image, depth: int, settings: dict, masking: bool) -> bytes:
    """The PNG file that readers are shown of a drawn image."""
    array, bits = images.read_png(image.file), int(image.bits)
    if masking:
        array, _ = burned_in_text.mask_text(array, bits)
    shown = framing.for_reading(array, bits, image.modality, depth, settings)
    return images.write_png(shown, compress_level=0)


def without_masks(study: str, names: Iterable[str]) -> set[str]:
    """Runs whose images still need stage 01's rule for burned-in text; none if 01 keeps text."""
    policies = {
        name: runs.load(study, name).parameters.get("burned_in_text") for name in set(names)
    }
    masking = any(policy not in (None, "keep") for policy in policies.values())
    return {name for name, policy in policies.items() if policy is None and masking}


def begun(study: str, name: str) -> list[str]:
    """Runs of stage 07 in which somebody has begun to read the set of run `name`. Such a set is
    never redone.
    """
    marks = sorted(folders.outputs_folder(study).glob("07_*/begun.json"))
    return [
        reading.name
        for reading in (runs.load(study, mark.parent.name) for mark in marks)
        if run_folder.begun(reading.folder)
        and reading.parameters.get("reading_set", "06_assemble_reading_set") == name
    ]


def assemble(
    run: runs.Run, drawn: pd.DataFrame, audited: runs.Run, designed: protocol.Protocol
) -> dict:
    """Write and seal the reading set of a run of stage 06 at the reading size of 05 (`audited`);
    returns its commitment. On a finished run it only returns the commitment.

    Raises BlindingError if somebody has begun to read this set (another draw needs another
    variant).
    """
    reading_set, settings = run.folder / "reading_set", run.parameters
    if run.finished:
        return seal.read_commitment(reading_set)
    if reading := begun(run.study, run.name):
        raise BlindingError(
            f"{reading[0]} has begun to read {run.name}, so it is never redone. Give the new draw"
            " another variant."
        )
    if any(drawn["simulated"]):
        run.mark_simulated("images")
    texts = {"consent": blocks.paragraphs(run.beside(settings.consent))}
    shown = {**audited.parameters, "framing": settings.framing}
    key = write_set(drawn, reading_set, run.study, shown, run.name, texts, designed)
    run.write("sources.csv", licences.sources(drawn))
    sealed, git = run.folder / "sealed", run.manifest.get("git")
    return seal.seal(key, reading_set, sealed, run.study, settings.readers, git)


def cut_shares(drawn: pd.DataFrame, settings: dict) -> dict[str, float]:
    """The mean share of an image's field that the framing cuts off, by source of the drawn
    images.
    """
    shares = []
    for row in drawn.itertuples():
        array, bits = images.read_png(row.file), int(row.bits)
        whole = images.without_bars(array, bits).size
        shares.append(1 - framing.field(array, bits, settings).size / whole)
    return pd.Series(shares, dtype=float).groupby(drawn["run"].to_numpy()).mean().round(4).to_dict()


def framed(set_run: runs.Run) -> str:
    """Sentences for the report: how a finished run of 06 framed the images, how much this cut off
    each source, and how many images were left out as too small.
    """
    summary = set_run.manifest.get("summary", {})
    if "framing" not in summary:
        return ""
    cut = ", ".join(f"{name} {100 * share:.0f} %" for name, share in summary["cut"].items())
    small = ", ".join(f"{count} of {name}" for name, count in summary["too_small"].items())
    how = {
        "whole": "Every image is shown whole on a black square; nothing is cut off.",
        "common": f"Every image, real or generated, is cut to its central square (cut off: {cut}).",
    }
    left_out = f" Left out because smaller than the reading size: {small}." if small else ""
    return how[summary["framing"]] + left_out


def read_set(folder: Path) -> pd.DataFrame:
    """The table reading_set.csv with the common bit depth `bits` of its images."""
    bits = json.loads((Path(folder) / "study.json").read_text())["bits"]
    return tables.read(Path(folder) / "reading_set.csv").assign(bits=bits)


def import_readings(folder: Path, reading_set: Path) -> dict[str, pd.DataFrame]:
    """Readings from a reading host (events, readings, readers), checked against the set that was
    sent.

    Raises BlindingError for another set's images, an unknown reader, a second final answer, a gap
    in a reader's events, or an answer without an event. The store verifies the chain of hashes.
    """
    events, readings, readers = (
        tables.read(folder / f"{name}.csv") for name in ("events", "readings", "readers")
    )
    answers = tables.read(folder / "answers.csv", "given_answers")
    shown = tables.read(Path(reading_set) / "reading_set.csv")["blind_id"]
    for name, rows in (("events", events), ("readings", readings), ("answers", answers)):
        _refuse(
            rows[rows["blind_id"].notna() & ~rows["blind_id"].isin(shown)],
            folder / f"{name}.csv",
            "image {blind_id} is not in the reading set that was sent: these readings are of"
            " another set. Check reading_set and readings of 08.",
        )
        _refuse(
            rows[~rows["reader_id"].isin(readers["reader_id"])],
            folder / f"{name}.csv",
            "reader {reader_id} is not in readers.csv: copy all three tables again.",
        )
    answer = ["reader_id", "blind_id"]
    _refuse(
        readings[readings.duplicated(answer)],
        folder / "readings.csv",
        "reader {reader_id} has two final answers for {blind_id}: export the tables again from the"
        " store.",
    )
    expected = events.sort_values("sequence").groupby("reader_id").cumcount().sort_index() + 1
    _refuse(
        events[events["sequence"] != expected],
        folder / "events.csv",
        "events of reader {reader_id} are missing: export the tables again from the store.",
    )
    backed = pd.MultiIndex.from_frame(events[answer])
    for name, rows in (("readings", readings), ("answers", answers.dropna(subset="blind_id"))):
        _refuse(
            rows[~pd.MultiIndex.from_frame(rows[answer]).isin(backed)],
            folder / f"{name}.csv",
            "the answer of {reader_id} to {blind_id} has no event in events.csv: export the tables"
            " again from the store.",
        )
    return {"events": events, "readings": readings, "readers": readers, "answers": answers}


def _refuse(wrong: pd.DataFrame, path: Path, sentence: str) -> None:
    """Raise BlindingError with the sentence filled from the first of the wrong rows, if any."""
    if len(wrong):
        raise BlindingError(f"{path}: {sentence.format(**wrong.iloc[0])}")
