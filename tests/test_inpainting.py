"""A finding added to a held-out case or removed: only where the mask says, and on record."""

import gc

import numpy as np
import pytest
import tiny_families
import torch
from small_training import begin, training, write_cases

from helpers import images
from helpers.finetune_diffusion import training_run
from helpers.runner import runs
from helpers.sample_diffusion import inpainting, sampling_prompts, sampling_run
from helpers.sample_diffusion.sampling_prompts import SamplingError

PROMPTS = """prompt_id,modality,view,finding,side,wording,count
add,xray,PA,effusion,left,caption,2
remove,xray,PA,no_finding,,caption,2
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inpainting")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PARAMS", "OUTPUTS", "KEYS"):
            patch.setenv(name, str(folder / name.lower()))
        patch.setenv("STUDY_BATCH", "1")
        (folder / "params" / "t").mkdir(parents=True)
        (folder / "params" / "t" / "sampling_prompts.csv").write_text(PROMPTS)
        write_cases("t")
        run = training("t")
        run.finish(**training_run.summary(run, training_run.fine_tune(run)))
        for name, build in tiny_families.FAMILIES.items():
            build().save_pretrained(folder / name)
        yield folder


def sampled(variant, **values):
    values = {"steps": ["4"], "frames": 0, "precision": "fp32", "strength": 0.8, **values}
    run = begin("04_sample_diffusion", "t", variant, **values)
    prompts = sampling_prompts.read_prompts(run.beside("sampling_prompts.csv"), "xray")
    made, samples, failures = sampling_run.draw_missing(run, prompts)
    assert failures.empty
    run.release()
    return run, made, samples


def pairs(run, made):
    """(prompt, the image, its source, the mask) of each row, as arrays."""
    cases = runs.load("t", "01_prepare_cases")
    real = cases.read("images.csv").set_index("image_id")
    for row in made.itertuples():
        case = real.loc[row.made_from]
        finding, side = (
            (row.finding, row.side) if row.prompt_id == "add" else (case.finding, case.side)
        )
        where = inpainting.mask(finding, side if isinstance(side, str) else "", 32, 32)
        yield (
            row.prompt_id,
            images.read_png(run.folder / row.path),
            images.read_png(cases.folder / case.path),
            where,
        )


@pytest.mark.parametrize("model", ["03_finetune_diffusion", "xl"])
def test_only_the_mask_changes_and_the_source_is_on_record(study, model):
    own = model.startswith("03")
    given = {} if own else {"checkpoint": str(study / model), "scheduler": "own"}
    run, made, samples = sampled(f"edited-{model}", frames=3, **given)
    assert len(list((run.folder / "frames").iterdir())) == 3
    real = runs.load("t", "01_prepare_cases").read("images.csv").set_index("image_id")
    sources = real.loc[made.made_from]
    assert set(sources.split) == {"validation"}, "no case that the model was trained on"
    assert [(kind == "no_finding") for kind in sources.finding] == list(made.prompt_id == "add")
    assert made.made_from.nunique() == 4 and (samples.strength == 0.8).all()
    for _, drawn, case, where in pairs(run, made):
        outside, inside = where == 0, where > 0.99
        assert np.array_equal(drawn[outside], case[outside]), "the case's own pixels"
        assert np.abs(drawn[inside].astype(int) - case[inside]).mean() > 40
    shown = inpainting.beside_sources(run, made)
    assert list(shown.title[:4]) == ["real case", "effusion left"] * 2 and len(shown) == 8
    assert all((run.folder.parent / path).exists() for path in shown.path)
    images.contact_sheet(shown, run.folder.parent, "title")


def test_more_strength_is_more_change_and_other_images(study):
    changes, ids = [], []
    for strength in (0.25, 1.0):
        run, made, _ = sampled(f"s{strength:g}".replace(".", "-"), strength=strength)
        vae, inside = sampling_run.load(run).vae, []
        for _, drawn, case, where in pairs(run, made):
            pixels = torch.from_numpy(case / 4095 * 2 - 1).float()[None, None]
            with torch.no_grad():
                same = vae.decode(vae.encode(pixels).latent_dist.mean).sample[0, 0] / 2 + 0.5
            apart = np.abs(drawn / 4095 - same.clamp(0, 1).numpy())
            inside.append(apart[where > 0.99].mean())
        changes.append(np.mean(inside))
        ids.append(set(made.image_id))
    assert changes[1] > 1.5 * changes[0], "against what the VAE alone makes of the case"
    assert not ids[0] & ids[1]


def test_what_is_missing_is_drawn_again_to_the_same_bits(study):
    run, made, _ = sampled("again", batch=2)
    before = [images.read_png(run.folder / path) for path in made.path]
    (run.folder / made.path[1]).unlink()
    run, made, _ = sampled("again", batch=2)
    after = [images.read_png(run.folder / path) for path in made.path]
    assert all(np.array_equal(old, new) for old, new in zip(before, after))


def test_the_patients_left_is_on_the_right():
    left, right = (inpainting.mask("effusion", side, 64, 48) for side in ("left", "right"))
    assert left[:, :20].max() == 0 == right[:, 28:].max() and left[:20].max() == 0
    assert left[45, 36] == right[45, 12] == pytest.approx(1)
    assert inpainting.mask("infiltrates", "bilateral", 64, 64)[32, [10, 54]].min() > 0.99


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"strength": 2.0}, "strength 2 is not between 0 and 1"),
        ({"strength": 0.1}, "too small for 4 steps"),
        ({"checkpoint": "sana", "scheduler": "own"}, "SanaPipeline draws only from noise"),
    ],
)
def test_what_cannot_be_inpainted_is_refused(study, values, says):
    if "checkpoint" in values:
        values = {**values, "checkpoint": str(study / values["checkpoint"])}
    with pytest.raises(SamplingError, match=says):
        sampled("refused", **values)
    gc.collect()


def test_a_prompt_without_a_case_to_be_made_from_is_named(study):
    run = begin("04_sample_diffusion", "t", "none", strength=0.5)
    prompts = sampling_prompts.read_prompts(run.beside("sampling_prompts.csv"), "xray")
    jobs = prompts.assign(image_id="s", replicate=0, steps=4)
    cases = runs.load("t", "01_prepare_cases")
    with pytest.raises(SamplingError, match="prompt_id 'add' needs a held-out xray case without"):
        inpainting.with_sources(run, jobs, prompts.assign(view="AP"), cases)
