"""Checkpoint + prompts + seeds -> grey images, each from noise of its own."""

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
from helpers.diffusion import base_models, noise
from helpers.runner import runs
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


def plan(prompts: pd.DataFrame, run: runs.Run) -> pd.DataFrame:
    """One row per image: every prompt's `count` replicates x guidance x steps, in a fixed order.

    `prompts` has prompt_id, prompt and count. The seed follows from study, prompt and replicate, so
    that settings are compared on the same noise. Returns image_id, prompt_id, prompt, replicate,
    seed, scheduler, steps, guidance.
    """
    asked = run.parameters
    kept = [
        "image_id",
        "prompt_id",
        "prompt",
        "replicate",
        "seed",
        "scheduler",
        "steps",
        "guidance",
    ]
    jobs = prompts.loc[prompts.index.repeat(prompts["count"])].assign(scheduler=asked.scheduler)
    jobs["replicate"] = jobs.groupby("prompt_id").cumcount()
    for column, values in (
        ("guidance", map(float, asked.guidance)),
        ("steps", map(int, asked.steps)),
    ):
        jobs = jobs.merge(pd.Series(list(values), name=column), how="cross")
    if jobs.empty:
        raise SamplingError(
            "There is nothing to sample: the prompts table has no row with a count above 0."
        )
    jobs["seed"] = [
        noise.number_from(run.study, job.prompt, job.replicate) for job in jobs.itertuples()
    ]
    names = jobs[["prompt_id", "replicate", "scheduler", "steps", "guidance"]].itertuples(
        index=False
    )
    jobs["image_id"] = [
        f"s{noise.number_from(run.study, asked.checkpoint, *name):016x}" for name in names
    ]
    return jobs[kept]


def load(checkpoint: str, scheduler: str, lora_scale: float, base: str, revision: str):
    """A pipeline ready to draw: a diffusers folder, hub id or single file; for a folder of LoRA
    weights its base with them added.

    Raises ModelError for something else.
    """
    lora = (Path(checkpoint) / base_models.LORA_FILE).is_file()
    pipeline = base_models.load(base if lora else checkpoint, revision)
    if lora:
        pipeline.load_lora_weights(checkpoint, weight_name=base_models.LORA_FILE)
        pipeline.fuse_lora(lora_scale=lora_scale)
        pipeline.unload_lora_weights()
    exchange_scheduler(pipeline, scheduler)
    return pipeline


def exchange_scheduler(pipeline, name: str) -> None:
    """Let the pipeline draw with the scheduler of that name, on its own noise schedule."""
    extra = {} if name in ("ddpm", "euler_a") else {"steps_offset": 1}
    pipeline.scheduler = SCHEDULERS[name].from_config({**pipeline.scheduler.config, **extra})


def to_device(pipeline, precision: str) -> None:
    """Move the pipeline to the GPU where there is one, in the layout and precision that are fastest
    there.
    """
    device, bf16 = base_models.device(), base_models.use_bf16(precision)
    for name in base_models.PARTS:
        part = getattr(pipeline, name)
        part.to(device, memory_format=base_models.layout(device)).eval()
        if bf16 and device.type == "cuda":
            part.to(torch.bfloat16)


def draw(
    pipeline, jobs: pd.DataFrame, size: int, negative: str, precision: str
) -> list[np.ndarray]:
    """The images of `jobs` (prompt, seed, guidance, steps), each (size, size) float32 in 0..1, NaN
    where drawing failed.

    All with the same guidance and steps go through at once; every image starts from its own seed's
    noise, drawn on the CPU. Raises SamplingError when a single image does not fit into memory.
    """
    drawn = draw_batches(pipeline, batches(jobs, len(jobs)), size, negative, precision)
    return [picture for _, pictures in drawn for picture in pictures]


def batches(jobs: pd.DataFrame, batch: int) -> list[pd.DataFrame]:
    """The jobs in their order, cut into batches of at most `batch` with the same guidance and
    steps.
    """
    settings = jobs[["guidance", "steps"]]
    changes = (settings != settings.shift()).any(axis=1).cumsum()
    return [
        alike.iloc[begin : begin + batch]
        for _, alike in jobs.groupby(changes, sort=False)
        for begin in range(0, len(alike), batch)
    ]


def draw_batches(
    pipeline, batches: Iterable[pd.DataFrame], size: int, negative: str, precision: str
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
                pictures = _batch(pipeline, some, size, negative, precision)
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
def _batch(pipeline, jobs: pd.DataFrame, size: int, negative: str, precision: str) -> np.ndarray:
    """One batch through the stock pipeline: (n, size, size) float32."""
    device, side = pipeline.unet.device, size // pipeline.vae_scale_factor
    generators = [torch.Generator().manual_seed(int(seed)) for seed in jobs.seed]
    shape = (pipeline.unet.config.in_channels, side, side)
    start = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    bf16 = base_models.use_bf16(precision)
    pipeline.set_progress_bar_config(disable=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        latents = pipeline(
            list(jobs.prompt),
            negative_prompt=[negative] * len(jobs),
            height=size,
            width=size,
            num_inference_steps=int(jobs.steps.iloc[0]),
            guidance_scale=float(jobs.guidance.iloc[0]),
            latents=start.to(device),
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


def write_picture(path: Path, picture: np.ndarray, bits: int) -> None:
    """Write grey 0..1 as a PNG of 0..2**bits-1, atomically."""
    grey = np.floor(np.clip(picture, 0, 1) * (2**bits - 1) + 0.5)
    array = grey.astype(np.uint8 if bits <= 8 else np.uint16)
    tables.write_atomically(Path(path), images.write_png(array))
