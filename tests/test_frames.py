"""The stages of one sample that 04 keeps: from noise to the image itself, none without latents."""

from types import SimpleNamespace

import numpy as np
import pytest
from test_sampling import sampled, study  # noqa: F401 (a fixture)

from helpers import images
from helpers.runner import runs
from helpers.sample_diffusion import drawing


def test_one_sample_from_noise_to_itself(study):  # noqa: F811
    run, made, _, _ = sampled(study, "frames", frames=4, steps=["6"])
    files = sorted(run.folder.glob("frames/*.png"))
    image_id = files[0].stem.rpartition("-")[0]
    assert [path.name for path in files] == [f"{image_id}-{n:03d}.png" for n in range(4)]
    stages = [images.read_png(path) for path in files]
    path = made.set_index("image_id").loc[image_id, "path"]
    itself = images.read_png(run.folder / path)
    assert stages[-1].max() and np.isin(itself, stages[-1]).mean() > 0.5
    apart = [np.abs(stage.astype(float) - stages[-1]).mean() for stage in stages]
    assert apart[0] > apart[2] > apart[3] == 0


def test_none_are_kept_when_none_are_asked_for(study):  # noqa: F811
    run, *_ = sampled(study, "without", frames=0, steps=["2"])
    assert not (run.folder / "frames").exists()


@pytest.mark.parametrize("vae", [None, SimpleNamespace(config={"latent_channels": 16})])
def test_a_pipeline_without_latents_of_its_vae_keeps_none(vae, tmp_path):
    torch = pytest.importorskip("torch")
    scheduler = SimpleNamespace(step=lambda output, timestep, sample: sample)
    pipeline = SimpleNamespace(scheduler=scheduler, vae=vae)

    def draw():
        pipeline.scheduler.step(None, 1, torch.zeros(1, 3, 8, 8))

    run = runs.Run("t", "04_sample_diffusion", {"frames": 3})
    drawing.keep_stages(run, pipeline, "s1", draw, 8)
    assert not run.folder.exists()
