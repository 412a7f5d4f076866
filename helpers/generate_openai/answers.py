"""What came back from an image service: the image in it, however it was put there."""

import base64
import binascii
import json
import time
from dataclasses import dataclass
from urllib.parse import urljoin

import httpx2

from helpers.services import retry_policy


@dataclass(frozen=True)
class Answer:
    """One image as the service sent it, with what it said about it."""

    content: bytes
    usage: dict | None
    effective: dict


class UnusableAnswer(ValueError):
    """A successful answer without a usable image; `usage` and `content` are what came instead."""

    def __init__(self, message: str, usage: dict | None = None, content: bytes = b""):
        super().__init__(message)
        self.usage, self.content = usage, content


def decoded(content: bytes):
    """The JSON of an answer. Raises UnusableAnswer with the bytes that came instead."""
    try:
        return json.loads(content)
    except ValueError:
        raise UnusableAnswer("the answer is not JSON", None, content) from None


def read_answer(body, fetch) -> Answer:
    """The image of an images response: base64, or a URL that `fetch` gets.

    Raises UnusableAnswer.
    """
    if not isinstance(body, dict):
        raise UnusableAnswer("the answer is not a JSON object")
    usage = body.get("usage") if isinstance(body.get("usage"), dict) else None
    data = body.get("data")
    if not isinstance(data, list) or not data or not isinstance(data[0], dict):
        said = retry_policy.describe(body)[2] if {"error", "detail"} & set(body) else ""
        raise UnusableAnswer(f"empty data{': ' + said if said else ''}", usage)
    effective = {
        key: body[key]
        for key in ("created", "size", "quality", "background", "output_format")
        if body.get(key) is not None
    }
    effective |= {key: data[0][key] for key in ("revised_prompt",) if data[0].get(key)}
    encoded, url = data[0].get("b64_json"), data[0].get("url")
    if not encoded and isinstance(url, str) and url.startswith("data:"):
        encoded = url
    try:
        content = _decoded(encoded) if encoded else fetch(url) if url else b""
    except UnusableAnswer as error:
        raise UnusableAnswer(str(error), usage, error.content) from None
    if not content:
        raise UnusableAnswer("neither b64_json nor url", usage)
    return Answer(content, usage, effective)


def _decoded(encoded) -> bytes:
    """The bytes of base64 text; some servers break it into lines or begin it as a data URL, and it
    is paid for.
    """
    try:
        text = encoded.partition(",")[2] if encoded.startswith("data:") else encoded
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError, AttributeError) as error:
        raise UnusableAnswer(
            f"base64 that does not decode ({error})", None, str(encoded).encode()
        ) from None


def fetch_url(
    url, base_url: str = "", tries: int = 4, timeout_seconds: float = 120.0, trust_env: bool = True
) -> bytes:
    """Download an image that was answered by URL, whole or relative to `base_url` (already paid
    for, so tried several times).

    Raises UnusableAnswer.
    """
    whole = urljoin(base_url, str(url))
    if not whole.startswith(("http://", "https://")):
        raise UnusableAnswer("a url that is not http")
    for attempt in range(tries):
        try:
            response = httpx2.get(
                whole, follow_redirects=True, timeout=timeout_seconds, trust_env=trust_env
            )
            return response.raise_for_status().content
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            if attempt == tries - 1:
                said = f"{type(error).__name__}: {error}".splitlines()[0].strip(": ")
                raise UnusableAnswer(f"its url could not be fetched ({said})") from None
            time.sleep(0.5 * 2**attempt)
    raise AssertionError("unreachable")
