"""The Stable Diffusions whose training and sampling are measured: two tiny ones, and the real
architecture for a GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tiny_families
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    SanaPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from helpers.diffusion import base_models
from helpers.finetune_diffusion import tiny_model
from helpers.runner import folders, parameters


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
    declared = parameters.schema(folders.NOTEBOOKS / "03_finetune_diffusion.ipynb")
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


def stable_diffusion_xl(captions: list[str], size: int) -> StableDiffusionXLPipeline:
    """Stable Diffusion XL's architecture (U-Net of 2,567 M, text encoders of 123 and 695 M
    parameters) with random weights.
    """
    kinds = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    unet = {
        "sample_size": size // 8,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": kinds,
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "addition_time_embed_dim": 256,
    }
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    larger = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
    vae = {
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    sizes = {
        "length": 77,
        "text": {**text, "num_attention_heads": 12, "vocab_size": 49408},
        "text_2": {
            **larger,
            "num_attention_heads": 20,
            "projection_dim": 1280,
            "vocab_size": 49408,
        },
        "vae": vae,
        "unet": unet,
    }
    return tiny_families.xl(sizes)


def sana_06b(captions: list[str], size: int) -> SanaPipeline:
    """Sana 0.6 B's architecture (transformer of 592 M, text encoder of 2,614 M parameters) with
    random weights.
    """
    vae = {
        "latent_channels": 32,
        "attention_head_dim": 32,
        "block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
        "block_out_channels": (128, 256, 512, 512, 1024, 1024),
        "layers_per_block": (2, 2, 2, 3, 3, 3),
        "qkv_multiscales": ((), (), (), (5,), (5,), (5,)),
    }
    transformer = {
        "num_layers": 28,
        "num_attention_heads": 36,
        "attention_head_dim": 32,
        "num_cross_attention_heads": 16,
        "cross_attention_head_dim": 72,
        "cross_attention_dim": 1152,
        "sample_size": size // 32,
    }
    text = {"vocab_size": 256_000}  # the defaults are Gemma 2's with 2 B
    return tiny_families.sana({"text": text, "vae": vae, "transformer": transformer})


def of_recipe(recipe: parameters.Record):
    """The architecture of a ready recipe's base with random weights, made where it will run."""
    build = {
        "stable-diffusion-v1-5/stable-diffusion-v1-5": stable_diffusion_15,
        "stabilityai/stable-diffusion-xl-base-1.0": stable_diffusion_xl,
        "Efficient-Large-Model/Sana_600M_512px_diffusers": sana_06b,
    }[recipe.base]
    with torch.device(base_models.device()):
        return build(["chest X-ray"], recipe.size)


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
