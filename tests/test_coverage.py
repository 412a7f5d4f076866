"""Simulated studies: the intervals that the report prints hold the truth as often as they say, and
guessers are not found to differ from chance.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers.analyse_readings.results import FEW_READERS
from helpers.statistics import accuracy, agreement, multireader

CUTS = np.linspace(-1.8, 1.8, 6)  # seven steps, from sure real to sure fake
EDGES = np.r_[-12, CUTS, 12]
SIZES = ((2, 40), (6, 80), (17, 154))
LABELS = ["real", "fake", "uncertain"]


def true_area(distance):
    """Of scores cut to seven steps, for a reader whose two kinds of image lie `distance` apart."""
    fake, real = (np.diff(stats.norm.cdf(EDGES - shift)) for shift in (distance / 2, -distance / 2))
    return float(fake @ (np.cumsum(real) - real / 2))


def study(random, readers, images, distance, spread, alike, missing):
    """Scores (images, readers), truth, clusters and the readers' true areas. Images share
    something; with `alike` (an intra-prompt correlation) those of one prompt do.
    """
    truth = np.repeat([0, 1], images // 2)
    real = np.arange(images // 2)
    prompts = max(images // 4, 5) if alike else images
    clusters = np.r_[real, len(real) + random.integers(0, prompts, images - len(real))]
    if not alike:
        clusters = np.arange(images)
    own = distance + spread * random.standard_normal(readers)
    shared = np.sqrt(0.4 - alike) * random.standard_normal(images)
    shared += np.sqrt(alike) * random.standard_normal(clusters.max() + 1)[clusters]
    noise = np.sqrt(0.6) * random.standard_normal((images, readers))
    scores = np.digitize((truth[:, None] - 0.5) * own + shared[:, None] + noise, CUTS) * 1.0
    scores[random.random(scores.shape) < missing] = np.nan
    return pd.DataFrame(scores), truth, clusters if alike else None, own


def held(studies, readers, images, distance, alike, missing, seed):
    """Share of studies whose printed intervals hold the truth, by kind of interval."""
    random, spread = np.random.default_rng(seed), 0.3 if distance else 0.0
    grid = np.linspace(-4, 4, 201)
    weights = stats.norm.pdf(grid)
    general = np.average([true_area(distance + spread * z) for z in grid], weights=weights)
    # "fake" is the two upper steps of seven, over images of which none differ but by their truth.
    called = stats.norm.sf(CUTS[4] - distance / 2)
    found = {"these": [], "general": [], "share": []}
    for _ in range(studies):
        scores, truth, clusters, own = study(
            random, readers, images, distance, spread, alike, missing
        )
        areas = np.mean([true_area(one) for one in own])
        low, high = multireader.possible(multireader.these_readers(scores, truth, clusters))
        found["these"].append(low <= areas <= high)
        if readers >= FEW_READERS:
            result = multireader.multireader(scores, truth, clusters=clusters)
            low, high = multireader.possible(result)
            found["general"].append(low <= general <= high)
        given = scores[0].to_numpy()
        rated = (truth == 1) & ~np.isnan(given)
        part = accuracy.share(given[rated] >= 5, None if clusters is None else clusters[rated])
        if not spread:
            found["share"].append(part["low"] <= called <= part["high"])
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def test_intervals_of_a_few_studies_hold_the_truth():
    rates = held(60, 6, 80, 1.2, 0.3, 0.3, seed=1)
    assert rates["these"] > 0.85 and rates["general"] > 0.85
    assert held(60, 2, 40, 0, 0.3, 0, seed=2)["share"] > 0.85


@pytest.mark.soak
@pytest.mark.parametrize("missing", [0, 0.1, 0.3])
@pytest.mark.parametrize("alike", [0, 0.3])
@pytest.mark.parametrize("distance", [0, 1.2])
@pytest.mark.parametrize(("readers", "images"), SIZES)
def test_printed_intervals_cover(readers, images, distance, alike, missing):
    studies = 1500
    rates = held(studies, readers, images, distance, alike, missing, seed=8)
    print(f"{readers} × {images}, distance {distance}, alike {alike}, missing {missing}: {rates}")
    noise = 3 * np.sqrt(0.05 * 0.95 / studies)
    least, most = (0.92, 1.0) if images < 80 else (0.93, 0.97)
    for name, rate in rates.items():
        # The share's interval is Wilson's at an effective number: it may hold more than it says.
        assert least - noise <= rate <= (1.0 if name == "share" else most + noise), name


@pytest.mark.soak
@pytest.mark.parametrize(("readers", "images"), SIZES)
def test_guessers_are_rarely_found_to_differ_from_chance(readers, images):
    random, excluded = np.random.default_rng(9), {"area": [], "dprime": []}
    truth = pd.Series(np.repeat([0, 1], images // 2))
    for _ in range(1000):
        said = random.choice(LABELS, (images, readers), p=[0.35, 0.35, 0.3])
        scores = pd.DataFrame(said).apply(accuracy.scores)
        many = readers >= FEW_READERS
        found = (multireader.multireader if many else multireader.these_readers)(scores, truth)
        low, high = multireader.possible(found)
        excluded["area"].append(not low <= 0.5 <= high)
        rows = accuracy.discrimination(pd.Series(said[:, 0]), truth).dropna(subset="low")
        excluded["dprime"] += list((rows["low"] > 0) | (rows["high"] < 0))[::2]
    rates = {name: float(np.mean(values)) for name, values in excluded.items()}
    print(f"{readers} × {images} guessers: {rates} of the intervals exclude chance")
    assert max(rates.values()) <= 0.07 + 0.01


@pytest.mark.soak
@pytest.mark.parametrize(("readers", "images"), SIZES)
def test_intervals_of_agreement_cover(readers, images):
    random, held_by = np.random.default_rng(10), []

    def labels(count):
        shown = np.repeat([-0.8, 0.8], count // 2) + 0.5 * random.standard_normal(count)
        felt = shown[:, None] + random.standard_normal((count, readers))
        return pd.DataFrame(np.select([felt > 0.3, felt < -0.3], ["fake", "real"], "uncertain"))

    truth = agreement.coefficients(labels(60_000), LABELS).estimate
    for _ in range(1000):
        found = agreement.coefficients(labels(images), LABELS, scale="atanh")
        known = found[found.low.notna()]
        inside = known.low.le(truth[known.index]) & known.high.ge(truth[known.index])
        held_by.append(inside.astype(float))
    rates = pd.DataFrame(held_by).mean()
    print(f"{readers} × {images} agreement: {rates.round(3).to_dict()}")
    assert (rates >= 0.92 - 0.02).all()
