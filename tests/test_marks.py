"""Marks on the image: whether the analysis finds where simulated readers marked, and what is
written of them.
"""

import json

import numpy as np
import pandas as pd
import pytest
import reading_studies
from test_report import CONTEXT, analyse

from helpers import figures, protocol, protocol_tables, tables
from helpers.analyse_readings import marks, questions, report, texts

WHERE = {"id": "where", "text": "Mark what looks generated", "kind": "marks"}
WHERE |= {"options": "texture=Texture", "shown_when": "label=fake"}
LABEL = reading_studies.questions()[len(reading_studies.YOU)]
DESIGNED = protocol_tables.build([LABEL, WHERE], [reading_studies.BLOCK], "s")
SIZE = 200


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"block": "reader", "shown_when": ""}, "which shows no single image"),
        ({"options": "a=A|a=B"}, "option 'a' appears twice"),
    ],
)
def test_marks_where_nothing_can_be_marked_are_refused(row, said):
    with pytest.raises(protocol_tables.ProtocolError, match=said):
        protocol_tables.build([LABEL, WHERE | row], [reading_studies.BLOCK], "s")


@pytest.mark.parametrize("at", [(1, float("nan"), 0, 0), (1, 1, float("nan"), 0), (-1, 1, 2, 0)])
def test_a_mark_that_lies_nowhere_on_the_image_is_no_answer(at):
    where = DESIGNED.questions[-1]
    assert where.accepts([dict(zip("xywh", (1, 1, 0, 0)), cue="")], SIZE)
    assert not where.accepts([dict(zip("xywh", at), cue="")], SIZE)


def marked(random, there: float, readers: int = 6, images: int = 40):
    """Readers who call generated images fake and mark them: a share `there` of the points lies in
    the lower left ninth; real images are marked by nobody.
    """
    key, given = [], []
    for n in range(images):
        fake = n % 2
        key.append({"blind_id": f"b{n}", "image_id": f"i{n}", "block": "read", "modality": "ct"})
        key[-1] |= {"origin": "generated" if fake else "real", "training": False}
        key[-1] |= {"generator": "a model" if fake else None, "repeat_of": None, "pair": None}
        key[-1] |= {"patient": None if fake else f"p{n}", "prompt_id": f"q{n}" if fake else None}
        for reader in range(readers):
            row = {"reader_id": f"r{reader}", "block": "read", "blind_id": f"b{n}"}
            given.append(row | {"question": "label", "value": "fake" if fake else "real"})
            if not fake:
                continue
            x, y = (40, 160) if random.random() < there else (160, 40)
            mark = {"x": x, "y": y, "w": 0, "h": 0, "cue": "texture"}
            box = {"x": 90, "y": 90, "w": 20, "h": 20, "cue": ""}
            given.append(row | {"question": "where", "value": protocol.as_text([mark, box])})
    people = pd.DataFrame({"reader_id": [f"r{n}" for n in range(readers)]})
    return pd.DataFrame(key).assign(finding="", view=""), pd.DataFrame(given), people


def found_in(there: float, seed: int) -> tuple[dict, dict[str, pd.DataFrame]]:
    key, given, people = marked(np.random.default_rng(seed), there)
    return questions.analyse(DESIGNED, key, given, people, {"size": SIZE})


def test_planted_marks_are_within_the_intervals():
    held = 0
    for seed in range(12):
        regions = found_in(0.6, seed)[1]["mark_regions"].set_index(["source", "region"])
        planted = regions.loc[("CT images by a model", "lower left")]
        held += planted["low"] <= 0.6 <= planted["high"]
        assert regions.loc[("real CT images", "anywhere"), "count"] == 0
        assert regions.loc[("all generated images", "central"), "estimate"] == 1
    assert held >= 10


def test_marks_are_a_table_a_map_and_an_agreement():
    found, more = found_in(1.0, 0)
    table = tables.check(more["marks"], "marks")
    assert len(table) == 2 * 6 * 20 and set(table["region"]) == {"lower left", "central"}
    first = table.iloc[0]
    assert (first["x"], first["y"], first["width"], first["cue"]) == (0.2, 0.8, 0, "texture")
    own = more["marks"][more["marks"]["image_id"] == "i1"]
    heat = marks.readers_by_cell(own)
    assert heat[48, 12] == 6 and heat[30, 30] == 6 and heat[12, 48] == 0 and heat.max() == 6
    assert marks.readers_by_cell(own[own["reader"] == "R1"]).max() == 1, (
        "readers are counted, not marks"
    )
    whole = more["mark_agreement"].set_index("coefficient")["estimate"]
    assert whole["percent"] == whole["fleiss"] == 1
    chance = found_in(0.5, 0)[1]["mark_agreement"].set_index("coefficient")["estimate"]
    assert chance["fleiss"] < 0.8
    assert found["marks"][0]["two_alike"]["count"] == 20
    assert marks.most_alike(more["marks"], 3) == ["i1", "i11", "i13"]
    assert not any(row["question"] == "where" for row in found["own_questions"]["counts"])
    assert json.loads(more["question_answers"].query("question == 'where'")["value"].iloc[0])


def test_the_report_says_and_shows_what_was_marked(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("KEYS", str(tmp_path / "keys"))
    asked, more = found_in(0.6, 1)
    found = analyse("small")[1] | asked | {"main_block": "read"}
    said = " ".join(texts.written(found, CONTEXT)["marks"])
    assert "6 readers made 240 marks in 240 answers about 40 images" in said
    assert "All generated images were marked most often in the central ninth (100" in said
    assert "at least two readers marked the same ninth" in said and "None" not in said
    page = report.render(found, CONTEXT, {}).decode()
    assert '<h2 id="Marks">' in page and "lower left" in page
    captions = texts.captions(found, {})
    assert (
        captions["marks_read_where_images"][0]
        == "Marks on the images on which most readers marked the same place"
    )
    pictures = {image: np.full((20, 20), 0.5) for image in marks.most_alike(more["marks"], 5)}
    figures.theme()
    drawn = marks.on_images(more["marks"], pictures, 6)
    assert "6 of 6 readers marked" in drawn.axes[0].get_title("left")
    shares = marks.by_source(more["marks"], found["marks"][0]["answers_by_source"])
    assert [axes.get_title("left") for axes in shares.axes[:2]] == [
        "CT images by a model",
        "real CT images",
    ]
