"""What a study asks besides the published questions reaches the tables, the report and the release,
also where it is asked once.
"""

import re

import pandas as pd
import pytest
import reading_studies
from test_pairs import opened
from test_readers import begin
from test_report import CONTEXT, analyse

from helpers import protocol_tables, study, tables
from helpers.analyse_readings import (
    joined,
    question_figures,
    questions,
    release,
    report,
    results,
    texts,
)

LABEL = reading_studies.questions()[len(reading_studies.YOU)]
END = {"block": "end", "order": 2, "title": "At the end", "images": ""}
ONCE = [
    {"id": "level", "block": "reader", "text": "Level of training", "kind": "choice"},
    {"id": "site", "block": "reader", "text": "Hospital", "kind": "text"},
    {"id": "weekly", "block": "reader", "text": "Images in a week", "kind": "number"},
    {"id": "worry", "block": "end", "text": "Does it worry you?", "kind": "yes/no"},
    {"id": "hard", "block": "end", "text": "How hard was it?", "kind": "scale"},
    {"id": "why", "block": "end", "text": "What worries you?", "kind": "choices"},
    {"id": "words", "block": "end", "text": "Anything else?", "kind": "text"},
    {"id": "more", "block": "end", "text": "Which?", "kind": "text", "shown_when": "worry=yes"},
]
OPTIONS = {"level": "Resident|Specialist", "hard": "Easy|Neither|Hard", "why": "f=Fraud|p=Privacy"}
ONCE = [row | {"options": OPTIONS.get(row["id"], "")} for row in ONCE]
OF_IMAGES = [
    {"id": "odd", "text": "Odd?", "kind": "yes/no", "required": "true"},
    {"id": "quality", "text": "Quality", "kind": "scale", "options": "Poor|Fair|Good"},
    {"id": "what", "text": "What is odd?", "kind": "text", "shown_when": "odd=yes"},
    {"id": "lesions", "text": "Number of lesions", "kind": "number", "required": "true"},
]


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """A study with own questions, read by six simulated readers: results, tables, answers.csv."""
    root = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        reading_studies.use(root, patch.setenv)
        asked = [*reading_studies.YOU, LABEL, *ONCE, *OF_IMAGES]
        made = reading_studies.make(
            *(root, 12, 0), blocks=[reading_studies.BLOCK, END], asked=asked, readers="simulated",
            number_of_readers=6,
        )  # fmt: skip
        run = begin()
        assert study.collect(run) == ""
        given = tables.read(run.folder / "answers.csv", "given_answers")
        designed, people = protocol_tables.load(made), run.read("readers.csv")
        found, more = questions.analyse(designed, opened(made), given, people)
        yield found, more, given, designed, people


def test_what_is_asked_once_is_counted_over_readers_and_by_what_they_say_of_themselves(read):
    _, more, given, _, _ = read
    once = tables.check(more["question_once"], "question_once")
    worried = int((given.query("question == 'worry'")["value"] == "true").sum())
    row = once.query("question == 'worry' and group == 'all readers' and text == 'yes'").iloc[0]
    assert (row["count"], row["total"], row["estimate"]) == (worried, 6, worried / 6)
    assert row["low"] < row["estimate"] < row["high"]
    levels = given.query("question == 'level'")["value"].value_counts()
    for level, number in levels.items():
        group = once[
            (once["question"] == "worry") & (once["group"] == f"Level of training: {level}")
        ]
        assert group["count"].sum() == number and (group["total"] == number).all()
        assert group["low"].notna().all() == (number >= 5)
    assert set(once["question"]) == {row["id"] for row in ONCE}, "the others are in readers.csv"
    assert once.query("question == 'weekly'")["value"].tolist()[:3] == [
        "lowest",
        "median",
        "highest",
    ]
    several = once.query("question == 'why' and group == 'all readers'")
    assert several["count"].sum() >= 6, "each option that is ticked counts"


def test_nobody_can_be_told_from_what_is_released(read):
    _, more, _, _, _ = read
    shared = {
        name: prepared(more[name]) for name, prepared in release.WHERE_ASKED.items() if name in more
    }
    once = shared["question_once"]
    assert {"worry", "hard", "why", "words", "level"} == set(once["question"])
    assert (once["total"] >= 5).all()
    assert "reader" not in set(shared["question_answers"]["block"])
    assert (shared["question_answers"]["question"] == "worry").sum() == 6


def test_the_labels_are_counted_by_the_readers_own_choices(read):
    _, _, given, designed, people = read
    fields = joined.fields(designed, joined.once(given, people))
    assert list(fields) == ["Level of training"] and len(fields) == 6
    answers = pd.DataFrame({"image_id": ["a", "a", "b", "b"], "reader": ["R1", "R2"] * 2})
    answers = answers.assign(
        presentation=1, years=5, prior_ai=True, modality="ct", generator=None, true_finding="mass",
        truth=0, label=["fake", "real"] * 2,
    )  # fmt: skip
    fields = pd.DataFrame({"Level of training": {"R1": "Resident", "R2": "Specialist"}})
    shown = pd.DataFrame({"cluster": ["a", "b"]}, index=["a", "b"])
    table = results.subgroups(answers, shown, fields)
    called = table[(table["by"] == "Level of training") & (table["measure"] == "called fake")]
    assert dict(zip(called["group"], called["count"])) == {"Resident": 2, "Specialist": 0}


def test_the_report_says_and_shows_all_of_it(read, tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("KEYS", str(tmp_path / "keys"))
    run, found, *_ = analyse("small")
    found = found | read[0] | {"main_block": "read"}
    written = texts.written(found, CONTEXT)
    said = " ".join(written["own questions"] + written["asked once"])
    for part in (
        r"“Does it worry you\?”, asked in “At the end”: yes \d of 6 \(\d+.%; 95 % interval",
        r"“How hard was it\?”, asked in “At the end”: Easy \d.*, Neither \d.*, Hard \d.*"
        r" of 6 readers\.",
        r"“Hospital”, asked in “Before the first part”: 6 readers wrote something",
        r"“Images in a week”.*: median 1, from 1 to 1 \(6 readers\)",
        r"the mean answer to “Quality” in “Reading test” \(1 Poor to 3 Good\) was",
        r"(No difference was shown for readers in general\. )?The share of “yes” to “Odd\?” in",
        r"“Which\?” \(after “yes” to “Does it worry you\?”\), asked in “At the end”: \d readers?"
        " wrote",
        r"“What is odd\?” \(after “yes” to “Odd\?”\) in “Reading test”: \d+ answers in words",
        r"All answers to “Number of lesions” in “Reading test” were alike",
    ):
        assert re.search(part, said, re.IGNORECASE), (part, said)
    methods = " ".join(written["methods"])
    assert "“Which?” (after “yes” to “Does it worry you?”)" in methods, "it says what it follows"
    page = report.render(found, CONTEXT, {}).decode()
    assert "Level of training: Resident" in page and "nothing to add" in page
    assert "Quality (1 Poor to 3 Good)" in page
    drawn = question_figures.draw(run, found, read[1])
    assert {"questions_once", "questions_by_truth"} <= drawn.keys()
