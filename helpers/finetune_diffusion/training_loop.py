"""Fine-tune Stable Diffusion on the study's cases: exact, resumable, with an explicit loop."""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from helpers import files
from helpers.diffusion import base_models, families
from helpers.finetune_diffusion import TrainingError
from helpers.finetune_diffusion.trained_parts import Trained
from helpers.finetune_diffusion.training_cases import Encoded, at_places, encoded
from helpers.images import write_png
from helpers.runner.parameters import Record
from helpers.runner.progress import progress
from helpers.sample_diffusion import drawing

LEAST_SCALE = 2.0**-14  # smallest scale of float16 gradients; below it every step would be skipped


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
    whole_batch = recipe.batch * recipe.accumulate * processes
    say = print if accelerator.is_main_process else lambda *_, **__: None
    # With warn_only, a GPU's attention could still add in any order.
    torch.use_deterministic_algorithms(True)
    cases, held_out, texts = encoded(pipeline, frame, recipe, cache, accelerator)
    trained = Trained(pipeline, recipe, accelerator)
    diffused = families.of(pipeline).noising(pipeline, recipe.prediction)
    if recipe.prediction:
        pipeline.scheduler.register_to_config(prediction_type=recipe.prediction)
    course = Course(**trained.restore(folder))
    if course.step:
        say(f"Continuing from step {course.step}.", flush=True)

    # of the loss, and of the gradient's norm
    sums, loss_count, clock = torch.zeros(2, device=device), 0, time.monotonic()
    steps = range(course.step + 1, recipe.steps + 1)
    for step in progress(steps, "training") if not course.over(recipe) else ():
        for part in range(recipe.accumulate):
            # This process's positions in the batch of this step; the seed alone decides the image
            # at a position.
            process = part * processes + accelerator.process_index
            first = (step - 1) * whole_batch + process * recipe.batch
            places = range(first, first + recipe.batch)
            clean, eps, uniform, condition = at_places(places, cases, texts, recipe, device)
            noisy, timesteps, target, weights = diffused(clean, eps, uniform, recipe.min_snr)
            adding = part < recipe.accumulate - 1
            alone = accelerator.no_sync(trained.denoise) if adding else nullcontext()
            with alone, base_models.attention(device, cases.posteriors.shape[-1]):
                with base_models.autocast(recipe.precision):
                    noisy = noisy.to(memory_format=trained.layout)
                    prediction = trained.denoise(noisy, timesteps, condition)
                losses = (prediction.float() - target).square().mean(dim=(1, 2, 3))
                trained.scaler.scale((losses * weights).mean() / recipe.accumulate).backward()
            sums[0] += losses.detach().mean()
            loss_count += 1
        sums[1] += trained.update(step, learning_rate(step, recipe))

        course.step, last = step, step == recipe.steps
        validating, saving = (
            last or step % every == 0 for every in (recipe.validate_every, recipe.checkpoint_every)
        )
        measuring = validating or saving or step % recipe.log_every == 0
        if measuring:
            # Only here the loop waits for the device.
            mean_loss, norms = (accelerator.reduce(sums, "mean") / loss_count).tolist()
            if not math.isfinite(mean_loss + norms) or trained.scaler.get_scale() < LEAST_SCALE:
                began = step - loss_count // recipe.accumulate + 1
                raise TrainingError(not_finite(folder, began, step, recipe))
            images, seconds = loss_count * recipe.batch * processes, time.monotonic() - clock
            course.rows.append(
                {
                    "step": step,
                    "epoch": step * whole_batch / len(cases.captions),
                    "loss": mean_loss,
                    "validation_loss": math.nan,
                    "learning_rate": learning_rate(step, recipe),
                    "images_per_second": images / seconds,
                }
            )
            sums, loss_count = torch.zeros(2, device=device), 0
        if len(held_out.captions) and validating:
            with trained.averaged():
                loss = held_out_loss(trained.model, diffused, held_out, texts, recipe)
            loss = broadcast(loss).item()
            course.rows[-1]["validation_loss"] = loss
            images_left = (recipe.steps - step) * whole_batch
            say(progress_line(course.rows[-1], images_left, device), flush=True)
            if not math.isfinite(loss):
                raise TrainingError(not_finite(folder, step, step, recipe))
            if course.improved(loss):
                trained.keep_best()
        stop = course.over(recipe)
        if recipe.grid_every and (last or stop or step % recipe.grid_every == 0):
            if accelerator.is_main_process:
                with trained.averaged():
                    grid(pipeline, prompts, recipe, grids / f"step-{step:08d}.png")
            accelerator.wait_for_everyone()
        if saving or stop:
            if accelerator.is_main_process:
                trained.save(folder, step, vars(course))
            accelerator.wait_for_everyone()
        if measuring:
            clock = time.monotonic()
        if stop:
            say(
                f"Stopped at step {step}: the held-out loss has not fallen below {course.best:.4f}"
                f" for {course.waited} validations.",
                flush=True,
            )
            break

    trained.end(len(held_out.captions) > 0)
    pipeline.to("cpu")
    return pd.DataFrame(course.rows)


@dataclass
class Course:
    """How far a training has come: the last step, the rows of the table `training`, the lowest
    held-out loss, and the validations since then.
    """

    step: int = 0
    rows: list[dict] = field(default_factory=list)
    best: float = math.inf
    waited: int = 0

    def improved(self, loss: float) -> bool:
        """Note a held-out loss; returns whether it is the lowest so far."""
        better = loss < self.best
        self.best, self.waited = (loss, 0) if better else (self.best, self.waited + 1)
        return better

    def over(self, recipe: Record) -> bool:
        """Whether the held-out loss has not fallen for as long as `patience` allows."""
        return self.waited >= recipe.patience > 0


def learning_rate(step: int, recipe: Record) -> float:
    """The rate at step 1, 2, …: linear warm-up, then constant, or half a cosine down to 1 %
    (Loshchilov & Hutter, 2017).
    """
    if step <= recipe.warmup:
        return recipe.learning_rate * step / recipe.warmup
    if recipe.schedule == "constant":
        return recipe.learning_rate
    done = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return recipe.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1.0))) / 2)


def progress_line(row: dict, images_left: int, device) -> str:
    """A row of the table in words, with the memory and the time left."""
    left = images_left / max(row["images_per_second"], 1e-9)
    return (
        f"step {row['step']}: loss {row['loss']:.4f}, held-out loss {row['validation_loss']:.4f},"
        f" {row['images_per_second']:.1f} images/s, {memory(device)}, {left:.0f} s left"
    )


@torch.no_grad()
def held_out_loss(model, diffused, held_out: Encoded, texts: dict, recipe: Record) -> torch.Tensor:
    """Mean squared error on the held-out latents with the same noise each time and timesteps spread
    evenly; a scalar.
    """
    device, posteriors = next(model.parameters()).device, held_out.posteriors
    total, layout = torch.zeros((), device=device), base_models.layout(device)
    spread = ((torch.arange(len(posteriors)) * 0.618034 + 0.5) % 1).to(device)
    model.eval()
    for begin in range(0, len(posteriors), recipe.batch):
        some = slice(begin, begin + recipe.batch)
        clean = posteriors[some, 0].to(device) * held_out.scaling
        eps = [
            torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(place))
            for place in range(len(posteriors))[some]
        ]
        condition = {
            name: table[held_out.captions[some]].to(device) for name, table in texts.items()
        }
        noisy, timesteps, target, _ = diffused(clean, torch.stack(eps).to(device), spread[some], 0)
        with base_models.autocast(recipe.precision):
            prediction = model(noisy.to(memory_format=layout), timesteps, condition)
        total += (prediction.float() - target).square().mean(dim=(1, 2, 3)).sum()
    model.train()
    return total / len(posteriors)


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
    rows = drawn.reshape(len(prompts), 4, recipe.size, recipe.size).swapaxes(1, 2)
    sheet = rows.reshape(len(prompts) * recipe.size, 4 * recipe.size)
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
