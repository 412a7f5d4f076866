"""The release folder: generated images only, no copies, no names or dates, cards that Kaggle and
Hugging Face read.
"""

import io
import json
import shutil
import subprocess
import sys
import zipfile
from xml.etree import ElementTree

import pandas as pd
import pytest
import studies
import yaml
from test_report import FAST, analyse

from helpers import images
from helpers.analyse_readings import release, results
from helpers.analyse_readings.release import RECOMPUTE
from helpers.table_columns import columns


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("released")
        patch.setenv("OUTPUTS", str(folder / "outputs"))
        patch.setenv("KEYS", str(folder / "keys"))
        run, _, frames, _, _ = analyse()
        yield run.folder / "release", frames


def test_only_generated_images_that_are_no_copies(released):
    folder, frames = released
    manifest = pd.read_csv(folder / "images" / "metadata.csv")
    on_disk = {path.name for path in (folder / "images").glob("*.png")}
    assert on_disk == set(manifest["file_name"])
    truth = frames["per_image"].set_index("image_id")
    assert (truth.loc[manifest["image_id"], "origin"] == "generated").all()
    copies = truth.index[truth["copy"].fillna(False).astype(bool)]
    assert len(copies)
    assert not manifest["image_id"].isin(copies).any()
    assert images.read_png(folder / "images" / manifest["file_name"][0]).shape == (64, 64)


def test_nothing_says_who_or_when(released):
    folder, _ = released
    for path in folder.rglob("*"):
        if path.suffix in (".csv", ".json", ".md"):
            content = path.read_text()
            assert "reader0" not in content
            assert "_utc" not in content
            assert "Radiology" not in content
            assert '"years"' not in content
    assert "specialty" not in pd.read_csv(folder / "readers.csv")


def test_cards(released):
    folder, _ = released
    card = (folder / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "cc-by-4.0"
    assert "simulated" in header["tags"]
    for config in header["configs"]:
        assert (folder / config.get("data_files", config.get("data_dir"))).exists()
    kaggle = json.loads((folder / "dataset-metadata.json").read_text())
    assert 6 <= len(kaggle["title"]) <= 50
    assert 20 <= len(kaggle["subtitle"]) <= 80
    slug = kaggle["id"].split("/")[1]
    assert 3 <= len(slug) <= 50
    assert kaggle["licenses"] == [{"name": "CC-BY-4.0"}]
    for resource in kaggle["resources"]:
        fields = [field["name"] for field in resource["schema"]["fields"]]
        assert list(pd.read_csv(folder / resource["path"])) == fields


ALONE = (
    "import runpy, sys; sys.modules |= dict.fromkeys(('helpers', 'statsmodels', 'sklearn'));"
    " sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def again(folder, *command):
    """Run a release's script on the release itself: the last line and the exit code."""
    done = subprocess.run([*command, folder], capture_output=True, text=True, cwd="/")
    return (done.stdout.splitlines() or [done.stderr])[-1], done.returncode, done.stdout


WITHOUT_OURS = (sys.executable, "-I", "-c", ALONE)


def noisy(reader, image, random):
    """Better than guessing, the second reader best."""
    right, wrong = (0.55, 0.25) if reader != 1 else (0.7, 0.15)
    order = ["fake", "real"] if image["origin"] == "generated" else ["real", "fake"]
    return random.choice([*order, "uncertain"], p=[right, wrong, 1 - right - wrong])


STUDIES = {
    "ordinary": {},
    "one reader": {"readers": 1},
    "generated only": {"per": studies.NONE_REAL, "readers": 3},
    "gaps and prompts": {
        "readers": 6,
        "per": {"xray": (14, 20), "ct": (12, 13)},
        "prompts": 12,
        "skips": lambda reader, position: (7 * reader + 3 * position) % 11 == 0,
    },
    "one prompt": {"per": {"xray": (6, 6), "ct": (0, 1)}, "prompts": 1, "readers": 6},
    "half each": {
        "skips": lambda reader, position: position % 2 != reader,
        "answer": lambda reader, image, random: {"ct": "fake", "xray": "real"}[image["modality"]],
    },
    "few answers": {"skips": lambda reader, position: position > 1, "repeats": 0},
    "two readers, prompts": {"per": {"xray": (20, 20)}, "prompts": 9, "confidence": "none"},
}


def released_as(folder, covariance="delong", **options):
    """The release of a study and what was found in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTPUTS", str(folder / "outputs"))
        patch.setenv("KEYS", str(folder / "keys"))
        # The seal orders the images, and with it who answers which: the same in every run.
        (folder / "keys" / "small").mkdir(parents=True)
        (folder / "keys" / "small" / "seal").write_text("5e" * 32)
        key = studies.make("small", **({"answer": noisy} | options))
        run = studies.begin("small", "08_analyse_readings", covariance=covariance, **FAST)
        given = (run.reads("07_read_cases").read(name) for name in ("readings.csv", "readers.csv"))
        found, frames = results.analyse(run.parameters, key, *given)
        sources = [run.reads(name) for name in sorted(key["run"].dropna().unique())]
        release.write(run, found, frames, sources, {"study_texts": {}, "study": "small"})
        return run.folder / "release", found


@pytest.fixture(scope="module")
def gaps(tmp_path_factory):
    return released_as(tmp_path_factory.mktemp("gaps"), "jackknife", **STUDIES["gaps and prompts"])


def all_agree(folder, found, *command):
    told = pd.read_csv(folder / "main_numbers.csv")
    assert list(told) == [column.name for column in columns("main_numbers")]
    last, code, said = again(folder, *command)
    assert last == f"{len(told)} of {len(told)} numbers agree with the report.", said
    assert code == 0
    numbers, both = set(told["number"]), bool(found["design"]["real"])
    if found["flow"]["answers"] > 20:
        assert len(told) > 20
        several = found["design"]["prompts"] >= 5
        assert told["low"].notna().sum() > (5 * found["design"]["readers"] if several else 0)
        assert ({"mean area", "sensitivity", "dprime fake | rest"} <= numbers) == both
    tested = found["multireader"]["general all"]["shown"][0] if both else None
    assert ("p of the mean area" in numbers) == (tested is not None and len(found["readers"]) >= 5)


def test_the_main_numbers_are_computed_again_without_our_code(gaps, tmp_path):
    all_agree(*gaps, *WITHOUT_OURS, gaps[0] / "recompute.py")
    for study in ("one reader", "one prompt", "half each", "few answers"):
        folder, found = released_as(tmp_path / study, **STUDIES[study])
        all_agree(folder, found, *WITHOUT_OURS, folder / "recompute.py")


@pytest.mark.soak
@pytest.mark.parametrize("study", STUDIES)
def test_base_r_and_python_compute_the_main_numbers_again(study, tmp_path):
    folder, found = released_as(tmp_path, **STUDIES[study])
    all_agree(folder, found, *WITHOUT_OURS, folder / "recompute.py")
    all_agree(folder, found, "Rscript", "--vanilla", folder / "recompute.R")
    told = pd.read_csv(folder / "main_numbers.csv")
    told.loc[told.index[told["estimate"].gt(0)][0], "estimate"] += 0.01
    told.to_csv(folder / "main_numbers.csv", index=False)
    _, code, said = again(folder, "Rscript", "--vanilla", folder / "recompute.R")
    assert code == 1 and said.count("DIFFERS") == 1


def numbered(folder, other):
    """The release, with generators whose names look like numbers."""
    shutil.copytree(folder, other)
    for name in ("per_image.csv", "main_numbers.csv"):
        said = (other / name).read_text()
        (other / name).write_text(said.replace("api-model", "1").replace("tiny-sd", "2.0"))
    return other


def test_names_that_look_like_numbers_stay_names(gaps, tmp_path):
    all_agree(numbered(gaps[0], tmp_path / "other"), gaps[1], *WITHOUT_OURS, gaps[0] / RECOMPUTE[0])


@pytest.mark.soak
def test_names_that_look_like_numbers_stay_names_in_r(gaps, tmp_path):
    script = "Rscript", "--vanilla", gaps[0] / RECOMPUTE[1]
    all_agree(numbered(gaps[0], tmp_path / "other"), gaps[1], *script)


def test_a_changed_answer_shows(released, tmp_path):
    _, code, said = again(released[0], *WITHOUT_OURS, released[0] / "recompute.py")
    assert code == 0, said
    folder = shutil.copytree(released[0], tmp_path / "release")
    answers = pd.read_csv(folder / "readings.csv")
    row = answers.index[(answers["presentation"] == 1) & (answers["label"] == "real")][0]
    answers.loc[row, "label"] = "fake"
    answers.to_csv(folder / "readings.csv", index=False)
    last, code, said = again(folder, *WITHOUT_OURS, folder / "recompute.py")
    assert code == 1 and "DIFFERS" in said and not last.startswith("0 of")


TRUTH_SHEET = ["CaseID", "LesionID", "Weight", "ReaderID", "ModalityID", "Paradigm"]


def sheets(book):
    """The sheets of a workbook, name -> frame, by the rules of its format."""
    space = {"m": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}
    opened = zipfile.ZipFile(io.BytesIO(book))
    read = {name: ElementTree.fromstring(opened.read(name)) for name in opened.namelist()}
    words = [t.text for t in read["xl/sharedStrings.xml"].iterfind(".//m:t", space)]
    found = {}
    for number, sheet in enumerate(read["xl/workbook.xml"].iterfind(".//m:sheet", space), 1):
        rows = []
        for row in read[f"xl/worksheets/sheet{number}.xml"].iterfind(".//m:row", space):
            cells = [(c.get("t"), c.find("m:v", space)) for c in row.iterfind("m:c", space)]
            rows.append([words[int(v.text)] if t == "s" else float(v.text) for t, v in cells])
            rows[-1] += [None] * (len(rows[0]) - len(rows[-1]))
        found[sheet.get("name")] = pd.DataFrame(rows[1:], columns=rows[0])
    return found


def test_scores_for_imrmc_and_rjafroc(gaps):
    folder, found = gaps
    head, _, body = (folder / "scores.imrmc").read_text().partition("BEGIN DATA:\n")
    assert head.startswith("SIMULATED") and "N0:26\nN1:33\nNR:6\nNM:1\n" in head
    rows = pd.read_csv(io.StringIO(body), names=["reader", "case", "modality", "score"])
    truth = rows[rows["reader"] == -1]
    assert (truth["modality"] == "truth").all() and truth["score"].value_counts()[0] == 26
    given = rows[rows["reader"] != -1]
    assert len(given) == found["flow"]["answers"]
    wide = given.pivot(index="case", columns="reader", values="score")
    kind = truth.set_index("case")["score"].reindex(wide.index)
    for row in (r for r in found["areas"] if r["stratum"] == "all"):
        own = wide[int(row["reader"][1:])].dropna()
        apart = own[kind == 1].to_numpy()[:, None] - own[kind == 0].to_numpy()
        assert ((apart > 0) + 0.5 * (apart == 0)).mean() == pytest.approx(row["estimate"])
    book = (folder / "scores.xlsx").read_bytes()
    parts = sheets(book)
    assert list(parts["TRUTH"]) == TRUTH_SHEET
    assert parts["TRUTH"]["Paradigm"].tolist()[:2] == ["ROC", "FCTRL"]
    complete = wide.dropna().index
    assert set(parts["TRUTH"]["CaseID"]) == set(complete)
    assert len(parts["FP"]) + len(parts["TP"]) == 6 * len(complete)
    assert (parts["TP"]["LesionID"] == 1).all()
    mine = pd.read_csv(folder / "per_image.csv").set_index("case")
    assert (mine["origin"].eq("generated") == kind.reindex(mine.index).eq(1)).all()
    assert mine.loc[mine["origin"] == "real", "prompt_id"].isna().all()


def test_answers_to_real_images_stay_so_that_numbers_can_be_computed_again(released):
    folder, frames = released
    answers = pd.read_csv(folder / "readings.csv")
    assert len(answers) == len(frames["answers"])
    assert (answers["origin"] == "real").any()
    assert answers["position"].notna().all()
