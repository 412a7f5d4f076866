"""The cases as training needs them: latents, the conditions that their captions give, their order,
and their noise.

All randomness follows from the seed and an image's position in the endless sequence of batches,
never from a running generator. So a resumed run gives exactly the result of an uninterrupted one,
however batches are split over accumulation and processes.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from helpers.diffusion import families
from helpers.diffusion.noise import number_from
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
        pipeline.to("cpu")
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


def at_places(places, cases: Encoded, texts: dict, recipe: Record, device) -> tuple:
    """The cases at some positions of the sequence of batches: clean latents (n, C, h, w), noise of
    that shape, places in the noise process (n,), and the conditions by name.
    """
    chosen = [case_in_place(place, len(cases.captions), recipe.seed) for place in places]
    eps, posterior_noise, uniform, dropped = draw(
        places, cases.posteriors.shape[2:], recipe, device
    )
    mean, deviation = cases.posteriors[chosen].to(device, non_blocking=True).unbind(1)
    clean = (mean + deviation * posterior_noise) * cases.scaling
    said = torch.where(dropped, NO_CAPTION, cases.captions[chosen])
    return clean, eps, uniform, {name: table[said].to(device) for name, table in texts.items()}


def case_in_place(place: int, cases: int, seed: int) -> int:
    """The case at a position in the endless sequence of epochs; every epoch has its own order."""
    epoch, position = divmod(place, cases)
    return int(_order(epoch, cases, seed)[position])


@functools.lru_cache(maxsize=3)
def _order(epoch: int, cases: int, seed: int) -> np.ndarray:
    return np.random.default_rng(number_from("order", seed, epoch)).permutation(cases)


def draw(places, shape, recipe: Record, device):
    """The randomness of some positions: noise and posterior noise (n, C, h, w), position in the
    noise process (n,) in 0..1, dropped captions (n,) bool.

    Drawn on the CPU, with one generator per position: the same on every device and for every split
    of the batch. `dropped` stays on the CPU, because captions are looked up there.
    """
    noise, uniform = torch.empty(len(places), 2, *shape), torch.empty(len(places), 2)
    offset = torch.empty(len(places), shape[0], 1, 1)
    for index, place in enumerate(places):
        generator = torch.Generator().manual_seed(number_from("noise", recipe.seed, place))
        torch.randn(noise[index].shape, generator=generator, out=noise[index])
        torch.rand(2, generator=generator, out=uniform[index])
        torch.randn(offset[index].shape, generator=generator, out=offset[index])
    noise, offset = noise.to(device), offset.to(device)
    return (
        noise[:, 0] + recipe.offset_noise * offset,
        noise[:, 1],
        uniform[:, 0].to(device),
        uniform[:, 1] < recipe.caption_dropout,
    )
