"""The families of models that can be trained here. Each family defines how text and images are
encoded, how noise becomes a target, how the network is called, and which parts are trained.

A new family is one more entry of FAMILIES. Conditions are the network's inputs beside the noisy
latents, by the names of `predict`'s arguments.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    SanaPipeline,
    SanaTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection, Gemma2Model

from helpers.diffusion import ModelError, noise


@dataclass(frozen=True)
class Family:
    """One family of text-to-image pipelines.

    Its functions take a pipeline of this family, or the part that they name.
    """

    name: str
    pipeline: type
    options: dict  # of loading
    parts: dict[str, type]
    network: str  # the part that removes the noise and is trained
    encoders: tuple[str, ...]  # the parts that encode text
    conditions: tuple[str, ...]  # the names of those that `encoded` gives
    trains_text: bool  # whether full_text is supported
    fp16: bool  # whether it works in float16
    longest: Callable  # (pipeline) -> maximum tokens of a caption
    widths: Callable  # (pipeline) -> text inputs of the network, outputs of the encoders
    encoded: Callable  # (pipeline, caption) -> (1, ...) each; guidance moves away from ""
    beside: Callable  # (pipeline, size) -> conditions that do not depend on the caption
    latent: Callable  # (vae, pixels) -> mean and standard deviation of the posterior
    noising: Callable  # (pipeline, prediction) -> noise.diffused or noise.flowed of its process
    predict: Callable  # (network, noisy, timesteps, **conditions) -> prediction


def of(pipeline) -> Family:
    """The family of a pipeline that is trained here."""
    return FAMILIES[type(pipeline).__name__]


def network(pipeline) -> torch.nn.Module:
    """The part of a pipeline that removes the noise."""
    return getattr(pipeline, of(pipeline).network)


def check(pipeline, base: str) -> None:
    """Raise ModelError unless the parts belong to the family and fit each other."""
    family = of(pipeline)
    for name, kind in family.parts.items():
        part = getattr(pipeline, name, None)
        if not isinstance(part, kind):
            raise ModelError(
                f"{base}: its {name} is {type(part).__name__}, not {kind.__name__}: not the"
                f" {family.name} that is trained here."
            )
    vae, main = pipeline.vae.config, network(pipeline).config
    wanted, there = family.widths(pipeline)
    named = "U-Net" if family.network == "unet" else family.network
    faults = {
        f"its {named} takes {main.in_channels} channels, its VAE makes"
        f" {vae.latent_channels}: weights of another architecture": (
            {main.in_channels, main.out_channels} != {vae.latent_channels}
        ),
        f"its text encoder does not fit its {named}: weights of another architecture": wanted
        != there,
        f"its VAE takes {vae.in_channels} channels; grey images can be given as 1 or 3": (
            vae.in_channels not in (1, 3)
        ),
    }
    if found := [fault for fault, holds in faults.items() if holds]:
        raise ModelError(f"{base}: {found[0]}.")


def too_long(captions: Iterable[str], pipeline) -> list[str]:
    """The captions of which the pipeline reads only the first tokens."""
    tokenizer, longest = pipeline.tokenizer, of(pipeline).longest(pipeline)
    return [
        caption
        for caption in captions
        if len(tokenizer(caption, truncation=False).input_ids) > longest
    ]


def native_size(pipeline) -> int:
    """The side in pixels of the images that the pipeline draws by default."""
    return network(pipeline).config.sample_size * pipeline.vae_scale_factor


def multiple(pipeline) -> int:
    """The side in pixels must be a multiple of this number."""
    config = network(pipeline).config
    halvings = len(config.get("block_out_channels", [0])) - 1
    return pipeline.vae_scale_factor * config.get("patch_size", 1) * 2**halvings


def predicts(pipeline) -> str:
    """The network's target, in diffusers' words; the schedulers of flow matching do not
    state it.
    """
    return pipeline.scheduler.config.get("prediction_type", "flow_prediction")


def _clip_text(pipeline, caption):
    return pipeline.encode_prompt(caption, pipeline.text_encoder.device, 1, False)[:1]


def _clip_length(pipeline):
    return pipeline.tokenizer.model_max_length


def _gaussian(vae, pixels):
    posterior = vae.encode(pixels).latent_dist
    return posterior.mean, posterior.std


def _unet(unet, noisy, timesteps, text):
    return unet(noisy, timesteps, encoder_hidden_states=text, return_dict=False)[0]


def _diffusion(pipeline, prediction):
    return partial(noise.diffused, noise.schedule(pipeline, prediction))


def _xl_text(pipeline, caption):
    parts = pipeline.encode_prompt(
        caption, device=pipeline.text_encoder.device, do_classifier_free_guidance=caption == ""
    )
    return parts[1::2] if caption == "" else parts[::2]


def _xl_sizes(pipeline, size):
    # Original size, crop and target size as stock pipelines set them for sampling: no image is
    # cropped here, and images are seen at their training size.
    return {"sizes": torch.tensor([size, size, 0, 0, size, size], dtype=torch.float32)}


def _xl_unet(unet, noisy, timesteps, text, pooled, sizes):
    beside = {"text_embeds": pooled, "time_ids": sizes}
    return unet(noisy, timesteps, text, added_cond_kwargs=beside, return_dict=False)[0]


def _sana_text(pipeline, caption):
    parts = pipeline.encode_prompt(
        caption,
        do_classifier_free_guidance=caption == "",
        device=pipeline.text_encoder.device,
        complex_human_instruction=SANA_DEFAULTS["complex_human_instruction"].default,
    )
    return parts[2:] if caption == "" else parts[:2]


def _sana_transformer(transformer, noisy, timesteps, text, mask):
    return transformer(
        noisy,
        encoder_hidden_states=text,
        encoder_attention_mask=mask,
        timestep=timesteps * transformer.config.timestep_scale,
        return_dict=False,
    )[0]


def _exact(vae, pixels):
    latent = vae.encode(pixels).latent
    return latent, torch.zeros_like(latent)


def _flow(pipeline, prediction):
    return partial(noise.flowed, noise.flow(pipeline, prediction))


# The prefix that stock pipelines put before a caption is also used in training.
SANA_DEFAULTS = inspect.signature(SanaPipeline.__call__).parameters
FAMILIES = {
    "StableDiffusionPipeline": Family(
        name="Stable Diffusion 1.x/2.x",
        pipeline=StableDiffusionPipeline,
        options={"safety_checker": None, "requires_safety_checker": False},
        parts={"vae": AutoencoderKL, "text_encoder": CLIPTextModel, "unet": UNet2DConditionModel},
        network="unet",
        encoders=("text_encoder",),
        conditions=("text",),
        trains_text=True,
        fp16=True,
        longest=_clip_length,
        widths=lambda pipeline: (
            pipeline.unet.config.cross_attention_dim,
            pipeline.text_encoder.config.hidden_size,
        ),
        encoded=_clip_text,
        beside=lambda pipeline, size: {},
        latent=_gaussian,
        noising=_diffusion,
        predict=_unet,
    ),
    "StableDiffusionXLPipeline": Family(
        name="Stable Diffusion XL",
        pipeline=StableDiffusionXLPipeline,
        options={"add_watermarker": False},
        parts={
            "vae": AutoencoderKL,
            "text_encoder": CLIPTextModel,
            "text_encoder_2": CLIPTextModelWithProjection,
            "unet": UNet2DConditionModel,
        },
        network="unet",
        encoders=("text_encoder", "text_encoder_2"),
        conditions=("text", "pooled"),
        trains_text=False,
        fp16=True,
        longest=_clip_length,
        widths=lambda pipeline: (
            (
                pipeline.unet.config.cross_attention_dim,
                pipeline.unet.config.projection_class_embeddings_input_dim,
            ),
            (
                pipeline.text_encoder.config.hidden_size
                + pipeline.text_encoder_2.config.hidden_size,
                6 * (pipeline.unet.config.addition_time_embed_dim or 0)
                + pipeline.text_encoder_2.config.projection_dim,
            ),
        ),
        encoded=_xl_text,
        beside=_xl_sizes,
        latent=_gaussian,
        noising=_diffusion,
        predict=_xl_unet,
    ),
    "SanaPipeline": Family(
        name="Sana",
        pipeline=SanaPipeline,
        options={},
        parts={
            "vae": AutoencoderDC,
            "text_encoder": Gemma2Model,
            "transformer": SanaTransformer2DModel,
        },
        network="transformer",
        encoders=("text_encoder",),
        conditions=("text", "mask"),
        trains_text=False,
        fp16=False,
        # The first of the text encoder's outputs is kept, and as many others as are left.
        longest=lambda pipeline: SANA_DEFAULTS["max_sequence_length"].default - 1,
        widths=lambda pipeline: (
            pipeline.transformer.config.caption_channels,
            pipeline.text_encoder.config.hidden_size,
        ),
        encoded=_sana_text,
        beside=lambda pipeline, size: {},
        latent=_exact,
        noising=_flow,
        predict=_sana_transformer,
    ),
}
