"""Draw, blind and seal, on small images made here."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from helpers import burned_in_text, images, tables
from helpers.assemble_reading_set import blinding, blocks, envelope, framing, seal
from helpers.assemble_reading_set import draw as drawing
from helpers.files import sha256
from helpers.formats.picture import ImageError
from helpers.rehearsal import phantom_ct, phantom_xray
from helpers.runner import executed_code, folders, parameters, runs

STUDY = "unit"


@pytest.fixture(autouse=True)
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("PARAMS", str(tmp_path / "params"))
    (tmp_path / "params" / STUDY).mkdir(parents=True)
    (tmp_path / "params" / STUDY / "study.yaml").write_text(
        "title: Lungs\nconsent: I agree.\nsecret_ratio: half are fake\n"
    )
    return tmp_path


def make_run(
    name, count, origin, modality="xray", side=40, bits=12, seed=0, finding="effusion", prompts=4
):
    """A finished run with `count` random images and their images.csv."""
    random, rows = np.random.default_rng(seed), []
    folder = folders.outputs_folder(STUDY) / name
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        array = random.integers(0, 2**bits, (side, side)).astype(
            np.uint8 if bits <= 8 else np.uint16
        )
        image_id = f"{name[:2]}{origin[0]}{modality}{number:03d}"
        path = folder / "images" / f"{image_id}.png"
        path.write_bytes(images.write_png(array))
        row = {
            "image_id": image_id,
            "path": f"images/{image_id}.png",
            "sha256": sha256(path),
            "modality": modality,
            "view": "PA",
        }
        row |= {
            "finding": finding if isinstance(finding, str) else finding[number % len(finding)],
            "origin": origin,
            "simulated": True,
        }
        row |= {"width": side, "height": side, "bits": bits}
        if origin == "real":
            row |= {"split": ("test", "train")[number % 5 == 0], "patient": f"patient{number // 2}"}
        else:
            row |= {"generator": "made", "prompt_id": f"prompt{number % prompts}"}
        rows.append(row)
    tables.write(pd.DataFrame(rows), folder / "images.csv")
    (folder / "manifest.json").write_text(
        json.dumps({"status": "finished", "run": name, "files": [], "simulated": []})
    )
    return runs.load(STUDY, name)


@pytest.fixture
def pool():
    real = make_run("01_prepare_cases", 60, "real", finding=["effusion", "no_finding"])
    made = make_run("02_generate_openai", 40, "generated", bits=8, side=48, seed=1, prompts=10)
    return drawing.drawable(drawing.gather([real, made]), [])


def shown(**values):
    """How images are shown, as write_set is asked for it."""
    return {"reading_size": 32, "framing": "whole", "margin": 0.02} | values


def drawn_at_random(pool, wanted, repeats, min_distance, seed):
    asked = {"repeats": repeats, "min_distance": min_distance, "seed": seed}
    return drawing.draw(pool, wanted, asked)


def wanted(*rows):
    columns = ("run", "origin", "modality", "count", "finding", "training", "generator")
    return pd.DataFrame(
        [dict(zip(columns, [*row, *[pd.NA, False, pd.NA][len(row) - 4 :]])) for row in rows]
    )


HALF = (("01_prepare_cases", "real", "xray", 12), ("02_generate_openai", "generated", "xray", 12))
TRAINING = (
    ("01_prepare_cases", "real", "xray", 2, pd.NA, True),
    ("02_generate_openai", "generated", "xray", 2, pd.NA, True),
)


def sealed_set(pool, folder, rows=HALF + TRAINING, **choices):
    drawn = drawing.draw(
        pool, wanted(*rows), {"repeats": 0.15, "min_distance": 6, "seed": 3} | choices
    )
    key = blinding.write_set(drawn, folder / "reading_set", STUDY, shown())
    seal.seal(key, folder / "reading_set", folder / "sealed", STUDY, readers=2)
    return key


LOCKED = {"one": "2026-01-01T00:00:00Z", "two": "2026-01-02T00:00:00Z"}


def opened(folder, locks=None, **choices):
    return seal.unseal(
        folder / "reading_set",
        folder / "sealed",
        STUDY,
        LOCKED if locks is None else locks,
        **choices,
    )


def audit(near=(), copies=(), **values):
    """A finished run of 05 that found these pairs (generated, real) near and these copies."""
    folder = folders.outputs_folder(STUDY) / "05_audit_images"
    rows = [(made, real, 0.1, False, True, False, True) for made, real in near]
    rows += [(made, None, 0.1, True, True, True, False) for made in copies]
    columns = ["image_id", "nearest_image_id", "distance", "trained_here", "near", "copy"]
    tables.write(pd.DataFrame(rows, columns=[*columns, "release"]), folder / "nearest.csv")
    asked = shown(**values) | {"framing": "whole"}
    manifest = {"status": "finished", "parameters": asked, "files": [], "simulated": []}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return runs.load(STUDY, folder.name)


def drawing_run(**values):
    return runs.Run(STUDY, "06_assemble_reading_set", FRAMED | values)


def test_only_the_test_split_is_drawn_and_copies_are_refused(pool):
    assert set(pool.loc[pool["origin"] == "real", "split"]) == {"test"}
    copy = pool.loc[pool["origin"] == "generated", "image_id"].iloc[0]
    left = drawing.candidates(drawing_run(), audit(copies=[copy]), wanted(*HALF))
    assert copy not in set(left["image_id"]) and left.attrs == {"refused": 1, "small": {}}


def test_too_small_is_left_out_and_counted_and_only_too_few_left_stops(pool, capsys):
    left = drawing.candidates(drawing_run(), audit(reading_size=44), wanted(*HALF))
    assert left.attrs["small"] == {"01_prepare_cases": 48} and set(left["origin"]) == {"generated"}
    assert "48 of 01_prepare_cases" in capsys.readouterr().out
    drawn_at_random(left, wanted(HALF[1]), 0, 0, 1)
    with pytest.raises(drawing.BlindingError, match="0 are left"):
        drawn_at_random(left, wanted(*HALF), 0, 0, 1)


def test_an_image_too_near_to_a_real_one_is_never_drawn_with_it(pool):
    real = pool.loc[pool["origin"] == "real", "image_id"].tolist()
    made = pool.loc[pool["origin"] == "generated", "image_id"].tolist()
    pairs = dict(zip(made, real))  # 40 of each
    found = drawing.candidates(drawing_run(), audit(near=pairs.items()), wanted(*HALF))
    assert found.set_index("image_id")["made_from"].dropna().to_dict() == pairs
    for seed in range(10):
        drawn = set(drawn_at_random(found, wanted(*HALF), 0, 0, seed)["image_id"])
        assert not any({image, pairs.get(image)} <= drawn for image in drawn)


@pytest.mark.parametrize(
    "links",
    [
        {"made1": {"made_from": "real1", "near": "real2"}},
        {
            "made1": {"duplicate_group": "m"},
            "made2": {"made_from": "real2", "duplicate_group": "m"},
        },
        {"made1": {"made_from": "made2"}, "made2": {"made_from": "real2"}},
    ],
    ids=["another case is nearer", "the duplicate of one made from it", "over two steps"],
)
def test_whatever_connects_two_images_keeps_them_apart(links):
    ids = ["made1", "made2", "real1", "real2", "real3"]
    frame = pd.DataFrame([{"image_id": name} | links.get(name, {}) for name in ids])
    frame = frame.reindex(
        columns=["image_id", "made_from", "near", "duplicate_group", "patient", "prompt_id"]
    )
    frame["run"] = frame["origin"] = [*["generated"] * 2, *["real"] * 3]
    frame = frame.assign(modality="xray", finding="", view="", generator="").convert_dtypes()
    every = wanted(("generated", "generated", "xray", 1), ("real", "real", "xray", 1))
    pairs = [set(drawn_at_random(frame, every, 0, 0, n)["image_id"]) for n in range(20)]
    linked = {"made1", "made2"} if "made2" in links else {"made1"}
    assert not any(pair & linked and "real2" in pair for pair in pairs)


@pytest.mark.parametrize("shape", [(60, 48), (48, 60), (60, 60), (60, 20)])
def test_no_pixel_of_a_real_image_is_cut_off(pool, tmp_path, shape):
    """A border of one bright pixel all round, portrait, landscape, square: it is there, whole."""
    drawn = drawn_at_random(pool, wanted(HALF[0]), 0, 0, 1)
    for file in drawn["file"]:
        array = np.random.default_rng(0).integers(500, 1500, shape).astype(np.uint16)
        array[[0, -1]], array[:, [0, -1]] = 4000, 4000
        Path(file).write_bytes(images.write_png(array))
    blinding.write_set(drawn, tmp_path / "set", STUDY, shown(reading_size=60))
    for path in (tmp_path / "set/images").iterdir():
        array = images.read_png(path)
        rows, columns = np.flatnonzero(array.any(axis=1)), np.flatnonzero(array.any(axis=0))
        field = array[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(float)
        assert array.shape == (60, 60) and field.shape == shape
        edges = np.concatenate([field[0], field[-1], field[:, 0], field[:, -1]])
        assert edges.min() > np.percentile(field[3:-3, 3:-3], 99)
    assert blinding.cut_shares(drawn, shown()) == {"01_prepare_cases": 0.0}
    cut = blinding.cut_shares(drawn, shown(framing="common", margin=0.0))
    assert cut["01_prepare_cases"] == round(1 - min(shape) ** 2 / (shape[0] * shape[1]), 4)
    summary = {"framing": "common", "cut": {"01_x": 0.25}, "too_small": {"02_x": 3}}
    told = blinding.framed(runs.Run(STUDY, "06_x", {}, {"summary": summary}))
    assert "(cut off: 01_x 25 %)" in told and told.endswith("reading size: 3 of 02_x.")


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), repeats=st.floats(0, 0.2), distance=st.integers(1, 10))
def test_every_draw_keeps_its_promises(seed, repeats, distance):
    rows = [
        {
            "image_id": f"{kind}{n}",
            "run": kind,
            "origin": kind,
            "modality": "ct" if n % 3 == 0 else "xray",
            "finding": "",
            "view": "",
        }
        | {
            "generator": "",
            "patient": f"p{n // 2}" if kind == "real" else pd.NA,
            "prompt_id": f"q{n % 9}" if kind == "generated" else pd.NA,
        }
        | {"duplicate_group": f"g{n // 4}" if n < 12 else pd.NA}
        | {"made_from": f"real{n}" if kind == "generated" and n % 2 else pd.NA}
        for kind in ("real", "generated")
        for n in range(90)
    ]
    asked = wanted(
        *(
            (kind, kind, modality, count, pd.NA, training)
            for kind in ("real", "generated")
            for modality, count, training in CASES
        ),
    )
    drawn = drawn_at_random(pd.DataFrame(rows).convert_dtypes(), asked, repeats, distance, seed)
    read, training = drawn[~drawn["training"]], drawn[drawn["training"]]
    first = read[~read["repeat"]]
    assert len(first) == 44 and len(training) == 4 and first["image_id"].is_unique
    assert len(read) - len(first) == round(repeats * 44)
    assert not first["duplicate_group"].dropna().duplicated().any()
    assert not set(first["made_from"].dropna()) & set(first["image_id"])
    for name in ("image_id", "patient", "prompt_id", "duplicate_group", "original"):
        assert not set(training[name].dropna()) & set(read[name].dropna())
    assert set(training["part"]) == {0}
    order = np.random.default_rng(seed)
    for modality in ("xray", "ct", None):  # read modality by modality, or mixed
        some = read if modality is None else read[read["modality"] == modality]
        shuffled = (
            some.iloc[order.permutation(len(some))]
            .sort_values("part", kind="stable")
            .reset_index(drop=True)
        )
        for image in shuffled.loc[shuffled["repeat"], "image_id"]:
            positions = shuffled.index[shuffled["image_id"] == image]
            assert positions[1] - positions[0] > distance and shuffled["repeat"][positions[1]]


CASES = (("xray", 12, False), ("ct", 10, False), ("xray", 2, True))


def test_the_same_seed_draws_the_same_and_another_one_does_not(pool):
    first, again, other = (drawn_at_random(pool, wanted(*HALF), 0.1, 5, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert set(first["image_id"]) != set(other["image_id"])


def test_a_draw_from_too_few_says_which_rows(pool):
    rows = [("02_generate_openai", "generated", kind, 500) for kind in ("xray", "ct")]
    with pytest.raises(drawing.BlindingError) as error:
        drawn_at_random(pool, wanted(*rows, HALF[1]), 0, 0, 1)
    first, second = str(error.value).split("\n")
    assert "asks for 500 images (generated xray) of 02_generate_openai, but only 40 are" in first
    assert "asks for 500 images (generated ct)" in second
    with pytest.raises(drawing.BlindingError, match="repeats at a distance of 30"):
        drawn_at_random(pool, wanted(*HALF), 0.2, 30, 1)


@pytest.mark.parametrize("seed", range(3))
def test_a_row_of_any_finding_leaves_those_that_another_row_names(pool, seed):
    half = pool["origin"].eq("real") & (pool.groupby("origin").cumcount() % 2 == 0)
    few = pool[half].assign(modality="xray", finding="mass", duplicate_group=pd.NA, split="test")
    few.loc[few.index[:3], "finding"] = "hernia"
    few = few.assign(patient=few["image_id"], made_from=pd.NA, near=pd.NA)
    rows = [("01_prepare_cases", "real", "xray", len(few) - 3)]
    rows += [("01_prepare_cases", "real", "xray", 3, "hernia")]
    assert len(drawn_at_random(few, wanted(*rows), 0, 0, seed)) == len(few)


def test_matched_real_pictures_follow_the_generated_ones(pool):
    drawn = drawn_at_random(
        pool, wanted(HALF[1], ("01_prepare_cases", "real", "xray", 12, "match")), 0, 0, 1
    )
    real = drawn[drawn["origin"] == "real"]
    assert set(real["finding"]) == {"effusion"} and set(real["match"]) == {"finding and view"}


def test_files_differ_in_pixels_only(pool, tmp_path):
    key = sealed_set(pool, tmp_path)
    files = sorted((tmp_path / "reading_set/images").iterdir())
    heads, stats = set(), set()
    for path in files:
        content, status = path.read_bytes(), path.stat()
        stats.add((status.st_size, status.st_mtime, status.st_mode, len(path.name)))
        chunks, at = [], 8
        while at < len(content):
            length, kind = struct.unpack(">I4s", content[at : at + 8])
            chunks.append(
                (kind, length, content[at + 8 : at + 8 + length] if kind != b"IDAT" else b"")
            )
            at += 12 + length
        heads.add(tuple(chunks))
    assert len(files) == len(key) and len(stats) == 1 and len(heads) == 1
    assert {kind for kind, _, _ in heads.pop()} == {b"IHDR", b"IDAT", b"IEND"}
    assert {(images.read_png(path).shape, images.read_png(path).dtype.name) for path in files} == {
        ((32, 32), "uint8")
    }
    shown = tables.read(tmp_path / "reading_set/reading_set.csv")
    assert shown["checksum"].is_unique and set(shown["blind_id"]) == {path.stem for path in files}
    told = "".join(path.read_text() for path in (tmp_path / "reading_set").glob("*.*"))
    for word in ("effusion", "made", "generated", "01_", "02_", "half are fake", *key["image_id"]):
        assert word not in told
    assert {path.name for path in (tmp_path / "reading_set").iterdir()} == {
        "images",
        "reading_set.csv",
        "study.json",
        "commitment.json",
    }


def test_the_depth_is_that_of_the_poorest_picture_drawn(pool, tmp_path):
    drawn = drawn_at_random(pool, wanted(HALF[0]), 0, 0, 1)
    blinding.write_set(drawn, tmp_path / "deep", STUDY, shown())
    assert json.loads((tmp_path / "deep/study.json").read_text())["bits"] == 12
    stretched = Path(drawn["file"].iloc[0])
    stretched.write_bytes(
        images.write_png((images.read_png(stretched) // 16 * 16).astype(np.uint16))
    )
    blinding.write_set(drawn, tmp_path / "poor", STUDY, shown())
    assert json.loads((tmp_path / "poor/study.json").read_text())["bits"] == 8
    coarse = images.read_png(stretched) // 1024 * 1024
    stretched.write_bytes(images.write_png(coarse.astype(np.uint16)))
    blinding.write_set(drawn, tmp_path / "coarse", STUDY, shown())
    assert json.loads((tmp_path / "coarse/study.json").read_text())["bits"] == 8, "not 2 for all"


def test_nothing_is_upsampled(pool, tmp_path):
    drawn = drawn_at_random(pool, wanted(*HALF), 0, 0, 1)
    with pytest.raises(ImageError, match="never upsampled"):
        blinding.write_set(drawn, tmp_path, STUDY, shown(reading_size=44))


def test_bars_that_a_generator_drew_are_as_black_and_as_wide_as_those_of_a_real_film(tmp_path):
    random = np.random.default_rng(0)
    film = ndimage.gaussian_filter(random.normal(120, 60, (120, 90)), 3).clip(40, 255)
    film = film.astype(np.uint8)
    drawn = images.standardise(film, 120, 8)
    drawn = np.where(drawn == 0, random.integers(0, 11, drawn.shape), drawn).astype(np.uint8)
    one, two = (
        framing.for_reading(array, 8, "xray", 8, shown(reading_size=96)) for array in (film, drawn)
    )
    np.testing.assert_array_equal(one, two)
    assert one[:, :12].max() == 0 == one[:, -12:].max() and one[:, 12].max() > 0


@pytest.mark.parametrize("modality", ["xray", "ct"])
def test_every_image_begins_with_the_same_window_whatever_its_levels(modality):
    """The same phantoms windowed, scaled, clipped and gamma-corrected otherwise."""
    draw = phantom_xray.xray if modality == "xray" else phantom_ct.ct_slice
    windows = set()
    for seed in range(4):
        grey = draw(seed, size=128).astype(float)
        grey = (grey - grey.min()) / np.ptp(grey)
        for low, high, gamma in ((0, 255, 1), (40, 200, 1), (10, 250, 1.3), (0, 180, 0.8)):
            array = np.round(low + (high - low) * grey**gamma).astype(np.uint8)
            seen = framing.for_reading(array, 8, modality, 8, shown(reading_size=112))
            windows.add(tuple(np.percentile(seen, (0.5, 1, 99, 99.5))))
    assert windows == {(0, 0, 255, 255)}


@pytest.mark.parametrize("air", [0.1, 0.23])
def test_the_circle_of_a_reconstruction_does_not_show_and_no_lung_goes_with_it(air):
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    for seed in range(3):
        hu = phantom_ct.ct_slice(seed, size=128).astype(float)
        grey = np.clip((hu + 1000) / 1150, 0, 1) * (1 - air) + air
        padded = np.where(np.hypot(x, y) < 1, grey, 0)
        plain, round_one = (
            framing.for_reading(
                np.round(4095 * array).astype(np.uint16), 12, "ct", 8, shown(reading_size=112)
            )
            for array in (grey, padded)
        )
        for seen in (plain, round_one):
            air_shown = np.concatenate([seen[0], seen[:8, :8].ravel(), seen[:8, -8:].ravel()])
            assert (air_shown > 0).mean() < 0.02
        inside = np.s_[30:80, 25:87]
        assert np.abs(plain[inside].astype(int) - round_one[inside]).mean() < 4, "anatomy stays"


def test_the_key_opens_after_every_lock(pool, tmp_path):
    key = sealed_set(pool, tmp_path)
    back = opened(tmp_path)
    pd.testing.assert_frame_equal(back, key, check_like=True)
    assert back.attrs["unsealed"]["how"] == "all readers locked"
    repeats = back[back["repeat_of"].notna()].merge(back, left_on="repeat_of", right_on="blind_id")
    assert len(repeats) == 4 and (repeats["image_id_x"] == repeats["image_id_y"]).all()


@pytest.mark.parametrize(
    "locks", [{}, {"one": "2026"}, {"one": "2026", "two": ""}, {"one": "2026", "two": None}]
)
def test_an_open_reader_keeps_it_sealed_except_in_a_recorded_emergency(pool, tmp_path, locks):
    sealed_set(pool, tmp_path)
    with pytest.raises(envelope.SealError, match="stays sealed"):
        opened(tmp_path, locks)
    with pytest.raises(envelope.SealError, match="stays sealed"):
        opened(tmp_path, locks, emergency="  ")
    key = opened(tmp_path, locks, emergency="reader fell ill")
    assert (
        key.attrs["unsealed"]["how"] == "emergency"
        and key.attrs["unsealed"]["reason"] == "reader fell ill"
    )
    opened(tmp_path, locks, emergency="reader fell ill")
    told = opened(tmp_path, locks, emergency="simulated readers of the rehearsal answer")
    assert told.attrs["unsealed"]["how"] == "emergency", "what a run is is no matter of prose"
    (tmp_path / "sealed/.unsealed.jsonl").unlink()
    opened(tmp_path, locks, emergency="reader fell ill")
    assert len((tmp_path / "sealed/.unsealed.jsonl").read_text().splitlines()) == 1
    assert [entry["how"] for entry in opened(tmp_path).attrs["unsealed"]["history"]] == [
        "emergency",
        "all readers locked",
    ]


@pytest.mark.parametrize("line", ["{", "[]", '{"utc": "2026"}'])
def test_a_damaged_record_of_openings_is_one_sentence(pool, tmp_path, line):
    sealed_set(pool, tmp_path)
    (tmp_path / "sealed" / seal.OPENINGS).write_text(line + "\n")
    with pytest.raises(envelope.SealError, match="record of openings, is damaged"):
        opened(tmp_path)


def test_tampering_is_refused(pool, tmp_path):
    sealed_set(pool, tmp_path)
    folder = tmp_path / "reading_set"
    originals = {
        path: path.read_bytes()
        for path in [tmp_path / "sealed/key.enc", *folder.rglob("*.*")]
        if path.name != "study.json"
    }
    for path, content in originals.items():
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises((envelope.SealError, tables.TableError)):
            opened(tmp_path)
        path.write_bytes(content)
    opened(tmp_path)
    other = tmp_path / "other"
    sealed_set(pool, other, seed=9)
    (tmp_path / "sealed/key.enc").write_bytes((other / "sealed/key.enc").read_bytes())
    with pytest.raises(envelope.SealError, match="another reading set"):
        opened(tmp_path)


def test_no_byte_of_key_commitment_or_plan_can_be_changed(pool, tmp_path):
    (tmp_path / "params" / STUDY / "08_analyse_readings.yaml").write_text("margin: 0.1\n")
    sealed_set(pool, tmp_path)
    opened(tmp_path)
    plan = tmp_path / "sealed/plan/08_analyse_readings.yaml"
    for path in (tmp_path / "sealed/key.enc", tmp_path / "reading_set/commitment.json", plan):
        content = path.read_bytes()
        for place in [
            *range(0, min(len(content), 700), 5),
            *range(700, len(content), 997),
            len(content) - 1,
        ]:
            changed = bytearray(content)
            changed[place] ^= 1
            path.write_bytes(bytes(changed))
            with pytest.raises(envelope.SealError):
                opened(tmp_path)
        path.write_bytes(content)
    key = tmp_path / "sealed/key.enc"
    content = key.read_bytes()
    key.write_bytes(content.replace(b'"nonce"', b' "nonce"'))
    with pytest.raises(envelope.SealError, match="tampered"):
        opened(tmp_path)
    key.write_bytes(content)
    plan.unlink()
    with pytest.raises(envelope.SealError, match="not the plan"):
        opened(tmp_path)


def test_a_key_rewritten_by_someone_who_has_the_seal_is_refused(pool, tmp_path):
    key = sealed_set(pool, tmp_path)
    commitment = seal.read_commitment(tmp_path / "reading_set")
    forged = key.assign(origin=["generated"] * len(key)).to_csv(index=False)
    plain = json.dumps({"salt": "00" * 32, "key": forged}).encode()
    (tmp_path / "sealed/key.enc").write_bytes(envelope.encrypt(plain, commitment, STUDY))
    with pytest.raises(envelope.SealError, match="not hold the key that was committed"):
        opened(tmp_path)


def test_a_passphrase_locks_the_key(pool, tmp_path, monkeypatch):
    monkeypatch.setenv(envelope.PASSPHRASE, "three blind mice")
    sealed_set(pool, tmp_path)
    assert len(opened(tmp_path)) == 32
    monkeypatch.setenv(envelope.PASSPHRASE, "two blind mice")
    with pytest.raises(envelope.SealError, match="SEAL_PASSPHRASE is wrong"):
        opened(tmp_path)
    monkeypatch.delenv(envelope.PASSPHRASE)
    with pytest.raises(envelope.SealError, match="set SEAL_PASSPHRASE"):
        opened(tmp_path)


def test_without_the_seal_nothing_opens_and_none_is_made(pool, tmp_path):
    sealed_set(pool, tmp_path)
    (tmp_path / "keys" / STUDY / "seal").unlink()
    with pytest.raises(envelope.SealError, match="copy it from the machine"):
        opened(tmp_path)
    assert not (tmp_path / "keys" / STUDY / "seal").exists()


def test_doing_it_again_changes_nothing(pool, tmp_path):
    sealed_set(pool, tmp_path)
    before = {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in (tmp_path / "reading_set/images").iterdir()
    }
    whole = {path: path.read_bytes() for path in tmp_path.glob("*/*.*")}
    sealed_set(pool, tmp_path)
    assert before == {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in (tmp_path / "reading_set/images").iterdir()
    }
    assert whole == {path: path.read_bytes() for path in tmp_path.glob("*/*.*")}


def test_the_plan_is_frozen(pool, tmp_path):
    settings_file = tmp_path / "params" / STUDY / "08_analyse_readings.yaml"
    settings_file.write_text("margin: 0.1\n")
    sealed_set(pool, tmp_path)
    assert seal.plan_changes(tmp_path / "reading_set", STUDY) == []
    assert (tmp_path / "sealed/plan/08_analyse_readings.yaml").read_text() == "margin: 0.1\n"
    settings_file.write_text("margin: 0.2\n")
    assert seal.plan_changes(tmp_path / "reading_set", STUDY) == [
        "08_analyse_readings.yaml was changed after the reading set was sealed"
    ]


def test_comments_and_the_order_of_keys_in_settings_are_no_change(pool, tmp_path):
    settings_file = tmp_path / "params" / STUDY / "08_analyse_readings.yaml"
    settings_file.write_text("margin: 0.1\nreplicates: 500\n")
    sealed_set(pool, tmp_path)
    settings_file.write_text("# why\nreplicates: 500 # draws\r\nmargin: 1.0e-1\n")
    assert seal.plan_changes(tmp_path / "reading_set", STUDY) == []
    settings_file.write_text("replicates: 500\n")
    assert len(seal.plan_changes(tmp_path / "reading_set", STUDY)) == 1
    assert "compared by their values" in seal.frozen(tmp_path / "reading_set")


@pytest.mark.parametrize(
    ("name", "key", "default"),
    [("07_ask_models", "repeats", 1), ("09_compare_with_paper", "xrays", 20)],
)
def test_a_parameter_of_a_model_or_of_the_comparison_given_by_set_is_a_change(
    pool, tmp_path, name, key, default
):
    (tmp_path / "params" / STUDY / f"{name}.yaml").write_text("# all as in the notebook\n")
    sealed_set(pool, tmp_path)
    declared = parameters.schema(folders.NOTEBOOKS / f"{name}.ipynb")
    given = {k: one.default for k, one in declared.items() if k not in ("study", "variant")}
    sealed = tmp_path / "sealed"
    assert seal.settings_changed(sealed, runs.Run(STUDY, name, given)) == []
    changed = seal.settings_changed(sealed, runs.Run(STUDY, name, given | {key: 3}))
    assert changed == [f"{key} of {name} was {default} and is 3"]


def test_the_code_that_analyses_and_its_packages_are_frozen(pool, tmp_path, monkeypatch):
    root = tmp_path / "checkout"
    shutil.copytree(folders.ROOT / "helpers", root / "helpers")
    monkeypatch.setattr(folders, "ROOT", root)
    sealed_set(pool, tmp_path)
    then = seal.read_commitment(tmp_path / "reading_set")
    assert {"helpers/statistics/accuracy.py", "helpers/analyse_readings/published.py"} <= set(
        then["code"]
    )
    assert "helpers/finetune_diffusion/training_loop.py" not in then["code"]
    assert set(then["packages"]) == {"numpy", "scipy", "statsmodels"}
    assert f"numpy {np.__version__}" in seal.frozen(tmp_path / "reading_set")
    formula = root / "helpers" / "statistics" / "accuracy.py"
    reworded = formula.read_text().replace('"""', '"""Reworded. ', 1) + "\n# a remark\n"
    formula.write_text(reworded)
    assert seal.plan_changes(tmp_path / "reading_set", STUDY) == []
    formula.write_text(reworded.replace("0.5", "0.4"))
    monkeypatch.setattr(executed_code, "packages", lambda: then["packages"] | {"scipy": "0.1"})
    changed = seal.plan_changes(tmp_path / "reading_set", STUDY)
    assert changed == [
        "helpers/statistics/accuracy.py was changed after the reading set was sealed",
        "scipy was changed after the reading set was sealed"
        f" ({then['packages']['scipy']}, now 0.1)",
    ]


def test_the_plan_is_what_the_analysis_does_whatever_set_it(pool, tmp_path, monkeypatch):
    notebooks = shutil.copytree(folders.NOTEBOOKS, tmp_path / "notebooks")
    monkeypatch.setattr(folders, "NOTEBOOKS", notebooks)
    settings_file = tmp_path / "params" / STUDY / "08_analyse_readings.yaml"
    settings_file.write_text("margin: 0.2\n")
    sealed_set(pool, tmp_path)
    values = {
        key: parameter.default
        for key, parameter in parameters.schema(notebooks / "08_analyse_readings.ipynb").items()
    }
    run = runs.Run(
        STUDY, "08_analyse_readings", values | {"margin": 0.2, "emergency": "a reader is ill"}
    )
    assert seal.settings_changed(tmp_path / "sealed", run) == []
    run.parameters["margin"] = 0.15  # as SET= would do
    assert seal.settings_changed(tmp_path / "sealed", run) == [
        "margin of 08_analyse_readings was 0.2 and is 0.15"
    ]
    path = notebooks / "08_analyse_readings.ipynb"
    looked_at = path.read_text().replace(
        '"outputs": []', '"outputs": [{"output_type": "stream", "name": "stdout", "text": ["x"]}]'
    )
    path.write_text(looked_at.replace("rehearsal", "mine", 1))
    assert seal.plan_changes(tmp_path / "reading_set", STUDY) == [], "looking at it is no change"
    path.write_text(path.read_text().replace("publishing.write", "publishing.write_more"))
    assert seal.plan_changes(tmp_path / "reading_set", STUDY) == [
        "08_analyse_readings.ipynb was changed after the reading set was sealed"
    ]
    path.write_text(looked_at)
    path = notebooks / "09_compare_with_paper.ipynb"
    path.write_text(path.read_text().replace("xrays: int = 20", "xrays: int = 30"))
    assert seal.plan_changes(tmp_path / "reading_set", STUDY) == [
        "xrays of 09_compare_with_paper was 20 and is 30"
    ]


def analysis(name="08_analyse_readings", **values):
    """A run of 08 with the notebook's defaults but for `values`."""
    declared = parameters.schema(folders.NOTEBOOKS / "08_analyse_readings.ipynb")
    return runs.Run(STUDY, name, {key: one.default for key, one in declared.items()} | values)


def test_an_analysis_added_later_is_held_to_the_one_that_was_planned(pool, tmp_path):
    folder = tmp_path / "params" / STUDY
    (folder / "08_analyse_readings.yaml").write_text("primary: accuracy\n")
    (folder / "08_analyse_readings.second.yaml").write_text(
        "primary: agreement\nreading_set: 06_assemble_reading_set.second\n"
    )
    sealed_set(pool, tmp_path)
    later, sealed = "08_analyse_readings.later", tmp_path / "sealed"
    second = {"reading_set": "06_assemble_reading_set.second"}
    assert seal.planned(sealed, analysis(later))["primary"] == "accuracy"
    assert seal.planned(sealed, analysis(later, **second))["primary"] == "agreement"
    (sealed / "plan" / f"{later}.yaml").write_text("primary: area\n")
    assert seal.planned(sealed, analysis(later))["primary"] == "accuracy", "smuggled in"


def test_a_default_changed_in_the_frozen_notebook_is_refused(pool, tmp_path):
    sealed_set(pool, tmp_path)
    frozen = tmp_path / "sealed/plan/08_analyse_readings.ipynb"
    original = frozen.read_text()
    frozen.write_text(original.replace("margin: float = 0.1 ", "margin: float = 0.2 "))
    assert frozen.read_text() != original
    with pytest.raises(envelope.SealError, match="not the plan"):
        opened(tmp_path)
    frozen.write_text(original)
    opened(tmp_path)


def test_the_digest_of_code_is_the_same_in_every_version_of_python(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        "def said(name: str, wide=3) -> str:\n"
        '    """Words."""\n'
        "    return f\"{name:<{wide}} {'none' if name is None else name!r}\"\n"
    )
    digest = "005063bb117e1afae030d10bdf90387369f6d9f013e9cc3105c22647dc11b8e5"
    assert executed_code._read(module, 1)[0] == digest


@pytest.mark.parametrize("repeats", [-0.1, 7])
def test_repeats_are_a_share(pool, repeats):
    with pytest.raises(drawing.BlindingError, match="a share of the images read, from 0 to 1"):
        drawn_at_random(pool, wanted(*HALF), repeats, 0, 1)


def test_a_set_that_somebody_reads_is_known(base):
    folder = folders.outputs_folder(STUDY) / "07_read_cases"
    folder.mkdir(parents=True)
    assert blinding.begun(STUDY, "06_assemble_reading_set") == []
    (folder / "begun.json").write_text("{}")
    assert blinding.begun(STUDY, "06_assemble_reading_set") == ["07_read_cases"]
    assert blinding.begun(STUDY, "06_assemble_reading_set.second") == []


def test_texts_for_the_readers_keep_their_paragraphs(tmp_path):
    text = tmp_path / "consent.txt"
    text.write_text("You are asked to read\nchest X-rays.\n \n\nYou may stop\nat any moment.\n")
    assert (
        blocks.paragraphs(text)
        == "You are asked to read chest X-rays.\n\nYou may stop at any moment."
    )
    for content, reason in ((b" \n", "is empty"), (b"d\xe9part", "not UTF-8")):
        text.write_bytes(content)
        with pytest.raises(
            drawing.BlindingError, match=f"consent.txt {reason}|consent.txt is {reason}"
        ):
            blocks.paragraphs(text)


FRAMED = {"readers": 2, "framing": "whole"}


def test_weak_designs_are_named(pool):
    fakes = drawn_at_random(pool, wanted(HALF[1]), 0, 0, 1)
    told = " ".join(drawing.weak_points(fakes, FRAMED, {"framing": "common"}, 191))
    for word in (
        "false-positive rate",
        "12 images are read, but the planned test of kappa needs 191",
        "Readers planned: 2",
        "No image is repeated",
        "redo 05 with that framing",
    ):
        assert word in told
    strong = drawn_at_random(pool, wanted(*HALF, *TRAINING), 0.15, 5, 1)
    weak = drawing.weak_points(strong, FRAMED | {"readers": 6}, FRAMED, 20)
    # A random draw of few images leaves findings unbalanced: nothing else is weak.
    assert all(text.startswith("Truth and finding are associated") for text in weak)


def returned(folder, shown, **changes):
    """Tables as a reading host exports them."""
    events = [
        {
            "reader_id": "r1",
            "sequence": n,
            "event": "answered",
            "blind_id": b,
            "server_utc": "x",
            "hash": "x",
        }
        for n, b in enumerate(shown, 1)
    ]
    readings = [
        {"reader_id": "r1", "blind_id": b, "position": n, "label": "real", "changes": 0}
        for n, b in enumerate(shown, 1)
    ]
    readers = [{"reader_id": "r1", "simulated": True, "locked_utc": "x"}]
    for name, rows in {
        "events": events,
        "readings": readings,
        "readers": readers,
        **changes,
    }.items():
        tables.write(pd.DataFrame(rows), folder / f"{name}.csv")
    given = [{"reader_id": "r1", "block": "main", "blind_id": b} for b in shown]
    given = pd.DataFrame(given).assign(question="label", value="real")
    tables.write(given, folder / "answers.csv", "given_answers")


def test_readings_that_come_back_are_checked(pool, tmp_path):
    sealed_set(pool, tmp_path)
    back, reading_set = tmp_path / "back", tmp_path / "reading_set"
    shown = tables.read(reading_set / "reading_set.csv")["blind_id"].tolist()
    returned(back, shown)
    assert len(blinding.import_readings(back, reading_set)["readings"]) == len(shown)
    returned(back, ["strange", *shown])
    with pytest.raises(drawing.BlindingError, match="readings are of another set"):
        blinding.import_readings(back, reading_set)
    returned(back, shown, readers=[{"reader_id": "r2", "simulated": True}])
    with pytest.raises(drawing.BlindingError, match="not in readers.csv"):
        blinding.import_readings(back, reading_set)
    gap = [
        {
            "reader_id": "r1",
            "sequence": 2,
            "event": "answered",
            "blind_id": shown[0],
            "server_utc": "x",
            "hash": "x",
        }
    ]
    returned(back, shown, events=gap)
    with pytest.raises(drawing.BlindingError, match="events of reader r1 are missing"):
        blinding.import_readings(back, reading_set)
    returned(back, shown)
    events = tables.read(back / "events.csv").iloc[:-1]
    tables.write(events, back / "events.csv")
    with pytest.raises(drawing.BlindingError, match="has no event"):
        blinding.import_readings(back, reading_set)


@pytest.mark.parametrize(
    "line",
    [
        "01_prepare_cases,real,,mri,,3,false",
        "01_prepare_cases,real,,xray,,x,false",
        "02_g,generated,,xray,match,3,false",
    ],
)
def test_a_bad_draw_names_its_row(tmp_path, line):
    path = tmp_path / "draw.csv"
    path.write_text("run,origin,generator,modality,finding,count,training\n" + line + "\n")
    with pytest.raises(ValueError, match=r"draw\.csv row 2, column|for real images only"):
        drawing.read_draw(path)


def test_text_is_masked_in_every_source_when_stage_01_masks_it(base):
    real, bought = (
        make_run("01_prepare_cases", 5, "real", side=40),
        make_run("02_generate_openai", 2, "generated", side=40),
    )
    chest = np.full((420, 420), 60, np.uint8)
    written = Image.fromarray(chest)
    ImageDraw.Draw(written).text(
        (20, 20), "PORTABLE 14:32", fill=255, font=ImageFont.load_default(36)
    )
    for source in (real, bought):
        rows = source.read("images.csv").assign(width=420, height=420, bits=8)
        for path in rows["path"]:
            (source.folder / path).write_bytes(
                images.write_png(np.asarray(written) if source is bought else chest)
            )
        tables.write(rows, source.folder / "images.csv")
    for policy, left in (("mask", 0), ("keep", 2)):
        manifest = json.loads((real.folder / "manifest.json").read_text()) | {
            "parameters": {"burned_in_text": policy}
        }
        (real.folder / "manifest.json").write_text(json.dumps(manifest))
        pool = drawing.drawable(drawing.gather([real, bought]), [])
        drawn = pool.assign(training=False, repeat=False, part=1)
        key = blinding.write_set(drawn, base / policy, STUDY, shown(reading_size=360))
        made = key.loc[key["origin"] == "generated", "blind_id"]
        arrays = [images.read_png(base / policy / "images" / f"{name}.png") for name in made]
        assert sum(len(burned_in_text.find(array, 8)) > 0 for array in arrays) == left


def test_a_partial_imbalance_between_truth_and_modality_is_named():
    modality = ["xray"] * 20 + ["ct"] * 20
    for real_xrays, said in ((18, True), (10, False)):
        real = ["real"] * real_xrays + ["generated"] * 20 + ["real"] * (20 - real_xrays)
        read = pd.DataFrame({"origin": real, "modality": modality})
        read = read.assign(training=False, repeat=False, match=None)
        weak = drawing.weak_points(read, FRAMED, FRAMED, 1)
        assert any(text.startswith("Truth and modality are associated") for text in weak) == said


def test_a_weakness_names_modalities_as_people_do_and_one_image_is_one():
    read = pd.DataFrame({"origin": ["real"] + ["generated"] * 9, "modality": ["xray"] + ["ct"] * 9})
    read = read.assign(training=False, repeat=False, match=None)
    weak = " ".join(drawing.weak_points(read, FRAMED, FRAMED, 1))
    assert "1 of 10 images is real" in weak and "Every X-ray image is real" in weak
    assert "Every CT image is generated" in weak


def test_painted_over_text_is_named_as_a_weak_point():
    read = pd.DataFrame(
        {
            "origin": ["real"] * 3 + ["generated"] * 3,
            "modality": "xray",
            "masked": [0.01, 0.02, 0.0, None, None, None],
        }
    )
    read = read.assign(training=False, repeat=False, match=None)
    assert any(
        sentence.startswith("In 2 of 6 images stage 01 painted over text")
        for sentence in drawing.weak_points(read, FRAMED, FRAMED, 1)
    )
    assert not any(
        "painted" in sentence
        for sentence in drawing.weak_points(read.assign(masked=0.0), FRAMED, FRAMED, 1)
    )
