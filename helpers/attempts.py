"""One request for one image, from its line in the ledger to its settled line."""

import asyncio
import json
import time
from dataclasses import dataclass

from helpers import openai_images, paid_images, prices, provenance, tables
from helpers.openai_images import Service
from helpers.prompts import Order


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt: done, refused, throttled, retry, again or stop."""

    action: str
    message: str = ""
    retry_after: float = 0.0


async def attempt(client, purchase, order: Order, request_id: str) -> Outcome:
    """One request from its ledger line to its settled line; raises for nothing that the service or the network does."""
    await purchase.ledger.save()
    body, began = purchase.asked.request(order), time.monotonic()
    try:
        content, headers = await openai_images.ask(client, body, request_id)
        outcome = await keep(purchase, order, request_id, body, content, headers, time.monotonic() - began)
    except openai_images.Refused as error:
        status = "refused" if error.verdict.action == "refused" else "failed"
        purchase.ledger.settle(request_id, status, cost_usd=0.0, seconds=time.monotonic() - began, error=str(error))
        outcome = Outcome(error.verdict.action, str(error), error.verdict.retry_after)
    except openai_images.Disconnected as error:
        outcome = _disconnected(purchase, request_id, error, time.monotonic() - began)
    await purchase.ledger.save()
    return outcome


def _disconnected(purchase, request_id, error, seconds) -> Outcome:
    """What was never sent is free; anything else may have been billed and keeps what was set aside for it."""
    if error.when == "unsent":
        purchase.ledger.settle(request_id, "failed", cost_usd=0.0, seconds=seconds, error=str(error))
        return Outcome("retry", f"no connection ({error})")
    purchase.ledger.settle(request_id, "unknown", seconds=seconds, error=f"{error}; may have been billed")
    if error.when == "within":
        return Outcome("again", f"the answer was lost ({error})")
    return Outcome("retry", f"hung up before an answer ({error})")


async def keep(purchase, order, request_id, body, content, headers, seconds) -> Outcome:
    """Put an answer on disk: what it said, then its bytes as received; settle the line."""
    asked, settled = purchase.asked, {} if seconds is None else {"seconds": seconds}
    answer = None
    try:
        answer = await asyncio.to_thread(openai_images.read_answer, decoded(content), openai_images.fetch_url)
        usage = answer.usage
        found = await asyncio.to_thread(provenance.examine, answer.content)
    except (openai_images.UnusableAnswer, provenance.UnusableImage) as error:
        usage = answer.usage if answer else error.usage
        settled |= charge(asked, usage, purchase.batch)
        kept = answer.content if answer else error.content
        if kept:
            await asyncio.to_thread(tables.write_atomically, purchase.paid / "unusable" / f"{request_id}.bin", kept)
        known = "cost_usd" in settled
        purchase.ledger.settle(request_id, "failed" if known else "unknown", **settled, error=str(error))
        return Outcome("again", str(error))
    settled |= charge(asked, usage, purchase.batch)
    if settled.get("output_tokens"):
        purchase.seen_tokens.append(settled["output_tokens"])
    size = f"{found['width']}x{found['height']}"
    notes = [f"another size than asked for: {size}"] if "x" in asked.size and size != asked.size else []
    notes += [] if "cost_usd" in settled else ["no usage in the answer: the cost is what was set aside"]
    if notes:
        settled["error"] = "; ".join(notes)
    record = {**paid_images.sidecar(asked, order, request_id, body, headers, answer, found), "settled": settled}
    await asyncio.to_thread(paid_images.write_paid, purchase.paid, order.image_id, record, answer.content)
    purchase.ledger.settle(request_id, "ok", **settled)
    return Outcome("done")


def charge(asked: Service, usage: dict | None, batch: bool = False) -> dict:
    """Ledger fields that follow from what the service counted; no cost where it counted nothing and charges by tokens."""
    counted = {key: usage.get(key) for key in ("input_tokens", "output_tokens")} if usage else {}
    usd = prices.cost(asked.price, usage, batch=batch)
    return counted | ({} if usd is None else {"cost_usd": usd})


def decoded(content: bytes):
    """The JSON of an answer. Raises UnusableAnswer with the bytes that came instead."""
    try:
        return json.loads(content)
    except (ValueError, UnicodeDecodeError):
        raise openai_images.UnusableAnswer("the answer is not JSON", None, content) from None
