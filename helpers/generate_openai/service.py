"""Buying images from OpenAI's image API or any server that speaks it: what to ask for, of whom, and
how each request looks.

generating.py sends the requests, openai_batches.py the Batch API's; retry_policy.py, prices.py and
ledger.py say what they do.
"""

import asyncio
import json
import os
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import openai

from helpers.runner import runs
from helpers.services import prices, retry_policy

NEVER_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
OPENAI_ADDRESS = "https://api.openai.com/v1"
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
        """The asynchronous client, with its own retries off: it would pay a timed-out request
        twice.
        """
        http = openai.DefaultAsyncHttpxClient(trust_env=not self.loopback)
        common = {
            "api_key": self.credential,
            "max_retries": 0,
            "timeout": self.timeout_seconds,
            "http_client": http,
        }
        if self.provider == "azure":
            return openai.AsyncAzureOpenAI(
                azure_endpoint=self.base_url, api_version=self.api_version, **common
            )
        client = openai.AsyncOpenAI(base_url=self.base_url or OPENAI_ADDRESS, **common)
        if self.provider != "openai":
            # OPENAI_ORG_ID and OPENAI_PROJECT_ID in the environment are for OpenAI and nobody else.
            client.organization = client.project = None
        return client

    @property
    def loopback(self) -> bool:
        """Whether the service is on this very machine: a proxy of the environment would not find
        it.
        """
        host = urlsplit(self.base_url).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")

    def request(self, order) -> dict:
        """The request's JSON body for one image."""
        body = {"model": self.model, "prompt": order.prompt, "n": 1, "size": self.size}
        if self.shape == "dall-e":
            body["response_format"] = "b64_json"
        elif self.moderation != "auto":
            body["moderation"] = self.moderation
        # The retired models know no low, medium or high; DALL-E 2 knows no quality at all.
        if self.quality != "auto" and (
            self.shape == "gpt-image" or self.quality in ("standard", "hd")
        ):
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

    Raises BuyingError without a key and base_url (not for a finished run, which sends nothing),
    PriceError for a model without a price.
    """
    try:
        extra = json.loads(extra_body or "{}")
    except json.JSONDecodeError as error:
        raise BuyingError(
            f'extra_body must be a JSON object such as {{"steps": 30}}: {error}.'
        ) from None
    if not isinstance(extra, dict):
        raise BuyingError('extra_body must be a JSON object such as {"steps": 30}.')
    base_url = _address(provider, base_url, api_version)
    free = provider == "local" and not (urlsplit(base_url).hostname or "").endswith(
        ("openai.com", "azure.com")
    )
    price = prices.find(
        priced_as or model, size, price_input, price_output, price_image, free, quality
    )
    found = "" if run and run.finished else credential(provider, base_url, run.study if run else "")
    asked = (provider, model, size, quality, base_url, api_version, request_shape, moderation)
    return Service(*asked, extra, seed_field, timeout_seconds, price, found)


def _address(provider: str, base_url: str, api_version: str) -> str:
    """Where requests go, '' for OpenAI's own address; the API's /v1 is added to a bare host.

    Raises BuyingError.
    """
    if provider == "openai":
        # As the client itself does: who set this means this address, and the key beside it belongs
        # to it.
        base_url = base_url or os.environ.get("OPENAI_BASE_URL", "").strip()
    base_url = base_url.strip().rstrip("/")
    if provider == "azure" and not (base_url and api_version):
        raise BuyingError(
            "Azure needs base_url (https://NAME.openai.azure.com) and api_version beside the"
            " deployment's name as model."
        )
    if provider == "local" and not base_url:
        raise BuyingError(
            "provider local needs base_url, the address of your server, such as"
            " http://127.0.0.1:8000/v1."
        )
    if base_url and not base_url.startswith(("http://", "https://")):
        raise BuyingError(
            "base_url must begin with http:// or https://, as in http://127.0.0.1:8000/v1; it is"
            f" '{base_url}'."
        )
    if provider == "azure":
        return base_url.removesuffix("/openai")
    return base_url + "/v1" if base_url and not urlsplit(base_url).path else base_url


def credential(provider: str, base_url: str, study: str = "") -> str:
    """The key from the environment or .keys/<study>/; servers on one's own address need none.

    Raises BuyingError without one.
    """
    name = "AZURE_OPENAI_API_KEY" if provider == "azure" else "OPENAI_API_KEY"
    if provider == "rehearsal":
        return "rehearsal"
    kept = runs.keys_folder(study) / name if study else None
    found = os.environ.get(name, "").strip() or (
        kept.read_text().strip() if kept and kept.is_file() else ""
    )
    if not found and (not base_url or provider == "azure"):
        raise BuyingError(
            f"No key: set the environment variable {name} or put the key into"
            f" {kept or f'.keys/<study>/{name}'}, or name a server of your own in base_url, or set"
            " provider to rehearsal, which needs neither."
        )
    return found or "none"


async def preflight(asked: Service, needed_until: str = "") -> str:
    """Ask GET /v1/models whether the model is there and stays until the study's last day; returns
    what it said, in a sentence.

    Raises BuyingError when the model is missing, shuts down too early, or the key is refused. Azure
    lists no deployments, and an own server may list none: then that is said and buying goes on.
    """
    last = _day(needed_until) if needed_until else date.today()
    if asked.provider == "azure":
        return "Azure lists no deployments by name: not checked beforehand."
    where = f" at {asked.base_url}" if asked.base_url and asked.provider == "openai" else ""
    listed = await _listed_models(asked)
    if listed is None:
        return f"The server{where} has no list of models for us: not checked beforehand."
    if asked.model not in listed:
        if asked.provider == "local":
            return f"The server's list does not name {asked.model}; asking for it all the same."
        near = [name for name in sorted(listed) if "image" in name or "dall" in name]
        raise BuyingError(
            f"Model '{asked.model}' is not offered (retired or misspelt); image models there:"
            f" {', '.join(near) or 'none'}."
        )
    if not listed[asked.model]:
        return f"{asked.model} is offered{where}, no end announced."
    end = _end(listed[asked.model])
    if end is None:
        return (
            f"{asked.model} is offered{where}; its end is announced as '{listed[asked.model]}',"
            " which is no date: see for yourself."
        )
    if end <= last:
        raise BuyingError(
            f"Model '{asked.model}' shuts down on {end}, the study needs it until {last}: choose a"
            " model that stays."
        )
    return f"{asked.model} is offered{where} until {end}."


async def _listed_models(asked: Service) -> dict | None:
    """Models by id with their shutdown date as it was said; None when the server keeps no such list
    or doesn't show it.
    """
    try:
        async with asked.client() as client:
            response = await call(lambda: client.models.with_raw_response.list(), "list its models")
    except Refused as error:
        # A key may be allowed to make images and not to list models.
        if error.verdict.status in (403, 404, 405, 501):
            return None
        raise BuyingError(f"The service refuses to list its models: {error}.") from None
    try:
        return {
            model["id"]: model.get("shutdown_date")
            for model in json.loads(response.content)["data"]
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _end(said) -> date | None:
    """The day of a shutdown date:

    ISO 8601 with or without a time, or seconds (or milliseconds) since 1970; None for no date.
    """
    try:
        seconds = float(said)
    except (TypeError, ValueError):
        try:
            return date.fromisoformat(str(said)[:10])
        except ValueError:
            return None
    try:
        return datetime.fromtimestamp(seconds / 1000 if seconds > 1e11 else seconds, UTC).date()
    except (ValueError, OverflowError, OSError):
        return None


async def call(send, what: str, tries: int = 6):
    """The result of `send()` (a request that costs nothing to repeat); passing failures are tried
    again.

    Raises Refused for what would fail again, BuyingError when no connection or no answer can be
    had.
    """
    for failures in range(tries):
        try:
            return await send()
        except openai.APIStatusError as error:
            verdict = retry_policy.judge_status(
                error.status_code, error_body(error), error.response.headers
            )
            if (
                verdict.action in ("stop", "refused")
                or error.status_code == 501
                or failures == tries - 1
            ):
                raise Refused(verdict) from None
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            verdict = retry_policy.Verdict("retry", str(error.__cause__ or error))
            if failures == tries - 1:
                raise BuyingError(
                    f"The service cannot be asked to {what}: {verdict.message}. Is the address"
                    " right and the network there?"
                ) from None
        await asyncio.sleep(
            retry_policy.wait_seconds(
                failures, min(verdict.retry_after, 60.0), random.Random(failures)
            )
        )
    raise AssertionError("unreachable")


def error_body(error: openai.APIStatusError):
    """The decoded body of an error answer, whole: the client itself hands out only what is inside
    "error".
    """
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
    """No whole answer:

    `when` is unsent (free), unanswered (hung up before an answer) or within (cut off, or timed out
    at work).
    """

    def __init__(self, when: str, cause: BaseException):
        super().__init__(f"{type(cause).__name__}: {cause}".strip(": "))
        self.when = when


async def ask(client: openai.AsyncOpenAI, body: dict, request_id: str) -> tuple[bytes, dict]:
    """Send one request for an image; returns the answer's bytes and headers.

    Raises Refused or Disconnected.

    `request_id` travels along as X-Client-Request-Id, which the provider keeps in its own logs.
    """
    own = {key: value for key, value in body.items() if key in OWN_FIELDS}
    extra = {key: value for key, value in body.items() if key not in OWN_FIELDS}
    content, headers = bytearray(), None
    try:
        async with client.images.with_streaming_response.generate(
            **own, extra_body=extra or None, extra_headers={"X-Client-Request-Id": request_id}
        ) as response:
            headers = dict(response.headers)
            async for piece in response.iter_bytes():
                content += piece
            return bytes(content), headers
    except openai.APIStatusError as error:
        raise Refused(
            retry_policy.judge_status(error.status_code, error_body(error), error.response.headers)
        ) from None
    except (openai.APIConnectionError, httpx2.HTTPError) as error:
        cause = error.__cause__ or error
        if headers is not None and _whole(content):
            return bytes(content), headers
        late = headers is not None or isinstance(cause, httpx2.ReadTimeout)
        raise Disconnected(
            "unsent" if isinstance(cause, NEVER_SENT) else "within" if late else "unanswered", cause
        ) from None


def _whole(content: bytearray) -> bool:
    """Whether an answer that was hung up on had come to its end all the same: it is paid for."""
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


async def download(client: openai.AsyncOpenAI, file_id: str, path: Path) -> None:
    """Bring a file of the service onto the disk, piece by piece."""
    async with client.files.with_streaming_response.content(file_id) as response:
        with path.open("wb") as file:
            async for piece in response.iter_bytes(1 << 20):
                file.write(piece)


def rehearse(asked: Service, run: runs.Run) -> Service:
    """In a rehearsal the same service at the address of the stand-in, which is started here and
    lives as long as this process.
    """
    if asked.provider != "rehearsal" or run.finished:
        return asked
    from helpers.rehearsal.image_api import ImageServer

    run.mark_simulated("image API")
    return replace(asked, base_url=ImageServer().__enter__().url)
