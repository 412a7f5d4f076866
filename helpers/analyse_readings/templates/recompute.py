"""Computes the report's main numbers again from the released answers and says whether they agree.

python recompute.py [folder of the release]        needs pandas and scipy, and nothing of the study

Reads readings.csv (every answer), readers.csv, per_image.csv (`cluster`: images of one prompt or of
one patient, which are not independent) and main_numbers.csv (the numbers as reported). The exit
code is 0 when all agree. recompute.R does the same in base R.
"""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

LABELS = ["real", "fake", "uncertain"]
CLOSE = 1e-6
TABLES = "readings.csv", "readers.csv", "per_image.csv"
NAMES = dict.fromkeys(("image_id", "generator"), str)


def wilson(share, effective):
    """Wilson's interval of a share in `effective` independent images."""
    z = stats.norm.ppf(0.975)
    shrunk = 1 + z**2 / effective
    middle = (share + z**2 / (2 * effective)) / shrunk
    half = z * np.sqrt(share * (1 - share) / effective + (z / (2 * effective)) ** 2) / shrunk
    return 0.0 if share == 0 else middle - half, 1.0 if share == 1 else middle + half


def in_clusters(values, clusters):
    """Values (images, ...) added up within clusters."""
    numbers, names = pd.factorize(np.asarray(clusters))
    total = np.zeros((len(names), *np.shape(values)[1:]))
    np.add.at(total, numbers, values)
    return total


def share(hits, clusters):
    """A share with Wilson's interval at the effective number of answers (Korn and Graubard 1998),
    that number, and its degrees of freedom.
    """
    hits = np.asarray(hits, dtype=float)
    estimate, total = hits.mean(), len(hits)
    sizes = in_clusters(np.ones(total), clusters)
    groups, effective, few, df = len(sizes), float(total), 1.0, np.inf
    if groups < total:
        df = max(groups - 1.0, 1.0)
        sandwich = (in_clusters(hits - estimate, clusters) ** 2).sum() / total**2
        sandwich *= groups / df
        spread = estimate * (1 - estimate) * total / (total - 1)
        alike = total**2 / (sizes**2).sum()
        effective = 1.0 if groups == 1 else spread / sandwich if sandwich > 1e-15 else alike
        few = (stats.norm.ppf(0.975) / stats.t.ppf(0.975, df)) ** 2
    held = wilson(estimate, np.clip(effective * few, 1, total))
    return estimate, *held, np.clip(effective, 1, total), df


def of_kind(labels, clusters, origin):
    """How many images of one kind all readers, and at least two readers, labelled alike."""
    complete = labels.dropna()
    several = labels[labels.notna().sum(axis=1) >= 2]
    counted = {
        "all real": (complete == "real").all(axis=1),
        "all uncertain": (complete == "uncertain").all(axis=1),
        "two fake": (several == "fake").sum(axis=1) >= 2,
    }
    for name, hits in counted.items():
        if len(hits):
            yield (name, origin, ""), share(hits, clusters[hits.index])[:3]


def linearised(observed, chance, beyond, per_image, clusters):
    """A coefficient with the standard error of its linearisation (Gwet 2014), and the effective
    number of images.
    """
    estimate = (observed - chance) / (1 - chance)
    linear = beyond / (1 - chance)
    linear = linear - 2 * (1 - estimate) * (per_image - chance) / (1 - chance)
    return estimate, *spread_of(linear - estimate, clusters)


def spread_of(influence, clusters):
    """The standard error from each image's influence, and the effective number of clusters."""
    total = in_clusters(influence / len(influence), clusters)
    sizes = in_clusters(np.ones(len(influence)), clusters) ** 2
    effective = max(sizes.sum() ** 2 / (sizes**2).sum(), min(len(sizes), 2))
    return np.sqrt(len(total) / max(len(total) - 1, 1) * (total**2).sum()), effective


def agreement(labels, clusters, group):
    """Percent, Cohen, Fleiss, AC1 and Krippendorff's alpha with intervals on the atanh scale."""
    labels = labels.dropna(axis=1, how="all").dropna(how="all")
    clusters = clusters[labels.index]
    counts = np.stack([(labels == label).sum(axis=1) for label in LABELS], axis=1).astype(float)
    rated, readers = counts.sum(axis=1), labels.shape[1]
    several = rated >= 2
    if not several.any():
        return
    pairs = np.where(several, rated * (rated - 1), 1)
    alike = (counts * (counts - 1)).sum(axis=1) / pairs
    observed, shares = alike[several].mean(), counts / rated[:, None]
    # An image rated once counts for the chance term alone.
    mean, scale, found = shares.mean(axis=0), len(labels) / several.sum(), {}
    for name, chance, own in (
        ("percent", 0.0, np.zeros(len(labels))),
        ("fleiss", mean @ mean, shares @ mean),
        ("gwet", mean @ (1 - mean) / 2, shares @ (1 - mean) / 2),
    ):
        if chance < 1 - 1e-12:
            beyond = scale * (alike - chance * several)
            found[name] = linearised(observed, chance, beyond, own, clusters)
    if observed in (0, 1):
        # An image rated once adds nothing to percent agreement.
        found["percent"] = observed, *spread_of(np.zeros(several.sum()), clusters[several])
    if mean.max() < 1:
        found["krippendorff"] = krippendorff(counts[several], clusters[several])
        if readers == 2:
            found["cohen"] = cohen(labels.dropna(), clusters)
    for name, (estimate, se, effective) in found.items():
        t, n = stats.t.ppf(0.975, effective - 1), len(labels)
        if name == "percent":
            few = (stats.norm.ppf(0.975) / t) ** 2
            spread, most = estimate * (1 - estimate), n * readers * (readers - 1) / 2
            enough = min(spread / se**2 * few, most) if se > 1e-9 else effective
            held = wilson(round(estimate, 12), enough)
        else:
            half = t * se / (1 - estimate**2) if abs(estimate) < 1 else np.nan
            held = (
                np.tanh(np.arctanh(estimate) + np.array([-half, half]))
                if half > 0
                else [np.nan] * 2
            )
        yield (name, group, ""), (estimate, *held)


def krippendorff(counts, clusters):
    """Krippendorff's alpha, its standard error and the effective number of clusters."""
    rated, total = counts.sum(axis=1), counts.sum()
    shares, mean = counts.sum(axis=0) / total, rated.mean()
    chance = shares @ shares
    alike = (counts * (counts - 1)).sum(axis=1) / (mean * (rated - 1))
    uncorrected = (alike.mean() - chance) / (1 - chance)
    corrected = (1 - 1 / total) * alike.mean() + 1 / total
    surplus = (rated - mean) / mean
    linear = (alike - corrected * surplus - chance) / (1 - chance)
    per_image = counts @ shares / mean - chance * surplus
    linear = linear - 2 * (1 - uncorrected) * (per_image - chance) / (1 - chance)
    return (corrected - chance) / (1 - chance), *spread_of(linear - uncorrected, clusters)


def cohen(labels, clusters):
    """Cohen's kappa, its standard error and the effective number of clusters."""
    first, second = (labels[reader] for reader in labels)
    rows, columns = (
        v.value_counts(normalize=True).reindex(LABELS).fillna(0) for v in (first, second)
    )
    alike, chance = (first == second).to_numpy(dtype=float), float(rows @ columns)
    own = (first.map(columns) + second.map(rows)).to_numpy() / 2
    found = linearised(alike.mean(), chance, alike - chance, own, clusters[labels.index])
    # Without clusters the report has the asymptotic standard error (Fleiss, Cohen, Everitt 1969).
    scale = 1.0 if clusters.attrs["clustered"] else np.sqrt(1 - 1 / len(labels))
    return found[0], found[1] * scale, found[2]


def accuracy(labels, truth, clusters, reader):
    """Shares of one reader under the three policies for "uncertain", and d′ at both thresholds."""
    labels = labels.dropna()
    truth = truth[labels.index]
    measures = {
        (f"{label} of {origin}", "own"): labels[truth == kind] == label
        for label in LABELS
        for kind, origin in enumerate(("real", "generated"))
    }
    for policy in ("wrong", "dropped"):
        kept = labels if policy == "wrong" else labels[labels != "uncertain"]
        kind = truth[kept.index]
        measures["sensitivity", policy] = kept[kind == 1] == "fake"
        measures["specificity", policy] = kept[kind == 0] == "real"
        measures["accuracy", policy] = kept == kind.map({1: "fake", 0: "real"})
    for (name, policy), hits in measures.items():
        if len(hits):
            yield (name, policy, reader), share(hits, clusters[hits.index])[:3]
    if truth.nunique() == 2:
        for name, positive in (
            ("fake | rest", labels == "fake"),
            ("real | rest", labels != "real"),
        ):
            yield (f"dprime {name}", "none", reader), dprime(positive, truth, clusters)


def dprime(positive, truth, clusters):
    """With the log-linear correction (Hautus 1995)."""
    kinds = [positive[truth == kind] for kind in (0, 1)]
    rate = np.array([(hits.sum() + 0.5) / (len(hits) + 1) for hits in kinds])
    effective, df = np.transpose([share(hits, clusters[hits.index])[3:] for hits in kinds])
    z = stats.norm.ppf(rate)
    variance = rate * (1 - rate) / (effective * stats.norm.pdf(z) ** 2)
    half = stats.t.ppf(0.975, satterthwaite(variance, df)) * np.sqrt(sum(variance))
    return z[1] - z[0], z[1] - z[0] - half, z[1] - z[0] + half


def satterthwaite(variance, df):
    """Degrees of freedom of a sum of variances (Satterthwaite)."""
    below = sum(v**2 / d for v, d in zip(variance, df))
    return sum(variance) ** 2 / below if below > 0 else np.inf


def influence(scores, truth, clusters, jackknife=False):
    """Each reader's area, how far every image moves it (DeLong's placements), and the number of
    clusters of real and of generated images.
    """
    areas, moved, groups = [], np.zeros(scores.shape), [np.inf, np.inf]
    for column, reader in enumerate(scores):
        given = scores[reader].notna().to_numpy()
        values = scores[reader].to_numpy(dtype=float)
        real, made = (np.flatnonzero(given & (truth == kind)) for kind in (0, 1))
        apart = values[made][:, None] - values[real][None, :]
        above = (apart > 0) + 0.5 * (apart == 0)
        areas.append(above.mean())
        for kind, images, placed in ((0, real, above.mean(axis=0)), (1, made, above.mean(axis=1))):
            number = len(np.unique(clusters[images]))
            scale = np.sqrt(number / max(number - 1, 1))
            if jackknife:
                scale = scale**2 * np.sqrt(1 - 1 / len(np.unique(clusters)))
            moved[images, column] = scale * (placed - above.mean()) / len(images)
            groups[kind] = min(groups[kind], number)
    return np.array(areas), moved, groups


def covariance(moved, truth, clusters, groups):
    """The covariance of the readers' areas over images, and its degrees of freedom."""
    parts = [in_clusters(moved[truth == kind], clusters[truth == kind]) for kind in (0, 1)]
    parts = [part.T @ part for part in parts]
    df = satterthwaite([part.mean() for part in parts], [max(n - 1, 1) for n in groups])
    return parts[0] + parts[1], df


def random_readers(areas, matrix, images):
    """Standard error and degrees of freedom over random readers and images (Obuchowski and Rockette
    1995, Hillis 2007).
    """
    readers = len(areas)
    own = areas.var(ddof=1)
    between = (matrix.sum() - np.trace(matrix)) / (readers * (readers - 1))
    shared = readers * max(between, 0)
    df = satterthwaite([own, shared], [readers - 1, images])
    return np.sqrt((own + shared) / readers), df


def on_logit(area, se, df):
    """An area with its 95 % t interval on the logit scale."""
    if not 0 < area < 1 or se < 1e-12:
        return area, np.nan, np.nan
    half = stats.t.ppf(0.975, df) * se / (area * (1 - area))
    middle = np.log(area / (1 - area))
    return area, *(1 / (1 + np.exp(-(middle + np.array([-half, half])))))


def able(scores, truth, sets):
    """The readers with two scores of each kind in every set of images."""
    fewest = [scores[chosen & (truth == kind)].notna().sum() for chosen in sets for kind in (0, 1)]
    return scores.loc[:, np.min(fewest, axis=0) >= 2]


def areas(scores, truth, clusters, clustered):
    """Areas under the ROC curve: of each reader, of these readers and of readers in general."""
    everything = np.ones(len(scores), dtype=bool)
    for reader in scores:
        one = scores[[reader]]
        if able(one, truth, [everything]).shape[1]:
            found, moved, groups = influence(one, truth, clusters)
            matrix, df = covariance(moved, truth, clusters, groups)
            yield ("area", "all", reader), on_logit(found[0], np.sqrt(matrix[0, 0]), df)
    scores = able(scores, truth, [everything])
    for method in ("delong", "jackknife") if scores.shape[1] else ():
        found, moved, groups = influence(scores, truth, clusters, method == "jackknife")
        matrix, df = covariance(moved, truth, clusters, groups)
        if method == "delong":
            held = on_logit(found.mean(), np.sqrt(matrix.mean()), df)
            yield ("mean area", "these readers", ""), held
        if scores.shape[1] > 1:
            se, df = random_readers(found, matrix, df if clustered else np.inf)
            held = on_logit(found.mean(), se, df)
            yield ("mean area", f"readers in general, {method}", ""), held
            p = 2 * stats.t.sf(abs(found.mean() - 0.5) / se, df) if se > 1e-12 else np.nan
            yield ("p of the mean area", f"readers in general, {method}", ""), (p, np.nan, np.nan)


def differences(scores, truth, images, clusters, clustered):
    """Mean areas of two generators beside the same real images, and of two modalities."""
    sets = {}
    for by in ("modality", "generator"):
        for name in sorted(images[by].dropna().unique()):
            chosen = (images[by] == name).to_numpy()
            if by == "generator":
                beside = images["modality"].isin(images["modality"][chosen]).to_numpy()
                chosen = chosen | (beside & (truth == 0))
            sets[by, name] = chosen
    for (by, a), (other, b) in combinations(sets, 2):
        chosen = sets[by, a], sets[other, b]
        kept = able(scores, truth, chosen)
        if by != other or not kept.shape[1]:
            continue
        found, moved, groups = [], [], []
        for part in chosen:
            own = influence(kept[part], truth[part], clusters[part], jackknife=clustered)
            found.append(own[0])
            moved.append(np.zeros(kept.shape))
            moved[-1][part] = own[1]
            groups.append(own[2])
        fewest = np.minimum(*groups)
        matrix, df = covariance(moved[0] - moved[1], truth, clusters, fewest)
        away = found[0] - found[1]
        spread = {"these readers": (np.sqrt(matrix.mean()), df)}
        if len(away) > 1:
            general = random_readers(away, matrix, df if clustered else np.inf)
            spread["readers in general"] = general
        for whose, (se, df) in spread.items():
            half = stats.t.ppf(0.975, df) * se
            held = np.clip([away.mean() - half, away.mean() + half], -1, 1)
            name = f"difference of mean areas, {whose}"
            yield (name, f"{by}: {a} minus {b}", ""), (away.mean(), *held)


def read(path):
    """A table. Names stay text, also those that look like a number or a missing value."""
    return pd.read_csv(path, dtype=NAMES, keep_default_na=False, na_values=[""])


def recompute(folder):
    """All numbers, (number, group, reader) -> (estimate, low, high)."""
    readings, people, images = (read(folder / name) for name in TABLES)
    people, images = people["reader"].tolist(), images.set_index("image_id").sort_index()
    first = readings[readings["presentation"] == 1]
    sign = first["label"].map({"real": -1.0, "fake": 1.0, "uncertain": 0.0})
    first = first.assign(score=sign * first["confidence"].fillna(1.0))
    wide = first.pivot(index="image_id", columns="reader", values=["label", "score"])
    labels, scores = (
        wide[name].reindex(index=images.index, columns=people) for name in ("label", "score")
    )
    clusters, truth = images["cluster"], (images["origin"] == "generated").astype(int)
    clustered = bool(clusters.duplicated().any())
    clusters.attrs["clustered"] = clustered
    found = []
    for (modality, origin), part in images.groupby(["modality", "origin"]):
        found += of_kind(labels.loc[part.index], clusters, f"{modality} {origin}")
    groups = {"all": images.index} | {
        name: part.index for by in ("modality", "origin") for name, part in images.groupby(by)
    }
    for name, index in groups.items():
        found += agreement(labels.loc[index], clusters, name)
    for reader in people:
        found += accuracy(labels[reader], truth, clusters, reader)
    rated = scores.notna().any(axis=1)
    scores, truth, clusters = (v[rated] for v in (scores.astype(float), truth, clusters))
    parts = scores, truth.to_numpy(), clusters.to_numpy()
    if truth.nunique() == 2:
        found += areas(*parts, clustered)
        found += differences(parts[0], parts[1], images[rated], parts[2], clustered)
    return dict(found)


def main(folder):
    """Print whether each reported number agrees; returns the exit code."""
    reported = read(folder / "main_numbers.csv")
    reported["reader"] = reported["reader"].fillna("")
    found, wrong = recompute(folder), 0
    for row in reported.itertuples(index=False):
        own = found.get((row.number, row.group, row.reader), (np.nan,) * 3)
        reported_row = (row.estimate, row.low, row.high)
        # Where the report gives no interval, with its reason, there is nothing to compare.
        same = all(pd.isna(t) or abs(t - o) < CLOSE for t, o in zip(reported_row, own))
        wrong += not same
        said = " ".join(f"{t:.4f}" for t in reported_row if pd.notna(t))
        again = " ".join(f"{o:.4f}" for t, o in zip(reported_row, own) if pd.notna(t))
        verdict = "agrees" if same else f"DIFFERS: {again} recomputed"
        print(f"{row.number} | {row.group} | {row.reader or 'all readers'}: {said} {verdict}")
    print(f"{len(reported) - wrong} of {len(reported)} numbers agree with the report.")
    return int(wrong > 0 or reported.empty)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent))
