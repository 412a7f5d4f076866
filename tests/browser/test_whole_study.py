"""The whole study on real parts, and a report that says what was planted: phantoms, an image API
over HTTP, a training, sampling, audit, draw, two readers in a real browser, analysis.
"""

import json
import re
import shutil

import pandas as pd
import pytest
import yaml
from reading_browser import Reader, launch
from reading_client import Server

from helpers import study
from helpers.assemble_reading_set import seal
from helpers.runner import folders, runs

SETTINGS = {
    "01_prepare_cases": {"source": "phantom", "patients": 48, "size": 64, "burned_in_text": "keep"},
    "02_generate_openai": {
        "provider": "rehearsal",
        "quality": "low",
        "budget_usd": 1.0,
        "image_size": 64,
        "licence": "MIT (simulated)",
    },
    "03_finetune_diffusion": {
        "method": "full_text",
        "size": 64,
        "steps": 6,
        "batch": 4,
        "learning_rate": 1e-3,
        "warmup": 2,
        "log_every": 2,
        "validate_every": 3,
        "validation_images": 4,
        "grid_every": 6,
        "checkpoint_every": 3,
        "vae_steps": 8,
    },
    "04_sample_diffusion": {"steps": ["3"], "guidance": ["2"]},
    "05_audit_images": {"reading_size": 56, "feature_size": 56, "permutations": 20},
    "06_assemble_reading_set": {"min_distance": 2},
    "07_read_cases": {},
    "08_analyse_readings": {"coverage_studies": 20, "power_studies": 20, "replicates": 200},
    "09_compare_with_paper": {},
    "10_make_poster": {"dots_per_inch": 30},
}
TABLES = {
    "prompts.csv": (
        """prompt_id,modality,view,finding,side,wording,prompt,count
xray_normal,xray,PA,no_finding,,sentence,,3
xray_effusion,xray,PA,effusion,left,sentence,,3
ct_normal,ct,axial,no_finding,,sentence,,3
ct_effusion,ct,axial,effusion,left,sentence,,3
"""
    ),
    "sampling_prompts.csv": (
        "prompt_id,modality,view,finding,side,wording,count\nsd,xray,PA,effusion,left,caption,4\n"
    ),
    "draw.csv": (
        """run,origin,generator,modality,finding,count,training
02_generate_openai,generated,,ct,,4,false
02_generate_openai,generated,,xray,,3,false
04_sample_diffusion,generated,,xray,,2,false
01_prepare_cases,real,,ct,,4,false
01_prepare_cases,real,,xray,,4,false
02_generate_openai,generated,,xray,,1,true
"""
    ),
}
# What the two readers call the images of a group, in the order of their blind ids.
PLANTED = {
    ("ct", "generated"): (
        ["real", "real", "uncertain", "fake"],
        ["real", "fake", "uncertain", "fake"],
    ),
    ("xray", "generated"): (
        ["fake", "fake", "fake", "real", "uncertain"],
        ["fake", "fake", "real", "real", "uncertain"],
    ),
    ("ct", "real"): (["real", "real", "real", "fake"], ["real", "real", "uncertain", "fake"]),
    ("xray", "real"): (["real", "real", "real", "real"], ["real", "real", "real", "fake"]),
}
WORDS = {"generated": "left pleural effusion <b>large</b>", "real": "normal lungs"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The finished study: run to stage 07, read by two people in Chromium, run to the end. (root,
    key, answers by reader)
    """
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PARAMS", "OUTPUTS", "KEYS"):
            patch.setenv(name, str(root / name.lower()))
        _write_params()
        assert study.main(["run", "whole"]) == 0
        assert not runs.load("whole", "07_read_cases").finished
        key = _key(root)
        answers = _read(root, key)
        assert study.main(["run", "whole"]) == 0
        assert study.main(["verify", "whole"]) == 0
    return root / "outputs" / "whole", key, answers


def _write_params() -> None:
    folder = folders.params_folder("whole")
    folder.mkdir(parents=True)
    for name, values in SETTINGS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    for name, text in TABLES.items():
        (folder / name).write_text(text)
    for name in ("study.yaml", "consent.txt", "blocks.csv"):
        shutil.copy(folders.ROOT / "params" / "rehearsal" / name, folder)
    shutil.copy(folders.ROOT / "params" / "pilot" / "questions.csv", folder)


def _key(root) -> pd.DataFrame:
    """The truth, looked at in a copy, so that the study's own seal stays closed."""
    peek = shutil.copytree(root / "outputs" / "whole" / "06_assemble_reading_set", root / "peek")
    return seal.unseal(
        peek / "reading_set", peek / "sealed", "whole", {}, emergency="a test plants the answers"
    )


def _planted(key: pd.DataFrame, reader: int) -> dict[str, str]:
    """blind_id -> label.

    A repeat is answered like the image itself by the first reader, and as uncertain by the second.
    """
    first = key[key["repeat_of"].isna() & ~key["training"].astype(bool)].sort_values("blind_id")
    labels = {}
    for group, images in first.groupby(["modality", "origin"]):
        labels |= dict(zip(images["blind_id"], PLANTED[group][reader], strict=True))
    for row in key[key["repeat_of"].notna()].itertuples():
        labels[row.blind_id] = labels[row.repeat_of] if reader == 0 else "uncertain"
    return labels | dict.fromkeys(key.loc[key["training"].astype(bool), "blind_id"], "uncertain")


def _read(root, key) -> list[dict[str, str]]:
    origin = key.set_index("blind_id")["origin"]
    server = Server(root, "whole").start()
    playwright, browser = launch()
    answers = []
    try:
        for number, link in enumerate(server.links.values()):
            planted, given = _planted(key, number), {}
            reader = Reader(browser, link)
            reader.open()
            reader.register()
            before = ""
            while len(given) < len(planted):
                reader.dialog()
                before = reader.shown(before)
                reader.page.keyboard.press("2")
                reader.answer(planted[before][0], WORDS[origin[before]])
                given[before] = planted[before]
            reader.dialog()
            reader.page.wait_for_selector("form.lock")
            reader.saved()
            reader.lock(server.code(number))
            assert reader.problems == [] and reader.elsewhere == []
            reader.context.close()
            answers.append(given)
    finally:
        browser.close()
        playwright.stop()
        assert server.stop() == 0
    return answers


@pytest.fixture(scope="module")
def results(whole):
    return json.loads((whole[0] / "08_analyse_readings" / "results.json").read_text())


def test_every_answer_arrived_as_it_was_given(whole):
    folder, _, answers = whole
    readings = pd.read_csv(folder / "07_read_cases" / "readings.csv")
    by_reader = [
        dict(zip(part["blind_id"], part["label"])) for _, part in readings.groupby("reader_id")
    ]
    training = set(answers[0]) - set(readings["blind_id"])
    assert len(training) <= 1
    wanted = [{b: label for b, label in given.items() if b not in training} for given in answers]
    assert sorted(map(sorted, (r.items() for r in by_reader))) == sorted(
        map(sorted, (w.items() for w in wanted))
    )


def test_the_headline_counts_what_both_said(results):
    for row in results["headline"]:
        one, two = PLANTED[row["modality"], row["origin"]]
        for label in ("real", "fake", "uncertain"):
            counted = row[f"all_{label}"]
            assert (counted["count"], counted["total"]) == (
                sum(a == b == label for a, b in zip(one, two)),
                len(one),
            ), row


def test_accuracy_and_agreement_are_those_of_the_planted_labels(results):
    labels = [[label for group in PLANTED.values() for label in group[reader]] for reader in (0, 1)]
    agreement = {row["coefficient"]: row for row in results["agreement"] if row["group"] == "all"}
    same = sum(a == b for a, b in zip(*labels)) / len(labels[0])
    assert agreement["percent"]["estimate"] == pytest.approx(same)
    chance = (
        sum(labels[0].count(c) * labels[1].count(c) for c in ("real", "fake", "uncertain"))
        / len(labels[0]) ** 2
    )
    assert agreement["cohen"]["estimate"] == pytest.approx((same - chance) / (1 - chance))
    counts = sorted(
        (row["count"], row["total"])
        for row in results["accuracy"]
        if (row["policy"], row["measure"], row["stratum"]) == ("wrong", "sensitivity", "all")
    )
    hits = [
        sum(
            label == "fake"
            for (_, origin), group in PLANTED.items()
            if origin == "generated"
            for label in group[r]
        )
        for r in (0, 1)
    ]
    assert counts == sorted((hit, 9) for hit in hits)
    intra = sorted(
        row["estimate"] for row in results["intra_reader"] if row["coefficient"] == "percent"
    )
    assert intra[-1] == 1.0 and intra[0] < 1.0


def test_the_report_says_it_in_words_and_nothing_in_it_is_live(whole):
    report = (whole[0] / "08_analyse_readings" / "report.html").read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", report, flags=re.S))
    assert "4 generated CT images 1 of 4 called real by both readers" in text
    assert "5 generated X-rays 1 of 5 called real by both readers" in text
    assert "pleural effusion" in text.lower() and "<b>large</b>" not in report
    assert "simulated" in text.lower()
    assert not re.search(r"(src|href)=[\"']https?://", report)


def test_the_bill_is_the_ledger_and_every_image_is_there(whole):
    ledger = pd.read_csv(whole[0] / "02_generate_openai" / "ledger.csv")
    images = pd.read_csv(whole[0] / "02_generate_openai" / "images.csv")
    assert (
        len(images) == 12
        and images["path"].map(lambda path: (whole[0] / "02_generate_openai" / path).exists()).all()
    )
    manifest = json.loads((whole[0] / "02_generate_openai" / "manifest.json").read_text())
    assert manifest["summary"]["cost_usd"] == pytest.approx(ledger["cost_usd"].sum())


def test_the_poster_and_its_companion_page_are_made_from_the_same_results(whole, results):
    folder = whole[0] / "10_make_poster"
    assert (folder / "poster.pdf").read_bytes().startswith(b"%PDF")
    content = (folder / "companion" / "data.js").read_text()
    page = json.loads(content.removeprefix("self.COMPANION = ").rstrip(";\n"))
    assert page["simulated"], "phantoms and a stand-in API are marked"
    assert len(list((folder / "companion" / "images").iterdir())) == len(page["quiz"]) > 0
