"""One reader at the store: enter, where am I, take this message.

Everything the server does for a reader goes through here.
"""

import json
from collections.abc import Callable
from weakref import WeakKeyDictionary

from sqlalchemy import Engine

from helpers.reading import order, record, store
from helpers.reading.setting import Setting

AHEAD = 2
_FOLDED: WeakKeyDictionary[Engine, dict[str, record.Record]] = WeakKeyDictionary()


def enter(
    engine: Engine, setting: Setting, reader_id: str, clock: Callable[[], str] = store.utc_now
) -> None:
    """Fix the reader's order as the first event of the record; done already, it changes nothing."""
    pictures = [vars(picture) for picture in setting.pictures.values()]
    own = order.reading_order(pictures, setting.asked["seed"], reader_id, setting.asked["mixing"])
    if not standing(engine, reader_id).order:
        simulated = any(
            reader["simulated"]
            for reader in store.readers(engine)
            if reader["reader_id"] == reader_id
        )
        payload = {
            "order": own,
            "seed": setting.asked["seed"],
            "mixing": setting.asked["mixing"],
            "simulated": simulated,
            "salt": "",
        }
        store.append(
            engine,
            reader_id,
            {"id": "assigned", "event": "assigned", "payload": payload},
            clock=clock,
        )


def standing(engine: Engine, reader_id: str) -> record.Record:
    """The reader's record as it stands.

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


def where(engine: Engine, setting: Setting, reader_id: str) -> dict:
    """All that the page is told about this reader's read: phase, images open now and next, own
    answers, progress. No truth is known here.
    """
    own = standing(engine, reader_id)
    going_back = setting.asked["going_back"]
    open_now = record.may_see(own, going_back)
    read = [blind_id for blind_id in own.order if not setting.pictures[blind_id].training]
    training = [blind_id for blind_id in own.order if setting.pictures[blind_id].training]
    return {
        "phase": own.phase,
        "current": own.current,
        "next": _next(own, AHEAD),
        "pictures": {
            blind_id: _described(setting, blind_id, read, training)
            for blind_id in [*open_now, *_next(own, AHEAD)]
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
    }


def _next(own: record.Record, ahead: int) -> list[str]:
    waiting = [blind_id for blind_id in own.order if blind_id not in own.answers]
    return waiting[1 : 1 + ahead]


def _described(setting: Setting, blind_id: str, read: list[str], training: list[str]) -> dict:
    picture = setting.pictures[blind_id]
    position = (training if picture.training else read).index(blind_id) + 1
    return {"modality": picture.modality, "training": picture.training, "position": position}


def _own_answer(own: record.Record, blind_id: str) -> dict:
    return {
        key: value
        for key, value in own.answers[blind_id].items()
        if key not in ("salt", "reason", "changes")
    }


def may_fetch(engine: Engine, setting: Setting, reader_id: str, blind_id: str) -> bool:
    """Whether this reader may load this image now: it is open, or one of the next two (they are
    fetched ahead).
    """
    own = standing(engine, reader_id)
    reading = own.phase not in ("withdrawn", "locked") and bool(own.consented_utc)
    return reading and blind_id in [
        *record.may_see(own, setting.asked["going_back"]),
        *_next(own, AHEAD),
    ]


def receive(
    engine: Engine,
    setting: Setting,
    reader_id: str,
    message,
    clock: Callable[[], str] = store.utc_now,
) -> dict:
    """Record one message of this reader; returns its acknowledgement.

    Raises store.Refused, or a database error when it cannot be saved now.
    """
    message = record.clean(message)
    if message["event"] == "shown":
        begun(setting, clock)
    before = standing(engine, reader_id)

    def rule(events, sent: dict) -> None:
        record.refuse(record.fold(events, before), sent, setting.asked)

    kept = store.append(engine, reader_id, message, rule, clock, before.events)
    return {
        "id": kept["id"],
        "saved": True,
        "again": kept["again"],
        "head": kept["hash"] if message["event"] == "locked" else "",
    }


def begun(setting: Setting, clock: Callable[[], str] = store.utc_now) -> None:
    """Leave the mark that somebody has begun to read this set: 06 never redoes it."""
    path = setting.folder / "begun.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"first_shown_utc": clock(), "reading_set": setting.asked["reading_set"]}
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
