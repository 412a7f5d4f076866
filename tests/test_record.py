"""The rules of reading: orders of one's own, what a record accepts, what comes out of it."""

import json
import shutil
from argparse import Namespace
from itertools import pairwise

import pytest
import reading_studies
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import protocol, protocol_tables
from helpers.reading import (
    accounts,
    messages,
    operations,
    order,
    reader_state,
    record,
    setting,
    store,
)
from helpers.reading.export import export
from helpers.runner import parameters

PICTURES = [
    {
        "blind_id": f"b{number:02d}",
        "modality": ("xray", "ct")[number % 2],
        "training": number < 4,
        "part": 0 if number < 4 else 1 + (number - 4) // 12,
    }
    for number in range(40)
]
PARAMETERS = parameters.Record(
    going_back="until next",
    seed=7,
    mixing="mixed",
    number_of_readers=1,
    reading_set="06",
)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 9),
    reader=st.text("abc", min_size=1, max_size=3),
    mixing=st.sampled_from(["mixed", "blocked"]),
)
def test_every_order_is_whole_reproducible_and_keeps_training_first_and_parts_apart(
    seed, reader, mixing
):
    found = order.reading_order(PICTURES, seed, reader, mixing)
    assert sorted(found) == [picture["blind_id"] for picture in PICTURES]
    assert found == order.reading_order(PICTURES[::-1], seed, reader, mixing)
    about = {picture["blind_id"]: picture for picture in PICTURES}
    assert [about[blind_id]["training"] for blind_id in found] == [True] * 4 + [False] * 36
    for modality in ("xray", "ct"):
        parts = [
            about[blind_id]["part"]
            for blind_id in found
            if about[blind_id]["modality"] == modality and not about[blind_id]["training"]
        ]
        assert parts == sorted(parts), "a repeat lies in a later part: its distance holds"
    if mixing == "blocked":
        kinds = [about[blind_id]["modality"] for blind_id in found[4:]]
        assert sum(a != b for a, b in pairwise(kinds)) == 1


def test_readers_and_seeds_have_different_orders():
    orders = {
        tuple(order.reading_order(PICTURES, seed, reader))
        for seed in range(3)
        for reader in "abcdef"
    }
    assert len(orders) == 18


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["id", "event", "blind_id", "payload", "browser_utc", "label"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
@settings(max_examples=200, deadline=None)
def test_anything_sent_is_cleaned_or_refused(sent):
    try:
        cleaned = messages.clean(sent)
    except store.Refused:
        return
    assert set(cleaned) == {"id", "event", "blind_id", "payload", "browser_utc"} and json.dumps(
        cleaned, allow_nan=False
    )


@given(st.text(max_size=300))
def test_text_keeps_its_words_and_loses_control_characters(text):
    message = {
        "id": "message-1",
        "event": "answered",
        "payload": {"description": text},
        "browser_utc": "2026-01-01T00:00:00.000Z",
    }
    kept = messages.clean(message, ["description"])["payload"]["description"]
    assert not protocol.CONTROL.search(kept)
    kept.encode()
    if not protocol.CONTROL.search(text):
        assert kept == text.strip()


@pytest.fixture
def opened(tmp_path):
    pictures = {
        f"b{n}": setting.BlindImage(f"b{n}", tmp_path, "xray", n == 0, 0 if n == 0 else 1, "read")
        for n in range(4)
    }
    asked = protocol_tables.build(reading_studies.questions(), [reading_studies.BLOCK], "s")
    return setting.Setting("s", parameters.Record(PARAMETERS), asked, {}, pictures, tmp_path)


@pytest.fixture
def engine(tmp_path, opened):
    engine = store.open_store(tmp_path / "readings.sqlite")
    accounts.add_reader(engine, "reader-a")
    reader_state.enter(engine, opened, "reader-a")
    yield engine
    engine.dispose()


def send(engine, opened, event, blind_id="", **payload):
    identity = f"{event}-{blind_id}-{len(store.events(engine))}-xxxx"
    message = {
        "id": identity,
        "event": event,
        "blind_id": blind_id,
        "payload": payload,
        "browser_utc": "2026-01-01T00:00:00.000Z",
    }
    return reader_state.receive(engine, opened, "reader-a", message)


def read_all(engine, opened) -> list[str]:
    send(engine, opened, "consented")
    send(engine, opened, "registered", years=4, specialty="Radiology", prior_ai=True)
    send(engine, opened, "display", steps_seen=True)
    own = reader_state.state(engine, opened, "reader-a")
    answered = []
    while own["current"]:
        send(engine, opened, "shown", own["current"])
        send(engine, opened, "answered", own["current"], label="fake", seconds=2)
        answered.append(own["current"])
        own = reader_state.state(engine, opened, "reader-a")
    return answered


def test_the_way_through_is_consent_registration_display_read_lock(engine, opened):
    with pytest.raises(store.Refused, match="Consent"):
        send(engine, opened, "registered", years=4, specialty="Radiology", prior_ai=True)
    with pytest.raises(store.Refused, match="Consent"):
        send(engine, opened, "shown", "b0")
    assert not reader_state.may_fetch(engine, opened, "reader-a", "b0"), "no image before consent"
    answered = read_all(engine, opened)
    assert answered[0] == "b0" and len(answered) == 4
    assert json.loads((opened.folder / "begun.json").read_text())["reading_set"] == "06"
    send(engine, opened, "locked")
    with pytest.raises(store.Refused, match="locked"):
        send(engine, opened, "changed", answered[-1], label="real", reason="r")
    tables = export(engine, opened)
    assert tables["readings"]["blind_id"].tolist() == answered[1:] and tables["readings"][
        "position"
    ].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("policy", "allowed"), [("never", []), ("until next", [3]), ("until locked", [0, 1, 2, 3])]
)
def test_going_back(engine, opened, policy, allowed):
    opened.parameters["going_back"] = policy
    answered = read_all(engine, opened)
    for number, blind_id in enumerate(answered):
        if number in allowed:
            send(engine, opened, "changed", blind_id, label="real", reason="looked again")
        else:
            with pytest.raises(store.Refused):
                send(engine, opened, "changed", blind_id, label="real", reason="looked again")
    send(engine, opened, "locked")
    readings = export(engine, opened)["readings"]
    assert readings["changes"].sum() == len([n for n in allowed if n > 0])
    assert (readings["seconds"] == 2).all(), "the time to the first answer stays"


def test_an_export_says_whose_answers_are_in_it(engine, opened, capsys):
    read_all(engine, opened)
    operations.export(engine, opened, Namespace(to=str(opened.folder / "out")))
    rows = {
        name: (opened.folder / f"out/{name}.csv").read_text() for name in ("readings", "events")
    }
    assert rows["readings"].count("\n") == 1, "not locked yet"
    assert "label" in rows["events"] and "events.csv holds all answers" in capsys.readouterr().out


def test_a_withdrawal_leaves_the_analysis_and_an_erasure_the_record(engine, opened):
    read_all(engine, opened)
    send(engine, opened, "locked")
    send(engine, opened, "withdrawn", reason="private")
    with pytest.raises(store.Refused, match="withdrawn"):
        send(engine, opened, "consented")
    found = export(engine, opened)
    assert (
        found["readings"].empty
        and found["readers"]["withdrawn_utc"].notna().all()
        and found["readers"]["specialty"].isna().all()
    )
    store.erase(engine, "reader-a", "asked by the reader")
    assert store.verify(engine) == []
    erased = export(engine, opened)["events"]
    assert (
        not erased["payload"].str.contains("Radiology|private").any()
        and erased["event"].iloc[-1] == "erased"
    )


def test_status_shows_progress_without_labels(engine, opened, capsys):
    read_all(engine, opened)
    operations.status(engine, opened, Namespace())
    told = capsys.readouterr().out
    assert "3 of 3" in told and "summary" in told and "fake" not in told


def test_a_host_with_nothing_but_the_reading_set_can_serve_it(study_folders, tmp_path):
    copied = shutil.copytree(
        reading_studies.make(study_folders, read=4), tmp_path / "host" / "reading_set"
    )
    with pytest.raises(setting.SettingError, match="There is no study 'elsewhere' here"):
        setting.load("elsewhere")
    for name in ("params", "outputs"):
        shutil.rmtree(study_folders / name)
    opened = setting.load("elsewhere", reading_set=copied)
    assert (
        len(opened.images) == 6
        and opened.page["title"] == "Reading test"
        and opened.parameters.going_back == "until next"
    )
    with pytest.raises(setting.SettingError, match="run 06 first, or copy"):
        setting.load("elsewhere")
    (copied / "images" / "b000000000000001.png").unlink()
    with pytest.raises(setting.SettingError, match="row 2"):
        setting.load("elsewhere", reading_set=copied)


def test_a_record_kept_in_memory_follows_what_others_write(study_folders):
    reading_studies.make(study_folders, read=4, training=0, going_back="until locked")
    opened = setting.load(reading_studies.STUDY)
    here, there = store.open_store(opened.store_place), store.open_store(opened.store_place)
    accounts.add_reader(here, "r")
    reader_state.enter(here, opened, "r")

    def send(engine, event: str, blind_id: str = "", **payload) -> dict:
        message = {
            "id": f"{event}-{blind_id}-message",
            "event": event,
            "blind_id": blind_id,
            "payload": payload,
        }
        return reader_state.receive(
            engine, opened, "r", message | {"browser_utc": "2026-01-01T00:00:00.000Z"}
        )

    send(here, "consented")
    send(there, "registered", years=4, specialty="secret words", prior_ai=False)
    order = reader_state.read_record(here, "r").order
    send(there, "answered", order[0], label="real")
    send(here, "answered", order[1], label="fake")
    send(there, "changed", order[1], label="real", reason="looked again")
    for engine in (here, there):
        assert reader_state.read_record(engine, "r") == record.fold(store.events(engine, "r"))
    with pytest.raises(store.Refused):
        send(here, "answered", order[0], label="fake", seconds=1)
    store.erase(there, "r", "asked")
    kept = reader_state.read_record(here, "r")
    assert kept.erased and "secret words" not in str(reader_state.read_record(here, "r"))
    here.dispose()
    there.dispose()
