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

    Training cases of these generators from other runs of 01 are added: samples may be copies of
    them. Images of one `group` stay together in resampling. The group of a real image is its
    patient, that of a generated one its prompt, else the image itself. Raises RunError for
    parameters that cannot be.
    """
    settings = run.parameters
    if not (0 <= settings.false_alarms < 1 and settings.permutations >= 1):
        raise runs.RunError(
            f"{run.name}: false_alarms is {settings.false_alarms:g} and must be a share, from 0 to"
            f" below 1; permutations is {settings.permutations} and must be 1 or more."
        )
    sources = [run.reads(name) for name in freshness.matching(run.study, settings.sources)]
    learned = {source.name: _learned_from(source) for source in sources}
    others = sorted(set().union(*learned.values()) - {settings.cases})
    pool = draw.gather([run.reads(name) for name in (settings.cases, *others)] + sources)
    unused = pool["run"].isin(others) & ~(pool["split"] == "train").fillna(False)
    # An image of two runs counts as a training case if it is one in either.
    pool = pool[~unused].drop_duplicates("image_id", keep="last", ignore_index=True)
    generated = pool["origin"] == "generated"
    trained_here = [name for name, cases in learned.items() if cases]
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


def _learned_from(run: runs.Run) -> set[str]:
    """The runs of 01 whose training cases the generator of a run has learned from."""
    found = set()
    for name in run.references:
        if name.startswith("03_"):
            trained = runs.load(run.study, name)
            found |= {trained.parameters.cases} | _learned_from(trained)
    return found


def judge_copies(run: runs.Run, pool: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables: nearest.csv, and the rows of quality.csv about copies and near images.
    copies.judge makes them; on a finished run they are read.
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
