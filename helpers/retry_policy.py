"""What to do when a request fails, in one place: the client itself never retries.

| what came back                                            | what is done                                   |
|-----------------------------------------------------------|------------------------------------------------|
| 429 rate limit                                            | wait as Retry-After says, or longer each time  |
| 408, 409, 5xx, no connection, hung up before an answer    | try again, a bounded number of times           |
| answer cut off, timed out, empty, not an image            | billed perhaps: ask again, bounded and counted |
| 429 with nothing left to spend                            | stop the run with what there is                |
| moderation refusal                                        | record it, never again                         |
| any other 4xx                                             | stop: it would fail for every image            |
"""

import random
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

QUOTA_TYPES = {"insufficient_quota"}
QUOTA_CODES = {
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "billing_hard_limit_reached",
}
REFUSED_CODES = {"moderation_blocked", "content_policy_violation", "content_filter", "contentfilter", "responsibleaipolicyviolation"}
PASSING_STATUS = {408, 409, 425}
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
    if code.lower() in REFUSED_CODES or kind.lower() in REFUSED_CODES:
        return Verdict("refused", text, status=status)
    if code in QUOTA_CODES or kind in QUOTA_TYPES:
        return Verdict("stop", f"nothing is left to spend ({text})", status=status)
    if status == 429:
        return Verdict("throttled", text, retry_after_seconds(headers), status=status)
    if status >= 500 or status in PASSING_STATUS:
        return Verdict("retry", text, retry_after_seconds(headers), status=status)
    return Verdict("stop", text, status=status)


def describe(body) -> tuple[str, str, str]:
    """Code, type and message of an error body: OpenAI's {"error": {…}}, {"detail": …} of local servers, or plain text."""
    if isinstance(body, dict):
        error = body.get("error", body.get("detail", body))
        if isinstance(error, list) and error:
            error = error[0]
        if isinstance(error, dict):
            inner = error.get("inner_error") or error.get("innererror") or {}
            code = str(error.get("code") or inner.get("code") or "")
            return code, str(error.get("type") or ""), str(error.get("message") or error.get("msg") or error)[:500]
        return "", "", str(error)[:500]
    return "", "", str(body or "")[:200]


def retry_after_seconds(headers) -> float:
    """Seconds that the service asks to wait (Retry-After in seconds or as a date, or retry-after-ms), 0 when it says nothing."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after")
    if milliseconds and milliseconds.replace(".", "", 1).isdigit():
        return float(milliseconds) / 1000
    if not value:
        return 0.0
    if value.replace(".", "", 1).isdigit():
        return float(value)
    return _seconds_until(value)


def _seconds_until(date: str) -> float:
    from datetime import datetime

    try:
        return max(0.0, (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0  # an unreadable Retry-After says nothing; the own back-off applies


def wait_seconds(failures: int, retry_after: float, chance: random.Random) -> float:
    """How long to wait before the next try: what the service asks plus jitter, else doubling with full jitter."""
    if retry_after:
        return retry_after + chance.uniform(0, 0.1 * retry_after + 0.2)
    return min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**failures) * chance.uniform(0.5, 1.0)


class InFlight:
    """How many requests may be under way: at most `most`, down to what the service has just accepted on a 429, then up by one
    for every round of answers (additive increase as in TCP; Jacobson, SIGCOMM 1988)."""

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
