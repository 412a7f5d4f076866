"""Sampling of stage 04 beside the stock pipeline called image by image."""

import time

import numpy as np
import pandas as pd
import torch

from helpers.diffusion import base_models
from helpers.sample_diffusion import drawing
from speed import measurement, models


def measure(
    samples: int = 32, size: int = 64, steps: int = 20, guidance: float = 7.5
) -> pd.DataFrame:
    """Images per second, and how alike both sides' images from the same seeds are; columns
    measurement.COLUMNS.
    """
    base_models.use_cores()
    rows = [
        row
        for setup in models.setups(size)
        for row in _side_by_side(setup, samples, steps, guidance)
    ]
    return pd.DataFrame(rows)


def _side_by_side(setup: models.Setup, samples: int, steps: int, guidance: float) -> list[dict]:
    few, bf16 = max(samples // 8, 2), base_models.has_bf16()
    pipeline = setup.build(["chest X-ray"], setup.size).to(base_models.device())
    pipeline.set_progress_bar_config(disable=True)
    stock_picture(pipeline, setup.size, 0, 1, guidance)
    began = time.perf_counter()
    stock = [stock_picture(pipeline, setup.size, seed, steps, guidance) for seed in range(few)]
    plain = few / (time.perf_counter() - began)
    jobs = pd.DataFrame(
        {"prompt": "chest X-ray", "seed": range(samples), "guidance": guidance, "steps": steps}
    )
    drawing.to_device(pipeline, bf16)
    drawing.draw(pipeline, jobs.head(2).assign(steps=1), setup.size, bf16=bf16)
    began = time.perf_counter()
    drawn = drawing.draw(pipeline, jobs, setup.size, bf16=bf16)
    ours = samples / (time.perf_counter() - began)
    error = float(np.mean((np.stack(drawn[:few]) - np.stack(stock)) ** 2))
    what = f"{setup.name}, {setup.size} px, {steps} steps, guidance {guidance}"
    note = (
        f"stock pipeline one by one in fp32; ours: {samples} at once, {'bf16' if bf16 else 'fp32'}"
    )
    psnr = "ours against the stock pipeline's images from the same seeds"
    return [
        measurement.row("sampling.draw", what, plain, ours, "images/s", note),
        measurement.row("sampling.draw", f"PSNR, {what}", None, -10 * np.log10(error), "dB", psnr),
    ]


def stock_picture(pipeline, size: int, seed: int, steps: int, guidance: float) -> np.ndarray:
    """One (size, size) image by the stock pipeline, 0 to 1."""
    result = pipeline(
        "chest X-ray",
        num_inference_steps=steps,
        guidance_scale=guidance,
        height=size,
        width=size,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    )
    return result.images[0].mean(axis=2)
