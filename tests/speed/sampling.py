"""Sampling of stage 04 beside the stock pipeline, one by one and at the same batch."""

import functools
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
    """Rows of one model: the stock pipeline one by one and at our batch, in fp32 and in the
    device's fast precision.
    """
    rows, what = [], f"{setup.name}, {setup.size} px, {steps} steps, guidance {guidance}"
    jobs = pd.DataFrame(
        {"prompt": "chest X-ray", "seed": range(samples), "guidance": guidance, "steps": steps}
    )
    few = jobs.head(max(samples // 8, 2))
    for precision in ("fp32", "bf16") if base_models.has_bf16() else ("fp32",):
        pipeline = setup.build(["chest X-ray"], setup.size)
        pipeline.set_progress_bar_config(disable=True)
        drawing.to_device(pipeline, precision)
        stock = functools.partial(stock_pictures, pipeline, size=setup.size, precision=precision)
        drawn, ours = _timed(
            lambda some, pipeline=pipeline, precision=precision: np.stack(
                drawing.draw(pipeline, some, setup.size, "", precision)
            ),
            jobs,
        )
        alike, at_once = _timed(stock, jobs)
        _, one_by_one = _timed(
            lambda some, stock=stock: [stock(some.iloc[[place]]) for place in range(len(some))], few
        )
        error = max(float(np.mean((drawn - alike) ** 2)), 1e-12)  # 120 dB: the same bits
        decibels = -10 * np.log10(error)
        for plain, how in ((one_by_one, "one by one"), (at_once, f"{samples} at once")):
            note = f"stock pipeline {how}; ours: {samples} at once; both in {precision}"
            where = f"{what}, {precision}, against {how}"
            rows.append(measurement.row("sampling.draw", where, plain, ours, "images/s", note))
        psnr = "ours against the stock pipeline's images from the same seeds"
        label = f"PSNR, {what}, {precision}"
        rows.append(measurement.row("sampling.draw", label, None, decibels, "dB", psnr))
    return rows


def _timed(draw, jobs: pd.DataFrame) -> tuple:
    """What draws the jobs, after a first try of one step (a new size of batch costs the first call
    time), and images per second.
    """
    draw(jobs.assign(steps=1))
    began = time.perf_counter()
    drawn = draw(jobs)
    return drawn, len(jobs) / (time.perf_counter() - began)


@torch.no_grad()
def stock_pictures(pipeline, jobs: pd.DataFrame, size: int, precision: str) -> np.ndarray:
    """(n, size, size) images by the stock pipeline in one call, 0 to 1."""
    with base_models.autocast(precision):
        result = pipeline(
            list(jobs.prompt),
            num_inference_steps=int(jobs.steps.iloc[0]),
            guidance_scale=float(jobs.guidance.iloc[0]),
            height=size,
            width=size,
            generator=[torch.Generator().manual_seed(int(seed)) for seed in jobs.seed],
            output_type="np",
        )
    return result.images.mean(axis=3)
