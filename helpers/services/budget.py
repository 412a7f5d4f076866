"""The expected cost of a request, and whether a budget covers it beside the requests in
progress.
"""

import math
from dataclasses import dataclass

from helpers.services import prices

# Assumed tokens of an image and of a reply, before any answer has shown them.
PICTURE_TOKENS, ANSWER_TOKENS = 1500, 400
# Until a first answer shows this model's count, more is set aside than the table says, and much
# more for parallel requests.
UNSEEN_MARGIN, UNSEEN_MARGIN_BESIDE, SEEN_MARGIN = 3.0, 10.0, 1.1


@dataclass(frozen=True)
class Estimate:
    """Expected cost of one image, the amount to set aside for it, the basis of both, and whether
    answers (or a price per image) confirm it.

    `beside_usd` is the most that each of several parallel requests may cost: unexpected costs add
    up before the first is known.
    """

    usd: float
    reserve_usd: float
    beside_usd: float
    basis: str
    seen: bool


def estimate(
    price: prices.Price, prompt: str, size: str, quality: str, seen: list[float], batch: bool
) -> Estimate:
    """The expected cost of one image, from earlier charges for this model and quality if there are
    any.

    `seen` has the output tokens of earlier answers, each per 1024 x 1024 pixels.
    """
    discount = prices.BATCH_DISCOUNT if batch else 1
    if not price.by_tokens:
        usd = price.image(size) * discount
        basis = f"{usd / discount:g} USD per image, from {price.source}"
        return Estimate(usd, usd, usd, basis, True)
    squares = prices.area(size) / 1024**2
    listed = prices.OUTPUT_TOKENS.get(quality, prices.OUTPUT_TOKENS["auto"]) * squares
    if seen:
        counted = [tokens * squares for tokens in seen]
        expected = sum(counted) / len(counted)
        # A quality or size that the service chooses may still be its most expensive one.
        most = max(*counted, listed) if "auto" in (quality, size) else max(counted)
        reserve = most * SEEN_MARGIN
        beside = reserve + _surprise(counted, listed)
        basis = f"{expected:.0f} output tokens per image in {len(seen)} answers of this ledger"
    else:
        expected, reserve = listed, listed * UNSEEN_MARGIN
        most_expensive = prices.OUTPUT_TOKENS["max"] * squares
        beside = max(reserve, min(listed * UNSEEN_MARGIN_BESIDE, most_expensive))
        basis = f"{expected:.0f} output tokens per image as gpt-image-2 counts them"
    text = (math.ceil(len(prompt) / 3) + 10) * price.input_usd
    more = text * (SEEN_MARGIN if seen else UNSEEN_MARGIN)
    usd, reserve_usd, beside_usd = (
        discount * ((tokens * price.output_usd + words) / 1e6 + price.image(size))
        for tokens, words in ((expected, text), (reserve, more), (beside, more))
    )
    basis = f"{basis}, prices from {price.source}"
    return Estimate(usd, reserve_usd, beside_usd, basis, bool(seen))


def estimate_answer(
    price: prices.Price, characters: int, pictures: int, most_out: int, seen: list[tuple]
) -> Estimate:
    """The expected cost of one answer to a text of `characters` characters with `pictures` images.
    The request limits the output (`most_out` tokens), so only the input can exceed the estimate.

    `seen` has the tokens in and out of earlier answers.
    """
    if not price.by_tokens:
        usd = price.image("")
        return Estimate(usd, usd, usd, f"{usd:g} USD per answer, from {price.source}", True)
    if seen:
        given, out = (sum(tokens) / len(seen) for tokens in zip(*seen))
        most = beside = max(tokens for tokens, _ in seen) * SEEN_MARGIN
        basis = f"{given:.0f} tokens in, {out:.0f} out in {len(seen)} answers of this ledger"
    else:
        given = math.ceil(characters / 3) + pictures * PICTURE_TOKENS
        out = min(ANSWER_TOKENS, most_out)
        most, beside = given * UNSEEN_MARGIN, given * UNSEEN_MARGIN_BESIDE
        basis = (
            f"{given} tokens in and {out} out, assumed from the length of the texts and"
            f" {PICTURE_TOKENS} tokens per image"
        )
    usd, reserve_usd, beside_usd = (
        (tokens * price.input_usd + answer * price.output_usd) / 1e6 + price.image("")
        for tokens, answer in ((given, out), (most, most_out), (beside, most_out))
    )
    basis = f"{basis}, prices from {price.source}"
    return Estimate(usd, reserve_usd, beside_usd, basis, bool(seen))


def _surprise(seen: list[float], listed: float) -> float:
    """Output tokens by which the next answer may exceed the highest count so far: as many as the
    counts differ by. A single answer says little.
    """
    if len(seen) > 1:
        return max(seen) - min(seen)
    return 0.0 if abs(seen[0] - listed) <= 0.02 * listed else seen[0]


def affordable(each: Estimate, left_usd: float, under_way_usd: list[float]) -> float | None:
    """The amount to set aside for one more request, USD, or None if `left_usd` does not cover it
    now.

    `under_way_usd` has the amounts set aside for the requests in progress. They were set earlier,
    with less knowledge: each may cost as much as this one.
    """
    left = left_usd + 1e-9
    if under_way_usd:
        more = sum(max(0.0, each.beside_usd - usd) for usd in under_way_usd)
        return each.reserve_usd if more + each.beside_usd <= left else None
    if each.reserve_usd <= left:
        return each.reserve_usd
    # The very first image may use the whole budget, alone: its answer shows what the others will
    # cost.
    return left_usd if not each.seen and each.usd <= left else None
