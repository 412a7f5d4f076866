"""Finds the image in an image service's answer, in whatever form it comes, and stores it on
disk.
"""

import asyncio
import base64
import functools
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urljoin

import httpx2

from helpers.files import write_atomically
from helpers.generate_openai import paid_images, provenance
from helpers.generate_openai.service import Service
from helpers.loopback import on_loopback
from helpers.services import connection, prices, retry_policy, secrets
from helpers.services.connection import Unusable

IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
NOT_FETCHED = "its url could not be fetched"
FETCH_WAITS_SECONDS = (0.5, 1, 2, 4, 8, 0)
EFFECTIVE = ("created", "size", "quality", "background", "output_format")


@dataclass(frozen=True)
class Answer:
    """One image as the service sent it, with the metadata in the answer."""

    content: bytes
    usage: dict | None
    effective: dict
    images: int = 1  # the answer may hold more than were asked for; the first is kept


def read(content: bytes, fetch) -> Answer:
    """The image of an images response: base64, a URL that `fetch` gets, or the bytes themselves.

    Raises Unusable.
    """
    if content.startswith(IMAGE_STARTS):
        return Answer(content, None, {})
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        streamed = connection.events(content)
        if not streamed:  # an earlier version of this study kept the base64 text alone
            encoded = content.decode("ascii", "replace")
            return Answer(_decoded(encoded, "neither JSON nor"), None, {})
        # Previews come before the image, and an error in place of it.
        whole = [event for event in streamed if "partial" not in str(event.get("type"))]
        body = {"data": whole[-1:], **(whole or [{}])[-1]}
    if not isinstance(body, dict):
        raise Unusable("the answer is not a JSON object")
    usage = body.get("usage") if isinstance(body.get("usage"), dict) else None
    data = body.get("data")
    items = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
    made = [one for one in items if one.get("b64_json") or one.get("url")]
    if not made:
        what = "neither b64_json nor url" if items else "empty data"
        raise connection.nothing_in(body, what, usage)
    encoded, url = made[0].get("b64_json"), made[0].get("url")
    try:
        if encoded or str(url).lower().lstrip().startswith("data:"):
            content = _decoded(encoded or url, "not")
        else:
            content = fetch(url)
    except Unusable as error:
        raise Unusable(str(error), usage=usage) from None
    effective = {key: body[key] for key in EFFECTIVE if body.get(key) is not None}
    effective |= {key: made[0][key] for key in ("revised_prompt",) if made[0].get(key)}
    return Answer(content, usage, effective, len(made))


def _decoded(text, wrong: str) -> bytes:
    """The bytes of base64 text. The image is paid for, so variants are accepted: line breaks,
    missing padding, the URL-safe alphabet, and the beginning of a data URL.
    """
    try:
        # Base64 has no comma: what comes before one is the beginning of a data URL.
        encoded = unquote(text.rpartition(",")[2])
        encoded = "".join(encoded.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (ValueError, AttributeError) as error:
        raise Unusable(f"the answer is {wrong} base64 that decodes ({error})") from None


def fetch_url(url, base_url: str, trust_env: bool, waits=None) -> bytes:
    """Download an image that was answered by URL, absolute or relative to `base_url`. It is paid
    for, so this is tried for a quarter of a minute, or with other `waits` (seconds after each try).

    Raises Unusable.
    """
    whole, given = urljoin(base_url, str(url)), {"follow_redirects": True, "timeout": 120.0}
    if not whole.startswith(("http://", "https://")):
        raise Unusable("a url that is not http")
    for wait_seconds in waits or FETCH_WAITS_SECONDS:
        try:
            with httpx2.stream("GET", whole, trust_env=trust_env, **given) as response:
                return _whole(response.raise_for_status())
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0].strip(": ")
            time.sleep(wait_seconds)
    raise Unusable(f"{NOT_FETCHED} ({said})")


def _whole(response) -> bytes:
    content = bytearray()
    for piece in response.iter_bytes():
        content += piece
        if len(content) > connection.MOST_BYTES:
            raise Unusable(f"its url gives more than {connection.MOST_BYTES >> 20} MB")
    return bytes(content)


async def keep(
    generation, order, request_id: str, content: bytes, headers: dict, seconds: float | None = None
) -> retry_policy.Verdict:
    """Put an answer on disk: first its metadata, then its bytes as received. Then settle its line
    in the ledger. Unusable answers are kept in paid/unusable.
    """
    service, settled = generation.service, {"seconds": seconds} if seconds is not None else {}
    usage, path = None, _unusable(generation, request_id)

    def fetch(url):
        # If the download fails or is killed, the next run fetches the image. A signed address is a
        # secret: it is not kept.
        if secrets.clean_bytes(content) == content:
            write_atomically(path, content)
        return _fetch(service, url)

    try:
        answer = await asyncio.to_thread(read, content, fetch)
        usage = answer.usage
        found = await asyncio.to_thread(provenance.examine, answer.content)
    except Unusable as error:
        settled |= charge(generation, order.size, usage or error.usage, 0)
        if error.action == "unusable":
            await asyncio.to_thread(write_atomically, path, secrets.clean_bytes(content))
        failed = "failed" if "cost_usd" in settled else "unknown"
        status = "refused" if error.action == "refused" else failed
        generation.ledger.settle(request_id, status, **settled, error=str(error))
        return retry_policy.Verdict(error.action, str(error))
    return await _store(generation, order, request_id, answer, found, headers, settled)


def _unusable(generation, request_id: str) -> Path:
    return generation.paid / "unusable" / f"{request_id}.bin"


async def read_again(generation) -> int:
    """Read again the paid answers that were unusable when they came, or whose image could not be
    downloaded then; returns how many images were found.
    """
    kept, waits = 0, None
    for path in sorted((generation.paid / "unusable").glob("*.bin")):
        row = generation.ledger.rows.get(path.stem, {})
        order = generation.by_id.get(row.get("image_id"))
        if not order or paid_images.on_disk(generation.paid, order.image_id):
            continue
        try:
            fetch = functools.partial(_fetch, generation.service, waits=waits)
            answer = read(path.read_bytes(), fetch)
            found = provenance.examine(answer.content)
        except Unusable as error:
            # After one such quarter of a minute, the other addresses are tried once each.
            waits = (0,) if NOT_FETCHED in str(error) else waits
            continue
        answer = replace(answer, usage=answer.usage or row)
        await _store(generation, order, path.stem, answer, found, {}, {})
        kept += 1
    await generation.ledger.save()
    return kept


async def _store(generation, order, request_id, answer, found, headers, settled):
    service = generation.service
    settled |= charge(generation, order.size, answer.usage, answer.images)
    notes = []
    if answer.images > 1:
        notes.append(f"{answer.images} images came, the first is kept")
    size = f"{found['width']}x{found['height']}"
    if "x" in order.size and size != order.size:
        notes.append(f"another size than asked for: {size}")
    if "cost_usd" not in settled:
        settled["cost_usd"] = generation.estimate(order).usd
        notes.append("no usage in the answer: the cost is estimated")
    elif service.price.by_tokens and settled["input_tokens"] is None:
        notes.append("only a total of tokens was counted: all are charged at the output rate")
    settled["error"] = "; ".join(notes) or None
    record = paid_images.sidecar(service, order, request_id, headers, answer, found)
    await asyncio.to_thread(
        paid_images.write_paid, generation.paid, record | {"settled": settled}, answer.content
    )
    generation.ledger.settle(request_id, "ok", **settled)
    _unusable(generation, request_id).unlink(missing_ok=True)
    generation.learn(order.size, settled["output_tokens"])
    return retry_policy.Verdict("done")


def charge(generation, size: str, usage: dict | None, imaged: int) -> dict:
    """Ledger fields that follow from what the service counted and the number of images that came;
    without a cost where it cannot be known.

    The cost follows from the tokens counted (an image of 0 tokens means that the count is missing),
    or from the price per image.
    """
    price, (given, out) = generation.service.price, prices.tokens(usage)
    known = imaged or not price.image(size)
    if price.by_tokens:
        known = out if imaged else out is not None
    counted = {"input_tokens": given, "output_tokens": out}
    cost = prices.cost(price, size, given, out, generation.batch, max(1, imaged))
    return counted | ({"cost_usd": cost} if known else {})


def _fetch(service: Service, url, waits=None) -> bytes:
    base_url = service.base_url or connection.OPENAI_ADDRESS
    try:
        # A proxy finds what a gateway on this machine passes on, but not the gateway's own files.
        here = on_loopback(urljoin(base_url, str(url)))
    except ValueError as error:
        raise Unusable(f"its url is none ({error})") from None
    return fetch_url(url, base_url, trust_env=not here, waits=waits)
