"""Planning before the read: published values, what must grow with readers and images, a study that
is too small is named, and power that simulated studies reach.
"""

import numpy as np
import pandas as pd
import pytest
import studies
from scipy import special, stats

from helpers.assemble_reading_set import planned
from helpers.runner import parameters, runs
from helpers.statistics import comparisons, design, multireader, planning

HOPED = {"area": 0.65, "difference": 0.1}
SPREAD = {"reader_sd": 0.05, "correlation": 0.3, "alpha": 0.05}


@pytest.mark.parametrize(
    ("readers", "images"), [(4, 1089), (5, 344), (6, 251), (7, 211), (8, 188), (9, 173), (10, 163)]
)
def test_power_is_that_of_the_published_pilot(readers, images):
    """RJafroc's table for Van Dyke's study (114 images), whose variances are these."""
    reader, error = 2.004025e-4, 8.022883e-4
    cov1, cov2, cov3 = 3.466137e-4, 3.440748e-4, 2.390284e-4
    power = []
    for count in (images - 1, images):
        more = 114 / count
        mean_square = reader + more * (error - cov1 - (cov2 - cov3))
        of_two = (2 * mean_square, 2 * more * (cov2 - cov3))
        power.append(planning.rejected(0.04380032, *of_two, readers, 0.05))
    assert power[0] < 0.8 <= power[1]


def test_kappa_with_three_categories():
    """kappaSize's Power3Cats prints 134.78, 73.12, 53.15, 43.24 and 37.28."""
    sizes = [design.sample_size(0.4, 0.6, (0.3, 0.6, 0.1), readers) for readers in range(2, 7)]
    assert sizes == [135, 74, 54, 44, 38]
    for shares in ((0.5, 0.5, 0.5), (1.0, 0.0, 0.0), 1.2):
        with pytest.raises(ValueError, match="shares"):
            design.sample_size(0.4, 0.6, shares)


def test_power_grows_with_readers_images_and_what_there_is_to_find():
    sizes = list(range(8, 400, 8))
    found = planning.powers([5, 6, 8, 12, 20], sizes, **HOPED, **SPREAD)
    for name in ("power_area", "power_difference"):
        wide = found.pivot(index="images", columns="readers", values=name)
        assert (wide.diff().dropna() > 0).all(axis=None) and wide.to_numpy().max() < 1 + 1e-9
        assert (wide.diff(axis=1).dropna(axis=1) > 0).all(axis=None)
        more = planning.powers([6], sizes, 0.7, 0.15, **SPREAD)[name].to_numpy()
        assert (more >= wide[6]).all()
        unlike = planning.powers([6], sizes, **HOPED, **SPREAD | {"reader_sd": 0.09})[name]
        assert (unlike.to_numpy() < wide[6]).all()
    assert planning.power_of_area(0.5 + 1e-9, 6, 40, 40) == pytest.approx(0.05, abs=1e-3)
    # No number of images makes up for readers who differ.
    assert planning.power_of_area(0.55, 5, 1e6, 1e6, reader_sd=0.09) < 0.2


def test_images_needed_reach_the_power_and_four_fewer_do_not():
    kappa = {"kappas": (0.4, 0.6), "shares": (0.3, 0.1, 0.6)}
    sizes = planning.needed([1, 2, 6], **HOPED, **kappa, **SPREAD, power=0.8).set_index("readers")
    for name in ("area", "difference"):
        enough = sizes.loc[6, f"images_{name}"]
        fewer, at = planning.powers([6], [enough - 4, enough], **HOPED, **SPREAD)[f"power_{name}"]
        assert fewer < 0.8 <= at
    assert pd.isna(sizes.loc[2, "images_difference"]) and pd.isna(sizes.loc[1, "images_kappa"])
    assert sizes.loc[2, "images_kappa"] == design.sample_size(0.4, 0.6, (0.3, 0.1, 0.6))
    assert sizes.loc[2, "images_kappa_binary"] == design.sample_size(0.4, 0.6, 0.6)


def test_the_command_plans_without_a_study(capsys):
    planning.main(["--readers", "3", "6", "--images", "60", "--area", "0.65"])
    said = capsys.readouterr().out
    power = f"{100 * planning.power_of_area(0.65, 6, 30, 30):.0f} %"
    assert power in said and "a mean area of 0.65 from 0.5" in said
    assert "Half of the images are real" in said
    for wrong, why in (
        (["--area", "0.4"], "area must lie between 0.5 and 1"),
        (["--shares", "0.5", "0.5", "0.5"], "add up to 1"),
        (["--kappa", "0.5", "0.5"], "no number of images"),
        (["--images", "0"], "20 images"),
        (["--area", "0.9", "--difference", "0.3"], "area + difference / 2 at most 1"),
        (["--readers", "many"], "invalid int value"),
    ):
        with pytest.raises(SystemExit) as stopped:
            planning.main(wrong)
        assert stopped.value.code == 2 and why in capsys.readouterr().err


@pytest.fixture
def planned_set(tmp_path, monkeypatch):
    """Plans a reading set as 06 does: the table read back from disk, the figure's bytes and what
    is too small.
    """
    monkeypatch.setenv("OUTPUTS", str(tmp_path))

    def plan(readers, real, *generated, **changes):
        run = studies.begin("planned", "06_assemble_reading_set", readers=readers, **changes)
        kinds = np.repeat(["a", "b", "c"][: len(generated)], generated)
        drawn = pd.DataFrame({"generator": [None] * real + list(kinds)})
        drawn["origin"] = np.where(drawn["generator"].isna(), "real", "generated")
        drawn = pd.concat([drawn.assign(repeat=False), drawn.head(3).assign(repeat=True)])
        _, _, said = planned.plan(run, drawn.assign(training=False))
        run.release()
        return run.read("planning.csv"), (run.folder / "figures/planning.png").read_bytes(), said

    return plan


def test_a_reading_set_that_is_too_small_is_named(planned_set):
    table, figure, said = planned_set(6, 20, 12, 8, area_hoped=0.65)
    reached = float(planning.power_of_area(0.65, 6, 20, 20))
    power = f"{100 * reached:.0f} %"
    assert (
        f"20 real and 20 generated images a mean area of 0.65 differs from chance in {power}"
        in said[0]
    )
    power = 100 * planning.power_of_difference(0.1, 0.65, 6, 20, 8)
    assert f"{power:.0f} %" in said[1] and len(said) == 2
    own = table.set_index("readers").loc[6]
    assert own["images"] == 40 and own["power_area"] == pytest.approx(reached)
    assert own["images_area"] > 40 and figure.startswith(b"\x89PNG")
    # A third of the images is real: so it is in the table, and more images are needed.
    table = planned_set(6, 20, 40, area_hoped=0.65)[0].set_index("readers")
    assert table["power_area"][6] == pytest.approx(planning.power_of_area(0.65, 6, 20, 40))
    assert table["images_area"][6] > planned_set(6, 30, 30, area_hoped=0.65)[0]["images_area"][1]
    assert not planned_set(8, 200, 150, 150, area_hoped=0.8)[2]
    # Two readers speak for themselves alone, and of one kind of image there is no area.
    table, _, said = planned_set(2, 20, 12, 8, area_hoped=0.6)
    assert len(said) == 1 and table["power_difference"].isna().sum() == 1
    assert not planned_set(2, 0, 12, 8)[2]
    with pytest.raises(runs.RunError, match="power are not possible: area must lie between"):
        planned_set(6, 20, 20, area_hoped=0.3)
    with pytest.raises(runs.RunError, match="prevalence and uncertain_share leave"):
        planned_set(6, 20, 20, prevalence=0.95)


def test_the_axis_of_the_curves_says_what_share_is_real():
    settings = parameters.Record(
        **{"readers": 2, "area_hoped": 0.7, "difference_hoped": 0.1, "power": 0.8},
        **{"reader_sd": 0.05, "reader_correlation": 0.3},
    )
    for real, said in (
        (20, "images (20 of 60 real, as in this study)"),
        (0, "images, if half of them were real"),
    ):
        read = pd.DataFrame({"origin": ["real"] * real + ["generated"] * (60 - real)})
        figure = planned.curves(settings, read, [2, 6], SPREAD)
        assert {axes.get_xlabel() for axes in figure.axes} == {said}


@pytest.mark.soak
@pytest.mark.parametrize(
    ("area", "readers", "images"), [(0.65, 6, 80), (0.6, 8, 120), (0.62, 5, 120), (0.6, 15, 60)]
)
def test_simulated_studies_reach_the_planned_power(area, readers, images):
    half, correlation = images // 2, 0.4
    reached = multireader.power(area, readers, half, half, correlation=correlation, studies=3000)
    # What correlated scores leave of it in the areas: that of ranks.
    of_areas = 6 / np.pi * np.arcsin(correlation / 2)
    planned = planning.power_of_area(area, readers, half, half, correlation=of_areas)
    print(f"planned {planned:.3f}, reached {reached['power']:.3f}")
    assert abs(planned - reached["power"]) < 0.05


@pytest.mark.soak
@pytest.mark.parametrize(
    ("readers", "real", "each", "difference"), [(6, 60, 40, 0.1), (10, 40, 40, 0.12)]
)
def test_simulated_generators_are_told_apart_as_planned(readers, real, each, difference):
    random, correlation, studies = np.random.default_rng(0), 0.4, 1500
    source = np.repeat([0, 1, 2], [real, each, each])
    truth, images = (source > 0).astype(int), np.arange(len(source))
    distance = np.sqrt(2) * stats.norm.ppf([0.7 + difference / 2, 0.7 - difference / 2])
    # A reader's skill moves both areas by the same amount; what is left moves each alone.
    scale = 0.05 * np.sqrt(2) / stats.norm.pdf(stats.norm.ppf(0.7))
    skill = np.sqrt(planning.STEADY) * random.standard_normal((1, studies, readers))
    alone = np.sqrt(1 - planning.STEADY) * random.standard_normal((2, studies, readers))
    means = distance[:, None, None] + scale * (skill + alone)
    scores = np.concatenate([np.zeros((1, studies, readers)), means])[source]
    scores += np.sqrt(correlation) * random.standard_normal((len(source), studies, 1))
    scores += np.sqrt(1 - correlation) * random.standard_normal(scores.shape)
    sets = (source != 2, source != 1)
    found = comparisons.different(scores, truth, images, *sets, clustered=False)
    wide = special.stdtrit(found["general_df"], 0.975) * found["general_se"]
    reached = (np.abs(found["estimate"]) > wide).mean()
    of_areas = 6 / np.pi * np.arcsin(correlation / 2)
    planned = planning.power_of_difference(
        difference, 0.7, readers, real, each, correlation=of_areas
    )
    print(f"planned {planned:.3f}, reached {reached:.3f}")
    assert abs(planned - reached) < 0.05
