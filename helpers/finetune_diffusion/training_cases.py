"""The cases as training needs them: latents, and the conditions that their captions give."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from helpers.diffusion import base_models, families
from helpers.finetune_diffusion import latents
from helpers.runner.parameters import Record

NO_CAPTION = 0  # the row of the conditions for an empty caption


@dataclass
class Encoded:
    """Cases as posteriors of the VAE, (n, 2, C, h, w) float32: mean and standard deviation; and the
    rows of their captions in the conditions, (n,). The network's latents are `scaling` times as
    large.
    """

    posteriors: torch.Tensor
    captions: torch.Tensor
    scaling: float


def encoded(
    pipeline, frame: pd.DataFrame, recipe: Record, cache: Path, accelerator
) -> tuple[Encoded, Encoded, dict]:
    """The training cases, the held-out cases, and the conditions by name, one row per caption.

    Each case is encoded once, by the process whose share it is in.
    """
    device = accelerator.device
    both = split(frame, recipe)
    pipeline.vae.to(device, memory_format=torch.channels_last)
    images = latents.Images(pipeline, recipe.size, cache)
    images.encode(pd.concat(both).iloc[accelerator.process_index :: accelerator.num_processes])
    accelerator.wait_for_everyone()
    captions = sorted({"", *both[0].caption, *both[1].caption})
    for name in families.of(pipeline).encoders:
        getattr(pipeline, name).to(device)
    texts = conditions(captions, pipeline, recipe, cache)
    found = [
        Encoded(
            images.read(cases),
            torch.tensor(pd.Index(captions).get_indexer(cases.caption)),
            pipeline.vae.config.scaling_factor,
        )
        for cases in both
    ]
    if device.type == "cuda":
        for part in base_models.networks(pipeline).values():
            part.to("cpu")
    return *found, texts


def conditions(captions: list[str], pipeline, recipe: Record, cache: Path) -> dict:
    """The conditions for the network, one row per caption; for full_text they are token ids."""
    if recipe.method == "full_text":
        return {"ids": latents.token_ids(captions, pipeline.tokenizer)}
    return latents.of_captions(captions, pipeline, recipe.size, cache)


def split(frame: pd.DataFrame, recipe: Record) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The training cases, and `validation_images` of the held-out cases, evenly spread over their
    list.
    """
    cases = frame[frame.split == "train"].reset_index(drop=True)
    held_out = frame[frame.split == "validation"].reset_index(drop=True)
    count = min(len(held_out), recipe.validation_images)
    spread = np.unique(np.linspace(0, len(held_out) - 1, count).round().astype(int))
    return cases, held_out.iloc[spread].reset_index(drop=True)
