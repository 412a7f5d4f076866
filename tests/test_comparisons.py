"""Comparisons: their intervals hold the true difference, and no difference is rarely found."""

import numpy as np
import pandas as pd
import pytest
import simulated_reads as simulated

from helpers.analyse_readings import reader_areas
from helpers.statistics import clusters, comparisons, multireader

TRUTH = np.repeat([0, 1], 40)
FIRST, SECOND = np.arange(80) < 60, (np.arange(80) < 40) | (np.arange(80) >= 60)


def skills(random, studies, readers, first, second):
    """Skills (images, studies, readers): the generated images of the first generator lie further
    from the real ones; real images lie alike for both.
    """
    own = 0.3 * random.standard_normal((studies, readers))
    away = np.where(np.arange(80) >= 60, second, first)[:, None, None] + own
    return np.where((TRUTH == 0)[:, None, None], first + own, 2 * away - first - own)


def held(found, true):
    """How often the interval of random readers holds the true difference, and excludes none."""
    half = simulated.stats.t.ppf(0.975, found["general_df"]) * found["general_se"]
    away = np.abs(found["estimate"] - true)
    return np.mean(away <= half), np.mean(np.abs(found["estimate"]) > half)


@pytest.mark.parametrize("alike", [0, 0.3])
@pytest.mark.parametrize("missing", [0, 0.3])
@pytest.mark.parametrize(("first", "second"), [(1.2, 1.2), (1.5, 0.7)])
def test_difference_between_generators(first, second, missing, alike):
    random, found = np.random.default_rng(3), []
    for _ in range(12):
        groups = simulated.clusters(random, 80) if alike else np.arange(80)
        away = skills(random, 100, 6, first, second)
        scores = simulated.reads(random, away, TRUTH, groups, alike, missing)
        found.append(
            comparisons.different(scores, TRUTH, groups, FIRST, SECOND, clustered=alike > 0)
        )
    found = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    true = areas_apart(first, second)
    covered, excluded = held(found, true)
    print(f"{first}, {second}, missing {missing}, alike {alike}: {covered:.3f} {excluded:.3f}")
    assert 0.93 - 0.022 <= covered <= 0.97 + 0.015
    assert excluded > 0.5 if first != second else excluded <= 0.07 + 0.022


def areas_apart(first, second):
    """The true difference of the mean areas over readers."""
    grid = np.linspace(-4, 4, 81)
    weights = simulated.stats.norm.pdf(grid)
    real, one = np.moveaxis(simulated.steps(first + 0.3 * grid), -2, 0)
    _, other = np.moveaxis(simulated.steps(2 * second - first + 0.3 * grid), -2, 0)
    below = np.cumsum(real, axis=-1) - real / 2
    return np.average(((one - other) * below).sum(axis=-1), weights=weights)


@pytest.mark.parametrize(("first", "second"), [(1.0, 1.0), (1.6, 0.6)])
def test_difference_between_groups_of_readers(first, second):
    random = np.random.default_rng(4)
    own = np.repeat([first, second], [3, 5]) + 0.3 * random.standard_normal((1200, 8))
    scores = simulated.reads(random, own, TRUTH, np.arange(80))
    grid = np.linspace(-4, 4, 81)
    means = [
        np.average(simulated.area(d + 0.3 * grid), weights=simulated.stats.norm.pdf(grid))
        for d in (first, second)
    ]
    covered, excluded = held(
        comparisons.apart(scores, TRUTH, np.arange(80), 3), means[0] - means[1]
    )
    print(f"groups of readers {first}, {second}: {covered:.3f} {excluded:.3f}")
    assert 0.93 - 0.022 <= covered <= 0.97 + 0.02
    assert excluded > 0.5 if first != second else excluded <= 0.07 + 0.022


def test_what_both_sets_share_is_not_counted_twice():
    random = np.random.default_rng(5)
    scores = pd.DataFrame(simulated.reads(random, np.full((1, 6), 1.0), TRUTH, np.arange(80))[:, 0])
    same = comparisons.of_images(scores, TRUTH, FIRST, FIRST)
    assert same["estimate"] == 0 and same["se"] == 0
    found = comparisons.of_images(scores, TRUTH, FIRST, SECOND)
    alone = [multireader.multireader(scores[part], TRUTH[part]) for part in (FIRST, SECOND)]
    assert found["estimate"] == pytest.approx(alone[0]["estimate"] - alone[1]["estimate"])
    assert found["images"] == 80 and found["readers"] == 6


def test_too_few_have_a_reason():
    scores = pd.DataFrame(np.zeros((80, 4)))
    few = comparisons.of_readers(scores, TRUTH, [0, 1], [2, 3])
    assert few["reason"] == "fewer than 3 readers in a group"
    images = np.arange(80) < 43
    assert (
        "is below 5"
        in comparisons.of_images(scores, TRUTH, images, ~images | (TRUTH == 0))["reason"]
    )
    answered = pd.DataFrame(np.random.default_rng(5).integers(-3, 4, (80, 7)).astype(float))
    answered.loc[2:, 6] = np.nan
    found = comparisons.of_readers(answered, TRUTH, [0, 1, 2], [3, 4, 5, 6])
    assert found["readers"] == 6 and found["p"] > 0, "readers of too few images are left out"
    random, tiny = np.random.default_rng(3), np.r_[:4, 76:80]
    scores = pd.DataFrame(random.integers(-3, 4, (80, 6)).astype(float)).loc[tiny]
    found = comparisons.of_readers(scores, TRUTH[tiny], [0, 1, 2], [3, 4, 5])
    assert found["reason"] == clusters.FEW_ON_A_SIDE and "p" not in found
    assert clusters.FEWEST == 5


def test_generators_of_different_modalities_have_no_test_at_all():
    random = np.random.default_rng(4)
    kinds = [("xray", None), ("ct", None), ("xray", "a"), ("ct", "a"), ("xray", "b")]
    shown = pd.DataFrame(kinds * 12, columns=["modality", "generator"])
    shown = shown.assign(truth=shown["generator"].notna().astype(int), cluster=range(len(shown)))
    names = [f"R{number}" for number in range(1, 7)]
    scores = pd.DataFrame(random.integers(-3, 4, (len(shown), 6)), columns=names, dtype=float)
    people = pd.DataFrame({"reader_id": list("uvwxyz"), "prior_ai": True, "withdrawn_utc": None})
    found = reader_areas.compared(scores, shown, people).set_index("by")
    tests = ["low", "high", "general_low", "general_high", "statistic", "df", "p", "p_holm"]
    assert found.loc["modality", tests].notna().all()
    assert found.loc["generator", tests].isna().all()


@pytest.mark.parametrize(("real", "known"), [(2, False), (4, False), (5, True)])
def test_a_reader_s_area_has_an_interval_only_with_five_images_of_each_kind(real, known):
    """As the mean of the readers: two real images gave 0.08 to 0.47."""
    random = np.random.default_rng(3)
    truth = pd.Series([0] * real + [1] * 20)
    score = pd.Series(random.normal(size=real + 20) + truth)
    (found,) = reader_areas.area(score, truth).to_dict("records")
    assert 0 < found["estimate"] < 1
    assert np.isfinite([found["low"], found["high"]]).all() == known
    assert bool(found["reason"]) != known
