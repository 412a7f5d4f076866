"""One request for one image, from its line in the ledger to its settled line."""

import asyncio
import time
from dataclasses import dataclass

from helpers import tables
from helpers.generate_openai import answers, image_service, paid_images, provenance
from helpers.generate_openai.image_service import Service
from helpers.generate_openai.prompts import Order
from helpers.services import prices


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt: done, refused, throttled, retry, again or stop."""

    action: str
    message: str = ""
    retry_after: float = 0.0


async def attempt(client, purchase, order: Order, request_id: str) -> Outcome:
    """One request from its ledger line to its settled line; raises for nothing that the service or
    the network does.
    """
    await purchase.ledger.save()
    body, began = purchase.asked.request(order), time.monotonic()
    try:
        content, headers = await image_service.ask(client, body, request_id)
        outcome = await keep(
            purchase, order, request_id, body, content, headers, time.monotonic() - began
        )
    except image_service.Refused as error:
        status = {"refused": "refused", "again": "unknown"}.get(error.verdict.action, "failed")
        settled = {"seconds": time.monotonic() - began, "error": str(error)} | (
            {} if status == "unknown" else {"cost_usd": 0.0}
        )
        purchase.ledger.settle(request_id, status, **settled)
        outcome = Outcome(error.verdict.action, str(error), error.verdict.retry_after)
    except image_service.Disconnected as error:
        outcome = _disconnected(purchase, request_id, error, time.monotonic() - began)
    await purchase.ledger.save()
    return outcome


def _disconnected(purchase, request_id, error, seconds) -> Outcome:
    """What was never sent is free; anything else may have been billed and keeps what was set aside
    for it.
    """
    if error.when == "unsent":
        purchase.ledger.settle(
            request_id, "failed", cost_usd=0.0, seconds=seconds, error=str(error)
        )
        return Outcome("retry", f"no connection ({error})")
    purchase.ledger.settle(
        request_id, "unknown", seconds=seconds, error=f"{error}; may have been billed"
    )
    if error.when == "within":
        return Outcome("again", f"the answer was lost ({error})")
    return Outcome("retry", f"hung up before an answer ({error})")


async def keep(purchase, order, request_id, body, content, headers, seconds) -> Outcome:
    """Put an answer on disk: what it said, then its bytes as received; settle the line."""
    asked, settled = purchase.asked, {} if seconds is None else {"seconds": seconds}
    answer = None
    try:
        answer = await asyncio.to_thread(
            answers.read_answer, answers.decoded(content), lambda url: _fetch(asked, url)
        )
        usage = answer.usage
        found = await asyncio.to_thread(provenance.examine, answer.content)
    except (answers.UnusableAnswer, provenance.UnusableImage) as error:
        usage = answer.usage if answer else error.usage
        settled |= charge(asked, usage, False, purchase.batch)
        kept = answer.content if answer else error.content
        if kept:
            await asyncio.to_thread(
                tables.write_atomically, purchase.paid / "unusable" / f"{request_id}.bin", kept
            )
        known = "cost_usd" in settled
        purchase.ledger.settle(
            request_id, "failed" if known else "unknown", **settled, error=str(error)
        )
        return Outcome("again", str(error))
    settled |= charge(asked, usage, True, purchase.batch)
    if settled.get("output_tokens"):
        purchase.seen_tokens.append(settled["output_tokens"])
    size = f"{found['width']}x{found['height']}"
    notes = (
        [f"another size than asked for: {size}"] if "x" in asked.size and size != asked.size else []
    )
    if "cost_usd" not in settled:
        settled["cost_usd"] = purchase.estimate(order.prompt).usd
        notes.append("no usage in the answer: the cost is estimated")
    elif asked.price.by_tokens and settled.get("input_tokens") is None:
        notes.append(
            "tokens in are not told apart: all that were counted are charged at the output rate"
        )
    if notes:
        settled["error"] = "; ".join(notes)
    record = {
        **paid_images.sidecar(asked, order, request_id, body, headers, answer, found),
        "settled": settled,
    }
    await asyncio.to_thread(
        paid_images.write_paid, purchase.paid, order.image_id, record, answer.content
    )
    purchase.ledger.settle(request_id, "ok", **settled)
    return Outcome("done")


def charge(asked: Service, usage: dict | None, pictured: bool, batch: bool = False) -> dict:
    """Ledger fields that follow from what the service counted; no cost where that cannot be known.

    It is known from the tokens counted (an image of no tokens is a count left out), or by image
    where an image came.
    """
    given, out = prices.tokens(usage)
    known = (
        (out if pictured else out is not None)
        if asked.price.by_tokens
        else pictured or not asked.price.image_usd
    )
    counted = {"input_tokens": given, "output_tokens": out}
    return counted | ({"cost_usd": prices.cost(asked.price, given, out, batch)} if known else {})


def _fetch(asked: Service, url) -> bytes:
    return answers.fetch_url(
        url, asked.base_url or image_service.OPENAI_ADDRESS, trust_env=not asked.loopback
    )
