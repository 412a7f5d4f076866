"""The mixed model and the drift: planted effects are found within their intervals, and where there
are none, none are found; in soak also against lme4.
"""

import json
import subprocess

import numpy as np
import pandas as pd
import pytest

from helpers.analyse_readings import effects, results, texts
from helpers.statistics import drift, mixed_model

# Log odds of a right answer, as the table's rows name them.
PLANTED = {"generator": -0.9, "experience": 0.7, "position": -0.8, "modality": 0.0, "source": 0.0}
NOTHING = dict.fromkeys(PLANTED, 0.0)


def study(random, planted, readers=6, images=80, slower=0.0, prompts=False):
    """Answers of readers who differ in skill and leaning, to images that differ in difficulty, each
    in an order of his or her own; and the images.
    """
    number = np.arange(images)
    shown = pd.DataFrame({"image_id": [f"i{n:03d}" for n in number], "truth": number % 2})
    shown["generator"] = np.where(shown["truth"] == 0, None, np.where(number % 4 == 1, "a", "b"))
    shown["modality"] = np.where(number % 8 < 4, "xray", "ct")
    shown["true_finding"] = np.where(number % 3 == 0, "no_finding", "effusion")
    shown["cluster"] = np.where(prompts, (number // 6).astype(str), shown["image_id"])
    hard = 0.7 * random.standard_normal(images)
    hard += prompts * 0.5 * random.standard_normal(images)[number // 6]
    rows = []
    for reader in range(readers):
        years, skill, lean = 3.0 + 5 * reader, *random.standard_normal(2) * [0.4, 0.8]
        own = shown.assign(reader=f"R{reader + 1}", years=years, prior_ai=reader % 2 == 0)
        own["position"] = random.permutation(images) + 1
        share = (own["position"] - 1) / (images - 1)
        odds = 0.5 + skill + lean * (own["truth"] - 0.5) + hard
        odds += planted["generator"] * (own["generator"] == "b")
        odds += planted["experience"] * (years - 15) / 10 + planted["position"] * (share - 0.5)
        right = random.random(images) < 1 / (1 + np.exp(-odds))
        said = np.where(right == (own["truth"] == 1), "fake", "real")
        noise = 0.5 * random.standard_normal(images) + 0.3 * random.standard_normal()
        rows.append(own.assign(label=said, seconds=np.exp(2.5 + slower * (share - 0.5) + noise)))
    answers = pd.concat(rows, ignore_index=True).assign(presentation=1)
    return effects.first_answers(answers, shown.set_index("image_id"), "wrong")


def fitted(table):
    known = table[table["low"].notna()].set_index("effect")
    return known[~known.index.duplicated()]


def coverage(planted, studies, seed):
    """By effect: how often the interval holds the truth, and how often it excludes none."""
    random, held, found = np.random.default_rng(seed), [], []
    for _ in range(studies):
        table = fitted(effects.model(study(random, planted))[0])
        rows = {}
        for effect, true in planted.items():
            # The generators' difference moves the mean of the generated images too.
            true = planted["generator"] / 2 if effect == "source" else true
            # b is compared with a, or a with b where it comes first.
            true = -true if table.loc[effect, "level"] == "a" else true
            rows[effect] = np.log(table.loc[effect, ["low", "high"]].astype(float)) - true
        held.append({name: row["low"] <= 0 <= row["high"] for name, row in rows.items()})
        found.append(
            {name: not table.loc[name, "low"] <= 1 <= table.loc[name, "high"] for name in rows}
        )
    return pd.DataFrame(held).mean(), pd.DataFrame(found).mean()


def test_planted_effects_are_found_within_their_intervals():
    held, found = coverage(PLANTED, 6, 1)
    assert held.mean() >= 0.88 and found["generator"] >= 0.5


def test_effects_that_are_not_there_are_not_found():
    held, found = coverage(NOTHING, 6, 2)
    assert held.mean() >= 0.88 and found.mean() <= 0.12


@pytest.mark.soak
@pytest.mark.parametrize(("planted", "seed"), [(PLANTED, 3), (NOTHING, 4)])
def test_intervals_of_the_model_hold_what_they_promise(planted, seed):
    held, found = coverage(planted, 300, seed)
    print("coverage", held.round(3).to_dict(), "excludes none", found.round(3).to_dict())
    assert held.between(0.925, 0.99).all()
    assert found["generator"] > 0.6 if planted["generator"] else found.max() <= 0.075


GLMER = """
library(lme4)
d <- read.csv(file("stdin"))
fit <- function(q) {
  m <- glmer(right ~ EFFECTS + (1 | reader) + (0 + lean | reader) + (1 | image_id),
             d, binomial, glmerControl("bobyqa"), nAGQ = q)
  c(fixef(m), sqrt(diag(as.matrix(vcov(m)))), as.data.frame(VarCorr(m))$sdcor)
}
cat("[[", paste(fit(0), collapse = ","), "],[", paste(fit(1), collapse = ","), "]]")
"""


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_the_model_is_that_of_lme4(seed):
    first = study(np.random.default_rng(seed), PLANTED)
    columns, _ = effects.design(first, True)
    named = {f"x{place}": np.asarray(part[-1], float) for place, part in enumerate(columns)}
    fixed = np.column_stack([np.ones(len(first)), *named.values()])
    factors = effects.shared(first, True, fixed)
    table = first[["right", "reader", "image_id"]].assign(**named)
    # lean is a fixed effect too: x0, the source, is the same column.
    table["lean"] = named["x0"]
    script = GLMER.replace("EFFECTS", " + ".join(named))
    done = subprocess.run(
        ["Rscript", "--vanilla", "-e", script],
        input=table.to_csv(index=False),
        capture_output=True,
        text=True,
    )
    assert not done.returncode, f"R with lme4 is needed (Debian: r-cran-lme4): {done.stderr}"
    same, finer = (np.array(part) for part in json.loads(done.stdout))
    ours = mixed_model.logistic(first["right"].to_numpy(), fixed, factors, restricted=False)
    count = fixed.shape[1]
    errors = np.sqrt(np.diag(ours.covariance))
    assert np.abs(ours.effects - same[:count]).max() < 2e-3
    assert errors == pytest.approx(same[count : 2 * count], rel=5e-3)
    assert sorted(ours.spread.values()) == pytest.approx(sorted(same[2 * count :]), abs=5e-3)
    # What the report prints: within a fraction of a standard error, and not narrower.
    printed = mixed_model.logistic(first["right"].to_numpy(), fixed, factors)
    wider = np.sqrt(np.diag(printed.covariance)) / finer[count : 2 * count]
    print("printed against glmer: standard errors", wider.round(2))
    assert (np.abs(printed.effects - finer[:count]) / finer[count : 2 * count]).max() < 0.25
    assert wider.min() > 0.97


def test_few_readers_are_fixed_and_single_ones_have_no_model():
    first = study(np.random.default_rng(5), PLANTED, readers=2, images=40)
    table, about = effects.model(first)
    assert about["readers"] == "these" and list(about["spread"]) == ["images"]
    left = table.set_index("effect")["reason"]
    assert left["experience"] == left["prior knowledge of AI"] == "fewer than 5 readers"
    assert {"source", "generator", "modality", "finding", "position"} <= set(fitted(table).index)
    _, about = effects.model(first[first["reader"] == "R1"])
    assert about["reason"].startswith("one reader")


def test_what_cannot_be_told_apart_is_left_out_with_its_reason():
    first = study(np.random.default_rng(6), NOTHING, prompts=True)
    first["modality"] = np.where(first["truth"] == 1, "ct", "xray")
    first["true_finding"] = np.where(first["image_id"] < "i003", "mass", "no_finding")
    table, about = effects.model(first)
    left = table.set_index("effect")["reason"]
    # Neither gets the credit of the other.
    assert left["modality"] == "it cannot be separated from source"
    assert left["source"] == "it cannot be separated from modality"
    assert "one level has 5 images" in left["finding"]
    assert "prompts and patients" in about["spread"]
    always = first.assign(right=1.0)
    assert "fewer than 10" in effects.model(always)[1]["reason"]


def said(first, registered=None):
    """The report's sentences on the model and on drift."""
    table, about = effects.model(first)
    found = {"model": about, "model_effects": table.to_dict("records")}
    found["drift"] = effects.changes(first)["drift"].to_dict("records")
    found["design"] = {"readers": registered or first["reader"].nunique()}
    return " ".join(texts.paragraphs(texts.fill("model.md", **results.plain(found))))


AWKWARD = {
    "one reader": (lambda t: t[t["reader"] == "R1"], "could not be fitted: one reader"),
    "all right": (lambda t: t.assign(right=1.0), "could not be fitted: fewer than 10 right"),
    "all wrong": (lambda t: t.assign(right=0.0), "could not be fitted: fewer than 10 right"),
    "separated": (
        lambda t: t.assign(right=t["right"].where(t["generator"] != "a", 1.0)),
        "could not be fitted: at some level of an effect all answers are right",
    ),
    "no positions": (
        lambda t: t.assign(share=np.nan),
        "could not be fitted: no reader has several answers with known positions",
    ),
    "none counts": (
        lambda t: t.assign(right=np.nan),
        "could not be fitted: all answers are “uncertain” and left out",
    ),
    "one source": (lambda t: t[t["truth"] == 1], "Not in the model: source (it does not vary)"),
    "one modality": (lambda t: t[t["modality"] == "ct"], "modality (it does not vary)"),
    "experience is knowledge of AI": (
        lambda t: t.assign(years=np.where(t["prior_ai"], 12.0, 9.0)),
        "experience (it cannot be separated from prior knowledge of AI)",
    ),
    "alike in years": (
        lambda t: t.assign(years=5 + t["years"] / 10),
        "experience (1 more year",
    ),
    "a third missing": (lambda t: t.sample(frac=0.7, random_state=1), "was fitted to 224 answers"),
}


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_studies_are_answered_by_a_sentence(case):
    change, expected = AWKWARD[case]
    text = said(change(study(np.random.default_rng(9), PLANTED, readers=5, images=64)))
    assert expected in text and "nan" not in text and "None" not in text
    assert ("these 1" not in text) and ("this reader" in text) == (case == "one reader")


def test_readers_without_answers_are_not_counted_and_shares_stay_possible():
    first = study(np.random.default_rng(9), NOTHING, readers=3, images=12)
    late = first["share"] > 0.5
    table = effects.changes(first.assign(right=late.astype(float)))["drift"].set_index("measure")
    assert table.loc["accuracy over position", "estimate"] == 1 and table["low"].notna().all()
    assert table.loc["accuracy over position", "high"] == 1
    text = said(first[first["reader"] != "R2"], registered=3)
    assert "for these 2 readers" in text and "these 3" not in text


def test_a_fit_that_does_not_converge_is_none(monkeypatch):
    monkeypatch.setattr(mixed_model, "ROUNDS", 1)
    text = said(study(np.random.default_rng(9), PLANTED, readers=5, images=40))
    assert "could not be fitted: the fit did not converge within 1 rounds" in text


@pytest.mark.parametrize(("slope", "slower"), [(-1.5, -0.5), (0.0, 0.0)])
def test_drift(slope, slower):
    random, held = np.random.default_rng(7), []
    true = {"accuracy over position": slope * 0.19, "time over position": np.exp(slower)}
    for _ in range(25):
        first = study(random, NOTHING | {"position": slope}, slower=slower)
        rows = effects.changes(first)["drift"].set_index("measure")
        held.append({n: rows.loc[n, "low"] <= v <= rows.loc[n, "high"] for n, v in true.items()})
        last = {f"{n} p": rows.loc[n, "p"] < 0.05 for n in rows.index}
        held[-1] |= last
    found = pd.DataFrame(held).mean()
    print(found.to_dict())
    assert found[list(true)].min() >= 0.85
    # Where both change with the position, early answers are slower and more often right.
    assert slope or found["time of right answers p"] <= 0.15
    for name in true:
        assert found[f"{name} p"] > 0.5 if slope else found[f"{name} p"] <= 0.15


def test_time_of_right_answers_and_the_course():
    first = study(np.random.default_rng(8), NOTHING)
    first["time"] = first["time"] + 0.4 * first["right"]
    found = effects.changes(first)
    row = found["drift"].set_index("measure").loc["time of right answers"]
    assert row["low"] <= np.exp(0.4) <= row["high"] and row["p"] < 0.05
    course = found["drift_course"]
    assert list(course["fifth"]) == [1, 2, 3, 4, 5] * 2 and course["low"].notna().all()
    parts = course[course["measure"] == "accuracy"]
    own = first.groupby("reader")["right"].mean().mean()
    assert parts["estimate"].mean() == pytest.approx(own, abs=0.02)
    two = effects.changes(first[first["reader"].isin(["R1", "R2"])])
    assert two["drift"]["p"].isna().all() and two["drift"]["low"].notna().all()
    assert two["drift_course"]["low"].isna().all()
    perfect = effects.changes(first[first["reader"].isin(["R1", "R2"])].assign(right=1.0))["drift"]
    assert perfect.loc[0, "reason"] == "it is the same throughout" and pd.isna(
        perfect.loc[0, "low"]
    )
    none = drift.mean_slope(drift.slopes(first.head(4), "right", "share"), 5)
    assert "no reader has 10 answers" in none["reason"]
