"""Complete pipelines of the families beside Stable Diffusion 1.x/2.x, built from configs with
random weights: tiny ones, in a second, that the tests train and sample; others by their sizes.
"""

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SanaPipeline,
    SanaTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
)

from helpers.diffusion import families
from helpers.finetune_diffusion import tiny_model

CAPTIONS = ["chest X-ray, PA view, with left pleural effusion"]
CLIP = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
XL = {
    "length": 32,
    "text": {"hidden_size": 16, **CLIP},
    "text_2": {"hidden_size": 32, "projection_dim": 24, **CLIP},
    "vae": {
        "block_out_channels": (8, 8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "norm_num_groups": 4,
    },
    "unet": {
        "sample_size": 8,
        "layers_per_block": 1,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4),
        "transformer_layers_per_block": (1, 2),
        "norm_num_groups": 8,
        "addition_time_embed_dim": 8,
    },
}
SANA = {
    "text": {
        "head_dim": 8,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
    "vae": {
        "latent_channels": 4,
        "attention_head_dim": 4,
        "block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
        "block_out_channels": (8, 8, 16),
        "layers_per_block": (1, 1, 1),
        "qkv_multiscales": ((), (), (5,)),
    },
    "transformer": {
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 8,
        "cross_attention_dim": 16,
        "sample_size": 8,
    },
}


def xl(sizes: dict = XL) -> StableDiffusionXLPipeline:
    """Stable Diffusion XL; the tiny one draws 32 pixels and has text encoders of two widths."""
    torch.manual_seed(0)
    tokenizer = tiny_model.tokenizer_for(CAPTIONS, sizes["length"])
    known = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        **_ends(tokenizer),
    }
    text, text_2 = (CLIPTextConfig(**{**known, **sizes[name]}) for name in ("text", "text_2"))
    unet = UNet2DConditionModel(
        use_linear_projection=True,
        cross_attention_dim=text.hidden_size + text_2.hidden_size,
        addition_embed_type="text_time",
        projection_class_embeddings_input_dim=6 * sizes["unet"]["addition_time_embed_dim"]
        + text_2.projection_dim,
        **sizes["unet"],
    )
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    return StableDiffusionXLPipeline(
        AutoencoderKL(latent_channels=4, scaling_factor=0.13025, **sizes["vae"]),
        CLIPTextModel(text),
        CLIPTextModelWithProjection(text_2),
        tokenizer,
        tokenizer,
        unet,
        scheduler,
    )


def sana(sizes: dict = SANA, scheduler: str = "euler") -> SanaPipeline:
    """Sana; the tiny one draws 32 pixels. Published weights come with either scheduler."""
    torch.manual_seed(0)
    instruction = families.SANA_DEFAULTS["complex_human_instruction"].default
    tokenizer = tiny_model.tokenizer_for([*CAPTIONS, *instruction], 4096)
    known = {"vocab_size": len(tokenizer), "attn_implementation": "eager", **_ends(tokenizer)}
    text = Gemma2Config(**{**known, **sizes["text"]})
    both = ("block_types", "block_out_channels", "layers_per_block", "qkv_multiscales")
    vae = AutoencoderDC(
        **{key: value for key, value in sizes["vae"].items() if key not in both},
        **{f"{way}_{key}": sizes["vae"][key] for way in ("encoder", "decoder") for key in both},
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )
    channels = sizes["vae"]["latent_channels"]
    transformer = SanaTransformer2DModel(
        in_channels=channels,
        out_channels=channels,
        caption_channels=text.hidden_size,
        **sizes["transformer"],
    )
    flow = {
        "euler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
        "dpm++": lambda: DPMSolverMultistepScheduler(
            use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction"
        ),
    }[scheduler]()
    return SanaPipeline(tokenizer, Gemma2Model(text), vae, transformer, flow)


def _ends(tokenizer) -> dict[str, int]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


FAMILIES = {"xl": xl, "sana": sana}
