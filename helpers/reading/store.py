"""The durable record of the read: append-only events, hash-chained per reader.

An event is committed to disk before its acknowledgement leaves. Each event's hash is SHA-256 over
the hash before it and the event itself, its payload by digest, so that a payload can be erased on
request and the chain still holds. Triggers refuse change and deletion; `verify` finds what got
around them.
"""

import hashlib
import json
import secrets
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy import Engine, exc

from helpers.reading.schema import (
    CODES,
    EVENTS,
    FIRST,
    HOLLOW,
    PAYLOADS,
    READERS,
    StoreError,
    open_store,
)

__all__ = ["StoreError", "open_store"]


class Refused(ValueError):
    """A message that the record does not accept; the message says why, without repeating what was
    sent.
    """


@dataclass(frozen=True)
class Event:
    """One event of a reader's record. `payload` is None once it is erased."""

    reader_id: str
    sequence: int
    message_id: str
    event: str
    blind_id: str
    payload: dict | None
    payload_sha256: str
    browser_utc: str
    server_utc: str
    hash: str


def utc_now() -> str:
    """Now, ISO 8601 UTC to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def reading(store: Engine):
    return store.execution_options(reading=True).begin()


def digest(text: str) -> str:
    """SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def chained(before: str, event: Event) -> str:
    """The hash of an event:

    SHA-256 over the hash before it and a JSON list of its fields, the payload by its digest.
    """
    fields = [
        before,
        event.reader_id,
        event.sequence,
        event.event,
        event.blind_id,
        event.payload_sha256,
        event.browser_utc,
        event.server_utc,
    ]
    return digest(json.dumps(fields))


def payload_text(payload: dict) -> str:
    """The one way a payload is written; its digest goes into the chain."""
    return json.dumps(payload, sort_keys=True, ensure_ascii=False)


# --- readers and their codes


def add_reader(store: Engine, reader_id: str = "", simulated: bool = False) -> str:
    """Add a reader under an opaque id (made when not given); returns it.

    A known one is left as it is.
    """
    reader_id = reader_id or f"reader-{secrets.token_hex(3)}"
    with store.begin() as connection:
        known = connection.execute(
            sa.select(READERS.c.reader_id).where(READERS.c.reader_id == reader_id)
        ).first()
        if not known:
            connection.execute(
                READERS.insert().values(
                    reader_id=reader_id,
                    simulated=simulated,
                    added_utc=utc_now(),
                    events=0,
                    head=FIRST,
                )
            )
    return reader_id


def readers(store: Engine) -> list[dict]:
    """All readers with reader_id, simulated, added_utc, events, head, in the order they were
    added.
    """
    with reading(store) as connection:
        return [
            dict(row._mapping)
            for row in connection.execute(
                sa.select(READERS).order_by(READERS.c.added_utc, READERS.c.reader_id)
            )
        ]


def set_code(store: Engine, reader_id: str, code_sha256: str, expires_utc: str) -> None:
    """Give a reader a new code (its digest is kept); earlier codes are revoked.

    Raises StoreError for an unknown reader.
    """
    with store.begin() as connection:
        _known(connection, reader_id)
        _revoke(connection, reader_id)
        connection.execute(
            CODES.insert().values(
                code_sha256=code_sha256,
                reader_id=reader_id,
                made_utc=utc_now(),
                expires_utc=expires_utc,
            )
        )


def revoke(store: Engine, reader_id: str) -> None:
    """End a reader's codes and sessions; what was answered stays.

    Raises StoreError for an unknown reader.
    """
    with store.begin() as connection:
        _known(connection, reader_id)
        _revoke(connection, reader_id)


def _revoke(connection, reader_id: str) -> None:
    open_codes = (CODES.c.reader_id == reader_id) & CODES.c.revoked_utc.is_(None)
    connection.execute(CODES.update().where(open_codes).values(revoked_utc=utc_now()))


def _known(connection, reader_id: str) -> None:
    if not connection.execute(
        sa.select(READERS.c.reader_id).where(READERS.c.reader_id == reader_id)
    ).first():
        raise StoreError(f"There is no reader '{reader_id}': `status` lists the readers.")


def code_holder(store: Engine, code_sha256: str, now: str | None = None) -> str:
    """The reader whose valid code has this digest; '' for an unknown, expired or revoked one."""
    valid = (
        (CODES.c.code_sha256 == code_sha256)
        & CODES.c.revoked_utc.is_(None)
        & (CODES.c.expires_utc > (now or utc_now()))
    )
    with reading(store) as connection:
        return connection.execute(sa.select(CODES.c.reader_id).where(valid)).scalar() or ""


def code_states(store: Engine, now: str | None = None) -> dict[str, str]:
    """By reader: valid, expired, revoked or none, of the latest code."""
    states = {reader["reader_id"]: "none" for reader in readers(store)}
    with reading(store) as connection:
        for row in connection.execute(sa.select(CODES).order_by(CODES.c.made_utc)):
            states[row.reader_id] = (
                "revoked"
                if row.revoked_utc
                else "valid"
                if row.expires_utc > (now or utc_now())
                else "expired"
            )
    return states


# --- events


def append(
    store: Engine,
    reader_id: str,
    message: dict,
    rule: Callable | None = None,
    clock: Callable[[], str] = utc_now,
    after: int = 0,
) -> dict:
    """Commit one message to a reader's record; returns {id, sequence, hash, again}.

    `message` has id, event, blind_id, payload and browser_utc. A message that is there already is
    acknowledged again (`again`) and not written twice. `rule(events, message)` runs inside the
    transaction on the events that follow number `after` and may raise Refused. Raises Refused too
    for an id that came before with another content.
    """
    message = {"blind_id": "", "payload": {}, "browser_utc": "", **message}
    with store.begin() as connection:
        lock = sa.select(READERS).where(READERS.c.reader_id == reader_id).with_for_update()
        reader = connection.execute(lock).first()
        if reader is None:
            raise StoreError(f"There is no reader '{reader_id}': `status` lists the readers.")
        earlier = _events(
            connection, (EVENTS.c.reader_id == reader_id) & (EVENTS.c.message_id == message["id"])
        )
        if earlier:
            return _acknowledge_again(earlier[0], message)
        if rule is not None:
            rule(
                _events(
                    connection, (EVENTS.c.reader_id == reader_id) & (EVENTS.c.sequence > after)
                ),
                message,
            )
        event = _chain(reader, message, clock())
        row = {name: getattr(event, name) for name in EVENTS.c.keys()}  # noqa: SIM118
        connection.execute(EVENTS.insert().values(row))
        text = payload_text(event.payload)
        connection.execute(
            PAYLOADS.insert().values(reader_id=reader_id, sequence=event.sequence, payload=text)
        )
        connection.execute(
            READERS.update()
            .where(READERS.c.reader_id == reader_id)
            .values(events=event.sequence, head=event.hash)
        )
    return {"id": message["id"], "sequence": event.sequence, "hash": event.hash, "again": False}


def _acknowledge_again(earlier: Event, message: dict) -> dict:
    same = earlier.event == message["event"] and earlier.blind_id == message["blind_id"]
    if same and earlier.payload is not None:
        told = {key: value for key, value in earlier.payload.items() if key != "salt"}
        same = told == {key: value for key, value in message["payload"].items() if key != "salt"}
    if not same:
        raise Refused("This message id came before with another content: nothing was written.")
    return {"id": message["id"], "sequence": earlier.sequence, "hash": earlier.hash, "again": True}


def _chain(reader, message: dict, server_utc: str) -> Event:
    # The salt keeps short payloads from being guessed from their digest once they are erased; it
    # also ties the message's id into the chain.
    salt = message["payload"].get("salt", secrets.token_hex(8))
    payload = {**message["payload"], "salt": f"{salt}.{_tie(salt, message['id'])}"}
    told = (
        message["id"],
        message["event"],
        message["blind_id"],
        payload,
        digest(payload_text(payload)),
        message["browser_utc"],
        server_utc,
    )
    event = Event(reader.reader_id, reader.events + 1, *told, "")
    return Event(
        *[getattr(event, name) for name in Event.__dataclass_fields__ if name != "hash"],
        chained(reader.head, event),
    )


def _tie(salt: str, message_id: str) -> str:
    return digest(f"{salt} {message_id}")[:16]


def events(store: Engine, reader_id: str = "", after: int = 0) -> list[Event]:
    """The record of one reader, or of all, in order, from the event that follows number `after`."""
    with reading(store) as connection:
        return _events(
            connection,
            (EVENTS.c.reader_id == reader_id if reader_id else sa.true())
            & (EVENTS.c.sequence > after),
        )


def _events(connection, condition) -> list[Event]:
    both = (PAYLOADS.c.reader_id == EVENTS.c.reader_id) & (PAYLOADS.c.sequence == EVENTS.c.sequence)
    query = (
        sa.select(EVENTS, PAYLOADS.c.payload).join(PAYLOADS, both, isouter=True).where(condition)
    )
    rows = connection.execute(query.order_by(EVENTS.c.reader_id, EVENTS.c.sequence)).mappings()
    return [
        Event(
            **{**row, "payload": json.loads(row["payload"]) if row["payload"] is not None else None}
        )
        for row in rows
    ]


def erase(store: Engine, reader_id: str, reason: str) -> None:
    """Erase what a reader wrote: an `erased` event is the tombstone, then the earlier payloads go.

    The chain still holds.
    """
    tombstones = [
        event.sequence for event in events(store, reader_id) if event.event == HOLLOW
    ]  # an erasure that broke off goes on
    message = {"id": HOLLOW, "event": HOLLOW, "payload": {"reason": reason}}
    sequence = tombstones[0] if tombstones else append(store, reader_id, message)["sequence"]
    with store.begin() as connection:
        connection.execute(
            PAYLOADS.delete().where(
                (PAYLOADS.c.reader_id == reader_id) & (PAYLOADS.c.sequence < sequence)
            )
        )
    if store.dialect.name == "sqlite":
        with closing(store.raw_connection()) as connection:
            connection.execute(
                "PRAGMA wal_checkpoint(TRUNCATE)"
            )  # what was erased must not stay in the log file


# --- checking


def verify(store: Engine, heads: dict[str, str] | None = None) -> list[str]:
    """What does not hold, one phrase each: a broken chain, a gap, a changed or missing payload, a
    cut tail.

    `heads` are the hashes that readers kept from their lock: each must still be in that reader's
    record.
    """
    found = []
    with reading(store) as connection:
        everything = _events(connection, sa.true())
        known = {row.reader_id: row for row in connection.execute(sa.select(READERS))}
    by_reader: dict[str, list[Event]] = {reader_id: [] for reader_id in known}
    for event in everything:
        by_reader.setdefault(event.reader_id, []).append(event)
    for reader_id, record in by_reader.items():
        found += [f"{reader_id}: {phrase}" for phrase in check_chain(record) + _untied(record)]
        if (
            reader_id in known
            and record
            and (record[0].payload or {}).get("simulated", known[reader_id].simulated)
            != known[reader_id].simulated
        ):
            found.append(
                f"{reader_id}: the mark that tells people from simulated readers was changed"
            )
        if reader_id not in known:
            found.append(f"{reader_id}: has events but is no reader of the study")
        elif (known[reader_id].events, known[reader_id].head) != (
            len(record),
            record[-1].hash if record else FIRST,
        ):
            found.append(
                f"{reader_id}: the record ends at event {len(record)}, {known[reader_id].events}"
                " were written"
            )
        head = (heads or {}).get(reader_id)
        if head and head not in {event.hash for event in record}:
            found.append(f"{reader_id}: the hash that the reader kept is not in the record")
    found += [
        f"{reader_id}: is unknown, yet a hash was kept"
        for reader_id in heads or {}
        if reader_id not in by_reader
    ]
    return found


def check_chain(record: list[Event]) -> list[str]:
    """What is wrong in one reader's events, in order: sequence, payload digests, hashes."""
    found, before = [], FIRST
    erased_at = max((event.sequence for event in record if event.event == HOLLOW), default=0)
    for number, event in enumerate(record, 1):
        if event.sequence != number:
            return [*found, f"event {number} is missing"]
        if event.payload is None and event.sequence > erased_at:
            found.append(f"event {number}: the payload is gone without an erasure")
        if (
            event.payload is not None
            and digest(payload_text(event.payload)) != event.payload_sha256
        ):
            found.append(f"event {number}: the payload was changed")
        if chained(before, event) != event.hash:
            found.append(f"event {number}: does not fit the hash chain")
        before = event.hash
    return found


def _untied(record: list[Event]) -> list[str]:
    """Message ids that are not those that were written: a resend would not be recognised."""
    found = []
    for event in record:
        salt, _, tie = str((event.payload or {}).get("salt", "")).partition(".")
        if tie and event.message_id and tie != _tie(salt, event.message_id):
            found.append(f"event {event.sequence}: the message id was changed")
    return found


def unavailable(error: Exception) -> bool:
    """Whether an exception means that the store cannot be written just now (locked, full, gone):
    ask again later.
    """
    return isinstance(
        error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError | exc.InternalError
    )
