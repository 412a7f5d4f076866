"""What to do when a request fails, in one place: the client itself never retries.

- 429, a rate limit: wait as Retry-After or x-ratelimit-reset-… say, or longer each time (throttled)
- 408, 409, 5xx, no connection, closed before an answer: a bounded number of tries (retry)
- an answer cut off, timed out (504 too), or unusable: perhaps billed; ask again, counted (again)
- a refusal by a safety system, whatever its status and words: recorded, never sent again (refused)
- any other 4xx: this request is set aside; several that fail alike stop the run (rejected)
- nothing left to spend, a wrong key, an unknown model: stop and keep what came so far (stop)
"""

import contextlib
import json
import math
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from helpers.services import secrets

# Advice for a stop, by the code that the service gives.
REMEDIES = {
    "The account has no credit left: add credit, or raise the limit.": {
        "402",
        "insufficient_quota",
        "billing_not_active",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "billing_hard_limit_reached",
    },
    "Check the key, and that it belongs to this address.": {"invalid_api_key", "401", "407"},
    "Choose a model that is offered there.": {"model_not_found", "deploymentnotfound"},
}
PASSING_STATUS = {408, 409, 425}
# The gateway gave up while the service behind it continued to work, and to bill.
GATEWAY_TIMEOUT_STATUS = {504, 524}
REFUSAL = re.compile(
    r"safety|polic(y|ies)|content[ _-]?(filter|moderat)|moderat(ed|ion|or)|flagged|nsfw|unsafe"
    r"|responsible[ _-]?ai|prohibited|inappropriate|harmful|guidelines|data_?inspection|敏感|违规",
    re.IGNORECASE,
)
# The same words used about an account, a request field or a service that is down.
NO_REFUSAL = re.compile(
    r"\b(organi[sz]ation|network|access|account|project|subscription|tenant|key|ip|retention|rate"
    r"|billing)\b[^.]{0,30}(polic|flagged|prohibited)"
    r"|(unknown|unsupported|unrecogni[sz]ed|unexpected|invalid|not support\w*|not permitted)\b"
    r"[^.]{0,20}(parameter|argument|field|value|option|propert)"
    r"|unavailable|temporar|timed? ?out|overloaded|rate limit|too many requests|quota",
    re.IGNORECASE,
)
LIMITED = re.compile(r"rate[ _-]?limit|too many requests|resource[ _]?exhausted|throttl", re.I)
# A page of a proxy or gateway: whatever it says, no safety system has seen the prompt.
PAGE = re.compile(r"<(?:!doctype|html|head)\b", re.IGNORECASE)
TAG = re.compile(r"<(style|script)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)
FLAGS = re.compile(r"flagged|filtered|nsfw|blocked|refus|unsafe|violat", re.IGNORECASE)
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0


@dataclass(frozen=True)
class Verdict:
    """The outcome of a request: action is done, throttled, retry, again (perhaps billed), unusable
    or empty (billed), rejected, refused or stop; `remedy` is what a person can do.
    """

    action: str
    message: str = ""
    retry_after: float = 0.0
    status: int = 0
    remedy: str = ""


def judge_status(status: int, body, headers) -> Verdict:
    """The verdict on an answer with an error status; `body` is its decoded JSON or text."""
    text = " ".join(part for part in (str(status), describe(body)) if part)
    names = {str(status)} | {said.lower() for key, said in _leaves(body) if key in ("code", "type")}
    for remedy, codes in REMEDIES.items():
        if names & codes:
            return Verdict("stop", text, status=status, remedy=remedy)
    wait = retry_after_seconds(headers)
    if is_refusal(body):
        return Verdict("refused", text, status=status)
    if status == 429:
        return Verdict("throttled", text, wait or _reset_seconds(headers), status)
    if status in GATEWAY_TIMEOUT_STATUS:
        return Verdict("again", f"{text}; may have been billed", wait, status)
    passing = status >= 500 or status in PASSING_STATUS
    return Verdict("retry" if passing else "rejected", text, wait, status)


def judge_success(body, headers) -> Verdict | None:
    """The verdict on an answer with a success status that holds an error instead of content: a
    limit, no credit, a status of its own. None for content, a refusal, or other words: those may
    be billed, and the stages judge them.
    """
    content = ("data", "choices", "usage", "b64_json", "url")
    if not isinstance(body, dict) or any(body.get(key) for key in content):
        return None
    leaves = [*_leaves(body)]
    codes = [said for key, said in leaves if key in ("code", "status", "status_code")]
    own = next((int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)), 200)
    status = 429 if any(LIMITED.search(said) for _, said in leaves) else own
    verdict = judge_status(status, body, headers)
    judged = verdict.action == "stop" or (status != 200 and verdict.action != "refused")
    return verdict if judged else None


def is_refusal(body) -> bool:
    """Whether an answer says that a safety system refused the prompt or its image: by code, type,
    words or a flag anywhere in it.
    """
    leaves = [(key, said) for key, said in _leaves(body) if not PAGE.search(said)]
    codes = [said for key, said in leaves if key in ("code", "type") and not said.isdigit()]
    if any(REFUSAL.search(code) and not NO_REFUSAL.search(code) for code in codes):
        return True
    about = dict(reversed(leaves)).get("param", "None")
    if about not in ("", "None", "prompt") or any(NO_REFUSAL.search(said) for _, said in leaves):
        return False
    if set(codes) - {"None", ""} == {"image_generation_user_error"}:
        return True
    return any(
        REFUSAL.search(said) or (said == "True" and FLAGS.search(key))
        for key, said in leaves
        if key not in ("prompt", "revised_prompt", "input")
    )


def describe(body) -> str:
    """Code (else type) and message of an error body, in one line without keys: OpenAI's {"error":
    {…}}, {"detail": …} of local servers, a wrapper around either, or plain text.
    """
    leaves = [(key, said) for key, said in _leaves(body) if said not in ("None", "")]
    found = dict(reversed(leaves))
    code = next((found[key] for key in ("code", "type") if not found.get(key, "0").isdigit()), "")
    names = ("message", "msg", "detail", "error", "title", "reason", "")
    said = next((found[key] for key in names if key in found), str(body or ""))
    said = TAG.sub(" ", said) if PAGE.search(said) else said
    return " ".join(secrets.clean(f"{code} {said}").split())[:500]


def _leaves(body, key: str = "") -> Iterator[tuple[str, str]]:
    """Every value in a decoded answer as text with the key it stands under, the outer ones first;
    JSON in a text is opened.
    """
    level = [(key, body)]
    while level:
        deeper = []
        for name, value in level:
            if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
                with contextlib.suppress(ValueError, RecursionError):
                    value = json.loads(value)
            if isinstance(value, dict):
                deeper += [(str(inner), part) for inner, part in value.items()]
            elif isinstance(value, list):
                deeper += [(name, part) for part in value]
            else:
                yield name, str(value)
        level = deeper


def retry_after_seconds(headers) -> float:
    """Seconds that the service asks to wait (Retry-After in seconds or as a date, or
    retry-after-ms), 0 when it says nothing.
    """
    milliseconds, value = _number(headers.get("retry-after-ms")), headers.get("retry-after")
    if milliseconds:
        return milliseconds / 1000
    seconds, until = _number(value), _date(value)
    return max(0.0, until - _now(headers)) if seconds is None and until else seconds or 0.0


def _reset_seconds(headers) -> float:
    """Seconds until used-up limits are renewed: x-ratelimit-reset-requests, -tokens and similar
    headers, in seconds, as 6m0s or 250ms, or as a time since 1970.
    """
    waits = []
    for name in headers:
        limit = re.fullmatch(r"(?:x-)?ratelimit-reset(-\w+)?", name.lower())
        left = limit and headers.get(f"x-ratelimit-remaining{limit[1] or ''}")
        if limit and (left is None or _number(left) == 0):
            waits.append(_duration(headers[name].strip(), _now(headers)))
    return max(waits, default=0.0)


def _duration(text: str, now: float) -> float:
    seconds = _number(text)
    if seconds is not None:
        seconds = seconds / 1000 if seconds > 1e11 else seconds
        return max(0.0, seconds - now) if seconds > 1e9 else seconds
    parts = re.findall(r"([\d.]+)(ms|[dhms])", text)
    unit = {"d": 86_400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}
    return sum((_number(number) or 0.0) * unit[name] for number, name in parts)


def _number(value: str | None) -> float | None:
    try:
        return max(0.0, float(value)) if math.isfinite(float(value)) else None
    except (TypeError, ValueError):
        return None


def _now(headers) -> float:
    """Seconds since 1970 by the service's own clock if it states it, else by this machine's."""
    return _date(headers.get("date")) or time.time()


def _date(text: str | None) -> float | None:
    """The moment that a header names, in seconds since 1970, in UTC where it names no zone; None if
    it is not a date.
    """
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def wait_seconds(failures: int, retry_after: float, chance: random.Random) -> float:
    """Seconds to wait before the next try: what the service asks plus jitter, else doubling with
    full jitter.
    """
    if retry_after:
        return retry_after + chance.uniform(0, 0.1 * retry_after + 0.2)
    return min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**failures) * chance.uniform(0.5, 1.0)


class InFlight:
    """How many requests may run in parallel: at most `most`. A 429 lowers the number to what the
    service has just accepted; each round of answers raises it by one (additive increase as in TCP;
    Jacobson, SIGCOMM 1988).
    """

    def __init__(self, most: int):
        self.most = self.allowed = max(1, most)  # with 0 nothing would ever be sent
        self._answers = 0

    def throttled(self, under_way: int) -> None:
        """A 429 came while `under_way` other requests were in progress: allow that many."""
        self.allowed = max(1, min(self.allowed, under_way))
        self._answers = 0

    def answered(self) -> None:
        """A request was answered: allow more."""
        self._answers += 1
        if self._answers >= self.allowed and self.allowed < self.most:
            self.allowed, self._answers = self.allowed + 1, 0
