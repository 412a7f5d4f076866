"""The dated price table of the image models, and the expected cost of an image.

Prices are never guessed: a model that is not in the table needs its price as a parameter.
"""

import math
import re
from dataclasses import dataclass, field

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
# USD per image by size: the retired models, for servers that still accept their requests.
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


class PriceError(ValueError):
    """A model without a known price; the message names the parameters that give one."""


@dataclass(frozen=True)
class Price:
    """USD per million text tokens in and image tokens out, or USD per image by its size ('' for
    every size); `source` says where the price comes from.
    """

    input_usd: float = 0.0
    output_usd: float = 0.0
    image_usd: dict[str, float] = field(default_factory=dict)
    source: str = ""

    @property
    def by_tokens(self) -> bool:
        """Whether the service charges by tokens."""
        return self.output_usd > 0

    def image(self, size: str) -> float:
        """USD for an image of this size, in addition to its tokens. Raises PriceError for a size
        that the table does not have.
        """
        if self.image_usd and not {size, ""} & self.image_usd.keys():
            raise PriceError(
                f"No price is known for an image of {size}, only for {', '.join(self.image_usd)}:"
                " set size to one of these, or set price_image."
            )
        return self.image_usd.get(size, self.image_usd.get("", 0.0))


def family(model: str) -> str:
    """The model without its snapshot date: gpt-image-2-2026-04-21 -> gpt-image-2."""
    return re.sub(r"-\d{4}-\d{2}-\d{2}$", "", model)


def find(
    model: str, quality: str, price_input: float, price_output: float, price_image: float
) -> Price:
    """The price of a model: the parameters where given (`price_image` from 0 on), else the dated
    table.

    Raises PriceError for an unknown model: no server is free unless the study says so.
    """
    if min(price_input, price_output) < 0 or (price_input and not price_output):
        raise PriceError(
            "price_input and price_output must be 0 or more, and price_input needs price_output"
            " beside it."
        )
    if price_image >= 0 or price_output:
        by_image = {"": price_image} if price_image > 0 else {}
        nothing = "" if price_output or by_image else ", nothing charged"
        return Price(price_input, price_output, by_image, f"the study's own parameters{nothing}")
    name, source = family(model), f"the table of {TABLE_DATE}"
    if name in TOKEN_PRICES:
        return Price(*TOKEN_PRICES[name], source=source)
    by_size = IMAGE_PRICES.get(f"{name} hd" if quality == "hd" else name)
    if by_size:
        return Price(image_usd=by_size, source=source)
    raise PriceError(
        f"No price is known for model '{model}': set price_output (USD per million image tokens)"
        " and price_input, or price_image (USD per image, 0 for a server that charges nothing), or"
        " priced_as (a model of the table) in the YAML; without a price no budget can be kept."
    )


def tokens(usage: dict | None) -> tuple[int | None, int | None]:
    """Input and output tokens of an answer's usage. A missing count follows from the total, or is
    None. What the total has beyond both is output: some services count a model's reasoning only
    there.
    """
    names = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
    counted = usage or {}
    given, out, total = (
        _count(counted.get(name, counted.get(names.get(name))))
        for name in ("input_tokens", "output_tokens", "total_tokens")
    )
    if total is not None and out is not None and given is None:
        given = max(0, total - out)
    elif total is not None:
        out = max(out or 0, total - (given or 0))
    return given, out


def _count(value) -> int | None:
    try:
        return int(value) if not isinstance(value, bool) and 0 <= int(value) < 1e12 else None
    except (TypeError, ValueError, OverflowError):
        return None


def cost(
    price: Price, size: str, given: int | None, out: int | None, batch: bool, images: int = 1
) -> float:
    """The cost of one answer, USD, from its input and output tokens: all output tokens at the image
    rate, plus the price of each of its images if there is one.
    """
    usd = price.image(size) * images
    usd += (price.input_usd * (given or 0) + price.output_usd * (out or 0)) / 1e6
    return usd * (BATCH_DISCOUNT if batch else 1)


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
    return math.prod(map(int, size.split("x")))
