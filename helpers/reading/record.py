"""What a reader's record says and what may come next: pure rules, no database, no network.

A message is {id, event, blind_id, payload, browser_utc}. `clean` makes a message from the browser
safe, `fold` reads a record, `refuse` says what the record does not accept.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import fastjsonschema

from helpers.findings import SIDES
from helpers.reading.schema import ERASED
from helpers.reading.store import Event, Refused
from helpers.runner.parameters import Record as Parameters
from helpers.table_columns import LABELS

CONFIDENCE_STEPS = {"none": 0, "3-step": 3, "6-step": 6}
ROOM_LIGHTS = ("dark", "dimmed", "bright")
DEVICES = ("diagnostic", "desktop", "laptop", "tablet", "phone")
LONGEST_MESSAGE = 16_000
EARLIEST_CLOCK, AHEAD_OF_SERVER = datetime(2000, 1, 1, tzinfo=UTC), timedelta(days=2)
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


@dataclass
class Record:
    """A reader's record as it stands.

    `answers` maps blind_id to the answer that stands, with `changes` and `seconds`.
    """

    order: list[str] = field(default_factory=list)
    consented_utc: str = ""
    registered: dict = field(default_factory=dict)
    display: dict = field(default_factory=dict)
    answers: dict[str, dict] = field(default_factory=dict)
    last_answered: str = ""
    paused: bool = False
    locked_utc: str = ""
    withdrawn_utc: str = ""
    withdrawn_by: str = ""
    erased: bool = False
    head: str = ""
    events: int = 0

    @property
    def current(self) -> str:
        """The first image without an answer; '' when all have one."""
        return next((blind_id for blind_id in self.order if blind_id not in self.answers), "")

    @property
    def phase(self) -> str:
        """Where the reader is: consent, registration, display, read, summary, locked, withdrawn or
        erased.
        """
        ends = {"erased": self.erased, "withdrawn": self.withdrawn_utc, "locked": self.locked_utc}
        steps = {
            "consent": not self.consented_utc,
            "registration": not self.registered,
            "display": not self.display,
            "read": self.current,
        }
        return next((name for name, here in (ends | steps).items() if here), "summary")


def fold(events: Iterable[Event], before: Record | None = None) -> Record:
    """The record that a reader's events, in order, add up to; on top of the record `before` them,
    which stays as it is.
    """
    record = replace(before, answers=dict(before.answers)) if before else Record()
    for event in events:
        payload, at = event.payload or {}, event.server_utc
        record.head, record.events = event.hash, event.sequence
        if event.event in ("answered", "changed"):
            _answer(record, event, payload)
        now = {
            "assigned": {"order": list(payload.get("order", []))},
            "consented": {"consented_utc": at},
            "registered": {"registered": payload},
            "display": {"display": payload},
            "paused": {"paused": True},
            "resumed": {"paused": False},
            "locked": {"locked_utc": at},
            "withdrawn": {"withdrawn_utc": at, "withdrawn_by": payload.get("by", "reader")},
            ERASED: {"erased": True},
        }
        vars(record).update(now.get(event.event, {}))
    return record


def _answer(record: Record, event: Event, payload: dict) -> None:
    before = record.answers.get(event.blind_id, {})
    # The time to the first answer is the reading time; a change keeps it.
    seconds = before.get("seconds", payload.get("seconds"))
    record.answers[event.blind_id] = {
        **payload,
        "seconds": seconds,
        "changes": before.get("changes", -1) + 1,
    }
    if event.event == "answered":
        record.last_answered = event.blind_id


# --- messages from outside


def _text(longest: int) -> dict:
    return {"type": "string", "maxLength": longest}


def _number(low: float, high: float) -> dict:
    return {"type": "number", "minimum": low, "maximum": high}


def _one_of(*choices) -> dict:
    return {"enum": list(choices)}


_YES_NO, _WORDS = {"type": "boolean"}, {"type": "array", "maxItems": 40, "items": _text(60)}
_VIEW = {
    "window_center": _number(-70000, 140000),
    "window_width": _number(0, 140000),
    "zoom": _number(0, 1000),
    "inverted": _YES_NO,
}
_ANSWER = {
    "label": _one_of(*LABELS),
    "poor_quality": _YES_NO,
    "confidence": _number(1, 6),
    "description": _text(2000),
    "findings": _WORDS,
    "side": _one_of("", *SIDES),
    "cues": _WORDS,
    "seconds": _number(0, 1e6),
    **_VIEW,
}
_SCREEN = (
    *("screen_width", "screen_height", "window_width", "window_height"),
    *("pixel_ratio", "color_depth", "pixels_per_cm", "dark_step", "light_step", "attempts"),
)
_PAYLOADS = {
    "consented": {"consent_sha256": _text(64), "language": _text(20)},
    "registered": {
        "years": _number(0, 80),
        "specialty": _text(120),
        "prior_ai": _YES_NO,
        "prior_ai_words": _text(500),
    },
    "display": {
        **{name: _number(0, 1e5) for name in _SCREEN},
        **dict.fromkeys(("touch", "steps_seen", "dark_seen", "light_seen"), _YES_NO),
        "browser": _text(300),
        "room_light": _one_of(*ROOM_LIGHTS),
        "device": _one_of(*DEVICES),
    },
    "shown": {"milliseconds": _number(0, 1e7), **_VIEW},
    "answered": _ANSWER,
    "changed": {**_ANSWER, "reason": _text(500)},
    "paused": {"seconds": _number(0, 1e6)},
    "resumed": {"seconds": _number(0, 1e7)},
    "locked": {},
    "withdrawn": {"reason": _text(500)},
}
_MESSAGE = {
    "id": {"type": "string", "pattern": r"\A[A-Za-z0-9_-]{8,64}\Z"},
    "event": _one_of(*_PAYLOADS),
    "blind_id": _text(64),
    "payload": {"type": "object"},
    "browser_utc": {"type": "string", "pattern": r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z"},
}
_check_whole = fastjsonschema.compile(
    {"type": "object", "properties": _MESSAGE, "required": ["id", "event", "browser_utc"]}
)
_check_payload = {
    event: fastjsonschema.compile({"properties": fields}) for event, fields in _PAYLOADS.items()
}


def clean(message) -> dict:
    """A message from outside with known fields only, types checked, control characters out.

    Raises Refused.
    """
    try:
        length = len(json.dumps(message, allow_nan=False))
    except (ValueError, RecursionError):
        raise Refused("The message holds what is no JSON.") from None
    if length > LONGEST_MESSAGE:
        raise Refused("The message is too long.")
    _check(_check_whole, message)
    event, sent = message["event"], {"blind_id": "", "payload": {}} | message
    payload = {key: value for key, value in sent["payload"].items() if key in _PAYLOADS[event]}
    _check(_check_payload[event], payload)
    _check_clock(message["browser_utc"])
    return {name: sent[name] for name in _MESSAGE} | {
        "payload": {key: _plain(value) for key, value in payload.items()}
    }


def _check(rules: Callable, values) -> None:
    try:
        rules(values)
    except fastjsonschema.JsonSchemaValueException as error:  # it says which rule, never what came
        named = ".".join(str(part) for part in error.path[1:]) or "The message"
        sentence = f"'{named}' breaks the rule {error.rule}: {error.rule_definition}."
        raise Refused(sentence) from None


def _check_clock(browser_utc: str) -> None:
    try:
        moment = datetime.fromisoformat(browser_utc)
    except ValueError:
        raise Refused("The browser's time is no time.") from None
    if not EARLIEST_CLOCK <= moment <= datetime.now(UTC) + AHEAD_OF_SERVER:
        raise Refused("The browser's clock is years or days off: set the clock of this device.")


def _plain(value):
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return plain_text(value) if isinstance(value, str) else value


def plain_text(text: str) -> str:
    """Text without control characters, and without space around it."""
    return _CONTROL.sub(" ", text).strip()


# --- what comes next


def refuse(record: Record, message: dict, parameters: Parameters) -> None:
    """Raises Refused when the record does not accept the message.

    `parameters` are the stage's; its `findings_offered` are complete.
    """
    event, blind_id, payload = message["event"], message["blind_id"], message["payload"]
    open_now = may_see(record, parameters.going_back)
    before_consent = event in ("consented", "withdrawn")
    before_read = before_consent or event in ("registered", "display")
    particulars = {"years", "specialty", "prior_ai"}
    refusals = {
        "This reader has withdrawn: nothing more is recorded.": record.withdrawn_utc
        or record.erased,
        "The read is locked: nothing more is recorded.": record.locked_utc and event != "withdrawn",
        "This reader has no such image.": blind_id and blind_id not in record.order,
        "Consent comes first.": not before_consent and not record.consented_utc,
        "Years of experience, specialty and prior knowledge of AI are needed.": event
        == "registered"
        and not particulars <= payload.keys(),
        "Registration comes first.": not before_read and not record.registered,
        "This image is not open to this reader now.": event == "shown" and blind_id not in open_now,
        "The answer is not for the image whose turn it is.": event == "answered"
        and (not blind_id or blind_id != record.current),
        "This answer cannot be changed any more.": event == "changed"
        and (blind_id not in record.answers or blind_id not in open_now),
        "A change needs a reason.": event == "changed" and not payload.get("reason"),
        "Some images have no answer yet.": event == "locked"
        and (record.current or not record.order),
    }
    if event in ("answered", "changed"):
        refusals |= _incomplete(payload, parameters)
    for sentence, refused in refusals.items():
        if refused:
            raise Refused(sentence)


def may_see(record: Record, going_back: str) -> list[str]:
    """The images a reader may look at now: the current one and those whose answer may still be
    changed.
    """
    again = {"never": [], "until next": [record.last_answered], "until locked": record.answers}
    return [blind_id for blind_id in [*again[going_back], record.current] if blind_id]


def _incomplete(payload: dict, parameters: Parameters) -> dict[str, bool]:
    steps = range(1, CONFIDENCE_STEPS[parameters.confidence] + 1)
    sure = payload.get("confidence", 1)
    offered = {"findings": parameters.findings_offered, "cues": parameters.cues}
    return {
        f"'{name}' is needed.": payload.get(name) in (None, "", [])
        for name in ("label", *needed(parameters))
    } | {
        "The confidence is not one of the steps.": "confidence" in payload
        and (type(sure) is not int or sure not in steps),
        **{
            f"'{name}' names what the study does not offer.": not {*payload.get(name, [])} <= {*ids}
            for name, ids in offered.items()
        },
    }


def needed(parameters: Parameters) -> list[str]:
    """The fields without which an answer is not complete, by the stage's parameters."""
    asked = {
        "description": parameters.description_required,
        "findings": parameters.findings_required,
        "confidence": parameters.confidence != "none",
        "cues": parameters.cues_asked and parameters.cues_required,
    }
    return [name for name, is_needed in asked.items() if is_needed]
