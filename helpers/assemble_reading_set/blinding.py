"""Blind and hand over a reading set: nothing but pixels differs between two of its files.

What is drawn: assemble_reading_set/random_draw. reading_set/ = reading_set.csv,
images/<blind_id>.png, study.json, commitment.json: all that a reading host needs, without any
truth. The key is sealed beside it (helpers/assemble_reading_set/seal.py).
"""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from helpers import burned_in_text, images, tables
from helpers.assemble_reading_set.random_draw import (
    BlindingError,
    candidates,
    draw,
    order_parts,
    read_draw,
    weak_points,
)
from helpers.assemble_reading_set.seal import derive, read_commitment, seal, unseal
from helpers.runner import parameters, runs

__all__ = [
    "BlindingError",
    "candidates",
    "draw",
    "import_readings",
    "order_parts",
    "read_draw",
    "seal",
    "unseal",
    "weak_points",
    "write_set",
]

FOR_READERS = ("title", "consent", "instructions", "contact", "protocol", "ethics", "language")
# every file of a reading set is dated 2000-01-01T00:00:00Z: when it was made would tell its kind
SAME_TIME = 946684800


def survey(drawn: pd.DataFrame, margin: float) -> pd.DataFrame:
    """The images drawn with `side` (pixels left without the margin) and `depth` (bits, as the grey
    levels show it).
    """
    arrays = (images.read_png(file) for file in drawn["file"])
    measured = [
        (images.reading_side(array, margin), images.effective_bits(array, int(bits)))
        for array, bits in zip(arrays, drawn["bits"])
    ]
    return drawn.assign(side=[side for side, _ in measured], depth=[depth for _, depth in measured])


def write_set(
    drawn: pd.DataFrame,
    folder: Path,
    study: str,
    size: int,
    margin: float,
    name: str = "",
    texts: dict[str, str] | None = None,
) -> pd.DataFrame:
    """Write reading_set.csv, images/ and study.json (with `texts` for the readers) into `folder`;
    returns the key table.

    Every image goes one path: text masked where stage 01 masks it, images.for_reading at the same
    size, margin and depth, stored (not compressed) PNG without metadata, the same date and mode.
    What is there already is left. `name` tells two sets of a study apart: the same image gets
    another blind_id in each. Raises BlindingError for a source that is smaller than `size`: images
    are never upsampled.
    """
    drawn, folder = survey(drawn, margin), Path(folder)
    _refuse_small(drawn, size)
    bits = int(
        drawn["depth"].min()
    )  # the depth of the poorest image: more would tell the others apart
    unmasked = without_masks(study, drawn["run"])
    rows, key = [], []
    first = {}
    for picture in runs.progress(
        drawn.sort_values("part").to_dict("records"), "blinding", len(drawn)
    ):
        blind_id = derive(
            study, f"blind id {name}", f"{picture['image_id']} {picture['repeat']}".encode()
        ).hex()[:16]
        path = folder / "images" / f"{blind_id}.png"
        array = images.read_png(picture["file"])
        if picture["run"] in unmasked:
            array, _ = burned_in_text.mask_text(array, int(picture["bits"]))
        array = images.for_reading(array, int(picture["bits"]), size, bits, margin)
        content = images.write_png(array, compress_level=0)
        if not path.exists() or path.read_bytes() != content:
            tables.write_atomically(path, content)
        os.utime(path, (SAME_TIME, SAME_TIME))
        checksum = derive(study, f"checksum {blind_id}", content).hex()
        rows.append(
            {
                "blind_id": blind_id,
                "path": f"images/{blind_id}.png",
                "checksum": checksum,
                "modality": picture["modality"],
            }
        )
        rows[-1] |= {"training": picture["training"], "part": picture["part"]}
        columns = (
            "image_id",
            "run",
            "modality",
            "origin",
            "generator",
            "finding",
            "view",
            "prompt_id",
            "patient",
            "training",
            "simulated",
        )
        key.append({"blind_id": blind_id, **{column: picture[column] for column in columns}})
        if picture["repeat"]:
            key[-1]["repeat_of"] = first[picture["image_id"]]
        first.setdefault(picture["image_id"], blind_id)
    # Sorted by an opaque id: the order of the rows says nothing either.
    tables.write(pd.DataFrame(rows).sort_values("blind_id"), folder / "reading_set.csv")
    tables.write_atomically(folder / "study.json", _for_readers(study, size, bits, texts or {}))
    return tables.check(pd.DataFrame(key).sort_values("blind_id"), "key")


def without_masks(study: str, names: Iterable[str]) -> set[str]:
    """Runs whose images still have to go through stage 01's rule for burned-in text; none when 01
    keeps text.
    """
    policies = {
        name: runs.load(study, name).parameters.get("burned_in_text") for name in set(names)
    }
    masking = any(policy not in (None, "keep") for policy in policies.values())
    return {name for name, policy in policies.items() if policy is None and masking}


def _refuse_small(drawn: pd.DataFrame, size: int) -> None:
    small = drawn[drawn["side"] < size]
    if len(small):
        worst = small.sort_values("side").iloc[0]
        raise BlindingError(
            f"{len(small)} images of {', '.join(sorted(set(small['run'])))} are smaller than the"
            f" reading size of {size} px ({worst['width']} × {worst['height']}, {worst['side']} px"
            " without the margin): images are never upsampled. Take a reading size of at most"
            f" {worst['side']} or leave that source out."
        )


def _for_readers(study: str, size: int, bits: int, texts: dict[str, str]) -> bytes:
    path = runs.params_folder(study) / "study.yaml"
    told = (parameters.read_yaml(path) if path.exists() else {}) | texts
    page = (
        {"study": study, "title": study}
        | {name: told[name] for name in FOR_READERS if name in told}
        | {"size": size, "bits": bits}
    )
    return (json.dumps(page, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def paragraphs(path: Path) -> str:
    """A text for the readers as the page shows it: an empty line begins a paragraph, other line
    breaks are the editor's.

    Raises BlindingError for a file that says nothing or is not UTF-8.
    """
    try:
        told = [
            " ".join(part.split())
            for part in re.split(r"\n[ \t]*\n", path.read_text(encoding="utf-8"))
        ]
    except UnicodeDecodeError:
        raise BlindingError(f"{path} is not UTF-8: save it in that encoding.") from None
    if not any(told):
        raise BlindingError(f"{path} is empty: write what the readers are to be told.")
    return "\n\n".join(part for part in told if part)


def begun(study: str, name: str) -> list[str]:
    """Runs of stage 07 in which somebody has begun to read the set of run `name`: then it is never
    redone.
    """
    found = []
    for mark in sorted(runs.outputs_folder(study).glob("07_*/begun.json")):
        reading = runs.load(study, mark.parent.name)
        if (
            runs.begun(reading.folder)
            and reading.parameters.get("reading_set", "06_assemble_reading_set") == name
        ):
            found.append(reading.name)
    return found


def assemble(run: runs.Run, drawn: pd.DataFrame, size: int, margin: float, readers: int) -> dict:
    """Write and seal the reading set of a run of stage 06; returns its commitment.

    On a finished run only that.

    Raises BlindingError when somebody has begun to read this set: another draw is another variant.
    """
    reading_set, sealed = run.folder / "reading_set", run.folder / "sealed"
    if run.finished:
        return read_commitment(reading_set)
    if reading := begun(run.study, run.name):
        raise BlindingError(
            f"{reading[0]} has begun to read {run.name}: it is never redone. Give the new draw"
            " another variant."
        )
    if any(drawn["simulated"]):
        run.mark_simulated("images")
    texts = {
        name: paragraphs(run.beside(run.parameters[name])) for name in ("consent", "instructions")
    }
    key = write_set(drawn, reading_set, run.study, size, margin, run.name, texts)
    return seal(key, reading_set, sealed, run.study, readers, run.manifest.get("git"))


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
    found = {
        name: tables.read(came_back / f"{name}.csv") for name in ("events", "readings", "readers")
    }
    shown = set(tables.read(Path(reading_set) / "reading_set.csv")["blind_id"])
    known = set(found["readers"]["reader_id"])
    for name in ("events", "readings"):
        strangers = found[name][
            found[name]["blind_id"].notna() & ~found[name]["blind_id"].isin(shown)
        ]
        if len(strangers):
            raise BlindingError(
                f"{came_back}/{name}.csv: image {strangers['blind_id'].iloc[0]} is not in"
                f" {reading_set}: these are readings of another set."
            )
        unknown = found[name][~found[name]["reader_id"].isin(known)]
        if len(unknown):
            raise BlindingError(
                f"{came_back}/{name}.csv: reader {unknown['reader_id'].iloc[0]} is not in"
                " readers.csv: copy all three tables again."
            )
    twice = found["readings"][found["readings"].duplicated(["reader_id", "blind_id"])]
    if len(twice):
        raise BlindingError(
            f"{came_back}/readings.csv: reader {twice['reader_id'].iloc[0]} has two standing"
            f" answers for {twice['blind_id'].iloc[0]}."
        )
    for reader, events in found["events"].groupby("reader_id"):
        if sorted(events["sequence"]) != list(range(1, len(events) + 1)):
            raise BlindingError(
                f"{came_back}/events.csv: events of reader {reader} are missing: export them again"
                " from the store."
            )
    backed = set(zip(found["events"]["reader_id"], found["events"]["blind_id"]))
    for reader, picture in zip(found["readings"]["reader_id"], found["readings"]["blind_id"]):
        if (reader, picture) not in backed:
            raise BlindingError(
                f"{came_back}/readings.csv: the answer of {reader} to {picture} has no event in"
                " events.csv."
            )
    return found
