"""Audits the images before anybody reads them: fidelity, memorised copies, and signs that give a
source away.

fidelity.py compares feature distributions (features.py extracts them), copies.py looks for real
cases in generated images (alignment.py aligns both), leakage.py for signs of the source that are
not anatomy (signs.py measures them). torch is imported only if a network is the extractor.
"""

import pandas as pd

from helpers import tables
from helpers.assemble_reading_set import draw
from helpers.audit import copies, fidelity, leakage
from helpers.runner import freshness, runs


def gather(run: runs.Run) -> pd.DataFrame:
    """The images of `cases` and of all `sources` from draw.gather, with the columns `source` (run
    and generator, or "real"), `trained_here` (made by a generator of this study) and `group`.

    Images of one `group` stay together in resampling. The group of a real image is its patient,
    that of a generated one its prompt, else the image itself.
    """
    sources = [run.reads(name) for name in freshness.matching(run.study, run.parameters.sources)]
    pool = draw.gather([run.reads(run.parameters.cases), *sources])
    generated = pool["origin"] == "generated"
    trained_here = [
        source.name
        for source in sources
        if any(name.startswith("03_") for name in source.references)
    ]
    named = pool["run"] + (": " + pool["generator"]).fillna("")
    patient, prompt = (
        "patient " + pool["patient"],
        "prompt " + pool["run"] + " " + pool["prompt_id"],
    )
    return pool.assign(
        source=named.where(generated, "real"),
        trained_here=generated & pool["run"].isin(trained_here),
        group=prompt.where(generated, patient).fillna("image " + pool["image_id"]),
    )


def judge_copies(run: runs.Run, pool: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables: nearest.csv and the rows of quality.csv about copies and near images. copies.judge
    makes them; on a finished run they are read.
    """
    if run.finished:
        quality = run.read("quality.csv")
        return run.read("nearest.csv"), quality[quality["metric"].str.match("copy_|near_")]
    nearest, rows = copies.judge(pool, run.parameters)
    return run.write("nearest.csv", nearest), tables.check(rows, "quality")


def measure_quality(run: runs.Run, pool: pd.DataFrame, copy_rows: pd.DataFrame) -> pd.DataFrame:
    """The table quality.csv: the measures of fidelity.measure, then the copy rows; read on a
    finished run.
    """
    if run.finished:
        return run.read("quality.csv")
    measured = tables.check(fidelity.measure(pool, run.parameters), "quality")
    return run.write("quality.csv", pd.concat([measured, copy_rows], ignore_index=True))


def measure_leakage(run: runs.Run, pool: pd.DataFrame, nearest: pd.DataFrame) -> pd.DataFrame:
    """The table leakage.csv about the images that 06 may draw; read on a finished run."""
    if run.finished:
        return run.read("leakage.csv")
    pool = draw.drawable(pool, nearest.loc[~nearest["release"], "image_id"])
    return run.write("leakage.csv", leakage.measure(pool, run.parameters))
