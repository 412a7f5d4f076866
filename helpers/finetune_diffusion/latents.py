"""What the VAE and the text encoder make of the cases, computed once and kept by content.

An entry's name is the hash of all that it depends on, so a changed image, VAE, size or caption is a
new entry and nothing is ever stale; runs and processes share one folder. Each entry is computed
alone, so that its bits do not depend on what else was missing at the time.
"""

import hashlib
import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from helpers import images
from helpers.runner import freshness, runs

FORMAT = 1


def entry(cache: Path, **depends_on) -> Path:
    """Where the entry that depends on these values lies."""
    name = freshness.digest({"format": FORMAT, **depends_on})
    return Path(cache) / name[:2] / f"{name}.npy"


def put(path: Path, array: np.ndarray) -> None:
    """Write an entry: a temporary file, then a rename, so that concurrent writers leave one whole
    file.
    """
    buffer = io.BytesIO()
    np.save(buffer, array)
    content = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content + hashlib.sha256(content).digest())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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


@torch.no_grad()
def of_pictures(
    frame: pd.DataFrame,
    vae,
    vae_sha256: str,
    size: int,
    cache: Path,
    autocast,
    mine: slice = slice(None),
) -> None:
    """Encode the images of `frame` (columns file, sha256, bits) that are not cached yet:

    VAE posterior mean and deviation.

    `autocast` is a context manager factory; `mine` is this process's share of the rows.
    """
    device, channels = next(vae.parameters()).device, vae.config.in_channels
    missing = [
        row
        for row in frame.iloc[mine].itertuples()
        if get(latent_entry(cache, row.sha256, vae_sha256, size, channels)) is None
    ]
    for row in runs.progress(missing, "encoding images"):
        pixels = picture(row.file, size, int(row.bits), channels)[None].to(
            device, memory_format=torch.channels_last
        )
        with autocast():
            posterior = vae.encode(pixels).latent_dist
        both = torch.cat([posterior.mean, posterior.std]).float().cpu().numpy()
        put(latent_entry(cache, row.sha256, vae_sha256, size, channels), both)


def latent_entry(cache: Path, image_sha256: str, vae_sha256: str, size: int, channels: int) -> Path:
    """Where the posterior of one image lies."""
    return entry(
        cache, kind="latents", image=image_sha256, vae=vae_sha256, size=size, channels=channels
    )


def read_pictures(
    frame: pd.DataFrame, vae_sha256: str, size: int, channels: int, cache: Path
) -> torch.Tensor:
    """The cached posteriors of all rows, (n, 2, C, h, w) float32: mean and standard deviation;
    empty for no rows.
    """
    if frame.empty:
        return torch.empty(0, 2, 0, 0, 0)
    entries = [latent_entry(cache, sha256, vae_sha256, size, channels) for sha256 in frame.sha256]
    return torch.from_numpy(np.stack([get(path) for path in entries]))


def token_ids(captions: list[str], tokenizer) -> torch.Tensor:
    """(n, length) token ids, padded and cut to the tokenizer's length."""
    length = tokenizer.model_max_length
    encoded = tokenizer(
        captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    return encoded.input_ids


@torch.no_grad()
def of_captions(
    captions: list[str], tokenizer, text_encoder, text_sha256: str, cache: Path
) -> torch.Tensor:
    """The text encoder's last hidden state of each caption, (n, length, width) float32, cached one
    by one.
    """
    device, found = next(text_encoder.parameters()).device, []
    for caption, ids in zip(captions, token_ids(captions, tokenizer)):
        path = entry(
            cache, kind="caption", caption=caption, ids=ids.tolist(), text_encoder=text_sha256
        )
        embedding = get(path)
        if embedding is None:
            embedding = text_encoder(ids[None].to(device))[0][0].float().cpu().numpy()
            put(path, embedding)
        found.append(embedding)
    return torch.from_numpy(np.stack(found))


def too_long(captions: list[str], tokenizer) -> list[str]:
    """The captions that the tokenizer would cut."""
    counts = (
        [len(ids) for ids in tokenizer(captions, truncation=False).input_ids] if captions else []
    )
    return [
        caption for caption, count in zip(captions, counts) if count > tokenizer.model_max_length
    ]
