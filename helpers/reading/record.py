"""What a reader's record says and what may come next: pure rules, no database, no network.

A message is {id, event, blind_id, payload, browser_utc}. `clean` makes a message from the browser
safe, `fold` reads a record, `refuse` says what the record does not accept.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from helpers.reading.store import Event, Refused

LABELS = ("real", "fake", "uncertain")
SIDES = ("left", "right", "bilateral")
EVENTS = (
    "consented",
    "registered",
    "display",
    "shown",
    "answered",
    "changed",
    "paused",
    "resumed",
    "locked",
    "withdrawn",
)
CONFIDENCE_STEPS = {"none": 0, "3-step": 3, "6-step": 6}
LONGEST_TEXT = 2000
LONGEST_MESSAGE = 16_000
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


@dataclass
class Record:
    """A reader's record as it stands.

    `answers` maps blind_id to the answer that stands, with `changes` and `seconds`.
    """

    order: list[str] = field(default_factory=list)
    consented_utc: str = ""
    registered: dict = field(default_factory=dict)
    display: dict = field(default_factory=dict)
    shown: set[str] = field(default_factory=set)
    answers: dict[str, dict] = field(default_factory=dict)
    last_answered: str = ""
    paused: bool = False
    locked_utc: str = ""
    withdrawn_utc: str = ""
    erased: bool = False
    head: str = ""
    events: int = 0

    @property
    def current(self) -> str:
        """The first image without an answer; '' when all have one."""
        return next((blind_id for blind_id in self.order if blind_id not in self.answers), "")

    @property
    def phase(self) -> str:
        """Where the reader is: consent, registration, display, read, summary, locked or
        withdrawn.
        """
        if self.withdrawn_utc:
            return "withdrawn"
        if self.locked_utc:
            return "locked"
        if not self.consented_utc:
            return "consent"
        if not self.registered:
            return "registration"
        if not self.display:
            return "display"
        return "read" if self.current else "summary"


def fold(events: Iterable[Event], before: Record | None = None) -> Record:
    """The record that a reader's events, in order, add up to; on top of the record `before` them,
    which stays as it is.
    """
    record = (
        replace(before, shown=set(before.shown), answers=dict(before.answers))
        if before
        else Record()
    )
    for event in events:
        payload = event.payload or {}
        record.head, record.events = event.hash, event.sequence
        if event.event == "assigned":
            record.order = list(payload.get("order", []))
        elif event.event == "consented":
            record.consented_utc = event.server_utc
        elif event.event == "registered":
            record.registered = payload
        elif event.event == "display":
            record.display = payload
        elif event.event == "shown":
            record.shown.add(event.blind_id)
        elif event.event in ("answered", "changed"):
            _answer(record, event, payload)
        elif event.event in ("paused", "resumed"):
            record.paused = event.event == "paused"
        elif event.event in ("locked", "withdrawn"):
            setattr(record, f"{event.event}_utc", event.server_utc)
        elif event.event == "erased":
            record.erased = True
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


def clean(message) -> dict:
    """A message from outside with known fields only, types checked, control characters out.

    Raises Refused.
    """
    if not isinstance(message, dict) or len(json.dumps(message)) > LONGEST_MESSAGE:
        raise Refused("The message is not an object or is too long.")
    identity, event = message.get("id"), message.get("event")
    if not isinstance(identity, str) or not _ID.fullmatch(identity):
        raise Refused("The message has no proper id.")
    if event not in EVENTS:
        raise Refused("The message names no known event.")
    blind_id, payload = message.get("blind_id", ""), message.get("payload", {})
    if not isinstance(blind_id, str) or len(blind_id) > 64 or not isinstance(payload, dict):
        raise Refused("The message names its image or content wrongly.")
    browser_utc = message.get("browser_utc", "")
    if not isinstance(browser_utc, str) or not _UTC.fullmatch(browser_utc):
        raise Refused("The message has no browser time.")
    payload = {
        key: _plain(value) for key, value in payload.items() if _NAMES.get(event, {}).get(key)
    }
    for key, value in payload.items():
        _NAMES[event][key](key, value)
    return {
        "id": identity,
        "event": event,
        "blind_id": blind_id,
        "payload": payload,
        "browser_utc": browser_utc,
    }


def _plain(value):
    if isinstance(value, str):
        return _CONTROL.sub(" ", value).strip()
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _text(longest: int):
    def check(key: str, value) -> None:
        if not isinstance(value, str) or len(value) > longest:
            raise Refused(f"'{key}' must be text of at most {longest} characters.")

    return check


def _number(low: float, high: float):
    def check(key: str, value) -> None:
        if type(value) not in (int, float) or not low <= value <= high:
            raise Refused(f"'{key}' must be a number from {low} to {high}.")

    return check


def _choice(*choices):
    def check(key: str, value) -> None:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise Refused(f"'{key}' is not one of the choices.")

    return check


def _words(key: str, value) -> None:
    if (
        not isinstance(value, list)
        or len(value) > 40
        or not all(isinstance(item, str) and len(item) <= 60 for item in value)
    ):
        raise Refused(f"'{key}' must be a short list of words.")


_VIEW = {
    "window_center": _number(-70000, 140000),
    "window_width": _number(0, 140000),
    "zoom": _number(0, 1000),
    "inverted": _choice(True, False),
}
_ANSWER = {
    "label": _choice(*LABELS),
    "confidence": _number(1, 6),
    "description": _text(LONGEST_TEXT),
    "findings": _words,
    "side": _choice("", *SIDES),
    "cues": _words,
    "seconds": _number(0, 1e6),
    **_VIEW,
}
_DISPLAY = (
    "screen_width",
    "screen_height",
    "window_width",
    "window_height",
    "pixel_ratio",
    "color_depth",
    "pixels_per_cm",
    "dark_step",
    "light_step",
)
_NAMES: dict[str, dict] = {
    "consented": {"consent_sha256": _text(64), "language": _text(20)},
    "registered": {
        "years": _number(0, 80),
        "specialty": _text(120),
        "prior_ai": _choice(True, False),
        "prior_ai_words": _text(500),
    },
    "display": {
        **{name: _number(0, 1e5) for name in _DISPLAY},
        "touch": _choice(True, False),
        "browser": _text(300),
        "steps_seen": _choice(True, False),
    },
    "shown": {"milliseconds": _number(0, 1e7), **_VIEW},
    "answered": _ANSWER,
    "changed": {**_ANSWER, "reason": _text(500)},
    "paused": {"seconds": _number(0, 1e6)},
    "resumed": {"seconds": _number(0, 1e7)},
    "locked": {},
    "withdrawn": {"reason": _text(500)},
}


def refuse(record: Record, message: dict, asked: Mapping) -> None:
    """Raises Refused when the record does not accept the message.

    `asked` are the stage's parameters and `findings_offered`.
    """
    event, blind_id = message["event"], message["blind_id"]
    if record.withdrawn_utc or record.erased:
        raise Refused("This reader has withdrawn: nothing more is recorded.")
    if record.locked_utc and event != "withdrawn":
        raise Refused("The read is locked: nothing more is recorded.")
    if blind_id and blind_id not in record.order:
        raise Refused("This reader has no such image.")
    if event in ("consented", "withdrawn"):
        return
    if not record.consented_utc:
        raise Refused("Consent comes first.")
    if (
        event == "registered"
        and not {"years", "specialty", "prior_ai"} <= message["payload"].keys()
    ):
        raise Refused("Years of experience, specialty and prior knowledge of AI are needed.")
    if event in ("registered", "display"):
        return
    if not record.registered:
        raise Refused("Registration comes first.")
    if event == "shown" and blind_id not in may_see(record, asked["going_back"]):
        raise Refused("This image is not open to this reader now.")
    if event in ("answered", "changed"):
        _refuse_answer(record, message, asked)
    if event == "locked" and (record.current or not record.order):
        raise Refused("Some images have no answer yet.")


def may_see(record: Record, going_back: str) -> list[str]:
    """The images a reader may look at now: the current one and those whose answer may still be
    changed.
    """
    again = (
        list(record.answers)
        if going_back == "until locked"
        else [record.last_answered]
        if going_back == "until next"
        else []
    )
    return [blind_id for blind_id in [*again, record.current] if blind_id]


def _refuse_answer(record: Record, message: dict, asked: Mapping) -> None:
    blind_id, payload = message["blind_id"], message["payload"]
    if message["event"] == "answered" and blind_id != record.current:
        raise Refused("The answer is not for the image whose turn it is.")
    if message["event"] == "changed":
        if blind_id not in record.answers or blind_id not in may_see(record, asked["going_back"]):
            raise Refused("This answer cannot be changed any more.")
        if not payload.get("reason"):
            raise Refused("A change needs a reason.")
    for name in ("label", *needed(asked)):
        if payload.get(name) in (None, "", []):
            raise Refused(f"'{name}' is needed.")
    steps = CONFIDENCE_STEPS[asked["confidence"]]
    if "confidence" in payload and (
        payload["confidence"] not in range(1, steps + 1) or type(payload["confidence"]) is not int
    ):
        raise Refused("The confidence is not one of the steps.")
    for name, offered in (("findings", asked["findings_offered"]), ("cues", asked["cues"])):
        if not set(payload.get(name, [])) <= set(offered):
            raise Refused(f"'{name}' names what the study does not offer.")


def needed(asked: Mapping) -> list[str]:
    """The fields without which an answer is not complete, by the stage's parameters."""
    names = [name for name in ("description", "findings") if asked[f"{name}_required"]]
    names += ["confidence"] if asked["confidence"] != "none" else []
    return names + (["cues"] if asked["cues_asked"] and asked["cues_required"] else [])
