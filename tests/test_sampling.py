"""Sampling: each image has its own noise; failures are no results; runs resume and shard."""

import gc
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import (
    PriorTransformer,
    UnCLIPPipeline,
    UnCLIPScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from small_training import FINDINGS, begin, recipe, training, write_cases
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from helpers import images, tables
from helpers.diffusion import ModelError, base_models, families
from helpers.finetune_diffusion import dry_run, tiny_model, training_run
from helpers.runner import runs
from helpers.sample_diffusion import caption_check, drawing, sampling_prompts, sampling_run
from helpers.sample_diffusion.sampling_prompts import SamplingError

PROMPTS = """prompt_id,modality,view,finding,side,wording,count
n,xray,PA,no_finding,,caption,3
e,xray,PA,effusion,left,caption,3
c,ct,axial,nodule,left,caption,3
"""


LORA = {"base": "03_finetune_diffusion", "method": "lora", "lora_rank": 4}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study with a finished tiny model, a LoRA of it, and prompts; shared by this module's
    tests.
    """
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PARAMS", "OUTPUTS", "KEYS"):
            patch.setenv(name, str(folder / name.lower()))
        patch.setenv("STUDY_BATCH", "1")
        (folder / "params" / "t").mkdir(parents=True)
        (folder / "params" / "t" / "sampling_prompts.csv").write_text(PROMPTS)
        write_cases("t")
        for variant, values in (
            ("", {}),
            ("lora", LORA),
        ):
            run = training("t", variant, **values)
            dry_run.check(run)
            run.finish(**training_run.summary(run, training_run.fine_tune(run)))
            training_run.tidy(run)
        yield "t"


@pytest.fixture
def pipeline(study):
    return load_trained(study)


def load_trained(study, scheduler="dpm++"):
    folder = runs.load(study, "03_finetune_diffusion").folder / "checkpoint"
    return drawing.load(str(folder), scheduler, 1.0, "", "", {})


def draw(pipeline, some, precision="fp32"):
    return drawing.draw(pipeline, some, 32, "", precision)


def jobs(count=6, **columns) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "prompt": [f"chest X-ray {index % 2}" for index in range(count)],
            "seed": range(count),
            "guidance": 2.0,
            "steps": 3,
        }
    )
    return frame.assign(**columns)


def sampled(study, variant="", **values):
    run = begin(
        "04_sample_diffusion",
        study,
        variant,
        **{"steps": ["3"], "batch": 4, "precision": "fp32", **values},
    )
    tables = sampling_run.draw_missing(
        run, sampling_prompts.read_prompts(run.beside("sampling_prompts.csv"), "xray")
    )
    return run, *tables


def pictures(run, table) -> dict[str, np.ndarray]:
    return {row.image_id: images.read_png(run.folder / row.path) for row in table.itertuples()}


def test_a_picture_does_not_depend_on_its_batch(pipeline):
    together = np.stack(draw(pipeline, jobs()))
    for batch in (1, 4):
        batches = drawing.batches(jobs(), batch)
        apart = np.concatenate([draw(pipeline, some) for some in batches])
        assert np.abs(apart - together).max() < drawing.TOLERANCE
    again = np.stack(draw(pipeline, jobs()))
    assert np.array_equal(again, together), "the same batch must give the same bits"
    assert np.abs(together[0] - together[2]).max() > 10 * drawing.TOLERANCE, (
        "another seed must give another image"
    )


def test_seeds_follow_from_study_prompt_and_replicate():
    prompts = pd.DataFrame({"prompt_id": ["a", "b"], "prompt": ["one", "two"], "count": [3, 2]})
    asked = {"scheduler": "dpm++", "checkpoint": "r", "steps": ["10", "20"], "guidance": ["1", "3"]}
    run = runs.Run("s", "04_sample_diffusion", asked)
    plan = drawing.plan(prompts, run)
    assert len(plan) == 5 * 4 and plan.image_id.is_unique
    assert plan.groupby(["prompt_id", "replicate"]).seed.nunique().eq(1).all(), (
        "settings are compared on the same noise"
    )
    assert plan.seed.nunique() == 5
    fewer = drawing.plan(prompts.assign(count=[2, 1]), run)
    kept = plan.merge(fewer, on="image_id", suffixes=("", "_fewer"))
    assert len(kept) == len(fewer) and (kept.seed == kept.seed_fewer).all()
    assert set(drawing.plan(prompts, runs.Run("other", run.name, asked)).seed).isdisjoint(plan.seed)
    assert (plan.seed < 2**63).all() and (plan.seed >= 0).all()


def test_a_run_draws_its_prompts_in_the_cases_depth(study):
    run, made, samples, failures = sampled(study)
    assert len(made) == 6 and failures.empty
    assert (
        set(made.prompt_id) == {"n", "e"}
        and (made.bits == 12).all()
        and (made.origin == "generated").all()
        and made.simulated.all()
    )
    assert samples.seed.nunique() == 6
    for array in pictures(run, made).values():
        assert array.dtype == np.uint16 and array.shape == (32, 32) and array.max() <= 4095
    assert (
        made.caption[made.prompt_id == "e"] == "chest X-ray, PA view, with left pleural effusion"
    ).all()


def test_what_is_missing_is_drawn_again_to_the_same_bits(study):
    run, made, *_ = sampled(study, "resumed")
    before = pictures(run, made)
    for row in made.iloc[1:3].itertuples():
        (run.folder / row.path).unlink()
    run.release()
    run, made, *_ = sampled(study, "resumed")
    after = pictures(run, made)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_images_of_another_model_are_not_gone_on_with(study, tmp_path):
    trained = runs.load(study, "03_finetune_diffusion").folder / "checkpoint"
    folder = shutil.copytree(trained, tmp_path / "model")
    run, made, *_ = sampled(study, "changed", checkpoint=str(folder))
    (run.folder / made.path[0]).unlink()
    run.release()
    pipeline = load_trained(study)
    next(pipeline.unet.parameters()).data.add_(1.0)
    pipeline.save_pretrained(folder)
    with pytest.raises(SamplingError, match="has other weights than the images of"):
        sampled(study, "changed", checkpoint=str(folder))
    assert not (run.folder / made.path[0]).exists()


def test_a_prompt_of_which_the_model_reads_only_the_beginning_is_said(study, tmp_path, capsys):
    table = tmp_path / "prompts.csv"
    rows = f"long,xray,PA,no_finding,{'chest X-ray ' * 30},2\nshort,xray,PA,no_finding,chest,1\n"
    table.write_text(f"prompt_id,modality,view,finding,prompt,count\n{rows}")
    values = {"steps": ["2"], "batch": 1, "shards": 2, "precision": "fp32", "frames": 0}
    run = begin("04_sample_diffusion", study, "long", **values)
    sampling_run.draw_missing(run, sampling_prompts.read_prompts(table, "xray"))
    assert capsys.readouterr().out.count("1 prompt is longer than the model reads") == 1


def test_shards_draw_what_one_run_draws(study):
    whole = pictures(*sampled(study, "whole")[:2])
    parts = pictures(*sampled(study, "shards", shards=3)[:2])
    assert parts.keys() == whole.keys()
    assert all(np.array_equal(parts[name], whole[name]) for name in whole)


def test_black_pictures_and_pictures_that_are_no_numbers_are_failures(study, monkeypatch):
    stock = drawing._batch

    def spoilt(*arguments):
        result = stock(*arguments).copy()
        if len(result) > 1:  # not the one image whose stages are kept
            result[0] = 0
            result[1, 3, 3] = np.nan
        return result

    monkeypatch.setattr(drawing, "_batch", spoilt)
    run, made, samples, failures = sampled(study, "spoilt", batch=6)
    assert sorted(failures.reason) == ["black", "not a number"]
    assert len(made) == len(samples) == 4 == len(list((run.folder / "images").iterdir()))
    assert not set(failures.image_id) & set(made.image_id)


def test_all_failures_is_an_error(study, monkeypatch):
    monkeypatch.setattr(
        drawing,
        "_batch",
        lambda _, some, size, *rest: np.zeros((len(some), size, size), np.float32),
    )
    with pytest.raises(SamplingError, match=r"All 6 images failed \(black\)"):
        sampled(study, "black")


def test_out_of_memory_halves_the_batch(pipeline, monkeypatch, capsys):
    whole = np.stack(draw(pipeline, jobs()))
    stock, sizes, refused = drawing._batch, [], []

    def small_memory(pipeline, some, *rest):
        if len(some) > 2:
            refused.append(len(some))
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(some))
        return stock(pipeline, some, *rest)

    monkeypatch.setattr(drawing, "_batch", small_memory)
    assert np.abs(np.stack(draw(pipeline, jobs())) - whole).max() < drawing.TOLERANCE
    assert sizes == [2, 2, 2] and "batches of 2" in capsys.readouterr().out
    refused.clear()
    assert len([*drawing.draw_batches(pipeline, drawing.batches(jobs(12), 6), 32, "", "fp32")]) == 6
    assert refused == [6, 3], "the limit is found once, not at every batch"
    monkeypatch.setattr(
        drawing, "_batch", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError())
    )
    with pytest.raises(SamplingError, match="does not fit into memory"):
        draw(pipeline, jobs(1))


def test_guidance_and_steps_may_differ_between_jobs(pipeline):
    drawn = draw(pipeline, jobs(4, guidance=[1.0, 1.0, 3.0, 3.0], steps=[3, 3, 3, 2]))
    alone = draw(pipeline, jobs(4, guidance=3.0, steps=2).iloc[3:])
    assert len(drawn) == 4 and np.abs(drawn[3] - alone[0]).max() < drawing.TOLERANCE


@pytest.mark.parametrize("scheduler", drawing.SCHEDULERS)
def test_every_scheduler_draws(study, scheduler):
    drawn = draw(load_trained(study, scheduler), jobs(2, steps=4))
    assert not any(drawing.fault(picture) for picture in drawn)


def test_lora_is_drawn_with_its_base_and_scale(study):
    base = pictures(*sampled(study, "base")[:2])
    run, made, *_ = sampled(study, "lora0", checkpoint="03_finetune_diffusion.lora", lora_scale=0.0)
    seeds = dict(zip(run.read("samples.csv").seed, made.image_id))
    plain = dict(zip(runs.load(study, "04_sample_diffusion.base").folder.glob("images/*"), [0] * 9))
    assert len(seeds) == len(plain) == 6
    samples = pd.read_csv(runs.load(study, "04_sample_diffusion.base").folder / "samples.csv")
    for row in samples.itertuples():
        difference = base[row.image_id].astype(float) - pictures(run, made)[seeds[row.seed]]
        assert np.abs(difference).max() < drawing.TOLERANCE * 4095, "LoRA at scale 0 is the base"


STRANGER = """
import sys

class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "helpers":
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained({full!r})
asked = {{"num_inference_steps": 3, "output_type": "np"}}
assert pipeline("chest X-ray", **asked).images.shape == (1, 32, 32, 1)
pipeline.load_lora_weights({lora!r})
assert pipeline("chest X-ray", **asked).images.shape == (1, 32, 32, 1)
assert "helpers" not in sys.modules
print("loaded")
"""


def test_what_was_trained_is_what_is_sampled(study, tmp_path):
    """Adapters that predict otherwise than their base does."""
    trained = runs.load(study, "03_finetune_diffusion")
    run = training(study, "eps", **LORA, prediction="epsilon", grid_every=6)
    kinds, stock = [], drawing.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            drawing,
            "draw",
            lambda pipeline, *rest: (
                kinds.append(pipeline.scheduler.config.prediction_type) or stock(pipeline, *rest)
            ),
        )
        run.finish(**training_run.summary(run, training_run.fine_tune(run)))
    assert kinds == ["epsilon"], "the grid"
    asked = begin("04_sample_diffusion", study, "eps", checkpoint=run.name)
    assert sampling_run.load(asked).scheduler.config.prediction_type == "epsilon"
    assert load_trained(study).scheduler.config.prediction_type == "v_prediction"
    about = json.loads((run.folder / "checkpoint" / "recipe.json").read_text())
    other = tiny_model.build(["another"], recipe(size=32, seed=5))
    other.save_pretrained(tmp_path / "other")
    adapters = str(run.folder / "checkpoint")
    with pytest.raises(ModelError, match="other is not the base that these LoRA weights"):
        drawing.load(adapters, "dpm++", 1.0, str(tmp_path / "other"), "", about)
    assert trained.finished


def test_the_size_of_the_training_is_that_of_the_samples(study):
    """Not the size that the base was made for."""
    folder = runs.load(study, "03_finetune_diffusion").folder / "checkpoint"
    about = json.loads((folder / "recipe.json").read_text())
    about["recipe"]["size"] = 64
    pipeline = drawing.load(str(folder), "own", 1.0, "", "", about)
    assert families.native_size(pipeline) == 64


def test_bright_12_bit_images_have_no_comb(study, monkeypatch):
    """In bf16 there are 8 of 12-bit grey levels between one value and the next above three
    quarters.
    """
    pipeline = load_trained(study)
    monkeypatch.setattr(base_models, "has_bf16", lambda: True)
    decode = pipeline.vae.decode

    def brightened(latents, **options):
        pixels = decode(latents, **options)[0].float()
        spread = (pixels - pixels.min()) / (pixels.max() - pixels.min())
        return ((0.6 + 0.4 * spread).to(decode(latents, **options)[0].dtype),)

    monkeypatch.setattr(pipeline.vae, "decode", brightened)
    (picture, *_) = draw(pipeline, jobs(1), "auto")
    levels = np.unique(drawing.quantised(picture, 12).astype(int))
    assert np.diff(levels[levels > 3072]).min() == 1


def test_guidance_that_does_nothing_is_one_row(study):
    run = begin("04_sample_diffusion", study, "plain", guidance=["0", "1", "1.0", "2"])
    plan = drawing.plan(
        sampling_prompts.read_prompts(run.beside("sampling_prompts.csv"), "xray"), run
    )
    assert sorted(set(plan.guidance)) == [1.0, 2.0] and len(plan) == 12


def test_soft_bars_are_found_and_the_shape_is_what_is_left(study, monkeypatch):
    stock = drawing._batch

    def with_bars(*arguments):
        result = 0.3 + 0.5 * stock(*arguments)
        rng = np.random.default_rng(0)
        for bar in (slice(0, 4), slice(28, 32)):
            result[:3, :, bar] = rng.uniform(0, 0.04, result[:3, :, bar].shape)
        return result.astype(np.float32)

    monkeypatch.setattr(drawing, "_batch", with_bars)
    run, made, *_ = sampled(study, "bars", batch=6)
    shapes = [array.shape for array in pictures(run, made).values()]
    assert sorted(shapes) == [(32, 24)] * 3 + [(32, 32)] * 3
    assert shapes == list(zip(made.height, made.width))


def tiny_unclip() -> UnCLIPPipeline:
    """DALL-E 2's architecture from configs: prior, decoder and super-resolution to 32 pixels."""
    torch.manual_seed(0)
    tokenizer = tiny_model.tokenizer_for(["chest X-ray"], 32)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        projection_dim=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    blocks = {
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "resnet_time_scale_shift": "scale_shift",
    }
    decoder = UNet2DConditionModel(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        cross_attention_dim=100,
        attention_head_dim=4,
        class_embed_type="identity",
        **blocks,
    )
    larger = {
        "sample_size": 32,
        "in_channels": 6,
        "out_channels": 3,
        "down_block_types": ("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"),
        "up_block_types": ("ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
    }
    prior = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=12,
        embedding_dim=32,
        num_layers=1,
        num_embeddings=32,
    )
    schedule = {"variance_type": "fixed_small_log", "num_train_timesteps": 1000}
    learned = {"variance_type": "learned_range", "num_train_timesteps": 1000}
    return UnCLIPPipeline(
        prior=prior,
        decoder=decoder,
        text_encoder=CLIPTextModelWithProjection(text),
        tokenizer=tokenizer,
        text_proj=UnCLIPTextProjModel(
            clip_embeddings_dim=32,
            time_embed_dim=32 * 4,
            cross_attention_dim=100,
            clip_extra_context_tokens=4,
        ),
        super_res_first=UNet2DModel(**larger, **blocks),
        super_res_last=UNet2DModel(**larger, **blocks),
        prior_scheduler=UnCLIPScheduler(
            **schedule, prediction_type="sample", clip_sample_range=5.0
        ),
        decoder_scheduler=UnCLIPScheduler(**learned, prediction_type="epsilon"),
        super_res_scheduler=UnCLIPScheduler(**schedule, prediction_type="epsilon"),
    )


def test_unclip_draws_the_prompts_of_the_image_api(study, tmp_path):
    tiny_unclip().save_pretrained(tmp_path / "unclip")
    given = {"checkpoint": str(tmp_path / "unclip"), "steps": ["2"], "licence": "OpenRAIL-M"}
    with pytest.raises(SamplingError, match="works only with its own scheduler: set"):
        sampled(study, "unclip", **given)
    gc.collect()  # with the run that failed goes its lock
    run, made, samples, failures = sampled(study, "unclip", scheduler="own", **given)
    assert len(made) + len(failures) == 6 and (made.licence == "OpenRAIL-M").all()
    assert set(samples.checkpoint) == {"unclip"}, "no path of this machine"
    about = json.loads((run.folder / "model.json").read_text())
    assert about["pipeline"] == "UnCLIPPipeline" and about["licence"] == "OpenRAIL-M"
    assert about["sha256"].keys() >= {"prior", "decoder", "super_res_first", "super_res_last"}
    before = pictures(run, made)
    gone = made.path.iloc[0]
    (run.folder / gone).unlink()
    run.release()
    run, made, *_ = sampled(study, "unclip", scheduler="own", **given)
    assert all(np.array_equal(before[name], array) for name, array in pictures(run, made).items())
    given = {**given, "scheduler": "own", "size": 64}
    with pytest.raises(SamplingError, match="UnCLIPPipeline has no height: leave out size"):
        sampled(study, "unclip64", **given)


def test_prompts_may_have_words_of_their_own(tmp_path):
    (tmp_path / "prompts.csv").write_text(
        "prompt_id,modality,view,finding,side,wording,prompt,count\n"
        "a,xray,PA,effusion,left,,X-ray image of a left effusion,2\n"
        "b,xray,PA,no_finding,,,,1\n"
    )
    read = sampling_prompts.read_prompts(tmp_path / "prompts.csv", "xray")
    assert read.prompt.tolist() == [
        "X-ray image of a left effusion",
        "chest X-ray, PA view, with no finding",
    ]


def test_a_killed_run_leaves_no_hidden_files(study):
    run = begin("04_sample_diffusion", study, "killed", steps=["3"], batch=4, precision="fp32")
    run.file("images/.s1.png.abc.part").write_bytes(b"half")
    run.release()
    run, *_ = sampled(study, "killed")
    run.finish()
    hidden = [path for path in run.folder.rglob(".*") if path.name != ".lock"]
    assert hidden == []


def test_stock_diffusers_loads_the_checkpoints_without_our_code(study, tmp_path):
    full, lora = (
        runs.load(study, f"03_finetune_diffusion{variant}").folder / "checkpoint"
        for variant in ("", ".lora")
    )
    script = tmp_path / "stranger.py"
    script.write_text(STRANGER.format(full=str(full), lora=str(lora)))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0 and "loaded" in done.stdout, done.stderr[-2000:]


def test_model_card_says_what_the_model_learned_from(study):
    run = runs.load(study, "03_finetune_diffusion")
    card = (run.folder / "checkpoint" / "README.md").read_text()
    validated = run.read("training.csv").dropna(subset="validation_loss")
    for words in (
        "24 training images of 12 patients",
        "Simulated",
        "## Memorisation",
        "Cardiomegaly: 6",
        "sha256",
        "Licences of the images: MIT (24)",
        "The model uses v-prediction.",
        f"at the first validation (step {validated.step.iloc[0]})",
    ):
        assert words in " ".join(card.split()), f"the model card does not say {words!r}"


def test_finished_run_shows_what_is_there(study):
    run = training(study)
    assert run.finished and not (run.folder / training_run.STATE).exists()
    assert (
        len(training_run.fine_tune(run))
        and len(dry_run.check(run)) > 5
        and "## Data" in training_run.card(run)
    )
    assert run.manifest["summary"]["base_sha256"].keys() == set(
        families.FAMILIES["StableDiffusionPipeline"].parts
    )


def test_caption_check_tells_obedience_from_chance(study):
    cases = runs.load(study, "01_prepare_cases").read("images.csv")
    labels = caption_check.labelled(cases)
    assert set(labels.label) == {" ".join(part for part in pair if part) for pair in FINDINGS}
    pixels = caption_check.thumbnails(labels, runs.load(study, "01_prepare_cases").folder)
    classifier = caption_check.taught(pixels[:24], labels.label[:24])
    seen = classifier.predict(pixels[24:])
    obeyed = caption_check.agreement(labels.label[24:].to_numpy(), seen, np.array([]), np.array([]))
    assert obeyed.agreement[0] > 0.8 > 0.45 > obeyed.chance[0]
    assert "of 6 samples" in caption_check.sentence(
        obeyed
    ) and "more often than by chance" in caption_check.sentence(obeyed)
    ignored = caption_check.agreement(
        labels.label[24:].to_numpy(), np.full(6, "no_finding"), np.array([]), np.array([])
    )
    assert ignored.agreement[0] == pytest.approx(ignored.chance[0]), (
        "an answer that is always the same agrees as chance does"
    )
    assert "not shown to be more often" in caption_check.sentence(
        ignored
    ) and "no held-out case" in caption_check.sentence(ignored)
    assert "it is unknown" in caption_check.sentence(ignored.iloc[:0])


def test_caption_check_of_a_run(study):
    run, made, *_ = sampled(study, "checked")
    table = caption_check.measure(run, made)
    assert (
        list(table.what) == ["all", "effusion left", "no_finding"]
        and (table.samples == [6, 3, 3]).all()
    )
    assert caption_check.summary(table).keys() == {"captions_obeyed", "chance", "on_cases"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prompt_id,modality\n", "column 'count' .* is missing"),
        (PROMPTS.replace("e,xray", "n,xray"), "prompt_id 'n' appears twice"),
        (PROMPTS.replace("caption,3", "caption,three"), "'three' is not a whole number"),
        (PROMPTS.replace("effusion", "efusion"), "row 3, column 'finding': 'efusion'"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(tmp_path, text, says):
    (tmp_path / "sampling_prompts.csv").write_text(text)
    with pytest.raises((SamplingError, tables.TableError), match=says):
        sampling_prompts.read_prompts(tmp_path / "sampling_prompts.csv", "xray")


def test_quantisation_keeps_range_and_depth():
    ramp = np.linspace(-0.1, 1.1, 4096, dtype=np.float32).reshape(64, 64)
    for bits in (8, 12, 16):
        grey = drawing.quantised(ramp, bits)
        assert grey.min() == 0 and grey.max() == 2**bits - 1
        assert grey.dtype == (np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize(
    "values",
    [
        *({"steps": [text]} for text in ("0", "-3", "2.5", "abc")),
        *({"guidance": [text]} for text in ("x", "nan", "inf")),
        *({"steps": []}, {"guidance": []}),
        *({name: value} for name in ("batch", "shards") for value in (0, -1)),
        *({"bits": value} for value in (-1, 3, 20)),
        {"frames": -1},
        *({"size": value} for value in (-8, 4, 7)),
    ],
    ids=str,
)
def test_settings_that_cannot_be_drawn_are_refused_in_one_sentence(study, values):
    variant = "".join(filter(str.isalnum, str(values)))
    with pytest.raises(SamplingError, match=f"{min(values)} .*must be"):
        sampled(study, f"refused{variant}", **values)
