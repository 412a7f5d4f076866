"""Models as 03 and 04 load them: by hub id, folder or single file; their hashes; and how this
machine runs them.
"""

import hashlib
import os
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import diffusers
import huggingface_hub
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    AutoPipelineForText2Image,
    DiffusionPipeline,
    StableDiffusionPipeline,
    UnCLIPPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.deprecated import unclip
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel

from helpers.runner import freshness, runs, workers

# diffusers has set UnCLIP aside, where its own loader no longer finds the part defined there.
diffusers.pipelines.unclip = unclip
PARTS = {"vae": AutoencoderKL, "text_encoder": CLIPTextModel, "unet": UNet2DConditionModel}
WEIGHTS = (".safetensors", ".bin")
LORA_FILE = "pytorch_lora_weights.safetensors"


class ModelError(ValueError):
    """A base or checkpoint that cannot be used; the message says which and what to do."""


def use_cores() -> int:
    """Let torch use the machine's cores and give the same bits each time; returns the number of
    cores.
    """
    cores = workers.cores()
    torch.set_num_threads(cores)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # With deterministic algorithms torch also fills every new tensor, for code that reads what was
    # never written; this has none.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.allow_tf32 = False  # fp32 is fp32
    warnings.filterwarnings("ignore", message=".*deterministic.*")
    warnings.filterwarnings("ignore", message=".*torch_dtype.*")
    if not (sys.stdout.isatty() or "ipykernel" in sys.modules) or os.environ.get("STUDY_BATCH"):
        for library in (diffusers.utils.logging, transformers.utils.logging):
            library.disable_progress_bar()
        huggingface_hub.utils.disable_progress_bars()
    return cores


def device() -> torch.device:
    """The GPU of this process where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def layout(where: torch.device) -> torch.memory_format:
    """The memory layout in which the U-Net is fastest: on a CPU group normalisation is fastest with
    separate channels.
    """
    return torch.channels_last if where.type == "cuda" else torch.contiguous_format


def attention(where: torch.device, side: int):
    """A context for training in which attention over side x side latents is computed the faster
    way: on a CPU, if few, the plain one.
    """
    return sdpa_kernel(SDPBackend.MATH) if where.type == "cpu" and side <= 16 else nullcontext()


def has_bf16() -> bool:
    """Whether this process's device does bfloat16 arithmetic in hardware; emulated, it is several
    times slower than fp32.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(
        torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16")
    )


def arithmetic(precision: str) -> torch.dtype:
    """The precision of computation: the parameter's, or for `auto` bfloat16 where the device has
    it, float16 on other GPUs, float32 on other CPUs.
    """
    if precision == "auto":
        precision = "bf16" if has_bf16() else "fp16" if torch.cuda.is_available() else "fp32"
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]


def autocast(precision: str) -> torch.autocast:
    """The context in which the device computes in that precision."""
    dtype = arithmetic(precision)
    exact = dtype == torch.float32
    return torch.autocast(device().type, None if exact else dtype, enabled=not exact)


def load(base: str, revision: str = "") -> StableDiffusionPipeline:
    """A Stable Diffusion 1.x/2.x pipeline in fp32 on the CPU, without its safety checker.

    `base` is a local folder in diffusers format, which may hold fp16 weights alone, a
    `.safetensors` or `.ckpt` file, or a hub id (with its revision). A file needs the configuration
    of its kind: a diffusers folder of the file's name beside it, else it comes from the hub. Raises
    ModelError in one sentence for anything else.
    """
    if (kind := kind_of(base, revision)) != "StableDiffusionPipeline":
        raise ModelError(
            f"{base} is a {kind}: only Stable Diffusion 1.x and 2.x are trained here; 04 samples"
            " from others too."
        )
    bare = {"safety_checker": None, "requires_safety_checker": False}
    pipeline = _loaded(StableDiffusionPipeline, base, revision, bare)
    check(pipeline, base)
    return pipeline


def load_any(base: str, revision: str):
    """A pipeline that draws from text, in fp32 on the CPU: Stable Diffusion as in `load`, all that
    AutoPipelineForText2Image knows, and UnCLIP, which it does not. Raises ModelError.
    """
    kind = kind_of(base, revision)
    if kind == "StableDiffusionPipeline":
        return load(base, revision)
    loader = UnCLIPPipeline if kind == "UnCLIPPipeline" else AutoPipelineForText2Image
    pipeline = _loaded(loader, base, revision, {})
    check_finite(pipeline, base)
    return pipeline


def kind_of(base: str, revision: str) -> str:
    """The class of a pipeline as its model_index.json names it; a single file is taken for Stable
    Diffusion. Raises ModelError for a folder without one.
    """
    path = Path(base).expanduser()
    if path.is_file():
        return "StableDiffusionPipeline"
    if path.is_dir() and not (path / "model_index.json").is_file():
        raise ModelError(
            f"{base} is not a diffusers pipeline (it has no model_index.json): name a folder that"
            " save_pretrained wrote."
        )
    place, options = str(path) if path.is_dir() else base, {"revision": revision or None}
    return _or_model_error(base, DiffusionPipeline.load_config, place, **options)["_class_name"]


def _loaded(kind: type, base: str, revision: str, options: dict):
    path = Path(base).expanduser()
    if path.is_file():
        beside, local = path.with_suffix(""), {"safety_checker": None, "torch_dtype": torch.float32}
        if beside.is_dir():
            local |= {"config": str(beside), "local_files_only": True}
        return _or_model_error(base, kind.from_single_file, str(path), **local)
    halved = [".fp16." in part.name for part in path.glob("*/*") if part.suffix in WEIGHTS]
    return _or_model_error(
        base,
        kind.from_pretrained,
        str(path) if path.is_dir() else base,
        revision=revision or None,
        variant="fp16" if halved and all(halved) else None,
        torch_dtype=torch.float32,
        **options,
    )


def _or_model_error(base: str, work, *arguments, **options):
    try:
        return work(*arguments, **options)
    # diffusers, transformers, safetensors, hub and torch each raise their own kinds
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        path = Path(base).expanduser()
        hint = f" Offline it needs its configuration in {path.stem}/." if path.is_file() else ""
        raise ModelError(
            f"{base} cannot be loaded as a Stable Diffusion or other text-to-image pipeline"
            f" ({type(error).__name__}: {reason}).{hint}"
        ) from None


def networks(pipeline) -> dict[str, torch.nn.Module]:
    """The parts of a pipeline that have weights."""
    parts = pipeline.components.items()
    return {name: part for name, part in parts if isinstance(part, torch.nn.Module)}


def check_finite(pipeline, base: str) -> None:
    """Raise ModelError naming the part that holds a value that is not finite."""
    for name, part in networks(pipeline).items():
        if not all(value.isfinite().all() for value in part.state_dict().values()):
            raise ModelError(
                f"{base}: its {name} holds values that are not finite: a damaged download or a"
                " training that failed; take another copy."
            )


def check(pipeline, base: str) -> None:
    """Raise ModelError unless the parts fit each other and are Stable Diffusion 1.x/2.x's."""
    for name, kind in PARTS.items():
        part = getattr(pipeline, name, None)
        if not isinstance(part, kind):
            raise ModelError(
                f"{base}: its {name} is {type(part).__name__}, not {kind.__name__}: only Stable"
                " Diffusion 1.x and 2.x are trained here."
            )
    check_finite(pipeline, base)
    unet, vae, text = (getattr(pipeline, name).config for name in ("unet", "vae", "text_encoder"))
    faults = {
        f"its U-Net takes {unet.in_channels} channels, its VAE makes {vae.latent_channels}: weights"
        " of another architecture": {unet.in_channels, unet.out_channels} != {vae.latent_channels},
        "its text encoder does not fit its U-Net: weights of another architecture": (
            unet.cross_attention_dim != text.hidden_size
        ),
        f"its VAE takes {vae.in_channels} channels; grey images can be given as 1 or 3": (
            vae.in_channels not in (1, 3)
        ),
    }
    for fault, holds in faults.items():
        if holds:
            raise ModelError(f"{base}: {fault}.")


def weights_sha256(module: torch.nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a module's weights: the same for any file
    format they came in.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint(pipeline) -> dict[str, str]:
    """The sha256 of each part as it is in memory."""
    return {name: weights_sha256(part) for name, part in networks(pipeline).items()}


def native_size(pipeline) -> int:
    """The side in pixels of the images that the pipeline draws by default."""
    return pipeline.unet.config.sample_size * pipeline.vae_scale_factor


def resolve(study: str, base: str) -> str:
    """A base or checkpoint as a path: a run's name becomes its checkpoint/ folder, everything else
    stays.
    """
    if freshness.RUN_NAME.match(base):
        return str(runs.load(study, base).folder / "checkpoint")
    return base


def public_name(base: str) -> str:
    """The name of a base for publication: of a local folder only the last part, because paths can
    name people.
    """
    return Path(base).name if base.startswith((".", "/", "~")) else base
