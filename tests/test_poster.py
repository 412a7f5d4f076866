"""The poster and the files of its companion page: what they show, what they must not, what fits."""

import json
import re

import cv2
import numpy as np
import pandas as pd
import poster_studies
import pytest
from conftest import values
from PIL import Image

from helpers import licences
from helpers.analyse_readings import report
from helpers.poster import companion, key_figure, making, showing, texts
from helpers.runner import folders, parameters, run_folder, runs


@pytest.fixture
def place(study_folders):
    return study_folders


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    """A study with two readers, its poster and its companion page."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("ordinary")
        for name in ("PARAMS", "OUTPUTS", "KEYS"):
            patch.setenv(name, str(root / name.lower()))
        found = poster_studies.analysed(frames=8)
        run, about, said = poster_studies.poster()
        yield run, about, said, found


def page_of(run):
    content = (run.folder / "companion" / "data.js").read_text()
    return json.loads(content.removeprefix("self.COMPANION = ").rstrip(";\n"))


def grey(run):
    with Image.open(run.folder / "poster.png") as picture:
        return np.asarray(picture.convert("L"))


def nothing_overflows(run):
    """The margins and the gutters between the columns are blank paper."""
    page = grey(run)
    height, width = page.shape
    body = page[int(0.3 * height) :]
    margin, gutter = int(0.022 * width), int(0.012 * width)
    column = (width - 2 * 30 / 1189 * width - 2 * 26 / 1189 * width) / 3
    first = 30 / 1189 * width + column + 0.3 * 26 / 1189 * width
    second = first + column + 26 / 1189 * width
    edges = [body[:, :margin], body[:, -margin:], page[-int(0.012 * height) :]]
    edges += [body[:, int(left) : int(left) + gutter // 2] for left in (first, second)]
    return all(edge.min() == 255 for edge in edges)


def test_every_number_is_that_of_the_results_and_what_is_simulated_is_marked(ordinary):
    run, about, said, found = ordinary
    assert about["points"] >= 24
    assert nothing_overflows(run)
    assert f"{found['design']['images']} images" in said["summary"][1]
    assert page_of(run)["simulated"] == ["phantom cases", "readers"]
    banner = Image.open(run.folder / "poster.png").convert("RGB").getpixel((5, 5))
    assert banner == (0xB0, 0, 0x20)


def test_the_code_on_the_poster_opens_the_page(ordinary):
    run, about, _, _ = ordinary
    page = grey(run)
    height, width = page.shape
    figure = about["figure"]
    top, left = int(figure["top"] * height), int(figure["left"] * width)
    seen = page[
        top : top + int(figure["height"] * height), left : left + int(figure["width"] * width)
    ]
    text, corners, _ = cv2.QRCodeDetector().detectAndDecode(seen)
    assert text == about["address"] == companion.PREVIEW
    # The code lies where the page believes it to lie, and so does the rim.
    told = page_of(run)["figure"]
    unit = seen.shape[1] / told["width"]
    code = told["code"]
    expected = np.array(
        [[code["x"], code["y"]], [code["x"] + code["size"], code["y"] + code["size"]]]
    )
    assert np.abs(corners[0][[0, 2]] / unit - expected).max() < 0.12
    inside = int((told["paper"] + told["rim"] / 2) * unit)
    assert seen[inside, inside] < 40 and seen[inside // 3, inside // 3] > 250


def test_near_copies_and_images_without_an_open_licence_are_never_shown(place):
    poster_studies.analysed()
    table = folders.outputs_folder("small") / "01_prepare_cases" / "images.csv"
    cases = pd.read_csv(table)
    cases["licence"] = ["CC BY-NC-ND 4.0", "hospital", "CC BY 3.0", None, "CC0-1.0"] * 2 + [
        "CC-BY-SA-4.0"
    ] * (len(cases) - 10)
    cases.to_csv(table, index=False)
    run, _, said = poster_studies.poster()
    rows = showing.read_images(run).set_index("image_id")
    nearest = runs.load("small", "05_audit_images").read("nearest.csv").set_index("image_id")
    copies = nearest.index[nearest["copy"]]
    assert len(copies) and not rows.loc[copies.intersection(rows.index), "shown"].any()
    licences = cases.set_index("image_id")["licence"]
    real = rows[rows["origin"] == "real"]
    for image_id, shown in real["shown"].items():
        assert shown == (licences[image_id] in ("CC BY 3.0", "CC0-1.0", "CC-BY-SA-4.0")), image_id
    asked = {image["id"] for image in page_of(run)["quiz"]}
    assert asked == set(rows.index[rows["shown"]])
    assert len(list((run.folder / "companion" / "images").iterdir())) == len(asked)
    assert re.search(r"\d of the 12 real images (was|were) left out", " ".join(said["sources"]))


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("CC0-1.0", True),
        ("CC BY 4.0", True),
        ("cc-by-sa-3.0", True),
        ("public domain", True),
        ("MIT (simulated)", True),
        ("Creative Commons Attribution 3.0 Unported License", True),
        ("https://creativecommons.org/licenses/by/4.0/", True),
        ("https://creativecommons.org/licenses/by-nc/4.0/", False),
        ("Creative Commons Attribution-NonCommercial 3.0", False),
        ("CC BY-NC 4.0", False),
        ("CC-BY-ND-4.0", False),
        ("CC-BY-NC-SA-4.0", False),
        ("Mitsubishi internal", False),
        ("data use agreement", False),
        ("", False),
        (None, False),
    ],
)
def test_licences(licence, allowed):
    assert licences.may("shown", licence) == allowed
    assert licences.may("leave", licence) == allowed


def test_nothing_is_made_before_every_reader_has_locked(place):
    poster_studies.analysed()
    path = folders.outputs_folder("small") / "08_analyse_readings" / "results.json"
    found = json.loads(path.read_text())
    for change, who in (
        (lambda f: f["readers"][1].update(locked=False), "R2"),
        (lambda f: f["context"].update(planned_readers=3), "1 of 3 planned readers"),
    ):
        early = json.loads(json.dumps(found))
        change(early)
        path.write_text(json.dumps(early))
        with pytest.raises(runs.RunError, match=f"{who} had not locked"):
            poster_studies.poster()
    assert not (folders.outputs_folder("small") / "10_make_poster" / "companion").exists()


def test_a_reader_who_withdrew_holds_nothing_up(place):
    poster_studies.analysed(readers=3, withdrawn=(2,))
    _, about, said = poster_studies.poster()
    assert about["points"] >= 24
    said = " ".join(said["methods"])
    assert "every reader who stayed had locked their answers" in said
    assert "Not all planned readers had locked when it was opened in an emergency (a reader" in said


def test_the_poster_says_that_the_comparison_is_not_the_planned_one(place):
    poster_studies.analysed()
    compared = values("09_compare_with_paper", xrays=30)  # as SET= would give it
    runs.begin("small", "09_compare_with_paper", compared).finish()
    run = poster_studies.begin(comparison="09_compare_with_paper")
    changes = making.read_results(run)["context"]["plan_changes"]
    run.release()
    assert "xrays of 09_compare_with_paper was 20 and is 30" in changes


def test_the_poster_says_what_the_report_says(place):
    poster_studies.analysed()
    run = poster_studies.begin(gallery_images=1)
    found = making.read_results(run)
    found["context"]["simulated"] = ["readers"]
    locked = "when all readers had locked their answers"
    found["context"]["openings"] = [report.OPENED["simulated readers"], locked]
    rows, frames = showing.read_images(run), showing.read_frames(run)
    rows["votes_fake"] = 2  # the simulated readers may agree on a single one
    said = making.say(run, found, rows, making.choose(run, rows, frames), frames)
    run.release()
    opened = "opened to simulate the readers' answers and again when every reader had locked"
    assert opened in " ".join(said["methods"])
    assert "All intervals are 95 % intervals." in " ".join(said["methods"])
    some = r"1 of the \d+ generated images .*that both readers called fake\."
    assert re.fullmatch(some, said["fakes"][0])
    question = poster_studies.TOLD["question"]
    assert said["summary"][0] == f"We asked: {question}"
    assert not any(question in text for text in said["asked"]), "readers were not asked this"
    assert any(text.startswith("Agreement between the readers: ") for text in said["results"])


LONG = (
    "Towards foundation models for medical images: can experienced thoracic radiologists, residents"
    " and pulmonologists tell X-ray and computed tomography images of the lung that were generated"
    " from text apart from real ones under conditions of daily clinical work?"
)
TOLD = {
    "one_author": {"authors": ["Ann Author"], "affiliations": []},
    "no_author": {"authors": [], "affiliations": []},
    "long_title_and_twelve_authors": {
        "title": LONG,
        "authors": [f"Bartholomew Maximilian Featherstonehaugh {n} ({n})" for n in range(1, 13)],
        "affiliations": [f"Institute number {n} of a long name, City of {n}" for n in range(1, 13)],
        "references": [f"Author {n}. A title. A journal 2020; {n}: 1–2." for n in range(1, 8)],
    },
    "markup": {"title": 'A #panic("x") *title* <b>with</b> $x$ & “marks” // \\ []'},
    "long_addresses": {
        "references": [f"A. https://example.org/{'x/' * 60}"],
        "contact": f"https://example.org/{'y' * 300}",
    },
    "numbers": {"title": 2026, "contact": 123, "protocol": 7},
    "other_letters": {"authors": ["Žofia Ünğ (1)", "Ωμέγα Ψ (2)"], "title": "Ist das echt? Größe"},
}


@pytest.mark.parametrize("case", TOLD)
def test_nothing_overflows_whatever_study_yaml_says(case, ordinary):
    poster_studies.tell(**TOLD[case])
    run, about, _ = poster_studies.poster(variant=case)
    assert about["points"] >= 24
    assert nothing_overflows(run)


DESIGNS = {
    "no CT": {"per": {"xray": (6, 6)}},
    "one reader": {"readers": 1},
    "six readers": {"readers": 6},
    "no generated image": {"per": {"xray": (8, 0)}},
    "no real image": {"per": {"xray": (0, 8), "ct": (0, 8)}, "training": 0},
}


@pytest.mark.parametrize("case", DESIGNS)
def test_nothing_overflows_whatever_was_read(case, place):
    poster_studies.analysed(**DESIGNS[case])
    made_here = runs.load("small", "04_sample_diffusion").finished
    run, about, said = poster_studies.poster(
        sampling="04_sample_diffusion" if made_here else "", paper="48x36"
    )
    assert about["points"] >= 24
    assert nothing_overflows(run)
    assert case != "no CT" or "CT" not in " ".join(said["samples"] + said["methods"])


def test_without_an_image_that_may_be_shown_the_figure_is_the_code_alone(place):
    poster_studies.analysed(per={"xray": (6, 0)}, training=0)
    table = folders.outputs_folder("small") / "01_prepare_cases" / "images.csv"
    pd.read_csv(table).assign(licence="all rights reserved").to_csv(table, index=False)
    run, _, said = poster_studies.poster(sampling="")
    page = page_of(run)
    assert page["quiz"] == [] and page["figure"]["tiles"] == []
    assert said["samples"] == said["fakes"] == []
    assert nothing_overflows(run)


def test_texts_that_fit_at_no_readable_size_are_refused_in_one_sentence(ordinary):
    poster_studies.tell(references=[f"Reference {n}. {LONG}" for n in range(80)])
    with pytest.raises(runs.RunError, match=r"study\.yaml do not fit on one page"):
        poster_studies.poster(variant="too-much")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"authors": [{"name": "A"}]}, "'authors' must be a list of texts"),
        ({"affiliations": 7}, "'affiliations' must be a list of texts"),
        ({"title": ["a", "b"]}, "'title' must be one text"),
        ({"contact": ["a", "b"]}, "'contact' must be one text"),
    ],
)
def test_a_bad_list_is_named(told, said, ordinary):
    poster_studies.tell(**told)
    with pytest.raises(parameters.ParameterError, match=said):
        texts.study_texts(poster_studies.begin(variant="bad"))


def test_a_missing_logo_is_named_and_a_logo_stands_on_the_poster(ordinary):
    poster_studies.tell(logos=["logo.svg"])
    with pytest.raises(runs.RunError, match=r"logo\.svg does not exist"):
        texts.study_texts(poster_studies.begin(variant="logo"))
    square = '<rect width="9" height="9"/>'
    logo = f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">{square}</svg>'
    (folders.params_folder("small") / "logo.svg").write_text(logo)
    run, _, _ = poster_studies.poster(variant="logo")
    page = grey(run)
    corner = page[int(0.05 * page.shape[0]) : int(0.12 * page.shape[0]), int(0.9 * page.shape[1]) :]
    assert (corner == 0).mean() > 0.2


@pytest.mark.parametrize("count", [4, 5, 12, 20])
def test_any_number_of_logos_leaves_the_title_its_room(count, ordinary):
    for number in range(count):
        name = f"logo{number}.png"
        Image.new("L", (300, 200), 90).save(folders.params_folder("small") / name)
    poster_studies.tell(logos=[f"logo{number}.png" for number in range(count)])
    run, about, _ = poster_studies.poster(variant=f"logos{count}")
    assert about["points"] >= 24 and nothing_overflows(run)
    page = grey(run)
    head = page[int(0.03 * page.shape[0]) : int(0.12 * page.shape[0])]
    edge, half = int(0.022 * page.shape[1]), page.shape[1] // 2
    assert head[:, :edge].min() == head[:, -edge:].min() == 255
    assert (head[:, :half] == 90).mean() < 0.001 < 0.05 < (head[:, half:] == 90).mean()


def test_a_character_that_no_font_has_is_named(ordinary):
    poster_studies.tell(authors=["\U00016b00 Zhang (1)"])
    with pytest.raises(runs.RunError, match="no font on this machine .*\U00016b00"):
        poster_studies.poster(variant="boxes")


@pytest.mark.parametrize(
    ("text", "name", "marks"),
    [
        ("Ann Author (1, 2)", "Ann Author", "1, 2"),
        ("Ann Author", "Ann Author", ""),
        ("Carl (Jr.) Author (2)", "Carl (Jr.) Author", "2"),
        ("Carl (Jr.) Author", "Carl (Jr.) Author", ""),
    ],
)
def test_the_marks_of_an_author_are_the_last_in_brackets(text, name, marks):
    assert making.author(text) == {"name": name, "marks": marks}


@pytest.mark.parametrize("name", ["logo.png", "logo.svg", "logo.tiff"])
def test_a_damaged_logo_is_one_sentence(name, ordinary):
    poster_studies.tell(logos=[name])
    (folders.params_folder("small") / name).write_bytes(b"<svg")
    with pytest.raises(runs.RunError, match="a logo must be a whole PNG, JPEG, WebP or SVG"):
        poster_studies.poster(variant="damaged")


def test_the_files_of_the_page_go_to_its_address_or_first_to_any_server(ordinary):
    begun = poster_studies.begin(variant="here", address="https://example.org/lungs")
    assert companion.next_step(begun) == "copy them to https://example.org/lungs/"
    begun = poster_studies.begin(variant="nowhere")
    assert "127.0.0.1" not in companion.next_step(begun)


@pytest.mark.parametrize(
    "address",
    [
        *("example.org/lungs", "ftp://example.org/", "https://a b/", "http:///x"),
        f"https://example.org/{'a' * 3000}",
    ],
)
def test_an_address_that_no_phone_opens_is_refused(address, ordinary):
    with pytest.raises(runs.RunError, match="whole address"):
        companion.address(poster_studies.begin(variant="elsewhere", address=address))


def test_forty_large_images_and_the_frames_stay_below_six_megabytes():
    random = np.random.default_rng(0)
    stage = random.integers(0, 256, (1024, 1024)).astype(np.uint8)
    assert 40 * len(companion.webp(stage)) + 26 * len(companion.webp(stage)) < 5_700_000
    own = sum(path.stat().st_size for path in companion.STATIC.iterdir())
    assert own < 300_000


def test_the_same_study_gives_the_same_files(ordinary):
    run, _, _, _ = ordinary
    poster_studies.tell()
    again = runs.load(run.study, run.name)
    before = {entry["path"]: entry["sha256"] for entry in again.manifest["files"]}
    run_folder.clear(run.folder)
    (run.folder / "manifest.json").unlink(missing_ok=True)
    second, _, _ = poster_studies.poster()
    assert {entry["path"]: entry["sha256"] for entry in second.manifest["files"]} == before


def test_frames_of_a_near_copy_are_not_shown(place):
    poster_studies.analysed(frames=4)
    folder = folders.outputs_folder("small")
    name = next((folder / "04_sample_diffusion" / "frames").iterdir()).stem.split("-")[0]
    run = poster_studies.begin()
    assert showing.read_frames(run)[0] == name
    table = folder / "05_audit_images" / "nearest.csv"
    nearest = pd.read_csv(table)
    nearest.loc[nearest["image_id"] == name, "copy"] = True
    nearest.to_csv(table, index=False)
    assert showing.read_frames(run) == ("", [])


def test_captions_of_a_recording(ordinary):
    poster_studies.tell()
    folder = folders.params_folder("small")
    (folder / "talk.mp3").write_bytes(b"sound")
    run, _, said = poster_studies.poster(variant="talk", audio="talk.mp3")
    page = page_of(run)
    assert page["audio"] == "explanation.mp3"
    assert [cue["text"] for cue in page["cues"]] == said["explanation"]
    told = "WEBVTT\n\n1\n00:00.000 --> 00:01.500 align:start\nOne <b>line</b>\nof two\n\n"
    (folder / "talk.vtt").write_text(told + "00:00:01.500 --> 01:00:03.000\r\nThe end\r\n")
    cues = companion.cues(folder / "talk.vtt")
    assert cues[0] == {"start": 0, "end": 1.5, "text": "One line of two"}
    assert cues[1] == {"start": 1.5, "end": 3603, "text": "The end"}
    (folder / "talk.vtt").write_text("nothing")
    with pytest.raises(runs.RunError, match="has no captions"):
        companion.cues(folder / "talk.vtt")


@pytest.mark.parametrize("count", [0, 1, 11, 12, 19, 20, 60])
def test_images_of_the_key_figure_lie_side_by_side(count):
    figure = key_figure.layout(count)
    covered = np.zeros((round(figure["height"] * 10), round(figure["width"] * 10)), int)
    boxes = [(tile["x"], tile["y"], 2) for tile in figure["tiles"]]
    boxes.append((figure["box"]["x"], figure["box"]["y"], figure["box"]["size"]))
    for x, y, side in boxes:
        covered[round(10 * y) : round(10 * (y + side)), round(10 * x) : round(10 * (x + side))] += 1
    paper = round(10 * figure["paper"])
    assert (covered[paper:-paper, paper:-paper] == 1).all() and covered.max() == 1
