"""Loads models for 03 and 04 by hub id, folder or single file; computes their hashes; and decides
how this machine runs them.
"""

import hashlib
import json
import os
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import diffusers
import huggingface_hub
import torch
import transformers
from diffusers import AutoPipelineForText2Image, DiffusionPipeline, UnCLIPPipeline
from diffusers.pipelines.deprecated import unclip
from safetensors import safe_open
from torch.nn.attention import SDPBackend, sdpa_kernel

from helpers.diffusion import ModelError, families
from helpers.runner import freshness, runs, workers

# diffusers has moved UnCLIP to a place where its own loader no longer finds the part defined there.
diffusers.pipelines.unclip = unclip
WEIGHTS = (".safetensors", ".bin")
LORA_FILE = "pytorch_lora_weights.safetensors"


def use_cores() -> int:
    """Make torch use all cores and give the same bits each time; returns the number of cores."""
    cores = workers.cores()
    torch.set_num_threads(cores)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # With deterministic algorithms torch also fills every new tensor, in case code reads unwritten
    # memory. This code does not.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.allow_tf32 = False  # no TF32 in place of fp32
    diffusers.utils.logging.set_verbosity_error()  # its warnings quote truncated captions
    warnings.filterwarnings("ignore", message=".*deterministic.*")
    warnings.filterwarnings("ignore", message=".*torch_dtype.*")
    if not (sys.stdout.isatty() or "ipykernel" in sys.modules) or os.environ.get("STUDY_BATCH"):
        for library in (diffusers.utils.logging, transformers.utils.logging):
            library.disable_progress_bar()
        huggingface_hub.utils.disable_progress_bars()
    return cores


def device() -> torch.device:
    """The GPU of this process if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def layout(where: torch.device) -> torch.memory_format:
    """The memory layout in which the U-Net is fastest. On a CPU, group normalisation is fastest
    with separate channels.
    """
    return torch.channels_last if where.type == "cuda" else torch.contiguous_format


def attention(where: torch.device, side: int):
    """A context for training that computes attention over side x side latents in the faster way: on
    a CPU with few latents, the plain one.
    """
    return sdpa_kernel(SDPBackend.MATH) if where.type == "cpu" and side <= 16 else nullcontext()


def has_bf16() -> bool:
    """Whether this process's device has bfloat16 in hardware; emulated, it is several times slower
    than fp32.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(
        torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16")
    )


def arithmetic(precision: str) -> torch.dtype:
    """The precision of computation: the parameter's. For `auto` it is bfloat16 if the device has
    it, else float16 on a GPU and float32 on a CPU.
    """
    if precision == "auto":
        precision = "bf16" if has_bf16() else "fp16" if torch.cuda.is_available() else "fp32"
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]


def autocast(precision: str) -> torch.autocast:
    """The context in which the device computes in that precision."""
    dtype = arithmetic(precision)
    exact = dtype == torch.float32
    return torch.autocast(device().type, None if exact else dtype, enabled=not exact)


def load(base: str, revision: str = ""):
    """A pipeline of a family that is trained here, in fp32 on the CPU, without a safety checker or
    a watermark.

    `base` is a local folder in diffusers format, which may hold fp16 weights alone, a
    `.safetensors` or `.ckpt` file, or a hub id (with its revision). A file needs the configuration
    of its kind. It comes from a diffusers folder of the same name beside the file, else from the
    hub. Raises ModelError in one sentence for anything else.
    """
    kind = kind_of(base, revision)
    if kind not in families.FAMILIES:
        served = ", ".join(family.name for family in families.FAMILIES.values())
        raise ModelError(
            f"{base} is a {kind}, and only {served} can be trained here; 04 can also sample from"
            " others."
        )
    family = families.FAMILIES[kind]
    pipeline = _loaded(family.pipeline, base, revision, family.options)
    families.check(pipeline, base)
    check_finite(pipeline, base)
    return pipeline


def load_any(base: str, revision: str):
    """A text-to-image pipeline, in fp32 on the CPU: a family as in `load`, all that
    AutoPipelineForText2Image knows, and UnCLIP, which it does not know. Raises ModelError.
    """
    kind = kind_of(base, revision)
    if kind in families.FAMILIES:
        return load(base, revision)
    loader = UnCLIPPipeline if kind == "UnCLIPPipeline" else AutoPipelineForText2Image
    pipeline = _loaded(loader, base, revision, {})
    check_finite(pipeline, base)
    return pipeline


def kind_of(base: str, revision: str) -> str:
    """The class of a pipeline as its model_index.json names it. A single file counts as Stable
    Diffusion, or as XL if it has XL's text encoders. Raises ModelError for a folder without
    model_index.json.
    """
    path = Path(base).expanduser()
    if path.is_file():
        index = path.with_suffix("") / "model_index.json"
        if index.is_file():
            return json.loads(index.read_text())["_class_name"]
        readable = path.suffix == ".safetensors"
        names = _or_model_error(base, safe_open, path, "pt").keys() if readable else []
        larger = any(name.startswith("conditioner.embedders.1.") for name in names)
        return "StableDiffusionXLPipeline" if larger else "StableDiffusionPipeline"
    if path.is_dir() and not (path / "model_index.json").is_file():
        raise ModelError(
            f"{base} is not a diffusers pipeline (it has no model_index.json): name a folder that"
            " save_pretrained wrote."
        )
    place, options = str(path) if path.is_dir() else base, {"revision": revision or None}
    return _or_model_error(base, DiffusionPipeline.load_config, place, **options)["_class_name"]


def _loaded(kind: type, base: str, revision: str, options: dict):
    path = Path(base).expanduser()
    options = {**options, "torch_dtype": torch.float32}
    if path.is_file():
        if (beside := path.with_suffix("")).is_dir():
            options |= {"config": str(beside), "local_files_only": True}
        return _or_model_error(base, kind.from_single_file, str(path), **options)
    halved = [".fp16." in part.name for part in path.glob("*/*") if part.suffix in WEIGHTS]
    return _or_model_error(
        base,
        kind.from_pretrained,
        str(path) if path.is_dir() else base,
        revision=revision or None,
        variant="fp16" if halved and all(halved) else None,
        **options,
    )


def _or_model_error(base: str, work, *arguments, **options):
    try:
        return work(*arguments, **options)
    # diffusers, transformers, safetensors, hub and torch each raise their own kinds
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        path = Path(base).expanduser()
        hint = (
            f" Offline, the file needs its configuration in {path.stem}/." if path.is_file() else ""
        )
        raise ModelError(
            f"{base} cannot be loaded as a Stable Diffusion or other text-to-image pipeline"
            f" ({type(error).__name__}: {reason}).{hint}"
        ) from None


def networks(pipeline) -> dict[str, torch.nn.Module]:
    """The parts of a pipeline that have weights."""
    return {
        name: part
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
    }


def check_finite(pipeline, base: str) -> None:
    """Raise ModelError naming the part that holds a value that is not finite."""
    for name, part in networks(pipeline).items():
        if not all(value.isfinite().all() for value in part.state_dict().values()):
            raise ModelError(
                f"{base}: its {name} holds values that are not finite: the download is damaged or"
                " its training failed; use another copy."
            )


def weights_sha256(module: torch.nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a module's weights; it does not depend on the
    file format.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint(pipeline) -> dict[str, str]:
    """The SHA-256 of each part as it is in memory."""
    return {name: weights_sha256(part) for name, part in networks(pipeline).items()}


def resolve(study: str, base: str) -> str:
    """A base or checkpoint as a path: a run's name becomes its checkpoint/ folder; any other value
    is returned unchanged.
    """
    if freshness.RUN_NAME.match(base):
        return str(runs.load(study, base).folder / "checkpoint")
    return base


def public_name(base: str) -> str:
    """The name of a base for publication. Of a local path only the last part is shown, because
    paths can name people.
    """
    return Path(base).name if base.startswith((".", "/", "~")) else base
