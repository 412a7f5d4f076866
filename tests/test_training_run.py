"""What cannot be trained on is said in one sentence, before anything is trained."""

import json
import shutil
import weakref
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
)
from safetensors.torch import load_file, save_file
from small_training import recipe, training, write_cases

from helpers.diffusion import ModelError, base_models, noise
from helpers.finetune_diffusion import (
    TrainingError,
    dry_run,
    tiny_model,
    trained_parts,
    training_run,
)
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
    assert plan["training images"].startswith("24, from 12 patients")
    assert plan["captions cut"].startswith("1 longer than 32 tokens, for example: chest chest")
    assert plan["bit depth"] == "12 bits: 30"
    assert plan.drop("captions cut").str.len().max() <= 50, "pandas cuts longer texts off"
    assert "s per step" in plan["time of the loop"] and "GB" in plan["memory"]
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
        ({}, {"channels": 4}, "1 or 3 channels, not 4"),
        *(
            ({}, {name: value}, f"{name} is {value}: it must be 1 or more")
            for name in ("steps", "batch", "accumulate", "processes", "channels", "vae_batch")
            for value in (0, -1)
        ),
        *(
            ({}, {f"{name}_every": 0}, f"{name}_every is 0: it must be 1 or more")
            for name in ("log", "validate", "checkpoint")
        ),
        ({}, {"learning_rate": -1.0e-5}, "learning_rate is -1e-05"),
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
        TrainingError, match=r"needs about 100000\d.\d GB of memory.*gradient_checkpointing"
    ):
        dry_run.check(run)
    monkeypatch.setattr(dry_run, "trial", lambda *_: (1.0, 1e6))
    usage = shutil._ntuple_diskusage
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda _: usage(1, 1, 1000))
    with pytest.raises(TrainingError, match="of disk.*keep_checkpoints"):
        dry_run.check(run)


def test_disk_and_memory_are_counted_from_what_is_trained(outputs, monkeypatch):
    write_cases("t")
    lora = {"base": str(outputs / "model"), "method": "lora", "lora_rank": 4}
    tiny_model.build(["chest X-ray"], recipe(size=32)).save_pretrained(outputs / "model")
    usage = shutil._ntuple_diskusage
    for variant, values, bytes_each in (("a", {}, 16), ("b", {"patience": 2}, 20)):
        run = training("t", variant, **lora, keep_checkpoints=3, **values)
        pipeline = dry_run.untrained_base(run, training_run.read_cases(run))
        trained_parts.prepare(pipeline, run.parameters, torch.device("cpu"))
        trained = sum(p.numel() for p in pipeline.unet.parameters() if p.requires_grad)
        needed = trained * bytes_each * (3 + 1)
        with monkeypatch.context() as patch:
            patch.setattr(dry_run.shutil, "disk_usage", lambda _, n=needed: usage(1, 1, n))
            dry_run.check(run)
            patch.setattr(dry_run.shutil, "disk_usage", lambda _, n=needed: usage(1, 1, n - 1))
            with pytest.raises(TrainingError, match="of disk"):
                dry_run.check(run)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert dry_run.bytes_beside(recipe(), cpu) == dry_run.bytes_beside(recipe(), gpu) == 12
    assert dry_run.bytes_beside(recipe(processes=2, patience=1), cpu) == 20
    assert dry_run.bytes_beside(recipe(processes=2, patience=1), gpu) == 16
    small = recipe(optimizer="adamw8bit", average_on="cpu")
    assert dry_run.bytes_beside(small, gpu) == 2 and dry_run.bytes_of_checkpoint(small) == 10


def test_the_dry_run_gives_its_memory_back(outputs, monkeypatch):
    write_cases("t")
    build, built = tiny_model.build, []

    def watched(*arguments):
        pipeline = build(*arguments)
        built.append(weakref.ref(pipeline.unet))
        return pipeline

    monkeypatch.setattr(tiny_model, "build", watched)
    dry_run.check(training("t"))
    assert [unet() for unet in built] == [None]


@pytest.mark.parametrize(
    ("scheduler", "says"),
    [
        (DDPMScheduler(prediction_type="sample"), "predicts sample with DDPMScheduler"),
        (FlowMatchEulerDiscreteScheduler(), "with FlowMatchEulerDiscreteScheduler"),
        (DPMSolverMultistepScheduler(use_flow_sigmas=True), "with DPMSolverMultistepScheduler"),
        (EDMEulerScheduler(), "with EDMEulerScheduler"),
    ],
)
def test_a_base_with_another_objective_is_refused(outputs, model, scheduler, says):
    write_cases("t")
    pipeline = base_models.load(str(model))
    pipeline.scheduler = scheduler
    pipeline.save_pretrained(model)
    with pytest.raises(ModelError, match=says):
        dry_run.check(training("t", base=str(model)))


def test_a_schedule_of_500_steps_is_trained_on_all_of_itself(model):
    process = noise.schedule(
        SimpleNamespace(scheduler=DDPMScheduler(num_train_timesteps=500)), "v_prediction"
    )
    clean, eps = torch.randn(2, 6, 4, 8, 8)
    noisy, timesteps, target, _ = noise.diffused(process, clean, eps, torch.arange(6) / 6, 0.0)
    assert timesteps.tolist() == [0, 83, 166, 250, 333, 416]
    kept = process.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    torch.testing.assert_close(noisy, kept.sqrt() * clean + (1 - kept).sqrt() * eps)
    torch.testing.assert_close(target, kept.sqrt() * eps - (1 - kept).sqrt() * clean)


def test_a_base_with_values_that_are_not_finite_is_named(model):
    path = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, path)
    with pytest.raises(ModelError, match="model: its unet holds values that are not finite"):
        base_models.load(str(model))


def test_a_folder_with_fp16_weights_alone_is_loaded(model, tmp_path):
    base_models.load(str(model)).to(torch.float16).save_pretrained(tmp_path / "h", variant="fp16")
    pipeline = base_models.load(str(tmp_path / "h"))
    assert {pipeline.unet.dtype, pipeline.text_encoder.dtype} == {torch.float32}


def test_a_single_file_is_loaded_offline_with_its_configuration_beside_it(model, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    file, asked = model.with_suffix(".safetensors"), {}
    file.write_bytes(b"weights")

    def from_single_file(path, **options):
        asked.update(options, path=path)
        return StableDiffusionPipeline.from_pretrained(options["config"], safety_checker=None)

    monkeypatch.setattr(StableDiffusionPipeline, "from_single_file", from_single_file)
    base_models.load(str(file))
    assert (
        asked["config"] == str(model) and asked["local_files_only"] and asked["path"] == str(file)
    )


def test_folders_and_files_that_are_no_pipeline(tmp_path, model):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="not a diffusers pipeline"):
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
    assert base_models.arithmetic("auto") == (torch.bfloat16 if fast else torch.float32)


def test_a_gpu_without_bf16_computes_in_fp16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert base_models.arithmetic("auto") == torch.float16
