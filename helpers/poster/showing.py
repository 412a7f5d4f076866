"""Decides which images of a study visitors may see, and reads them as the readers saw them."""

import json

import numpy as np
import pandas as pd

from helpers import images, licences
from helpers.analyse_readings import release
from helpers.runner import runs


def refuse_open_readers(run: runs.Run, found: dict) -> None:
    """Refuse until every planned reader has locked or withdrawn.

    `found`: results.json of 08. Raises RunError that says who has not.
    """
    flow, planned = found["flow"], found["context"]["planned_readers"]
    waiting = [row["reader"] for row in found["readers"] if not row["locked"]]
    if flow["registered"] < planned:
        waiting.append(f"{planned - flow['registered']} of {planned} planned readers")
    if waiting:
        raise runs.RunError(
            f"{run.name}: poster and companion show which images are generated, but"
            f" {', '.join(waiting)} had not locked when {run.parameters.analysis} was made. Let"
            " every reader lock, redo the analysis, then make the poster."
        )


def read_images(run: runs.Run) -> pd.DataFrame:
    """One row per image of the analysis: columns of per_image.csv, file (the PNG that was read),
    licence, credit and shown (whether visitors may see it).

    Generated images follow the rule of 08's release, real images the licence of their source.
    """
    analysis, set_run = run.reads(run.parameters.analysis), run.reads(run.parameters.reading_set)
    rows = analysis.read("tables/per_image.csv")
    sources = [run.reads(name) for name in sorted(rows["run"].dropna().unique())]
    known = pd.concat([source.read("images.csv") for source in sources]).set_index("image_id")
    paths = set_run.read("reading_set/reading_set.csv").set_index("blind_id")["path"]
    free = set(release.image_manifest(rows, sources)["image_id"])
    rows = rows.assign(
        file=[set_run.folder / "reading_set" / paths[blind_id] for blind_id in rows["blind_id"]],
        licence=known["licence"].reindex(rows["image_id"]).fillna("").tolist(),
        credit=known["credit"].reindex(rows["image_id"]).fillna("").tolist(),
    )
    real = rows["origin"] == "real"
    allowed = real & rows["licence"].map(lambda licence: licences.may("shown", licence))
    return rows.assign(shown=rows["image_id"].isin(free) | allowed)


def depth(run: runs.Run) -> int:
    """Bit depth of the images that were read."""
    folder = run.reads(run.parameters.reading_set).folder
    return json.loads((folder / "reading_set" / "study.json").read_text())["bits"]


def read_frames(run: runs.Run) -> tuple[str, list[np.ndarray]]:
    """The images of one sample from noise to lung that 04 kept, each (H, W) uint8, with its
    image_id; "" and no frames if none were stored or the sample is a near copy of a training case.
    """
    if not run.parameters.sampling:
        return "", []
    sampling = run.reads(run.parameters.sampling)
    files = sorted(sampling.folder.glob("frames/*.png"))
    if not files:
        return "", []
    image_id = files[0].stem.split("-")[0]
    sample = sampling.read("images.csv").query("image_id == @image_id")
    if run.parameters.audit:
        nearest = run.reads(run.parameters.audit).read("nearest.csv")
        sample = sample.merge(nearest[["image_id", "copy"]], on="image_id", how="left")
    if release.image_manifest(sample, [sampling]).empty:
        return "", []
    bits = int(sample["bits"].iloc[0])
    return image_id, [images.eight_bits(images.read_png(path), bits) for path in files]
