"""Simulated readers answer through the store, resume after a kill, and end in the tables of stage
07.
"""

import random
import sqlite3
from contextlib import closing

import pandas as pd
import pytest
import reading_studies

from helpers import protocol_tables, study, tables
from helpers.analyse_readings import joined
from helpers.findings import FINDINGS
from helpers.reading import accounts, export, reader_state, record, setting, store
from helpers.rehearsal import readers
from helpers.runner import folders, parameters, runs, status
from helpers.runner.parameters import Record

GAPS = {"simulated_quality_gap": 0.5, "simulated_informed_gap": 0.3}
QUESTIONS = protocol_tables.build(
    reading_studies.questions(), [reading_studies.BLOCK], "s"
).questions_of("read")


@pytest.fixture
def opened(study_folders):
    reading_studies.make(
        study_folders, read=24, readers="simulated", confidence="6-step", cues_asked=True
    )
    return begin()


def reading_set():
    return folders.outputs_folder(reading_studies.STUDY) / reading_studies.SET / "reading_set"


def begin() -> runs.Run:
    given = parameters.read_yaml(
        folders.params_folder(reading_studies.STUDY) / "07_read_cases.yaml"
    )
    values = {
        key: p.default
        for key, p in parameters.schema(setting.NOTEBOOK).items()
        if key not in ("study", "variant")
    } | given
    return runs.begin(reading_studies.STUDY, "07_read_cases", values)


def test_simulated_readers_read_everything_and_lock(opened):
    assert study.collect(opened) == ""
    readings, people, events = (
        opened.read(f"{name}.csv") for name in ("readings", "readers", "events")
    )
    assert readings.groupby("reader_id").size().to_dict() == {"simulated-1": 24, "simulated-2": 24}
    assert (
        people["simulated"].all()
        and people["locked_utc"].notna().all()
        and people["prior_ai"].tolist() == [False, True]
    )
    assert readings["confidence"].between(1, 6).all() and readings["description"].notna().all()
    assert opened.simulated == ["readers"] and (opened.folder / "begun.json").exists()
    assert len(joined.read_answers(opened.folder, reading_set())["readings"]) == 48, (
        "notebook 08 takes them as they are"
    )
    events.loc[3, "payload"] = events.loc[3, "payload"].replace("true", "false")
    tables.write(events, opened.folder / "events.csv")
    with pytest.raises(joined.AnalysisError, match="events.csv differs from what the store wrote"):
        joined.read_answers(opened.folder, reading_set())


def test_an_interrupted_rehearsal_ends_in_the_same_record(opened, tmp_path, monkeypatch):
    study.collect(opened)
    undisturbed = pd.read_csv(opened.folder / "events.csv")
    opened.release()
    monkeypatch.setenv("OUTPUTS", str(tmp_path / "again"))
    (tmp_path / "again").mkdir()
    (tmp_path / "outputs" / reading_studies.STUDY / reading_studies.SET).rename(tmp_path / "moved")
    (tmp_path / "again" / reading_studies.STUDY).mkdir()
    (tmp_path / "moved").rename(tmp_path / "again" / reading_studies.STUDY / reading_studies.SET)
    real, calls = store.append, []

    def killed(*arguments, **named):
        calls.append(1)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(store, "append", killed)
    run = begin()
    with pytest.raises(KeyboardInterrupt):
        study.collect(run)
    run.release()
    monkeypatch.setattr(store, "append", real)
    run = begin()
    assert study.collect(run) == ""
    pd.testing.assert_frame_equal(pd.read_csv(run.folder / "events.csv"), undisturbed)


def test_stated_accuracy_is_what_comes_out():
    asked = {
        "seed": 1,
        "simulated_sensitivity": 0.7,
        "simulated_specificity": 0.8,
        "simulated_uncertain": 0.2,
        "simulated_ai_gain": 0.5,
    }
    asked = Record(asked | {"simulated_learning": 0.0, "simulated_noticed": 0.0} | GAPS)
    for knows_ai, origin, right in (
        (False, "generated", 0.7),
        (False, "real", 0.8),
        (True, "generated", 0.85),
    ):
        truths = [{"blind_id": f"b{n}", "origin": origin, "finding": "nodule"} for n in range(3000)]
        labels = [
            readers.Person("r", knows_ai, asked).answer(truth, QUESTIONS)["label"]
            for truth in truths
        ]
        decided = [label for label in labels if label != "uncertain"]
        assert decided.count("fake" if origin == "generated" else "real") / len(
            decided
        ) == pytest.approx(right, abs=0.04)
        assert 1 - len(decided) / 3000 == pytest.approx(0.2 * (0.6 if knows_ai else 1), abs=0.03)


def test_people_are_waited_for(opened):
    opened.parameters["readers"] = "people"
    assert "make reader STUDY=reading_test" in study.collect(opened)
    engine = store.open_store(opened.folder / "readings.sqlite")
    accounts.add_reader(engine, "reader-x")
    assert study.collect(opened).startswith(
        "reader-x has 24 of 24 images left; 1 more reader must be added"
    )


def test_verify_says_how_a_record_was_used_after_its_run_finished(opened, capsys):
    def verified():
        return status.verify(opened.study, export.added_since), capsys.readouterr().out

    study.collect(opened)
    opened.finish()
    assert "used later" not in verified()[1]
    record = opened.folder / "readings.sqlite"
    engine = store.open_store(record)
    accounts.new_code(engine, accounts.readers(engine)[0]["reader_id"], 1)  # adds no event
    engine.dispose()
    before = record.read_bytes()
    good, told = verified()
    assert good and "(readings.sqlite was used later: 0 events added, all events of" in told
    assert record.read_bytes() == before
    with closing(sqlite3.connect(record)) as changed:
        for (name,) in changed.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            changed.execute(f"DROP TRIGGER {name}")
        changed.execute("UPDATE payloads SET payload = replace(payload, 'fake', 'real')")
        changed.commit()
    good, told = verified()
    assert not good and "readings.sqlite has changed" in told


def test_formulas_are_inert_in_csv():
    assert [export.spreadsheet_safe(text) for text in ("=1+1", "+a", "@x", "nodule")] == [
        "'=1+1",
        "'+a",
        "'@x",
        "nodule",
    ]


def test_when_people_have_locked_the_study_goes_on(opened):
    opened.parameters.update(readers="people", number_of_readers=1)
    reading = setting.load(reading_studies.STUDY, values=opened.parameters)
    engine = store.open_store(opened.folder / "readings.sqlite")
    accounts.add_reader(engine, "reader-x")
    reader_state.enter(engine, reading, "reader-x")

    def send(event: str, blind_id: str = "", to: str = "reader-x", **payload) -> None:
        message = {
            "id": f"{event}-{blind_id}-message",
            "event": event,
            "blind_id": blind_id,
            "payload": payload,
        }
        reader_state.receive(
            engine, reading, to, message | {"browser_utc": "2026-01-01T00:00:00.000Z"}
        )

    send("consented")
    send("registered", years=4, specialty="Radiology", prior_ai=False)
    for blind_id in record.fold(store.events(engine, "reader-x")).order:
        send("answered", blind_id, label="uncertain", confidence=1, seconds=3.5)
    assert (
        study.collect(opened)
        == "reader-x has to lock the answers: `make reader STUDY=reading_test` serves the page;"
        " then run the study again."
    )
    send("locked")
    assert study.collect(opened) == ""
    accounts.add_reader(engine, "reader-y")
    reader_state.enter(engine, reading, "reader-y")
    send("consented", to="reader-y")
    send("withdrawn", to="reader-y")
    store.erase(engine, "reader-y", "asked")
    assert study.collect(opened) == "", "nobody waits for a reader whose record was erased"
    assert (opened.read("readings.csv")["label"] == "uncertain").all() and not opened.read(
        "readers.csv"
    )["simulated"].any()
    assert opened.simulated == []
    assert len(joined.read_answers(opened.folder, reading_set())["readings"]) == 24


def test_hidden_repeats_are_mostly_answered_alike():
    asked = {
        "seed": 1,
        "simulated_sensitivity": 0.6,
        "simulated_specificity": 0.7,
        "simulated_uncertain": 0.2,
        "simulated_ai_gain": 0.0,
    }
    asked = Record(asked | {"simulated_learning": 0.0, "simulated_noticed": 0.0} | GAPS)
    person = readers.Person("r", False, asked)
    first = [
        {"blind_id": f"b{n}", "origin": "generated", "finding": "nodule", "repeat_of": ""}
        for n in range(2000)
    ]
    again = [
        truth | {"blind_id": f"r{n}", "repeat_of": truth["blind_id"]}
        for n, truth in enumerate(first)
    ]
    alike = [
        person.answer(a, QUESTIONS)["label"] == person.answer(b, QUESTIONS)["label"]
        for a, b in zip(first, again)
    ]
    assert 0.75 < sum(alike) / 2000 < 0.95


def test_an_image_with_several_findings_is_given_each_once():
    truth = {"finding": "effusion|pleural_thickening|consolidation|infiltrates"}
    for seed in range(200):
        seen, _ = readers._seen(truth, FINDINGS, random.Random(seed))
        assert len(seen) == len(set(seen)), seen
