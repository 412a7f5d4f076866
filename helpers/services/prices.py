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
    "dall-e-3 hd": {"1024x1024": 0.080, "1024x1792": 0.120, "1792x1024": 0.120},
}
# Output tokens of one image of 1024x1024 from gpt-image-2; other sizes in proportion to their area.
OUTPUT_TOKENS = {
    "low": 196,
    "medium": 1756,
    "high": 7024,
    "auto": 7024,
    "xhigh": 14_048,
    "max": 28_096,
}
BATCH_DISCOUNT = 0.5
# Until a first answer has shown what this model counts, more is set aside than the table says, and
# much more beside others.
UNSEEN_MARGIN, UNSEEN_MARGIN_BESIDE, SEEN_MARGIN = 3.0, 10.0, 1.1


class PriceError(ValueError):
    """A model without a known price; the message names the parameters that give one."""


@dataclass(frozen=True)
class Price:
    """USD per million text tokens in and image tokens out, or USD per image; `source` says where
    from.
    """

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
    """Expected cost of one image, what to set aside for it, what both rest on, and whether answers
    (or a price by image) confirm it.

    `beside_usd` is what each of several under way at once may cost at worst: their surprises add up
    before one is known.
    """

    usd: float
    reserve_usd: float
    beside_usd: float
    basis: str
    seen: bool = True


def family(model: str) -> str:
    """The model without its snapshot date: gpt-image-2-2026-04-21 -> gpt-image-2."""
    return re.sub(r"-\d{4}-\d{2}-\d{2}$", "", model)


def find(
    model: str,
    size: str,
    input_usd: float = 0.0,
    output_usd: float = 0.0,
    image_usd: float = 0.0,
    free: bool = False,
    quality: str = "",
) -> Price:
    """The price of a model: the parameters where given, else the dated table.

    Raises PriceError for an unknown model.
    """
    if min(input_usd, output_usd, image_usd) < 0 or (input_usd and not output_usd):
        raise PriceError(
            "price_input, price_output and price_image must be 0 or more, and price_input needs"
            " price_output beside it."
        )
    if input_usd or output_usd or image_usd:
        return Price(input_usd, output_usd, image_usd, "the study's own parameters")
    name = family(model)
    if name in TOKEN_PRICES:
        return Price(*TOKEN_PRICES[name], source=f"the table of {TABLE_DATE}")
    by_size = IMAGE_PRICES.get(f"{name} hd" if quality == "hd" else name, {})
    if size in by_size:
        return Price(image_usd=by_size[size], source=f"the table of {TABLE_DATE}")
    if free:
        return Price(source="an own server, nothing charged")
    raise PriceError(
        f"No price is known for model '{model}' at {size}: set price_output (USD per million image"
        " tokens) and price_input, or price_image (USD per image), or priced_as (a model of the"
        " table) in the YAML; without one no budget could be held. A server of your own that"
        " charges nothing is provider local."
    )


def tokens(usage: dict | None) -> tuple[int | None, int | None]:
    """Tokens in and out of an answer's usage; what is missing follows from the total, or is None
    where it doesn't.
    """
    given, out, total = (
        _count((usage or {}).get(name))
        for name in ("input_tokens", "output_tokens", "total_tokens")
    )
    if out is None and total is not None:
        out = max(0, total - (given or 0))
    elif given is None and total is not None:
        given = max(0, total - out)
    return given, out


def _count(value) -> int | None:
    try:
        return int(value) if not isinstance(value, bool) and int(value) >= 0 else None
    except (TypeError, ValueError, OverflowError):
        return None


def cost(
    price: Price, input_tokens: int | None, output_tokens: int | None, batch: bool = False
) -> float:
    """What one answer cost, USD: all output tokens at the image rate, and the price by image where
    there is one.
    """
    usd = (
        price.image_usd
        + (price.input_usd * (input_tokens or 0) + price.output_usd * (output_tokens or 0)) / 1e6
    )
    return usd * (BATCH_DISCOUNT if batch else 1)


def estimate(
    price: Price, prompt: str, size: str, quality: str, seen: list[int], batch: bool = False
) -> Estimate:
    """What one image will cost, from what was really charged for this model, size and quality where
    there is any.

    `seen` has the output tokens of the answers to that model, size and quality.
    """
    discount = BATCH_DISCOUNT if batch else 1
    if not price.by_tokens:
        usd = price.image_usd * discount
        return Estimate(usd, usd, usd, f"{price.image_usd:g} USD an image, {price.source}")
    listed = OUTPUT_TOKENS.get(quality, OUTPUT_TOKENS["auto"]) * area(size) / 1024**2
    if seen:
        expected = sum(seen) / len(seen)
        # What the service chooses itself may still be its dearest.
        most = max(*seen, listed) if "auto" in (quality, size) else max(seen)
        reserve, beside = most * SEEN_MARGIN, most * SEEN_MARGIN + _surprise(seen, listed)
        basis = (
            f"{expected:.0f} output tokens an image in {len(seen)} answers of this ledger,"
            f" {price.source}"
        )
    else:
        expected, reserve = listed, listed * UNSEEN_MARGIN
        beside = max(
            reserve, min(listed * UNSEEN_MARGIN_BESIDE, OUTPUT_TOKENS["max"] * area(size) / 1024**2)
        )
        basis = f"{expected:.0f} output tokens an image as gpt-image-2 counts them, {price.source}"
    text = (math.ceil(len(prompt) / 3) + 10) * price.input_usd
    more = text * (SEEN_MARGIN if seen else UNSEEN_MARGIN)
    per_token = price.output_usd
    usd, reserve_usd, beside_usd = (
        discount * part / 1e6
        for part in (
            expected * per_token + text,
            reserve * per_token + more,
            beside * per_token + more,
        )
    )
    return Estimate(usd, reserve_usd, beside_usd, basis, bool(seen))


def _surprise(seen: list[int], listed: float) -> float:
    """Output tokens by which the next answer may exceed the dearest seen: as much as they differ; a
    first one says little.
    """
    if len(seen) > 1:
        return max(seen) - min(seen)
    return 0.0 if abs(seen[0] - listed) <= 0.02 * listed else seen[0]


def area(size: str) -> int:
    """Pixels of a WIDTHxHEIGHT; 'auto' counts as the largest of the standard sizes.

    Raises PriceError for anything else.
    """
    if size == "auto":
        return 1536 * 1024
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", size):
        raise PriceError(
            f"size must be WIDTHxHEIGHT in pixels, such as 1024x1024, or auto; it is '{size}'."
        )
    width, _, height = size.partition("x")
    return int(width) * int(height)
