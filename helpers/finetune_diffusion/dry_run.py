"""The dry run before hours of training: data, caption lengths, memory, disk and time of a
fine-tuning, in under a minute.
"""

import gc
import shutil
import time

import pandas as pd
import psutil
import torch

from helpers.diffusion import ModelError, base_models, families
from helpers.finetune_diffusion import (
    TrainingError,
    tiny_model,
    trained_parts,
    training_cases,
    training_run,
)
from helpers.plurals import counted
from helpers.runner import runs
from helpers.runner.parameters import Record

MOMENTS = {"adamw": 8, "adamw8bit": 2}  # bytes per trained parameter
LARGE = 100e6  # parameters of a U-Net too large to train on a CPU: it is not timed there


def check(run: runs.Run) -> pd.DataFrame:
    """What the fine-tuning of `run` will need, as a table (what, value), stored as plan.json.

    Raises TrainingError or ModelError, before anything is trained, for a fault that would stop
    training later. With the parameter `only_check` it raises TrainingError with the table as its
    message.
    """
    if run.finished:
        return pd.read_json(run.folder / "plan.json")
    frame, recipe = training_run.read_cases(run), run.parameters
    base_models.use_cores()
    training_run.refuse_another(run, frame)
    pipeline = untrained_base(run, frame)
    device = base_models.device()
    families.of(pipeline).noising(pipeline, recipe.prediction)
    trained_parts.prepare(pipeline, recipe, device)
    parts = base_models.networks(pipeline).values()
    trained = sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad)
    rows = about_data(frame, recipe, pipeline)
    condition = training_cases.conditions([""], pipeline, recipe, run.folder.parent / ".cache")
    seconds_a_step, peak = trial(pipeline, recipe, device, condition)
    # Grids need all parts, but no gradients or activations.
    peak = max(peak, sum(p.nbytes for part in parts for p in part.parameters()))
    # Free this process's memory before training begins, which may run in other processes.
    del pipeline
    gc.collect()
    torch.cuda.empty_cache()
    needed = peak + trained * bytes_beside(recipe, device)
    if device.type == "cpu":
        needed += sum(value.nbytes for value in condition.values()) * frame.caption.nunique()
    rows |= about_cost(run, seconds_a_step, needed, trained, device)
    plan = pd.DataFrame(rows.items(), columns=["what", "value"])
    run.write_bytes("plan.json", (plan.to_json(orient="records", indent=1) + "\n").encode())
    if recipe.only_check:
        raise TrainingError(
            "only_check is set, so nothing was"
            f" trained.\n{plan.to_string(index=False, header=False)}"
        )
    return plan


def untrained_base(run: runs.Run, frame: pd.DataFrame):
    """The base before training: the tiny model is built untrained, any other base is loaded."""
    recipe, tiny = run.parameters, run.parameters.base == "tiny"
    if tiny and recipe.method == "lora":
        raise ModelError("method lora needs a trained base, not tiny: set method to full_text.")
    captions = list(frame.caption[frame.split == "train"])
    pipeline = tiny_model.build(captions, recipe) if tiny else training_run.loaded_base(run)
    if recipe.size % families.multiple(pipeline):
        raise ModelError(
            f"size {recipe.size} does not fit the base {recipe.base}: choose a multiple of"
            f" {families.multiple(pipeline)} pixels (the base draws"
            f" {families.native_size(pipeline)} by default)."
        )
    return pipeline


def about_data(frame: pd.DataFrame, recipe: Record, pipeline) -> dict[str, str]:
    """Rows about cases and captions.

    Captions that the tokenizer cuts are counted, and the longest is shown.
    """
    train = frame[frame.split == "train"]
    captions = sorted(set(train.caption))
    cut = families.too_long(captions, pipeline)
    example = f", for example: {max(cut, key=len)[:80]}…" if cut else ""
    whole_batch = recipe.batch * recipe.accumulate * recipe.processes
    return {
        "training images": f"{len(train)}, from {counted(train.patient.nunique(), 'patient')}",
        "times each is seen": f"{recipe.steps * whole_batch / len(train):.1f}",
        "held-out images": (
            f"{int((frame.split == 'validation').sum())}, at most {recipe.validation_images} are"
            " used"
        ),
        "bit depth": ", ".join(
            f"{bits} bits: {count}" for bits, count in frame.bits.value_counts().items()
        ),
        "captions": (
            f"{len(set(captions) - {''})} different ones;"
            f" {counted(int((train.caption == '').sum()), 'image')} without"
        ),
        "captions cut": (
            f"{len(cut)} longer than {families.of(pipeline).longest(pipeline)} tokens{example}"
        ),
    }


def bytes_beside(recipe: Record, device: torch.device) -> int:
    """Bytes of memory per trained parameter beside weights, gradients and activations: AdamW's two
    moments and the average; buckets of several processes; the best weights, which are kept on the
    CPU.
    """
    average = 4 if device.type == "cpu" or recipe.average_on == "device" else 0
    best = 4 if recipe.patience and device.type == "cpu" else 0
    return MOMENTS[recipe.optimizer] + average + (4 if recipe.processes > 1 else 0) + best


def bytes_of_checkpoint(recipe: Record) -> int:
    """Bytes per trained parameter: weight, two moments, average, and the best copy."""
    return 4 + MOMENTS[recipe.optimizer] + 4 + (4 if recipe.patience else 0)


def about_cost(
    run: runs.Run, seconds_a_step: float, bytes_needed: float, trained: int, device: torch.device
) -> dict[str, str]:
    """Rows about device, memory, disk and time. Raises TrainingError for what does not fit."""
    recipe = run.parameters
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
        where = torch.cuda.get_device_name(device)
    else:
        there = psutil.virtual_memory().available
        where = f"CPU, {counted(torch.get_num_threads(), 'thread')}"
    if bytes_needed > there:
        raise TrainingError(
            f"Training needs about {bytes_needed / 1e9:.1f} GB of memory, but {there / 1e9:.1f} GB"
            " are available: lower batch and raise accumulate, set gradient_checkpointing, or set"
            " method to lora."
        )
    disk = trained * bytes_of_checkpoint(recipe) * (recipe.keep_checkpoints + 1)
    free = shutil.disk_usage(run.folder).free
    if disk > free:
        raise TrainingError(
            f"Checkpoints need about {disk / 1e9:.1f} GB of disk, but {free / 1e9:.1f} GB are free:"
            " free some, lower keep_checkpoints, or move the folder outputs/ to a larger disk and"
            " name it with OUTPUTS=<folder>."
        )
    arithmetic = str(base_models.arithmetic(recipe.precision)).removeprefix("torch.")
    minutes = seconds_a_step * recipe.steps / 60
    return {
        "device": f"{recipe.processes} x {where}, {arithmetic} arithmetic",
        "memory": f"about {bytes_needed / 1e9:.1f} of {there / 1e9:.0f} GB",
        "disk while training": f"about {disk / 1e9:.1f} of {free / 1e9:.0f} GB free",
        "time of the loop": (
            f"about {counted(round(minutes), 'minute')}, {seconds_a_step:.2f} s per step"
            if seconds_a_step
            else "not measured: no GPU here"
        ),
    }


def trial(pipeline, recipe: Record, device: torch.device, condition: dict) -> tuple[float, float]:
    """Seconds per optimiser step, and bytes of memory for weights, gradients and activations, from
    two passes of a prepared pipeline on random latents with the `condition` of one caption.

    Without a GPU a real base is not timed; its memory is calculated from its parameters. Raises
    TrainingError when a pass does not fit into memory.
    """
    network = families.network(pipeline)
    model = trained_parts.Denoiser(pipeline, recipe.method == "full_text")
    if device.type == "cpu" and sum(p.numel() for p in network.parameters()) > LARGE:
        return 0.0, sum(p.nbytes * (2.5 if p.requires_grad else 1.5) for p in model.parameters())
    layout = base_models.layout(device)
    model.to(device, memory_format=layout).train()
    side = recipe.size // pipeline.vae_scale_factor
    shape = (recipe.batch, network.config.in_channels, side, side)
    noisy = torch.randn(shape, device=device).to(memory_format=layout)
    timesteps = torch.zeros(recipe.batch, dtype=torch.long, device=device)
    condition = {name: value[[0] * recipe.batch].to(device) for name, value in condition.items()}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before = psutil.Process().memory_info().rss
    try:
        for _ in range(2):
            begin = time.monotonic()
            with base_models.attention(device, side):
                with base_models.autocast(recipe.precision):
                    loss = model(noisy, timesteps, condition).float().square().mean()
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
    return seconds * recipe.accumulate, peak
