"""Before hours are spent: data, caption lengths, memory, disk and time of a fine-tuning, in under a
minute.
"""

import shutil
import time

import pandas as pd
import psutil
import torch

from helpers.diffusion import base_models
from helpers.diffusion.base_models import ModelError
from helpers.finetune_diffusion import latents, tiny_model, training_loop, training_run
from helpers.finetune_diffusion.training_loop import TrainingError
from helpers.runner import runs
from helpers.runner.parameters import Record

LARGE = 100e6  # parameters of a U-Net that no CPU trains: there, nothing is timed


def check(run: runs.Run) -> pd.DataFrame:
    """What the fine-tuning that `run` asks for will need, as a table (what, value), kept as
    plan.json.

    Raises TrainingError or ModelError for what would fail later, before anything is trained; with
    the parameter `only_check` it raises TrainingError with the table as its message.
    """
    if run.finished:
        return pd.read_json(run.folder / "plan.json")
    frame, recipe = training_run.read_cases(run), run.parameters
    base_models.use_cores()
    pipeline = untrained_base(run, frame)
    device = base_models.device()
    seconds_a_step, bytes_needed = trial(pipeline, recipe, device)
    rows = {
        **about_data(frame, recipe, pipeline),
        **about_cost(run, seconds_a_step, bytes_needed, device),
    }
    plan = pd.DataFrame(rows.items(), columns=["what", "value"])
    run.write_bytes("plan.json", (plan.to_json(orient="records", indent=1) + "\n").encode())
    if recipe.only_check:
        raise TrainingError(
            "Only checked, as only_check asks; nothing was"
            f" trained.\n{plan.to_string(index=False, header=False)}"
        )
    return plan


def untrained_base(run: runs.Run, frame: pd.DataFrame):
    """The base as it is before training: the tiny model unlearned, any other loaded."""
    recipe = run.parameters
    if recipe.base == "tiny":
        pipeline = tiny_model.build(list(frame.caption[frame.split == "train"]), recipe)
    else:
        pipeline = training_run.loaded_base(run)
    halvings = len(pipeline.unet.config.block_out_channels) - 1
    if recipe.size % (pipeline.vae_scale_factor * 2**halvings):
        raise ModelError(
            f"size {recipe.size} does not fit the base {recipe.base}: take a multiple of its native"
            f" {base_models.native_size(pipeline)} pixels."
        )
    return pipeline


def about_data(frame: pd.DataFrame, recipe: Record, pipeline) -> dict[str, str]:
    """Rows about cases and captions.

    Captions that the tokenizer cuts are counted, the longest shown.
    """
    train = frame[frame.split == "train"]
    captions = sorted(set(train.caption))
    cut = latents.too_long(captions, pipeline.tokenizer)
    example = f", for example: {max(cut, key=len)[:80]}…" if cut else ""
    whole_batch = recipe.batch * recipe.accumulate * recipe.processes
    return {
        "training images": (
            f"{len(train)} of {train.patient.nunique()} patients, each seen"
            f" {recipe.steps * whole_batch / len(train):.1f} times"
        ),
        "held-out images": (
            f"{int((frame.split == 'validation').sum())}, at most {recipe.validation_images} are"
            " used"
        ),
        "grey depth": ", ".join(
            f"{bits} bits: {count}" for bits, count in frame.bits.value_counts().items()
        ),
        "captions": (
            f"{len(captions)} different ones, {int((train.caption == '').sum())} images without"
        ),
        "captions cut": (
            f"{len(cut)} longer than {pipeline.tokenizer.model_max_length} tokens{example}"
        ),
    }


def about_cost(
    run: runs.Run, seconds_a_step: float, bytes_needed: float, device: torch.device
) -> dict[str, str]:
    """Rows about device, memory, disk and time. Raises TrainingError for what does not fit."""
    recipe = run.parameters
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
        where = torch.cuda.get_device_name(device)
    else:
        there = psutil.virtual_memory().available
        where = f"CPU, {torch.get_num_threads()} threads"
    if bytes_needed > there:
        raise TrainingError(
            f"Training needs about {bytes_needed / 1e9:.1f} GB of memory, {there / 1e9:.1f} GB are"
            " there: lower batch and raise accumulate, set gradient_checkpointing, or take method"
            " lora."
        )
    disk = bytes_needed * (recipe.keep_checkpoints + 1) * 0.8
    free = shutil.disk_usage(run.folder).free
    if disk > free:
        raise TrainingError(
            f"Checkpoints need about {disk / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free:"
            " free some, lower keep_checkpoints, or put the results elsewhere with"
            " OUTPUTS=<folder>."
        )
    arithmetic = "bf16" if base_models.use_bf16(recipe.precision) else "fp32"
    minutes = seconds_a_step * recipe.steps / 60
    return {
        "device": f"{recipe.processes} x {where}, {arithmetic} arithmetic",
        "memory": f"about {bytes_needed / 1e9:.1f} of {there / 1e9:.0f} GB",
        "disk while training": f"about {disk / 1e9:.1f} of {free / 1e9:.0f} GB free",
        "time of the loop": (
            f"about {minutes:.0f} minutes, {seconds_a_step:.2f} s a step"
            if seconds_a_step
            else "not measured: no GPU here"
        ),
    }


def trial(pipeline, recipe: Record, device: torch.device) -> tuple[float, float]:
    """Seconds an optimiser step and bytes of memory, from two passes on random latents; changes the
    pipeline.

    A real base without a GPU is not timed and its memory counted from its parameters. Raises
    TrainingError when a pass does not fit into memory.
    """
    training_loop.prepare(pipeline, recipe, device)
    model = training_loop.Denoiser(pipeline.unet, pipeline.text_encoder)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if device.type == "cpu" and sum(p.numel() for p in pipeline.unet.parameters()) > LARGE:
        # gradient, two moments, average, and the weights themselves
        return 0.0, 1.5 * (trained * 16 + sum(p.nbytes for p in model.parameters()))
    layout = base_models.layout(device)
    model.to(device, memory_format=layout).train()
    side, length = recipe.size // pipeline.vae_scale_factor, pipeline.tokenizer.model_max_length
    shape = (recipe.batch, pipeline.unet.config.in_channels, side, side)
    noisy = torch.randn(shape, device=device).to(memory_format=layout)
    timesteps = torch.zeros(recipe.batch, dtype=torch.long, device=device)
    ids = torch.zeros(recipe.batch, length, dtype=torch.long, device=device)
    bf16, before = base_models.use_bf16(recipe.precision), psutil.Process().memory_info().rss
    try:
        for _ in range(2):
            begin = time.monotonic()
            with base_models.attention(device, side):
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    loss = model(noisy, timesteps, ids).float().square().mean()
                loss.backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.monotonic() - begin
    except torch.OutOfMemoryError:
        raise TrainingError(
            f"A batch of {recipe.batch} images of {recipe.size} pixels does not fit into this GPU's"
            " memory: lower batch and raise accumulate, or set gradient_checkpointing."
        ) from None
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = psutil.Process().memory_info().rss - before + 8e8
    model.zero_grad(set_to_none=True)
    model.to("cpu")
    return seconds * recipe.accumulate, peak + trained * 12
