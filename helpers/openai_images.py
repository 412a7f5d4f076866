"""Buying images from OpenAI's image API or any server that speaks it: what to ask for, of whom, and how each request looks.

buying.py sends the requests, openai_batches.py the Batch API's; retry_policy.py, prices.py and ledger.py say what they do.
"""

import asyncio
import base64
import binascii
import http.client
import json
import os
import random
import time
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import httpx2
import openai

from helpers import prices, retry_policy, runs

NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol)
OWN_FIELDS = {"model", "prompt", "n", "size", "quality", "response_format", "moderation"}


class BuyingError(runs.RunError):
    """Buying that cannot begin or cannot go on; the message says what there is and what to do."""


@dataclass(frozen=True)
class Service:
    """Who is asked, for which model, and in which shape of request."""

    provider: str
    model: str
    size: str = "1024x1024"
    quality: str = "auto"
    base_url: str = ""
    api_version: str = ""
    request_shape: str = "auto"
    moderation: str = "auto"
    extra_body: dict = field(default_factory=dict)
    seed_field: str = ""
    timeout_seconds: float = 600.0
    price: prices.Price = field(default_factory=prices.Price)
    credential: str = field(default="", repr=False)

    @property
    def shape(self) -> str:
        """gpt-image or dall-e: the fields a request may have."""
        if self.request_shape != "auto":
            return self.request_shape
        return "dall-e" if self.model.startswith("dall-e") else "gpt-image"

    def client(self) -> openai.AsyncOpenAI:
        """The asynchronous client, with its own retries off: it would pay a timed-out request twice."""
        common = {"api_key": self.credential, "max_retries": 0, "timeout": self.timeout_seconds}
        if self.provider == "azure":
            return openai.AsyncAzureOpenAI(azure_endpoint=self.base_url, api_version=self.api_version, **common)
        return openai.AsyncOpenAI(base_url=self.base_url or "https://api.openai.com/v1", **common)

    def request(self, order) -> dict:
        """The request's JSON body for one image."""
        body = {"model": self.model, "prompt": order.prompt, "n": 1, "size": self.size}
        if self.shape == "dall-e":
            body["response_format"] = "b64_json"
        elif self.moderation != "auto":
            body["moderation"] = self.moderation
        if self.quality != "auto":
            body["quality"] = self.quality
        body |= self.extra_body
        if self.seed_field:
            body[self.seed_field] = int(order.image_id[1:9], 16) % 2**31
        return body


def service(
    provider: str,
    model: str,
    size: str,
    quality: str,
    base_url: str = "",
    api_version: str = "",
    request_shape: str = "auto",
    moderation: str = "auto",
    extra_body: str = "",
    seed_field: str = "",
    timeout_seconds: float = 600.0,
    priced_as: str = "",
    price_input: float = 0.0,
    price_output: float = 0.0,
    price_image: float = 0.0,
    run: runs.Run | None = None,
) -> Service:
    """The service that the parameters describe, with its price and its key.

    Raises BuyingError without a key and base_url (not for a finished run, which sends nothing), PriceError for a model without a price.
    """
    try:
        extra = json.loads(extra_body or "{}")
    except json.JSONDecodeError as error:
        raise BuyingError(f'extra_body must be a JSON object such as {{"steps": 30}}: {error}.') from None
    if not isinstance(extra, dict):
        raise BuyingError('extra_body must be a JSON object such as {"steps": 30}.')
    if provider == "azure" and not (base_url and api_version):
        raise BuyingError("Azure needs base_url (https://NAME.openai.azure.com) and api_version beside the deployment's name as model.")
    price = prices.find(priced_as or model, size, price_input, price_output, price_image, free=provider == "local")
    found = "" if run and run.finished else credential(provider, base_url, run.study if run else "")
    asked = (provider, model, size, quality, base_url.rstrip("/"), api_version, request_shape, moderation)
    return Service(*asked, extra, seed_field, timeout_seconds, price, found)


def credential(provider: str, base_url: str, study: str = "") -> str:
    """The key from the environment or .keys/<study>/; servers on one's own address need none. Raises BuyingError without one."""
    name = "AZURE_OPENAI_API_KEY" if provider == "azure" else "OPENAI_API_KEY"
    if provider == "rehearsal":
        return "rehearsal"
    kept = runs.keys_folder(study) / name if study else None
    found = os.environ.get(name, "").strip() or (kept.read_text().strip() if kept and kept.is_file() else "")
    if not found and not base_url:
        raise BuyingError(
            f"No key: set the environment variable {name} or put the key into {kept or f'.keys/<study>/{name}'}, "
            "or name a server of your own in base_url, or set provider to rehearsal, which needs neither."
        )
    return found or "none"


async def preflight(asked: Service, needed_until: str = "") -> str:
    """Ask GET /v1/models whether the model is there and stays until the study's last day; returns what it said, in a sentence.

    Raises BuyingError when the model is missing, shuts down too early, or the key is refused. Azure lists no deployments,
    and an own server may list none: then that is said and buying goes on.
    """
    last = _day(needed_until) if needed_until else date.today()
    if asked.provider == "azure":
        return "Azure lists no deployments by name: not checked beforehand."
    listed = await _listed_models(asked)
    if listed is None:
        return "The server has no list of models: not checked beforehand."
    if asked.model not in listed:
        if asked.provider == "local":
            return f"The server's list does not name {asked.model}; asking for it all the same."
        near = [name for name in sorted(listed) if "image" in name or "dall" in name]
        raise BuyingError(f"Model '{asked.model}' is not offered (retired or misspelt); image models there: {', '.join(near) or 'none'}.")
    end = listed[asked.model]
    if end and _day(end[:10]) <= last:
        raise BuyingError(f"Model '{asked.model}' shuts down on {end[:10]}, the study needs it until {last}: choose a model that stays.")
    return f"{asked.model} is offered" + (f" until {end[:10]}." if end else ", no end announced.")


async def _listed_models(asked: Service) -> dict[str, str | None] | None:
    """Models by id with their shutdown date; None when the server keeps no such list."""
    try:
        async with asked.client() as client:
            page = await call(lambda: client.models.list(), "list its models")
    except Refused as error:
        if error.verdict.status in (404, 405, 501):
            return None
        raise BuyingError(f"The service refuses to list its models: {error}.") from None
    return {model.id: getattr(model, "shutdown_date", None) for model in page.data}


async def call(send, what: str, tries: int = 6):
    """The result of `send()` (a request that costs nothing to repeat); passing failures are tried again.

    Raises Refused for what would fail again, BuyingError when no connection or no answer can be had.
    """
    for failures in range(tries):
        try:
            return await send()
        except openai.APIStatusError as error:
            verdict = retry_policy.judge_status(error.status_code, error_body(error), error.response.headers)
            if verdict.action in ("stop", "refused") or error.status_code == 501 or failures == tries - 1:
                raise Refused(verdict) from None
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            verdict = retry_policy.Verdict("retry", str(error.__cause__ or error))
            if failures == tries - 1:
                raise BuyingError(
                    f"The service cannot be asked to {what}: {verdict.message}. Is the address right and the network there?"
                ) from None
        await asyncio.sleep(retry_policy.wait_seconds(failures, min(verdict.retry_after, 60.0), random.Random(failures)))
    raise AssertionError("unreachable")


def error_body(error: openai.APIStatusError):
    """The decoded body of an error answer, whole: the client itself hands out only what is inside "error"."""
    try:
        return json.loads(error.response.content)
    except (ValueError, UnicodeDecodeError, openai.OpenAIError):
        return error.body or str(error)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BuyingError(f"needed_until must be a day such as 2027-06-30, not '{text}'.") from None


class Refused(Exception):
    """An answer with an error status, judged."""

    def __init__(self, verdict: retry_policy.Verdict):
        super().__init__(verdict.message)
        self.verdict = verdict


class Disconnected(Exception):
    """No whole answer: `when` is unsent (free), unanswered (hung up before an answer) or within (cut off, or timed out at work)."""

    def __init__(self, when: str, cause: BaseException):
        super().__init__(f"{type(cause).__name__}: {cause}".strip(": "))
        self.when = when


async def ask(client: openai.AsyncOpenAI, body: dict, request_id: str) -> tuple[bytes, dict]:
    """Send one request for an image; returns the answer's bytes and headers. Raises Refused or Disconnected.

    `request_id` travels along as X-Client-Request-Id, which the provider keeps in its own logs.
    """
    own = {key: value for key, value in body.items() if key in OWN_FIELDS}
    extra = {key: value for key, value in body.items() if key not in OWN_FIELDS}
    answered = False
    try:
        async with client.images.with_streaming_response.generate(
            **own, extra_body=extra or None, extra_headers={"X-Client-Request-Id": request_id}
        ) as response:
            answered = True
            return await response.read(), dict(response.headers)
    except openai.APIStatusError as error:
        raise Refused(retry_policy.judge_status(error.status_code, error_body(error), error.response.headers)) from None
    except (openai.APIConnectionError, httpx2.HTTPError) as error:
        cause = error.__cause__ or error
        late = answered or isinstance(cause, httpx2.ReadTimeout)
        raise Disconnected("unsent" if isinstance(cause, NEVER_SENT) else "within" if late else "unanswered", cause) from None


async def download(client: openai.AsyncOpenAI, file_id: str, path: Path) -> None:
    """Bring a file of the service onto the disk, piece by piece."""
    async with client.files.with_streaming_response.content(file_id) as response:
        with path.open("wb") as file:
            async for piece in response.iter_bytes(1 << 20):
                file.write(piece)


@dataclass(frozen=True)
class Answer:
    """One picture as the service sent it, with what it said about it."""

    content: bytes
    usage: dict | None
    effective: dict


class UnusableAnswer(ValueError):
    """A successful answer without a usable picture; `usage` and `content` are what came instead."""

    def __init__(self, message: str, usage: dict | None = None, content: bytes = b""):
        super().__init__(message)
        self.usage, self.content = usage, content


def read_answer(body, fetch) -> Answer:
    """The picture of an images response: base64, or a URL that `fetch` gets. Raises UnusableAnswer."""
    if not isinstance(body, dict):
        raise UnusableAnswer("the answer is not a JSON object")
    usage = body.get("usage") if isinstance(body.get("usage"), dict) else None
    data = body.get("data") or []
    if not data or not isinstance(data[0], dict):
        said = retry_policy.describe(body)[2] if {"error", "detail"} & set(body) else ""
        raise UnusableAnswer(f"empty data{': ' + said if said else ''}", usage)
    effective = {key: body[key] for key in ("created", "size", "quality", "background", "output_format") if body.get(key) is not None}
    effective |= {key: data[0][key] for key in ("revised_prompt",) if data[0].get(key)}
    encoded, url = data[0].get("b64_json"), data[0].get("url")
    if url and not encoded:
        if url.startswith("data:"):
            encoded = url.partition(",")[2]
        else:
            try:
                return Answer(fetch(url), usage, effective)
            except UnusableAnswer as error:
                raise UnusableAnswer(str(error), usage) from None
    if not encoded:
        raise UnusableAnswer("neither b64_json nor url", usage)
    try:
        return Answer(base64.b64decode(encoded, validate=True), usage, effective)
    except (binascii.Error, ValueError) as error:
        raise UnusableAnswer(f"base64 that does not decode ({error})", usage, str(encoded).encode()) from None


def fetch_url(url: str, tries: int = 4, timeout_seconds: float = 120.0) -> bytes:
    """Download a picture that was answered by URL (already paid for, so tried several times). Raises UnusableAnswer."""
    import urllib.request

    if not url.startswith(("http://", "https://")):
        raise UnusableAnswer("a url that is not http")
    for attempt in range(tries):
        try:
            with urllib.request.urlopen(url, timeout=timeout_seconds) as response:
                return response.read()
        except (OSError, http.client.HTTPException) as error:
            if attempt == tries - 1:
                raise UnusableAnswer(f"its url could not be fetched ({error})") from None
            time.sleep(0.5 * 2**attempt)
    raise AssertionError("unreachable")


def rehearse(asked: Service, run: runs.Run) -> Service:
    """In a rehearsal the same service at the address of the stand-in, which is started here and lives as long as this process."""
    if asked.provider != "rehearsal" or run.finished:
        return asked
    from helpers.rehearsal.image_api import ImageServer

    run.pretends("image API")
    return replace(asked, base_url=ImageServer().__enter__().url)
