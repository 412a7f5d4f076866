"""Published answers, brute force, and invariances of the agreement coefficients."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from helpers.statistics import agreement, design

RADIOLOGISTS = [[13, 0, 0], [0, 20, 7], [0, 4, 56]]
SAS = [[0, 4, 1], [0, 8, 0], [0, 1, 5]]
_ = None
FOUR_RATERS = [
    [1, 1, _, 1],
    [2, 2, 3, 2],
    [3, 3, 3, 3],
    [3, 3, 3, 3],
    [2, 2, 2, 2],
    [1, 2, 3, 4],
    [4, 4, 4, 4],
    [1, 1, 2, 1],
    [2, 2, 2, 2],
    [_, 5, 5, 5],
    [_, _, 1, 1],
    [_, _, 3, _],
]
CODERS = [
    [_, _, _, _, _, 3, 4, 1, 2, 1, 1, 3, 3, _, 3],
    [1, _, 2, 1, 3, 3, 4, 3, _, _, _, _, _, _, _],
    [_, _, 2, 1, 3, 4, 4, _, 2, 1, 1, 3, 3, _, 4],
]


def table(counts, **options):
    categories = list(range(len(counts)))
    return agreement.coefficients(agreement.from_table(counts, categories), categories, **options)


@pytest.mark.parametrize(
    ("name", "estimate", "se"),
    [
        ("cohen", 0.7964094, 0.05891072),
        ("scott", 0.7962397, 0.05935224),
        ("gwet", 0.8493305, 0.04343519),
        ("brennan_prediger", 0.835, 0.04716991),
        ("krippendorff", 0.7972585, 0.05935224),
        ("conger", 0.7964094, 0.05920750),
    ],
)
def test_gwet_two_readers(name, estimate, se):
    found = table(RADIOLOGISTS).loc[name]
    assert found.estimate == pytest.approx(estimate, abs=5e-8)
    assert found.se == pytest.approx(se, abs=5e-9)


@pytest.mark.parametrize(
    ("weights", "kappa", "ac2"),
    [("linear", 0.8429020, 0.9000227), ("quadratic", 0.8921569, 0.9402369)],
)
def test_gwet_weighted(weights, kappa, ac2):
    found = table(RADIOLOGISTS, weights=weights).estimate
    assert found[["cohen", "conger", "gwet"]].tolist() == pytest.approx(
        [kappa, kappa, ac2], abs=5e-8
    )


def test_sas():
    plain, linear = table(SAS).loc["cohen"], table(SAS, weights="linear").loc["cohen"]
    assert [round(plain[c], 4) for c in ("estimate", "se", "low", "high")] == [
        0.4842,
        0.1380,
        0.2137,
        0.7547,
    ]
    assert [round(linear[c], 4) for c in ("estimate", "se")] == [0.4701, 0.1457]


@pytest.mark.parametrize(
    ("name", "estimate", "se", "digits"),
    [
        ("gwet", 0.7754441, 0.14295, 5),
        ("fleiss", 0.7611693, 0.1530192, 7),
        ("conger", 0.7628174, 0.1491682, 7),
        ("brennan_prediger", 0.7727273, 0.1447166, 7),
        ("krippendorff", 0.7434211, 0.1455739, 7),
    ],
)
def test_four_raters_with_gaps(name, estimate, se, digits):
    found = agreement.coefficients(pd.DataFrame(FOUR_RATERS), [1, 2, 3, 4, 5]).loc[name]
    assert found.estimate == pytest.approx(estimate, abs=5e-8)
    assert found.se == pytest.approx(se, abs=0.5 * 10**-digits)
    assert (found.images, found.readers) == (11 if name == "krippendorff" else 12, 4)


@pytest.mark.parametrize(("metric", "alpha"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_krippendorff_metrics(metric, alpha):
    found = agreement.coefficients(pd.DataFrame(FOUR_RATERS), [1, 2, 3, 4, 5], metric=metric)
    assert round(found.estimate["krippendorff"], 3) == alpha


def test_krippendorff_three_coders():
    found = agreement.coefficients(pd.DataFrame(CODERS).T, [1, 2, 3, 4])
    assert found.estimate["krippendorff"] == pytest.approx(0.691358, abs=5e-7)


def test_sample_size():
    assert design.sample_size(0.4, 0.6, 0.3) == 191
    assert design.sample_size(0.4, 0.6, 0.3, readers=3) == 106


@pytest.mark.parametrize(
    ("fake", "low", "high"), [(5, 0.138, 0.359), (8, 0.369, 0.514), (10, 0.524, 0.618)]
)
def test_bounds_of_the_published_study(fake, low, high):
    found = design.bounds(
        20, both={"real": 3, "uncertain": 2, "fake": fake}, categories=["real", "fake", "uncertain"]
    )
    assert found.loc["cohen", ["low", "high"]].round(3).tolist() == [low, high]
    assert found.exact.all()


def test_bounds_without_the_third_count_hold_all_of_them():
    found = design.bounds(
        20, both={"real": 3, "uncertain": 2}, categories=["real", "fake", "uncertain"]
    )
    assert found.low["cohen"] <= 0.138
    assert found.high["cohen"] == 1
    assert found.loc["percent", ["low", "high"]].tolist() == [0.25, 1]


def test_bounds_agree_with_the_full_functions():
    tables = np.random.default_rng(1).integers(1, 6, (5, 3, 3))
    fast = design.two_reader_coefficients(tables)
    for i, counts in enumerate(tables):
        slow = table(counts).estimate
        assert [fast[name][i] for name in agreement.NAMES] == pytest.approx(slow.tolist())


def test_bounds_say_where_they_stop_being_exact():
    found = design.bounds(60, both={"real": 3}, categories=["real", "fake", "uncertain"])
    assert not found.exact.any()
    assert found.high["cohen"] == 1


def test_degenerate_data_have_a_value_or_a_reason():
    same = pd.DataFrame({"a": ["real"] * 8, "b": ["real"] * 8})
    found = agreement.coefficients(same, ["real", "fake", "uncertain"])
    assert found.estimate[["percent", "gwet", "brennan_prediger"]].tolist() == [1, 1, 1]
    for frame in (
        same,
        same.iloc[:1],
        same.iloc[:0],
        same[["a"]],
        same.assign(b=None),
        pd.DataFrame({"a": ["real", None], "b": [None, "fake"]}),
        pd.DataFrame({"a": ["real", "fake"], "b": ["fake", "real"], "c": [None, None]}),
    ):
        for categories in (["real", "fake", "uncertain"], ["real", "fake"]):
            found = agreement.coefficients(frame, categories)
            assert found.index.tolist() == agreement.NAMES
            unexplained = found[["estimate", "se", "low", "high"]].isna().any(axis=1) & (
                found.reason == ""
            )
            assert not unexplained.any(), found


def test_a_label_outside_the_categories_is_an_error():
    with pytest.raises(ValueError, match="Fake"):
        agreement.coefficients(
            pd.DataFrame({"a": ["real", "Fake"], "b": ["real", "real"]}), ["real", "fake"]
        )


@pytest.mark.parametrize("weights", ["linear", "quadratic"])
def test_numbers_are_ordered_by_value_however_they_are_listed(weights):
    ratings = pd.DataFrame(FOUR_RATERS)
    options = {"weights": weights, "metric": "ordinal"}
    same(
        agreement.coefficients(ratings, [1, 2, 3, 4, 5], **options),
        agreement.coefficients(ratings, [4, 1, 5, 3, 2], **options),
    )


@pytest.mark.filterwarnings("error")
def test_no_warning_and_a_clear_word_for_what_cannot_be():
    for frame in (
        pd.DataFrame({"a": [1, 1, 1], "b": [1, 2, 1]}),
        pd.DataFrame({"a": [1], "b": [2]}),
        pd.DataFrame({"a": [1], "b": [1]}),
    ):
        agreement.coefficients(frame, [1, 2])
    one = agreement.coefficients(pd.DataFrame({"a": [1], "b": [2]}), [1, 2], scale="atanh")
    assert (one.reason[["percent", "cohen", "gwet"]] == "one image: no standard error").all()
    with pytest.raises(ValueError, match=r"reader 'a' gave 3, which"):
        agreement.coefficients(pd.DataFrame({"a": [3], "b": [1]}), [1, 2])


def test_intervals():
    found = table(RADIOLOGISTS).loc["gwet"]
    half = stats.t.ppf(0.975, 99) * found.se
    assert (found.low, found.high) == pytest.approx(
        (found.estimate - half, min(1, found.estimate + half))
    )


def ratings_strategy():
    cell = st.sampled_from(["real", "fake", "uncertain", None])
    return (
        st.integers(2, 5)
        .flatmap(
            lambda r: st.lists(st.lists(cell, min_size=r, max_size=r), min_size=2, max_size=20)
        )
        .map(
            lambda rows: pd.DataFrame(
                rows, columns=[f"r{j}" for j in range(len(rows[0]))], dtype=object
            )
        )
    )


LABELS = ["real", "fake", "uncertain"]


def same(a, b, rows=agreement.NAMES):
    for column in ("estimate", "se", "low", "high"):
        np.testing.assert_allclose(
            a.loc[rows, column].astype(float), b.loc[rows, column].astype(float), atol=1e-9
        )


@settings(max_examples=40, deadline=None)
@given(ratings_strategy(), st.randoms(use_true_random=False))
def test_order_of_readers_images_and_names_of_labels_do_not_matter(ratings, random):
    found = agreement.coefficients(ratings, LABELS)
    images, readers = list(range(len(ratings))), list(ratings.columns)
    random.shuffle(images)
    random.shuffle(readers)
    same(found, agreement.coefficients(ratings.iloc[images][readers], LABELS))
    renamed = ratings.replace({"real": "x", "fake": "z", "uncertain": "y"})
    same(found, agreement.coefficients(renamed, ["y", "x", "z"]))


@settings(max_examples=40, deadline=None)
@given(ratings_strategy())
def test_an_empty_category_matters_only_where_categories_are_counted(ratings):
    found, more = (
        agreement.coefficients(ratings, LABELS),
        agreement.coefficients(ratings, [*LABELS, "other"]),
    )
    same(found, more, ["percent", "cohen", "scott", "conger", "fleiss", "krippendorff"])


@settings(max_examples=40, deadline=None)
@given(ratings_strategy(), st.sampled_from(["identity", "linear", "quadratic"]))
def test_never_nan_without_a_reason_and_always_in_range(ratings, weights):
    found = agreement.coefficients(ratings, LABELS, weights=weights)
    for column in ("estimate", "se", "low", "high"):
        assert (found[column].notna() | (found.reason != "")).all()
    bounded = found.drop("cohen").dropna()
    assert ((bounded.low >= -1) | (bounded.estimate < -1)).all()
    assert (bounded.low <= bounded.estimate + 1e-9).all()
    assert (bounded.estimate <= bounded.high + 1e-9).all()
    assert (bounded.high <= 1).all()


def test_standard_errors_are_close_to_the_jackknife():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 300)
    ratings = pd.DataFrame(
        {f"r{j}": np.where(rng.random(300) < 0.6, truth, rng.integers(0, 3, 300)) for j in range(4)}
    ).astype(object)
    ratings = ratings.mask(rng.random(ratings.shape) < 0.15)
    found = agreement.coefficients(ratings, [0, 1, 2])
    left_out = np.array(
        [
            agreement.coefficients(ratings.drop(index=i), [0, 1, 2]).estimate.tolist()
            for i in ratings.index
        ]
    )
    images = len(left_out)
    jackknife = np.sqrt(
        (images - 1) / images * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0)
    )
    for name, expected in zip(agreement.NAMES, jackknife):
        if name not in ("cohen", "scott"):
            assert found.se[name] == pytest.approx(expected, rel=0.03)


def test_conger_is_cohen_and_fleiss_is_scott_for_two_readers():
    found = table(RADIOLOGISTS).estimate
    assert found["conger"] == pytest.approx(found["cohen"])
    assert found["fleiss"] == pytest.approx(found["scott"])


def test_intra_reader_agreement_uses_each_readers_own_answers():
    first = pd.DataFrame(
        {"a": ["real", "fake", "fake"], "b": ["real", "real", "fake"]}, index=["i", "j", "k"]
    )
    second = pd.DataFrame({"a": ["real", "fake"], "b": ["fake", None]}, index=["i", "k"])
    found = agreement.repeats(first, second, LABELS).set_index(["reader", "coefficient"])
    assert found.estimate["a", "percent"] == 1
    assert found.images["b", "percent"] == 1
    assert found.estimate["b", "percent"] == 0


def test_pairs_are_the_two_reader_coefficients():
    ratings = pd.DataFrame(FOUR_RATERS, columns=list("abcd"))
    found = agreement.pairs(ratings, [1, 2, 3, 4, 5]).set_index(
        ["reader_a", "reader_b", "coefficient"]
    )
    direct = agreement.coefficients(ratings[["b", "d"]], [1, 2, 3, 4, 5])
    assert found.estimate["b", "d", "cohen"] == direct.estimate["cohen"]
    assert len(found) == 6 * len(agreement.NAMES)


def test_coverage_at_200_images():
    found = agreement.coverage(
        [[40, 12, 6], [10, 50, 8], [6, 8, 10]], images=200, studies=200, seed=4
    )
    assert found.coverage.between(0.88, 1).all()


@pytest.mark.soak
@pytest.mark.parametrize("joint", [[[40, 12, 6], [10, 50, 8], [6, 8, 10]], [[30, 20], [20, 30]]])
def test_coverage_over_2000_studies(joint):
    found = agreement.coverage(joint, images=200, studies=2000, seed=5)
    print(found.round(3).to_string())
    assert found.coverage.between(0.93, 0.97).all()


def test_percent_agreement_of_six_readers_is_more_certain_than_that_of_two():
    random = np.random.default_rng(4)
    labels = pd.DataFrame(random.choice(["a", "b"], (80, 6)))
    six = agreement.coefficients(labels, ["a", "b"], scale="atanh").loc["percent"]
    two = agreement.coefficients(labels[[0, 1]], ["a", "b"], scale="atanh").loc["percent"]
    assert six.high - six.low < 0.5 * (two.high - two.low)


@pytest.mark.parametrize(("second", "share"), [("real", 1.0), ("fake", 0.0)])
def test_images_rated_once_do_not_make_an_interval_of_those_rated_twice(second, share):
    ratings = pd.DataFrame({"a": ["real"] * 6 + ["fake"] * 6, "b": [second] * 4 + [None] * 8})
    found = agreement.coefficients(ratings, LABELS, scale="atanh")
    twice = agreement.coefficients(ratings.dropna(), LABELS, scale="atanh")
    ours = found.loc["percent", ["estimate", "low", "high"]].tolist()
    assert ours == twice.loc["percent", ["estimate", "low", "high"]].tolist()
    assert ours[0] == share and found.images["percent"] == 12
    if share:
        perfect = found.loc[["fleiss", "gwet", "conger", "brennan_prediger"]]
        assert (perfect.estimate == 1).all() and perfect.low.isna().all()
        assert perfect.reason.str.startswith("every image shows the same agreement").all()
