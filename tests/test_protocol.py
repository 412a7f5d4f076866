"""blocks.csv and questions.csv: what does not fit is named, what an unaware block must not say is
refused, and what comes of blocks in the record, the key and the analysis.
"""

import shutil

import numpy as np
import pandas as pd
import pytest
import reading_studies

from helpers import protocol
from helpers.analyse_readings import questions
from helpers.assemble_reading_set import blocks, seal
from helpers.assemble_reading_set.draw import BlindingError
from helpers.reading import accounts, reader_state, setting, store
from helpers.reading.export import export
from helpers.runner import parameters, places

LABEL = reading_studies.questions()[len(reading_studies.YOU)]
SCALE = {"id": "quality", "text": "Quality", "kind": "scale", "options": "Poor|Good"}
UNAWARE = [
    reading_studies.BLOCK | {"block": "first", "title": "Chest images", "unaware": "true"},
    reading_studies.BLOCK | {"block": "second", "order": 2, "title": "Real or generated?"},
]


def built(asked: list[dict], shown: list[dict] | None = None) -> protocol.Protocol:
    return protocol.build(asked, shown or [reading_studies.BLOCK], "mine")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"kind": "slider"}, "question 'quality': kind is one of choice, choices, scale"),
        ({"options": "Poor"}, "a scale needs 2 to 9 options"),
        ({"kind": "choice", "options": ""}, "a choice needs options"),
        ({"kind": "text"}, "a text has no options"),
        ({"id": "Quality!"}, "an id is small letters"),
        ({"id": "seconds"}, "and none of .*seconds"),
        ({"block": "third"}, "there is no block 'third'; known: read, reader"),
        ({"id": "label"}, "is there twice|the published question"),
        ({"shown_when": "label"}, "shown_when reads question=value"),
        ({"shown_when": "label=maybe"}, "label=maybe, which no earlier question"),
        ({"kind": "findings", "options": "martians"}, "'martians' is no finding"),
    ],
)
def test_a_question_that_does_not_fit_is_named(row, said):
    with pytest.raises(protocol.ProtocolError, match=said):
        built([LABEL, SCALE | row])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"images": ""}], "no block shows images"),
        ([{"block": "reader"}], "block 'reader' is no id"),
        ([{}, {"order": 2}], "block 'read' is there twice"),
        ([{"after_days": -1}], "after_days of block 'read' is below 0"),
        ([{"tell_truth": "true"}], "no block asks 'label' of images that are scored"),
    ],
)
def test_a_block_that_does_not_fit_is_named(rows, said):
    with pytest.raises(protocol.ProtocolError, match=said):
        built([LABEL], [reading_studies.BLOCK | row for row in rows])


def test_every_kind_takes_its_own_answers_and_no_other():
    asked = built(
        [
            LABEL,
            SCALE,
            {"id": "odd", "text": "Odd?", "kind": "yes/no", "required": "true"},
            {
                "id": "why",
                "text": "Why?",
                "kind": "text",
                "required": "true",
                "shown_when": "odd=true",
            },
        ]
    ).asked("read")
    whole = {"label": "fake", "quality": 2, "odd": False}
    assert protocol.refusal(asked, whole) == ""
    assert protocol.refusal(asked, whole | {"odd": True}) == "'why' is needed."
    assert protocol.refusal(asked, whole | {"odd": True, "why": "x"}) == ""
    assert protocol.refusal(asked, whole | {"why": "x"}) == "'why' is not asked here."
    assert protocol.refusal(asked, whole | {"cues": ["x"]}) == "'cues' is not asked here."
    for wrong in (
        {"label": "yes"},
        {"quality": 3},
        {"quality": True},
        {"quality": 1.5},
        {"odd": 1},
    ):
        assert "no answer that the study offers" in protocol.refusal(asked, whole | wrong)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"study": "fake_lungs"}, "the study's name, 'fake_lungs'"),
        ({"consent": "Some images are synthetic."}, "consent.txt: 'synthetic'"),
        ({"contact": "AI group"}, "contact of study.yaml: 'AI'"),
        ({"title": "Real or not"}, "block 'first': 'Real'"),
        ({"text": "Does it look generated?"}, "question 'quality': 'generated'"),
    ],
)
def test_what_names_generation_too_early_is_refused(change, said):
    shown = [UNAWARE[0] | {"title": change.get("title", "Chest images")}, UNAWARE[1]]
    early = SCALE | {"block": "first", "text": change.get("text", "Quality")}
    designed = built([LABEL | {"block": "second"}, early], shown)
    texts = {"consent": "You may stop.", "contact": "Us"}
    texts |= {name: change[name] for name in texts if name in change}
    with pytest.raises(BlindingError, match=said):
        blocks.refuse_names_of_generation(change.get("study", "mine"), texts, designed)
    assert any("ethics board" in sentence for sentence in blocks.concerns(designed))


@pytest.mark.parametrize("name", ["unaware", "training"])
def test_the_protocols_that_come_along_hold(name):
    folder = places.ROOT / "params" / name
    designed = blocks.read_protocol(folder / "questions.csv", folder / "blocks.csv")
    told = parameters.read_yaml(folder / "study.yaml")
    texts = {part: told[part] for part in ("protocol", "ethics", "contact")}
    texts["consent"] = (folder / "consent.txt").read_text()
    blocks.refuse_names_of_generation("mine", texts, designed)
    drawn = pd.read_csv(folder / "draw.csv")
    rows = drawn.assign(image_id=drawn.index.astype(str), part=1, repeat=False)
    shown = blocks.presented(rows, designed)
    scored = [block.block for block in designed.scored()]
    assert set(shown.loc[~shown["training"], "block"]) == set(scored)
    with pytest.raises(BlindingError, match="no block of blocks.csv shows the group 'spare'"):
        blocks.presented(pd.concat([rows, rows.iloc[:1].assign(group="spare")]), designed)


def test_images_whose_truth_is_told_are_never_scored():
    teach = reading_studies.BLOCK | {"block": "teach", "order": 2, "tell_truth": "true"}
    designed = built([LABEL], [reading_studies.BLOCK, teach])
    rows = pd.DataFrame({"image_id": ["a"], "group": ["main"], "training": [False]})
    with pytest.raises(BlindingError, match="tells the truth of its images: in draw.csv they must"):
        blocks.presented(rows, designed)


def test_a_set_or_a_record_from_before_is_refused_and_left_alone(study_folders, tmp_path):
    made = reading_studies.make(study_folders, read=3)
    copied = shutil.copytree(made, tmp_path / "old" / "reading_set")
    for name in ("questions.csv", "blocks.csv"):
        (copied / name).unlink()
    with pytest.raises(setting.SettingError, match=r"has no questions\.csv: it was made before"):
        setting.load(reading_studies.STUDY, reading_set=copied)
    opened = setting.load(reading_studies.STUDY)
    engine = store.open_store(tmp_path / "old.sqlite")
    accounts.add_reader(engine, "r")
    old = {"id": "assigned", "event": "assigned", "payload": {"order": ["b1"], "salt": ""}}
    store.append(engine, "r", old | {"blind_id": "", "browser_utc": ""})
    with pytest.raises(store.StoreError, match="Commit 3aa5acd is the last that reads it"):
        reader_state.state(engine, opened, "r")
    assert store.verify(engine) == [] and len(store.events(engine)) == 1
    engine.dispose()
    declared = parameters.schema(setting.NOTEBOOK)
    with pytest.raises(parameters.ParameterError, match="'confidence' was replaced by questions"):
        parameters.check({"confidence": "3-step"}, declared, "07_read_cases.yaml")


def test_the_frozen_plan_names_the_blocks_and_a_changed_question_shows(study_folders):
    made = reading_studies.make(study_folders, read=3)
    assert seal.read_commitment(made)["blocks"][0].startswith("read (label, poor_quality")
    assert "read (label" in seal.frozen(made)
    text = (made / "questions.csv").read_text()
    (made / "questions.csv").write_text(text.replace("This image is", "Is this image"))
    with pytest.raises(seal.SealError, match="is not the one committed to"):
        seal.unseal(made, made.parent / "sealed", reading_studies.STUDY, {}, emergency="a test")


def test_an_unlocked_block_may_be_changed_until_the_lock_and_a_locked_one_not(study_folders):
    shown = [
        reading_studies.BLOCK | {"block": "one", "lock": ""},
        reading_studies.BLOCK | {"block": "two", "order": 2},
        reading_studies.BLOCK | {"block": "three", "order": 3},
    ]
    reading_studies.make(study_folders, read=2, training=0, blocks=shown, going_back="until locked")
    opened = setting.load(reading_studies.STUDY)
    engine = store.open_store(opened.store_place)
    accounts.add_reader(engine, "r")
    reader_state.enter(engine, opened, "r")
    numbers = iter(range(100))

    def send(event: str, blind_id: str = "", **payload) -> None:
        message = {"id": f"message-{next(numbers)}", "event": event, "blind_id": blind_id}
        message |= {"payload": payload, "browser_utc": "2026-01-01T00:00:00.000Z"}
        reader_state.receive(engine, opened, "r", message)

    def state() -> dict:
        return reader_state.state(engine, opened, "r")

    send("consented")
    send("registered", years=4, specialty="Radiology", prior_ai=False)
    send("display", steps_seen=True)
    read: list[list[str]] = []
    for number in (1, 2, 3):
        if number > 1:
            assert state()["phase"] == "block" and state()["block"]["number"] == number
            assert state()["current"] == "" and state()["next"] == []
            with pytest.raises(store.Refused, match="not this part's turn"):
                send("begun", block=number % 3 + 1)
            send("begun", block=number)
        read.append([])
        while current := state()["current"]:
            assert {*state()["next"]} <= {*reader_state.read_record(engine, "r").order}
            send("answered", current, label="fake", seconds=1)
            read[-1].append(current)
        if number == 2:
            assert state()["phase"] == "close"
            send("changed", read[1][0], label="real", reason="looked again")
            send("closed", block=2)
    send("changed", read[0][0], label="real", reason="one has no lock")
    with pytest.raises(store.Refused, match="cannot be changed any more"):
        send("changed", read[1][1], label="real", reason="too late")
    send("locked")
    found = export(engine, opened)
    assert found["readings"]["block"].tolist() == ["one"] * 2 + ["two"] * 2 + ["three"] * 2
    assert found["answers"]["question"].value_counts()["label"] == 6
    engine.dispose()


def test_intervals_of_differences_hold_what_they_promise():
    random = np.random.default_rng(5)
    held = {False: 0, True: 0}
    for _ in range(100):
        readers, images = 8, 40
        of_reader = random.normal(0, 0.3, readers)[:, None]
        of_image = random.normal(0, 0.3, images)[None, :]
        fake = np.arange(images) % 2
        values = 3 - 0.5 * fake + of_reader * fake + of_image
        values = values + random.normal(0, 0.6, (readers, images))
        rows = pd.DataFrame(
            {
                "number": values.ravel(),
                "reader": np.repeat([f"R{n}" for n in range(readers)], images),
                "image_id": np.tile(np.arange(images), readers),
                "cluster": np.tile(np.arange(images), readers),
            }
        )
        side = pd.Series(np.tile(fake, readers))
        truth = {True: -0.5, False: -0.5 + float(of_reader.mean())}
        for general, effect in truth.items():
            found = questions.difference(rows, side, general)
            held[general] += found["low"] <= effect <= found["high"]
    assert held[False] >= 90 and held[True] >= 90, held
