"""Noise: its seeds, the noisy latents, and the target that the network must predict."""

import hashlib

import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from helpers.diffusion import ModelError

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
    """A 63-bit number that depends only on `parts`."""
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


def flow(pipeline, prediction: str) -> FlowMatchEulerDiscreteScheduler:
    """The forward process of flow matching, shifted as the pipeline's own scheduler is. Raises
    ModelError for a base that does not predict the flow, or if `prediction` asks for another
    target.
    """
    config, scheduler = pipeline.scheduler.config, type(pipeline.scheduler).__name__
    matching = scheduler.startswith("FlowMatch") or config.get("use_flow_sigmas")
    kind = config.get("prediction_type", "flow_prediction")
    if not matching or kind != "flow_prediction" or config.get("use_dynamic_shifting"):
        raise ModelError(
            f"The base predicts {kind} with {scheduler}: of its family only bases that predict the"
            " flow, with a fixed shift, are trained here. Take another base."
        )
    if prediction:
        raise ModelError(f"The base predicts the flow, not {prediction}: leave prediction empty.")
    return FlowMatchEulerDiscreteScheduler(
        config.num_train_timesteps, shift=config.get("shift", config.get("flow_shift", 1.0))
    )


def flowed(
    process: FlowMatchEulerDiscreteScheduler, clean, noise, uniform, min_snr: float
) -> tuple:
    """As `diffused`, for flow matching: the target is the difference from image to noise, times are
    logit-normal (Esser et al., ICML 2024) before the shift, and all weights are 1 (min-SNR has no
    meaning here).
    """
    count = process.config.num_train_timesteps
    place = (torch.special.ndtri(uniform).sigmoid() * count).long().clamp(max=count - 1)
    times, sigmas = (
        values.to(clean.device)[place] for values in (process.timesteps, process.sigmas)
    )
    sigma = sigmas.view(-1, 1, 1, 1)
    return (1 - sigma) * clean + sigma * noise, times, noise - clean, torch.ones_like(uniform)


def snr_weights(snr: torch.Tensor, gamma: float, prediction: str) -> torch.Tensor:
    """Min-SNR loss weights (Hang et al., ICCV 2023), shape of `snr`; all 1 when gamma is 0."""
    if gamma <= 0:
        return torch.ones_like(snr)
    if prediction == "epsilon":
        # With zero-terminal noise no signal is left: the weight is then 1, not 0 / 0.
        return (gamma / snr).clamp(max=1)
    return snr.clamp(max=gamma) / (snr + 1)
