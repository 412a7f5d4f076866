"""Checkpoint + prompts + seeds -> grey images, each from noise of its own."""

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from helpers import images, tables
from helpers.diffusion import base_models
from helpers.diffusion.base_models import ModelError
from helpers.sample_diffusion.sampling_prompts import SamplingError

SCHEDULERS = {
    "dpm++": DPMSolverMultistepScheduler,
    "ddim": DDIMScheduler,
    "ddpm": DDPMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_a": EulerAncestralDiscreteScheduler,
    "pndm": PNDMScheduler,
    "unipc": UniPCMultistepScheduler,
}
# A batch on another number of threads, or of another size, differs by at most this share of the
# grey range (see the tests).
TOLERANCE = 0.02


def image_seed(study: str, prompt: str, replicate: int) -> int:
    """The seed of one image's noise: the same for the same study, prompt and replicate, whatever
    else is drawn.
    """
    return (
        int.from_bytes(
            hashlib.sha256(repr((study, prompt, replicate)).encode()).digest()[:8], "big"
        )
        >> 1
    )


def plan(
    prompts: pd.DataFrame,
    study: str,
    run: str,
    scheduler: str,
    steps: list[int],
    guidance: list[float],
) -> pd.DataFrame:
    """One row an image: every prompt's `count` replicates x guidance x steps, in a fixed order.

    `prompts` has prompt_id, prompt and count. The seed follows from study, prompt and replicate, so
    that settings are compared on the same noise. Returns image_id, prompt_id, prompt, replicate,
    seed, scheduler, steps, guidance.
    """
    rows = []
    for prompt in prompts.itertuples():
        for replicate in range(int(prompt.count)):
            for scale in guidance:
                for number in steps:
                    name = repr((study, run, prompt.prompt_id, replicate, scheduler, number, scale))
                    rows.append(
                        {
                            "image_id": "s" + hashlib.sha256(name.encode()).hexdigest()[:15],
                            "prompt_id": prompt.prompt_id,
                            "prompt": prompt.prompt,
                            "replicate": replicate,
                            "seed": image_seed(study, prompt.prompt, replicate),
                            "scheduler": scheduler,
                            "steps": number,
                            "guidance": scale,
                        }
                    )
    if not rows:
        raise SamplingError(
            "There is nothing to sample: the prompts table has no row with a count above 0."
        )
    return pd.DataFrame(rows)


def load(
    checkpoint: str,
    scheduler: str = "dpm++",
    lora_scale: float = 1.0,
    base: str = "",
    revision: str = "",
):
    """A pipeline ready to draw: a diffusers folder, hub id or single file; for a folder of LoRA
    weights its base with them added.

    Raises ModelError for something else and SamplingError for an unknown scheduler.
    """
    if scheduler not in SCHEDULERS:
        raise SamplingError(f"Unknown scheduler '{scheduler}'; known are {', '.join(SCHEDULERS)}.")
    folder = Path(checkpoint)
    if (folder / base_models.LORA_FILE).is_file():
        if not base:
            raise ModelError(
                f"{checkpoint} holds LoRA weights: say which base they belong to (parameter base)."
            )
        pipeline = base_models.load(base, revision)
        pipeline.load_lora_weights(str(folder), weight_name=base_models.LORA_FILE)
        pipeline.fuse_lora(lora_scale=lora_scale)
        pipeline.unload_lora_weights()
    else:
        pipeline = base_models.load(checkpoint, revision)
    pipeline.scheduler = _scheduler(scheduler, pipeline.scheduler.config)
    return pipeline


def _scheduler(name: str, config):
    extra = {"steps_offset": 1} if name in ("dpm++", "ddim", "euler", "pndm", "unipc") else {}
    return SCHEDULERS[name].from_config({**config, **extra})


def to_device(pipeline, bf16: bool) -> None:
    """Move the pipeline to the GPU where there is one, in the layout and precision that are fastest
    there.
    """
    device = base_models.device()
    for name in base_models.TRAINABLE:
        part = getattr(pipeline, name)
        part.to(device, memory_format=base_models.layout(device)).eval()
        if bf16 and device.type == "cuda":
            part.to(torch.bfloat16)


def draw(
    pipeline, jobs: pd.DataFrame, size: int, negative: str = "", bf16: bool = False, batch: int = 0
) -> list[np.ndarray]:
    """The images of `jobs` (prompt, seed, guidance, steps), each (size, size) float32 in 0..1, NaN
    where drawing failed.

    They go through in batches of `batch` (0: all at once) with the same guidance and steps; every
    image starts from its own seed's noise, drawn on the CPU. Raises SamplingError when a single
    image does not fit into memory.
    """
    return [
        picture
        for _, pictures in draw_batches(pipeline, batches(jobs, batch), size, negative, bf16)
        for picture in pictures
    ]


def batches(jobs: pd.DataFrame, batch: int = 0) -> list[pd.DataFrame]:
    """The jobs in their order, cut into batches of at most `batch` (0: any number) with the same
    guidance and steps.
    """
    changes = (
        (jobs[["guidance", "steps"]] != jobs[["guidance", "steps"]].shift()).any(axis=1).cumsum()
    )
    alike = (same for _, same in jobs.groupby(changes, sort=False))
    return [
        same.iloc[begin : begin + (batch or len(same))]
        for same in alike
        for begin in range(0, len(same), batch or len(same))
    ]


def draw_batches(
    pipeline, batches: Iterable[pd.DataFrame], size: int, negative: str = "", bf16: bool = False
) -> Iterator[tuple]:
    """Draw one batch of jobs after the other; yields (jobs, their images) as they come.

    A batch that does not fit into memory is halved, and so is every one after it that is as large.
    """
    fits = 0
    for whole in batches:
        begin = 0
        while begin < len(whole):
            some = whole.iloc[begin : begin + (fits or len(whole))]
            try:
                pictures = _batch(pipeline, some, size, negative, bf16)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not isinstance(error, torch.OutOfMemoryError) and "not enough memory" not in str(
                    error
                ):
                    raise
                if len(some) == 1:
                    raise SamplingError(
                        f"One image of {size} pixels does not fit into memory: use a machine with"
                        " more."
                    ) from None
                fits = -(-len(some) // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                print(f"Out of memory: going on with batches of {fits}.", flush=True)
                continue
            yield some, pictures
            begin += len(some)


@torch.no_grad()
def _batch(pipeline, jobs: pd.DataFrame, size: int, negative: str, bf16: bool) -> np.ndarray:
    """One batch through the stock pipeline: (n, size, size) float32."""
    device, side = pipeline.unet.device, size // pipeline.vae_scale_factor
    generators = [torch.Generator().manual_seed(int(seed)) for seed in jobs.seed]
    shape = (pipeline.unet.config.in_channels, side, side)
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(
        device
    )
    guidance, steps = float(jobs.guidance.iloc[0]), int(jobs.steps.iloc[0])
    pipeline.set_progress_bar_config(disable=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        latents = pipeline(
            list(jobs.prompt),
            negative_prompt=[negative] * len(jobs),
            height=size,
            width=size,
            num_inference_steps=steps,
            guidance_scale=guidance,
            latents=noise,
            generator=generators,
            output_type="latent",
        ).images
        decoded = pipeline.vae.decode(
            latents / pipeline.vae.config.scaling_factor, return_dict=False
        )[0]
    grey = decoded.float().mean(dim=1) / 2 + 0.5
    return grey.cpu().numpy()


def fault(picture: np.ndarray) -> str:
    """Why a drawn image is a failure ("not a number", "black", "one grey value"), or ''."""
    if not np.isfinite(picture).all():
        return "not a number"
    if picture.max() <= 1 / 255:
        return "black"
    return "one grey value" if np.ptp(picture) < 1 / 255 else ""


def quantised(picture: np.ndarray, bits: int) -> np.ndarray:
    """Grey 0..1 as 0..2**bits-1, uint8 for up to 8 bits, else uint16."""
    top = 2**bits - 1
    return np.floor(np.clip(picture, 0, 1) * top + 0.5).astype(np.uint8 if bits <= 8 else np.uint16)


def write_picture(path: Path, picture: np.ndarray, bits: int) -> None:
    """Write grey 0..1 as PNG, atomically."""
    tables.write_atomically(Path(path), images.write_png(quantised(picture, bits)))
