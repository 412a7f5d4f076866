"""The Batch API: half the price, an answer within a day. Submit, leave, come back and collect.

What is on disk at any moment: paid/batches/<submission>.json is written before a batch is created
and carries the same submission number as the batch's metadata, so a kill in between neither loses a
batch nor submits it twice.
"""

import asyncio
import json
import uuid

from helpers import tables
from helpers.generate_openai import attempts, generating, image_service
from helpers.generate_openai.image_service import BuyingError
from helpers.generate_openai.prompts import Order
from helpers.services import retry_policy

ENDPOINT = "/v1/images/generations"
MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000
OVER = ("completed", "expired", "cancelled", "failed")


async def buy(purchase: generating.Purchase) -> None:
    """Collect what earlier batches have done, submit what is still wanted.

    Raises BuyingError while a batch is at work (come back later), and when the budget or the
    service stops it.
    """
    if purchase.run.finished:
        return
    if purchase.asked.provider == "azure":
        raise BuyingError(
            "Batches are made with provider openai or an own server; on Azure set mode to now."
        )
    async with purchase.asked.client() as client:
        waiting = [
            text
            for record in _records(purchase)
            if (text := await _collect(client, purchase, record))
        ]
        await purchase.ledger.save()
        purchase.rest()
        if purchase.wanted and not waiting:
            waiting = await _submit(client, purchase)
            if purchase.asked.provider == "rehearsal":
                # The stand-in lives as long as this process, and its batches are over at once.
                waiting = [
                    text
                    for record in _records(purchase)
                    if (text := await _collect(client, purchase, record))
                ]
    if waiting:
        raise BuyingError(
            "; ".join(waiting) + ". Run the stage again to collect; nothing is submitted twice."
        )
    purchase.rest()
    if purchase.wanted:
        raise BuyingError(
            f"{len(purchase.wanted)} of {len(purchase.orders)} images failed in their batch; run"
            " the stage again to submit them anew."
        )


def _records(purchase) -> list[dict]:
    paths = sorted((purchase.paid / "batches").glob("*.json"))
    records = [json.loads(path.read_text()) for path in paths]
    return [record for record in records if record["status"] not in ("collected", "never created")]


def _keep(purchase, record) -> None:
    path = purchase.paid / "batches" / f"{record['submission']}.json"
    tables.write_atomically(path, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())


async def _submit(client, purchase) -> list[str]:
    """Upload and create batches for everything wanted that the budget covers; returns a sentence
    for each.
    """
    asked, texts = purchase.asked, []
    covered = purchase.budget_usd - purchase.ledger.spent_usd
    each = purchase.estimate(max((order.prompt for order in purchase.wanted), key=len))
    affordable = (
        len(purchase.wanted) if not each.reserve_usd else int((covered + 1e-9) / each.reserve_usd)
    )
    if not affordable:
        raise BuyingError(
            f"The budget of {purchase.budget_usd:g} USD does not cover another image"
            f" ({purchase.ledger.spent_usd:.4f} USD spent or set aside)."
        )
    for part in _parts(purchase.wanted[:affordable], asked):
        record = {
            "submission": f"study-{uuid.uuid4().hex}",
            "status": "submitting",
            "batch_id": "",
            "requests": {},
        }
        for order in part:
            record["requests"][order.image_id] = purchase.ledger.begin(
                order, asked.model, asked.size, asked.quality, each.reserve_usd, "submitted"
            )
        await asyncio.to_thread(_keep, purchase, record)
        await purchase.ledger.save()
        await _create(client, purchase, record, part)
        texts.append(
            f"batch {record['batch_id']} with {len(part)} requests was submitted; it takes up to"
            " a day"
        )
    if affordable < len(purchase.wanted):
        texts.append(f"the budget covers {affordable} of {len(purchase.wanted)} images wanted")
    return texts


def _parts(orders, asked):
    """Orders in parts within the Batch API's limits of requests and bytes."""
    part, size = [], 0
    for order in orders:
        line = len(_line(order, asked))
        if part and (len(part) == MOST_REQUESTS or size + line > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(order)
        size += line
    if part:
        yield part


def _line(order, asked) -> bytes:
    request = {
        "custom_id": order.image_id,
        "method": "POST",
        "url": ENDPOINT,
        "body": asked.request(order),
    }
    return json.dumps(request).encode() + b"\n"


async def _create(client, purchase, record, part) -> None:
    content = b"".join(_line(order, purchase.asked) for order in part)
    try:
        file = await image_service.call(
            lambda: client.files.create(
                file=(f"{record['submission']}.jsonl", content), purpose="batch"
            ),
            "take a batch file",
        )
        # Not repeated by itself: a second try after a lost answer could create the batch twice. The
        # next start looks for it.
        made = await image_service.call(
            lambda: client.batches.create(
                input_file_id=file.id,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={"submission": record["submission"]},
            ),
            "create a batch",
            tries=1,
        )
    except image_service.Refused as error:
        if error.verdict.action in ("retry", "again"):
            raise BuyingError(
                f"Whether the batch was created is not certain ({error}): run the stage again,"
                " which looks for it before anything is submitted."
            ) from None
        _abandon(purchase, record, str(error))
        await purchase.ledger.save()
        raise BuyingError(f"The batch was refused: {error}. Nothing was submitted.") from None
    record |= {"batch_id": made.id, "status": "submitted"}
    await asyncio.to_thread(_keep, purchase, record)


def _abandon(purchase, record, why) -> None:
    for request_id in record["requests"].values():
        purchase.ledger.settle(request_id, "failed", cost_usd=0.0, error=why)
    record["status"] = "never created"
    _keep(purchase, record)


async def _collect(client, purchase, record) -> str:
    """Bring in what a batch has done; returns a sentence while it is at work, '' when it is
    over.
    """
    if not record["batch_id"] and not await _found(client, record):
        _abandon(purchase, record, "the batch was never created")
        return ""
    try:
        batch = await image_service.call(
            lambda: client.batches.retrieve(record["batch_id"]), "tell about a batch"
        )
    except image_service.Refused as error:
        raise BuyingError(
            f"Batch {record['batch_id']} cannot be asked after ({error}): is it the same key and"
            " address as when it was submitted?"
        ) from None
    if batch.status not in OVER:
        counts = batch.request_counts
        done = f"{counts.completed} of {counts.total} done" if counts else "not begun"
        return f"batch {batch.id} is {batch.status.replace('_', ' ')} ({done})"
    wrong, unread = [], 0
    for file_id in (batch.output_file_id, batch.error_file_id):
        if file_id:
            of_file, unread_of_file = await _take_file(client, purchase, record, file_id)
            wrong, unread = wrong + of_file, unread + unread_of_file
    why = (
        "; ".join(error.message or "" for error in batch.errors.data or [])
        if batch.errors
        else f"the batch {batch.status} before this request"
    )
    _close(purchase, record, why, perhaps_billed=batch.status == "completed" or unread > 0)
    await purchase.ledger.save()
    record |= {"status": "collected", "ended": batch.status}
    await asyncio.to_thread(_keep, purchase, record)
    if batch.status == "failed":
        raise BuyingError(f"Batch {batch.id} failed: {why}. Nothing was charged for it.")
    if wrong:
        raise BuyingError(
            f"{len(wrong)} requests of batch {batch.id} would fail again: {wrong[0]}. What it made"
            " is safe."
        )
    return ""


async def _found(client, record) -> bool:
    """Look for a batch that was perhaps created before this process' predecessor was killed."""

    async def look() -> str:
        async for batch in client.batches.list(limit=100):
            if (batch.metadata or {}).get("submission") == record["submission"]:
                return batch.id
        return ""

    record["batch_id"] = await image_service.call(look, "list its batches")
    return bool(record["batch_id"])


def _close(purchase, record, why, perhaps_billed: bool) -> None:
    """Requests of a batch that is over and that no result names: not executed, hence free, unless
    the batch says that it did all.
    """
    for request_id in record["requests"].values():
        if purchase.ledger.rows[request_id]["status"] == "submitted":
            if perhaps_billed:
                purchase.ledger.settle(
                    request_id,
                    "unknown",
                    error="the batch is over without a readable result: may have been billed",
                )
            else:
                purchase.ledger.settle(request_id, "failed", cost_usd=0.0, error=why)


async def _take_file(client, purchase, record, file_id) -> tuple[list[str], int]:
    """Every line of a result file, which may be far larger than the memory: through the disk, line
    by line.

    Returns the messages of requests that were wrong in themselves, and how many lines (or whole
    files) could not be read.
    """
    path = purchase.paid / "batches" / f".{record['submission']}.part"
    wrong, unread = [], 0
    try:
        await image_service.call(
            lambda: image_service.download(client, file_id, path), "hand out a batch's results"
        )
    except image_service.Refused as error:
        if error.verdict.status == 404:
            purchase.run.say(
                f"A result file of batch {record['batch_id']} is no longer there ({error})."
            )
            return [], 1
        raise BuyingError(
            f"The results of batch {record['batch_id']} cannot be had now ({error}): run the stage"
            " again."
        ) from None
    with path.open("rb") as lines:
        for line in lines:
            try:
                result = json.loads(line) if line.strip() else None
            except ValueError:
                unread += 1
                continue
            if isinstance(result, dict):
                wrong += await _take(purchase, record, result)
    path.unlink()
    return wrong, unread


async def _take(purchase, record, line) -> list[str]:
    """One line of a result file: an image, a refusal or a failure.

    Returns the message of a request that was wrong in itself.
    """
    request_id = record["requests"].get(line.get("custom_id"))
    if request_id is None or purchase.ledger.rows[request_id]["status"] != "submitted":
        return []
    response = line.get("response") or {}
    if response.get("status_code") == 200:
        order = purchase.by_id.get(line["custom_id"]) or _forgotten(purchase, request_id)
        headers = {"x-request-id": response.get("request_id") or ""}
        await attempts.keep(
            purchase,
            order,
            request_id,
            purchase.asked.request(order),
            json.dumps(response.get("body")).encode(),
            headers,
            None,
        )
        return []
    verdict = retry_policy.judge_status(
        response.get("status_code") or 500,
        response.get("body") or {"error": line.get("error") or {}},
        {},
    )
    purchase.ledger.settle(
        request_id,
        "refused" if verdict.action == "refused" else "failed",
        cost_usd=0.0,
        error=verdict.message,
    )
    return [verdict.message] if verdict.action == "stop" else []


def _forgotten(purchase, request_id):
    """An order that is no longer in prompts.csv but was paid for: its image is kept all the
    same.
    """
    row = purchase.ledger.rows[request_id]
    return Order(row["image_id"], row["prompt_id"], row["prompt"], "", "", "", "", "", 0)
