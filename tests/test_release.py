"""The release folder: generated images only, no copies, no names or dates, cards that Kaggle and
Hugging Face read.
"""

import json

import pandas as pd
import pytest
import yaml
from test_report import analyse

from helpers import images


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


def test_answers_to_real_images_stay_so_that_numbers_can_be_computed_again(released):
    folder, frames = released
    answers = pd.read_csv(folder / "readings.csv")
    assert len(answers) == len(frames["answers"])
    assert (answers["origin"] == "real").any()
