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
from helpers.diffusion import base_models, noise
from helpers.finetune_diffusion import checkpoints, latents
from helpers.finetune_diffusion.recipes import case_in_place, draw, learning_rate
from helpers.images import write_png
from helpers.runner.parameters import Record
from helpers.runner.progress import progress
from helpers.sample_diffusion import drawing

LEAST_SCALE = 2.0**-14  # of float16's gradients: below, every step is left out


class TrainingError(RuntimeError):
    """Training that cannot continue; the message says what to do and what was kept."""


class Denoiser(torch.nn.Module):
    """What is trained, as one module: the U-Net and, when its captions come as token ids, the text
    encoder.
    """

    def __init__(self, pipeline, with_text: bool = True):
        super().__init__()
        self.unet = pipeline.unet
        self.text_encoder = pipeline.text_encoder if with_text else None

    def forward(self, noisy, timesteps, text):
        if self.text_encoder is not None:
            text = self.text_encoder(text)[0]
        return self.unet(noisy, timesteps, encoder_hidden_states=text, return_dict=False)[0]


def train(
    pipeline,
    frame: pd.DataFrame,
    recipe: Record,
    folder: Path,
    cache: Path,
    grids: Path,
    prompts: list[str],
) -> pd.DataFrame:
    """Train the pipeline's U-Net (text encoder, LoRA) in place and return the table `training`.

    `frame` has the columns file, sha256, bits, caption and split. Checkpoints go to `folder`,
    encoded images to `cache`, samples of the prompts to `grids`. Interrupted training continues
    from its newest checkpoint. Raises TrainingError when the loss is not a finite number and
    CheckpointError when the disk is full.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    device, processes = accelerator.device, accelerator.num_processes
    rank = accelerator.process_index
    autocast = partial(base_models.autocast, recipe.precision)
    # Gradients that float16 could not hold are scaled; with other arithmetic it does nothing.
    halved = base_models.arithmetic(recipe.precision) == torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=halved)
    say = print if accelerator.is_main_process else lambda *_, **__: None
    # With warn_only the attention of a GPU would stay free to add up in any order.
    torch.use_deterministic_algorithms(True)

    # What is trained. Its weights and the optimiser stay in fp32 whatever the arithmetic is done
    # in.
    with_text = recipe.method == "full_text"
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
    process = noise.schedule(pipeline, recipe.prediction)
    pipeline.scheduler.register_to_config(prediction_type=process.config.prediction_type)

    # The cases as latents and text, each encoded once, by whichever process has it in its share.
    cases, held_out = split(frame, recipe)
    scaling = pipeline.vae.config.scaling_factor
    pipeline.vae.to(device, memory_format=torch.channels_last)
    images = latents.Images(pipeline.vae, recipe.size, cache)
    images.encode(pd.concat([cases, held_out]).iloc[rank::processes])
    accelerator.wait_for_everyone()
    posteriors, held_out_posteriors = images.read(cases), images.read(held_out)
    captions = sorted({"", *cases.caption, *held_out.caption})
    if with_text:
        texts = latents.token_ids(captions, pipeline.tokenizer)
    else:
        pipeline.text_encoder.to(device)
        texts = latents.of_captions(captions, pipeline, cache)
    number = {caption: index for index, caption in enumerate(captions)}
    text_of = torch.tensor([number[caption] for caption in cases.caption])
    held_out_text_of = torch.tensor([number[caption] for caption in held_out.caption])
    if device.type == "cuda":
        pipeline.vae.to("cpu")

    # Where the last kill left it.
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
            # This process's places in the batch of this step; the image in a place follows from the
            # seed alone.
            first = (step - 1) * whole_batch + (part * processes + rank) * recipe.batch
            places = range(first, first + recipe.batch)
            chosen = [case_in_place(place, len(cases), recipe.seed) for place in places]
            eps, posterior_noise, uniform, dropped = draw(
                places, posteriors.shape[2:], recipe, device
            )
            mean, deviation = posteriors[chosen].to(device, non_blocking=True).unbind(1)
            clean = (mean + deviation * posterior_noise) * scaling
            text = texts[torch.where(dropped, number[""], text_of[chosen])].to(device)

            noisy, timesteps, target, weights = noise.diffused(
                process, clean, eps, uniform, recipe.min_snr
            )
            alone = nullcontext() if part == recipe.accumulate - 1 else accelerator.no_sync(denoise)
            with alone, base_models.attention(device, posteriors.shape[-1]):
                with autocast():
                    prediction = denoise(noisy.to(memory_format=layout), timesteps, text)
                losses = (prediction.float() - target).square().mean(dim=(1, 2, 3))
                scaler.scale((losses * weights).mean() / recipe.accumulate).backward()
            sums[0] += losses.detach().mean()
            loss_count += 1
        largest = recipe.clip if recipe.clip > 0 else math.inf
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(parameters, largest)
        # Where a gradient is too large for float16 the scaler leaves the step out.
        sums[1] += norm.nan_to_num(0.0, 0.0, 0.0) if halved else norm
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        # A young average is warmed up, or it would remember the beginning for too long.
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
            # The one place where the device is waited for.
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
                    process,
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
    model.to("cpu").eval()
    pipeline.vae.to("cpu")
    pipeline.text_encoder.to("cpu")
    return pd.DataFrame(rows)


def prepare(pipeline, recipe: Record, device) -> None:
    """Freeze what the method does not train, add LoRA adapters where it asks for them."""
    for part in base_models.PARTS:
        getattr(pipeline, part).requires_grad_(False)
    if recipe.method == "lora":
        pipeline.unet.add_adapter(
            LoraConfig(
                r=recipe.lora_rank,
                lora_alpha=recipe.lora_rank,
                target_modules=list(recipe.lora_targets),
            )
        )
        if device.type == "cuda":
            frozen = base_models.arithmetic(recipe.precision)
            for parameter in pipeline.unet.parameters():
                parameter.data = parameter.data.to(
                    torch.float32 if parameter.requires_grad else frozen
                )
    else:
        pipeline.unet.requires_grad_(True)
        if recipe.method == "full_text":
            pipeline.text_encoder.requires_grad_(True)
    if recipe.gradient_checkpointing:
        pipeline.unet.enable_gradient_checkpointing()
        if recipe.method == "full_text":
            pipeline.text_encoder.gradient_checkpointing_enable()


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
    model, process, posteriors, text_of, texts, scaling: float, recipe: Record, autocast
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
        noisy, timesteps, target, _ = noise.diffused(
            process, clean, torch.stack(eps).to(device), spread[some], 0.0
        )
        with autocast():
            prediction = model(
                noisy.to(memory_format=layout), timesteps, texts[text_of[some]].to(device)
            )
        total += (prediction.float() - target).square().mean(dim=(1, 2, 3)).sum()
    model.train()
    return total / len(posteriors)


@contextmanager
def swapped(parameters, average):
    """A context with the averaged weights in place of the trained ones, without a third copy."""
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
    place = pipeline.vae.device
    pipeline.vae.to(pipeline.unet.device)
    drawn = np.stack(drawing.draw(pipeline, jobs, recipe.size, "", recipe.precision))
    pipeline.vae.to(place)
    rows = drawn.reshape(len(prompts), 4, recipe.size, recipe.size)
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    files.write_atomically(path, write_png(drawing.quantised(sheet, 8)))


def not_finite(folder: Path, first: int, last: int, recipe: Record) -> str:
    """The sentence for a loss or gradient that is not a finite number."""
    return (
        f"The loss or its gradient is not a finite number between steps {first} and {last}. The"
        f" last good checkpoint is kept in {folder.name}/. Lower learning_rate (now"
        f" {recipe.learning_rate:g}) or set precision to fp32, in another variant or with FORCE=1,"
        " which starts again and keeps the old training files in a folder beside it."
    )


def memory(device) -> str:
    """Peak memory so far, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB of GPU memory"
    import resource

    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB"
