"""One reader at the store: the reader's position, and the receipt of one message.

Everything the server does for a reader goes through here.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from weakref import WeakKeyDictionary

from sqlalchemy import Engine

from helpers import protocol
from helpers.files import utc_now
from helpers.reading import accounts, chain, messages, record, store
from helpers.reading.order import reading_order
from helpers.reading.setting import Setting

FETCHED_AHEAD = 2  # images that a page loads before their turn
KEPT_BACK = ("salt", "reason", "changes", "utc")  # fields of an answer that the page gets back
_FOLDED: WeakKeyDictionary[Engine, dict[str, record.Record]] = WeakKeyDictionary()


def enter(
    engine: Engine,
    setting: Setting,
    reader_id: str,
    clock: Callable[[], str] = utc_now,
    about: Mapping = MappingProxyType({}),
) -> None:
    """Fix the reader's order as the first event of the record. `about` has more facts about a
    reader who is not a person. A second call changes nothing.
    """
    known = read_record(engine, reader_id)
    if known.blocks or known.erased:
        return
    seed, mixing = setting.parameters.seed, setting.parameters.mixing
    people = {reader["reader_id"]: reader for reader in accounts.readers(engine)}
    payload = {
        "blocks": [
            {
                "block": block.block,
                "lock": block.lock,
                "tell_truth": block.tell_truth,
                "images": reading_order(
                    [vars(i) for i in setting.items if i.block == block.block],
                    *(seed, reader_id, mixing, block.block),
                ),
            }
            for block in setting.protocol.blocks
        ],
        "seed": seed,
        "mixing": mixing,
        "simulated": bool(people.get(reader_id, {}).get("simulated")),
        "salt": "",
        **about,
    }
    message = {"id": "assigned", "event": "assigned", "payload": payload}
    store.append(engine, reader_id, message, clock=clock)


def read_record(engine: Engine, reader_id: str) -> record.Record:
    """The reader's record as it is now.

    Events are only ever added, so a folded record is cached and only newer events are read.
    """
    kept = _FOLDED.setdefault(engine, {})
    before = kept.get(reader_id)
    own = record.fold(store.events(engine, reader_id, before.events if before else 0), before)
    if own.erased:
        kept.pop(reader_id, None)  # erased content must not stay in this cache
        return record.fold(store.events(engine, reader_id))
    kept[reader_id] = own
    return own


def every_record(engine: Engine) -> Iterator[tuple[dict, list[chain.Event], record.Record]]:
    """Every reader (see accounts.readers) with the events and the record that results from them."""
    for reader in accounts.readers(engine):
        events = store.events(engine, reader["reader_id"])
        yield reader, events, record.fold(events)


def state(
    engine: Engine, setting: Setting, reader_id: str, clock: Callable[[], str] = utc_now
) -> dict:
    """All that the page gets about this reader's read: phase, the reader's block, the current and
    next images, the reader's own answers, progress. It has no truth, except of answered images in a
    block that tells it, and nothing about later blocks.
    """
    own = read_record(engine, reader_id)
    open_now = record.may_see(own, setting.parameters.going_back)
    block = own.place[0]
    here = own.blocks.get(block, [])
    read, training = _parted(setting, here)
    coming = own.waiting[1 : 1 + FETCHED_AHEAD]
    truth = {}
    if block in own.truth_told:
        answered = [blind_id for blind_id in here if blind_id in own.answers]
        truth["truth"] = {blind_id: setting.images[blind_id].truth for blind_id in answered}
    phase, opens = own.phase, ""
    if phase == "block":
        opens = record.opens(own, setting)
        phase = "wait" if clock() < opens else phase
    return {
        "reader": reader_id,
        "phase": phase,
        "opens_utc": opens,
        "block": _block_for_page(setting, block) if block and phase != "wait" else {},
        "earlier": [
            _block_for_page(setting, name)
            for name in [*own.blocks][: [*own.blocks].index(block) if block else 0]
            if name not in own.final and own.blocks[name]
        ],
        "current": own.current,
        "next": coming,
        "pictures": {
            blind_id: _described(setting, blind_id, own) for blind_id in [*open_now, *coming]
        },
        "answers": {
            blind_id: {k: v for k, v in own.answers[blind_id].items() if k not in KEPT_BACK}
            for blind_id in open_now
            if blind_id in own.answers
        },
        "done": sum(blind_id in own.answers for blind_id in read),
        "total": len(read),
        "training_done": sum(blind_id in own.answers for blind_id in training),
        "training_total": len(training),
        "last": own.last_answered if own.last_answered in here else "",
        "paused": own.paused,
        "display": {key: value for key, value in own.display.items() if key != "salt"},
        "head": own.head if own.phase == "locked" else "",
        "withdrawn_by": own.withdrawn_by,
    } | truth


def _block_for_page(setting: Setting, name: str) -> dict:
    """The facts about a block for the page, once it is that block's turn. Its id never leaves the
    server.
    """
    blocks = setting.protocol.blocks
    block = next(block for block in blocks if block.block == name)
    return {
        "number": blocks.index(block) + 1,
        "title": block.title,
        "instructions": block.instructions,
        "images": bool(block.images),
        "last": block is blocks[-1],
        "tell_truth": block.tell_truth,
        "pairs": block.pairs,
        "linked": block.linked,
        "questions": protocol.for_page(setting.protocol.questions_of(name)),
    }


def _parted(setting: Setting, images: list[str]) -> tuple[list[str], list[str]]:
    """The images of a block that are read, and the warm-up images before them. If the block tells
    the truth, all are read.
    """
    warm_up = [
        blind_id
        for blind_id in images
        if setting.images[blind_id].training and not setting.images[blind_id].truth
    ]
    return [blind_id for blind_id in images if blind_id not in warm_up], warm_up


def _described(setting: Setting, blind_id: str, own: record.Record) -> dict:
    image = setting.images[blind_id]
    read, training = _parted(setting, own.blocks[image.block])
    warm_up = blind_id in training
    position = (training if warm_up else read).index(blind_id) + 1
    block = [*own.blocks].index(image.block) + 1
    about = {"modality": image.modality, "training": warm_up, "beside": image.beside}
    return about | {"position": position, "block": block}


def may_fetch(engine: Engine, setting: Setting, reader_id: str, blind_id: str) -> bool:
    """Whether this reader may load this image now: it is open, one of the next two (which are
    fetched in advance), or beside one of these in a pair.
    """
    own = read_record(engine, reader_id)
    reading = own.phase in ("registration", "display", "read", "close", "summary")
    open_now = record.may_see(own, setting.parameters.going_back)
    near = [*open_now, *own.waiting[: 1 + FETCHED_AHEAD]]
    return reading and blind_id in [*near, *(setting.images[one].beside for one in near)]


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
    known = protocol.PUBLISHED | {question.id for question in setting.protocol.questions}
    message = messages.clean(message, known)
    if message["event"] == "shown":
        mark_begun(setting, clock)
    before = read_record(engine, reader_id)

    def rule(events, sent: dict) -> None:
        record.refuse(record.fold(events, before), sent, setting, clock())

    kept = store.append(engine, reader_id, message, rule, clock, before.events)
    head = kept["hash"] if message["event"] == "locked" else ""
    return {"id": kept["id"], "saved": True, "again": kept["again"], "head": head}


def mark_begun(setting: Setting, clock: Callable[[], str] = utc_now) -> None:
    """Mark this set as begun: 06 never redoes it."""
    path = setting.folder / "begun.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"first_shown_utc": clock(), "reading_set": setting.parameters.reading_set}
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
