"""Training of stage 03 beside the plain loop of the diffusers example: throughput, quality, memory,
and where the time goes.
"""

import contextlib
import io
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile
from torch.utils.flop_counter import FlopCounterMode

from helpers.diffusion import base_models, families, noise
from helpers.files import sha256
from helpers.finetune_diffusion import (
    latents,
    trained_parts,
    training_cases,
    training_loop,
)
from helpers.images import write_png
from helpers.runner.parameters import Record
from speed import measurement, models
from speed.models import Setup

# Kinds of work by the words in an operator's name, the first that fits.
KINDS = {
    "convolutions": ("conv",),
    "attention": ("attention", "softmax", "flash"),
    "matrix products": ("mm", "linear", "matmul"),
    "normalisation": ("norm",),
    "optimiser and average": ("adam", "lerp", "foreach"),
    "copies and casts": ("copy", "cat", "contiguous", "clone", "memcpy"),
    "activations and sums": ("silu", "gelu", "mul", "add", "sub", "div", "sum", "pow", "triton"),
}


def measure(
    images: int = 192,
    steps: int = 20,
    rounds: int = 3,
    size: int = 64,
    file_sizes: tuple[int, ...] = (512, 64),
) -> pd.DataFrame:
    """Ours and the plain loop by turns in one process on the same images and weights; columns
    measurement.COLUMNS.

    For each model of `models.setups` and each size of the files on disk: images per second (the
    median of `rounds` turns of `steps` steps each) and the held-out loss after them; for the first
    model the peak memory.
    """
    base_models.use_cores()
    setups, rows = models.setups(size), []
    with tempfile.TemporaryDirectory() as folder:
        frames = {
            file_size: pictures(Path(folder) / f"{file_size} px", file_size, images)
            for file_size in file_sizes
        }
        rows.append(_memory(setups[0], frames[file_sizes[0]], Path(folder)))
        for setup in setups:
            for file_size, frame in frames.items():
                if file_size < setup.size:
                    continue  # nothing is ever enlarged
                rows += _by_turns(
                    setup,
                    frame,
                    file_size,
                    steps,
                    rounds,
                    Path(folder) / f"{setup.name}, {file_size}",
                )
    if not torch.cuda.is_available():
        rows.append(
            measurement.row(
                "finetune.train",
                "Stable Diffusion 1.5 at 512 px",
                None,
                None,
                "images/s",
                "not yet measured: no GPU here",
            )
        )
    return pd.DataFrame(rows)


def pictures(folder: Path, file_size: int, count: int) -> pd.DataFrame:
    """Files of smooth random images with captions, as stage 03 takes cases."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(0), []
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)).resize(
            (file_size, file_size), Image.Resampling.BICUBIC
        )
        path = folder / f"{index}.png"
        path.write_bytes(write_png(np.asarray(coarse), 6))
        split = "train" if index < count * 5 // 6 else "validation"
        rows.append(
            {
                "file": str(path),
                "sha256": sha256(path),
                "bits": 8,
                "caption": f"chest X-ray {index % 5}",
                "split": split,
            }
        )
    return pd.DataFrame(rows)


def plain_loop(pipeline, frame: pd.DataFrame, recipe: Record) -> float:
    """The loop of the diffusers example, as a reader of its script would write it: images per
    second.

    The U-Net is trained; every step decodes and resizes its files and encodes them and their
    captions, in fp32.
    """
    torch.use_deterministic_algorithms(False)
    device = base_models.device()
    trained_parts.prepare(pipeline, recipe, device)
    pipeline.to(device)
    parameters = list(pipeline.unet.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    process = noise.schedule(pipeline, "")
    train = frame[frame.split == "train"].reset_index(drop=True)
    longest, channels = pipeline.tokenizer.model_max_length, pipeline.vae.config.in_channels
    rng = np.random.default_rng(0)
    began = time.perf_counter()
    for step in range(1, recipe.steps + 1):
        optimizer.param_groups[0]["lr"] = training_loop.learning_rate(step, recipe)
        rows = train.iloc[rng.integers(0, len(train), recipe.batch)]
        grey = [
            np.asarray(
                Image.open(path)
                .convert("L")
                .resize((recipe.size, recipe.size), Image.Resampling.BILINEAR)
            )
            for path in rows.file
        ]
        pixels = (
            (torch.from_numpy(np.stack(grey)).float()[:, None] / 127.5 - 1)
            .expand(-1, channels, -1, -1)
            .to(device)
        )
        ids = pipeline.tokenizer(
            list(rows.caption),
            padding="max_length",
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        ).input_ids
        with torch.no_grad():
            clean = (
                pipeline.vae.encode(pixels).latent_dist.sample()
                * pipeline.vae.config.scaling_factor
            )
            text = pipeline.text_encoder(ids.to(device))[0]
        eps = torch.randn_like(clean)
        timesteps = torch.randint(0, 1000, (len(clean),), device=device)
        noisy = process.add_noise(clean, eps, timesteps)
        predicted = pipeline.unet(noisy, timesteps, text).sample
        loss = (predicted - process.get_velocity(clean, eps, timesteps)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        loss.detach().item()
    rate = recipe.steps * recipe.batch / (time.perf_counter() - began)
    pipeline.to("cpu")
    return rate


def our_loop(pipeline, frame: pd.DataFrame, recipe: Record, state: Path, cache: Path) -> float:
    """Stage 03's training from encoded images: images per second, caching, start and checkpoint
    apart.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        table = training_loop.train(pipeline, frame, recipe, state, cache, state / "grids", [])
    return float(table.images_per_second.iloc[-1])


def held_out(pipeline, frame: pd.DataFrame, recipe: Record, cache: Path) -> float:
    """The held-out loss of a trained pipeline, by the same measure for both, in fp32."""
    cases = frame[frame.split == "validation"].reset_index(drop=True)
    posteriors = latents.Images(pipeline, recipe.size, cache).read(cases)
    captions = sorted(set(cases.caption))
    texts = latents.of_captions(captions, pipeline, recipe.size, cache)
    text_of = torch.tensor([captions.index(caption) for caption in cases.caption])
    device = base_models.device()
    model = trained_parts.Denoiser(pipeline, with_text=False).to(device)
    exact = Record(recipe | {"precision": "fp32"})
    encoded = training_cases.Encoded(posteriors, text_of, pipeline.vae.config.scaling_factor)
    diffused = families.of(pipeline).noising(pipeline, "")
    return training_loop.held_out_loss(model, diffused, encoded, texts, exact).item()


def operations(setup: Setup) -> float:
    """Floating-point operations of the U-Net for one training image, forward and backward, as
    counted by torch.
    """
    pipeline = setup.build(["chest X-ray"], setup.size)
    unet, side = pipeline.unet.to(base_models.device()), setup.size // pipeline.vae_scale_factor
    noisy = torch.randn(1, unet.config.in_channels, side, side, device=unet.device)
    text = torch.randn(
        1, pipeline.tokenizer.model_max_length, unet.config.cross_attention_dim, device=unet.device
    )
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        unet(noisy, torch.tensor([500], device=unet.device), text).sample.sum().backward()
    return float(counter.get_total_flops())


def matrix_rate(side: int = 0) -> float:
    """Operations per second of this device's bf16 product of two (side, side) matrices, the best of
    ten.

    Without `side` they double from 256 until a product takes 20 ms: a processor without bf16 needs
    minutes for what another does in a tenth of a second.
    """
    device = base_models.device()
    if not side:
        side = 256
        while side < 8192 and _product_seconds(device, side, 2) < 0.02:
            side *= 2
    return 2 * side**3 / _product_seconds(device, side, 10)


def _product_seconds(device: torch.device, side: int, times: int) -> float:
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        (a @ b)[0, 0].item()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def profile(steps: int = 20, size: int = 64) -> pd.DataFrame:
    """Where the time of our training goes: a row for each kind of work with its share, in percent;
    columns measurement.COLUMNS.
    """
    base_models.use_cores()
    setup = models.setups(size)[0]
    with tempfile.TemporaryDirectory() as folder:
        frame, recipe = pictures(Path(folder) / "files", setup.size, 48), _recipe(setup, steps)
        build, cache = (
            lambda: setup.build(sorted(set(frame.caption)), setup.size),
            Path(folder) / "cache",
        )
        our_loop(build(), frame, changed(recipe, steps=2), Path(folder) / "first", cache)
        pipeline = build()
        with (
            _without_stderr(),
            torch_profile(
                activities=[
                    ProfilerActivity.CPU,
                    *([ProfilerActivity.CUDA] if torch.cuda.is_available() else []),
                ]
            ) as measured,
        ):
            our_loop(pipeline, frame, recipe, Path(folder) / "profiled", cache)
    shares = dict.fromkeys([*KINDS, "all else"], 0.0)
    for event in measured.key_averages():
        seconds = (
            event.self_device_time_total if torch.cuda.is_available() else event.self_cpu_time_total
        )
        kind = next(
            (
                kind
                for kind, words in KINDS.items()
                if any(word in event.key.lower() for word in words)
            ),
            "all else",
        )
        shares[kind] += seconds
    whole = sum(shares.values())
    note = f"by torch's profiler over {steps} steps of {setup.name}"
    return pd.DataFrame(
        [
            measurement.row(
                "finetune.train", f"time in {kind}", None, 100 * part / whole, "%", note
            )
            for kind, part in shares.items()
        ]
    )


@contextlib.contextmanager
def _without_stderr():
    """The profiler's library announces itself there, below Python."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _by_turns(
    setup: Setup, frame: pd.DataFrame, file_size: int, steps: int, rounds: int, folder: Path
) -> list[dict]:
    captions, recipe = sorted(set(frame.caption)), _recipe(setup, steps)
    plain_recipe, batch = changed(recipe, precision="fp32", compile=False), setup.batch
    one = changed(plain_recipe, steps=1)
    while batch > 1 and not _fits(
        plain_loop, setup.build(captions, setup.size), frame, changed(one, batch=batch)
    ):
        batch //= 2
    plain_recipe = changed(plain_recipe, batch=batch)
    cache = folder / "cache"
    our_loop(
        setup.build(captions, setup.size), frame, changed(recipe, steps=1), folder / "first", cache
    )
    plain_rates, our_rates = [], []
    for turn in range(rounds):
        stock, ours = setup.build(captions, setup.size), setup.build(captions, setup.size)
        plain_rates.append(plain_loop(stock, frame, plain_recipe))
        our_rates.append(our_loop(ours, frame, recipe, folder / f"turn {turn}", cache))
    losses = [held_out(pipeline, frame, recipe, cache) for pipeline in (stock, ours)]
    ratios = sorted(
        our_rate / plain_rate for our_rate, plain_rate in zip(our_rates, plain_rates, strict=True)
    )
    share = statistics.median(our_rates) * operations(setup) / matrix_rate()
    what = f"{setup.name}, {setup.size} px from files of {file_size} px, batch {setup.batch}"
    arithmetic = str(base_models.arithmetic(recipe.precision)).removeprefix("torch.")
    note = (
        f"plain: decodes and encodes every step, fp32, batch {batch}; ours: cached, {arithmetic},"
        f" {share:.0%} of the bf16 matrix rate;"
        f" medians of {rounds} turns, ratio {ratios[0]:.1f} to {ratios[-1]:.1f}"
    )
    alike = "after the same number of steps; smaller is better"
    return [
        measurement.row(
            "finetune.train",
            what,
            statistics.median(plain_rates),
            statistics.median(our_rates),
            "images/s",
            note,
        ),
        measurement.row(
            "finetune.train", f"held-out loss, {what}", *losses, "mean squared error", alike
        ),
    ]


def changed(recipe: Record, **values) -> Record:
    """The recipe with other values."""
    return Record({**recipe, **values})


def _recipe(setup: Setup, steps: int) -> Record:
    compiled = torch.cuda.is_available()
    # What is compiled is so within the first half of the steps, which the last line of the log
    # leaves out.
    logged = max(steps // 2, 1) if compiled else steps
    return models.recipe(
        method="full",
        size=setup.size,
        steps=steps,
        batch=setup.batch,
        learning_rate=1e-3 if setup.size < 512 else 1e-5,
        warmup=5,
        min_snr=0.0,
        caption_dropout=0.0,
        ema=0.0,
        compile=compiled,
        grid_every=0,
        log_every=logged,
        validate_every=steps,
        checkpoint_every=steps,
    )


def _fits(work, *arguments) -> bool:
    """Whether there is memory enough for the work on a GPU."""
    try:
        work(*arguments)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return False
    return True


def _memory(setup: Setup, frame: pd.DataFrame, folder: Path) -> dict:
    """The row of peak memory, each side in a fresh process, so that neither inherits the
    other's.
    """
    peaks = []
    for ours in (False, True):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks.append(pool.submit(_peak_mb, setup, frame, folder / "memory", ours).result())
    note = "three steps in a process of their own, imports included"
    return measurement.row("finetune.train", f"peak memory, {setup.name}", *peaks, "MB", note)


def _peak_mb(setup: Setup, frame: pd.DataFrame, folder: Path, ours: bool) -> float:
    base_models.use_cores()
    pipeline, recipe = setup.build(sorted(set(frame.caption)), setup.size), _recipe(setup, 3)
    if ours:
        our_loop(pipeline, frame, recipe, folder / "state", folder / "cache")
    else:
        batch = setup.batch
        plain_recipe = changed(recipe, precision="fp32", compile=False)
        while batch > 1 and not _fits(
            plain_loop, pipeline, frame, changed(plain_recipe, batch=batch)
        ):
            batch //= 2
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
