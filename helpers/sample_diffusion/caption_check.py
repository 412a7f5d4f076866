"""Are captions obeyed? What a simple classifier, taught on the real cases, sees in the samples,
beside chance.
"""

import numpy as np
import pandas as pd
from scipy.stats import beta
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from helpers import images
from helpers.runner import runs

SIDE = 48  # pixels of the thumbnails that the classifier sees
COLUMNS = ("what", "samples", "agreement", "low", "high", "chance", "cases", "on_cases")


def measure(run: runs.Run, made: pd.DataFrame) -> pd.DataFrame:
    """Agreement of what the classifier sees with what the caption says: one row for all samples,
    one a finding and side.

    Columns: what, samples, agreement (share), low, high (Clopper-Pearson, 95 %), chance (the same
    answers dealt out to other samples), cases, on_cases (share right on held-out cases). A class is
    a finding with its side; classes that fewer than three training cases have are left out. Empty
    when fewer than two classes are left. Kept as captions.json.
    """
    if run.finished:
        return pd.read_json(run.folder / "captions.json", dtype={"what": str})
    cases = run.reads(run.parameters["cases"])
    real = cases.read("images.csv").query(
        "origin == 'real' and modality == @run.parameters['modality']"
    )
    train, held_out = (
        labelled(real[real.split == "train"]),
        labelled(real[real.split.isin(["validation", "test"])]),
    )
    samples = labelled(made)
    known = train.label.value_counts()
    known = set(known.index[known >= 3])
    train, held_out, samples = (
        frame[frame.label.isin(known)] for frame in (train, held_out, samples)
    )
    if train.label.nunique() < 2 or samples.empty:
        table = pd.DataFrame(columns=COLUMNS)
    else:
        classifier = taught(thumbnails(train, cases.folder), train.label)
        seen = classifier.predict(thumbnails(samples, run.folder))
        right = (
            classifier.predict(thumbnails(held_out, cases.folder)) == held_out.label
            if len(held_out)
            else pd.Series(dtype=bool)
        )
        table = agreement(
            samples.label.to_numpy(), seen, held_out.label.to_numpy(), np.asarray(right)
        )
    run.write_bytes("captions.json", (table.to_json(orient="records", indent=1) + "\n").encode())
    return table


def labelled(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with exactly one finding, with a column `label`: the finding and its side."""
    one = frame[frame.finding.fillna("").str.fullmatch(r"[a-z0-9_]+")]
    return one.assign(label=(one.finding + " " + one.side.fillna("")).str.strip().astype(str))


def thumbnails(frame: pd.DataFrame, folder) -> np.ndarray:
    """(n, SIDE * SIDE) float32, grey and contrast of each image set to mean 0 and deviation 1."""
    rows = []
    for row in frame.itertuples():
        picture = images.read_png(folder / row.path)
        small = images.area_resize(picture, SIDE, SIDE).ravel()
        rows.append((small - small.mean()) / max(small.std(), 1e-6))
    return np.stack(rows)


def taught(pixels: np.ndarray, labels: pd.Series) -> LinearDiscriminantAnalysis:
    """Linear discriminants of the pixels with the shrinkage of Ledoit and Wolf (2004), good with
    few cases a class.
    """
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(pixels, labels)


def agreement(
    asked: np.ndarray, seen: np.ndarray, on_cases: np.ndarray, right: np.ndarray
) -> pd.DataFrame:
    """The table of `measure` from labels asked for and seen, and from labels of held-out cases and
    whether they were met.

    Chance of a label is the share of all samples in which it is seen; of all samples, the mean over
    what was asked.
    """
    rows = []
    for what in ["all", *sorted(set(asked))]:
        mine, cases = (
            (asked == asked, on_cases == on_cases)
            if what == "all"
            else (asked == what, on_cases == what)
        )
        hits, count = int((seen[mine] == asked[mine]).sum()), int(mine.sum())
        low = beta.ppf(0.025, hits, count - hits + 1) if hits else 0.0
        high = beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
        chance = float(np.mean([(seen == label).mean() for label in asked[mine]]))
        rows.append(
            (
                what,
                count,
                hits / count,
                low,
                high,
                chance,
                int(cases.sum()),
                float(right[cases].mean()) if cases.any() else np.nan,
            )
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def sentence(table: pd.DataFrame) -> str:
    """What the table says, in one sentence."""
    if table.empty:
        return (
            "Too few cases a finding to teach a classifier: whether captions are obeyed cannot be"
            " told."
        )
    first = table.iloc[0]
    above = (
        "more often than by chance"
        if first.low > first.chance
        else "not more often than chance would have it"
    )
    trust = (
        f"it is right on {first.on_cases:.0%} of {first.cases} held-out cases"
        if first.cases
        else "no held-out case shows how far to trust it"
    )
    return (
        f"The classifier sees what the caption says in {first.agreement:.0%} of {first.samples}"
        f" samples (95 % CI {first.low:.0%} to {first.high:.0%}), {above} ({first.chance:.0%});"
        f" {trust}."
    )


def summary(table: pd.DataFrame) -> dict:
    """What the manifest keeps."""
    if table.empty:
        return {"captions_obeyed": None}
    first = table.iloc[0]
    return {
        "captions_obeyed": round(float(first.agreement), 3),
        "chance": round(float(first.chance), 3),
        "on_cases": round(float(first.on_cases), 3),
    }
