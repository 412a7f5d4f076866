"""Simulated studies: the intervals that the report prints hold the truth as often as they say, and
guessers are not found to differ from chance.
"""

import collections

import numpy as np
import pandas as pd
import pytest
import simulated_reads as simulated
from scipy import stats

from helpers.statistics import accuracy, agreement, multireader, roc_areas
from helpers.statistics import clusters as cluster
from helpers.statistics.differences import FEW_READERS

SIZES = ((2, 40), (6, 80), (17, 154))
STUDIES = {2: 1000, 6: 1000, 17: 600}
BATCH = 50  # studies with the same prompts and patients, computed at once
SPREAD = 0.3  # of the readers' skills
ORDER = ["real", "uncertain", "fake"]


def share(hit, rated, groups):
    """The interval that the report prints, of each study: arrays (images, studies) or with readers
    besides.
    """
    counts = [cluster.sums((values & rated) * 1.0, groups) for values in (hit, rated)]
    counts = [part.sum(axis=-1) if part.ndim == 3 else part for part in counts]
    found = cluster.share(*(part.T[:, None, :] for part in counts))
    few = found["equal"] < cluster.FEWEST
    return found | {"count": counts[0].sum(axis=0), "total": counts[1].sum(axis=0), "few": few}


def areas(scores, truth, groups, skills, general, clustered):
    """Name, true value, low and high of every area."""
    true = simulated.area(skills)
    found, matrix, df = roc_areas.areas(scores, truth, groups)
    these = {"estimate": found.mean(-1), "se": np.sqrt(matrix.mean((-2, -1))), "df": df}
    yield "these readers' area", true.mean(axis=-1), *multireader.possible(these)
    if skills.shape[1] >= FEW_READERS:
        random = multireader.random_readers(found, matrix, df if clustered else np.inf)
        yield "readers in general", np.full(len(skills), general), *multireader.possible(random)
    found, matrix, df = roc_areas.areas(scores[..., :1], truth, groups)
    one = {"estimate": found[:, 0], "se": np.sqrt(matrix[:, 0, 0]), "df": df}
    yield "a reader's area", true[:, 0], *multireader.possible(one)


def shares(scores, truth, groups, skills, missing):
    """Name, true value, low and high of every kind of share and of d′."""
    chance, positive = simulated.called(skills), {"fake | rest": [], "real | rest": []}
    for kind in (0, 1):
        own, at = scores[truth == kind], groups[truth == kind]
        word, right = (0, own < 0) if kind == 0 else (2, own > 0)
        rated = ~np.isnan(own)
        first, sure = rated[..., 0], rated[..., 0] & (own[..., 0] != 0)
        of_sure = chance[:, 0, kind, word] / (1 - chance[:, 0, kind, 1])
        alike = np.array([simulated.all_are(some, word, kind) for some in skills])
        two = np.array([simulated.two_fake(some, kind, missing) for some in skills])
        at_least_two = ((own > 0).sum(-1) >= 2, rated.sum(-1) >= 2)
        for name, value, found in (
            ("right", chance[:, 0, kind, word], share(right[..., 0], first, at)),
            ("right, dropped", of_sure, share(right[..., 0], sure, at)),
            ("fake, all readers", chance[:, :, kind, 2].mean(-1), share(own > 0, rated, at)),
            ("all right", alike, share(right.all(-1), rated.all(-1), at)),
            ("two fake", two, share(*at_least_two, at)),
        ):
            low, high = (np.where(found["few"], np.nan, found[end]) for end in ("low", "high"))
            yield f"{name} of {kind}", value, low, high
        positive["fake | rest"].append(share(own[..., 0] > 0, first, at))
        positive["real | rest"].append(share(own[..., 0] >= 0, first, at))
    for name, parts in positive.items():
        count, total, effective, df, few = (
            np.stack([part[what] for part in parts], axis=-1)
            for what in ("count", "total", "effective", "df", "few")
        )
        dprime, _, se, df = accuracy.log_linear(count, total, effective, df)
        se[((count == 0) | (count == total) | few).any(axis=-1)] = np.nan
        half = stats.t.ppf(0.975, df) * se
        yield f"d′ {name}", skills[:, 0], dprime - half, dprime + half


def coefficients(scores, groups, skills):
    """Name, true value, low and high of every coefficient of agreement, of half the studies."""
    for study in range(BATCH // 2):
        labels = pd.DataFrame(np.sign(scores[:, study]))
        found = agreement.coefficients(labels, [-1, 0, 1], clusters=groups, scale="atanh")
        for name, value in simulated.agreement(skills[study]).items():
            yield name, *([number] for number in (value, found.low[name], found.high[name]))


def held(readers, images, distance, alike, missing, studies, seed=8):
    """By kind of interval: the share of printed intervals that hold the truth, and their number."""
    random, spread = np.random.default_rng(seed), SPREAD if distance else 0.0
    grid = np.linspace(-4, 4, 201)
    skilled = simulated.area(distance + spread * grid)
    general = np.average(skilled, weights=stats.norm.pdf(grid))
    truth, found = np.repeat([0, 1], images // 2), collections.defaultdict(list)
    for _ in range(studies // BATCH):
        skills = distance + spread * random.standard_normal((BATCH, readers))
        groups = simulated.clusters(random, images) if alike else np.arange(images)
        scores = simulated.reads(random, skills, truth, groups, alike, missing)
        for name, *values in [
            *areas(scores, truth, groups, skills, general, alike > 0),
            *shares(scores, truth, groups, skills, missing),
            *coefficients(scores, groups if alike else None, skills),
        ]:
            found[name].append(values)
    rates = {}
    for name, batches in found.items():
        value, low, high = np.concatenate(batches, axis=1)
        printed = np.isfinite(low)
        inside = ((low <= value) & (value <= high))[printed]
        rates[name] = (inside.mean() if printed.any() else np.nan, printed.sum(), len(low))
    return pd.DataFrame(rates, index=["held", "printed", "studies"]).T


def outside(rates: pd.DataFrame, least: float, most: float) -> pd.DataFrame:
    """The rates that lie outside by more than three standard errors of the simulation: with 1000
    studies .024 below .93, .016 above .97.
    """
    below, above = (3 * np.sqrt(p * (1 - p) / rates["printed"]) for p in (least, most))
    inside = (rates["held"] >= least - below) & (rates["held"] <= most + above)
    return rates[~inside & (rates["printed"] > 0)]


def test_intervals_of_a_few_studies_hold_the_truth():
    rates = held(6, 80, 1.2, 0.3, 0.3, studies=100)
    assert (rates["printed"] > 0).all()
    assert outside(rates, 0.93, 0.97).empty


@pytest.mark.soak
@pytest.mark.parametrize("missing", [0, 0.1, 0.3])
@pytest.mark.parametrize("alike", [0, 0.3])
@pytest.mark.parametrize("distance", [0, 1.2])
@pytest.mark.parametrize(("readers", "images"), SIZES)
def test_printed_intervals_cover(readers, images, distance, alike, missing):
    rates = held(readers, images, distance, alike, missing, studies=STUDIES[readers])
    print(rates.round(3).to_string())
    least, most = (0.92, 1.0) if images < 80 else (0.93, 0.97)
    assert outside(rates, least, most).empty


@pytest.mark.soak
@pytest.mark.parametrize("alike", [0, 0.3])
@pytest.mark.parametrize(("readers", "images"), SIZES)
def test_guessers_are_rarely_found_to_differ_from_chance(readers, images, alike):
    random, truth = np.random.default_rng(9), np.repeat([0, 1], images // 2)
    excluded = collections.defaultdict(list)
    for _ in range(40):
        skills = np.zeros((BATCH, readers))
        groups = simulated.clusters(random, images) if alike else np.arange(images)
        scores = np.sign(simulated.reads(random, skills, truth, groups, alike))
        for name, _, low, high in [
            *areas(scores, truth, groups, skills, 0.5, alike > 0),
            *(row for row in shares(scores, truth, groups, skills, 0) if row[0].startswith("d′")),
        ]:
            chance = 0.5 if "area" in name or "general" in name else 0.0
            excluded[name] += list((low > chance) | (high < chance))
    rates = pd.Series({name: np.mean(values) for name, values in excluded.items()})
    print(rates.round(3).to_string())
    assert (rates <= 0.07 + 3 * np.sqrt(0.07 * 0.93 / 2000)).all()
