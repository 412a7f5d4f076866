"""The tiny Stable Diffusion: a complete pipeline built from configs, offline, whose VAE is trained
here first.
"""

import math
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from helpers import findings
from helpers.diffusion.base_models import ModelError
from helpers.finetune_diffusion import checkpoints, latents
from helpers.runner import runs

LATENT_SIDE = 8  # the U-Net costs the same whatever the image's size


def build(
    captions: list[str],
    size: int,
    channels: int = 1,
    prediction: str = "v_prediction",
    seed: int = 0,
) -> StableDiffusionPipeline:
    """A complete, untrained Stable Diffusion of about 5 M parameters for (size, size) images, the
    same for the same seed.

    Its VAE halves the image until 8 x 8 latents are left; its tokenizer is a byte-level BPE learned
    from the captions and from the study's findings, so that any text can be tokenised. Raises
    ModelError for a size that is no 8 * 2**n.
    """
    halvings = size.bit_length() - LATENT_SIDE.bit_length()
    if size != LATENT_SIDE << max(halvings, 0) or not 2 <= halvings <= 6:
        raise ModelError(
            f"The tiny model draws 32, 64, 128, 256 or 512 pixels, not {size}: change size."
        )
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    tokenizer = tokenizer_for(captions)
    text_encoder = CLIPTextModel(
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
    latents = 4 if halvings <= 3 else 8
    # No residual block while shrinking and one while growing: five times as many steps a second as
    # the usual two and three.
    levels = halvings + 1
    vae = AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        latent_channels=latents,
        sample_size=size,
        norm_num_groups=8,
        layers_per_block=0,
        block_out_channels=(32,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    )
    # The posterior begins nearly exact, or a short training would spend itself on the noise that it
    # draws.
    torch.nn.init.constant_(vae.quant_conv.bias[latents:], -6.0)
    unet = UNet2DConditionModel(
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
    torch.random.set_rng_state(state)
    schedule = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": prediction,
    }
    scheduler = DPMSolverMultistepScheduler(steps_offset=1, **schedule)
    return StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )


def tokenizer_for(captions: list[str], length: int = 32) -> CLIPTokenizer:
    """A CLIP tokenizer whose words are those of the captions and findings; anything else is spelt
    in bytes.
    """
    letters = sorted(ByteLevel.alphabet())
    vocab = [*letters, *(f"{letter}</w>" for letter in letters)]
    special = ["<|startoftext|>", "<|endoftext|>"]
    splitter = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(vocab + special)}, merges=[]
    ).backend_tokenizer
    words = set()
    for text in {
        *captions,
        *(
            findings.caption("xray", "PA", [finding], side)
            for finding in findings.FINDINGS
            for side in ("", *findings.SIDES)
        ),
    }:
        words.update(
            piece
            for piece, _ in splitter.pre_tokenizer.pre_tokenize_str(
                splitter.normalizer.normalize_str(text)
            )
        )
    merges = byte_pairs(sorted(words))
    vocab = dict.fromkeys([*vocab, *("".join(pair) for pair in merges), *special])
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(vocab)},
        merges=merges,
        model_max_length=length,
    )


def byte_pairs(words: list[str]) -> list[tuple[str, str]]:
    """The merges that make every word one token, most frequent pair first, ties by spelling
    (Sennrich et al., ACL 2016).

    Written out because the trainer of the tokenizers package breaks ties differently in every
    process.
    """
    spelt = [[*word[:-1], f"{word[-1]}</w>"] for word in words]
    merges = []
    while counts := Counter(pair for word in spelt for pair in pairwise(word)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spelt = [_merged(word, best) for word in spelt]
    return merges


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    out = []
    for letter in word:
        if out and (out[-1], letter) == pair:
            out[-1] += letter
        else:
            out.append(letter)
    return out


def train_vae(vae: AutoencoderKL, frame: pd.DataFrame, recipe, folder: Path, bf16: bool) -> float:
    """Train the VAE on the images of `frame` (file, bits) in place; returns its PSNR in dB on the
    last batch.

    Absolute plus squared error plus a trace of the KL divergence (Rombach et al., CVPR 2022,
    without the adversary). Interrupted training goes on from its checkpoint in `folder`. Sets the
    scaling factor that makes latents of variance 1.
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
    autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=bf16)
    begin = checkpoints.restore(folder, names, parameters, optimizer)["step"]
    for step in runs.progress(range(begin + 1, recipe.vae_steps + 1), "training the VAE"):
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
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % recipe.checkpoint_every == 0 or step == recipe.vae_steps:
            checkpoints.save(
                folder, step, checkpoints.tensors(names, parameters, optimizer), {}, keep=1
            )
    vae.eval()
    with torch.no_grad(), autocast():
        some = pixels[:64].contiguous(memory_format=torch.channels_last)
        means = vae.encode(some).latent_dist.mean.float()
        vae.register_to_config(scaling_factor=round(1 / means.std().item(), 4))
        error = vae.decode(means, return_dict=False)[0].float() - some
    return -10 * math.log10((error / 2).square().mean().item())
