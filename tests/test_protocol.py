"""blocks.csv and questions.csv: what does not fit is named, what an unaware block must not say is
refused, and what comes of blocks in the record, the key and the analysis.
"""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import reading_studies

from helpers import protocol, protocol_tables, study
from helpers.assemble_reading_set import blocks, envelope, seal
from helpers.reading import accounts, reader_state, setting, store
from helpers.reading.export import export
from helpers.runner import folders, parameters, runs
from helpers.statistics import differences

LABEL = reading_studies.questions()[len(reading_studies.YOU)]
SCALE = {"id": "quality", "text": "Quality", "kind": "scale", "options": "Poor|Good"}
DESIGN = {name: f"{name}.csv" for name in ("draw", "questions", "blocks")}
DESIGN |= {"consent": "consent.txt"}
UNAWARE = [
    reading_studies.BLOCK | {"block": "first", "title": "Chest images", "unaware": "true"},
    reading_studies.BLOCK | {"block": "second", "order": 2, "title": "Real or generated?"},
]
ASIDE = [SCALE, LABEL | {"block": "second"}]


def built(asked: list[dict], shown: list[dict] | None = None) -> protocol.Protocol:
    return protocol_tables.build(asked, shown or [reading_studies.BLOCK], "mine")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"kind": "slider"}, "question 'quality': kind must be one of choice, choices, scale"),
        ({"options": "Poor"}, "a scale needs 2 to 9 options"),
        ({"kind": "choice", "options": ""}, "a choice needs options"),
        ({"kind": "text"}, "a text has no options"),
        ({"id": "Quality!"}, "an id has small letters"),
        ({"id": "seconds"}, "and is none of .*seconds"),
        ({"block": "third"}, "there is no block 'third'; known: read, reader"),
        ({"id": "label"}, "appears twice|the published question"),
        ({"shown_when": "label"}, "shown_when must read question=value"),
        ({"shown_when": "lable=real"}, "asks no question 'lable' with .* before it; it asks label"),
        ({"shown_when": "label=maybe"}, "write label=real or label=fake or label=uncertain"),
        ({"kind": "choice", "options": "a=A|b="}, "every option has a value and a text"),
        ({"kind": "choice", "options": "a=A|=B"}, "every option has a value and a text"),
        ({"kind": "findings", "options": "martians"}, "'martians' is not a finding"),
    ],
)
def test_a_question_that_does_not_fit_is_named(row, said):
    with pytest.raises(protocol_tables.ProtocolError, match=said):
        built([LABEL, SCALE | row])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"images": ""}], "no block shows images"),
        ([{"block": "reader"}], "block 'reader' is not an id"),
        ([{}, {"order": 2}], "block 'read' appears twice"),
        ([{"after_days": -1}], "after_days of part “Reading test” is below 0"),
        ([{"tell_truth": "true"}], "no block asks 'label' of images that are scored"),
    ],
)
def test_a_block_that_does_not_fit_is_named(rows, said):
    with pytest.raises(protocol_tables.ProtocolError, match=said):
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
    ).questions_of("read")
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
        assert "does not offer this answer" in protocol.refusal(asked, whole | wrong)


def test_the_text_of_an_option_may_have_an_equals_sign():
    asked = SCALE | {"kind": "choice", "options": "low=Score < 5|high=Score >= 5"}
    options = built([LABEL, asked]).questions[-1].options
    assert options == (("low", "Score < 5"), ("high", "Score >= 5"))


@pytest.mark.parametrize(
    "said", ["odd=true", "odd=yes", "odd = YES", "level=Resident", "quality=good"]
)
def test_shown_when_takes_an_answer_as_people_write_it(said):
    asked = [
        LABEL,
        SCALE,
        {"id": "odd", "text": "Odd?", "kind": "yes/no"},
        {"id": "level", "text": "Level", "kind": "choice", "options": "r=Resident|f=Fellow"},
        {"id": "why", "text": "Why?", "kind": "text", "shown_when": said},
    ]
    *_, why = built(asked).questions_of("read")
    shown = {"odd": (True, False), "level": ("r", "f"), "quality": (2, 1)}
    other = why.shown_when[0]
    assert [why.is_shown({other: value}) for value in shown[other]] == [True, False]


@pytest.mark.parametrize("name", ["fake1", "genai-study", "deepfakes_2", "lungs-ai"])
def test_the_name_of_an_unaware_study_does_not_give_it_away(name):
    given = {"study": name, "consent": "You read."}
    designed = built(ASIDE, UNAWARE)
    assert len(blocks.names_of_generation(given, designed)) == 1
    assert blocks.names_of_generation(given | {"study": "airway2"}, designed) == []


@pytest.mark.parametrize("said", ["Which was made by a computer?", "Was it drawn by a machine?"])
def test_what_an_unaware_block_must_not_say_in_other_words(said):
    shown = {"study": "lungs", "consent": said}
    assert len(blocks.names_of_generation(shown, built(ASIDE, UNAWARE))) == 1


def test_no_part_tells_the_truth_before_the_last_unaware_part_has_ended():
    learning = reading_studies.BLOCK | {"block": "learning", "images": "own", "tell_truth": "true"}
    shown = {"study": "lungs", "consent": "You read."}
    first, *others = UNAWARE
    early = [learning | {"order": 0, "title": "Warm-up"}, first, *others]
    later = [first, *others, learning | {"order": 9, "title": "Learning"}]
    mistakes = blocks.names_of_generation(shown, built(ASIDE, early))
    assert [sentence for *_, sentence in mistakes] == [
        "blocks.csv, part “Warm-up”: it tells the truth (tell_truth) before the last unaware part"
        " has ended: move it to a later place."
    ]
    assert blocks.names_of_generation(shown, built(ASIDE, later)) == []


def as_saved(path, change) -> None:
    """The table changed and saved by a spreadsheet: byte order mark, semicolons, CRLF."""
    table = change(pd.read_csv(path, dtype=str, keep_default_na=False))
    text = table.to_csv(index=False, sep=";", lineterminator="\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())


def test_all_that_does_not_fit_is_said_at_once_before_the_first_stage(study_folders, capsys):
    folder = study_folders / "params" / "mine"
    shutil.copytree(folders.ROOT / "params" / "unaware", folder)

    def questions(table):
        table = table.set_index("id")
        table.loc["years", "kind"] = "nummer"
        table.loc["quality", "options"] = "Poor"
        table.loc["unusual_what", "shown_when"] = "unusual=perhaps"
        table.loc["remark", "text"] = "Did an image look generated?"
        return table.reset_index()

    def blocks_of(table):
        table = table.set_index("block")
        table.loc["second", ["images", "order"]] = ["spare", "four"]
        table.loc["first", "title"] = "Are these synthetic?"
        return table.reset_index()

    as_saved(folder / "questions.csv", questions)
    as_saved(folder / "blocks.csv", blocks_of)
    (folder / "consent.txt").write_text("You read images, some of them fake.")
    (folder / "study.yaml").write_text("title: T\ncontact: AI group\n")
    assert study.main(["run", "mine"]) == study.FAILED
    said = capsys.readouterr().err.splitlines()
    wanted = [
        r"blocks.csv, part “Are these synthetic\?”: 'synthetic' would reveal",
        r"blocks.csv row 5, column 'order': 'four' is not a whole number",
        r"blocks.csv: part “Real or generated\?” shows 'spare', which no row of draw.csv has",
        r"consent.txt: 'fake' would reveal",
        r"questions.csv row 2, column 'kind': 'nummer' is not one of .*did you mean 'number'",
        r"questions.csv: question 'quality': a scale needs 2 to 9 options",
        r"questions.csv: question 'unusual_what': .*write unusual=yes or unusual=no",
        r"questions.csv, question 'remark': 'generated' would reveal",
        r"study.yaml: its contact: 'AI' would reveal",
    ]
    found = [[n for n, line in enumerate(said) if re.search(one, line)] for one in wanted]
    assert all(len(lines) == 1 for lines in found), (found, said)
    of_tables = [line for line in said if "blocks.csv" in line or "questions.csv" in line]
    assert of_tables == sorted(of_tables, key=lambda line: "questions.csv" in line)
    assert not any((study_folders / "outputs").iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"study": "fake_lungs"}, "the study's name, 'fake_lungs'"),
        ({"consent": "Some images are synthetic."}, "consent.txt: 'synthetic'"),
        ({"contact": "AI group"}, "its contact: 'AI'"),
        ({"title": "Real or not"}, "part “Real or not”: 'Real'"),
        ({"text": "Does it look generated?"}, "question 'quality': 'generated'"),
        ({"text": "How realistic is it?"}, "question 'quality': 'realistic'"),
        ({"consent": "Some are computer-made."}, "consent.txt: 'computer-made'"),
        ({"consent": "We study image synthesis."}, "consent.txt: 'synthesis'"),
        ({"contact": "ChatGPT team"}, "its contact: 'ChatGPT'"),
    ],
)
def test_what_names_generation_too_early_is_found(change, said):
    shown = [UNAWARE[0] | {"title": change.get("title", "Chest images")}, UNAWARE[1]]
    early = SCALE | {"block": "first", "text": change.get("text", "Quality")}
    designed = built([LABEL | {"block": "second"}, early], shown)
    texts = {"study": "mine", "consent": "You may stop.", "contact": "Us"}
    texts |= {name: change[name] for name in texts if name in change}
    ((*_, sentence),) = blocks.names_of_generation(texts, designed)
    assert said in sentence
    assert any("ethics board" in sentence for sentence in blocks.concerns(designed, ""))


def test_a_consent_that_says_nothing_of_a_later_session_is_a_concern():
    later = UNAWARE[1] | {"after_days": 28}
    designed = built([LABEL], [reading_studies.BLOCK, later])
    (found,) = blocks.concerns(designed, "You read 20 images.")
    assert "“Real or generated?” opens 28 days after the previous one" in found
    assert not blocks.concerns(designed, "Two parts, four weeks apart.")


@pytest.mark.parametrize("name", ["pairs", "training", "unaware"])
def test_the_protocols_that_come_along_hold(name, study_folders):
    folder = study_folders / "params" / "mine"
    shutil.copytree(folders.ROOT / "params" / name, folder)
    run = runs.Run("mine", "06_assemble_reading_set", DESIGN)
    wanted, designed, _ = blocks.read_design(run)
    rows = wanted.assign(image_id=wanted.index.astype(str), part=1, repeat=False)
    shown = blocks.presented(rows, designed)
    scored = [block.block for block in designed.scored()]
    assert set(shown.loc[~shown["training"], "block"]) == set(scored)
    spare = pd.concat([wanted, wanted.iloc[:1].assign(group="spare")])
    ((*_, said),) = blocks.misfits(spare, designed)
    assert "no part of blocks.csv shows the group 'spare'" in said


def test_images_whose_truth_is_told_are_never_scored():
    teach = reading_studies.BLOCK | {"block": "teach", "order": 2, "tell_truth": "true"}
    designed = built([LABEL], [reading_studies.BLOCK, teach])
    rows = pd.DataFrame({"count": [1], "group": ["main"], "training": [False]})
    ((*_, said),) = blocks.misfits(rows, designed)
    assert "tells the truth of its images: in draw.csv they must" in said


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
    assert seal.read_commitment(made)["blocks"][0].startswith("“Reading test” (label, poor_quality")
    assert "“Reading test” (label" in seal.frozen(made)
    text = (made / "questions.csv").read_text()
    (made / "questions.csv").write_text(text.replace("This image is", "Is this image"))
    with pytest.raises(envelope.SealError, match="is not the one committed to"):
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
    with pytest.raises(store.Refused, match="can no longer be changed"):
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
            found = differences.difference(rows, side, general)
            held[general] += found["low"] <= effect <= found["high"]
    assert held[False] >= 90 and held[True] >= 90, held


@pytest.mark.parametrize("paired", [False, True])
def test_no_interval_of_shares_leaves_the_possible_range(paired):
    random = np.random.default_rng(3)
    for share in (0.02, 0.5, 0.97):
        rows = pd.DataFrame({"image_id": np.arange(40).astype(str), "reader": "R1"})
        rows = rows.assign(cluster=rows["image_id"], number=(random.random(40) < share) * 1.0)
        side = pd.Series(np.tile([0, 1], 20))
        rows["number"] = np.where(paired & (side == 0), 1 - rows["number"], rows["number"])
        rows.loc[:3, "number"] = [0, 1, 1, 0]
        found = differences.difference(rows, side if paired else None)
        assert (-1 if paired else 0) < found["low"] < found["estimate"] < found["high"] < 1
