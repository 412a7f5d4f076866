"""Feature vectors of images: handcrafted, or of any transformers vision model or TorchScript
file.
"""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage, stats

from helpers import images
from helpers.assemble_reading_set import framing
from helpers.runner import workers
from helpers.runner.progress import progress

HANDCRAFTED = "handcrafted"
BATCH = 32
CHUNK = 8 * BATCH  # images per task
FEW = 1000  # number of images below which no other processes are used


def extract(pool: pd.DataFrame, settings: dict, size: int) -> np.ndarray:
    """Features of the images of `pool` (columns file, bits, modality), shape (n, d) float32, one
    image in memory at a time.

    Every image takes the same path: framing.for_reading at `size` pixels and 8 bits, then
    `settings["extractor"]`: `handcrafted`, a TorchScript file (.pt; takes (n, 3, size, size) in
    0..1) or a transformers vision model by id or folder (resized bicubically to the model's size).
    Raises ImageError for an image smaller than `size`.
    """
    rows = pool[["file", "bits", "modality"]]
    network = settings["extractor"] != HANDCRAFTED
    count = 0 if network or len(rows) < FEW else workers.cores()
    parts = [rows.iloc[begin : begin + CHUNK] for begin in range(0, len(rows), CHUNK)]
    with workers.executor(count, __name__, **({"GPU": 1} if network else {})) as executor:
        at_work = [
            executor.submit(_features, part, dict(settings), size)
            for part in progress(parts, "features")  # done immediately if there are no workers
        ]
        found = [row for future in progress(at_work, "features") for row in future.result()]
    return np.asarray(found, dtype=np.float32).reshape(len(found), -1)


def _features(rows: pd.DataFrame, settings: dict, size: int) -> np.ndarray:
    pictures = (as_read(row, settings, size).astype(np.float32) / 255 for row in rows.itertuples())
    if settings["extractor"] == HANDCRAFTED:
        return np.stack([handcrafted(picture) for picture in pictures])
    return _by_network(pictures, settings["extractor"])


def as_read(row, settings: dict, size: int) -> np.ndarray:
    """A row's image as readers would see it at `size` pixels and 8 bits, (size, size) uint8."""
    array, framed = images.read_png(row.file), {**settings, "reading_size": size}
    return framing.for_reading(array, int(row.bits), row.modality, 8, framed)


def describe(settings: dict, size: int) -> str:
    """One phrase for tables: the extractor and the resize rule."""
    framed = (
        "whole" if settings["framing"] == "whole" else f"common, margin {settings['margin']:.1%}"
    )
    return f"{settings['extractor']}; framing {framed}, by area to {size} px, 8 bit"


def scale(real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(centre, spread) of real features, so that all features have equal weight. The spread is at
    least 0.01: otherwise a feature that never varies would dominate.
    """
    return real.mean(0), np.maximum(real.std(0), 0.01)


def handcrafted(picture: np.ndarray) -> np.ndarray:
    """First-order (10), layout (9), texture (20) and spectral (8) features of a square image in
    0..1, float32 of length 47.
    """
    coarse, power = images.area_resize(picture, 3, 3), radial_power(picture, 8)
    layout = ((coarse - coarse.mean()) / (picture.std() + 1e-6)).ravel()
    spectrum = np.log10(power / power.sum() + 1e-8)
    return np.concatenate(
        [_first_order(picture), layout, _texture(picture), spectrum], dtype=np.float32
    )


def _first_order(picture: np.ndarray) -> list[float]:
    values = picture.ravel()
    shares = np.histogram(values, 64, (0, 1))[0] / values.size
    entropy = -(shares[shares > 0] * np.log2(shares[shares > 0])).sum()
    spread = values.std()
    skew, kurtosis = (stats.skew(values), stats.kurtosis(values)) if spread > 0 else (0.0, 0.0)
    return [
        values.mean(),
        spread,
        skew,
        kurtosis,
        entropy,
        *np.percentile(values, (5, 25, 50, 75, 95)),
    ]


def _texture(picture: np.ndarray) -> list[float]:
    found = []
    for sigma in (0.7, 1.5, 3.0):
        smooth = ndimage.gaussian_filter(picture, sigma)
        across, down = np.diff(smooth, axis=1), np.diff(smooth, axis=0)
        found += [
            np.abs(across).mean(),
            np.abs(down).mean(),
            np.log(np.var(picture - smooth) + 1e-8),
        ]
    grey = picture - picture.mean()
    power = (grey**2).mean() + 1e-8
    for lag in (1, 2, 4):
        found += [
            (grey[:, lag:] * grey[:, :-lag]).mean() / power,
            (grey[lag:] * grey[:-lag]).mean() / power,
        ]
    # Local binary patterns as sign counts of the four forward neighbours (Ojala 1996): how rough
    # the texture is, free of contrast.
    forward = (picture[1:-1, 2:], picture[2:, 1:-1], picture[2:, 2:], picture[2:, :-2])
    brighter = sum((pixel > picture[1:-1, 1:-1]).astype(np.int8) for pixel in forward)
    return [*found, *(np.bincount(brighter.ravel(), minlength=5) / brighter.size)]


def radial_power(picture: np.ndarray, bands: int) -> np.ndarray:
    """Mean spectral power in `bands` rings of equal width up to the Nyquist frequency (Hann window,
    mean removed).
    """
    height, width = picture.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    power = np.abs(np.fft.rfft2((picture - picture.mean()) * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    ring = np.minimum((radius * 2 * bands).astype(int), bands).ravel()
    return (
        np.bincount(ring, power.ravel(), bands + 1)
        / np.maximum(np.bincount(ring, minlength=bands + 1), 1)
    )[:bands]


def _by_network(pictures, extractor: str) -> np.ndarray:
    import torch  # slow to import and not needed by the default extractor

    torch.set_num_threads(workers.cores())
    if Path(extractor).suffix not in (".pt", ".pth", ".ts"):
        network, size, mean, deviation = _transformer(extractor)
    elif Path(extractor).is_file():
        network, size = torch.jit.load(extractor, map_location="cpu").eval(), 0
        mean, deviation = 0.0, 1.0
    else:
        raise FileNotFoundError(
            f"The extractor {extractor} does not exist: give a TorchScript file, a transformers"
            " model or 'handcrafted'."
        )
    found, pictures = [], iter(pictures)
    while batch := list(itertools.islice(pictures, BATCH)):
        stacked = torch.from_numpy(np.stack(batch))[:, None].expand(-1, 3, -1, -1)
        if size:
            stacked = torch.nn.functional.interpolate(
                stacked, (size, size), mode="bicubic", antialias=True
            ).clamp(0, 1)
        with torch.inference_mode():
            found.append(network((stacked - mean) / deviation).float().cpu().numpy())
    return np.concatenate(found).astype(np.float32)


def _transformer(name: str):
    import torch
    from transformers import AutoModel
    from transformers.image_processing_utils import get_size_dict
    from transformers.models.auto.image_processing_auto import get_image_processor_config

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, loading = AutoModel.from_pretrained(name, output_loading_info=True)
    absent = [key for key in loading["missing_keys"] if "pooler" not in key]
    if absent:
        raise ValueError(
            f"The extractor {name} lacks weights of its network ({', '.join(sorted(absent)[:3])}):"
            " they would be random."
        )
    # A classifier is often stored without it, and with random weights its output means nothing.
    trained_pooler = not loading["missing_keys"]
    model = getattr(model, "vision_model", model).eval().to(device)
    channels = getattr(model.config, "num_channels", 3)
    wanted = get_image_processor_config(name)
    size = get_size_dict(
        wanted.get("crop_size") or wanted.get("size") or getattr(model.config, "image_size", 224),
        default_to_square=True,
    )
    pixels = size.get("height") or size.get("shortest_edge")
    mean, deviation = (
        torch.tensor(wanted.get(key, [0.5] * 3)).view(1, -1, 1, 1)
        for key in ("image_mean", "image_std")
    )

    def network(batch):
        answer = model(pixel_values=batch[:, :channels].to(device))
        pooled = getattr(answer, "pooler_output", None) if trained_pooler else None
        return (answer.last_hidden_state[:, 0] if pooled is None else pooled).flatten(1)

    return network, int(pixels), mean, deviation
