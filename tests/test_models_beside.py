"""Models in the report: beside the readers, never among them."""

import asyncio
import copy
import html
import json
import re

import chat_server
import numpy as np
import pandas as pd
import pytest
import reading_studies
import test_model_readers as asked_models
import test_report

from helpers.analyse_readings import joined, model_readers, report, results
from helpers.ask_models import recording
from helpers.assemble_reading_set import seal
from helpers.runner import folders, parameters, runs
from helpers.statistics import comparisons, roc_areas

STUDY = reading_studies.STUDY


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """A study of six readers, analysed, and then two readings of a model beside it."""
    with pytest.MonkeyPatch.context() as patch:
        reading_studies.use(tmp_path_factory.mktemp("beside"), patch.setenv)
        patch.setenv("OPENAI_API_KEY", "sk-test-beside")
        folder = asked_models.made(read=40)
        finished_model()
        key = seal.unseal(folder, folder.parent / "sealed", STUDY, {}, "an early look by the test")
        prompts = "p" + pd.Series(range(len(key)), index=key.index).mod(9).astype(str)
        yield analyse(key.assign(prompt_id=prompts.where(key["origin"] == "generated")))


def finished_model():
    """A finished run of 07_ask_models: mostly one answer, refused once."""

    def decide(number, picture):
        return "refusal" if number == 5 else "" if number % 3 else "fenced"

    with chat_server.chat(decide) as server:
        values = {"base_url": server.url, "repeats": 2, "label": "Model", "in_flight": 1}
        run, record, reading = asked_models.opened(**values)
        asyncio.run(recording.read(record, reading))
        found = recording.tables_of(record, reading.opened, reading)
        recording.finish(run, found, reading.ledger.spent_usd)


def analyse(key):
    random = np.random.default_rng(5)
    shown = key[~key["training"].astype(bool)]
    rows, people = [], []
    for number in range(6):
        for position, image in enumerate(shown.to_dict("records"), 1):
            right = {"real": "real", "generated": "fake"}[image["origin"]]
            label = right if random.random() < 0.7 else random.choice(["real", "fake", "uncertain"])
            row = {"reader_id": f"p{number}", "blind_id": image["blind_id"], "position": position}
            row |= {"label": label, "confidence": int(random.integers(1, 4)), "changes": 0}
            rows.append(row | {"seconds": 9.0, "block": "read"})
        person = {"reader_id": f"p{number}", "years": 5.0 + number, "prior_ai": number % 2 == 0}
        person |= {"locked_utc": "2026-01-02T00:00:00.000Z", "simulated": False}
        people.append(person | {"withdrawn_utc": None, "specialty": "Radiology"})
    readings, readers = pd.DataFrame(rows), pd.DataFrame(people)
    for column in ("description", "findings", "side", "cues", "poor_quality"):
        readings[column] = None
    declared = parameters.schema(folders.NOTEBOOKS / "08_analyse_readings.ipynb")
    values = {k: p.default for k, p in declared.items() if k not in ("study", "variant")}
    values |= test_report.FAST | {"models": ["07_ask_models"]}
    run = runs.Run(STUDY, "08_analyse_readings", values, {"simulated": []})
    run.folder.mkdir(parents=True)
    asked = (run.parameters, key, readings, readers)
    found, frames = results.analyse(*asked)
    kept = copy.deepcopy((found, {name: frame.copy() for name, frame in frames.items()}))
    set_run = runs.load(STUDY, reading_studies.SET)
    beside, more = model_readers.analyse(run, set_run, key, found, frames, "read")
    return run, found, frames, kept, beside, more


def test_the_numbers_of_people_do_not_change_by_a_digit(analysed):
    _, found, frames, (found_before, frames_before), beside, more = analysed
    assert results.as_json(found) == results.as_json(found_before)
    for name, frame in frames.items():
        pd.testing.assert_frame_equal(frame, frames_before[name])
    assert set(beside) == {"models"} and not beside.keys() & found.keys()
    assert not more.keys() & frames.keys()
    pages = [
        report.render(part, test_report.CONTEXT, {}).decode() for part in (found, found | beside)
    ]
    alone, both = (re.sub(r"\s+", " ", page) for page in pages)
    section = both.index('<h2 id="Models-beside-the-readers">')
    both = both[:section] + both[both.index("<h2", section + 1) :]
    both = re.sub(r"<p>Models\. .*?</p>", "", both)
    both = both.replace('<a href="#Models-beside-the-readers">Models beside the readers</a>', "")
    assert re.sub(r"\s+", "", both) == re.sub(r"\s+", "", alone)


def test_the_report_says_that_a_model_is_simulated(analysed):
    run = runs.Run(STUDY, "08_analyse_readings", analysed[0].values, {"simulated": []})
    model = run.folder.parent / "07_ask_models" / "manifest.json"
    before = model.read_text()
    model.write_text(json.dumps(json.loads(before) | {"simulated": ["model readers"]}))
    set_run, reading = runs.load(STUDY, reading_studies.SET), runs.Run(STUDY, "07_read_cases", {})
    told = report.context(run, set_run, reading, {"history": []})
    model.write_text(before)
    assert told["simulated"] == ["model readers"]


def test_the_report_says_that_a_model_was_not_asked_as_planned(analysed):
    run = runs.Run(STUDY, "08_analyse_readings", analysed[0].values, {"simulated": []})
    set_run, reading = runs.load(STUDY, reading_studies.SET), runs.Run(STUDY, "07_read_cases", {})
    model = run.folder.parent / "07_ask_models" / "manifest.json"
    before = model.read_text()
    asked = json.loads(before)
    asked["parameters"] |= {"longest_answer": 7}  # as SET= would do
    model.write_text(json.dumps(asked))
    told = report.context(run, set_run, reading, {"history": []})
    model.write_text(before)
    assert "longest_answer of 07_ask_models was 2000 and is 7" in told["plan_changes"]


def test_a_model_has_rows_of_its_own_with_everything(analysed):
    run, found, _, _, beside, more = analysed
    told = beside["models"]
    names = ["Model, reading 1", "Model, reading 2"]
    assert [row["reader"] for row in told["readings"]] == names
    assert told["readings"][0]["missing"] + told["readings"][1]["missing"] == 1
    assert "refused (1)" in [row["reasons"] for row in told["readings"]]
    others = {row["other"] for row in told["agreement"]}
    assert others == {"R1", "R2", "R3", "R4", "R5", "R6", "majority"}
    for row in told["differences"]:
        assert row["low"] < row["estimate"] < row["high"]
        assert row["general_low"] < row["low"] + 0.2 and row["general_high"] is not None
        assert row["estimate"] == pytest.approx(row["model"] - row["readers_mean"], abs=0.02)
    assert {row["over"] for row in told["consistency"]} >= {"readings of the set"}
    page = report.render(found | beside, test_report.CONTEXT, {}).decode()
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    assert "They are not readers" in text and "#6A3D9A" in page
    assert not re.search(r"\bnan\b|\bNone\b(?! of \d)", text)
    json.loads(results.as_json(found | beside))
    for name, frame in more.items():
        run.write(f"tables/{name}.csv", frame)
    assert model_readers.draw(run, found | beside)["models"].axes[0].get_xlabel() == "accuracy"


def test_a_model_is_refused_among_people(analysed):
    folder = folders.outputs_folder(STUDY)
    with pytest.raises(joined.AnalysisError, match="runs of models in `models`"):
        joined.read_answers(folder / "07_ask_models", folder / reading_studies.SET / "reading_set")


def test_a_model_that_read_after_the_key_was_opened_is_refused(analysed):
    run = analysed[0]
    set_run = runs.load(STUDY, reading_studies.SET)
    log = set_run.folder / "sealed" / seal.OPENINGS
    before = log.read_text()
    entry = json.loads(before.splitlines()[0]) | {"utc": "2026-01-01T00:00:00.000Z"}
    log.write_text(json.dumps(entry) + "\n")
    key = pd.DataFrame({"block": []})
    try:
        with pytest.raises(joined.AnalysisError, match="had not locked"):
            model_readers._answers(run, set_run, key, "read")
    finally:
        log.write_text(before)


def test_the_majority_is_what_more_readers_say_than_anything_else():
    labels = pd.DataFrame(
        {"R1": ["real", "fake", None], "R2": ["real", "real", None], "R3": ["fake", None, "fake"]}
    )
    assert model_readers.majority(labels).fillna("none").tolist() == ["real", "none", "fake"]


def simulated(random, readers=6, images=60):
    truth = np.arange(images) % 2
    shared = random.normal(size=images)
    scores = truth[:, None] * 1.0 + 0.6 * shared[:, None] + random.normal(size=(images, readers))
    return truth, pd.DataFrame(scores), truth + 0.6 * shared + random.normal(size=images)


def test_a_difference_is_that_of_each_reader_averaged():
    truth, scores, model = simulated(np.random.default_rng(1))
    found = comparisons.model_area(scores, truth, model)
    both = np.column_stack([model, scores])[:, None]
    areas, matrix, _ = roc_areas.areas(both, truth, np.arange(len(truth)))
    assert found["estimate"] == pytest.approx((areas[0, 0] - areas[0, 1:]).mean())
    alone = comparisons.model_area(scores[[0]], truth, model)
    half = (alone["high"] - alone["low"]) / 2
    se = np.sqrt(matrix[0, 0, 0] + matrix[0, 1, 1] - 2 * matrix[0, 0, 1])
    assert half / se == pytest.approx(1.96, rel=0.05)
    right = (scores > 0.5).astype(float).eq(truth, axis=0).astype(float)
    own = pd.Series((model > 0.5).astype(float) == truth).astype(float)
    right.iloc[3, 2] = own[7] = np.nan
    found = comparisons.model_accuracy(right, own)
    wanted = np.mean([(own - right[reader]).mean() for reader in right])
    assert found["estimate"] == pytest.approx(wanted)


@pytest.mark.soak
def test_the_intervals_cover_what_they_should():
    random, inside = np.random.default_rng(2), []
    for _ in range(1500):
        truth, scores, model = simulated(random)
        found = comparisons.model_area(scores, truth, model)
        inside.append(found["general_low"] <= 0 <= found["general_high"])
    assert 0.925 <= np.mean(inside) <= 0.985
