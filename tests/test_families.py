"""Stable Diffusion XL and Sana, beside the family that the other tests train: the same loop, each
against a computation of its own.
"""

import gc
import json
import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import small_training
import tiny_families
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SanaPipeline,
    StableDiffusionXLPipeline,
)
from safetensors.torch import load_file, save_file
from scipy.special import expit
from scipy.stats import norm
from small_training import begin, recipe, training, write_cases

from helpers import images
from helpers.diffusion import ModelError, base_models, families
from helpers.finetune_diffusion import (
    dry_run,
    latents,
    training_cases,
    training_run,
)
from helpers.runner import folders, runs
from helpers.sample_diffusion import drawing, sampling_prompts, sampling_run

PROMPTS = """prompt_id,modality,view,finding,side,wording,count
e,xray,PA,effusion,left,caption,2
"""
STOCK = {"xl": StableDiffusionXLPipeline, "sana": SanaPipeline}
each = pytest.mark.parametrize("name", STOCK)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A study with cases and prompts, and a tiny base of each family beside it, by name."""
    folder = tmp_path_factory.mktemp("families")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PARAMS", "OUTPUTS", "KEYS"):
            patch.setenv(name, str(folder / name.lower()))
        patch.setenv("STUDY_BATCH", "1")
        (folder / "params" / "t").mkdir(parents=True)
        (folder / "params" / "t" / "sampling_prompts.csv").write_text(PROMPTS)
        write_cases("t")
        for name, build in tiny_families.FAMILIES.items():
            build().save_pretrained(folder / name)
        yield {name: str(folder / name) for name in STOCK}


def trained(base, variant, finish=False, **values):
    run = training("t", variant, **{"base": base, "method": "full", **values})
    dry_run.check(run)
    table = training_run.fine_tune(run)
    if finish:
        run.finish(**training_run.summary(run, table))
    run.release()
    return run


@pytest.fixture(scope="module")
def runs_of(bases):
    """A finished full training and a finished LoRA of each family: their names."""
    names = {}
    for name, base in bases.items():
        for method in ("full", "lora"):
            values = {"method": method, "lora_rank": 4, "grid_every": 6 * (method == "full")}
            run = trained(base, f"{name}-{method}", True, **values)
            names[name, method] = run.name
    return names


def weights(run) -> dict[str, torch.Tensor]:
    folder = run.folder / "checkpoint"
    return {
        f"{path.relative_to(folder)} {name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


# The published training scripts of diffusers, one step of them, from files to weights.


def xl_loss(pipeline, pixels, captions, eps, deviate, uniform):
    """train_text_to_image_sdxl.py."""
    both = []
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        ids = tokenizer(captions, padding="max_length", max_length=32, return_tensors="pt")
        said = encoder(ids.input_ids, output_hidden_states=True, return_dict=False)
        pooled = said[0]
        both.append(said[-1][-2])
    posterior = pipeline.vae.encode(pixels).latent_dist
    clean = (posterior.mean + posterior.std * deviate) * 0.13025
    timesteps = (uniform * 1000).long()
    kept = (
        DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        .alphas_cumprod[timesteps]
        .view(-1, 1, 1, 1)
    )
    beside = {"text_embeds": pooled, "time_ids": torch.tensor([[32.0, 32, 0, 0, 32, 32]] * 3)}
    noisy = kept.sqrt() * clean + (1 - kept).sqrt() * eps
    predicted = pipeline.unet(
        noisy, timesteps, torch.cat(both, dim=-1), added_cond_kwargs=beside
    ).sample
    return (predicted - eps).square().mean()


def sana_loss(pipeline, pixels, captions, eps, _, uniform):
    """train_dreambooth_lora_sana.py with --weighting_scheme logit_normal."""
    instruction = "\n".join(families.SANA_DEFAULTS["complex_human_instruction"].default)
    length = len(pipeline.tokenizer(instruction).input_ids) + 300 - 2
    ids = pipeline.tokenizer(
        [instruction + caption.lower().strip() for caption in captions],
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    )
    kept = [0, *range(length - 299, length)]
    said = pipeline.text_encoder(ids.input_ids, attention_mask=ids.attention_mask)[0][:, kept]
    clean = pipeline.vae.encode(pixels).latent * 0.41407
    place = (expit(norm.ppf(uniform.double().numpy())) * 1000).astype(int)
    sigma = torch.linspace(1, 0.001, 1000)[place]
    sigma = (3 * sigma / (1 + 2 * sigma)).float().view(-1, 1, 1, 1)
    predicted = pipeline.transformer(
        (1 - sigma) * clean + sigma * eps,
        encoder_hidden_states=said,
        encoder_attention_mask=ids.attention_mask[:, kept],
        timestep=sigma.flatten() * 1000,
    ).sample
    return (predicted - (eps - clean)).square().mean()


@each
def test_one_step_is_that_of_the_published_script(bases, name):
    values = {"steps": 1, "batch": 3, "warmup": 0, "schedule": "constant", "ema": 0.0, "clip": 0.0}
    values |= {"caption_dropout": 0.0, "min_snr": 0.0, "checkpoint_every": 1}
    run = trained(bases[name], f"{name}-step", **values)
    frame = training_run.read_cases(run)
    cases = frame[frame.split == "train"].reset_index(drop=True)
    chosen = cases.iloc[[training_cases.case_in_place(place, len(cases), 0) for place in range(3)]]
    pixels = [
        torch.from_numpy(images.read_png(row.file).astype(np.float32) / 4095 * 2 - 1)
        for row in chosen.itertuples()
    ]
    pixels = torch.stack(pixels)[:, None].expand(-1, 3, -1, -1)
    shape = (4, 8, 8)
    eps, posterior, uniform, _ = training_cases.draw(range(3), shape, recipe(), torch.device("cpu"))
    pipeline = STOCK[name].from_pretrained(bases[name])
    network = families.network(pipeline)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    loss = {"xl": xl_loss, "sana": sana_loss}[name](
        pipeline, pixels, list(chosen.caption), eps, posterior, uniform
    )
    loss.backward()
    optimizer.step()
    assert run.read("training.csv").loss[0] == pytest.approx(loss.item(), rel=1e-4)
    ours = families.network(STOCK[name].from_pretrained(run.folder / "checkpoint")).state_dict()
    largest = max(parameter.grad.abs().max() for parameter in network.parameters())
    for key, parameter in network.named_parameters():
        # Adam's first step is the gradient's sign, which is chance where the gradient is nothing.
        firm = parameter.grad.abs() > 1e-5 * largest
        torch.testing.assert_close(ours[key][firm], parameter[firm], rtol=0, atol=1e-5, msg=key)


@each
def test_a_dropped_caption_is_what_guidance_moves_away_from(bases, name, tmp_path):
    pipeline = base_models.load(bases[name])
    with torch.no_grad():
        texts = latents.of_captions(["", *tiny_families.CAPTIONS], pipeline, 32, tmp_path)
        seen = {}
        forward = families.network(pipeline).forward

        def watched(*arguments, **options):
            seen.update(options, text=options.get("encoder_hidden_states"))
            return forward(*arguments, **options)

        families.network(pipeline).forward = watched
        drawing.draw(
            pipeline,
            sampling_jobs(tiny_families.CAPTIONS[0]),
            32,
            "",
            "fp32",
        )
    torch.testing.assert_close(seen["text"], texts["text"])
    if name == "xl":
        assert not texts["text"][0].any(), "the base of this family is guided away from nothing"
        torch.testing.assert_close(seen["added_cond_kwargs"]["text_embeds"], texts["pooled"])
        torch.testing.assert_close(seen["added_cond_kwargs"]["time_ids"], texts["sizes"])
    else:
        torch.testing.assert_close(seen["encoder_attention_mask"].float(), texts["mask"])


def sampling_jobs(prompt):
    return pd.DataFrame({"prompt": [prompt], "seed": [1], "guidance": [2.0], "steps": [1]})


@each
def test_a_killed_training_ends_in_the_same_bits(bases, name):
    values = {"steps": 20, "validate_every": 10, "checkpoint_every": 10}
    undisturbed = trained(bases[name], f"{name}-whole", **values)
    asked = {"base": bases[name], "method": "full", **values}
    process = small_training.process("t", f"{name}-killed", **asked)
    run = folders.outputs_folder("t") / f"03_finetune_diffusion.{name}-killed"
    while process.is_alive() and not list(run.glob(f"{training_run.STATE}/training/step-*")):
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -9, "it ended before it was killed"
    resumed = trained(bases[name], f"{name}-killed", **values)
    ours, theirs = weights(resumed), weights(undisturbed)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    losses = [each.read("training.csv").validation_loss.dropna() for each in (resumed, undisturbed)]
    assert losses[0].tolist() == losses[1].tolist() and len(losses[0]) == 2


STRANGER = """
import json, sys

class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "helpers":
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import numpy as np
import torch
from diffusers import AutoPipelineForText2Image

def drawn(pipeline, lora=None):
    if lora:
        pipeline.load_lora_weights(lora)
    more = {"use_resolution_binning": False} if "Sana" in type(pipeline).__name__ else {}
    seeds = torch.Generator().manual_seed(3)
    noise = torch.randn((1, 4, 8, 8), generator=seeds)
    asked = {"num_inference_steps": 3, "guidance_scale": 2.0, "height": 32, "width": 32}
    return pipeline("chest X-ray", latents=noise, output_type="np", **asked, **more).images[0]

given, pictures = json.loads(sys.argv[1]), {}
for name, (base, full, lora) in given.items():
    for what, adapters in (("base", None), ("full", None), ("lora", lora)):
        folder = full if what == "full" else base
        pipeline = AutoPipelineForText2Image.from_pretrained(folder)
        pictures[f"{name} {what}"] = drawn(pipeline, adapters).mean(axis=2)
assert "helpers" not in sys.modules
np.savez("pictures.npz", **pictures)
"""


def test_stock_diffusers_draws_the_exports_without_our_code(bases, runs_of, tmp_path):
    given = {
        name: [
            bases[name],
            *(
                str(runs.load("t", runs_of[name, how]).folder / "checkpoint")
                for how in ("full", "lora")
            ),
        ]
        for name in STOCK
    }
    (tmp_path / "stranger.py").write_text(STRANGER)
    done = subprocess.run(
        [sys.executable, "stranger.py", json.dumps(given)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    pictures = np.load(tmp_path / "pictures.npz")
    jobs = sampling_jobs("chest X-ray").assign(seed=3, steps=3)
    for name in STOCK:
        base = pictures[f"{name} base"]
        for how in ("full", "lora"):
            asked = begin(
                "04_sample_diffusion",
                "t",
                f"{name}-{how}-same",
                scheduler="own",
                checkpoint=runs_of[name, how],
            )
            (ours,) = drawing.draw(sampling_run.load(asked), jobs, 32, "", "fp32")
            theirs = pictures[f"{name} {how}"]
            assert np.abs(theirs - base).max() > 1e-3, "training changed nothing"
            np.testing.assert_allclose(ours, theirs, atol=drawing.TOLERANCE)


@each
def test_training_shows_held_out_loss_and_grids_and_is_sampled_by_04(bases, runs_of, name):
    for how in ("full", "lora"):
        run = runs.load("t", runs_of[name, how])
        table = run.read("training.csv")
        assert table.validation_loss.notna().sum() == 2
        for grid in training_run.grids(run):
            assert np.ptp(images.read_png(grid)) > 10
        assert len(training_run.grids(run)) == (how == "full")
        about = json.loads((run.folder / "checkpoint" / "recipe.json").read_text())
        assert about["prediction"] == {"xl": "epsilon", "sana": "flow_prediction"}[name]
        asked = begin(
            "04_sample_diffusion",
            "t",
            f"{name}-{how}",
            scheduler="own",
            checkpoint=run.name,
            steps=["2"],
            frames=3,
        )
        prompts = sampling_prompts.read_prompts(asked.beside("sampling_prompts.csv"), "xray")
        made, _, failures = sampling_run.draw_missing(asked, prompts)
        assert len(made) == 2 and failures.empty
        assert len(list((asked.folder / "frames").iterdir())) == 3
        asked.release()


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("xl", {"method": "full_text"}, "text encoder of Stable Diffusion XL is not trained here"),
        ("sana", {"method": "full_text"}, "text encoder of Sana is not trained here"),
        ("sana", {"precision": "fp16"}, "Sana gives values that are not finite in float16"),
        ("sana", {"prediction": "epsilon"}, "predicts the flow, not epsilon: leave prediction"),
        ("sana", {"size": 30}, "size 30 does not fit the base"),
    ],
)
def test_wishes_that_a_family_cannot_meet(bases, name, change, says):
    with pytest.raises(ModelError, match=says):
        trained(bases[name], "refused", **change)
    gc.collect()


@pytest.mark.parametrize(
    ("name", "scheduler", "says"),
    [
        ("xl", FlowMatchEulerDiscreteScheduler(), "with FlowMatchEulerDiscreteScheduler"),
        ("sana", DPMSolverMultistepScheduler(), "predicts epsilon with DPMSolverMultistep"),
        ("sana", FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "a fixed shift"),
    ],
)
def test_another_objective_than_the_familys_is_refused(bases, name, scheduler, says):
    pipeline = base_models.load(bases[name])
    pipeline.scheduler = scheduler
    with pytest.raises(ModelError, match=says):
        families.of(pipeline).noising(pipeline, "")


def test_sanas_two_schedulers_are_one_process():
    euler, solver = (
        families.of(pipeline).noising(pipeline, "").args[0]
        for pipeline in (tiny_families.sana(), tiny_families.sana(scheduler="dpm++"))
    )
    assert torch.equal(euler.sigmas, solver.sigmas) and euler.sigmas[500] == pytest.approx(
        0.75, abs=1e-3
    )


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        ("conditioner.embedders.1.model.ln_final.bias", "StableDiffusionXLPipeline"),
        (
            "cond_stage_model.transformer.text_model.embeddings.bias",
            "StableDiffusionPipeline",
        ),
    ],
)
def test_a_single_file_is_known_by_its_text_encoders(tmp_path, tensor, kind):
    save_file({tensor: torch.zeros(1)}, tmp_path / "model.safetensors")
    assert base_models.kind_of(str(tmp_path / "model.safetensors"), "") == kind


@pytest.mark.parametrize("kind", ["StableDiffusion3Pipeline", "FluxPipeline", "SanaSprintPipeline"])
def test_a_family_that_is_not_served_is_refused_by_its_name(tmp_path, kind):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    with pytest.raises(ModelError, match=f"is a {kind}, and only Stable Diffusion 1.x/2.x, .*Sana"):
        base_models.load(str(tmp_path))


@each
def test_parts_of_another_architecture_are_refused(bases, name):
    pipeline = base_models.load(bases[name])
    encoder = "text_encoder_2" if name == "xl" else "text_encoder"
    getattr(pipeline, encoder).config.update({"hidden_size": 99})
    with pytest.raises(ModelError, match="text encoder does not fit its"):
        families.check(pipeline, "base")
