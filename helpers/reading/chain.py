"""The hash chain of a reader's record: events, their hashes, and how faults in them are found."""

import hashlib
import json
import secrets
from dataclasses import dataclass, replace

from helpers.reading.schema import ERASED, FIRST_HASH


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


def digest(text: str) -> str:
    """SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def chained(before: str, event: Event) -> str:
    """The hash of an event:

    SHA-256 over the previous hash and a JSON list of the event's fields, with the digest of the
    payload.
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
    """The only text form of a payload; its digest goes into the event's hash."""
    return json.dumps(payload, sort_keys=True, ensure_ascii=False)


def _tie(salt: str, message_id: str) -> str:
    return digest(f"{salt} {message_id}")[:16]


def check_chain(record: list[Event]) -> list[str]:
    """All faults in one reader's events, in order: sequence, payload digests, hashes, and message
    ids (with another id, a repeated message would not be recognised).
    """
    found, before = [], FIRST_HASH
    erased_at = max((event.sequence for event in record if event.event == ERASED), default=0)
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
        salt, _, tie = str((event.payload or {}).get("salt", "")).partition(".")
        if tie and event.message_id and tie != _tie(salt, event.message_id):
            found.append(f"event {event.sequence}: the message id was changed")
    return found


def following(reader, message: dict, server_utc: str) -> Event:
    """The event that a message adds to the record of `reader` (a row of the table of readers)."""
    # After an erasure, the salt keeps short payloads from being guessed from their digest. It also
    # ties the message's id to the payload, and so into the hash chain.
    salt = message["payload"].get("salt", secrets.token_hex(8))
    payload = {**message["payload"], "salt": f"{salt}.{_tie(salt, message['id'])}"}
    event = Event(
        reader_id=reader.reader_id,
        sequence=reader.events + 1,
        message_id=message["id"],
        event=message["event"],
        blind_id=message["blind_id"],
        payload=payload,
        payload_sha256=digest(payload_text(payload)),
        browser_utc=message["browser_utc"],
        server_utc=server_utc,
        hash="",
    )
    return replace(event, hash=chained(reader.head, event))
