"""Policies for "uncertain", signal detection, ROC and the multi-reader analysis, against brute
force and known answers.
"""

import math
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from helpers.statistics import accuracy, multireader


def kernel(positive, negative):
    return float(positive > negative) + 0.5 * float(positive == negative)


def brute_area(score, truth):
    pairs = [kernel(p, n) for p in score[truth == 1] for n in score[truth == 0]]
    return float(np.mean(pairs))


def brute_delong(scores, truth):
    """DeLong's covariance from explicit placement values."""
    positive, negative = scores[truth == 1], scores[truth == 0]
    v10 = np.array(
        [
            [np.mean([kernel(row[j], n) for n in negative[:, j]]) for j in range(scores.shape[1])]
            for row in positive
        ]
    )
    v01 = np.array(
        [
            [np.mean([kernel(p, row[j]) for p in positive[:, j]]) for j in range(scores.shape[1])]
            for row in negative
        ]
    )
    return np.atleast_2d(np.cov(v10.T)) / len(positive) + np.atleast_2d(np.cov(v01.T)) / len(
        negative
    )


def brute_jackknife(scores, truth):
    """The covariance over images by leaving each out and computing every area again."""
    cases = len(truth)
    areas = np.array(
        [
            [
                brute_area(np.delete(scores[:, j], i), np.delete(truth, i))
                for j in range(scores.shape[1])
            ]
            for i in range(cases)
        ]
    )
    away = areas - areas.mean(axis=0)
    return (cases - 1) / cases * away.T @ away


def study(readers=3, real=9, generated=8, seed=0, levels=5):
    random = np.random.default_rng(seed)
    truth = np.repeat([0, 1], [real, generated])
    scores = np.round(random.normal(size=(real + generated, readers)) * 1.5 + truth[:, None]).clip(
        -levels, levels
    )
    index = [f"i{n}" for n in range(len(truth))]
    return pd.DataFrame(scores, index=index, columns=[f"R{j}" for j in range(readers)]), pd.Series(
        truth, index=index
    )


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(18, 20, 0.698966, 0.972134), (4, 20, 0.080658, 0.416017), (0, 30, 0, 0.113513)],
)
def test_wilson(count, total, low, high):
    assert accuracy.wilson(count, total) == pytest.approx((low, high), abs=5e-7)


def test_wilson_of_none():
    assert all(math.isnan(bound) for bound in accuracy.wilson(0, 0))


def test_policies_count_uncertain_answers_as_they_say():
    truth = pd.Series([1] * 10 + [0] * 10)
    labels = pd.Series(
        ["fake"] * 6
        + ["uncertain"] * 2
        + ["real"] * 2
        + ["real"] * 5
        + ["uncertain"] * 3
        + ["fake"] * 2
    )
    found = accuracy.policies(labels, truth).set_index(["policy", "measure"])
    assert found.loc[("wrong", "sensitivity"), ["count", "total", "left_out"]].tolist() == [
        6,
        10,
        0,
    ]
    assert found.loc[("wrong", "specificity"), ["count", "total"]].tolist() == [5, 10]
    assert found.loc[("dropped", "sensitivity"), ["count", "total", "left_out"]].tolist() == [
        6,
        8,
        2,
    ]
    assert found.loc[("dropped", "specificity"), ["count", "total", "left_out"]].tolist() == [
        5,
        7,
        3,
    ]
    assert found.loc[("dropped", "accuracy"), ["count", "total", "left_out"]].tolist() == [
        11,
        15,
        5,
    ]
    assert found.loc[("own", "uncertain of real"), "estimate"] == 0.3
    assert "dprime" not in found.loc["own"].index


def test_dprime_is_log_linear():
    labels = pd.Series(["fake"] * 20 + ["real"] * 20)
    found = accuracy.detection(labels, pd.Series([1] * 20 + [0] * 20)).set_index("measure")
    hit = stats.norm.ppf(20.5 / 21)
    assert found.estimate["dprime"] == pytest.approx(2 * hit)
    assert found.estimate["criterion"] == pytest.approx(0, abs=1e-12)
    assert found.low["dprime"] < found.estimate["dprime"] < found.high["dprime"]


def test_without_real_images_there_is_a_reason():
    found = accuracy.detection(pd.Series(["fake", "real"]), pd.Series([1, 1])).set_index("measure")
    assert found.estimate["sensitivity"] == 0.5
    assert found.reason["specificity"] == found.reason["dprime"] == "no real images"
    assert found.reason["accuracy"] == "no real images"
    assert found.estimate[["specificity", "accuracy", "dprime", "criterion"]].isna().all()


def test_the_reason_of_an_empty_measure_is_the_true_one():
    truth = pd.Series([1, 1, 0])
    silent = accuracy.detection(pd.Series([None, None, None], dtype=object), truth).set_index(
        "measure"
    )
    assert silent.reason["sensitivity"] == "no answers to generated images"
    assert silent.reason["specificity"] == "no answers to real images"
    unsure = accuracy.detection(
        pd.Series(["fake", "uncertain", "uncertain"]), truth, "dropped"
    ).set_index("measure")
    assert (
        unsure.reason["specificity"]
        == unsure.reason["dprime"]
        == "only uncertain answers to real images"
    )
    assert unsure.reason["sensitivity"] == ""


def test_scores_run_from_sure_real_to_sure_fake():
    labels = pd.Series(["real", "real", "uncertain", "fake", "fake", None])
    found = accuracy.scores(labels, pd.Series([3, 1, 2, 1, 3, 1]))
    assert found.tolist()[:5] == [-3, -1, 0, 1, 3]
    assert math.isnan(found[5])
    assert accuracy.scores(labels).tolist()[:5] == [-1, -1, 0, 1, 1]


@pytest.mark.parametrize("seed", range(4))
def test_area_and_delong_against_placement_values(seed):
    scores, truth = study(readers=2, seed=seed)
    expected = brute_delong(scores.to_numpy(), truth.to_numpy())
    one = multireader.reader_auc(truth, scores["R0"])
    assert one.estimate == pytest.approx(brute_area(scores["R0"].to_numpy(), truth.to_numpy()))
    assert one.se**2 == pytest.approx(expected[0, 0])
    two = multireader.compare_auc(truth, scores["R0"], scores["R1"])
    assert two.se**2 == pytest.approx(expected[0, 0] + expected[1, 1] - 2 * expected[0, 1])
    assert two.p == pytest.approx(2 * stats.norm.sf(abs(two.statistic)))


@pytest.mark.parametrize("covariance", ["delong", "jackknife"])
def test_multireader_against_its_formulas(covariance):
    scores, truth = study(readers=4, real=10, generated=12, seed=7)
    brute = brute_delong if covariance == "delong" else brute_jackknife
    matrix, areas = (
        brute(scores.to_numpy(), truth.to_numpy()),
        np.array([brute_area(scores[c].to_numpy(), truth.to_numpy()) for c in scores]),
    )
    cov2 = max(matrix[~np.eye(4, dtype=bool)].mean(), 0)
    total = areas.var(ddof=1) + 4 * cov2
    df = total**2 / (areas.var(ddof=1) ** 2 / 3)
    found = multireader.multireader(scores, truth, covariance=covariance)
    assert found.estimate == pytest.approx(areas.mean())
    assert found.se == pytest.approx(math.sqrt(total / 4))
    assert found.df == pytest.approx(df)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(areas.mean() - 0.5) / found.se, df))
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, df) * found.se)


@pytest.mark.parametrize("covariance", ["delong", "jackknife"])
def test_multireader_compare_against_the_analysis_of_variance(covariance):
    a, truth = study(readers=3, seed=1)
    b, _ = study(readers=3, seed=2)
    brute = brute_delong if covariance == "delong" else brute_jackknife
    values = np.hstack([a.to_numpy(), b.to_numpy()])
    matrix = brute(values, truth.to_numpy())
    areas = np.array([brute_area(values[:, j], truth.to_numpy()) for j in range(6)]).reshape(2, 3)
    mean = areas.mean()
    ms_t = 3 * ((areas.mean(axis=1) - mean) ** 2).sum()
    residual = areas - areas.mean(axis=1, keepdims=True) - areas.mean(axis=0) + mean
    ms_tr = (residual**2).sum() / 2
    other = [(i, j) for i in range(3) for j in range(3) if i != j]
    cov2 = np.mean([matrix[i, j] for i, j in other] + [matrix[3 + i, 3 + j] for i, j in other])
    cov3 = np.mean([matrix[i, 3 + j] for i, j in other])
    below = ms_tr + 3 * max(cov2 - cov3, 0)
    found = multireader.multireader_compare(a, b, truth, covariance=covariance)
    assert found.statistic**2 == pytest.approx(ms_t / below)
    assert found.df == pytest.approx(below**2 / (ms_tr**2 / 2))
    assert found.p == pytest.approx(stats.f.sf(ms_t / below, 1, found.df))
    assert found.se == pytest.approx(math.sqrt(2 / 3 * below))


def test_missing_scores_are_dropped_and_counted_on_the_same_index():
    scores, truth = study()
    holes = scores.mask(np.arange(17)[:, None] == np.array([3, 5, 5]))
    found = multireader.multireader(holes, truth.sample(frac=1, random_state=1))
    kept = [i for i in range(17) if i not in (3, 5)]
    assert found.dropped == 2
    assert found.estimate == multireader.multireader(scores.iloc[kept], truth.iloc[kept]).estimate


def test_what_cannot_be_analysed_has_a_reason():
    scores, truth = study()
    assert multireader.multireader(scores[["R0"]], truth).reason.startswith("one reader")
    assert "real" in multireader.multireader(scores[truth == 1], truth[truth == 1]).reason
    assert multireader.reader_auc(truth, truth.astype(float)).reason
    assert multireader.reader_auc(truth, truth.astype(float)).estimate == 1
    flat = multireader.multireader(scores * 0, truth)
    assert (flat.estimate, flat.se) == (0.5, 0)
    assert flat.reason
    with pytest.raises(ValueError, match="covariance"):
        multireader.multireader(scores, truth, covariance="bootstrap")
    with pytest.raises(ValueError, match="0 .real. or 1"):
        multireader.multireader(scores, truth * 2)


def test_equivalence_is_two_one_sided_tests():
    scores, truth = study(readers=6, real=200, generated=200, seed=3)
    flat = scores - np.where(truth == 1, 1, 0)[:, None]
    found = multireader.multireader(flat, truth)
    same = multireader.equivalence(found, 0.1)
    assert same.equivalent
    assert 0.4 < same.low < same.high < 0.6
    assert not multireader.equivalence(multireader.multireader(scores, truth), 0.01).equivalent


def test_bootstrap_against_a_plain_loop():
    scores, truth = study(readers=5, real=40, generated=40, seed=5)
    found = multireader.bootstrap(scores, truth, replicates=3000, seed=1)
    random, areas = np.random.default_rng(2), []
    values, kind = scores.to_numpy(), truth.to_numpy()
    for _ in range(400):
        readers = random.integers(0, 5, 5)
        rows = np.concatenate([random.choice(np.flatnonzero(kind == k), 40) for k in (0, 1)])
        areas.append(
            np.mean([multireader.reader_auc(kind[rows], values[rows, r]).estimate for r in readers])
        )
    assert found.estimate == pytest.approx(multireader.multireader(scores, truth).estimate)
    assert found.se == pytest.approx(np.std(areas, ddof=1), rel=0.15)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile(areas, [0.025, 0.975])), abs=0.03
    )
    assert found.equals(multireader.bootstrap(scores, truth, replicates=3000, seed=1))


def test_power_is_five_percent_by_chance_and_grows():
    nothing = multireader.power(0.5, readers=6, real=50, generated=50, studies=300)
    assert nothing.power < 0.1
    assert multireader.power(0.8, readers=6, real=50, generated=50, studies=100).power > 0.95


def test_groups_of_answers_to_the_same_image_are_not_taken_as_independent():
    same = pd.DataFrame(
        {
            "image_id": [i // 4 for i in range(40)],
            "label": [("fake", "real")[(i // 4) % 2] for i in range(40)],
            "truth": 1,
            "modality": "ct",
        }
    )
    found = accuracy.by_group(same, "modality").set_index("measure").loc["called fake"]
    assert (found["answers"], found.images, found.estimate) == (40, 10, 0.5)
    # Four readers who always say the same are one reader: the interval is that of about 10 answers.
    low, high = accuracy.wilson(5, 10)
    assert found.high - found.low == pytest.approx(high - low, abs=0.05)
    missing = accuracy.by_group(
        same.assign(modality=pd.array([None] * 40, dtype="string")), "modality"
    )
    assert set(missing["group"]) == {"not stated"}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
@example(245, Random(1))  # three readers with one area: what is left of their variance is rounding
@example(245, Random(2))
@example(245, Random(3))
def test_order_does_not_matter_and_turning_scores_round_turns_the_area_round(seed, random):
    scores, truth = study(seed=seed)
    found = multireader.multireader(scores, truth)
    rows, columns = list(scores.index), list(scores.columns)
    random.shuffle(rows)
    random.shuffle(columns)
    moved, turned = (
        multireader.multireader(scores.loc[rows, columns], truth),
        multireader.multireader(-scores, truth),
    )
    monotone = multireader.multireader(scores.map(lambda v: math.atan(v) * 3 + 1), truth)
    for field in ("estimate", "se", "df", "p"):
        assert moved[field] == pytest.approx(found[field], nan_ok=True)
        assert monotone[field] == pytest.approx(found[field], nan_ok=True)
    assert turned.estimate == pytest.approx(1 - found.estimate)
    assert turned.se == pytest.approx(found.se)


@pytest.mark.soak
def test_multireader_intervals_cover():
    random, held = np.random.default_rng(8), []
    truth = np.repeat([0, 1], 100)
    for _ in range(2000):
        shift = 0.8 + 0.2 * random.standard_normal(6)
        scores = (
            truth[:, None] * shift
            + math.sqrt(0.4) * random.standard_normal((200, 1))
            + math.sqrt(0.6) * random.standard_normal((200, 6))
        )
        found = multireader.multireader(pd.DataFrame(scores), truth)
        true = np.mean(stats.norm.cdf(0.8 / math.sqrt(2 + 0.2**2)))
        held.append(found.low <= true <= found.high)
    print(
        f"Obuchowski-Rockette, 6 readers, 200 images: {np.mean(held):.3f} of 2000 intervals hold"
        " the true area"
    )
    assert 0.93 <= np.mean(held) <= 0.97


def test_speed_is_measured_beside_a_plain_loop():
    from speed import analysis

    found = analysis.measure(images=400, readers=4, replicates=100)
    assert found.columns.tolist() == ["path", "what", "baseline", "ours", "unit", "ratio", "note"]
    assert (found[["baseline", "ours"]] > 0).all(axis=None)
