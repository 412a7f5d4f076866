"""Text in the pixels: found, masked by one rule, or held back for a person to look at."""

import base64
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from conftest import values
from dicom_files import chest_xray, write
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from helpers import burned_in_text, images, study, tables, text_detection
from helpers.prepare_cases import cases, review
from helpers.runner import folders, runs


def lettered(seed=0, size=512, words=((20, 20, "DOE JANE 12.03.1956", 26), (440, 60, "L", 44))):
    """A 12-bit X-ray with text burned in, and where."""
    array = chest_xray(size, seed)
    drawn = Image.new("L", (size, size))
    for x, y, word, height in words:
        ImageDraw.Draw(drawn).text((x, y), word, fill=255, font=ImageFont.load_default(height))
    letters = np.asarray(drawn) > 100
    array[letters] = 4095
    return array, letters


def test_names_and_markers_are_found_and_painted_over():
    array, letters = lettered()
    masked, share = burned_in_text.mask_text(array, 12)
    assert (masked[letters] == 4095).mean() < 0.05, "the letters are gone"
    assert share < 0.1
    np.testing.assert_array_equal(masked[200:], array[200:])


@pytest.mark.parametrize(
    "turn",
    [np.rot90, lambda a: np.rot90(a, 2), lambda a: np.rot90(a, 3), np.fliplr, np.flipud],
    ids=["upward", "upside down", "downward", "mirrored", "mirrored, upside down"],
)
def test_names_are_found_however_the_film_lies(turn):
    array, letters = lettered(words=((20, 20, "DOE JANE 12.03.1956", 26),))
    masked, _ = burned_in_text.mask_text(np.ascontiguousarray(turn(array)), 12)
    assert (masked[turn(letters)] == 4095).mean() < 0.05


def test_a_picture_without_text_stays_as_it_is():
    array = chest_xray(512, 3)
    masked, share = burned_in_text.mask_text(array, 12)
    assert share < 0.01 and (masked == array).mean() > 0.99


@given(st.floats(0.1, 0.8), st.floats(0.1, 0.8), st.floats(0.05, 0.2), st.floats(0.03, 0.1))
def test_a_mask_covers_its_box_and_little_more(x, y, width, height):
    array = np.random.default_rng(0).integers(0, 4096, (200, 300)).astype(np.uint16)
    box = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
    masked, share = burned_in_text.mask(array, [box])
    inside = masked[
        int(y * 200) + 1 : int((y + height) * 200), int(x * 300) + 1 : int((x + width) * 300)
    ]
    assert inside.min() == inside.max(), "one grey"
    assert width * height * 0.8 < share < (width + 0.08) * (height + 0.08)
    assert masked.dtype == array.dtype and masked.shape == array.shape


@pytest.mark.parametrize(
    ("corners", "text", "score", "expected"),
    [
        ([[0.4, 0.4], [0.5, 0.4], [0.5, 0.45], [0.4, 0.45]], "PORTABLE", 0.98, True),
        ([[0.4, 0.4], [0.45, 0.4], [0.45, 0.45], [0.4, 0.45]], "?", 0.2, False),
        ([[0.9, 0.4], [0.95, 0.4], [0.95, 0.45], [0.9, 0.45]], "?", 0.2, False),
        ([[0.9, 0.4], [0.95, 0.4], [0.95, 0.45], [0.9, 0.45]], "L", 0.9, True),
        ([[0.9, 0.4], [0.95, 0.4], [0.95, 0.45], [0.9, 0.45]], "T", 0.68, False),
        ([[0.9, 0.4], [0.95, 0.4], [0.95, 0.45], [0.9, 0.45]], "↑", 0.95, False),
        ([[0.1, 0.1], [0.5, 0.1], [0.5, 0.8], [0.1, 0.8]], "lung", 0.9, False),
        ([[0.1, 0.5], [0.25, 0.5], [0.25, 0.6], [0.1, 0.6]], "B", 0.8, False),
        ([[0.0, 0.0], [0.99, 0.0], [0.99, 0.06], [0.0, 0.06]], "a long banner", 0.9, True),
        ([[0.58, 0.19], [0.69, 0.19], [0.69, 0.41], [0.58, 0.41]], "INS", 0.54, False),
        ([[0.2, 0.1], [0.6, 0.1], [0.6, 0.16], [0.2, 0.16]], "DOE JANE", 0.6, True),
    ],
)
def test_what_counts_as_text(corners, text, score, expected):
    small = np.prod(np.ptp(corners, axis=0)) < burned_in_text.SMALL
    assert burned_in_text._is_text(np.array(corners), small, text, score) == expected


def test_without_the_package_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setattr(burned_in_text, "find_spec", lambda name: None)
    with pytest.raises(burned_in_text.MissingOCR, match=r"pip install -e '.\[ocr\]'"):
        burned_in_text.check()


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        write(
            tmp_path / "in" / f"{number}.dcm",
            lettered(number)[0] if number == 0 else chest_xray(512, number),
        )
    return tmp_path / "in"


def imported(folder, monkeypatch, policy, **changes):
    monkeypatch.setenv("CASES", str(folder))
    changes |= {"burned_in_text": policy, "images_hold_no_text": policy == "keep"}
    asked = values("01_prepare_cases", size=256, workers=1, **changes)
    run = runs.begin("s", "01_prepare_cases", asked)
    made = cases.prepare(run)
    run.release()
    return made


def test_policies(folder, study_folders, monkeypatch):
    kept = imported(folder, monkeypatch, "keep")
    assert len(kept.images) == 3 and (kept.imported["masked"] == 0).all()
    masked = imported(folder, monkeypatch, "mask")
    assert len(masked.images) == 3 and (masked.imported["masked"] > 0.005).sum() == 1
    rejected = imported(folder, monkeypatch, "reject")
    assert len(rejected.images) == 2 and rejected.rejected["reason"].tolist() == [
        "text in the pixels"
    ]


def test_review_waits_for_a_decision_and_shows_crops_beside_the_keys_alone(
    folder, study_folders, monkeypatch
):
    first = imported(folder, monkeypatch, "review")
    assert len(first.images) == 2 and "waits for a decision" in first.rejected["reason"].iloc[0]
    place = folders.keys_folder("s") / "01_prepare_cases.review"
    listed = pd.read_csv(place / "list.csv", dtype=str, keep_default_na=False)
    assert listed["decision"].tolist() == [""] and len(list(place.glob("*.png"))) == int(
        listed["crops"].iloc[0]
    )
    assert not list((folders.outputs_folder("s") / "01_prepare_cases").glob("*review*"))
    listed.assign(decision="mask").to_csv(place / "list.csv", index=False)
    second = imported(folder, monkeypatch, "review", seed=2)
    assert len(second.images) == 3 and (second.imported["masked"] > 0).sum() == 1
    assert review.decisions(place) == {listed["image_id"].iloc[0]: "mask"}


def test_a_wrong_decision_is_named(tmp_path):
    waiting = pd.DataFrame(
        {"image_id": ["a"], "file": ["x.dcm"], "crops": [[base64.b64encode(b"png").decode()]]}
    )
    review.ask(tmp_path, waiting)
    review.ask(tmp_path, waiting)
    assert len(pd.read_csv(tmp_path / "list.csv")) == 1, "asked once"
    text = (tmp_path / "list.csv").read_text().replace(",1,", ",1,msk")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(tables.TableError, match=r"list\.csv row 2, .*'msk'.* mean 'mask'"):
        review.decisions(tmp_path)


def test_decisions_are_not_lost_to_another_title_or_to_a_spreadsheets_numbers(tmp_path):
    (tmp_path / "list.csv").write_text("image_id;Entscheidung\na;mask\n")
    with pytest.raises(tables.TableError, match=r"list\.csv: column 'decision' is missing"):
        review.decisions(tmp_path)
    (tmp_path / "list.csv").write_text("image_id;decision\n1234567890;mask\n")
    assert review.decisions(tmp_path) == {"001234567890": "mask"}


def marker(turn, frame):
    """An X-ray with a letter, framed or not, that lies or is mirrored."""
    patch = Image.new("L", (40, 44), 90 if frame else 0)
    ImageDraw.Draw(patch).text((8, 0), "L", fill=255, font=ImageFont.load_default(38))
    patch = turn(np.asarray(patch))
    array = images.eight_bits(chest_xray(512, 7), 12).copy()
    place = array[40 : 40 + patch.shape[0], 420 : 420 + patch.shape[1]]
    place[:] = np.where(patch > 0, patch, place)
    return array


@pytest.mark.parametrize("frame", [True, False])
@pytest.mark.parametrize(
    "turn",
    [lambda a: a, lambda a: a[:, ::-1], np.rot90, lambda a: np.rot90(a, 2)],
    ids=["upright", "mirrored", "lying", "upside down"],
)
def test_a_marker_is_found_however_it_lies(turn, frame):
    boxes = burned_in_text.find(marker(turn, frame), 8)
    middles = [corners.mean(axis=0) for corners in boxes]
    assert any(0.8 < x < 0.92 and 0.06 < y < 0.2 for x, y in middles)


def test_what_is_small_and_at_the_edge_is_no_text_for_that():
    array = images.eight_bits(chest_xray(512, 3), 12).copy()
    drawn = Image.fromarray(array)
    pen = ImageDraw.Draw(drawn)
    for x, y in ((20, 200), (450, 300), (30, 440)):  # wires: bright, thin, at the edge
        pen.arc([x, y, x + 40, y + 60], 200, 340, fill=220, width=3)
        pen.arc([x + 8, y + 10, x + 30, y + 60], 220, 320, fill=200, width=2)
    assert burned_in_text.find(np.asarray(drawn), 8) == []


SHAPES = {
    "bold L": ("DejaVuSans-Bold", "L", lambda p: p),
    "serif L": ("DejaVuSerif-Bold", "L", lambda p: p),
    "narrow L": ("DejaVuSansMono", "L", lambda p: p.resize((p.width * 3 // 4, p.height))),
    "L askew": ("DejaVuSans-Bold", "L", lambda p: p.rotate(12, expand=True)),
    "L mirrored and lying": ("DejaVuSans-Bold", "L", lambda p: p.transpose(0).rotate(90)),
    "italic R": ("DejaVuSans-Oblique", "R", lambda p: p),
    "C1": ("DejaVuSans-Bold", "C1", lambda p: p),
    "boxed 3": ("DejaVuSans-Bold", "3", lambda p: ImageOps.expand(p, 4, 255)),
    "boxed 7": ("DejaVuSans", "7", lambda p: ImageOps.expand(p, 3, 255)),
}


def film_with(picture, place=(400, 50), seed=11):
    """An 8-bit X-ray with a picture in it, bright where the picture is."""
    array = images.eight_bits(chest_xray(512, seed), 12).copy()
    ground = Image.fromarray(array)
    ground.paste(235, place, picture)
    return np.asarray(ground)


@pytest.mark.parametrize("height", [22, 34])
@pytest.mark.parametrize("shape", SHAPES)
def test_markers_of_many_shapes_are_found(shape, height):
    font, text, change = SHAPES[shape]
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    font = ImageFont.truetype(path, height)
    left, top, right, bottom = font.getbbox(text)
    picture = Image.new("L", (right - left + 12, bottom - top + 12))
    ImageDraw.Draw(picture).text((6 - left, 6 - top), text, 255, font)
    boxes = burned_in_text.find(film_with(change(picture)), 8)
    middles = [corners.mean(axis=0) * 512 for corners in boxes]
    assert any(395 < x < 460 and 45 < y < 110 for x, y in middles)


def lead(initials, tilt, gap, width, blur):
    """A marker of lead on its strip, as it is laid beside a patient: L above initials."""
    picture = Image.new("L", (90, 120))
    pen = ImageDraw.Draw(picture)
    pen.rectangle([28, 8, 62, 112], fill=40)
    pen.rectangle([36, 20, 36 + width // 2, 60], fill=255)
    pen.rectangle([36, 53, 42 + width, 60], fill=255)
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"
    pen.text((33, 61 + gap), initials, 255, ImageFont.truetype(path, 18))
    turned = picture.rotate(tilt, resample=Image.Resampling.BICUBIC)
    return turned.filter(ImageFilter.GaussianBlur(blur))


def on_film(picture, place, strength, seed=11, size=512):
    """An 8-bit X-ray on which a picture lies like lead: as bright as its shadow allows."""
    film = images.eight_bits(chest_xray(size, seed), 12).astype(float)
    x, y = place
    part = film[y : y + picture.height, x : x + picture.width]
    part += np.asarray(picture)[: part.shape[0], : part.shape[1]] * strength
    return np.clip(film, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("initials", "tilt", "gap", "width", "blur", "strength"),
    [
        ("GV", -8, 1, 12, 1.6, 0.35),  # its blurred foot touches the initials
        ("HS", -8, 1, 12, 1.6, 0.35),
        ("", 35, 0, 16, 0.8, 0.5),  # askew
        ("", -40, 0, 18, 0.8, 0.4),
        ("DG", 25, 2, 16, 0.8, 0.5),
        ("", 0, 0, 10, 0.8, 0.3),  # narrow, alone and faint
    ],
)
@pytest.mark.parametrize("view", [lambda p: p, ImageOps.mirror], ids=["upright", "mirrored"])
def test_letters_of_lead_are_found(initials, tilt, gap, width, blur, strength, view):
    film = on_film(view(lead(initials, tilt, gap, width, blur)), (400, 20), strength)
    masked, _ = burned_in_text.mask_text(film, 8)
    letter = np.asarray(view(lead("", tilt, gap, width, blur))) > 160
    assert (masked != film)[20:140, 400:490][letter].mean() > 0.9


@pytest.mark.parametrize("turn", [0, 90, 270])
def test_a_faint_word_without_sharp_strokes_is_found(turn):
    picture = Image.new("L", (110, 110))
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"
    ImageDraw.Draw(picture).text((55, 55), "RIGHT", 255, ImageFont.truetype(font, 26), "mm")
    picture = picture.rotate(turn).filter(ImageFilter.GaussianBlur(1.6))
    film = on_film(picture, (20, 180), 0.2)
    masked, _ = burned_in_text.mask_text(film, 8)
    assert (masked != film)[180:290, 20:130][np.asarray(picture) > 120].mean() > 0.9


def test_a_letter_that_the_edge_cuts_is_found_above_its_initials():
    marker = lead("DG", 0, 2, 16, 0.8).crop((0, 30, 90, 120))
    film = on_film(marker, (400, 0), 0.5)
    masked, _ = burned_in_text.mask_text(film, 8)
    letter = np.asarray(lead("", 0, 2, 16, 0.8).crop((0, 30, 90, 120))) > 160
    assert (masked != film)[:90, 400:490][letter].mean() > 0.9


def test_a_letter_that_hangs_on_the_bright_frame_of_a_film_is_found():
    film = images.eight_bits(chest_xray(512, 11), 12).copy()
    film[20:80, 420:480] = 0
    film[:, 470:476], film[:6], film[500:506], film[:, :6] = 220, 220, 220, 220
    film[20:80, 464:471] = np.linspace(40, 90, 7)
    film[40:64, 440:445] = film[59:64, 440:464] = 255
    boxes = burned_in_text.find(film, 8)
    assert any((abs(box.mean(axis=0) * 512 - [452, 51]) < 8).all() for box in boxes)


@pytest.mark.parametrize("strength", [0.3, 0.6])
@pytest.mark.parametrize("seed", [11, 12])
def test_wires_snaps_buttons_and_arrows_are_no_text(seed, strength):
    picture = Image.new("L", (110, 110))
    pen = ImageDraw.Draw(picture)
    pen.line([(8, 22), (18, 44)], fill=255, width=5)  # pieces of wire
    pen.line([(60, 8), (42, 24)], fill=255, width=8)
    pen.ellipse([70, 8, 100, 44], fill=255)  # a button
    pen.ellipse([10, 60, 20, 84], fill=255)  # a snap, seen from its side
    pen.polygon([(60, 60), (74, 76), (65, 76), (65, 100), (55, 100), (55, 76), (46, 76)], fill=255)
    assert burned_in_text.find(on_film(picture, (390, 30), strength, seed), 8) == []


@pytest.mark.parametrize("turns", range(4))
def test_arrows_and_electrodes_are_no_text(turns):
    arrow, ring, clip = (Image.new("L", (40, 40)) for _ in range(3))
    shaft = [(20, 4), (34, 20), (26, 20), (26, 36), (14, 36), (14, 20), (6, 20)]
    ImageDraw.Draw(arrow).polygon(shaft, fill=255)
    ImageDraw.Draw(ring).ellipse([8, 8, 30, 30], outline=255, width=4)
    ImageDraw.Draw(clip).line([(6, 30), (18, 8), (24, 12), (34, 10)], fill=200, width=3)
    for picture in (arrow, ring, clip):
        assert burned_in_text.find(film_with(picture.rotate(90 * turns)), 8) == []


def test_small_text_of_a_large_film_is_found_and_little_is_looked_at(monkeypatch):
    array = images.eight_bits(chest_xray(2000, 5), 12).copy()
    film = Image.fromarray(array)
    ImageDraw.Draw(film).text((60, 1900), "DOE JANE 1956", 255, ImageFont.load_default(22))
    looked = []
    run = text_detection._run
    monkeypatch.setattr(
        text_detection, "_run", lambda session, grey: looked.append(grey.size) or run(session, grey)
    )
    masked, _ = burned_in_text.mask_text(np.asarray(film), 8)
    assert (masked[1895:1930, 60:220] > 240).mean() < 0.002
    whole, sheet = text_detection.WHOLE_SIDE**2, text_detection.SHEET**2
    assert sum(looked) < whole + 2 * sheet, "looked at closely only where strokes are"


def test_a_list_that_is_not_understood_stops_a_redo_before_anything_is_cleared(study_folders):
    folder = folders.keys_folder("s") / "01_prepare_cases.review"
    folder.mkdir()
    (folder / "list.csv").write_text("Image_ID;Decision\na;MASK\nb;msk\n")
    run = runs.Run("s", "01_prepare_cases", values("01_prepare_cases"))
    assert "list.csv row 3, column 'decision': 'msk'" in study._bad_tables(run)
    (folder / "list.csv").write_text("Image_ID;Decision\na;MASK\nb;\n")
    assert study._bad_tables(run) == "" and review.decisions(folder) == {"a": "mask"}
