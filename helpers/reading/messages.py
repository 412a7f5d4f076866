"""The kinds of messages from the browser, and what makes them safe. No database, no network.

A message is {id, event, blind_id, payload, browser_utc}; `clean` makes it safe.
"""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import fastjsonschema

from helpers import protocol
from helpers.reading.store import Refused

ROOM_LIGHTS = ("dark", "dimmed", "bright")
DEVICES = ("diagnostic", "desktop", "laptop", "tablet", "phone")
EARLIEST_CLOCK, AHEAD_OF_SERVER = datetime(2000, 1, 1, tzinfo=UTC), timedelta(days=2)


def _text(longest: int) -> dict:
    return {"type": "string", "maxLength": longest}


def _number(low: float, high: float) -> dict:
    return {"type": "number", "minimum": low, "maximum": high}


_YES_NO = {"type": "boolean"}
# The forms that an answer can have; the question decides which of them fits.
_VALUE = {
    "type": ["boolean", "number", "string", "array"],
    "maxLength": protocol.LONGEST_TEXT,
    "items": {"type": ["string", "object"], "maxProperties": 5},
}
_VIEW = {
    "window_center": _number(-70000, 140000),
    "window_width": _number(0, 140000),
    "zoom": _number(0, 1000),
    "inverted": _YES_NO,
}
# The view of the left image of a pair, then of the right one.
_VIEW = {
    **_VIEW,
    "beside": {"type": "object", "properties": _VIEW, "additionalProperties": False},
    "linked": _YES_NO,
}
_ANSWER = {"seconds": _number(0, 1e6), **_VIEW}
ANSWERING = ("registered", "begun", "answered", "changed")  # events that hold answers to questions
_SCREEN = (
    *("screen_width", "screen_height", "window_width", "window_height"),
    *("pixel_ratio", "color_depth", "pixels_per_cm", "dark_step", "light_step", "attempts"),
)
_PAYLOADS = {
    "consented": {"consent_sha256": _text(64), "language": _text(20)},
    "registered": {},
    "begun": {"block": _number(1, 1000)},
    "closed": {"block": _number(1, 1000)},
    "display": {
        **{name: _number(0, 1e5) for name in _SCREEN},
        **dict.fromkeys(("touch", "steps_seen", "dark_seen", "light_seen"), _YES_NO),
        "browser": _text(300),
        "room_light": {"enum": [*ROOM_LIGHTS]},
        "device": {"enum": [*DEVICES]},
    },
    "shown": {"milliseconds": _number(0, 1e10), **_VIEW},
    "answered": _ANSWER,
    "changed": {**_ANSWER, "reason": _text(500)},
    "paused": {"seconds": _number(0, 1e6)},
    "resumed": {"seconds": _number(0, 1e7)},
    "locked": {},
    "withdrawn": {"reason": _text(500)},
}
_MESSAGE = {
    "id": {"type": "string", "pattern": r"\A[A-Za-z0-9_-]{8,64}\Z"},
    "event": {"enum": [*_PAYLOADS]},
    "blind_id": _text(64),
    "payload": {"type": "object"},
    "browser_utc": {"type": "string", "pattern": r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z"},
}
_check_whole = fastjsonschema.compile(
    {"type": "object", "properties": _MESSAGE, "required": ["id", "event", "browser_utc"]}
)
_check_payload = {
    event: fastjsonschema.compile(
        {"properties": fields, "additionalProperties": _VALUE if event in ANSWERING else True}
    )
    for event, fields in _PAYLOADS.items()
}


def clean(message, questions: Iterable[str] = ()) -> dict:
    """A message from outside, reduced to known fields and answers to `questions` (ids), with
    checked types and without control characters.

    Raises Refused.
    """
    try:
        json.dumps(message, allow_nan=False)
    except (ValueError, RecursionError):
        raise Refused("The message is not valid JSON.") from None
    _check(_check_whole, message)
    event, sent = message["event"], {"blind_id": "", "payload": {}} | message
    known = {*_PAYLOADS[event], *(questions if event in ANSWERING else ())}
    payload = {key: value for key, value in sent["payload"].items() if key in known}
    _check(_check_payload[event], payload)
    try:
        moment = datetime.fromisoformat(message["browser_utc"])
    except ValueError:
        raise Refused("The browser's time is not a valid time.") from None
    if not EARLIEST_CLOCK <= moment <= datetime.now(UTC) + AHEAD_OF_SERVER:
        raise Refused("The browser's clock is years or days off: set the clock of this device.")
    return {name: sent[name] for name in _MESSAGE} | {
        "payload": {key: _plain(value) for key, value in payload.items()}
    }


def _check(rules: Callable, values) -> None:
    try:
        rules(values)
    except fastjsonschema.JsonSchemaValueException as error:  # it names the rule, never the content
        named = ".".join(str(part) for part in error.path[1:]) or "The message"
        sentence = f"'{named}' breaks the rule {error.rule}: {error.rule_definition}."
        raise Refused(sentence) from None


def _plain(value):
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return protocol.plain_text(value) if isinstance(value, str) else value
