"""Training and sampling of stages 03 and 04 beside the plain loop of the diffusers example and the stock pipeline."""

import contextlib
import io
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from helpers import finetune, runs, sampling
from helpers.finetune_diffusion import base_models, recipes, tiny_model
from helpers.finetune_diffusion.recipes import Recipe
from helpers.images import write_png

COLUMNS = ["path", "what", "baseline", "ours", "unit", "ratio", "note"]


def measure(images: int = 192, size: int = 64, file_sizes: tuple[int, ...] = (512, 64), steps: int = 30, samples: int = 32) -> pd.DataFrame:
    """Ours and the baselines in one process on the same pictures and weights; columns COLUMNS.

    One row of training throughput and one of held-out loss on `images` pictures for each size of the files on disk, one
    of sampling throughput and one of PSNR (ours against the stock pipeline, same noise), and the GPU row, which says so
    when there is none.
    """
    base_models.use_cores()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for file_size in file_sizes:
            rows += _training(Path(folder) / f"files{file_size}", size, file_size, images, steps)
    rows += _sampling(size, samples)
    if not torch.cuda.is_available():
        rows.append(
            _row("finetune.train, SD 1.5 at 512 px", "share of the matrix rate", np.nan, np.nan, "%", "not yet measured: no GPU here")
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def pictures(folder: Path, file_size: int, count: int) -> pd.DataFrame:
    """Files of smooth random pictures with captions, as stage 03 takes cases."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(0), []
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)).resize((file_size, file_size), Image.Resampling.BICUBIC)
        path = folder / f"{index}.png"
        path.write_bytes(write_png(np.asarray(coarse), 6))
        split = "train" if index < count * 5 // 6 else "validation"
        rows.append({"file": str(path), "sha256": runs.sha256(path), "bits": 8, "caption": f"chest X-ray {index % 5}", "split": split})
    return pd.DataFrame(rows)


def _training(folder: Path, size: int, file_size: int, count: int, steps: int) -> list[dict]:
    frame = pictures(folder, file_size, count)
    recipe = Recipe(
        method="full", size=size, steps=steps, batch=32, learning_rate=1e-3, warmup=5, min_snr=0.0, caption_dropout=0.0,
        ema=0.0, grid_every=0, log_every=steps, validate_every=steps, checkpoint_every=steps,
    )  # fmt: skip
    build = lambda: tiny_model.build(sorted(set(frame.caption)), size)  # noqa: E731
    stock = build()
    plain_seconds = plain_loop(stock, frame, replace(recipe, precision="fp32"))
    ours = build()
    with contextlib.redirect_stdout(io.StringIO()):
        finetune.train(ours, frame, replace(recipe, steps=1), folder / "warm", folder / "cache")
        ours = build()
        began = time.perf_counter()
        table = finetune.train(ours, frame, recipe, folder / "state", folder / "cache")
        seconds = time.perf_counter() - began
    losses = [held_out(pipeline, frame, recipe, folder / "cache") for pipeline in (stock, ours)]
    images = steps * recipe.batch
    what, rate = f"{size} px from files of {file_size} px, batch {recipe.batch}", float(table.images_per_second.iloc[-1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    note = f"plain: decodes and encodes every step, fp32; ours: cached, {'bf16' if recipes.use_bf16(recipe) else 'fp32'}; {seconds:.1f} s with start and checkpoint; peak {peak:.1f} GB"
    return [
        _row("finetune.train", what, images / plain_seconds, rate, "images/s", note),
        _row(
            "finetune.train",
            f"held-out loss, {what}",
            losses[0],
            losses[1],
            "mean squared error",
            "after the same number of steps; smaller is better",
            1,
        ),
    ]


def plain_loop(pipeline, frame: pd.DataFrame, recipe: Recipe) -> float:
    """The loop of the diffusers example, as a reader of its script would write it: seconds for the recipe's steps.

    The U-Net is trained; every step decodes and resizes its files and encodes them and their captions, in fp32.
    """
    finetune.prepare(pipeline, recipe, torch.device("cpu"))
    parameters = list(pipeline.unet.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    noising, train = base_models.noise_schedule(pipeline), frame[frame.split == "train"].reset_index(drop=True)
    rng = np.random.default_rng(0)
    began = time.perf_counter()
    for step in range(1, recipe.steps + 1):
        optimizer.param_groups[0]["lr"] = recipes.learning_rate(step, recipe)
        rows = train.iloc[rng.integers(0, len(train), recipe.batch)]
        grey = [
            np.asarray(Image.open(path).convert("L").resize((recipe.size, recipe.size), Image.Resampling.BILINEAR)) for path in rows.file
        ]
        pixels = torch.from_numpy(np.stack(grey)).float()[:, None] / 127.5 - 1
        with torch.no_grad():
            clean = pipeline.vae.encode(pixels).latent_dist.sample() * pipeline.vae.config.scaling_factor
        longest = pipeline.tokenizer.model_max_length
        ids = pipeline.tokenizer(
            list(rows.caption), padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            text = pipeline.text_encoder(ids)[0]
        noise, timesteps = torch.randn_like(clean), torch.randint(0, 1000, (len(clean),))
        predicted = pipeline.unet(noising.add_noise(clean, noise, timesteps), timesteps, text).sample
        loss = (predicted - noising.get_velocity(clean, noise, timesteps)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        loss.detach().item()
    return time.perf_counter() - began


def held_out(pipeline, frame: pd.DataFrame, recipe: Recipe, cache: Path) -> float:
    """The held-out loss of a trained pipeline, by the same measure for both, in fp32."""
    from helpers.finetune_diffusion import latents

    cases = frame[frame.split == "validation"].reset_index(drop=True)
    sha256 = base_models.weights_sha256(pipeline.vae)
    posteriors = latents.read_pictures(cases, sha256, recipe.size, pipeline.vae.config.in_channels, cache)
    captions = sorted(set(cases.caption))
    texts = latents.token_ids(captions, pipeline.tokenizer)
    text_of = torch.tensor([captions.index(caption) for caption in cases.caption])
    model = finetune.Denoiser(pipeline.unet, pipeline.text_encoder)
    exact = lambda: torch.autocast("cpu", enabled=False)  # noqa: E731
    noising = base_models.noise_schedule(pipeline)
    return finetune.held_out_loss(
        model, noising, posteriors, text_of, texts, pipeline.vae.config.scaling_factor, recipe, torch.device("cpu"), exact
    ).item()


def _sampling(size: int, samples: int, steps: int = 20, guidance: float = 7.5) -> list[dict]:
    pipeline = tiny_model.build(["chest X-ray"], size)
    pipeline.set_progress_bar_config(disable=True)
    jobs = pd.DataFrame({"prompt": "chest X-ray", "seed": range(samples), "guidance": guidance, "steps": steps})
    few = max(samples // 8, 2)
    began, stock = time.perf_counter(), []
    for seed in range(few):
        generator = torch.Generator().manual_seed(seed)
        result = pipeline(
            "chest X-ray",
            num_inference_steps=steps,
            guidance_scale=guidance,
            height=size,
            width=size,
            generator=generator,
            output_type="np",
        )
        stock.append(result.images[0, :, :, 0])
    plain = few / (time.perf_counter() - began)
    bf16 = base_models.has_bf16()
    sampling.to_device(pipeline, bf16)
    sampling.draw(pipeline, jobs.head(2), size, bf16=bf16)
    began = time.perf_counter()
    drawn = sampling.draw(pipeline, jobs, size, bf16=bf16)
    ours = samples / (time.perf_counter() - began)
    error = float(np.mean((np.stack(drawn[:few]) - np.stack(stock)) ** 2))
    what = f"{size} px, {steps} steps, guidance {guidance}"
    return [
        _row(
            "sampling.draw",
            what,
            plain,
            ours,
            "images/s",
            f"stock pipeline one by one in fp32; ours: {samples} at once, {'bf16' if bf16 else 'fp32'}",
        ),
        _row(
            "sampling.draw",
            f"PSNR, {what}",
            np.nan,
            -10 * np.log10(error),
            "dB",
            "ours against the stock pipeline's pictures from the same seeds",
        ),
    ]


def _row(path: str, what: str, baseline: float, ours: float, unit: str, note: str, digits: int = 1) -> dict:
    ratio = ours / baseline if baseline == baseline and baseline else np.nan
    return dict(zip(COLUMNS, (path, what, round(baseline, 4), round(ours, 4), unit, round(ratio, digits + 1), note)))
