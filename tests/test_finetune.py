"""Training: exact, resumable, the same however its batch is split; its errors say what to do."""

import json
import random
import shutil
import signal
import time

import numpy as np
import pandas as pd
import pytest
import small_training
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_training import QUICK, recipe, training, write_cases

from helpers.diffusion import base_models, noise
from helpers.finetune_diffusion import (
    TrainingError,
    checkpoints,
    tiny_model,
    training_cases,
    training_loop,
    training_run,
)
from helpers.runner import folders, runs

TOO_LARGE = 2.0**20  # a scale of float16's gradients at which the first steps overflow


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("STUDY_BATCH", "1")
    write_cases("t")
    return "t"


def weights(run) -> dict[str, torch.Tensor]:
    """Every tensor of a run's checkpoint, by file and name."""
    files = sorted((run.folder / "checkpoint").rglob("*.safetensors"))
    return {
        f"{path.parent.name}/{name}": tensor
        for path in files
        for name, tensor in load_file(path).items()
    }


def same(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )


def trained(study, variant="", **values):
    run = training(study, variant, **values)
    training_run.fine_tune(run)
    run.release()
    return run


def killed_and_resumed(study, variant, moments, **values):
    """Train in a process that is killed so many seconds after its state changed, once for each
    moment, and goes on; then to the end. Returns the run.
    """
    name = f"03_finetune_diffusion.{variant}"
    state = folders.outputs_folder(study) / name / training_run.STATE

    def kept() -> list:
        return sorted(path.as_posix() for path in state.rglob("*"))

    for after in (*moments, None):
        before, process = kept(), small_training.process(study, variant, **values)
        if after is not None:
            while process.is_alive() and kept() == before:
                time.sleep(0.01)
            process.join(after)
            process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            assert process.exitcode == 0
            return runs.load(study, name)


def assert_survives_kills(study, *kills):
    """One run for each row of moments, each killed at all of them."""
    values = {"steps": 8, "checkpoint_every": 2, "validate_every": 4, "vae_steps": 4}
    undisturbed = trained(study, "whole", **values)
    for number, moments in enumerate(kills):
        run = killed_and_resumed(study, f"killed{number}", moments, **values)
        assert same(weights(run), weights(undisturbed)), f"killed after {moments}: other weights"
        losses = run.read("training.csv").validation_loss.dropna().tolist()
        assert losses == undisturbed.read("training.csv").validation_loss.dropna().tolist()


def test_killed_and_resumed_training_ends_in_the_same_bits(study):
    assert_survives_kills(study, (0.05, 0.8, 1.8))


@pytest.mark.parametrize(
    "values",
    [
        # float16 is slow on a CPU
        {"precision": "fp16", "batch": 2, "vae_steps": 2, "steps": 4, "validate_every": 2},
        {"optimizer": "adamw8bit", "average_on": "cpu"},
    ],
)
def test_sparing_ways_learn_and_go_on_to_the_same_bits(study, monkeypatch, values):
    """float16 with its gradient scaler, which leaves out steps that overflow; AdamW in 8 bits."""
    begin, restored = torch.amp.GradScaler.__init__, torch.amp.GradScaler.load_state_dict
    monkeypatch.setattr(
        torch.amp.GradScaler,
        "__init__",
        lambda scaler, device, **kinds: begin(scaler, device, init_scale=TOO_LARGE, **kinds),
    )
    undisturbed = trained(study, "whole", **values)
    losses = undisturbed.read("training.csv").validation_loss.dropna()
    assert losses.iloc[-1] < losses.iloc[0]
    scales = []
    interrupted(study, monkeypatch, variant="stopped", **values)
    with monkeypatch.context() as patch:
        patch.setattr(
            torch.amp.GradScaler,
            "load_state_dict",
            lambda scaler, state: scales.append(state) or restored(scaler, state),
        )
        resumed = trained(study, "stopped", **values)
    assert same(weights(resumed), weights(undisturbed))
    if values.get("precision"):
        assert len(scales[0]) == 5 and 0 < scales[0]["scale"] < TOO_LARGE


@pytest.mark.soak
def test_twenty_kills_at_random_moments(study):
    rng = random.Random(20)
    assert_survives_kills(study, *((rng.uniform(0, 3.5),) for _ in range(20)))


def test_two_processes_equal_one_with_twice_the_batch(study):
    few = {"steps": 4, "checkpoint_every": 4, "vae_steps": 2}
    one = trained(study, "one", batch=4, processes=1, **few)
    two = trained(study, "two", batch=2, processes=2, **few)
    split = trained(study, "split", batch=2, accumulate=2, **few)
    for other in (two, split):
        for name, tensor in weights(one).items():
            torch.testing.assert_close(weights(other)[name], tensor, rtol=0, atol=2e-4, msg=name)
    assert two.read("training.csv").loss.iloc[-1] == pytest.approx(
        one.read("training.csv").loss.iloc[-1], rel=1e-3
    )


def test_training_lowers_the_held_out_loss_and_is_repeatable(study):
    values = {
        "steps": 40,
        "checkpoint_every": 40,
        "validate_every": 20,
        "learning_rate": 2e-3,
        "vae_steps": 30,
    }
    first, again = trained(study, "first", **values), trained(study, "again", **values)
    losses = first.read("training.csv").validation_loss.dropna()
    assert losses.iloc[-1] < losses.iloc[0]
    assert same(weights(first), weights(again))


def test_lora_and_full_from_a_trained_base(study):
    base = trained(study)
    base.finish()
    lora = trained(study, "lora", base="03_finetune_diffusion", method="lora", lora_rank=4)
    full = trained(
        study,
        "full",
        base="03_finetune_diffusion",
        method="full",
        prediction="epsilon",
        min_snr=0.0,
        offset_noise=0.1,
        accumulate=2,
        schedule="constant",
    )
    assert [path.name for path in sorted((lora.folder / "checkpoint").iterdir())] == [
        "README.md",
        "pytorch_lora_weights.safetensors",
        "recipe.json",
    ]
    assert any(
        tensor.abs().max() > 0
        for name, tensor in weights(lora).items()
        if "lora_B" in name or "lora.up" in name
    )
    assert not any(
        str(base.folder) in path.read_text()
        for path in (base.folder / "checkpoint").rglob("*.json")
    ), "no path of this machine"
    about = json.loads((lora.folder / "checkpoint" / "recipe.json").read_text())
    assert about["prediction"] == "v_prediction"
    assert about["base_sha256"] == base_models.fingerprint(
        base_models.load(str(base.folder / "checkpoint"))
    )
    unet = {
        name: tensor for name, tensor in weights(base).items() if name.startswith("text_encoder")
    }
    assert all(torch.equal(weights(full)[name], tensor) for name, tensor in unet.items()), (
        "method full must leave the text encoder alone"
    )


def test_stops_early_with_the_best_weights(study):
    run = trained(study, steps=40, validate_every=2, patience=2, learning_rate=0.03, ema=0.1)
    table = run.read("training.csv")
    losses = table.validation_loss.dropna()
    assert table.step.max() < 40
    assert (losses.iloc[-2:] >= losses.min()).all()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(study, monkeypatch):
    draw = training_cases.draw

    def poisoned(places_of_batch, *rest):
        noise, *others = draw(places_of_batch, *rest)
        return noise * (float("nan") if places_of_batch[0] >= 4 * 4 else 1), *others

    monkeypatch.setattr(training_cases, "draw", poisoned)
    with pytest.raises(
        TrainingError, match=r"not a finite number between steps 5 and 6.*learning_rate"
    ):
        trained(study)
    folder = (
        folders.outputs_folder(study) / "03_finetune_diffusion" / training_run.STATE / "training"
    )
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000002", "step-00000004"]


def test_a_gradient_that_is_not_finite_stops_before_a_checkpoint_is_written(study, monkeypatch):
    # after the four steps of the VAE
    call, clip, norms = 4 + 4, torch.nn.utils.clip_grad_norm_, []

    def poisoned(parameters, largest):
        norms.append(clip(parameters, largest))
        if len(norms) == call:
            parameters[0].grad.fill_(float("nan"))
        return clip(parameters, largest)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", poisoned)
    with pytest.raises(TrainingError, match="not a finite number between steps 4 and 4"):
        trained(study, steps=4, checkpoint_every=2)
    folder = (
        folders.outputs_folder(study) / "03_finetune_diffusion" / training_run.STATE / "training"
    )
    assert [path.name for path in folder.iterdir()] == ["step-00000002"]


def interrupted(study, monkeypatch, at_step=4, variant="", **values):
    """A run that stopped as by a full disk at its checkpoint of that step."""
    save = checkpoints.save

    def full(folder, step, *rest, **options):
        if folder.name == "training" and step >= at_step:
            raise checkpoints.CheckpointError("full")
        return save(folder, step, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", full)
        with pytest.raises(checkpoints.CheckpointError):
            trained(study, variant, **values)
    return folders.outputs_folder(study) / "03_finetune_diffusion" / training_run.STATE


def test_what_changes_nothing_learned_goes_on(study, monkeypatch, capsys):
    interrupted(study, monkeypatch)
    run = training(study, log_every=1, checkpoint_every=3, batch=2, accumulate=2)
    training_run.fine_tune(run)
    assert "Continuing from step 2" in capsys.readouterr().out


def test_what_is_learned_is_not_changed_without_force_which_keeps_it_aside(study, monkeypatch):
    state = interrupted(study, monkeypatch)
    runs.load(study, "03_finetune_diffusion")
    before = {path: path.read_bytes() for path in state.rglob("*.safetensors")}
    for _ in range(2):
        run = training(study, learning_rate=5e-4)
        with pytest.raises(TrainingError, match=r"learning_rate: 0.001 before, 0.0005 now.*force"):
            training_run.fine_tune(run)
        run.release()
    assert before == {path: path.read_bytes() for path in state.rglob("*.safetensors")}
    monkeypatch.setenv("STUDY_FORCE", "1")
    run = trained(study, learning_rate=5e-4)
    (aside,) = run.folder.glob(".state.*")
    kept = {path.relative_to(aside): path.read_bytes() for path in aside.rglob("*.safetensors")}
    assert kept == {path.relative_to(state): content for path, content in before.items()}
    assert run.read("training.csv").step.max() == 6


def test_other_cases_are_not_gone_on_with(study, monkeypatch):
    interrupted(study, monkeypatch)
    images_csv = folders.outputs_folder(study) / "01_prepare_cases" / "images.csv"
    images_csv.write_text(images_csv.read_text().replace("left effusion", "large left effusion", 1))
    with pytest.raises(TrainingError, match="training cases: "):
        trained(study)


def test_a_base_folder_that_has_changed_is_not_gone_on_with(study, tmp_path, monkeypatch):
    base = shutil.copytree(trained(study, "base").folder / "checkpoint", tmp_path / "base")
    values = {"base": str(base), "method": "lora"}
    interrupted(study, monkeypatch, **values)
    shutil.copytree(trained(study, "other", seed=7).folder / "checkpoint", base, dirs_exist_ok=True)
    with pytest.raises(TrainingError, match="files of the base: "):
        trained(study, **values)


def test_training_is_deterministic_on_every_device(study, monkeypatch):
    seen = []
    draw = training_cases.draw

    def watched(*arguments):
        seen.append(torch.is_deterministic_algorithms_warn_only_enabled())
        return draw(*arguments)

    monkeypatch.setattr(training_cases, "draw", watched)
    trained(study, steps=1)
    assert torch.are_deterministic_algorithms_enabled() and seen == [False]


@given(
    batch=st.integers(1, 4),
    accumulate=st.integers(1, 3),
    processes=st.integers(1, 3),
    step=st.integers(1, 50),
    cases=st.integers(1, 30),
)
def test_a_batch_holds_the_same_pictures_however_it_is_split(
    batch, accumulate, processes, step, cases
):
    whole = batch * accumulate * processes
    places_of_step = [
        (step - 1) * whole + (part * processes + rank) * batch + index
        for part in range(accumulate)
        for rank in range(processes)
        for index in range(batch)
    ]
    assert sorted(places_of_step) == list(range((step - 1) * whole, step * whole))
    epoch = [training_cases.case_in_place(place, cases, seed=1) for place in range(cases)]
    assert sorted(epoch) == list(range(cases)), "an epoch shows every case once"


@settings(deadline=None)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=6, unique=True))
def test_randomness_belongs_to_the_place_alone(chosen):
    chosen_recipe, device = recipe(seed=3, offset_noise=0.2), torch.device("cpu")
    together = training_cases.draw(chosen, (4, 8, 8), chosen_recipe, device)
    for index, place in enumerate(chosen):
        for many, one in zip(
            together, training_cases.draw([place], (4, 8, 8), chosen_recipe, device)
        ):
            assert torch.equal(many[index], one[0])


def test_random_timesteps_and_dropped_captions_are_uniform():
    eps, _, uniform, dropped = training_cases.draw(
        range(4000), (1, 2, 2), recipe(caption_dropout=0.1), torch.device("cpu")
    )
    assert abs(dropped.float().mean() - 0.1) < 0.02
    assert abs(uniform.mean() - 0.5) < 0.015
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(eps.mean()) < 0.03 and abs(eps.std() - 1) < 0.03


def test_offset_noise_shifts_a_whole_picture():
    plain = training_cases.draw(
        range(500), (1, 8, 8), recipe(offset_noise=0.0), torch.device("cpu")
    )[0]
    shifted = training_cases.draw(
        range(500), (1, 8, 8), recipe(offset_noise=0.5), torch.device("cpu")
    )[0]
    assert shifted.mean(dim=(2, 3)).std() == pytest.approx((0.5**2 + 1 / 64) ** 0.5, rel=0.1)
    assert (shifted - plain).std(dim=(2, 3)).max() < 1e-5


def test_min_snr_weights_are_those_of_the_paper():
    snr = torch.tensor([0.1, 5.0, 50.0])
    np.testing.assert_allclose(noise.snr_weights(snr, 5.0, "epsilon"), [1, 1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(
        noise.snr_weights(snr, 5.0, "v_prediction"), [0.1 / 1.1, 5 / 6, 5 / 51], rtol=1e-6
    )
    np.testing.assert_allclose(noise.snr_weights(snr, 0.0, "epsilon"), 1)
    for prediction, weight in (("epsilon", 1), ("v_prediction", 0)):  # noise of zero terminal SNR
        assert noise.snr_weights(torch.zeros(1), 5.0, prediction).item() == weight


def test_learning_rate_warms_up_then_falls_or_stays():
    values = {"steps": 100, "warmup": 10, "learning_rate": 1.0}
    falling, constant = recipe(**values), recipe(**values, schedule="constant")
    assert [training_loop.learning_rate(step, falling) for step in (1, 10)] == pytest.approx(
        [0.1, 1.0]
    )
    assert training_loop.learning_rate(55, falling) == pytest.approx(0.505)
    assert training_loop.learning_rate(100, falling) == pytest.approx(0.01)
    assert training_loop.learning_rate(90, constant) == 1.0


def test_gradient_checkpointing_changes_nothing_but_memory(study):
    plain, saving = (
        trained(study, "plain", steps=2),
        trained(study, "saving", steps=2, gradient_checkpointing=True),
    )
    for name, tensor in weights(plain).items():
        torch.testing.assert_close(weights(saving)[name], tensor, rtol=0, atol=1e-5)


def test_grey_depth_reaches_the_vae(tmp_path):
    from helpers import images
    from helpers.finetune_diffusion import latents

    array = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 4
    (tmp_path / "a.png").write_bytes(images.write_png(array))
    pixels = latents.picture(tmp_path / "a.png", 32, 12, 3)
    assert pixels.shape == (3, 32, 32)
    np.testing.assert_allclose((pixels[2].numpy() + 1) / 2 * 4095, array, atol=1e-3)


def test_vae_learns_to_give_pictures_back(study):
    frame, decibels = training_run.read_cases(training(study)), []
    for steps in (3, 60):
        short = recipe(**{**QUICK, "vae_steps": steps})
        pipeline = tiny_model.build(list(frame.caption), short)
        folder = folders.outputs_folder(study) / f"{steps} steps"
        decibels.append(tiny_model.train_vae(pipeline.vae, frame, short, folder))
    assert decibels[1] > decibels[0] + 3


def test_vae_gives_back_the_grain_of_a_picture(tmp_path):
    from helpers import images
    from helpers.finetune_diffusion import latents

    random, (rows, columns) = np.random.default_rng(0), np.mgrid[:32, :32] / 31
    frame = pd.DataFrame({"file": [tmp_path / f"{number}.png" for number in range(8)], "bits": 12})
    for number, file in enumerate(frame.file):
        grey = 1500 + 1500 * np.sin(3 * columns + number) * rows + random.normal(0, 200, (32, 32))
        file.write_bytes(images.write_png(grey.clip(0, 4095).astype(np.uint16)))
    short = recipe(**{**QUICK, "size": 32, "vae_steps": 150})
    vae = tiny_model.build(["chest X-ray"], short).vae
    tiny_model.train_vae(vae, frame, short, tmp_path / "state")
    pixels = torch.stack([latents.picture(file, 32, 12, 1) for file in frame.file])
    with torch.no_grad():
        returned = vae.decode(vae.encode(pixels).latent_dist.mean)[0]
    # With errors per pixel alone it gives back a fifth.
    assert returned.diff(dim=3).abs().mean() > 0.4 * pixels.diff(dim=3).abs().mean()
