"""The denoising of one sample, from noise to lung, for the poster's page (10)."""

from collections.abc import Callable

import numpy as np
import torch

from helpers import images
from helpers.runner import runs
from helpers.sample_diffusion import drawing


def keep(run: runs.Run, pipeline, image_id: str, draw: Callable, bits: int) -> None:
    """Draw an image again with `draw()` and write `run.parameters.frames` of its stages as
    frames/<image_id>-<number>.png. They are evenly spaced; the last is the finished image.

    Nothing is written for a pipeline without VAE latents.
    """
    vae = getattr(pipeline, "vae", None)
    if vae is None or not hasattr(pipeline, "scheduler"):
        return
    noisy, drawn = watch(pipeline, draw)
    if not noisy or noisy[0].shape[1:2] != (vae.config["latent_channels"],):
        return
    wanted = np.linspace(0, len(noisy) - 1, min(run.parameters.frames - 1, len(noisy)))
    stages = [decoded(pipeline, noisy[round(place)]) for place in wanted]
    for number, stage in enumerate([*stages, drawn[0]]):
        content = images.write_png(drawing.quantised(stage, bits))
        run.write_bytes(f"frames/{image_id}-{number:03d}.png", content)


def watch(pipeline, draw: Callable) -> tuple[list[torch.Tensor], list[np.ndarray]]:
    """The scheduler's input at each step of `draw()`, on the scale of latents, and the result."""
    step, seen = pipeline.scheduler.step, []

    def watched(output, timestep, sample, *arguments, **options):
        seen.append(sample.detach().clone() / max(1.0, float(sample.std())))
        return step(output, timestep, sample, *arguments, **options)

    pipeline.scheduler.step = watched
    try:
        return seen, draw()
    finally:
        pipeline.scheduler.step = step


@torch.no_grad()
def decoded(pipeline, latent: torch.Tensor) -> np.ndarray:
    """The image that one latent decodes to, (height, width) float32 in 0..1."""
    latent = latent[:1].to(pipeline.vae.dtype) / pipeline.vae.config.scaling_factor
    seen = pipeline.vae.decode(latent, return_dict=False)[0]
    return (seen[0].float().mean(dim=0) / 2 + 0.5).cpu().numpy()
