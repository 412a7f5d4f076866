"""What cannot be trained on is said in one sentence, before anything is trained."""

import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_training import recipe, training, write_cases

from helpers.diffusion import base_models
from helpers.diffusion.base_models import ModelError
from helpers.finetune_diffusion import dry_run, tiny_model, training_run
from helpers.finetune_diffusion.training_loop import TrainingError
from helpers.runner import runs


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("STUDY_BATCH", "1")
    return tmp_path


@pytest.fixture
def model(tmp_path):
    """A tiny pipeline on disk."""
    tiny_model.build(["chest X-ray"], recipe(size=32)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_dry_run_says_what_will_be_needed(outputs):
    write_cases("t", caption=["chest " * 40] + ["chest X-ray"] * 29)
    run = training("t")
    plan = dry_run.check(run).set_index("what").value
    assert plan["training images"].startswith("24 of 12 patients, each seen 1.0 times")
    assert plan["captions cut"].startswith("1 longer than 32 tokens, for example: chest chest")
    assert plan["grey depth"] == "12 bits: 30"
    assert "s a step" in plan["time of the loop"] and "GB" in plan["memory"]
    assert json.loads((run.folder / "plan.json").read_text())
    run.release()
    with pytest.raises(TrainingError, match="nothing was trained"):
        dry_run.check(training("t", "checked", only_check=True))
    assert not (run.folder.with_name(f"{run.name}.checked") / "checkpoint").exists()


@pytest.mark.parametrize(
    ("changes", "values", "says"),
    [
        ({}, {"captions": "captoin"}, "has no column 'captoin'"),
        ({"split": "test"}, {}, "There are no training cases"),
        ({"modality": "ct"}, {}, "no real xray image with split train"),
        ({"origin": "generated"}, {}, "There are no training cases"),
        ({}, {"size": 64}, "30 of 30 images are smaller than size 64"),
        ({}, {"size": 48}, "48"),
    ],
)
def test_cases_that_cannot_be_trained_on(outputs, changes, values, says):
    if values.get("size") == 48:
        write_cases("t", size=64)
    else:
        write_cases("t", **changes)
    with pytest.raises((TrainingError, ModelError), match=says):
        dry_run.check(training("t", **values))


def test_pictures_of_mixed_size_are_made_alike_or_refused(outputs):
    write_cases("t", size=64, count=6, held_out=2)
    frame = training_run.read_cases(training("t", "ok", size=64))
    assert len(frame) == 8
    write_cases("u", width=[32, 64] * 15, height=[32, 64] * 15)
    with pytest.raises(
        TrainingError,
        match=r"15 of 30 images are smaller than size 64 \(the smallest has 32 pixels\)",
    ):
        training_run.read_cases(training("u", size=64))


def test_without_held_out_cases_training_goes_on(outputs):
    write_cases("t", held_out=0)
    run = training("t")
    assert training_run.fine_tune(run).validation_loss.isna().all()
    assert training_run.summary(run, run.read("training.csv"))["validation_loss"] is None


def test_too_little_memory_or_disk(outputs, monkeypatch):
    write_cases("t")
    run = training("t")
    monkeypatch.setattr(dry_run, "trial", lambda *_: (1.0, 1e15))
    with pytest.raises(
        TrainingError, match=r"needs about 1000000.0 GB of memory.*gradient_checkpointing"
    ):
        dry_run.check(run)
    monkeypatch.setattr(dry_run, "trial", lambda *_: (1.0, 1e9))
    monkeypatch.setattr(
        dry_run.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000)
    )
    with pytest.raises(TrainingError, match="of disk.*keep_checkpoints"):
        dry_run.check(run)


def test_folders_and_files_that_are_no_pipeline(tmp_path, model):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no diffusers pipeline"):
        base_models.load(str(tmp_path / "empty"))
    (tmp_path / "noise.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(ModelError, match="cannot be loaded as a Stable Diffusion"):
        base_models.load(str(tmp_path / "noise.safetensors"))
    (model / "unet" / "config.json").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        base_models.load(str(model))


def test_weights_of_another_architecture(model):
    path = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.weight"] = torch.zeros(64, 9, 3, 3)
    save_file(weights, path)
    with pytest.raises(ModelError, match="cannot be loaded"):
        base_models.load(str(model))


def test_parts_that_do_not_fit_each_other(model):
    tiny_model.build(["chest X-ray"], recipe(size=128)).vae.save_pretrained(model / "vae")
    with pytest.raises(ModelError, match="U-Net takes 4 channels, its VAE makes 8"):
        base_models.load(str(model))


def test_the_hash_is_of_the_weights_not_of_their_file(model):
    first = base_models.fingerprint(base_models.load(str(model)))
    assert first == base_models.fingerprint(tiny_model.build(["chest X-ray"], recipe(size=32)))
    changed = base_models.load(str(model))
    with torch.no_grad():
        next(changed.unet.parameters()).view(-1)[0] += 1e-6
    assert base_models.fingerprint(changed)["unet"] != first["unet"]


def test_the_tokenizer_spells_any_text():
    tokenizer = tiny_model.tokenizer_for(["chest X-ray, PA view, with left pleural effusion"], 32)
    known = tokenizer("chest X-ray, PA view, with left pleural effusion").input_ids
    assert len(known) == 2 + 12, "every word of a caption is one token"
    for text in ("Ünknöwn ✓ Wörter", "日本", ""):
        assert tokenizer.unk_token_id not in tokenizer(text).input_ids[1:-1]
    assert tokenizer("left").input_ids != tokenizer("right").input_ids


def test_a_chart_and_the_grids_are_there_to_see(outputs):
    from helpers.finetune_diffusion import training_figures

    write_cases("t")
    run = training("t", grid_every=2)
    table = training_run.fine_tune(run)
    assert [path.stem for path in training_run.grids(run)] == [
        "step-00000002",
        "step-00000004",
        "step-00000006",
    ]
    assert len(training_figures.curve(table).axes) == 2
    measured = pd.DataFrame(
        [("all", 6, 0.5, 0.2, 0.8, 0.3, 6, 0.9)],
        columns=["what", "samples", "agreement", "low", "high", "chance", "cases", "on_cases"],
    )
    assert training_figures.obedience(measured).axes
    assert isinstance(run, runs.Run)


@pytest.mark.parametrize(
    ("abilities", "fast"),
    [({"avx512_f": True}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True)],
)
def test_bf16_only_where_the_processor_has_it(monkeypatch, abilities, fast):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    assert base_models.has_bf16() is fast
