"""The outputs of the VAE and the text encoder for the cases, computed once and cached by content.

An entry's name is the hash of all that it depends on, so a changed image, VAE, size or caption is a
new entry and nothing is ever stale; runs and processes share one folder. Each entry is computed
alone, so that its bits do not depend on which other entries were missing.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from helpers import files, images
from helpers.diffusion import base_models
from helpers.runner import freshness
from helpers.runner.progress import progress

FORMAT = 2


def entry(cache: Path, **depends_on) -> Path:
    """The path of the entry that depends on these values."""
    name = freshness.digest({"format": FORMAT, **depends_on})
    return Path(cache) / name[:2] / f"{name}.npy"


def put(path: Path, array: np.ndarray) -> None:
    """Write an entry, so that concurrent writers leave one whole file."""
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
    """A case as the VAE takes it: (channels, size, size) float32, its full grey range 0..2**bits-1
    as -1..1.

    Twelve or sixteen bits keep their depth; nothing is clipped, cropped or flipped. The grey plane
    is given `channels` times (1 or 3).
    """
    grey = images.standardise(images.read_png(path), size, bits).astype(np.float32)
    plane = torch.from_numpy(grey * (2 / (2**bits - 1)) - 1)
    return plane.expand(channels, size, size).contiguous()


@dataclass
class Images:
    """The VAE's posteriors of the cases at one size, kept in the folder `cache`."""

    vae: torch.nn.Module
    size: int
    cache: Path

    def __post_init__(self):
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
        fp32 whatever training is done in.
        """
        device, channels = next(self.vae.parameters()).device, self.vae.config.in_channels
        missing = [row for row in frame.itertuples() if get(self.entry(row.sha256)) is None]
        for row in progress(missing, "encoding images"):
            pixels = picture(row.file, self.size, int(row.bits), channels)[None].to(
                device, memory_format=torch.channels_last
            )
            posterior = self.vae.encode(pixels).latent_dist
            both = torch.cat([posterior.mean, posterior.std]).float().cpu().numpy()
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
    length = tokenizer.model_max_length
    encoded = tokenizer(
        captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    return encoded.input_ids


@torch.no_grad()
def of_captions(captions: list[str], pipeline, cache: Path) -> torch.Tensor:
    """The text encoder's last hidden state of each caption, (n, length, width) float32, cached one
    by one.
    """
    encoder, found = pipeline.text_encoder, []
    about = {
        "kind": "caption",
        "precision": "fp32",
        "text_encoder": base_models.weights_sha256(encoder),
    }
    for caption, ids in zip(captions, token_ids(captions, pipeline.tokenizer)):
        path = entry(cache, caption=caption, ids=ids.tolist(), **about)
        embedding = get(path)
        if embedding is None:
            embedding = encoder(ids[None].to(encoder.device))[0][0].float().cpu().numpy()
            put(path, embedding)
        found.append(embedding)
    return torch.from_numpy(np.stack(found))


def too_long(captions: list[str], tokenizer) -> list[str]:
    """The captions that the tokenizer would cut."""
    return [
        caption
        for caption in captions
        if len(tokenizer(caption, truncation=False).input_ids) > tokenizer.model_max_length
    ]
