"""Noise: its seeds, the noisy latents it gives, and the target that the network has to predict."""

import hashlib

import torch
from diffusers import DDPMScheduler

from helpers.diffusion.base_models import ModelError

SCHEDULE = (
    "beta_start",
    "beta_end",
    "beta_schedule",
    "num_train_timesteps",
    "prediction_type",
    "trained_betas",
    "rescale_betas_zero_snr",
)
KNOWN = ("epsilon", "v_prediction")


def number_from(*parts) -> int:
    """A 63-bit number that depends on the parts only."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def schedule(pipeline, prediction: str) -> DDPMScheduler:
    """The forward process of training, from the pipeline's own scheduler; `prediction`, if given,
    overrides epsilon or v_prediction. Raises ModelError for a base with any other target.
    """
    config = dict(pipeline.scheduler.config)
    config["prediction_type"] = prediction or config.get("prediction_type", "unknown")
    kind, scheduler = config["prediction_type"], type(pipeline.scheduler).__name__
    betas = {"beta_start", "beta_end", "beta_schedule"} <= config.keys()
    if kind not in KNOWN or not betas or config.get("use_flow_sigmas"):
        raise ModelError(
            f"The base predicts {kind} with {scheduler}: only bases that predict"
            f" {' or '.join(KNOWN)} on a schedule of betas are trained here. Take another base or,"
            " if its scheduler is not the one it was trained with, say what it predicts (parameter"
            " prediction)."
        )
    return DDPMScheduler(**{key: config[key] for key in SCHEDULE if key in config})


def diffused(process: DDPMScheduler, clean, noise, uniform, min_snr: float) -> tuple:
    """One training example per row: noisy latents, timesteps, the target, and loss weights (n,).

    `clean` and `noise` have shape (n, C, h, w); `uniform` (n,) in 0..1 chooses the timesteps.
    """
    kind, count = process.config.prediction_type, process.config.num_train_timesteps
    timesteps = (uniform * count).long().clamp(max=count - 1)
    noisy = process.add_noise(clean, noise, timesteps)
    target = noise if kind == "epsilon" else process.get_velocity(clean, noise, timesteps)
    kept = process.alphas_cumprod.to(clean.device)[timesteps]
    return noisy, timesteps, target, snr_weights(kept / (1 - kept), min_snr, kind)


def snr_weights(snr: torch.Tensor, gamma: float, prediction: str) -> torch.Tensor:
    """Min-SNR loss weights (Hang et al., ICCV 2023), shape of `snr`; all 1 when gamma is 0."""
    if gamma <= 0:
        return torch.ones_like(snr)
    if prediction == "epsilon":
        # Where zero-terminal noise leaves no signal the weight is 1, not 0 / 0.
        return (gamma / snr).clamp(max=1)
    return snr.clamp(max=gamma) / (snr + 1)
