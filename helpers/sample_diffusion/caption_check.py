"""Do samples show what their captions say? A simple classifier, trained on the real cases, judges
the samples; its answers are compared with chance.
"""

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from helpers import images
from helpers.runner import runs

SIDE = 48  # pixels of the thumbnails that the classifier sees
COLUMNS = ("what", "samples", "agreement", "low", "high", "chance", "cases", "on_cases")


def measure(run: runs.Run, made: pd.DataFrame) -> pd.DataFrame:
    """Agreement between the classifier and the captions: one row for all samples, one per finding
    and side.

    Columns: what, samples, agreement (share), low, high (Clopper-Pearson, 95 %), chance (the same
    answers assigned to other samples), cases, on_cases (share right on held-out cases). A class is
    a finding with its side; classes with fewer than three training cases are left out. The table is
    empty if fewer than two classes are left. It is stored as captions.json.
    """
    if run.finished:
        return pd.read_json(run.folder / "captions.json", dtype={"what": str})
    cases = run.reads(run.parameters.cases)
    real = cases.read("images.csv")
    real = labelled(real[(real.origin == "real") & (real.modality == run.parameters.modality)])
    known = real.label[real.split == "train"].value_counts()
    real = real[real.label.isin(known.index[known >= 3])]
    train, held_out = real[real.split == "train"], real[real.split.isin(["validation", "test"])]
    samples = labelled(made)
    samples = samples[samples.label.isin(train.label)]
    table = pd.DataFrame(columns=COLUMNS)
    if train.label.nunique() > 1 and len(samples):
        classifier = taught(thumbnails(train, cases.folder), train.label)
        seen = classifier.predict(thumbnails(samples, run.folder))
        right = np.zeros(0, bool)
        if len(held_out):
            right = classifier.predict(thumbnails(held_out, cases.folder)) == held_out.label
        table = agreement(samples.label.to_numpy(), seen, held_out.label.to_numpy(), right)
    run.write_bytes("captions.json", (table.to_json(orient="records", indent=1) + "\n").encode())
    return table


def labelled(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with exactly one finding, with a column `label`: the finding and its side."""
    one = frame[frame.finding.fillna("").str.fullmatch(r"[a-z0-9_]+")]
    return one.assign(label=(one.finding + " " + one.side.fillna("")).str.strip().astype(str))


def thumbnails(frame: pd.DataFrame, folder) -> np.ndarray:
    """(n, SIDE * SIDE) float32, each image scaled to mean 0 and standard deviation 1."""
    rows = []
    for row in frame.itertuples():
        picture = images.read_png(folder / row.path)
        small = images.area_resize(picture, SIDE, SIDE).ravel()
        rows.append((small - small.mean()) / max(small.std(), 1e-6))
    return np.stack(rows)


def taught(pixels: np.ndarray, labels: pd.Series) -> LinearDiscriminantAnalysis:
    """Linear discriminants of the pixels with the shrinkage of Ledoit and Wolf (2004), which works
    with few cases per class.
    """
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(pixels, labels)


def agreement(
    prompted: np.ndarray, seen: np.ndarray, on_cases: np.ndarray, right: np.ndarray
) -> pd.DataFrame:
    """The table of `measure`, from the labels prompted and seen, the labels of held-out cases, and
    whether the classifier was right on these. Chance for a label is the share of all samples in
    which it is seen; for all samples, the mean over the prompted labels.
    """
    rows = []
    for what in ["all", *sorted(set(prompted))]:
        mine = (prompted == what) | (what == "all")
        cases = (on_cases == what) | (what == "all")
        hits, count = int((seen[mine] == prompted[mine]).sum()), int(mine.sum())
        interval = binomtest(hits, count).proportion_ci()
        chance = float(np.mean([(seen == label).mean() for label in prompted[mine]]))
        trust = float(right[cases].mean()) if cases.any() else np.nan
        rows.append((what, count, hits / count, *interval, chance, int(cases.sum()), trust))
    return pd.DataFrame(rows, columns=COLUMNS)


def sentence(table: pd.DataFrame) -> str:
    """The result of the table in one sentence."""
    if table.empty:
        return (
            "Too few cases per finding to train a classifier: it is unknown whether the images show"
            " what their prompts say."
        )
    first = table.iloc[0]
    above = (
        "which is more often than by chance"
        if first.low > first.chance
        else "which is not shown to be more often than by chance"
    )
    trust = (
        f"it is right on {100 * first.on_cases:.0f} % of {first.cases} held-out cases"
        if first.cases
        else "no held-out case shows how far to trust it"
    )
    seen, low, high, chance = 100 * first[["agreement", "low", "high", "chance"]].astype(float)
    return (
        f"The classifier sees what the caption says in {seen:.0f} % of {first.samples} samples"
        f" (95 % interval {low:.0f} to {high:.0f} %), {above} ({chance:.0f} %); {trust}."
    )


def summary(table: pd.DataFrame) -> dict:
    """The numbers for the manifest."""
    if table.empty:
        return {"captions_obeyed": None}
    first = table.iloc[0]
    return {
        "captions_obeyed": round(float(first.agreement), 3),
        "chance": round(float(first.chance), 3),
        "on_cases": round(float(first.on_cases), 3),
    }
