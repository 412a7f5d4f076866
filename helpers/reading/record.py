"""The rules of a reader's record: what it says and what may come next. No database, no network.

`fold` reads a record, and `refuse` rejects messages that the record does not accept.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from helpers import protocol
from helpers.files import utc
from helpers.reading import messages
from helpers.reading.chain import Event
from helpers.reading.schema import ERASED
from helpers.reading.setting import Setting
from helpers.reading.store import Refused, StoreError


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
    truth_told: set[str] = field(default_factory=set)
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
        return [block for block in self.blocks if block in self.truth_told or block in self.closed]

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
    def waiting(self) -> list[str]:
        """The images of the block that is being read which have no answer, in order."""
        block, what = self.place
        images = self.blocks[block] if what == "read" else []
        return [blind_id for blind_id in images if blind_id not in self.answers]

    @property
    def current(self) -> str:
        """The next image to be answered; '' when there is none."""
        return next(iter(self.waiting), "")

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
        if event.event in ("answered", "changed") and event.payload is not None:
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
        "truth_told": {block["block"] for block in blocks if block["tell_truth"]},
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
    if event in messages.ANSWERING:
        here = opened.images[blind_id].block if blind_id in opened.images else block
        questions = opened.protocol.questions_of(protocol.READER if event == "registered" else here)
        begins_images = event == "begun" and record.blocks[block]
        size = opened.texts.get("size") or math.inf
        if sentence := protocol.refusal([] if begins_images else questions, payload, size):
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
