"""The Batch API: half the price, answers within a day. Submit, then run again later to collect.

What is on disk at any moment: paid/batches/<submission>.json is written before a batch is created
and has the same submission number as the batch's metadata. So a kill in between neither loses a
batch nor submits it twice.
"""

import asyncio
import contextlib
import json
import uuid
from collections import Counter

from helpers.files import write_atomically
from helpers.generate_openai import answers, service
from helpers.generate_openai.prompts import Order
from helpers.generate_openai.requests import Generation
from helpers.plurals import counted
from helpers.services import connection, retry_policy, secrets
from helpers.services.connection import ServiceError
from helpers.services.sending import ABOUT_THE_PROMPT

ENDPOINT = "/v1/images/generations"
MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000
RETRIES = 5  # of calls that cost nothing
OVER = ("completed", "expired", "cancelled", "failed")
UNREADABLE = "the batch is over without a readable result: may have been billed"


async def generate(generation: Generation) -> None:
    """Collect the results of earlier batches and submit what is still missing.

    Raises ServiceError while a batch is in progress (run again later), and when the budget or
    the service stops it.
    """
    if generation.run.finished:
        return
    provider = generation.run.parameters.provider
    if provider == "azure":
        raise ServiceError(
            "Batches are made with provider openai or local; on Azure set mode to now."
        )
    await answers.read_again(generation)
    async with generation.service.client(RETRIES) as client:
        waiting = await _collect_all(client, generation)
        if generation.wanted and not waiting:
            waiting = await _submit(client, generation)
            if provider == "rehearsal":
                # The stand-in lives as long as this process, and its batches end immediately.
                waiting = await _collect_all(client, generation)
    if waiting:
        raise ServiceError(
            "; ".join(waiting) + ". Run the stage again to collect; nothing is submitted twice."
        )
    if generation.wanted:
        raise ServiceError(
            f"{len(generation.wanted)} of {len(generation.orders)} images failed in their batch;"
            " run the stage again to submit them again."
        )


async def _collect_all(client, generation) -> list[str]:
    """Collect from every batch that is not settled; returns a sentence for each batch in
    progress.
    """
    waiting = [await _collect(client, generation, kept) for kept in generation.open_batches()]
    await generation.ledger.save()
    generation.rest()
    return [text for text in waiting if text]


def _keep(generation, record) -> None:
    path = generation.paid / "batches" / f"{record['submission']}.json"
    write_atomically(path, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())


async def _submit(client, generation) -> list[str]:
    """Upload and create batches for everything wanted that the budget covers; returns a sentence
    for each.
    """
    each, texts = generation.most_expensive(), []
    covered = generation.budget_usd - generation.ledger.spent_usd
    affordable = len(generation.wanted)
    if each.reserve_usd:
        affordable = min(affordable, int((covered + 1e-9) / each.reserve_usd))
    if affordable < 1:
        raise ServiceError(
            f"The budget of {generation.budget_usd:g} USD does not cover another image"
            f" ({generation.ledger.spent_usd:.4f} USD spent or set aside): raise budget_usd."
        )
    for part in _parts(generation.wanted[:affordable], generation.service):
        record = {"submission": f"study-{uuid.uuid4().hex}", "status": "submitting"}
        record |= {"batch_id": "", "requests": {}}
        for order in part:
            record["requests"][order.image_id] = generation.begin(
                order, each.reserve_usd, "submitted"
            )
        await asyncio.to_thread(_keep, generation, record)
        await generation.ledger.save()
        await _create(client, generation, record, part)
        texts.append(
            f"batch {record['batch_id']} with {counted(len(part), 'request')} was"
            " submitted; it takes up to a day"
        )
    if affordable < len(generation.wanted):
        texts.append(f"the budget covers {affordable} of {len(generation.wanted)} images wanted")
    return texts


def _parts(orders, service):
    """Orders in parts within the Batch API's limits of requests and bytes."""
    part, size = [], 0
    for order in orders:
        line = len(_line(order, service))
        if part and (len(part) == MOST_REQUESTS or size + line > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(order)
        size += line
    if part:
        yield part


def _line(order, service) -> bytes:
    request = {
        "custom_id": order.image_id,
        "method": "POST",
        "url": ENDPOINT,
        "body": service.request(order),
    }
    return json.dumps(request).encode() + b"\n"


async def _create(client, generation, record, part) -> None:
    content = b"".join(_line(order, generation.service) for order in part)
    try:
        upload = (f"{record['submission']}.jsonl", content)
        sent = client.files.create(file=upload, purpose="batch")
        file = await connection.call(sent, "take a batch file")
        # This is not repeated automatically: a second try after a lost answer could create the
        # batch twice. The next start looks for the batch.
        async with generation.service.client() as once:
            sent = once.batches.create(
                input_file_id=file.id,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={"submission": record["submission"]},
            )
            made = await connection.call(sent, "create a batch")
    except connection.Failed as error:
        if error.verdict.action in ("retry", "again"):
            raise ServiceError(
                f"Whether the batch was created is not certain ({error}): run the stage again,"
                " which looks for it before anything is submitted."
            ) from None
        _abandon(generation, record, str(error))
        await generation.ledger.save()
        raise ServiceError(f"The batch was refused: {error}. Nothing was submitted.") from None
    record |= {"batch_id": made.id, "status": "submitted"}
    await asyncio.to_thread(_keep, generation, record)


def _abandon(generation, record, why) -> None:
    _close(generation, record, why, perhaps_billed=0)
    record["status"] = "never created"
    _keep(generation, record)


async def _collect(client, generation, record) -> str:
    """Collect the results of a batch; returns a sentence while it is in progress, '' when it is
    over.
    """
    try:
        if not record["batch_id"] and not await _found(client, record):
            _abandon(generation, record, "the batch was never created")
            return ""
        asking = client.batches.retrieve(record["batch_id"])
        batch = await connection.call(asking, "describe a batch")
    except connection.Failed as error:
        raise ServiceError(
            f"The state of batch {record['batch_id'] or record['submission']} cannot be read"
            f" ({error}): use the same key and address as when it was submitted."
        ) from None
    counts = batch.request_counts
    if batch.status not in OVER:
        done = f"{counts.completed} of {counts.total} done" if counts else "not begun"
        return f"batch {batch.id} is {str(batch.status).replace('_', ' ')} ({done})"
    failures: list[tuple[str, retry_policy.Verdict]] = []
    read, unread = set(), 0
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        unread += await _take_file(client, generation, record, file_id, read, failures)
    why = f"the batch {batch.status} before this request"
    if batch.errors:
        why = secrets.clean("; ".join(error.message or "" for error in batch.errors.data or []))
    # The service counts its requests; a request that no line of its files names may be billed.
    missing = len(record["requests"])
    if batch.status == "failed":
        missing = 0
    elif batch.status != "completed" and not unread and counts and counts.completed is not None:
        missing = counts.completed - len(read)
    _close(generation, record, why, missing)
    wrong = _judge(generation, failures, bool(read))
    await generation.ledger.save()
    record |= {"status": "collected", "ended": batch.status}
    await asyncio.to_thread(_keep, generation, record)
    if batch.status == "failed":
        raise ServiceError(f"Batch {batch.id} failed: {why}. Nothing was charged for it.")
    if wrong:
        raise ServiceError(
            f"{len(wrong)} request{'s' * (len(wrong) > 1)} of batch {batch.id} would fail again:"
            f" {wrong[0].message}. The"
            f" images that it made are safe. {wrong[0].remedy}".strip()
        )
    return ""


async def _found(client, record) -> bool:
    """Look for a batch that an earlier process may have created before it was killed."""

    async def look() -> str:
        async for batch in client.batches.list(limit=100):
            if (batch.metadata or {}).get("submission") == record["submission"]:
                return batch.id
        return ""

    record["batch_id"] = await connection.call(look(), "list its batches")
    return bool(record["batch_id"])


def _close(generation, record, why, perhaps_billed: int) -> None:
    """Settle the requests of a finished batch that no result names. They were not executed and are
    free, unless the service counts more requests than it returns results.
    """
    rows = generation.ledger.rows
    known = [name for name in record["requests"].values() if name in rows]
    unnamed = [name for name in known if rows[name]["status"] == "submitted"]
    for number, request_id in enumerate(unnamed):
        if number < perhaps_billed:
            generation.ledger.settle(request_id, "unknown", error=UNREADABLE)
        else:
            generation.ledger.settle(request_id, "failed", cost_usd=0.0, error=why)


async def _take_file(client, generation, record, file_id, read, failures) -> int:
    """Read a result file line by line from disk, because it may be far larger than the memory.
    Images are named in `read`, requests that failed in `failures`.

    Returns how many lines (or whole files) could not be read.
    """
    path = generation.paid / "batches" / f".{record['submission']}.part"
    unread = 0
    try:
        await connection.call(service.download(client, file_id, path), "return its results")
    except connection.Failed as error:
        if error.verdict.status == 404:
            generation.run.say(
                f"A result file of batch {record['batch_id']} is no longer there ({error})."
            )
            return 1
        raise ServiceError(
            f"The results of batch {record['batch_id']} cannot be fetched now ({error}): run the"
            " stage again."
        ) from None
    with path.open("rb") as lines:
        for line in filter(bytes.strip, lines):
            result = None
            with contextlib.suppress(ValueError):
                result = json.loads(line)
            if isinstance(result, dict):
                await _take(generation, record, result, read, failures)
            else:
                unread += 1
    path.unlink()
    return unread


async def _take(generation, record, line: dict, read: set, failures: list) -> None:
    """One line of a result file: an image, a refusal or a failure."""
    request_id = record["requests"].get(str(line.get("custom_id")))
    response = line.get("response")
    response = response if isinstance(response, dict) else {}
    if request_id not in generation.ledger.rows or not (response or line.get("error")):
        return
    body = response.get("body") or {"error": line.get("error") or {}}
    status = str(response.get("status_code"))
    done, verdict = status == "200", retry_policy.judge_success(body, {})
    if done:
        read.add(request_id)
    if generation.ledger.rows[request_id]["status"] != "submitted":
        return
    if done and (verdict is None or verdict.action == "again"):
        order = generation.by_id.get(line["custom_id"]) or _forgotten(generation, request_id)
        headers = {"x-request-id": response.get("request_id") or ""}
        content = json.dumps(response.get("body")).encode()
        await answers.keep(generation, order, request_id, content, headers)
        return
    if not done:
        verdict = retry_policy.judge_status(int(status) if status.isdigit() else 500, body, {})
    status = "refused" if verdict.action == "refused" else "failed"
    generation.ledger.settle(request_id, status, cost_usd=0.0, error=verdict.message)
    failures.append((request_id, verdict))


def _judge(generation, failures, others_came: bool) -> list[retry_policy.Verdict]:
    """Set aside the requests that the service rejected while it served others (after the second
    rejection, if the status may be about anything); returns the verdicts on those that would fail
    again.
    """
    rows = generation.ledger.rows
    failed = Counter(row["image_id"] for row in rows.values() if row["status"] == "failed")
    for request_id, verdict in failures if others_came else ():
        again = failed[rows[request_id]["image_id"]] > 1
        if verdict.action == "rejected" and (again or verdict.status in ABOUT_THE_PROMPT):
            generation.ledger.settle(request_id, "refused")
    wrong = ("stop",) if others_came else ("stop", "rejected")
    return [verdict for _, verdict in failures if verdict.action in wrong]


def _forgotten(generation, request_id):
    """An order that is no longer in prompts.csv but was paid for: its image is kept anyway."""
    row = generation.ledger.rows[request_id]
    words = (row["image_id"], row["prompt_id"], row["prompt"], "", "", "", "", "")
    return Order(*words, 0, row["size"] or "auto", 0.0)
