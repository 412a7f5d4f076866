"""The recipe of a fine-tuning, and all that follows from it and a step alone: learning rate, loss
weights, randomness.

All randomness is drawn from the seed and an image's place in the endless row of batches, never from
a running generator. So a resumed run repeats an undisturbed one bit for bit, and how a batch is
split over accumulation and processes does not matter.
"""

import hashlib
import math
from dataclasses import dataclass, fields

import numpy as np
import torch

from helpers.diffusion import base_models


@dataclass(frozen=True)
class Recipe:
    """How to train: parameters of notebook 03 under the same names, units and meanings."""

    method: str = "full"
    size: int = 512
    steps: int = 10_000
    batch: int = 16
    accumulate: int = 1
    learning_rate: float = 1e-5
    schedule: str = "cosine"
    warmup: int = 500
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    min_snr: float = 5.0
    prediction: str = ""
    offset_noise: float = 0.0
    caption_dropout: float = 0.1
    lora_rank: int = 16
    lora_targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    precision: str = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    log_every: int = 50
    validate_every: int = 500
    validation_images: int = 64
    patience: int = 0
    grid_every: int = 1000
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    seed: int = 0
    vae_steps: int = 400
    vae_batch: int = 8
    vae_learning_rate: float = 2e-3


def recipe(values: dict) -> Recipe:
    """The recipe among a run's parameters."""
    chosen = {field.name: values[field.name] for field in fields(Recipe) if field.name in values}
    if "lora_targets" in chosen:
        chosen["lora_targets"] = tuple(chosen["lora_targets"])
    return Recipe(**chosen)


def use_bf16(recipe: Recipe) -> bool:
    """Whether the arithmetic is in bfloat16: as asked, or `auto` where the device has it (weights
    stay in fp32).
    """
    return recipe.precision == "bf16" or (recipe.precision == "auto" and base_models.has_bf16())


def learning_rate(step: int, recipe: Recipe) -> float:
    """At step 1, 2, …: linear warm-up, then constant, or half a cosine down to a hundredth
    (Loshchilov & Hutter, 2017).
    """
    if step <= recipe.warmup:
        return recipe.learning_rate * step / recipe.warmup
    if recipe.schedule == "constant":
        return recipe.learning_rate
    done = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return recipe.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1.0))) / 2)


def snr_weights(snr: torch.Tensor, gamma: float, prediction: str) -> torch.Tensor:
    """Min-SNR loss weights (Hang et al., ICCV 2023), shape of `snr`; all 1 when gamma is 0."""
    if gamma <= 0:
        return torch.ones_like(snr)
    if prediction == "epsilon":
        return (gamma / snr).clamp(
            max=1
        )  # where zero-terminal noise leaves no signal the weight is 1, not 0 / 0
    return snr.clamp(max=gamma) / (snr + 1)


def number_from(*parts) -> int:
    """A 63-bit number that follows from the parts and from nothing else."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


_ORDERS: dict[tuple[int, int, int], np.ndarray] = {}


def case_in_place(place: int, cases: int, seed: int) -> int:
    """Which case stands in a place of the endless row of epochs, each a permutation of its own."""
    epoch, position = divmod(place, cases)
    key = (epoch, cases, seed)
    if key not in _ORDERS:
        while len(_ORDERS) > 2:
            _ORDERS.pop(next(iter(_ORDERS)))
        _ORDERS[key] = np.random.default_rng(number_from("order", seed, epoch)).permutation(cases)
    return int(_ORDERS[key][position])


def draw(places, shape, recipe: Recipe, device):
    """The randomness of some places: noise and posterior noise (n, C, h, w), timesteps (n,),
    dropped captions (n,) bool.

    Drawn on the CPU, one generator a place: the same on every device and for every split of the
    batch.
    """
    noise, uniform = torch.empty(len(places), 2, *shape), torch.empty(len(places), 2)
    offset = torch.empty(len(places), shape[0], 1, 1)
    for index, place in enumerate(places):
        generator = torch.Generator().manual_seed(number_from("noise", recipe.seed, place))
        torch.randn(noise[index].shape, generator=generator, out=noise[index])
        torch.rand(2, generator=generator, out=uniform[index])
        torch.randn(offset[index].shape, generator=generator, out=offset[index])
    noise, uniform, offset = noise.to(device), uniform.to(device), offset.to(device)
    timesteps = (uniform[:, 0] * 1000).long().clamp(max=999)
    return (
        noise[:, 0] + recipe.offset_noise * offset,
        noise[:, 1],
        timesteps,
        uniform[:, 1] < recipe.caption_dropout,
    )
