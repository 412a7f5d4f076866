"""The Stable Diffusions whose training and sampling are measured: two tiny ones, and the real
architecture for a GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from helpers.finetune_diffusion import tiny_model
from helpers.runner import parameters, places


@dataclass(frozen=True)
class Setup:
    """A model as `build(captions, size)` makes it, the side in pixels of its images, and its
    batch.
    """

    name: str
    build: Callable[[list[str], int], StableDiffusionPipeline]
    size: int
    batch: int


def setups(size: int = 64) -> list[Setup]:
    """What can be measured on this machine: the tiny models anywhere, Stable Diffusion 1.5 where
    there is a GPU.
    """
    tiny = [
        Setup("U-Net of 3.9 M", example_model, size, 32),
        Setup("the study's tiny model", studys_model, size, 32),
    ]
    return (
        [Setup("Stable Diffusion 1.5, random weights", stable_diffusion_15, 512, 32), *tiny]
        if torch.cuda.is_available()
        else tiny
    )


def recipe(**values) -> parameters.Record:
    """The parameters of notebook 03 with its defaults but for `values`."""
    declared = parameters.schema(places.NOTEBOOKS / "03_finetune_diffusion.ipynb")
    defaults = {name: parameter.default for name, parameter in declared.items()}
    return parameters.Record({**defaults, **values})


def studys_model(captions: list[str], size: int) -> StableDiffusionPipeline:
    """The study's own tiny model for images of this size."""
    return tiny_model.build(captions, recipe(size=size))


def example_model(captions: list[str], size: int) -> StableDiffusionPipeline:
    """A tiny model in Stable Diffusion's proportions: U-Net of 3.9 M, VAE of 1.0 M parameters, 8
    pixels per latent.

    The study's own tiny VAE has hardly an encoder, which no real base has: what a cache saves shows
    only with one.
    """
    tokenizer = tiny_model.tokenizer_for(captions, 32)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
    )
    vae = {
        "block_out_channels": (32, 32, 64, 64),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "in_channels": 1,
        "out_channels": 1,
    }
    unet = {
        "block_out_channels": (64, 128),
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    return _pipeline(tokenizer, text, vae, unet, size)


def stable_diffusion_15(captions: list[str], size: int) -> StableDiffusionPipeline:
    """Stable Diffusion 1.5's architecture (U-Net of 860 M, VAE of 84 M, text encoder of 123 M
    parameters) with random weights.
    """
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
    )
    vae = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    return _pipeline(
        tiny_model.tokenizer_for(captions, 77), text, vae, {"attention_head_dim": 8}, size
    )


def _pipeline(
    tokenizer, text: CLIPTextConfig, vae: dict, unet: dict, size: int
) -> StableDiffusionPipeline:
    torch.manual_seed(0)
    text.bos_token_id, text.eos_token_id, text.pad_token_id = (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    schedule = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
    }
    return StableDiffusionPipeline(
        AutoencoderKL(**vae, **blocks, latent_channels=4, sample_size=size),
        CLIPTextModel(text),
        tokenizer,
        UNet2DConditionModel(**unet, cross_attention_dim=text.hidden_size, sample_size=size // 8),
        DPMSolverMultistepScheduler(steps_offset=1, **schedule),
        None,
        None,
        requires_safety_checker=False,
    )
