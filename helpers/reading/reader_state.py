"""One reader at the store: where the reader is, and one message taken.

Everything the server does for a reader goes through here.
"""

import json
from collections.abc import Callable
from weakref import WeakKeyDictionary

from sqlalchemy import Engine

from helpers.files import utc_now
from helpers.reading import accounts, order, record, store
from helpers.reading.setting import Setting

FETCHED_AHEAD = 2  # images that a page loads before their turn
_FOLDED: WeakKeyDictionary[Engine, dict[str, record.Record]] = WeakKeyDictionary()


def enter(
    engine: Engine, setting: Setting, reader_id: str, clock: Callable[[], str] = utc_now
) -> None:
    """Fix the reader's order as the first event of the record; done already, it changes nothing."""
    known = read_record(engine, reader_id)
    if known.order or known.erased:
        return
    seed, mixing = setting.parameters.seed, setting.parameters.mixing
    images = [vars(image) for image in setting.images.values()]
    people = {reader["reader_id"]: reader for reader in accounts.readers(engine)}
    payload = {
        "order": order.reading_order(images, seed, reader_id, mixing),
        "seed": seed,
        "mixing": mixing,
        "simulated": bool(people.get(reader_id, {}).get("simulated")),
        "salt": "",
    }
    message = {"id": "assigned", "event": "assigned", "payload": payload}
    store.append(engine, reader_id, message, clock=clock)


def read_record(engine: Engine, reader_id: str) -> record.Record:
    """The reader's record as it is now.

    Events are only ever added, so what was folded once is kept and only newer ones are read.
    """
    kept = _FOLDED.setdefault(engine, {})
    before = kept.get(reader_id)
    own = record.fold(store.events(engine, reader_id, before.events if before else 0), before)
    if own.erased:
        kept.pop(reader_id, None)  # what is erased must not live on here
        return record.fold(store.events(engine, reader_id))
    kept[reader_id] = own
    return own


def state(engine: Engine, setting: Setting, reader_id: str) -> dict:
    """All that the page is given of this reader's read: phase, images open now and next, own
    answers, progress. No truth is known here.
    """
    own = read_record(engine, reader_id)
    open_now = record.may_see(own, setting.parameters.going_back)
    read = [blind_id for blind_id in own.order if not setting.images[blind_id].training]
    training = [blind_id for blind_id in own.order if setting.images[blind_id].training]
    coming = _coming(own)
    return {
        "reader": reader_id,
        "phase": own.phase,
        "current": own.current,
        "next": coming,
        "pictures": {
            blind_id: _described(setting, blind_id, read, training)
            for blind_id in [*open_now, *coming]
        },
        "answers": {
            blind_id: _own_answer(own, blind_id) for blind_id in open_now if blind_id in own.answers
        },
        "done": sum(blind_id in own.answers for blind_id in read),
        "total": len(read),
        "training_done": sum(blind_id in own.answers for blind_id in training),
        "training_total": len(training),
        "last": own.last_answered,
        "paused": own.paused,
        "display": {key: value for key, value in own.display.items() if key != "salt"},
        "head": own.head if own.phase == "locked" else "",
        "withdrawn_by": own.withdrawn_by,
    }


def _coming(own: record.Record) -> list[str]:
    waiting = [blind_id for blind_id in own.order if blind_id not in own.answers]
    return waiting[1 : 1 + FETCHED_AHEAD]


def _described(setting: Setting, blind_id: str, read: list[str], training: list[str]) -> dict:
    image = setting.images[blind_id]
    position = (training if image.training else read).index(blind_id) + 1
    return {"modality": image.modality, "training": image.training, "position": position}


def _own_answer(own: record.Record, blind_id: str) -> dict:
    kept_back = ("salt", "reason", "changes")
    return {key: value for key, value in own.answers[blind_id].items() if key not in kept_back}


def may_fetch(engine: Engine, setting: Setting, reader_id: str, blind_id: str) -> bool:
    """Whether this reader may load this image now: it is open, or one of the next two (they are
    fetched ahead).
    """
    own = read_record(engine, reader_id)
    reading = own.phase in ("registration", "display", "read", "summary")
    open_now = record.may_see(own, setting.parameters.going_back)
    return reading and blind_id in [*open_now, *_coming(own)]


def receive(
    engine: Engine,
    setting: Setting,
    reader_id: str,
    message,
    clock: Callable[[], str] = utc_now,
) -> dict:
    """Record one message of this reader; returns its acknowledgement.

    Raises store.Refused, or a database error when it cannot be saved now.
    """
    message = record.clean(message)
    if message["event"] == "shown":
        mark_begun(setting, clock)
    before = read_record(engine, reader_id)

    def rule(events, sent: dict) -> None:
        record.refuse(record.fold(events, before), sent, setting.parameters)

    kept = store.append(engine, reader_id, message, rule, clock, before.events)
    head = kept["hash"] if message["event"] == "locked" else ""
    return {"id": kept["id"], "saved": True, "again": kept["again"], "head": head}


def mark_begun(setting: Setting, clock: Callable[[], str] = utc_now) -> None:
    """Leave the mark that somebody has begun to read this set: 06 never redoes it."""
    path = setting.folder / "begun.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"first_shown_utc": clock(), "reading_set": setting.parameters.reading_set}
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
