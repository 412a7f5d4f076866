"""The price table of the image models, dated, and what an image is expected to cost.

Prices are never guessed: a model that is not in the table needs its price as a parameter.
"""

import math
import re
from dataclasses import dataclass

TABLE_DATE = "2026-11-01"
# USD per million tokens: text in, image out.
TOKEN_PRICES = {
    "gpt-image-2": (5.0, 30.0),
    "gpt-image-2.5-flare": (5.0, 30.0),
    "gpt-image-2.5-sunburst": (5.0, 30.0),
    "gpt-image-2.6-flare": (5.0, 30.0),
    "gpt-image-2.6-sunburst": (5.0, 30.0),
    "gpt-image-1.5": (5.0, 32.0),
    "gpt-image-1-mini": (2.0, 8.0),
}
# USD per image by size: the retired models, for servers that still speak their request.
IMAGE_PRICES = {
    "dall-e-2": {"256x256": 0.016, "512x512": 0.018, "1024x1024": 0.020},
    "dall-e-3": {"1024x1024": 0.040, "1024x1792": 0.080, "1792x1024": 0.080},
}
# Output tokens of one image of 1024x1024 from gpt-image-2; other sizes in proportion to their area.
OUTPUT_TOKENS = {"low": 196, "medium": 1756, "high": 7024, "auto": 7024, "xhigh": 14_048, "max": 28_096}
BATCH_DISCOUNT = 0.5
# Until a first answer has shown what this model counts, more is set aside than the table says.
UNSEEN_MARGIN, SEEN_MARGIN = 3.0, 1.1


class PriceError(ValueError):
    """A model without a known price; the message names the parameters that give one."""


@dataclass(frozen=True)
class Price:
    """USD per million text tokens in and image tokens out, or USD per image; `source` says where from."""

    input_usd: float = 0.0
    output_usd: float = 0.0
    image_usd: float = 0.0
    source: str = ""

    @property
    def by_tokens(self) -> bool:
        """Whether the service charges by tokens."""
        return self.output_usd > 0 or self.input_usd > 0


@dataclass(frozen=True)
class Estimate:
    """Expected cost of one image, what to set aside for it, what both rest on, and whether answers (or a price by image) confirm it."""

    usd: float
    reserve_usd: float
    basis: str
    seen: bool = True


def family(model: str) -> str:
    """The model without its snapshot date: gpt-image-2-2026-04-21 -> gpt-image-2."""
    return re.sub(r"-\d{4}-\d{2}-\d{2}$", "", model)


def find(model: str, size: str, input_usd: float = 0.0, output_usd: float = 0.0, image_usd: float = 0.0, free: bool = False) -> Price:
    """The price of a model: the parameters where given, else the dated table. Raises PriceError for an unknown model."""
    if input_usd or output_usd or image_usd:
        return Price(input_usd, output_usd, image_usd, "the study's own parameters")
    name = family(model)
    if name in TOKEN_PRICES:
        return Price(*TOKEN_PRICES[name], source=f"the table of {TABLE_DATE}")
    if size in IMAGE_PRICES.get(name, {}):
        return Price(image_usd=IMAGE_PRICES[name][size], source=f"the table of {TABLE_DATE}")
    if free:
        return Price(source="an own server, nothing charged")
    raise PriceError(
        f"No price is known for model '{model}' at {size}: set price_output (USD per million image tokens) and price_input, "
        "or price_image (USD per image), or priced_as (a model of the table) in the YAML."
    )


def cost(price: Price, usage: dict | None, images: int = 1, batch: bool = False) -> float | None:
    """What an answer cost, USD: all output tokens at the image rate. None when a token price meets an answer without usage."""
    if price.by_tokens and not usage:
        return None
    usd = price.image_usd * images
    if usage:
        usd += (price.input_usd * (usage.get("input_tokens") or 0) + price.output_usd * (usage.get("output_tokens") or 0)) / 1e6
    return usd * (BATCH_DISCOUNT if batch else 1)


def estimate(price: Price, prompt: str, size: str, quality: str, seen: list[int], batch: bool = False) -> Estimate:
    """What one image will cost, from what was really charged for this model, size and quality where there is any.

    `seen` has the output tokens of the answers to that model, size and quality.
    """
    discount = BATCH_DISCOUNT if batch else 1
    if not price.by_tokens:
        return Estimate(price.image_usd * discount, price.image_usd * discount, f"{price.image_usd:g} USD an image, {price.source}")
    words = math.ceil(len(prompt) / 3) + 10
    if seen:
        tokens, most, margin = sum(seen) / len(seen), max(seen), SEEN_MARGIN
        basis = f"{tokens:.0f} output tokens an image in {len(seen)} answers of this ledger, {price.source}"
    else:
        tokens = most = OUTPUT_TOKENS.get(quality, 7024) * area(size) / 1024**2
        margin = UNSEEN_MARGIN
        basis = f"{tokens:.0f} output tokens an image as gpt-image-2 counts them, {price.source}"
    per_token = price.output_usd / 1e6
    text = words * price.input_usd / 1e6
    return Estimate((tokens * per_token + text) * discount, (most * per_token + text) * margin * discount, basis, bool(seen))


def area(size: str) -> int:
    """Pixels of a WIDTHxHEIGHT; 'auto' counts as the largest of the standard sizes."""
    width, _, height = size.partition("x")
    return int(width) * int(height) if height else 1536 * 1024
