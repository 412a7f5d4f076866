"""Turns a checkpoint, prompts and seeds into grey images, each from its own noise, and keeps the
stages of one from noise to lung, for the poster's page (10).
"""

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
    UnCLIPPipeline,
    UniPCMultistepScheduler,
)

from helpers import images
from helpers.diffusion import ModelError, base_models, families, noise
from helpers.runner import runs
from helpers.sample_diffusion import inpainting
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
# Batches of another size or on another number of threads differ by at most this share of the grey
# range (see the tests).
TOLERANCE = 0.02


def plan(prompts: pd.DataFrame, run: runs.Run) -> pd.DataFrame:
    """One row per image: every prompt's `count` replicates x guidance x steps, in a fixed order.

    `prompts` has prompt_id, prompt and count. The seed follows from study, prompt and replicate, so
    that settings are compared on the same noise. Returns image_id, prompt_id, prompt, replicate,
    seed, scheduler, steps, guidance. Raises SamplingError for steps and scales that are none.
    """
    parameters = run.parameters
    try:
        # At 1 and below, stock pipelines draw without guidance: one row, not two.
        guidance = dict.fromkeys(max(float(scale), 1.0) for scale in parameters.guidance)
        steps = dict.fromkeys(int(number) for number in parameters.steps)
    except ValueError:
        guidance, steps = {}, {}
    if not guidance or not all(map(math.isfinite, guidance)) or min(steps, default=0) < 1:
        raise SamplingError(
            f"guidance {list(parameters.guidance)} must be numbers, such as ['4'], and steps"
            f" {list(parameters.steps)} must be whole numbers of 1 or more, such as ['25']."
        )
    settings = pd.MultiIndex.from_product([guidance, steps], names=["guidance", "steps"])
    jobs = prompts.loc[prompts.index.repeat(prompts["count"]), ["prompt_id", "prompt"]]
    jobs["replicate"] = jobs.groupby("prompt_id").cumcount()
    jobs = jobs.merge(settings.to_frame(index=False), how="cross").assign(
        scheduler=parameters.scheduler
    )
    if jobs.empty:
        raise SamplingError(
            "There is nothing to sample: the prompts table has no row with a count above 0."
        )
    jobs["seed"] = [
        noise.number_from(run.study, job.prompt, job.replicate) for job in jobs.itertuples()
    ]
    names = jobs[["prompt_id", "replicate", "scheduler", "steps", "guidance"]]
    jobs.insert(
        0,
        "image_id",
        [
            f"s{noise.number_from(run.study, parameters.checkpoint, *name):016x}"
            for name in names.itertuples(index=False, name=None)
        ],
    )
    return jobs


def load(
    checkpoint: str, scheduler: str, lora_scale: float, base: str, revision: str, trained: dict
):
    """A pipeline ready to draw: anything that AutoPipelineForText2Image loads from a folder or the
    hub, UnCLIP, or a single file. For a folder of LoRA weights it is the base with these weights.
    `trained` is the recipe.json of a model trained here.

    Raises ModelError for anything else, and for adapters of another base.
    """
    lora = (Path(checkpoint) / base_models.LORA_FILE).is_file()
    pipeline = base_models.load_any(base if lora else checkpoint, revision)
    if lora:
        if base_models.fingerprint(pipeline) != trained["base_sha256"]:
            raise ModelError(
                f"{Path(base).name} is not the base that these LoRA weights were trained on (its"
                " hash differs): name the base in the model card."
            )
        pipeline.load_lora_weights(checkpoint, weight_name=base_models.LORA_FILE)
        pipeline.fuse_lora(lora_scale=lora_scale)
        pipeline.unload_lora_weights()
    if trained:
        side = trained["recipe"]["size"] // pipeline.vae_scale_factor
        families.network(pipeline).register_to_config(sample_size=side)
    if trained and "prediction_type" in pipeline.scheduler.config:
        pipeline.scheduler.register_to_config(prediction_type=trained["prediction"])
    if scheduler != "own":
        exchange_scheduler(pipeline, scheduler)
    return pipeline


def exchange_scheduler(pipeline, name: str) -> None:
    """Replace the pipeline's scheduler by the named one, with the pipeline's own noise schedule.
    Raises SamplingError for a pipeline with another kind of schedule.
    """
    own = getattr(pipeline, "scheduler", None)
    if not own or "beta_schedule" not in own.config or own.config.get("use_flow_sigmas"):
        raise SamplingError(
            f"{type(pipeline).__name__} works only with its own scheduler: set scheduler to own"
            f" (it is {name})."
        )
    extra = {} if name in ("ddpm", "euler_a") else {"steps_offset": 1}
    pipeline.scheduler = SCHEDULERS[name].from_config({**own.config, **extra})


def to_device(pipeline, precision: str) -> None:
    """Move the pipeline to the GPU if there is one, in the fastest layout and precision; the VAE
    stays in fp32.
    """
    device, dtype = base_models.device(), base_models.arithmetic(precision)
    for name, part in base_models.networks(pipeline).items():
        halved = device.type == "cuda" and name != "vae"
        part.to(dtype if halved else torch.float32).to(device).eval()
        if name == "unet":
            part.to(memory_format=base_models.layout(device))
    if device.type == "cuda" and hasattr(getattr(pipeline, "vae", None), "enable_slicing"):
        pipeline.vae.enable_slicing()  # in fp32 a batch would need gigabytes


def draw(
    pipeline, jobs: pd.DataFrame, size: int, negative: str, precision: str
) -> list[np.ndarray]:
    """The images of `jobs` (prompt, seed, guidance, steps), each (size, size) float32 in 0..1, NaN
    where drawing failed.

    Jobs with the same guidance and steps run together. Every image starts from the noise of its own
    seed, drawn on the CPU. Raises SamplingError when a single image does not fit into memory.
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
    """Draw the batches of jobs one after another; yields (jobs, their images) for each batch.

    A batch that does not fit into memory is halved, and so is every later batch of that size.
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
                        " more memory."
                    ) from None
                fits = -(-len(some) // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                print(f"Out of memory: continuing with batches of {fits}.", flush=True)
                continue
            yield some, pictures
            begin += len(some)


@torch.no_grad()
def _batch(pipeline, jobs: pd.DataFrame, size: int, negative: str, precision: str) -> np.ndarray:
    """One batch through the stock pipeline: (n, height, width) float32."""
    generators = [torch.Generator().manual_seed(int(seed)) for seed in jobs.seed]
    options = arguments_of(
        pipeline, int(jobs.steps.iloc[0]), float(jobs.guidance.iloc[0]), size, negative, len(jobs)
    )
    if type(pipeline).__name__ in families.FAMILIES:
        # The noise stays in fp32, whatever the precision of the text encoder's output.
        side = size // pipeline.vae_scale_factor
        shape = (families.network(pipeline).config.in_channels, side, side)
        noises = [torch.randn(shape, generator=generator) for generator in generators]
        options["latents"] = torch.stack(noises).to(pipeline.device)
    paste = np.asarray
    if "made_from" in jobs:
        pipeline, options, paste = inpainting.editor(pipeline, jobs, size, options)
    pipeline.set_progress_bar_config(disable=True)
    with (
        base_models.autocast(precision),
        decoding_in_fp32(pipeline),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        drawn = pipeline(list(jobs.prompt), generator=generators, output_type="np", **options)
    return paste(np.asarray(drawn.images, np.float32).mean(axis=3))


def arguments_of(
    pipeline, steps: int, guidance: float, size: int, negative: str, count: int
) -> dict[str, object]:
    """The arguments of a pipeline, under its own names for them. Raises SamplingError for a size or
    a negative prompt if the pipeline has no such argument.
    """
    if isinstance(
        pipeline, UnCLIPPipeline
    ):  # the super-resolution keeps its default number of steps
        known = ("prior_num_inference_steps", "decoder_num_inference_steps")
        wanted = {**dict.fromkeys(known, steps), "decoder_guidance_scale": guidance}
    else:
        wanted = {"num_inference_steps": steps, "guidance_scale": guidance}
    if size:
        wanted |= {"height": size, "width": size}
    if negative:
        wanted["negative_prompt"] = [negative] * count
    taken = inspect.signature(pipeline.__call__).parameters
    if refused := [key for key in ("height", "negative_prompt") if key in wanted.keys() - taken]:
        raise SamplingError(
            f"{type(pipeline).__name__} has no {refused[0]}: leave out"
            f" {'size' if refused[0] == 'height' else refused[0]}."
        )
    # If asked for 512 pixels, such pipelines would draw 1024 and crop.
    wanted |= {"use_resolution_binning": False}
    return {key: value for key, value in wanted.items() if key in taken}


@contextmanager
def decoding_in_fp32(pipeline):
    """A context in which the VAE decodes in fp32: in bf16 the brightest quarter of a 12-bit image
    would have gaps of 8 grey levels.
    """
    vae = getattr(pipeline, "vae", None)
    if vae is None:
        yield
        return
    decode = vae.decode

    def exactly(latents, *arguments, **options):
        with torch.autocast(latents.device.type, enabled=False):
            return decode(latents.float(), *arguments, **options)

    vae.decode = exactly
    try:
        yield
    finally:
        vae.decode = decode


def fault(picture: np.ndarray) -> str:
    """Why a drawn image is a failure ("not a number", "black", "one grey value"), or ''."""
    if not np.isfinite(picture).all():
        return "not a number"
    if picture.max() <= 1 / 255:
        return "black"
    return "one grey value" if np.ptp(picture) < 1 / 255 else ""


def quantised(picture: np.ndarray, bits: int) -> np.ndarray:
    """Grey 0..1 as 0..2**bits-1, uint8 for up to 8 bits, else uint16."""
    grey = np.floor(np.clip(picture, 0, 1) * (2**bits - 1) + 0.5)
    return grey.astype(np.uint8 if bits <= 8 else np.uint16)


def keep_stages(run: runs.Run, pipeline, image_id: str, draw: Callable, bits: int) -> None:
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
        content = images.write_png(quantised(stage, bits))
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
