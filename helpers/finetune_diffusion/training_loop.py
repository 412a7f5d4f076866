"""Fine-tune Stable Diffusion on the study's cases: exact, resumable, with an explicit loop."""

import math
import time
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from peft import LoraConfig

from helpers import files
from helpers.diffusion import ModelError, base_models, families
from helpers.finetune_diffusion import checkpoints, latents
from helpers.finetune_diffusion.recipes import case_in_place, draw, learning_rate
from helpers.images import write_png
from helpers.runner.parameters import Record
from helpers.runner.progress import progress
from helpers.sample_diffusion import drawing

LEAST_SCALE = 2.0**-14  # smallest scale of float16 gradients; below it every step would be skipped


class TrainingError(RuntimeError):
    """Training cannot continue; the message says what to do and what was kept."""


class Denoiser(torch.nn.Module):
    """The trained parts as one module: the family's network and, if captions come as token ids, the
    text encoder.
    """

    def __init__(self, pipeline, with_text: bool):
        super().__init__()
        self.family = families.of(pipeline)
        self.add_module(self.family.network, families.network(pipeline))
        self.text_encoder = pipeline.text_encoder if with_text else None

    def forward(self, noisy, timesteps, told):
        """The prediction for noisy latents; `told` has the conditions by name."""
        if self.text_encoder is not None:
            told = {"text": self.text_encoder(told["ids"])[0]}
        network = getattr(self, self.family.network)
        return self.family.predict(network, noisy, timesteps, **told)


def train(
    pipeline,
    frame: pd.DataFrame,
    recipe: Record,
    folder: Path,
    cache: Path,
    grids: Path,
    prompts: list[str],
) -> pd.DataFrame:
    """Train the pipeline's network (text encoder, LoRA) in place and return the table `training`.

    `frame` has the columns file, sha256, bits, caption and split. Checkpoints go to `folder`,
    encoded images to `cache`, samples of the prompts to `grids`. Interrupted training continues
    from its newest checkpoint. Raises TrainingError when the loss is not a finite number and
    CheckpointError when the disk is full.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    device, processes = accelerator.device, accelerator.num_processes
    rank = accelerator.process_index
    autocast = partial(base_models.autocast, recipe.precision)
    # Scales gradients that float16 could not hold; with other arithmetic it does nothing.
    halved = base_models.arithmetic(recipe.precision) == torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=halved)
    say = print if accelerator.is_main_process else lambda *_, **__: None
    # With warn_only, a GPU's attention could still add in any order.
    torch.use_deterministic_algorithms(True)

    # The cases as latents and text. Each is encoded once, by the process whose share it is in.
    family, with_text = families.of(pipeline), recipe.method == "full_text"
    cases, held_out = split(frame, recipe)
    scaling = pipeline.vae.config.scaling_factor
    pipeline.vae.to(device, memory_format=torch.channels_last)
    images = latents.Images(pipeline, recipe.size, cache)
    images.encode(pd.concat([cases, held_out]).iloc[rank::processes])
    accelerator.wait_for_everyone()
    posteriors, held_out_posteriors = images.read(cases), images.read(held_out)
    captions = sorted({"", *cases.caption, *held_out.caption})
    for name in family.encoders:
        getattr(pipeline, name).to(device)
    texts = conditions(captions, pipeline, recipe, cache)
    number = {caption: index for index, caption in enumerate(captions)}
    text_of = torch.tensor([number[caption] for caption in cases.caption])
    held_out_text_of = torch.tensor([number[caption] for caption in held_out.caption])
    if device.type == "cuda":
        for part in base_models.networks(pipeline).values():
            part.to("cpu")

    # The trained parts. Their weights and the optimiser stay in fp32 whatever the arithmetic.
    prepare(pipeline, recipe, device)
    model = Denoiser(pipeline, with_text)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    layout = base_models.layout(device)
    model = model.to(device, memory_format=layout).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optimizer_of(parameters, recipe)
    ema = [parameter.detach().clone() for parameter in parameters]
    if recipe.average_on == "cpu":
        ema = [average.cpu() for average in ema]
    denoise = accelerator.prepare(torch.compile(model) if recipe.compile else model)
    diffused = family.noising(pipeline, recipe.prediction)
    if recipe.prediction:
        pipeline.scheduler.register_to_config(prediction_type=recipe.prediction)

    # Continue where the last process stopped.
    averages = {"ema": ema}
    if recipe.patience:
        averages["best"] = [average.clone().cpu() for average in ema]
    state = {"step": 0, "rows": [], "best": math.inf, "waited": 0}
    state |= checkpoints.restore(folder, names, parameters, optimizer, averages)
    begin, rows, best, waited = (state[key] for key in ("step", "rows", "best", "waited"))
    scaler.load_state_dict(state.get("scaler") or scaler.state_dict())
    if begin:
        say(f"Continuing from step {begin}.", flush=True)

    whole_batch = recipe.batch * recipe.accumulate * processes
    # of the loss, and of the gradient's norm
    sums, loss_count, clock = torch.zeros(2, device=device), 0, time.monotonic()
    stop = waited >= recipe.patience > 0
    for step in progress(range(begin + 1, recipe.steps + 1), "training") if not stop else ():
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        for part in range(recipe.accumulate):
            # This process's positions in the batch of this step; the seed alone decides the image
            # at a position.
            first = (step - 1) * whole_batch + (part * processes + rank) * recipe.batch
            places = range(first, first + recipe.batch)
            chosen = [case_in_place(place, len(cases), recipe.seed) for place in places]
            eps, posterior_noise, uniform, dropped = draw(
                places, posteriors.shape[2:], recipe, device
            )
            mean, deviation = posteriors[chosen].to(device, non_blocking=True).unbind(1)
            clean = (mean + deviation * posterior_noise) * scaling
            said = torch.where(dropped, number[""], text_of[chosen])
            told = {name: table[said].to(device) for name, table in texts.items()}

            noisy, timesteps, target, weights = diffused(clean, eps, uniform, recipe.min_snr)
            alone = nullcontext() if part == recipe.accumulate - 1 else accelerator.no_sync(denoise)
            with alone, base_models.attention(device, posteriors.shape[-1]):
                with autocast():
                    prediction = denoise(noisy.to(memory_format=layout), timesteps, told)
                losses = (prediction.float() - target).square().mean(dim=(1, 2, 3))
                scaler.scale((losses * weights).mean() / recipe.accumulate).backward()
            sums[0] += losses.detach().mean()
            loss_count += 1
        largest = recipe.clip if recipe.clip > 0 else math.inf
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(parameters, largest)
        # If a gradient is too large for float16, the scaler skips the step.
        sums[1] += norm.nan_to_num(0.0, 0.0, 0.0) if halved else norm
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        # The average starts with a low decay; otherwise it would keep too much of the first
        # weights.
        torch._foreach_lerp_(
            ema,
            [p.detach().to(ema[0].device) for p in parameters],
            1 - min(recipe.ema, (1 + step) / (10 + step)),
        )

        last = step == recipe.steps
        validating, saving = (
            last or step % every == 0 for every in (recipe.validate_every, recipe.checkpoint_every)
        )
        if validating or saving or step % recipe.log_every == 0:
            # Only here the loop waits for the device.
            mean_loss, norms = (accelerator.reduce(sums, "mean") / loss_count).tolist()
            if not math.isfinite(mean_loss + norms) or scaler.get_scale() < LEAST_SCALE:
                raise TrainingError(
                    not_finite(folder, step - loss_count // recipe.accumulate + 1, step, recipe)
                )
            seconds = time.monotonic() - clock
            rows.append(
                {
                    "step": step,
                    "epoch": step * whole_batch / len(cases),
                    "loss": mean_loss,
                    "learning_rate": learning_rate(step, recipe),
                    "images_per_second": loss_count * recipe.batch * processes / seconds,
                }
            )
            sums, loss_count = torch.zeros(2, device=device), 0
        if len(held_out) and validating:
            with swapped(parameters, ema):
                validation = held_out_loss(
                    model,
                    diffused,
                    held_out_posteriors,
                    held_out_text_of,
                    texts,
                    scaling,
                    recipe,
                    autocast,
                )
            validation = broadcast(validation).item()
            rows[-1]["validation_loss"] = validation
            left = (recipe.steps - step) * whole_batch / max(rows[-1]["images_per_second"], 1e-9)
            say(
                f"step {step}: loss {mean_loss:.4f}, held-out loss {validation:.4f},"
                f" {rows[-1]['images_per_second']:.1f} images/s, {memory(device)}, {left:.0f} s"
                " left",
                flush=True,
            )
            if not math.isfinite(validation):
                raise TrainingError(not_finite(folder, step, step, recipe))
            if validation < best:
                best, waited = validation, 0
                if recipe.patience:
                    torch._foreach_copy_(averages["best"], ema)
            else:
                waited += 1
                stop = waited >= recipe.patience > 0
        if recipe.grid_every and (last or stop or step % recipe.grid_every == 0):
            if accelerator.is_main_process:
                with swapped(parameters, ema):
                    grid(pipeline, prompts, recipe, grids / f"step-{step:08d}.png")
            accelerator.wait_for_everyone()
        if saving or stop:
            if accelerator.is_main_process:
                groups = checkpoints.tensors(names, parameters, optimizer, averages)
                state = {"rows": rows, "best": best, "waited": waited}
                state["scaler"] = scaler.state_dict()
                checkpoints.save(folder, step, groups, state, recipe.keep_checkpoints)
            accelerator.wait_for_everyone()
        if rows and rows[-1]["step"] == step:
            clock = time.monotonic()
        if stop:
            say(
                f"Stopped at step {step}: the held-out loss has not fallen below {best:.4f} for"
                f" {waited} validations.",
                flush=True,
            )
            break

    final = averages["best" if recipe.patience and len(held_out) else "ema"]
    torch._foreach_copy_([parameter.data for parameter in parameters], final)
    model.eval()
    for part in base_models.networks(pipeline).values():
        part.to("cpu")
    return pd.DataFrame(rows)


def prepare(pipeline, recipe: Record, device) -> None:
    """Freeze the parts that the method does not train, and add LoRA adapters for method lora.
    Raises ModelError for a method or a precision that the family does not have.
    """
    family, network = families.of(pipeline), families.network(pipeline)
    if recipe.method == "full_text" and not family.trains_text:
        raise ModelError(
            f"The text encoder of {family.name} is not trained here: set method to full or lora."
        )
    if not family.fp16 and base_models.arithmetic(recipe.precision) == torch.float16:
        raise ModelError(
            f"{family.name} gives values that are not finite in float16: set precision to bf16 on a"
            " GPU that supports it, or to fp32."
        )
    for part in base_models.networks(pipeline).values():
        part.requires_grad_(False)
    if recipe.method == "lora":
        network.add_adapter(
            LoraConfig(
                r=recipe.lora_rank,
                lora_alpha=recipe.lora_rank,
                target_modules=list(recipe.lora_targets),
            )
        )
        if device.type == "cuda":
            frozen = base_models.arithmetic(recipe.precision)
            for parameter in network.parameters():
                parameter.data = parameter.data.to(
                    torch.float32 if parameter.requires_grad else frozen
                )
    else:
        network.requires_grad_(True)
        if recipe.method == "full_text":
            pipeline.text_encoder.requires_grad_(True)
    if recipe.gradient_checkpointing:
        network.enable_gradient_checkpointing()
        if recipe.method == "full_text":
            pipeline.text_encoder.gradient_checkpointing_enable()


def conditions(captions: list[str], pipeline, recipe: Record, cache: Path) -> dict:
    """The conditions for the network, one row per caption; for full_text they are token ids."""
    if recipe.method == "full_text":
        return {"ids": latents.token_ids(captions, pipeline.tokenizer)}
    return latents.of_captions(captions, pipeline, recipe.size, cache)


def optimizer_of(parameters: list, recipe: Record) -> torch.optim.Optimizer:
    """AdamW, or its 8-bit version. Raises TrainingError where that is not installed."""
    values = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **values)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise TrainingError(
            "optimizer adamw8bit needs the package bitsandbytes: pip install -e '.[adamw8bit]'."
        ) from None
    return AdamW8bit(parameters, **values)


def split(frame: pd.DataFrame, recipe: Record) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The training cases, and `validation_images` of the held-out cases, evenly spread over their
    list.
    """
    cases = frame[frame.split == "train"].reset_index(drop=True)
    held_out = frame[frame.split == "validation"].reset_index(drop=True)
    if not len(cases):
        raise TrainingError(
            "There are no training cases: no row of the cases' images.csv has split train."
        )
    count = min(len(held_out), recipe.validation_images)
    spread = np.unique(np.linspace(0, len(held_out) - 1, count).round().astype(int))
    return cases, held_out.iloc[spread].reset_index(drop=True)


@torch.no_grad()
def held_out_loss(
    model, diffused, posteriors, text_of, texts, scaling: float, recipe: Record, autocast
) -> torch.Tensor:
    """Mean squared error on the held-out latents with the same noise each time and timesteps spread
    evenly; a scalar.
    """
    device = next(model.parameters()).device
    total, layout = torch.zeros((), device=device), base_models.layout(device)
    spread = ((torch.arange(len(posteriors)) * 0.618034 + 0.5) % 1).to(device)
    model.eval()
    for begin in range(0, len(posteriors), recipe.batch):
        some = slice(begin, begin + recipe.batch)
        clean = posteriors[some, 0].to(device) * scaling
        eps = [
            torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(place))
            for place in range(len(posteriors))[some]
        ]
        told = {name: table[text_of[some]].to(device) for name, table in texts.items()}
        noisy, timesteps, target, _ = diffused(clean, torch.stack(eps).to(device), spread[some], 0)
        with autocast():
            prediction = model(noisy.to(memory_format=layout), timesteps, told)
        total += (prediction.float() - target).square().mean(dim=(1, 2, 3)).sum()
    model.train()
    return total / len(posteriors)


@contextmanager
def swapped(parameters, average):
    """A context in which the averaged weights replace the trained ones, without a third copy."""
    _exchange(parameters, average)
    try:
        yield
    finally:
        _exchange(parameters, average)


def _exchange(parameters, average):
    for parameter, mean in zip(parameters, average):
        kept = parameter.detach().clone()
        parameter.data.copy_(mean)
        mean.copy_(kept)


def grid(pipeline, prompts: list[str], recipe: Record, path: Path) -> None:
    """Four samples per prompt with fixed seeds as one PNG."""
    jobs = pd.DataFrame(
        [
            {"prompt": prompt, "seed": seed, "guidance": 3.0, "steps": 20}
            for prompt in prompts
            for seed in range(4)
        ]
    )
    parts, device = base_models.networks(pipeline).values(), families.network(pipeline).device
    idle = [part for part in parts if part.device != device]
    for part in idle:
        part.to(device)
    drawn = np.stack(drawing.draw(pipeline, jobs, recipe.size, "", recipe.precision))
    for part in idle:
        part.to("cpu")
    rows = drawn.reshape(len(prompts), 4, recipe.size, recipe.size)
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    files.write_atomically(path, write_png(drawing.quantised(sheet, 8)))


def not_finite(folder: Path, first: int, last: int, recipe: Record) -> str:
    """The error message for a loss or gradient that is not finite."""
    return (
        f"The loss or its gradient is not a finite number between steps {first} and {last}. The"
        f" last good checkpoint is kept in {folder.name}/. Lower learning_rate (now"
        f" {recipe.learning_rate:g}) or set precision to fp32. Do this in another variant, or with"
        " FORCE=1, which starts again and keeps the old training files in another folder."
    )


def memory(device) -> str:
    """Peak memory so far, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB of GPU memory"
    import resource

    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB"
