"""Measures what gives a source away without the anatomy: file, shape, size, depth, border, grey
levels, histogram, spectrum, compression.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import fft, ndimage, optimize, stats
from sklearn.linear_model import Ridge
from sklearn.model_selection import StratifiedGroupKFold

from helpers import images
from helpers.assemble_reading_set import framing
from helpers.audit.features import radial_power
from helpers.runner.progress import progress
from helpers.table_columns import column_names

WARN_ABOVE = 0.6
FOLDS = 5
FEWEST_GROUPS = 3  # minimum patients or prompts per side for cross-validation
BANDS = 10
# central pixels on which spectrum and compression are measured, at the image's own sampling
TILE = 256


def measure(pool: pd.DataFrame, settings: dict) -> pd.DataFrame:
    """The table leakage.csv: every generated source of `pool` (audit.gather, candidates only)
    against real ones of its modality.

    Before: the images as their runs hold them. After: as framing.for_reading shows them to readers,
    at the lowest depth among the images. `settings` has reading_size, framing, margin, seed and
    permutations. A source too small for the reading size has no rows `after`; one with too few
    patients or prompts has no rows at all.
    """
    tables = []
    for modality, some in pool.groupby("modality", sort=True):
        facts = {"before": facts_before(some), "after": facts_after(some, settings)}
        for source in sorted(some.loc[some["origin"] == "generated", "source"].unique()):
            chosen = some["source"].isin(["real", source]).to_numpy()
            for stage, known in facts.items():
                usable = chosen & known.notna().all(axis=1).to_numpy()
                truth = (some["source"] == source).to_numpy()[usable]
                if truth.any():
                    groups = some["group"].to_numpy(dtype=object)[usable]
                    table = separability(
                        known[usable], truth, groups, settings["seed"], settings["permutations"]
                    )
                    tables.append(table.assign(source=source, modality=modality, stage=stage))
    columns = column_names("leakage")
    return pd.concat([pd.DataFrame(columns=columns), *tables], ignore_index=True)[columns]


def separability(
    facts: pd.DataFrame,
    generated: np.ndarray,
    groups: np.ndarray,
    seed: int,
    permutations: int = 500,
) -> pd.DataFrame:
    """How well each feature, and all of them (`joint`), distinguish generated from real: columns
    feature, auc, low, high, p.

    Grouped, stratified cross-validation of a ridge discriminant on normal scores and their squares;
    interval clustered by group (Obuchowski 1997); two-sided permutation p with whole groups
    permuted and the discriminant refitted. Empty with fewer than 3 groups per side.
    """
    names = pd.Series(groups)
    side = pd.Series(generated).groupby(names.to_numpy()).first()
    if min(side.sum(), (~side).sum()) < FEWEST_GROUPS:
        return pd.DataFrame(columns=["feature", "auc", "low", "high", "p"])
    codes = names.map({name: code for code, name in enumerate(side.index)}).to_numpy()
    random = np.random.default_rng(seed)
    permuted = np.stack(
        [random.permutation(side.to_numpy())[codes] for _ in range(permutations)], axis=1
    )
    targets = np.column_stack([generated, permuted]).astype(float)
    count = int(min(FOLDS, side.sum(), (~side).sum()))
    folds = list(
        StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(
            targets, generated, codes
        )
    )
    varying = [name for name in facts.columns if facts[name].nunique() > 1]
    rows = []
    for feature in ["joint", *facts.columns]:
        used = varying if feature == "joint" else [name for name in varying if name == feature]
        if not used:
            rows.append({"feature": feature, "auc": 0.5, "low": 0.5, "high": 0.5, "p": 1.0})
            continue
        scores = _out_of_fold(facts[used].to_numpy(dtype=float), targets, folds)
        auc, low, high = clustered_auc(scores[:, 0], generated, codes)
        null = _auc(scores[:, 1:], permuted)
        p = (1 + (np.abs(null - 0.5) >= abs(auc - 0.5) - 1e-12).sum()) / (permutations + 1)
        rows.append({"feature": feature, "auc": auc, "low": low, "high": high, "p": p})
    return pd.DataFrame(rows)


def _out_of_fold(values: np.ndarray, targets: np.ndarray, folds: list) -> np.ndarray:
    """Scores of every image for the true and all permuted labels by models that saw none of its
    group, shape of `targets`.
    """
    scores = np.zeros_like(targets)
    for train, test in folds:
        ordered = np.sort(values[train], axis=0)
        terms = [_normal_scores(values[rows], ordered) for rows in (train, test)]
        # Ridge regression solves all permutations at once; the squares find sources with more or
        # less spread.
        model = Ridge(alpha=0.03 * len(train)).fit(
            np.hstack([terms[0], terms[0] ** 2]), targets[train]
        )
        scores[test] = model.predict(np.hstack([terms[1], terms[1] ** 2])).reshape(len(test), -1)
    return scores


def _normal_scores(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    ranks = [
        (np.searchsorted(column, value, "left") + np.searchsorted(column, value, "right")) / 2
        for column, value in zip(ordered.T, values.T)
    ]
    return stats.norm.ppf((np.stack(ranks, axis=1) + 0.5) / (len(ordered) + 1))


def _auc(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Area under the curve of every column."""
    ranks, count = stats.rankdata(scores, axis=0), positive.sum(axis=0)
    above = (ranks * positive).sum(axis=0) - count * (count + 1) / 2
    return above / (count * (len(scores) - count))


def clustered_auc(
    scores: np.ndarray, positive: np.ndarray, groups: np.ndarray
) -> tuple[float, float, float]:
    """(auc, low, high): area under the curve with a 95 % interval that accounts for patients and
    prompts.

    Score interval with Hanley and McNeil's variance (Newcombe 2006, method 5), which is also valid
    at 0 and 1, widened by the design effect of the clusters (Obuchowski 1997).
    """
    auc, ranks = float(_auc(scores, positive)), stats.rankdata(scores)
    ones, zeros = int(positive.sum()), int((~positive).sum())
    above = (ranks[positive] - stats.rankdata(scores[positive])) / zeros
    below = 1 - (ranks[~positive] - stats.rankdata(scores[~positive])) / ones
    clustered, independent = 0.0, 0.0
    for values, members in ((above, groups[positive]), (below, groups[~positive])):
        sums = np.bincount(np.unique(members, return_inverse=True)[1], values - auc)
        clustered += (sums**2).sum() * len(sums) / (len(sums) - 1) / len(values) ** 2
        independent += values.var(ddof=1) / len(values)
    effect = max(1.0, clustered / independent) if independent > 0 else 1.0
    if independent == 0:
        # The sources are separated perfectly: only the number of patients and prompts gives the
        # uncertainty.
        ones, zeros = len(np.unique(groups[positive])), len(np.unique(groups[~positive]))

    def beyond(area: float, sign: int) -> float:
        error = np.sqrt(effect * max(_hanley(area, ones, zeros), 1e-12))
        return (area - auc) * sign - 1.96 * error

    low, high = (
        far
        if beyond(far, sign) <= 0
        else optimize.brentq(beyond, auc, far, args=(sign,))
        if beyond(auc, sign) < 0
        else auc
        for sign, far in ((-1, 0.0), (1, 1.0))
    )
    return auc, float(low), float(high)


def _hanley(auc: float, ones: int, zeros: int) -> float:
    """Variance of an area under the curve (Hanley & McNeil 1982, with Newcombe's mean of the two
    counts).
    """
    mean = (ones + zeros) / 2 - 1
    return (
        auc
        * (1 - auc)
        * (1 + mean * (1 - auc) / (2 - auc) + mean * auc / (1 + auc))
        / (ones * zeros)
    )


def warnings(leakage: pd.DataFrame) -> list[str]:
    """One sentence per source that differs from real images after standardisation (lower bound
    above 0.6).
    """
    joint = leakage[(leakage["feature"] == "joint") & (leakage["stage"] == "after")]
    return [
        f"{row.modality} of {row.source}: can be distinguished from real images without the"
        f" anatomy, AUC {row.auc:.2f} ({row.low:.2f} to {row.high:.2f}); mostly by"
        f" {_most(leakage, row)}. Readers may succeed because of this alone."
        for row in joint[joint["low"] > WARN_ABOVE].itertuples()
    ]


def leading(leakage: pd.DataFrame) -> list[str]:
    """One sentence per source and stage: the signs that give it away most."""
    joint = leakage[leakage["feature"] == "joint"]
    return [
        f"{row.modality} of {row.source}, {row.stage} the standardisation: AUC {row.auc:.2f} by all"
        f" signs together, mostly by {_most(leakage, row)}."
        for row in joint.itertuples()
    ]


def _most(leakage: pd.DataFrame, row, count: int = 3) -> str:
    """The signs with the largest areas for a row's source and stage, with these areas."""
    single = leakage[leakage["feature"] != "joint"]
    for name in ("source", "modality", "stage"):
        single = single[single[name] == getattr(row, name)]
    worst = single.sort_values("auc", ascending=False).head(count)
    return ", ".join(f"{sign} ({auc:.2f})" for sign, auc in zip(worst["feature"], worst["auc"]))


def not_judged(pool: pd.DataFrame, leakage: pd.DataFrame) -> list[str]:
    """One sentence per source that could not be judged, before or after the standardisation, with
    the reason.
    """
    sentences = []
    made = pool[pool["origin"] == "generated"]
    for modality, source in made.groupby(["modality", "source"]).groups:
        own = leakage[(leakage["source"] == source) & (leakage["modality"] == modality)]
        if own.empty:
            sentences.append(
                f"{modality} of {source}: not judged, fewer than {FEWEST_GROUPS} patients or"
                " prompts on one side."
            )
        elif "after" not in set(own["stage"]):
            sentences.append(
                f"{modality} of {source}: smaller than the reading size, so 06 leaves it out."
            )
    return sentences


def facts_before(pool: pd.DataFrame) -> pd.DataFrame:
    """Facts of the files and images as the runs hold them, one row per image."""
    rows = []
    for row in progress(list(pool.itertuples()), "facts before"):
        array = images.read_png(row.file)
        rows.append({**file_facts(Path(row.file), array), **picture_facts(array, int(row.bits))})
    return pd.DataFrame(rows)


def facts_after(pool: pd.DataFrame, settings: dict) -> pd.DataFrame:
    """Facts of the images as a reader would see them; missing where an image is too small for the
    reading size.
    """
    rows = list(pool.itertuples())
    large = [framing.side(row, settings) >= settings["reading_size"] for row in rows]
    depth = min(
        (
            images.effective_bits(images.read_png(row.file), int(row.bits))
            for row, fits in zip(rows, large)
            if fits
        ),
        default=8,
    )
    found = []
    for row, fits in zip(progress(rows, "facts after"), large):
        if fits:
            array, bits = images.read_png(row.file), int(row.bits)
            shown = framing.for_reading(array, bits, row.modality, depth, settings)
        found.append(picture_facts(shown, depth) if fits else {})
    columns = list(picture_facts(np.zeros((16, 16), np.uint8), 8))
    return pd.DataFrame(found, columns=columns, dtype=float)


def file_facts(path: Path, array: np.ndarray) -> dict[str, float]:
    """Shape, sampling and container of a PNG file."""
    height, width = array.shape
    return {
        "shape_width": width,
        "shape_height": height,
        "shape_aspect": np.log(width / height),
        "file_bytes_per_pixel": path.stat().st_size / array.size,
        "file_notes": len(Image.open(path).info),
    }


def picture_facts(array: np.ndarray, bits: int) -> dict[str, float]:
    """What the pixels show about their history, not about the chest: depth, border, grey levels,
    histogram, spectrum, compression.
    """
    grey = array.astype(np.float32) / (2**bits - 1)
    top, left = (
        (length - min(length, TILE)) // 2 // 8 * 8 for length in array.shape
    )  # a multiple of 8 keeps JPEG's grid in place
    tile = grey[top : top + TILE, left : left + TILE]
    return {
        "depth_bits": bits,
        "depth_effective_bits": images.effective_bits(array, bits),
        **_border(grey),
        **_levels(grey),
        **_histogram(array, bits),
        **_spectrum(tile),
        **_compression(tile),
    }


def _border(grey: np.ndarray) -> dict[str, float]:
    """For each edge, how far the outermost line departs from the extrapolation of the next two,
    relative to lines inside the image; and bars.
    """
    found = {}
    sides = {"top": grey, "bottom": grey[::-1], "left": grey.T, "right": grey.T[::-1]}
    for name, lines in sides.items():
        usual = np.abs(np.diff(lines[1:13], 2, axis=0)).mean() if len(lines) > 13 else 0.0
        jump = (np.abs(np.diff(lines[:3], 2, axis=0)).mean() + 1e-4) / (usual + 1e-4)
        bar = np.argmin((np.abs(lines - lines[0, 0]) < 1e-6).all(axis=1))
        found[f"border_{name}_jump"] = float(np.log(jump))
        found[f"border_{name}_bar"] = float(np.log1p(bar))
    return found


def _levels(grey: np.ndarray) -> dict[str, float]:
    """Grey of the whole image, the corners, the outermost lines, the darkest and brightest 1 %, and
    the background (the most frequent of 64 levels), as a share of the range.
    """
    side = max(1, min(grey.shape) // 16)
    corners = [grey[y, x].mean() for y in np.s_[:side, -side:] for x in np.s_[:side, -side:]]
    low, high = np.percentile(grey, (1, 99))
    commonest = np.bincount((grey * 63 + 0.5).astype(int).ravel()).argmax() / 63
    return {
        "level_mean": float(grey.mean()),
        "level_corner": float(np.mean(corners)),
        "level_border": float(
            np.concatenate([grey[[0, -1]].ravel(), grey[:, [0, -1]].ravel()]).mean()
        ),
        "level_background": float(commonest),
        "level_darkest": float(low),
        "level_brightest": float(high),
    }


def _histogram(array: np.ndarray, bits: int) -> dict[str, float]:
    """Empty levels and unevenness of neighbouring levels between the 2nd and 98th percentile, and
    the clipped ends.
    """
    levels = min(bits, 8)
    # Deep images are examined in 256 levels and, for finer combs, in their own levels.
    coarse = (array >> (bits - levels)).ravel()
    low, high = np.percentile(coarse, (2, 98)).astype(int)
    counts = np.bincount(coarse, minlength=2**levels)[low : high + 1].astype(float)
    smooth = ndimage.uniform_filter1d(counts, 9, mode="nearest")
    uneven = np.abs(counts - smooth).sum() / max(np.sqrt(np.maximum(smooth, 1)).sum(), 1)
    own = np.bincount(array.ravel(), minlength=2**bits)
    inner = own[np.flatnonzero(own)[0] : np.flatnonzero(own)[-1] + 1]
    expected = np.exp(-inner.sum() / len(inner))  # empty levels of an even histogram
    top = 2**bits - 1
    return {
        "comb_empty_levels": float((counts == 0).mean()),
        "comb_unevenness": float(np.log(uneven + 1e-3)),
        "comb_fine": float((inner == 0).mean() - expected),
        "clip_black": float((array == 0).mean()),
        "clip_white": float((array == top).mean()),
    }


def _spectrum(tile: np.ndarray) -> dict[str, float]:
    """Shape of the power spectrum by rings, its peaks where upsampling leaves them, and the noise
    level (Immerkaer 1996).
    """
    power = radial_power(tile, BANDS)
    shape = np.log10(power[1:] / (power.sum() + 1e-12) + 1e-9)
    found = {f"spectrum_{n}": float(value) for n, value in enumerate(shape, 1)}
    noise = ndimage.convolve(tile, np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32))[
        1:-1, 1:-1
    ]
    lines = [np.abs(np.fft.rfft(noise, axis=axis)).mean(1 - axis) + 1e-6 for axis in (1, 0)]
    for fraction, name in ((0.5, "half"), (0.25, "quarter")):
        peaks = [line[round(fraction * 2 * (len(line) - 1))] / np.median(line) for line in lines]
        found[f"spectrum_peak_{name}"] = float(np.log(peaks).mean())
    return found | {"noise_level": float(np.log(np.abs(noise).mean() + 1e-5))}


def _compression(tile: np.ndarray) -> dict[str, float]:
    """JPEG's traces: jumps every 8 pixels, and cosine coefficients of 8×8 blocks that were rounded
    to zero.
    """
    height, width = (length // 8 * 8 for length in tile.shape)
    tile = tile[:height, :width] * 255
    jumps = []
    for across in (np.abs(np.diff(tile, axis=1)).mean(0), np.abs(np.diff(tile, axis=0)).mean(1)):
        phases = np.array([across[phase::8].mean() for phase in range(8)])
        jumps.append(np.log((phases[7] + 0.05) / (np.median(phases) + 0.05)))
    blocks = (
        fft.dctn(tile.reshape(height // 8, 8, width // 8, 8), axes=(1, 3), norm="ortho")
        .transpose(0, 2, 1, 3)
        .reshape(-1, 8, 8)
    )
    order = np.add.outer(np.arange(8), np.arange(8))
    high, middle = blocks[:, order >= 10], blocks[:, (order >= 3) & (order < 6)]
    return {
        "jpeg_blocking": float(np.mean(jumps)),
        "jpeg_rounded_high": float((np.abs(high) < 1).mean()),
        "jpeg_rounded_middle": float((np.abs(middle) < 1).mean()),
        "jpeg_steps": _steps(blocks),
    }


def _steps(blocks: np.ndarray) -> float:
    """How strongly the low cosine coefficients cluster at multiples of one step, which is the
    effect of quantisation (Fan & de Queiroz 2003).
    """
    best = []
    for row, column in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0)):
        values = blocks[:, row, column]
        values = values[np.abs(values) > 1.5]
        best.append(
            max((np.cos(2 * np.pi * values / step).mean() for step in range(3, 25)), default=0.0)
            if values.size > 8
            else 0.0
        )
    return float(np.mean(best))
