"""The outputs of the VAE and the text encoder for the cases, computed once and cached by content.

An entry's name is the hash of all that it depends on, so a changed image, VAE, size or caption
makes a new entry, and no entry is ever stale. Runs and processes share one folder. Each entry is
computed alone, so its bits do not depend on which other entries were missing.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import diffusers
import numpy as np
import pandas as pd
import torch

from helpers import files, images
from helpers.diffusion import base_models, families
from helpers.runner import freshness
from helpers.runner.progress import progress

FORMAT = 2


def entry(cache: Path, **depends_on) -> Path:
    """The path of the entry that depends on these values."""
    name = freshness.digest({"format": FORMAT, **depends_on})
    return Path(cache) / name[:2] / f"{name}.npy"


def put(path: Path, array: np.ndarray) -> None:
    """Write an entry so that concurrent writers leave one complete file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    content = buffer.getvalue()
    files.write_atomically(path, content + hashlib.sha256(content).digest())


def get(path: Path) -> np.ndarray | None:
    """An entry, or None when it is absent or damaged (it will be computed again)."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(content) < 32 or hashlib.sha256(content[:-32]).digest() != content[-32:]:
        return None
    return np.load(io.BytesIO(content[:-32]))


def picture(path: Path, size: int, bits: int, channels: int) -> torch.Tensor:
    """A case as input of the VAE: (channels, size, size) float32, with its full grey range
    0..2**bits-1 as -1..1.

    Twelve or sixteen bits keep their depth; nothing is clipped, cropped or flipped. The grey plane
    is repeated `channels` times (1 or 3).
    """
    grey = images.standardise(images.read_png(path), size, bits).astype(np.float32)
    plane = torch.from_numpy(grey * (2 / (2**bits - 1)) - 1)
    return plane.expand(channels, size, size).contiguous()


@dataclass
class Images:
    """The posteriors of the cases from a pipeline's VAE at one size, cached in the folder
    `cache`.
    """

    pipeline: object
    size: int
    cache: Path

    def __post_init__(self):
        self.vae, self.latent = self.pipeline.vae, families.of(self.pipeline).latent
        self.sha256 = base_models.weights_sha256(self.vae)

    def entry(self, image_sha256: str) -> Path:
        """The path of one image's posterior."""
        return entry(
            self.cache,
            kind="latents",
            precision="fp32",
            image=image_sha256,
            vae=self.sha256,
            size=self.size,
            channels=self.vae.config.in_channels,
        )

    @torch.no_grad()
    def encode(self, frame: pd.DataFrame) -> None:
        """Encode the images of `frame` (columns file, sha256, bits) that are not cached yet, in
        fp32 whatever the precision of training.
        """
        device, channels = next(self.vae.parameters()).device, self.vae.config.in_channels
        missing = [row for row in frame.itertuples() if get(self.entry(row.sha256)) is None]
        for row in progress(missing, "encoding images"):
            pixels = picture(row.file, self.size, int(row.bits), channels)[None].to(
                device, memory_format=torch.channels_last
            )
            both = torch.cat(self.latent(self.vae, pixels)).float().cpu().numpy()
            put(self.entry(row.sha256), both)

    def read(self, frame: pd.DataFrame) -> torch.Tensor:
        """The cached posteriors of all rows, (n, 2, C, h, w) float32: mean and standard deviation;
        empty for no rows.
        """
        if frame.empty:
            return torch.empty(0, 2, 0, 0, 0)
        return torch.from_numpy(np.stack([get(self.entry(sha256)) for sha256 in frame.sha256]))


def token_ids(captions: list[str], tokenizer) -> torch.Tensor:
    """(n, length) token ids, padded and cut to the tokenizer's length."""
    return tokenizer(
        captions,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids


@torch.no_grad()
def of_captions(captions: list[str], pipeline, size: int, cache: Path) -> dict[str, torch.Tensor]:
    """The conditions for the network from each caption at that image size, by the family's names
    for them, one row per caption, float32.

    The outputs of the text encoders are cached; the further steps of stock pipelines can change
    with their version.
    """
    family, parts = families.of(pipeline), base_models.networks(pipeline)
    # Stable Diffusion 3, for example, may have no third encoder and tokenizer.
    tokenizers = [
        part for name, part in pipeline.components.items() if part and "tokenizer" in name
    ]
    about = {
        "kind": "caption",
        "family": family.name,
        "diffusers": diffusers.__version__,
        "encoders": [base_models.weights_sha256(parts[name]) for name in family.encoders],
    }
    rows = []
    for caption in captions:
        ids = [tokenizer(caption).input_ids for tokenizer in tokenizers]
        paths = [
            entry(cache, caption=caption, ids=ids, told=name, **about) for name in family.conditions
        ]
        row = [get(path) for path in paths]
        if any(array is None for array in row):
            row = [part[0].float().cpu().numpy() for part in family.encoded(pipeline, caption)]
            for path, array in zip(paths, row):
                put(path, array)
        rows.append(row)
    condition = {
        name: torch.from_numpy(np.stack(rows)) for name, rows in zip(family.conditions, zip(*rows))
    }
    beside = family.beside(pipeline, size).items()
    return condition | {name: value.expand(len(captions), -1) for name, value in beside}
