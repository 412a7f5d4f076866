"""Learning rate and randomness, which depend only on the parameters and the step.

All randomness follows from the seed and an image's position in the endless sequence of batches,
never from a running generator. So a resumed run gives exactly the result of an uninterrupted one,
however batches are split over accumulation and processes.
"""

import functools
import math

import numpy as np
import torch

from helpers.diffusion.noise import number_from
from helpers.runner.parameters import Record


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
