"""A service that is paid per request: its address, its key, one request, and its errors.

The callers decide what an answer means (generate_openai/, ask_models/); sending.py sends many
requests, retry_policy.py says what failures mean.
"""

import contextlib
import json
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import date
from urllib.parse import urlsplit

import httpx2
import openai
import pandas as pd

from helpers.loopback import on_loopback
from helpers.runner import folders, parameters, runs
from helpers.services import prices, retry_policy, secrets

NEVER_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
OPENAI_ADDRESS = "https://api.openai.com/v1"
MOST_BYTES = 1 << 28  # of one answer: a small compressed one may unpack to more than the memory
MOST_ERROR_BYTES = 1 << 18  # as sent, of an error's body: the client reads it whole


class ServiceError(runs.RunError):
    """A stage cannot begin or continue; the message says what is on disk and what to do."""


@dataclass(frozen=True)
class Connection:
    """The service that the parameters of a run describe."""

    parameters: parameters.Record
    base_url: str
    extra_body: dict
    price: prices.Price
    credential: str = field(repr=False)

    @property
    def azure_deployment(self) -> bool:
        """Whether this is Azure's older address, where the deployment is part of the path."""
        return self.parameters.provider == "azure" and not self.base_url.endswith("/v1")

    def client(self, retries: int = 0) -> openai.AsyncOpenAI:
        """The asynchronous client. Its `retries` are only for requests that cost nothing: a
        timed-out image would be paid for twice.
        """
        # A redirect would carry images, or Azure's key, to an address that nobody has named.
        follows = bool(retries) and self.parameters.provider != "azure"
        http = openai.DefaultAsyncHttpxClient(
            trust_env=not self.loopback,
            follow_redirects=follows,
            event_hooks={"response": [_shorten_error]},
        )
        common = {
            "api_key": self.credential or "none",
            "max_retries": retries,
            "timeout": self.parameters.timeout_seconds,
            "http_client": http,
        }
        if self.azure_deployment:
            return openai.AsyncAzureOpenAI(
                azure_endpoint=self.base_url, api_version=self.parameters.api_version, **common
            )
        if self.parameters.provider == "azure":
            common["default_headers"] = {"api-key": self.credential}
        client = openai.AsyncOpenAI(base_url=self.base_url or OPENAI_ADDRESS, **common)
        if self.parameters.provider != "openai":
            # OPENAI_ORG_ID and OPENAI_PROJECT_ID in the environment are for OpenAI only.
            client.organization = client.project = None
        return client

    @property
    def loopback(self) -> bool:
        """Whether the service is on this machine: an environment proxy cannot reach it."""
        return on_loopback(self.base_url)


class _Beginning(httpx2.AsyncByteStream):
    """The first MOST_ERROR_BYTES of a stream."""

    def __init__(self, whole: httpx2.AsyncByteStream):
        self.whole = whole

    async def __aiter__(self):
        left = MOST_ERROR_BYTES
        async for piece in self.whole:
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                return

    async def aclose(self):
        await self.whole.aclose()


async def _shorten_error(response: httpx2.Response) -> None:
    if not response.is_success:
        response.stream = _Beginning(response.stream)


def extra_body(settings, own: Collection[str], said: str) -> dict:
    """The further fields that a study sends to its own server. Raises ServiceError for anything but
    a JSON object, and for one of the `own` fields of a request; `said` names where those are set.
    """
    example = 'extra_body must be a JSON object such as {"steps": 30}'
    try:
        extra = json.loads(settings.extra_body or "{}")
    except json.JSONDecodeError as error:
        raise ServiceError(f"{example}: {error}.") from None
    if not isinstance(extra, dict):
        raise ServiceError(f"{example}.")
    taken = {*own} & {*map(str.lower, extra), settings.get("seed_field", "").lower()}
    if taken:
        raise ServiceError(
            f"extra_body and seed_field may not set {', '.join(sorted(taken))}: {said}."
        )
    return extra


def address(settings) -> str:
    """Where requests go, '' for OpenAI's own address; the API's /v1 is added to a bare host.

    Raises ServiceError.
    """
    base_url = settings.base_url
    if settings.provider == "openai":
        # As the client itself does: whoever sets this variable means this address, and the key
        # belongs to it.
        base_url = base_url or os.environ.get("OPENAI_BASE_URL", "")
    base_url = base_url.strip().rstrip("/")
    if base_url and not _is_address(base_url):
        raise ServiceError(
            "base_url must be an address that begins with http:// or https://, as in"
            f" http://127.0.0.1:8000/v1; it is '{secrets.clean(base_url)}'."
        )
    if secrets.clean(base_url, secrets.LONG) != base_url:
        raise ServiceError(
            "base_url must be an address alone, without user, password, key or query: put a key"
            " into the environment and Azure's api-version into api_version."
        )
    if settings.provider == "azure":
        base_url = base_url.partition("/openai/deployments")[0]
        if not base_url or not (settings.api_version or base_url.endswith("/v1")):
            raise ServiceError(
                "Azure needs the deployment's name as model and base_url: either"
                " https://NAME.openai.azure.com/openai/v1, or https://NAME.openai.azure.com with"
                " api_version."
            )
        return base_url.removesuffix("/openai")
    if settings.provider == "local" and not base_url:
        raise ServiceError(
            "provider local needs base_url, the address of your server, such as"
            " http://127.0.0.1:8000/v1."
        )
    return base_url + "/v1" if base_url and not urlsplit(base_url).path else base_url


def place(run: runs.Run, simulated: str, stand_in: type) -> tuple[str, str]:
    """The address and the key of a run's service. The rehearsal's stand-in starts here and lives as
    long as this process; a finished run sends nothing and needs neither.

    Raises ServiceError.
    """
    base_url = address(run.parameters)
    if run.finished:
        return base_url, ""
    if run.parameters.provider == "rehearsal" and not base_url:
        run.mark_simulated(simulated)
        base_url = stand_in().__enter__().url
    return base_url, credential(run)


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        # Reading the port raises ValueError for one that cannot be.
        proper = text.startswith(("http://", "https://")) and parts.port != 0
    except ValueError:
        return False
    return proper and bool(parts.hostname) and not any(map(str.isspace, text))


def credential(run: runs.Run) -> str:
    """The key from the environment or .keys/<study>/. Your own server needs no key.

    Raises ServiceError without one, and for a text that cannot be sent as one.
    """
    provider = run.parameters.provider
    name = "AZURE_OPENAI_API_KEY" if provider == "azure" else "OPENAI_API_KEY"
    if provider == "rehearsal":
        return "rehearsal"
    found = secrets.find(name, run.study)
    if not found and provider != "local":
        raise ServiceError(
            f"No key for provider {provider}: set the environment variable {name} or put the key"
            f" into {folders.keys_folder(run.study) / name}. For your own server set provider:"
            " local and base_url; provider: rehearsal needs neither key nor address."
        )
    if not (found.isascii() and found.isprintable()):
        raise ServiceError(
            f"The key in {name} has several lines, or quotation marks or letters that no key has:"
            " copy it again."
        )
    return found


async def preflight(service: Connection, named: Collection[str], does: str) -> str:
    """Ask GET /v1/models whether the model exists and will exist until the study's last day;
    returns the answer as a sentence. `named` (parts of a suitable model's name) and `does` (what
    such a model does) are for the error message.

    Raises ServiceError when the model is missing, shuts down too early, or the key is refused. Some
    services list no models, or only some: then the sentence says so and the stage continues.
    """
    model, needed = service.parameters.model, service.parameters.get("needed_until", "")
    last = _day(needed or date.today())
    if last is None:
        raise ServiceError(f"needed_until must be a day such as 2027-06-30, not '{needed}'.")
    if service.azure_deployment:
        return "Azure lists no deployments by name: not checked beforehand."
    where = f" at {secrets.clean(service.base_url)}" if service.base_url else ""
    listed = await _listed_models(service)
    if listed is None:
        return f"The server{where} does not list its models: not checked beforehand."
    # Gateways list imagen-4 as models/imagen-4, gpt-image-2 as openai/gpt-image-2, or either way.
    ends = {name.rsplit("/", 1)[-1]: said for name, said in listed.items()} | listed
    said = ends.get(model, ends.get(model.rsplit("/", 1)[-1], "missing"))
    if said == "missing":
        if service.parameters.provider != "openai":
            return f"The server's list does not name {model}; it is requested anyway."
        near = [name for name in sorted(listed) if any(part in name for part in named)]
        raise ServiceError(
            f"Model '{model}' is not offered{where} (retired or misspelt): set model to one that"
            f" {does} ({', '.join(near) or 'none is listed'}), or provider to local for a server"
            " that does not list its models."
        )
    end = _day(said) if said else None
    if not end:
        announced = (
            f"; its end date is announced as '{said}', which is not a date: check it yourself"
        )
        return f"{model} is offered{where}{announced if said else ', no end announced'}."
    if end <= last:
        raise ServiceError(
            f"Model '{model}' shuts down on {end}, but the study needs it until {last}: choose"
            " a model that is offered for longer."
        )
    return f"{model} is offered{where} until {end}."


async def _listed_models(service: Connection) -> dict | None:
    """Models by id with their shutdown date as the server states it; None if the server has no such
    list or does not show it.
    """
    content = bytearray()

    async def look(client) -> None:
        async with client.models.with_streaming_response.list() as response:
            await _take(response, content)

    try:
        async with service.client(retries=2) as client:
            await call(look(client), "list its models")
        models = json.loads(content)["data"]
        return {str(model["id"]): model.get("shutdown_date") for model in models} or None
    except Failed as error:
        # A key may be allowed to make images but not to list models.
        if error.verdict.status != 401:
            return None
        raise ServiceError(f"The service refuses to list its models: {error}.") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _day(said) -> date | None:
    """A date, ISO 8601 with or without a time, or seconds (or milliseconds) since 1970; None for no
    date.
    """
    number = pd.to_numeric(said, errors="coerce") if isinstance(said, str | int | float) else None
    if number is None or pd.isna(number):
        day = pd.to_datetime(str(said)[:10], format="%Y-%m-%d", errors="coerce")
    else:
        day = pd.to_datetime(number, unit="ms" if number > 1e11 else "s", errors="coerce")
    return None if pd.isna(day) else day.date()


class Failed(Exception):
    """A request without a usable answer, judged; `billed` says that it may have been billed."""

    def __init__(self, verdict: retry_policy.Verdict, billed: bool = False):
        super().__init__(verdict.message)
        self.verdict, self.billed = verdict, billed


class Unusable(ValueError):
    """A successful answer with no usable content: `action` is unusable, empty or refused; `usage`
    is what the service counted.
    """

    def __init__(self, message: str, action: str = "unusable", usage: dict | None = None):
        super().__init__(secrets.clean(message))
        self.action, self.usage = action, usage


def nothing_in(body: dict, what: str, usage: dict | None = None) -> Unusable:
    """The error for an answer that lacks `what`: refused, or empty."""
    if retry_policy.is_refusal({key: body[key] for key in body if key != "usage"}):
        return Unusable(f"refused: {retry_policy.describe(body)}", "refused", usage)
    said = f": {retry_policy.describe(body)}" if {"error", "detail"} & body.keys() else ""
    return Unusable(f"{what}{said}", "empty", usage)


def events(content: bytes) -> list[dict]:
    """The JSON objects of an event stream (server-sent events), as which some servers answer
    although no stream was asked for; [] for anything else.
    """
    found = []
    for line in content.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            found.append(json.loads(line[5:]) if line.startswith(b"data:") else None)
    return [event for event in found if isinstance(event, dict)]


def decoded(content: bytes, streamed: list[dict] | None = None):
    """The JSON value of an answer, or the fields of all its events (`streamed` where they are read
    already). Raises ValueError.
    """
    if streamed := events(content) if streamed is None else streamed:
        return {key: said for event in streamed for key, said in event.items() if said}
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def _is_whole(content: bytes) -> bool:
    """Whether nothing of an answer is missing although its connection ended early."""
    if streamed := events(content):
        last = str(streamed[-1].get("type"))
        return last.endswith(".completed") or content.rstrip().endswith(b"[DONE]")
    with contextlib.suppress(ValueError):
        return bool(decoded(content, []))
    return False


async def call(sent, what: str):
    """The result of a request that costs nothing to repeat. Raises Failed for an error answer,
    ServiceError if there is no connection.
    """
    try:
        return await sent
    except openai.APIStatusError as error:
        raise _failed(error) from None
    except (openai.APIConnectionError, httpx2.HTTPError) as error:
        why = secrets.clean(str(error.__cause__ or error))
        raise ServiceError(
            f"The service could not {what}: {why}. Check the address and the network connection."
        ) from None


def _failed(error: openai.APIStatusError) -> Failed:
    """An error answer, judged from its whole body: the client shows only what is inside "error"."""
    try:
        body = json.loads(error.response.content)
    except (ValueError, RecursionError, openai.OpenAIError):
        body = error.body or str(error)
    verdict = retry_policy.judge_status(error.status_code, body, error.response.headers)
    return Failed(verdict, billed=verdict.action == "again")


async def ask(
    create: Callable, body: dict, own: Collection[str], request_id: str
) -> tuple[bytes, dict]:
    """Send one request; returns the answer's bytes and headers. Raises Failed.

    `create` is the client's streaming method; fields of `body` that are not its `own` are sent
    unchanged. `request_id` is sent as X-Client-Request-Id, which the provider keeps in its logs.
    """
    extra = {key: value for key, value in body.items() if key not in own}
    content, headers = bytearray(), None
    try:
        async with create(
            **{key: value for key, value in body.items() if key in own},
            extra_body=extra or None,
            extra_headers={"X-Client-Request-Id": request_id},
        ) as response:
            headers = dict(response.headers)
            await _take(response, content)
    except openai.APIStatusError as error:
        raise _failed(error) from None
    except (openai.APIConnectionError, httpx2.HTTPError) as error:
        if not _is_whole(content):  # what is whole is paid for and kept
            raise _disconnected(error.__cause__ or error, headers is not None) from None
    with contextlib.suppress(ValueError):
        if verdict := retry_policy.judge_success(decoded(content), headers):
            raise Failed(verdict, billed=verdict.action == "again")
    return bytes(content), headers


async def _take(response, content: bytearray) -> None:
    """Append an answer to `content` as it comes. Raises Failed if it is too large."""
    async for piece in response.iter_bytes():
        content += piece
        if len(content) > MOST_BYTES:
            said = f"the answer is larger than {MOST_BYTES >> 20} MB; may have been billed"
            raise Failed(retry_policy.Verdict("again", said), billed=True)


def _disconnected(cause: BaseException, within: bool) -> Failed:
    """There is no complete answer. A request that was never sent is free. Anything else may have
    been billed: an answer that was cut off, a timeout, or a connection that ended before an answer.
    """
    said = secrets.clean(f"{type(cause).__name__}: {cause}".strip(": "))
    if isinstance(cause, NEVER_SENT):
        return Failed(retry_policy.Verdict("retry", f"no connection ({said})"))
    lost = within or isinstance(cause, httpx2.ReadTimeout)
    text = (
        f"the answer was lost ({said})"
        if lost
        else f"the connection ended before an answer ({said})"
    )
    verdict = retry_policy.Verdict("again" if lost else "retry", f"{text}; may have been billed")
    return Failed(verdict, billed=True)
