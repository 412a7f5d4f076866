"""The audit finds what is planted and nothing else; its measures agree with what they are computed
from elsewhere.
"""

import io
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import linalg, ndimage
from sklearn.metrics import roc_auc_score

from helpers import audit, images, tables
from helpers.assemble_reading_set import framing
from helpers.audit import audit_figures, copies, features, fidelity, leakage, signs
from helpers.runner import folders, parameters, runs

SIDE, READING = 144, 112


def asked(**values):
    """The parameters of 05 as its notebook has them, but for `values`."""
    declared = parameters.schema(folders.NOTEBOOKS / "05_audit_images.ipynb")
    assert set(values) <= set(declared)
    return {key: parameter.default for key, parameter in declared.items()} | values


def chest(seed, side=SIDE):
    """A made-up 8-bit chest: the same anatomy in all, a body, ribs, vessels and noise of this
    patient's own.
    """
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    widths, tilt = random.uniform(0.8, 1.2, 4), random.uniform(-0.15, 0.15)
    grey = 150 - 90 * sum(
        np.exp(
            -(((x - sign * 0.42) / (0.28 * widths[0])) ** 4)
            - ((y + 0.1 + sign * tilt) / (0.6 * widths[1])) ** 4
        )
        for sign in (-1, 1)
    )
    grey += 50 * np.exp(
        -(((x - 0.1) / (0.25 * widths[2])) ** 2) - ((y - 0.3) / 0.3) ** 2
    ) + 40 * np.exp(-((x / 0.07) ** 2))
    grey += (
        14
        * np.sin(
            2
            * np.pi
            * (y * random.uniform(4, 6) + random.uniform(1, 2.5) * x**2 + random.uniform())
        )
        * (np.abs(x) > 0.12)
    )
    grey += ndimage.gaussian_filter(random.normal(0, 1, (side, side)), 2.5) * 110 + random.normal(
        0, 2.5, (side, side)
    )
    return np.clip(grey, 0, 255).astype(np.uint8)


def keep(folder, arrays, name, **columns):
    """Images on disk as rows for the audit."""
    folder.mkdir(exist_ok=True)
    rows = []
    for number, array in enumerate(arrays):
        path = folder / f"{name}{number}.png"
        path.write_bytes(images.write_png(array))
        rows.append(
            {
                "image_id": f"{name}{number}",
                "file": str(path),
                "bits": 8,
                "group": f"{name}{number}",
                "modality": "xray",
                "duplicate_group": None,
                **columns,
            }
        )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def chests():
    return [chest(seed) for seed in range(220)]


def cropped(array, random):
    side = int(array.shape[0] * random.uniform(0.8, 0.95))
    top, left = random.integers(0, array.shape[0] - side + 1, 2)
    return array[top : top + side, left : left + side]


def noised(array, random):
    return np.clip(array + random.normal(0, 10, array.shape), 0, 255).astype(np.uint8)


def rewindowed(array, random):
    low, high = np.percentile(array, [random.uniform(1, 8), random.uniform(90, 99)])
    return (np.clip((array - low) / (high - low), 0, 1) ** random.uniform(0.7, 1.4) * 255).astype(
        np.uint8
    )


def flipped(array, random):
    return array[:, ::-1]


def turned(array, random):
    angle = random.uniform(1.5, 4) * random.choice([-1, 1])
    return np.asarray(Image.fromarray(array).rotate(angle, Image.Resampling.BICUBIC))


def shifted(array, random):
    return np.roll(np.pad(array, 12, mode="edge"), random.choice([-9, -6, 6, 9], 2), (0, 1))[
        12:-12, 12:-12
    ]


def squeezed(array, random):
    return np.asarray(Image.fromarray(array[6:-6]).resize(array.shape, Image.Resampling.BICUBIC))


def framed(array, random):
    return np.pad(array, array.shape[0] // random.integers(10, 20))


def negative(array, random):
    return 255 - array


def recompressed(array, random):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer))


def everything(array, random):
    return flipped(noised(rewindowed(cropped(array, random), random), random), random)


def test_planted_copies_are_caught_and_other_patients_are_not(chests, tmp_path):
    training, held_out = (
        keep(tmp_path, chests[:60], "train"),
        keep(tmp_path, chests[80:120], "held"),
    )
    limit, rate, (low, high) = copies.threshold(
        copies.nearest(held_out, training)["distance"], 0.02
    )
    # Forty patients cannot show a rate below one in forty-one, whatever share is asked for.
    assert low < rate < high and rate <= 1 / 41 + 1e-9
    random = np.random.default_rng(0)
    for change in (
        cropped,
        noised,
        rewindowed,
        flipped,
        turned,
        shifted,
        squeezed,
        framed,
        negative,
        recompressed,
        everything,
    ):
        planted = keep(tmp_path, [change(array, random) for array in chests[:8]], change.__name__)
        found = copies.nearest(planted, training)
        assert (found["distance"] < limit).mean() >= 0.95, change.__name__
        assert (found["nearest_image_id"] == training["image_id"][:8]).mean() >= 0.95, (
            change.__name__
        )
    others = copies.nearest(keep(tmp_path, chests[150:180], "other"), training)
    assert (others["distance"] < limit).mean() <= 0.05


def test_a_source_that_cannot_be_searched_for_copies_is_named(chests, tmp_path):
    samples = keep(tmp_path, chests[:3], "samples").assign(
        origin="generated", source="tiny", trained_here=True, split=None
    )
    found, rows = copies.judge(samples, asked())
    told = copies.sentences(samples, found, rows)
    assert len(told) == 1 and told[0].startswith(
        "X-ray of tiny: its 3 images were not searched for copies"
    )


def test_images_made_elsewhere_are_compared_and_never_called_memorised(chests, tmp_path):
    real = keep(tmp_path, chests[:60], "real", origin="real", source="real", trained_here=False)
    real["split"] = ["train", "test"] * 30
    planted = [noised(array, np.random.default_rng(0)) for array in chests[:4]]
    made = keep(
        tmp_path,
        [*planted, *chests[100:110]],
        "made",
        origin="generated",
        source="02_x: elsewhere",
        trained_here=False,
    )
    pool = pd.concat([real, made], ignore_index=True)
    nearest, rows = copies.judge(pool, asked(feature_size=64))
    near = nearest[nearest["near"]]
    assert set(near["image_id"]) >= {f"made{n}" for n in range(4)} and len(near) <= 6
    assert (near.set_index("image_id").loc["made1", "nearest_image_id"]) == "real1"
    assert nearest["release"].all() and not nearest["copy"].any()
    assert set(rows["metric"]) == {"near_threshold", "near_false_alarms", "near_share"}
    told = copies.sentences(pool, nearest, rows)
    assert "was not trained here" in told[0] and "does not show memorisation" in told[0]
    quality = pd.concat([rows, rows.assign(metric="frechet")])
    tables_of = {"nearest.csv": nearest, "quality.csv": quality}
    again = audit.judge_copies(SimpleNamespace(finished=True, read=tables_of.get), pool)
    assert copies.sentences(pool, *again) == told, "a finished run says the same"
    told = copies.sentences(pool, nearest.assign(near=False), rows)
    assert "none of the" in told[0] and "memorisation" not in told[0] and "that case" not in told[0]


def finished(name, rows, **values):
    folder = folders.outputs_folder("unit") / name
    folder.mkdir(parents=True)
    frame = pd.DataFrame(rows).assign(path="x.png", sha256="0", modality="xray", simulated=True)
    if rows:
        tables.write(frame.assign(finding="", width=9, height=9, bits=8), folder / "images.csv")
    manifest = {"status": "finished", "run": name, "parameters": values, "files": []}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"simulated": []}))


def test_training_cases_of_another_import_are_searched_too(study_folders):
    (study_folders / "params" / "unit").mkdir(parents=True)
    real = [("a1", "train"), ("a2", "test"), ("both", "test")]
    more = [("b1", "train"), ("b2", "test"), ("both", "train")]
    for name, rows in (("01_prepare_cases", real), ("01_prepare_cases.b", more)):
        finished(name, [{"image_id": i, "split": s, "origin": "real"} for i, s in rows])
    finished("03_finetune_diffusion.b", [], cases="01_prepare_cases.b", base="tiny")
    finished("03_finetune_diffusion", [], cases="01_prepare_cases", base="03_finetune_diffusion.b")
    made = [{"image_id": "s1", "origin": "generated", "prompt_id": "p"}]
    finished("04_sample_diffusion", made, checkpoint="03_finetune_diffusion")
    values = asked(sources=["04_sample_diffusion"])
    pool = audit.gather(runs.Run("unit", "05_audit_images", values))
    found = pool[pool["source"] == "real"].set_index("image_id")["split"].to_dict()
    assert found == {"a1": "train", "a2": "test", "b1": "train", "both": "train"}
    assert pool.set_index("image_id").loc["s1", "trained_here"]


@pytest.mark.parametrize(
    "wrong", [{"false_alarms": 1.0}, {"false_alarms": -0.1}, {"permutations": 0}]
)
def test_a_share_of_false_alarms_that_is_none_is_one_sentence(study_folders, wrong):
    with pytest.raises(runs.RunError, match="must be a share"):
        audit.gather(runs.Run("unit", "05_audit_images", asked(**wrong)))


def test_two_real_images_that_are_duplicates_calibrate_nothing(chests, tmp_path):
    real = keep(tmp_path, chests[:2], "real", origin="real", source="real", trained_here=False)
    real = real.assign(split="test", duplicate_group="both")
    made = keep(
        tmp_path, chests[4:6], "made", origin="generated", source="02_x", trained_here=False
    )
    pool = pd.concat([real, made], ignore_index=True)
    told = copies.sentences(pool, *copies.judge(pool, asked(feature_size=64)))
    assert "2 images were not searched for copies" in told[0]


def test_threshold_is_the_promised_share_of_other_patients():
    random = np.random.default_rng(1)
    below = [
        random.normal(0, 1, 2000) < copies.threshold(random.normal(0, 1, 199), 0.02)[0]
        for _ in range(200)
    ]
    assert abs(np.mean(below) - 0.02) < 0.004
    assert copies.threshold(np.array([0.3, 0.2]), 0.02)[:2] == (
        0.2,
        1 / 3,
    )  # so few can promise no more


def jpeg(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=85)
    return np.asarray(Image.open(buffer))


def border(array):
    return np.hstack([array[:, :-1], np.full((len(array), 1), 255, np.uint8)])


def comb(array):
    return np.round(np.round(array * 0.8) / 0.8).astype(np.uint8)


def larger(array):
    return np.asarray(Image.fromarray(array).resize((160, 160), Image.Resampling.BICUBIC))


def facts(pictures, stage, framing="whole"):
    return (
        signs.facts_before(pictures)
        if stage == "before"
        else signs.facts_after(pictures, asked(reading_size=READING, framing=framing))
    )


@pytest.fixture(scope="module")
def real(chests, tmp_path_factory):
    """Facts of 100 real images, before and after."""
    pictures = keep(tmp_path_factory.mktemp("real"), chests[:100], "real")
    found = {stage: facts(pictures, stage) for stage in ("before", "after")}
    return found | {"cut": facts(pictures, "after", "common")}


def leak(real, made, stage):
    framing = "common" if stage == "cut" else "whole"
    both = pd.concat([real[stage], facts(made, stage, framing)], ignore_index=True).dropna(axis=1)
    generated = np.arange(len(both)) >= len(real[stage])
    return leakage.separability(
        both, generated, np.arange(len(both)).astype(str), seed=1, permutations=200
    ).set_index("feature")


PLANTED = [
    (jpeg, "jpeg", ["jpeg_blocking", "jpeg_steps", "joint"]),
    (comb, "comb", ["comb_empty_levels", "comb_unevenness", "comb_fine", "joint"]),
    (larger, "shape", ["depth_bits", "border_right_bar", "joint"]),
]


@pytest.mark.parametrize(("change", "sign", "gone"), PLANTED)
def test_planted_leaks_are_found_before_and_gone_after(chests, real, tmp_path, change, sign, gone):
    made = keep(tmp_path, [change(array) for array in chests[100:200]], "made")
    before = leak(real, made, "before")
    assert before.loc["joint", "low"] > 0.6 and before.loc["joint", "p"] < 0.01
    assert before[before.index.str.startswith(sign)]["auc"].max() > 0.9
    after = leak(real, made, "after")
    assert not any(
        after.index.str.startswith(("shape", "file"))
    )  # one size and one kind of file: nothing is left to compare
    assert after.loc[gone, "low"].max() < 0.6


def test_a_planted_border_is_named_where_images_are_whole_and_gone_where_they_are_cut(
    chests, real, tmp_path
):
    made = keep(tmp_path, [border(array) for array in chests[100:200]], "made")
    before, after, cut = (leak(real, made, stage) for stage in ("before", "after", "cut"))
    assert before.loc["border_right_jump", "auc"] > 0.9
    # Whole is whole: an edge of a real film is never cut off, so that one of a generator stays.
    assert after.drop("joint")["auc"].idxmax() == "border_right_jump"
    assert cut.loc[["border_right_jump", "border_right_bar", "joint"], "low"].max() < 0.6


def test_two_halves_of_one_source_are_not_told_apart(real):
    tables = []
    for stage in ("before", "after"):
        for seed in range(8):
            half = np.random.default_rng(seed).permutation(100) < 50
            tables.append(
                leakage.separability(
                    real[stage], half, np.arange(100).astype(str), seed, permutations=100
                )
            )
    whole = pd.concat(tables)
    joint = whole[whole["feature"] == "joint"]
    assert (joint["low"] > 0.6).sum() <= 1 and (
        joint["p"] <= 0.05
    ).sum() <= 3  # of 16, at 2.5 and 5 % each
    assert (whole["p"] <= 0.05).mean() < 0.1 and abs(joint["auc"].mean() - 0.5) < 0.06


def test_a_source_told_by_its_noise_is_warned_of_by_name(chests, tmp_path):
    random = np.random.default_rng(2)
    real = keep(tmp_path, chests[:60], "real", source="real", origin="real")
    smooth = [
        np.clip(
            ndimage.gaussian_filter(array.astype(float), 1.2) + random.normal(0, 0.5, array.shape),
            0,
            255,
        ).astype(np.uint8)
        for array in chests[60:120]
    ]
    made = keep(tmp_path, smooth, "made", source="02_made: model", origin="generated")
    pool = pd.concat([real, made], ignore_index=True)
    settings = asked(reading_size=READING, seed=1, permutations=50)
    table = leakage.measure(pool, settings)
    assert "images of 02_made by model can be" in leakage.warnings(table)[0] and (
        "noise" in leakage.warnings(table)[0] or "spectrum" in leakage.warnings(table)[0]
    )
    small = leakage.measure(pool, settings | {"reading_size": 150})
    assert set(small["stage"]) == {"before"}
    assert "06 leaves it out" in leakage.not_judged(pool, small)[0]


def test_groups_are_kept_together():
    # Every patient has a look of his or her own and no class has: only folds that split patients
    # find anything.
    random = np.random.default_rng(0)
    look = np.repeat(random.normal(0, 1, (24, 6)), 10, axis=0) + random.normal(0, 0.01, (240, 6))
    truth, groups = np.repeat(np.arange(24) % 2 == 1, 10), np.repeat(np.arange(24).astype(str), 10)
    table = leakage.separability(
        pd.DataFrame(look, columns=list("abcdef")), truth, groups, seed=0, permutations=100
    ).set_index("feature")
    assert (
        table.loc["joint", "auc"] < 0.75
        and table.loc["joint", "p"] > 0.05
        and table.loc["joint", "low"] < 0.5
    )


def test_too_few_patients_are_not_judged():
    facts = pd.DataFrame({"a": np.arange(40.0)})
    assert leakage.separability(
        facts, np.arange(40) < 20, np.repeat([str(n) for n in range(4)], 10), seed=0
    ).empty


def test_clustered_area_agrees_with_scikit_learn_and_covers():
    random = np.random.default_rng(3)
    inside, truth = 0, np.repeat([True, False], 60)
    groups = np.repeat(np.arange(40), 3)
    for _ in range(300):
        scores = truth * 1.0 + np.repeat(random.normal(0, 1, 40), 3) + random.normal(0, 0.5, 120)
        auc, low, high = leakage.clustered_auc(scores, truth, groups)
        inside += low < 0.7365 < high  # Φ(1 / √(2 · 1.25))
    assert auc == pytest.approx(roc_auc_score(truth, scores))
    assert 0.9 < inside / 300 < 0.985
    auc, low, high = leakage.clustered_auc(truth * 1.0, truth, groups)
    assert auc == high == 1 and 0.7 < low < 0.95


def test_frechet_distance_is_that_of_two_gaussians():
    random = np.random.default_rng(0)
    one, two = (
        random.normal(0, 1, (4000, 5)) @ random.normal(0, 1, (5, 5)),
        random.normal(0.3, 2, (3000, 5)),
    )
    covariances = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    expected = (
        ((one.mean(0) - two.mean(0)) ** 2).sum()
        + np.trace(sum(covariances))
        - 2 * np.trace(linalg.sqrtm(covariances[0] @ covariances[1]).real)
    )
    assert fidelity.frechet_distance(one, two) == pytest.approx(expected, rel=1e-6)
    assert fidelity.frechet_distance(one, one) == pytest.approx(0, abs=1e-6)


def test_blocks_change_nothing(monkeypatch):
    random = np.random.default_rng(0)
    one, two = random.normal(0, 1, (70, 6)), random.normal(0.5, 1.3, (90, 6))
    whole = fidelity.distances(one, two)
    monkeypatch.setattr(fidelity, "BLOCK", 7)
    assert fidelity.distances(one, two) == pytest.approx(whole)


def test_neighbourhoods_and_kernel_distance_by_brute_force():
    random = np.random.default_rng(0)
    made, real, k = random.normal(0.4, 1, (40, 4)), random.normal(0, 1, (50, 4)), 3

    def radius(points):
        return [sorted(np.linalg.norm(points - point, axis=1))[k] for point in points]

    gaps = np.array([[np.linalg.norm(a - b) for b in real] for a in made])
    inside = gaps <= np.array(radius(real))[None]
    expected = {
        "precision": inside.any(1).mean(),
        "density": inside.sum() / k / 40,
        "coverage": inside.any(0).mean(),
    }
    expected["recall"] = (gaps <= np.array(radius(made))[:, None]).any(0).mean()
    assert fidelity.neighbourhoods(made, real, k) == pytest.approx(expected)

    def kernel(a, b):
        return (a @ b.T / 4 + 1) ** 3

    within = [
        (kernel(a, a).sum() - np.trace(kernel(a, a))) / len(a) / (len(a) - 1) for a in (made, real)
    ]
    assert fidelity.kernel_distance(made, real) == pytest.approx(
        sum(within) - 2 * kernel(made, real).mean()
    )


def test_a_constant_in_the_features_costs_no_digits():
    random = np.random.default_rng(0)
    made, real = (np.round(random.normal(shift, 1, (60, 8)), 2) for shift in (0.3, 0))
    for measure in (fidelity.neighbourhoods, fidelity.nearest_distance):
        expected, found = (
            measure(made, real),
            measure((made + 4096).astype(np.float32), (real + 4096).astype(np.float32)),
        )
        assert found == pytest.approx(expected, abs=5e-3)


def test_ms_ssim_behaves(chests):
    assert fidelity.ms_ssim(chests[0], chests[0]) == pytest.approx(1)
    little, much = (
        fidelity.ms_ssim(
            chests[0],
            np.clip(chests[0] + np.random.default_rng(0).normal(0, sd, (SIDE, SIDE)), 0, 255),
        )
        for sd in (5, 40)
    )
    assert 1 > little > much > fidelity.ms_ssim(chests[0], 255 - chests[0])


def test_quality_tells_a_poor_source_from_a_perfect_one(chests, tmp_path):
    real = keep(tmp_path, chests[:120], "real", source="real", origin="real")
    perfect = keep(tmp_path, chests[120:170], "perfect", source="perfect", origin="generated")
    poor = [
        np.clip(
            ndimage.gaussian_filter(chests[170 + n % 4].astype(float), 3) + n % 7, 0, 255
        ).astype(np.uint8)
        for n in range(50)
    ]
    poor = keep(tmp_path, poor, "poor", source="poor", origin="generated")
    table = fidelity.measure(
        pd.concat([real, perfect, poor], ignore_index=True),
        asked(feature_size=96, seed=0),
        replicates=20,
    )
    table = table.set_index(["source", "metric"])
    assert (table.loc["perfect", "images"] == 50).all() and table["extractor"].str.contains(
        "handcrafted"
    ).all()
    for metric, sign in (
        ("frechet_distance", 1),
        ("kernel_distance", 1),
        ("precision", -1),
        ("coverage", -1),
        ("ms_ssim_within", 1),
    ):
        worse, fine = table.loc[("poor", metric)], table.loc[("perfect", metric)]
        assert sign * (worse["estimate"] - worse["baseline"]) > abs(
            fine["estimate"] - fine["baseline"]
        ), metric
        assert worse["low"] <= worse["estimate"] <= worse["high"]
    assert table.loc[("perfect", "precision"), "high"] > 0.8


def test_any_network_can_be_the_extractor(chests, tmp_path):
    import torch
    from transformers import ViTConfig, ViTModel

    pool = keep(tmp_path, chests[:5], "real")
    script = tmp_path / "network.pt"
    torch.jit.script(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())).save(
        script
    )
    found = features.extract(pool, asked(extractor=str(script)), 96)
    assert found.shape == (5, 48)
    expected = (
        images.area_resize(
            framing.for_reading(chests[0], 8, "xray", 8, asked(reading_size=96)), 4, 4
        ).ravel()
        / 255
    )
    np.testing.assert_allclose(found[0][:16], expected, rtol=1e-4)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
    )
    ViTModel(config).save_pretrained(tmp_path / "vit")
    assert features.extract(pool, asked(extractor=str(tmp_path / "vit")), 96).shape == (5, 16)


def test_a_network_kept_without_its_pooler_gives_the_same_features_each_time(chests, tmp_path):
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
    )
    ViTForImageClassification(config).save_pretrained(tmp_path / "classifier")
    pool = keep(tmp_path, chests[:3], "real")
    first, again = (
        features.extract(pool, asked(extractor=str(tmp_path / "classifier")), 96) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)


def test_each_figure_of_distances_names_its_source():
    row = pd.Series({"modality": "ct", "source": "02_generate_openai: model", "estimate": 0.1})
    figure = audit_figures.nearest_figure(pd.DataFrame({"distance": [0.2]}), row)
    assert figure.axes[0].get_title() == "CT · 02 model"


def test_a_missing_extractor_says_what_to_give(chests, tmp_path):
    with pytest.raises(FileNotFoundError, match="give a TorchScript file"):
        pool = keep(tmp_path, chests[:1], "real")
        features.extract(pool, asked(extractor=str(tmp_path / "none.pt")), 96)
