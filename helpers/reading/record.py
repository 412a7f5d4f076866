"""The rules of a reader's record: what it says and what may come next. No database, no network.

A message is {id, event, blind_id, payload, browser_utc}. `clean` makes a message from the browser
safe, `fold` reads a record, and `refuse` rejects what the record does not accept.
"""

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import fastjsonschema

from helpers import protocol
from helpers.files import utc
from helpers.reading.chain import Event
from helpers.reading.schema import ERASED
from helpers.reading.setting import Setting
from helpers.reading.store import Refused, StoreError

ROOM_LIGHTS = ("dark", "dimmed", "bright")
DEVICES = ("diagnostic", "desktop", "laptop", "tablet", "phone")
LONGEST_MESSAGE = 16_000
EARLIEST_CLOCK, AHEAD_OF_SERVER = datetime(2000, 1, 1, tzinfo=UTC), timedelta(days=2)
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069"
    r"\ud800-\udfff\ufffe\uffff]"
)


@dataclass
class Record:
    """A reader's record as it stands.

    `blocks` maps each block, in order, to its images in this reader's order; `begun` maps each
    block that the reader has begun or read to the answers that are given once there. `closed` maps
    each block that the reader has finished to the time. `answers` maps blind_id to the valid
    answer, with `changes`, `seconds` and `utc`.
    """

    blocks: dict[str, list[str]] = field(default_factory=dict)
    kind: str = "person"
    begun: dict[str, dict] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    locking: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
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
    def order(self) -> list[str]:
        """All images in this reader's order."""
        return [blind_id for images in self.blocks.values() for blind_id in images]

    def named(self, payload: dict) -> str:
        """The id of the block whose number is in a message; "" for none. The page does not know
        ids.
        """
        return dict(enumerate(self.blocks, 1)).get(payload.get("block"), "")

    @property
    def final(self) -> list[str]:
        """Blocks whose answers can no longer be changed."""
        return [block for block in self.blocks if block in self.told or block in self.closed]

    @property
    def place(self) -> tuple[str, str]:
        """The reader's block and what comes next in it: block (its text, before it is begun), read,
        close (all is read and will be final) or summary.

        The first block's text comes before the display check, so only later blocks, and blocks
        without images, are begun.
        """
        names = list(self.blocks)
        for name, following in zip(names, [*names[1:], ""]):
            images = self.blocks[name]
            if (name != names[0] or not images) and name not in self.begun:
                return name, "block"
            if any(blind_id not in self.answers for blind_id in images):
                return name, "read"
            if following and images and name in self.locking and name not in self.closed:
                return name, "close"
        return names[-1] if names else "", "summary"

    @property
    def current(self) -> str:
        """The next image to be answered; '' when there is none."""
        block, what = self.place
        images = self.blocks[block] if what == "read" else []
        return next((blind_id for blind_id in images if blind_id not in self.answers), "")

    @property
    def phase(self) -> str:
        """Where the reader is: consent, registration, display, block, read, close, summary, locked,
        withdrawn or erased.
        """
        ends = {"erased": self.erased, "withdrawn": self.withdrawn_utc, "locked": self.locked_utc}
        steps = {
            "consent": not self.consented_utc,
            "registration": not self.registered,
            "display": not self.display,
        }
        return next((name for name, here in (ends | steps).items() if here), self.place[1])


def fold(events: Iterable[Event], before: Record | None = None) -> Record:
    """The record that results from a reader's events, in order, after the record `before` (which is
    not changed).
    """
    record = Record()
    if before:
        kept = {name: dict(getattr(before, name)) for name in ("answers", "begun", "closed")}
        record = replace(before, **kept)
    for event in events:
        payload, at = event.payload or {}, event.server_utc
        record.head, record.events = event.hash, event.sequence
        if event.event in ("answered", "changed"):
            _answer(record, event, payload)
        elif event.event == "begun":
            record.begun[record.named(payload)] = payload | {"utc": at}
        elif event.event == "closed":
            record.closed[record.named(payload)] = at
        now = {
            "assigned": _assigned(payload) if event.event == "assigned" else {},
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


def _assigned(payload: dict) -> dict:
    if "order" in payload:
        raise StoreError(f"This record {protocol.OLD_SET}")
    blocks = payload.get("blocks", [])
    return {
        "kind": payload.get("kind", "person"),
        "blocks": {block["block"]: block["images"] for block in blocks},
        "locking": {block["block"] for block in blocks if block["lock"]},
        "told": {block["block"] for block in blocks if block["tell_truth"]},
    }


def _answer(record: Record, event: Event, payload: dict) -> None:
    before = record.answers.get(event.blind_id, {})
    # The time to the first answer is the reading time; a change keeps it.
    seconds = before.get("seconds", payload.get("seconds"))
    record.answers[event.blind_id] = {
        **payload,
        "seconds": seconds,
        "utc": before.get("utc", event.server_utc),
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


_YES_NO = {"type": "boolean"}
# The forms that an answer can have; the question decides which of them fits.
_VALUE = {
    "type": ["boolean", "number", "string", "array"],
    "maxLength": protocol.LONGEST_TEXT,
    "maxItems": 40,
    "items": {"anyOf": [_text(200), {"type": "object", "maxProperties": 5}]},
}
_VIEW = {
    "window_center": _number(-70000, 140000),
    "window_width": _number(0, 140000),
    "zoom": _number(0, 1000),
    "inverted": _YES_NO,
}
_RIGHT = {"type": "object", "properties": _VIEW, "additionalProperties": False}
# The view of the left image of a pair, then of the right one.
_VIEW = {
    **_VIEW,
    "beside": _RIGHT,
    "linked": _YES_NO,
}
_ANSWER = {"seconds": _number(0, 1e6), **_VIEW}
ASKED = ("registered", "begun", "answered", "changed")  # events that hold answers to questions
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
    event: fastjsonschema.compile(
        {"properties": fields, "additionalProperties": _VALUE if event in ASKED else True}
    )
    for event, fields in _PAYLOADS.items()
}


def clean(message, questions: Iterable[str] = ()) -> dict:
    """A message from outside, reduced to known fields and answers to `questions` (ids), with
    checked types and without control characters.

    Raises Refused.
    """
    try:
        length = len(json.dumps(message, allow_nan=False))
    except (ValueError, RecursionError):
        raise Refused("The message is not valid JSON.") from None
    if length > LONGEST_MESSAGE:
        raise Refused("The message is too long.")
    _check(_check_whole, message)
    event, sent = message["event"], {"blind_id": "", "payload": {}} | message
    known = {*_PAYLOADS[event], *(questions if event in ASKED else ())}
    payload = {key: value for key, value in sent["payload"].items() if key in known}
    _check(_check_payload[event], payload)
    _check_clock(message["browser_utc"])
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


def _check_clock(browser_utc: str) -> None:
    try:
        moment = datetime.fromisoformat(browser_utc)
    except ValueError:
        raise Refused("The browser's time is not a valid time.") from None
    if not EARLIEST_CLOCK <= moment <= datetime.now(UTC) + AHEAD_OF_SERVER:
        raise Refused("The browser's clock is years or days off: set the clock of this device.")


def _plain(value):
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return plain_text(value) if isinstance(value, str) else value


def plain_text(text: str) -> str:
    """Text without control characters and without surrounding spaces."""
    return _CONTROL.sub(" ", text).strip()


# --- what comes next


def refuse(record: Record, message: dict, opened: Setting, now: str) -> None:
    """Raise Refused if the record does not accept the message now."""
    event, blind_id, payload = message["event"], message["blind_id"], message["payload"]
    block, what = record.place
    open_now = may_see(record, opened.parameters.going_back)
    before_consent = event in ("consented", "withdrawn")
    before_read = before_consent or event in ("registered", "display")
    elsewhere = event in ("begun", "closed") and record.named(payload) != block
    refusals = {
        "This reader has withdrawn: nothing more is recorded.": record.withdrawn_utc
        or record.erased,
        "The read is locked: nothing more is recorded.": record.locked_utc and event != "withdrawn",
        "This reader has no such image.": blind_id and blind_id not in record.order,
        "Consent comes first.": not before_consent and not record.consented_utc,
        "Registration comes first.": not before_read and not record.registered,
        "This image is not open to this reader now.": event == "shown" and blind_id not in open_now,
        "The answer is not for the image whose turn it is.": event == "answered"
        and (not blind_id or blind_id != record.current),
        "This answer can no longer be changed.": event == "changed"
        and (blind_id not in record.answers or blind_id not in open_now),
        "A change needs a reason.": event == "changed" and not payload.get("reason"),
        "Some images have no answer yet.": event == "locked"
        and (what != "summary" or not record.order),
        "It is not this part's turn.": elsewhere
        or (event == "begun" and what != "block")
        or (event == "closed" and what != "close"),
        "This part begins later.": event == "begun" and now < opens(record, opened),
    }
    for sentence, refused in refusals.items():
        if refused:
            raise Refused(sentence)
    if event in ASKED:
        here = opened.images[blind_id].block if blind_id in opened.images else block
        asked = opened.protocol.asked(protocol.READER if event == "registered" else here)
        begins_images = event == "begun" and record.blocks[block]
        size = opened.texts.get("size") or math.inf
        if sentence := protocol.refusal([] if begins_images else asked, payload, size):
            raise Refused(sentence)


def may_see(record: Record, going_back: str) -> list[str]:
    """The images a reader may look at now: the current one and those whose answer may still be
    changed. Answers of a closed block, and answers whose truth was told, may not be changed.
    """
    again = {"never": [], "until next": [record.last_answered], "until locked": record.answers}
    final = {blind_id for block in record.final for blind_id in record.blocks[block]}
    seen = [blind_id for blind_id in again[going_back] if blind_id not in final]
    return [blind_id for blind_id in [*seen, record.current] if blind_id]


def opens(record: Record, opened: Setting) -> str:
    """The earliest time (UTC) at which the reader's block may be begun; "" for any time."""
    names = list(record.blocks)
    here = names.index(record.place[0])
    days = opened.protocol.blocks[here].after_days
    if not days or not here:
        return ""
    before = names[here - 1]
    ended = [record.closed.get(before, ""), record.begun.get(before, {}).get("utc", "")]
    ended += [record.answers[blind_id]["utc"] for blind_id in record.blocks[before]]
    return utc(datetime.fromisoformat(max(ended)) + timedelta(days=days))
