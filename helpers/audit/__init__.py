"""Audit of the images before anybody reads them: fidelity, memorised copies, and what gives a
source away.

fidelity.py compares feature distributions (features.py extracts them), copies.py looks for training
cases in samples, leakage.py for signs of the source that are not anatomy. torch is imported only
when a network is the extractor.
"""

from collections.abc import Iterable

import pandas as pd

from helpers import tables
from helpers.audit import copies, fidelity, leakage
from helpers.runner import runs


def gather(sources: Iterable[runs.Run]) -> pd.DataFrame:
    """The images.csv of all runs with `run`, `file` (absolute path), `source` (run and generator;
    "real") and `group`.

    `group` holds what must not be torn apart when images are resampled: a patient for real ones, a
    prompt for generated ones, else the image itself.
    """
    parts = []
    for source in sources:
        rows = source.read("images.csv")
        parts.append(
            rows.assign(run=source.name, file=[str(source.folder / path) for path in rows["path"]])
        )
    pool = pd.concat(parts, ignore_index=True)
    named = pool["run"] + (": " + pool["generator"]).fillna("")
    group = ("patient " + pool["patient"]).where(
        pool["origin"] == "real", "prompt " + pool["run"] + " " + pool["prompt_id"]
    )
    return pool.assign(
        source=named.where(pool["origin"] == "generated", "real"),
        group=group.fillna("image " + pool["image_id"]),
    )


def judge_copies(
    run: runs.Run,
    pool: pd.DataFrame,
    trained_here: list[str],
    false_alarms: float,
    extractor: str,
    size: int,
    margin: float,
):
    """(nearest.csv, the copy rows of quality.csv), made by copies.judge and kept; on a finished run
    read from it.
    """
    if run.finished:
        quality = run.read("quality.csv")
        return run.read("nearest.csv"), quality[quality["metric"].str.startswith("copy_")]
    nearest, rows = copies.judge(pool, trained_here, false_alarms, extractor, size, margin)
    return run.write("nearest.csv", nearest), tables.check(rows, "quality")


def measure_quality(
    run: runs.Run,
    pool: pd.DataFrame,
    copy_rows: pd.DataFrame,
    extractor: str,
    size: int,
    margin: float,
    seed: int,
) -> pd.DataFrame:
    """quality.csv: the measures of fidelity.measure, then the copy rows; on a finished run read
    from it.
    """
    if run.finished:
        return run.read("quality.csv")
    measured = fidelity.measure(pool, extractor, size, margin, seed)
    return run.write(
        "quality.csv", pd.concat([tables.check(measured, "quality"), copy_rows], ignore_index=True)
    )


def measure_leakage(
    run: runs.Run,
    pool: pd.DataFrame,
    nearest: pd.DataFrame,
    size: int,
    margin: float,
    seed: int,
    permutations: int,
) -> pd.DataFrame:
    """leakage.csv on the candidates of a draw: test cases, and generated images that are no copies;
    on a finished run read from it.
    """
    if run.finished:
        return run.read("leakage.csv")
    return run.write(
        "leakage.csv", leakage.measure(candidates(pool, nearest), size, margin, seed, permutations)
    )


def candidates(pool: pd.DataFrame, nearest: pd.DataFrame) -> pd.DataFrame:
    """The images that stage 06 may draw."""
    copied = pool["image_id"].isin(nearest.loc[nearest["copy"], "image_id"])
    return pool[
        ((pool["split"] == "test").fillna(False) | (pool["origin"] == "generated")) & ~copied
    ].reset_index(drop=True)
