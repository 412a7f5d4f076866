"""Speed of the statistics beside plain loops: agreement with intervals, and the reader × image
bootstrap.
"""

import time

import numpy as np
import pandas as pd
from sklearn import metrics

from helpers.statistics import agreement, multireader
from speed import measurement


def measure(
    images: int = 100_000, readers: int = 50, replicates: int = 2000, seed: int = 90
) -> pd.DataFrame:
    """One row a measurement, columns measurement.COLUMNS: seconds of a plain loop (of a part,
    scaled up) and of these functions.
    """
    return pd.DataFrame([_agreement(images, readers, seed), _bootstrap(400, 20, replicates, seed)])


def _agreement(images: int, readers: int, seed: int) -> dict:
    random = np.random.default_rng(seed)
    labels = np.array(["real", "fake", "uncertain"], dtype=object)
    ratings = pd.DataFrame(labels[random.integers(0, 3, (images, readers))]).mask(
        random.random((images, readers)) < 0.1
    )
    part = max(images // 200, 1)
    began = time.perf_counter()
    _plain_fleiss(ratings.head(part).to_numpy(), list(labels))
    plain = (time.perf_counter() - began) * images / part
    began = time.perf_counter()
    agreement.coefficients(ratings, list(labels))
    ours = time.perf_counter() - began
    note = (
        f"plain: pairs of readers in a loop for Fleiss' estimate alone, {part} images, scaled;"
        " ours: six coefficients with intervals"
    )
    return measurement.row(
        "agreement.coefficients", f"{readers} readers × {images} images", plain, ours, "s", note
    )


def _plain_fleiss(ratings: np.ndarray, labels: list) -> float:
    observed, shares = [], dict.fromkeys(labels, 0.0)
    for row in ratings:
        given = [label for label in row if isinstance(label, str)]
        for label in given:
            shares[label] += 1 / len(given) / len(ratings)
        if len(given) > 1:
            alike = sum(
                given[i] == given[j] for i in range(len(given)) for j in range(i + 1, len(given))
            )
            observed.append(alike / (len(given) * (len(given) - 1) / 2))
    chance = sum(share**2 for share in shares.values())
    return (np.mean(observed) - chance) / (1 - chance)


def _bootstrap(images: int, readers: int, replicates: int, seed: int) -> dict:
    random = np.random.default_rng(seed)
    truth = np.repeat([0, 1], images // 2)
    scores = pd.DataFrame(np.round(random.normal(size=(images, readers)) * 2 + truth[:, None]))
    part = max(replicates // 100, 1)
    began = time.perf_counter()
    for _ in range(part):
        rows = np.concatenate(
            [random.choice(np.flatnonzero(truth == kind), images // 2) for kind in (0, 1)]
        )
        np.mean(
            [
                metrics.roc_auc_score(truth[rows], scores[reader].to_numpy()[rows])
                for reader in random.integers(0, readers, readers)
            ]
        )
    plain = (time.perf_counter() - began) * replicates / part
    began = time.perf_counter()
    multireader.bootstrap(scores, truth, replicates, seed)
    ours = time.perf_counter() - began
    note = f"plain: an area a reader and draw, {part} draws, scaled"
    return measurement.row(
        "multireader.bootstrap",
        f"{replicates} draws, {readers} readers × {images} images",
        plain,
        ours,
        "s",
        note,
    )
