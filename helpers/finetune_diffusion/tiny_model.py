"""The tiny Stable Diffusion: a complete pipeline built from configs, offline, whose VAE is trained
here first.
"""

import math
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
)

from helpers import findings
from helpers.diffusion import ModelError, base_models
from helpers.finetune_diffusion import checkpoints, latents
from helpers.runner.parameters import Record
from helpers.runner.progress import progress

LATENT_SIDE = 8  # the U-Net costs the same whatever the image's size
GRAIN = 0.15  # weight of the power spectra in the VAE's loss
PATCH = 16  # pixels per side of the windows of the spectra


def build(captions: list[str], recipe: Record) -> StableDiffusionPipeline:
    """A complete, untrained Stable Diffusion of about 5 M parameters for the recipe's size,
    channels, prediction (v_prediction unless it says otherwise) and seed.

    Its VAE halves the image until 8 x 8 latents are left; its tokenizer knows the words of the
    captions and of the study's findings and spells all others in bytes. Raises ModelError for a
    size that is not 8 * 2**n, or channels that are not 1 or 3.
    """
    size = recipe.size
    halvings = size.bit_length() - LATENT_SIDE.bit_length()
    if size != LATENT_SIDE << max(halvings, 0) or not 2 <= halvings <= 6:
        raise ModelError(
            f"The tiny model draws 32, 64, 128, 256 or 512 pixels, not {size}: change size."
        )
    if recipe.channels not in (1, 3):
        raise ModelError(f"The tiny model has 1 or 3 channels, not {recipe.channels}.")
    tokenizer, latents = tokenizer_for(captions, 32), 4 if halvings <= 3 else 8
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        text_encoder = _text_encoder(tokenizer)
        vae = _vae(recipe, latents, halvings + 1)
        unet = _unet(latents)
    # The posterior begins with almost no noise; otherwise a short training would mostly learn to
    # cope with it.
    torch.nn.init.constant_(vae.quant_conv.bias[latents:], -6.0)
    schedule = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": recipe.prediction or "v_prediction",
    }
    scheduler = DPMSolverMultistepScheduler(steps_offset=1, **schedule)
    return StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )


def _text_encoder(tokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _vae(recipe: Record, latents: int, levels: int) -> AutoencoderKL:
    # No residual block on the way down, one on the way up: five times as many steps per second as
    # with the usual two and three.
    return AutoencoderKL(
        in_channels=recipe.channels,
        out_channels=recipe.channels,
        latent_channels=latents,
        sample_size=recipe.size,
        norm_num_groups=8,
        layers_per_block=0,
        block_out_channels=(32,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    )


def _unet(latents: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=latents,
        out_channels=latents,
        layers_per_block=2,
        block_out_channels=(64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=(2, 4),
        encoder_hid_dim_type=None,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )


def tokenizer_for(captions: list[str], length: int) -> PreTrainedTokenizerFast:
    """CLIP's tokenizer with the words of the captions and findings as tokens; anything else is
    spelt in bytes.
    """
    letters = sorted(ByteLevel.alphabet())
    texts = {
        findings.caption("xray", "PA", [finding], side)
        for finding in findings.FINDINGS
        for side in ("", *findings.SIDES)
    }
    start, end = "<|startoftext|>", "<|endoftext|>"
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), start, end]
    clip = CLIPTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[])
    backend = clip.backend_tokenizer
    words = {
        word
        for text in texts.union(captions)
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(
            backend.normalizer.normalize_str(text)
        )
    }
    vocab = dict.fromkeys([*pieces, *sorted(words)])
    # A word of the vocabulary is one token, without any learned merges.
    backend.model = BPE(
        {piece: index for index, piece in enumerate(vocab)},
        merges=[],
        unk_token=end,
        end_of_word_suffix="</w>",
        ignore_merges=True,
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=length,
        bos_token=start,
        eos_token=end,
        unk_token=end,
        pad_token=end,
    )


def train_vae(vae: AutoencoderKL, frame: pd.DataFrame, recipe: Record, folder: Path) -> float:
    """Train the VAE on the images of `frame` (file, bits) in place; returns its PSNR in dB on the
    last batch.

    Absolute plus squared error plus a small share of the KL divergence (Rombach et al., CVPR 2022).
    In place of their adversary, which needs longer training, the local power spectra are compared:
    errors per pixel alone leave out the grain. Interrupted training continues from its checkpoint
    in `folder`. Sets the scaling factor that gives the latents variance 1.
    """
    size, channels = recipe.size, vae.config.in_channels
    pixels = torch.stack(
        [latents.picture(row.file, size, int(row.bits), channels) for row in frame.itertuples()]
    )
    vae.to(memory_format=torch.channels_last).train()
    parameters, names = list(vae.parameters()), [name for name, _ in vae.named_parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.vae_learning_rate, weight_decay=0.0, fused=True
    )
    bf16 = base_models.arithmetic(recipe.precision) == torch.bfloat16
    autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=bf16)
    begin = checkpoints.restore(folder, names, parameters, optimizer, {}).get("step", 0)
    for step in progress(range(begin + 1, recipe.vae_steps + 1), "training the VAE"):
        for group in optimizer.param_groups:
            group["lr"] = (
                recipe.vae_learning_rate
                * min(1, step / 20)
                * (0.02 + 0.98 * (1 + math.cos(math.pi * step / recipe.vae_steps)) / 2)
            )
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        some = pixels[
            torch.randint(len(pixels), (recipe.vae_batch,), generator=generator)
        ].contiguous(memory_format=torch.channels_last)
        with autocast():
            posterior = vae.encode(some).latent_dist
            drawn = vae.decode(posterior.sample(generator), return_dict=False)[0].float()
        error = drawn - some
        loss = error.abs().mean() + error.square().mean() + 1e-6 * posterior.kl().mean()
        loss = loss + GRAIN * (_log_power(drawn) - _log_power(some)).abs().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % recipe.checkpoint_every == 0 or step == recipe.vae_steps:
            groups = checkpoints.tensors(names, parameters, optimizer, {})
            checkpoints.save(folder, step, groups, {}, keep=1)
    vae.eval()
    with torch.no_grad(), autocast():
        some = pixels[:64].contiguous(memory_format=torch.channels_last)
        means = vae.encode(some).latent_dist.mean.float()
        vae.register_to_config(scaling_factor=round(1 / means.std().item(), 4))
        error = vae.decode(means, return_dict=False)[0].float() - some
    return -10 * math.log10((error / 2).square().mean().item())


def _log_power(pixels: torch.Tensor) -> torch.Tensor:
    """Logarithms of the local power spectra of images (n, C, H, W): of half-overlapping windows of
    PATCH pixels, averaged over 4 x 4 of them, so that the grain may lie elsewhere.
    """
    window = torch.hann_window(PATCH, periodic=False)
    patches = pixels.unfold(2, PATCH, PATCH // 2).unfold(3, PATCH, PATCH // 2)
    spectra = torch.view_as_real(torch.fft.rfft2(patches * window[:, None] * window))
    power = spectra.square().sum(-1).flatten(0, 1).permute(0, 3, 4, 1, 2).flatten(1, 2)
    return torch.log(F.avg_pool2d(power, 4, ceil_mode=True) + 1e-4)
