"""The shapes of requested images: those of the study's real cases, as closely as the service
allows, so that the shape does not give the source away.
"""

import functools

import numpy as np

from helpers import images
from helpers.generate_openai.service import Service
from helpers.runner import runs
from helpers.services import prices
from helpers.services.connection import ServiceError

# The only sizes that older models make; DALL-E 2 makes only squares.
FIXED = {
    "dall-e-2": ("256x256", "512x512", "1024x1024"),
    "dall-e-3": ("1024x1024", "1024x1792", "1792x1024"),
    "gpt-image-1": ("1024x1024", "1024x1536", "1536x1024"),
    "chatgpt-image": ("1024x1024", "1024x1536", "1536x1024"),
}
STEP, SMALLEST_AREA, LONGEST_EDGE, MOST_RATIO = 16, 655_360, 3840, 3.0
# A received image whose aspect ratio is this close to the drawn one is cut to it exactly.
NEAR = 0.03


def of_cases(run: runs.Run) -> dict[str, list[tuple[int, int]]]:
    """Width and height of every real image by modality; empty where `size` alone sets the shape."""
    if not run.parameters.cases:
        return {}
    table = run.reads(run.parameters.cases).read("images.csv")
    return {
        modality: list(zip(rows["width"].astype(int), rows["height"].astype(int)))
        for modality, rows in table.sort_values("image_id").groupby("modality")
    }


def drawn(shapes: dict, service: Service, modality: str, image_id: str) -> tuple[str, float]:
    """The size to request and the exact aspect ratio of an image: those of a case drawn by the
    study's seed, at the area of `size`.

    Raises ServiceError when no case has this modality.
    """
    settings = service.parameters
    if not shapes:
        return settings.size, 0.0
    if modality not in shapes:
        raise ServiceError(
            f"{settings.cases} has no {modality} images whose shapes could be requested: remove"
            f" these lines from {settings.prompt_table}, or leave cases empty."
        )
    chance = np.random.default_rng([settings.seed, int(image_id[1:], 16)])
    width, height = shapes[modality][chance.integers(len(shapes[modality]))]
    return nearest(service, width / height), width / height


def nearest(service: Service, ratio: float) -> str:
    """The WIDTHxHEIGHT nearest to an aspect ratio at the area of `size` that the model can make:
    one of a fixed list, or any in steps of 16 pixels.
    """
    model = (service.parameters.priced_as or service.parameters.model).rsplit("/", 1)[-1]
    fixed = next((sizes for name, sizes in FIXED.items() if model.startswith(name)), None)
    if fixed == FIXED["dall-e-2"]:
        return service.parameters.size
    if fixed:
        return min(fixed, key=lambda size: abs(np.log(_ratio(size) / ratio)))
    least = SMALLEST_AREA if service.shape == "gpt-image" else 0
    return _in_steps(ratio, max(prices.area(service.parameters.size), least), least)


@functools.lru_cache(maxsize=4096)
def _in_steps(ratio: float, area: int, least: int) -> str:
    ratio = min(max(ratio, 1 / MOST_RATIO), MOST_RATIO)
    edges = range(STEP, LONGEST_EDGE + 1, STEP)
    possible = [
        (width, height)
        for width in edges
        for height in {STEP * round(width / ratio / STEP), STEP * int(width / ratio / STEP)}
        if STEP <= height <= LONGEST_EDGE
        and width * height >= least
        and 1 / MOST_RATIO <= width / height <= MOST_RATIO
    ]

    def distance(edge):
        width, height = edge
        # A change of the shape by 1 % weighs as much as a change of the area by 10 %.
        return 10 * abs(np.log(width / height / ratio)) + abs(np.log(width * height / area))

    return "{}x{}".format(*min(possible, key=distance))


def exact(array: np.ndarray, ratio: float, size: int) -> np.ndarray:
    """The image (H, W) uint8 with its longer side at most `size` pixels. If its aspect ratio is
    `NEAR` the requested `ratio`, it gets exactly that ratio (a service rounds sizes to 16 pixels).
    """
    height, width = array.shape
    if not ratio or abs(np.log(width / height / ratio)) > NEAR:
        return images.fitted(array, size, 8)
    longer = min(size, int(min(height, width / ratio) * max(1.0, ratio)))
    shape = [max(1, round(longer / max(1.0, part))) for part in (ratio, 1 / ratio)]
    return np.floor(images.area_resize(array, *shape) + 0.5).astype(np.uint8)


def _ratio(size: str) -> float:
    width, _, height = size.partition("x")
    return int(width) / int(height)
