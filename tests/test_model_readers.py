"""A model reads a blinded set: real record, real client, a strict server of its own."""

import asyncio
import functools
import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter

import chat_server
import faulty_service
import pandas as pd
import pytest
import reading_studies
import yaml
from other_services import serving

from helpers import files, images, licences, protocol_tables, tables
from helpers.ask_models import asking, model_service, recording, replies
from helpers.assemble_reading_set import seal
from helpers.reading import store
from helpers.rehearsal import model_api
from helpers.runner import folders, parameters, run_folder, runs
from helpers.services import connection, retry_policy

STUDY, SET = reading_studies.STUDY, reading_studies.SET
TOLD = "Read each image by itself. Answer in JSON."
FREE = {"provider": "local", "model": "m-1", "price_image": 0.0, "in_flight": 4}
PAID = FREE | {"price_image": -1.0, "price_input": 2.0, "price_output": 8.0}
BLOCKS = [reading_studies.BLOCK]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    reading_studies.use(tmp_path, monkeypatch.setenv)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-model-readers")
    monkeypatch.setattr(retry_policy, "FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def place():
    return made()


def made(read=8, **options):
    options = {"confidence": "3-step", "cues_asked": True} | options
    folder = reading_studies.make(folders.params_folder(STUDY).parent, read=read, **options)
    (folders.params_folder(STUDY) / "model_instructions.txt").write_text(f"{TOLD}\n")
    return folder


def run_of(name="07_ask_models", **values):
    declared = parameters.schema(folders.NOTEBOOKS / "07_ask_models.ipynb")
    defaults = {k: p.default for k, p in declared.items() if k not in ("study", "variant")}
    assert not values.keys() - declared.keys()
    return runs.begin(STUDY, name, defaults | values)


def opened(**values):
    """Everything that the notebook prepares: run, record, reading."""
    run = run_of(**FREE | values)
    set_run = run.reads(SET)
    given = recording.open_set(run, set_run)
    told = recording.instructions(run, given)
    commitment = seal.read_commitment(set_run.folder / "reading_set")["commitment"]
    about = asking.settings(run, told, commitment)
    record, orders = recording.open_record(run, given, about)
    service = model_service.of(run)
    model_service.refuse_to_send(service, set_run)
    wanted = asking.orders(given, orders, about["sha256"])
    return run, record, asking.ModelReading(run, service, given, told, wanted)


def read(**values):
    """A whole run; returns its tables, with the ledger."""
    run, record, reading = opened(**values)
    try:
        asyncio.run(recording.read(record, reading))
    finally:
        run.release()
    found = recording.tables_of(record, reading.opened, reading)
    record.dispose()
    return found | {"ledger": reading.ledger.frame()}


def test_every_image_is_read_once_in_an_order_of_its_own(place):
    with chat_server.chat() as server:
        found = read(base_url=server.url, repeats=3)
    shown = set(tables.read(place / "reading_set.csv").query("not training")["blind_id"])
    orders = {
        name: tuple(rows.sort_values("position")["blind_id"])
        for name, rows in found["readings"].groupby("reader_id")
    }
    assert list(orders) == ["m-1-1", "m-1-2", "m-1-3"]
    assert all(set(order) == shown for order in orders.values())
    assert len(set(orders.values())) == 3
    assert Counter(server.images) == Counter(dict.fromkeys(server.images, 3))
    assert found["readings"]["label"].eq("fake").all()
    model = found["models"].iloc[0]
    assert (model["kind"], model["model"], model["answered_by"]) == ("model", "m-1", "m-2026-01-01")
    assert (
        found["readers"]["kind"].eq("model").all() and found["readers"]["locked_utc"].notna().all()
    )
    begun = json.loads(found["events"].query("event == 'assigned'")["payload"].iloc[0])
    assert begun["kind"] == "model" and begun["instructions_sha256"] == model["instructions_sha256"]
    path = folders.params_folder(STUDY) / "model_instructions.txt"
    assert model["instructions_sha256"] == files.sha256(path), "as in the sealed plan"


def test_the_record_is_the_one_of_people_and_shows_a_change(place):
    with chat_server.chat() as server:
        run, record, reading = opened(base_url=server.url)
        asyncio.run(asking.read(reading))
        recording.enter(record, reading)
    recording.enter(record, reading)  # again: nothing twice
    kept = store.events(record, "m-1-1")
    assert [event.event for event in kept] == ["assigned", *["answered"] * 8, "locked"]
    assert store.verify(record) == []
    with record.begin() as connection_:
        for trigger in ("no_update_of_payloads",):
            connection_.exec_driver_sql(f"DROP TRIGGER {trigger}")
        connection_.exec_driver_sql(
            "UPDATE payloads SET payload = replace(payload, 'fake', 'real') WHERE sequence = 3"
        )
    with pytest.raises(store.StoreError, match="does not verify"):
        recording.tables_of(record, reading.opened, reading)
    run.release()


def test_the_manifest_has_the_hash_of_the_whole_record(place):
    with chat_server.chat() as server:
        run, record, reading = opened(base_url=server.url)
        asyncio.run(recording.read(record, reading))
    found = recording.tables_of(record, reading.opened, reading)
    recording.finish(run, found, reading.ledger.spent_usd)  # while the record is still open
    record.dispose()
    assert run_folder.differing(run.folder, run.manifest) == []
    run, record, reading = opened(base_url=server.url)  # looking at it changes nothing
    assert run.finished
    record.dispose()
    assert run_folder.differing(run.folder, run.manifest) == []


LEFT_OUT = ["refusal", "filter", "sorry", "blocked", "long", "prose", "other", "lacking", "empty"]


@pytest.mark.parametrize("kind", [*LEFT_OUT, "blank"])
def test_a_refusal_or_nonsense_is_a_missing_answer_with_its_reason(place, kind):
    bad = images.write_png(images.eight_bits(images.read_png(picture_of(place, 3)), 12))

    def decide(number, picture):
        return kind if picture == bad else ""

    with chat_server.chat(decide) as server:
        found = read(base_url=server.url, ask_again=1)
    missing = found["missing_answers"]
    assert len(found["readings"]) == 7 and len(missing) == 1
    assert missing["blind_id"].tolist() == [name_of(place, 3)]
    assert missing["reason"].str.len().gt(4).all()
    assert found["models"]["missing"].tolist() == [1]
    asked = sum(picture == bad for picture in server.images)
    assert asked == (1 if kind in ("refusal", "filter", "sorry", "blocked") else 2)


def scored(place):
    return tables.read(place / "reading_set.csv").query("not training").sort_values("blind_id")


def name_of(place, number):
    return scored(place)["blind_id"].iloc[number]


def picture_of(place, number):
    return place / scored(place)["path"].iloc[number]


@pytest.mark.parametrize("kind", ["429", "500", chat_server.CUT, "fenced"])
def test_trouble_that_passes_loses_nothing(place, kind):
    with chat_server.chat(lambda number, _: kind if number % 3 == 1 else "") as server:
        found = read(base_url=server.url, ask_again=6)
    assert len(found["readings"]) == 8 and found["missing_answers"].empty
    unknown = (found["ledger"]["status"] == "unknown").sum()
    assert (unknown > 0) == (kind == chat_server.CUT)
    assert len(found["ledger"]) == len(server.raw)


def test_a_silent_service_is_given_up_and_what_came_is_kept(place):
    with chat_server.chat(seconds=0.4) as server, pytest.raises(connection.ServiceError):
        read(base_url=server.url, timeout_seconds=0.1, ask_again=0, tries=1)
    with chat_server.chat() as server:
        found = read(base_url=server.url)
    assert len(found["readings"]) == 8


def test_a_model_that_only_talks_nonsense_is_stopped_early(place):
    says = pytest.raises(connection.ServiceError, match="several different images .* JSON")
    with chat_server.chat(lambda *_: "prose") as server, says:
        read(base_url=server.url)
    assert len(server.raw) <= 8


def test_no_money_left_stops_and_goes_on_later(place):
    says = pytest.raises(connection.ServiceError, match="add credit")
    with chat_server.chat(lambda number, _: "quota" if number >= 3 else "") as server, says:
        read(base_url=server.url, in_flight=1)
    run, record, reading = opened(base_url=server.url, in_flight=1)
    run.release()
    assert reading.open == 5
    assert len(store.events(record, "m-1-1")) == 4  # its order, and three answers
    with chat_server.chat() as server:
        assert len(read(base_url=server.url, in_flight=1)["readings"]) == 8
    assert len(server.raw) == 5


def test_the_budget_is_a_hard_stop(place):
    each = (900 * 2.0 + 60 * 8.0) / 1e6
    leaving = {"base_url": "http://127.0.0.1:9", **PAID, "longest_answer": 60}
    allow_all(place)
    with chat_server.chat() as server:
        values = leaving | {"base_url": server.url, "budget_usd": 4.5 * each, "in_flight": 1}
        with pytest.raises(connection.ServiceError, match="budget"):
            read(**values, approval="protocol 3", may_leave=["01_prepare_cases"])
    assert 1 <= len(server.billed) <= 4


# --- what is sent


def test_what_is_sent_holds_no_name_no_truth_and_no_metadata(place):
    with chat_server.chat() as server:
        found = read(base_url=server.url, repeats=2)
    key = seal.unseal(place, place.parent / "sealed", STUDY, {}, "the test looks for the truth")
    secret = {*key["blind_id"], *key["image_id"], *tables.read(place / "reading_set.csv")["path"]}
    secret |= {"a model", STUDY, "m-1-1", "m-1-2", SET, "generated", "origin", "training", "repeat"}
    secret |= {*found["ledger"]["image_id"], str(place), os.uname().nodename}
    secret |= {*tables.read(place / "reading_set.csv")["checksum"]}
    assert len(server.raw) == 16
    for raw in server.raw:
        head, _, _ = raw.partition(b"data:image/png;base64,")
        text = raw.decode("latin-1").lower()
        for word in secret:
            where = text if len(word) > 5 else head.decode("latin-1").lower()
            assert word.lower() not in where.replace("real or generated", ""), word
    for body in server.bodies:
        assert sum(isinstance(message["content"], list) for message in body["messages"]) == 1
        assert body["messages"][0] == {"role": "system", "content": TOLD}
    # Of two readings of one image, everything is the same: the order leaves no trace.
    same = {}
    for picture, body in zip(server.images, server.bodies):
        same.setdefault(picture, set()).add(json.dumps(body, sort_keys=True))
    assert all(len(bodies) == 1 for bodies in same.values())


def test_the_image_is_the_one_that_readers_see_first(place):
    with chat_server.chat() as server:
        read(base_url=server.url)
    wanted = {
        images.write_png(images.eight_bits(images.read_png(place / path), 12))
        for path in scored(place)["path"]
    }
    assert set(server.images) == wanted


def test_a_memory_sends_the_earlier_images_and_answers_of_the_block(place):
    with chat_server.chat() as server:
        found = read(base_url=server.url, memory=2)
    order = found["readings"].sort_values("position")["blind_id"].tolist()
    assert len(order) == 8
    turns = [
        [m["role"] for m in body["messages"] if m["role"] != "system"] for body in server.bodies
    ]
    assert [len(turn) for turn in turns] == [1, 3, 5, 5, 5, 5, 5, 5]
    assert json.loads(server.bodies[-1]["messages"][2]["content"])["label"] == "fake"


def test_texts_of_a_later_block_are_not_told_earlier():
    first = reading_studies.BLOCK | {"block": "first", "title": "A first look", "images": "one"}
    told = {"block": "told", "order": 2, "title": "Now you know", "instructions": "Half are fakes."}
    second = reading_studies.BLOCK | {"block": "second", "order": 3, "title": "A second look"}
    second |= {"images": "two"}
    made(read=3, blocks=[first, told, second])
    with chat_server.chat() as server:
        read(base_url=server.url)
    told = [body["messages"][-1]["content"][0]["text"] for body in server.bodies]
    assert sum("A first look" in text for text in told) == 3
    assert not any("Half are fakes" in text for text in told if "A first look" in text)
    assert all("Half are fakes" in text for text in told if "A second look" in text)


def test_instructions_must_not_tell_an_unaware_block(place):
    blocks = [reading_studies.BLOCK | {"unaware": "true"}]
    given = protocol_tables.build(reading_studies.questions(), blocks, "here")
    run = run_of(**FREE)
    setting = recording.open_set(run, run.reads(SET))
    (folders.params_folder(STUDY) / "model_instructions.txt").write_text("Some are generated.")
    object.__setattr__(setting, "protocol", given)
    with pytest.raises(connection.ServiceError, match="'generated'"):
        recording.instructions(run, setting)
    run.release()


# --- answers


QUESTIONS = [
    {"id": "label", "text": "It is", "kind": "choice", "options": "real=Real|fake=Fake"},
    {"id": "why", "text": "Why?", "kind": "text", "required": "true", "shown_when": "label=fake"},
    {"id": "sure", "text": "Sure?", "kind": "scale", "options": "Low|High", "required": "true"},
    {"id": "cues", "text": "Cues", "kind": "choices", "options": "a=A|b=B"},
    {"id": "unusual", "text": "Unusual?", "kind": "yes/no"},
    {"id": "size", "text": "Size", "kind": "number"},
]


def asked():
    rows = [QUESTIONS[0] | {"required": "true"}, *QUESTIONS[1:]]
    return protocol_tables.build(rows, BLOCKS, "here").questions_of("read")


def test_the_schema_follows_the_questions():
    schema = replies.schema(asked())
    chat_server.check_schema(schema)
    fields = schema["properties"]
    assert fields["label"] == {"type": "string", "description": "It is", "enum": ["real", "fake"]}
    assert fields["why"]["type"] == ["string", "null"]
    assert fields["sure"]["enum"] == [1, 2] and fields["sure"]["type"] == "integer"
    assert fields["cues"]["items"]["enum"] == ["a", "b"]
    assert fields["unusual"]["type"] == ["boolean", "null"]


@pytest.mark.parametrize(
    ("said", "given"),
    [
        ({"label": "real", "sure": 2}, {"label": "real", "sure": 2}),
        ({"label": "real", "sure": 2.0, "why": "x"}, {"label": "real", "sure": 2}),
        ({"label": "fake", "sure": 1, "why": " a\x00b ", "more": 1}, {"why": "a b"}),
        ({"label": "real", "sure": 1, "cues": ["a"], "size": 3.5}, {"cues": ["a"], "size": 3.5}),
        ({"label": "fake", "sure": 1}, None),
        ({"label": "real", "sure": 3}, None),
        ({"label": "real", "sure": True}, None),
        ({"label": "real", "sure": "2"}, None),
        ({"label": "real", "sure": 1, "cues": ["a", "a"]}, None),
        ({"label": ["real"], "sure": 1}, None),
        ([1], None),
        ({"label": "Real", "sure": 1}, {"label": "real"}),
        ({"label": "REAL", "sure": 1, "cues": ["B", "a"]}, {"label": "real", "cues": ["b", "a"]}),
        ({"label": "Real!", "sure": 1}, None),
        ({"label": "real", "sure": float("nan")}, None),
    ],
)
def test_an_answer_is_checked_against_the_questions(said, given):
    if given is None:
        with pytest.raises(connection.Unusable):
            replies.answers(json.dumps(said), asked())
    else:
        found = replies.answers(json.dumps(said), asked())
        assert given.items() <= found.items() and "more" not in found


RIGHT = '{"label": "real", "sure": 2}'


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{RIGHT}\n```",
        f"<think>The set {{x}} is odd.</think>{RIGHT}",
        f"{RIGHT}\nNote: {{none}}",
        f'{{"label": "fake", "sure": 1}} No, I was wrong: {RIGHT}',
        f'{RIGHT} {{"tokens": 3}}',
        f'{{"a": {{"b": 1}}}}{RIGHT}',
    ],
)
def test_the_answer_is_found_among_thoughts(text):
    assert replies.answers(text, asked()) == {"label": "real", "sure": 2}


@pytest.mark.parametrize("text", ["I’m unable to assist.", "I'm not able to read X-rays."])
def test_a_refusal_in_short_is_one(text):
    with pytest.raises(connection.Unusable) as refused:
        replies.answers(text, asked())
    assert refused.value.action == "refused"


@pytest.mark.parametrize("name", ["m\ud800", "m\x00", "m" * 5000])
def test_whatever_a_server_calls_its_model_the_answers_are_kept(place, monkeypatch, name):
    answer = chat_server.completion(json.dumps(chat_server.ANSWER), model=name)
    monkeypatch.setitem(chat_server.ANSWERS, "odd", lambda: (200, answer))
    with chat_server.chat(lambda number, picture: "odd") as server:
        found = read(base_url=server.url)
    assert found["models"]["answered"].item() == 8
    said = found["models"]["answered_by"].item()
    assert said.startswith("m") and said.isprintable() and len(said) <= 200


@pytest.mark.parametrize(
    "values",
    [
        *({"temperature": text} for text in ("warm", "0,2", "nan", "-1")),
        *({"repeats": 0}, {"repeats": -1}, {"memory": -1}),
    ],
)
def test_a_setting_that_cannot_be_one_is_refused_before_anything_is_sent(place, values):
    with (
        chat_server.chat() as server,
        pytest.raises(connection.ServiceError, match=f"{min(values)} must be|memory 0 or more"),
    ):
        read(base_url=server.url, **values)
    assert not server.raw


def test_instructions_saved_by_another_editor(place):
    path = folders.params_folder(STUDY) / "model_instructions.txt"
    path.write_bytes(f"{TOLD}\r\n".encode("utf-8-sig"))
    with chat_server.chat() as server:
        read(base_url=server.url)
    assert server.bodies[0]["messages"][0]["content"] == TOLD
    path.write_bytes("Röntgen".encode("latin-1"))
    with pytest.raises(connection.ServiceError, match="not UTF-8"):
        opened(label="second")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"{}", b'{"choices": "x"}', b'{"choices": [1]}', b"\xff\xfe",
     b'{"choices": [{"message": null}]}', b'{"a":' * 200_000,
     b'{"choices": [{"message": {"content": 5}}]}'],
    ids=range(10),
)  # fmt: skip
def test_an_answer_of_another_shape_is_no_answer(content):
    with pytest.raises(connection.Unusable):
        replies.answers(replies.read(replies.parse(content))[0], asked())


def test_an_answer_sent_as_an_event_stream_is_read():
    def piece(text, ended=None):
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": ended}
        return {"model": "m-1", "choices": [choice], "usage": None}

    counted = {"choices": [], "usage": {"completion_tokens": 7}}
    pieces = [piece('{"label":'), piece(' "real"}'), piece(None, "stop"), counted]
    content = "".join(f"data: {json.dumps(each)}\n\n" for each in pieces) + "data: [DONE]\n"
    text, model = replies.read(replies.parse(content.encode()))
    assert (json.loads(text), model) == ({"label": "real"}, "m-1")
    assert replies.usage(replies.parse(content.encode())) == {"completion_tokens": 7}
    with pytest.raises(connection.Unusable, match="cut off"):
        replies.read(replies.parse(content.replace('"stop"', '"length"').encode()))
    for odd in (b'data: {"choices": {"a": 1}}', b'data: {"choices": [1]}', b"data: {}"):
        with pytest.raises(connection.Unusable):
            replies.read(replies.parse(odd))
        assert replies.usage(replies.parse(odd)) == {}


def test_a_model_that_streams_unasked_is_read(place):
    text = json.dumps(chat_server.ANSWER)
    choice = {"delta": {"content": text}, "finish_reason": "stop"}
    events = f"data: {json.dumps({'choices': [choice], 'usage': chat_server.USAGE})}\n\n"
    answer = (200, events.encode(), {"Content-Type": "text/event-stream"})
    with serving(lambda method, *_: (404, {}) if method == "GET" else answer) as (address, seen):
        found = read(base_url=f"{address}/v1")
    assert len(seen) == len(found["readings"]) == 8
    assert found["ledger"]["output_tokens"].eq(60).all()


@pytest.mark.parametrize("parts", [['{"label":', ' "real"}'], [{"text": '{"label": "real"}'}]])
def test_an_answer_in_parts_is_read(parts):
    body = {"choices": [{"message": {"content": parts}}]}
    assert json.loads(replies.read(body)[0]) == {"label": "real"}


# --- kills


def killed(server, kills, seconds, seed):
    """Kill runs at random moments (a fork has its imports), then let one come to its end."""
    chance, context = random.Random(seed), multiprocessing.get_context("fork")
    for _ in range(kills):
        before = len(server.raw)
        child = context.Process(target=read, kwargs={"base_url": server.url, "repeats": 2})
        child.start()
        until = time.monotonic() + 10
        while len(server.raw) == before and child.is_alive() and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 4 * seconds))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
        child.join()
    return read(base_url=server.url, repeats=2)


def test_killed_ten_times_nothing_is_paid_for_twice():
    made(read=20)
    with chat_server.chat(seconds=0.05) as server:
        found = killed(server, 10, 0.05, seed=3)
    ledger = found["ledger"]
    assert len(found["readings"]) == 40 and found["models"]["answered"].tolist() == [20, 20]
    on_ledger = set(ledger["request_id"])
    assert {one["request_id"] for one in server.billed} <= on_ledger
    settled = ledger.set_index("request_id")["status"]
    for _, attempts in ledger.groupby("image_id"):
        ended = attempts.sort_values("requested_utc")["status"].tolist()
        # An answer that was on disk ends it: what may have been paid twice was under way.
        assert ended.count("ok") == 1 and ended[-1] == "ok"
        assert set(ended[:-1]) <= {"unknown"}
    twice = len(server.billed) - 40
    assert twice <= (settled == "unknown").sum() <= 10 * FREE["in_flight"]
    assert (settled == "unknown").any()


def test_an_answer_on_disk_whose_line_was_not_settled_is_not_asked_for_again(place):
    with chat_server.chat() as server:
        run, _, reading = opened(base_url=server.url)
        asyncio.run(asking.read(reading))
        table = reading.ledger.path.read_text().replace(",ok,", ",sent,")
        reading.ledger.path.write_text(table)
        run.release()
        found = read(base_url=server.url)
    assert len(server.raw) == 8 and found["ledger"]["status"].eq("ok").all()


@pytest.mark.parametrize("counted", [True, False])
def test_a_ledger_that_was_lost_is_written_again_from_the_paid_answers(place, monkeypatch, counted):
    allow_all(place)
    given = {"approval": "protocol 3", "may_leave": ["01_prepare_cases"], **PAID}
    if not counted:
        monkeypatch.setattr(chat_server, "USAGE", None)
    with chat_server.chat() as server:
        run, _, reading = opened(base_url=server.url, **given)
        asyncio.run(asking.read(reading))
        spent = reading.ledger.spent_usd
        reading.ledger.path.unlink()
        run.release()
        found = read(base_url=server.url, **given)
    assert len(server.raw) == 8
    assert found["ledger"]["status"].eq("ok").all() and spent > 0
    if counted:
        assert found["ledger"]["cost_usd"].sum() == pytest.approx(spent)
    assert found["ledger"]["cost_usd"].gt(0).all(), "no answer without a count is free"


def test_an_answer_that_was_deleted_is_asked_for_again(place):
    with chat_server.chat() as server:
        run, _, reading = opened(base_url=server.url)
        asyncio.run(asking.read(reading))
        next(reading.paid.glob("*.json")).unlink()
        run.release()
        assert len(read(base_url=server.url)["readings"]) == 8
    assert len(server.raw) == 9


def test_other_instructions_are_another_reading(place):
    with chat_server.chat() as server:
        read(base_url=server.url)
        (folders.params_folder(STUDY) / "model_instructions.txt").write_text("Something else.")
        with pytest.raises(store.StoreError, match="another variant"):
            opened(base_url=server.url)


# --- before the key is opened, and where images may go


def test_after_the_key_was_opened_no_model_reads(place):
    seal.unseal(place, place.parent / "sealed", STUDY, {}, "an emergency")
    with pytest.raises(connection.ServiceError, match="was opened on"):
        opened(base_url="http://127.0.0.1:9")


def test_what_the_model_is_asked_with_is_part_of_the_frozen_plan(place):
    folder = folders.params_folder(STUDY)
    (folder / "07_ask_models.yaml").write_text(yaml.safe_dump({"model": "m-1"}))
    frozen = seal.freeze_plan(STUDY, place.parent / "sealed")
    assert {"07_ask_models.yaml", "model_instructions.txt"} <= frozen.keys()
    (folder / "model_instructions.txt").write_text("Say fake.")
    now = seal.freeze_plan(STUDY, place.parent / "elsewhere")
    assert now["model_instructions.txt"] != frozen["model_instructions.txt"]


def allow_all(place, licence="CC BY 4.0"):
    rows = [{"run": "01_prepare_cases", "origin": "real", "licence": licence}]
    rows += [{"run": "02_generate_openai", "origin": "generated", "licence": None}]
    tables.write(licences.sources(pd.DataFrame(rows)), place.parent / "sources.csv")


@pytest.mark.parametrize(
    ("licence", "given", "says"),
    [
        ("CC BY 4.0", {}, "add 01_prepare_cases to may_leave"),
        ("CC BY 4.0", {"may_leave": ["01_prepare_cases"]}, "approval is empty"),
        ("CC BY-NC 4.0", {"may_leave": ["01_prepare_cases"], "approval": "7.2"}, "CC BY-NC 4.0"),
        (None, {"may_leave": ["01_prepare_cases"], "approval": "7.2"}, "no licence"),
        ("CC0; may not leave", {"may_leave": ["01_prepare_cases"], "approval": "7.2"}, "may not"),
        ("CC BY 4.0", {"may_leave": ["01_prepare_cases"], "approval": "protocol 7.2"}, ""),
        ("own; may leave (protocol 7)", {"may_leave": ["01_prepare_cases"], "approval": "7"}, ""),
    ],
)
def test_real_images_leave_only_with_licence_setting_and_approval(place, licence, given, says):
    allow_all(place, licence)
    run = run_of(**PAID | {"base_url": "https://models.example.org/v1", **given})
    service, set_run = model_service.of(run), run.reads(SET)
    if says:
        with pytest.raises(connection.ServiceError, match=says):
            model_service.refuse_to_send(service, set_run)
    else:
        assert given["approval"] in model_service.refuse_to_send(service, set_run)
    run.release()


@pytest.mark.parametrize(
    ("values", "here"),
    [
        (FREE | {"base_url": "http://127.0.0.1:8000/v1"}, True),
        (PAID | {"base_url": "http://127.0.0.1:4000/v1"}, False),  # a gateway that is paid
        (FREE | {"base_url": "http://10.0.0.7:8000/v1"}, False),
        (FREE | {"base_url": "http://127.0.0.1.example.org:8000/v1"}, False),
        (FREE | {"base_url": "http://[::1]:8000/v1"}, True),
    ],
)
def test_only_a_server_of_this_machine_that_charges_nothing_is_here(place, values, here):
    run = run_of(**values)
    service, set_run = model_service.of(run), run.reads(SET)
    if here:
        assert "no image leaves" in model_service.refuse_to_send(service, set_run)
    else:
        with pytest.raises(connection.ServiceError, match=r"sources\.csv is missing"):
            model_service.refuse_to_send(service, set_run)
    run.release()


@pytest.mark.parametrize(
    ("use", "licence", "origin", "allowed"),
    [
        ("leave", "CC BY 4.0", "real", True),
        ("leave", "hospital data", "real", False),
        ("leave", "hospital data; may leave (7.2)", "real", True),
        ("shown", "hospital data; may leave (7.2)", "real", False),
        ("shown", "CC BY 4.0; may not be shown", "real", False),
        ("released", "CC0-1.0", "real", False),
        ("released", "", "generated", True),
        ("released", "may not be released", "generated", False),
        ("leave", pd.NA, "generated", True),
        ("leave", pd.NA, "real", False),
    ],
)
def test_one_rule_for_what_a_licence_allows(use, licence, origin, allowed):
    assert licences.may(use, licence, origin) == allowed


EXAMPLES = sorted((folders.ROOT / "params" / "services" / "models").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_of_a_service_sends_what_a_strict_server_takes(place, path):
    declared = parameters.schema(folders.NOTEBOOKS / "07_ask_models.ipynb")
    given = parameters.check(parameters.read_yaml(path), declared, str(path))
    allow_all(place)
    with chat_server.chat() as server:
        found = read(**FREE | {"price_image": -1.0} | given | {"base_url": server.url})
    assert len(found["readings"]) == 8 * given.get("repeats", 1)


# --- the stand-in


def test_the_stand_in_is_marked_and_its_faults_are_reasons(monkeypatch):
    made(read=12)
    given = {"provider": "rehearsal", "label": "Stand-in", "price_image": -1.0}
    faults = {"refusal": 0.2, "nonsense": 0.1, "wrong_json": 0.1, "server_error": 0.1, "cut": 0.1}
    faulty = functools.partial(faulty_service.ModelServer, faults=faults)
    monkeypatch.setattr(model_api, "ModelServer", faulty)
    run, record, reading = opened(**PAID | given, ask_again=6)
    asyncio.run(asking.read(reading))
    recording.enter(record, reading)
    found = recording.tables_of(record, reading.opened, reading)
    run.release()
    assert run.simulated == ["model readers"] and found["readers"]["simulated"].all()
    assert found["models"]["answered_by"].str.contains("simulated").all()
    assert len(found["missing_answers"]) and found["missing_answers"]["simulated"].all()
    assert len(found["readings"]) + len(found["missing_answers"]) == 12
