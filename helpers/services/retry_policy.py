"""What to do when a request fails, in one place: the client itself never retries.

| what came back                                            | what is done
|
|-----------------------------------------------------------|------------------------------------------------|
| 429 rate limit                                            | wait as Retry-After says, or longer
each time  |
| 408, 409, 5xx, no connection, hung up before an answer    | try again, a bounded number of
times
|
| answer cut off, timed out (504 too), empty, not an image  | billed perhaps: ask again, bounded
and
counted |
| 429 with nothing left to spend                            | stop the run with what there is
|
| moderation refusal                                        | record it, never again
|
| any other 4xx                                             | stop: it would fail for every image
|
"""

import math
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

QUOTA_CODES = {
    "insufficient_quota",
    "billing_not_active",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "billing_hard_limit_reached",
}
REFUSED_CODES = {
    "moderation_blocked",
    "content_policy_violation",
    "content_filter",
    "contentfilter",
    "responsibleaipolicyviolation",
}
PASSING_STATUS = {408, 409, 425}
# A gateway's patience ended while the service behind it went on working, and billing.
GATEWAY_TIMEOUT_STATUS = {504, 524}
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0


@dataclass(frozen=True)
class Verdict:
    """What a failure means: action is throttled, retry, again (perhaps billed), refused or stop."""

    action: str
    message: str
    retry_after: float = 0.0
    status: int = 0


def judge_status(status: int, body, headers) -> Verdict:
    """The verdict on an answer with an error status; `body` is its decoded JSON or text."""
    code, kind, message = describe(body)
    text = " ".join(str(part) for part in (status, code or kind, message) if part)
    names = {code.lower(), kind.lower()}
    if names & REFUSED_CODES:
        return Verdict("refused", text, status=status)
    if names & QUOTA_CODES:
        return Verdict("stop", f"nothing is left to spend ({text})", status=status)
    if status == 429:
        return Verdict("throttled", text, retry_after_seconds(headers), status=status)
    if status in GATEWAY_TIMEOUT_STATUS:
        return Verdict(
            "again", f"{text}; may have been billed", retry_after_seconds(headers), status=status
        )
    if status >= 500 or status in PASSING_STATUS:
        return Verdict("retry", text, retry_after_seconds(headers), status=status)
    return Verdict("stop", text, status=status)


def describe(body) -> tuple[str, str, str]:
    """Code, type and message of an error body:

    OpenAI's {"error": {…}}, {"detail": …} of local servers, or plain text.
    """
    if isinstance(body, dict):
        error = body.get("error") or body.get("detail") or body
        if isinstance(error, list) and error:
            error = error[0]
        if isinstance(error, dict):
            inner = error.get("inner_error") or error.get("innererror") or {}
            code = str(error.get("code") or inner.get("code") or "")
            return (
                code,
                str(error.get("type") or ""),
                str(error.get("message") or error.get("msg") or error)[:500],
            )
        return "", "", str(error)[:500]
    return "", "", str(body or "")[:200]


def retry_after_seconds(headers) -> float:
    """Seconds that the service asks to wait (Retry-After in seconds or as a date, or
    retry-after-ms), 0 when it says nothing.
    """
    milliseconds, value = _number(headers.get("retry-after-ms")), headers.get("retry-after")
    if milliseconds:
        return milliseconds / 1000
    seconds = _number(value)
    return seconds if seconds is not None else _seconds_until(value, headers.get("date"))


def _number(value: str | None) -> float | None:
    try:
        return max(0.0, float(value)) if math.isfinite(float(value)) else None
    except (TypeError, ValueError):
        return None


def _seconds_until(moment: str | None, now: str | None) -> float:
    """Seconds from `now`, the service's own clock where it says it, to `moment`; 0 for what is no
    date.
    """
    try:
        until = parsedate_to_datetime(moment)
    except (TypeError, ValueError):
        return 0.0  # an unreadable Retry-After says nothing; the own back-off applies
    try:
        return max(0.0, (until - parsedate_to_datetime(now)).total_seconds())
    except (TypeError, ValueError):
        return max(0.0, until.timestamp() - time.time())


def wait_seconds(failures: int, retry_after: float, chance: random.Random) -> float:
    """How long to wait before the next try: what the service asks plus jitter, else doubling with
    full jitter.
    """
    if retry_after:
        return retry_after + chance.uniform(0, 0.1 * retry_after + 0.2)
    return min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**failures) * chance.uniform(0.5, 1.0)


class InFlight:
    """How many requests may be under way: at most `most`, down to what the service has just
    accepted on a 429, then up by one for every round of answers (additive increase as in TCP;
    Jacobson, SIGCOMM 1988).
    """

    def __init__(self, most: int):
        self.most = self.allowed = most
        self._answers = 0

    def throttled(self, under_way: int) -> None:
        """A 429 came while `under_way` other requests were being worked on: so many are allowed."""
        self.allowed = max(1, min(self.allowed, under_way))
        self._answers = 0

    def answered(self) -> None:
        """A request was worked on."""
        self._answers += 1
        if self._answers >= self.allowed and self.allowed < self.most:
            self.allowed, self._answers = self.allowed + 1, 0
