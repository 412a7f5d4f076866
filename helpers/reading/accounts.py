"""The readers under opaque ids, their personal codes, and the sessions that these codes open."""

import re
import secrets
import unicodedata
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Engine

from helpers.files import utc, utc_now
from helpers.reading.chain import digest
from helpers.reading.schema import CODES, FIRST_HASH, LONGEST_ID, READERS, SESSIONS
from helpers.reading.store import StoreError, known_reader, read_only

ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"  # no 0, 1, I, O: codes are read aloud and typed
GROUPS, GROUP = 4, 5  # 20 letters out of 32: 100 bits, which nobody can guess
MOST_SESSIONS = (
    10  # sessions per code: a workstation, a tablet, and some that were never signed out
)


def proper_id(reader_id: str) -> str:
    """A reader's id in its stored form (NFC): 1 to 40 letters of any script, digits and . _ - with
    at least one letter or digit and no dash at the start. Raises StoreError for anything else.
    """
    normal = unicodedata.normalize("NFC", reader_id)
    kinds = [unicodedata.category(letter)[0] for letter in normal]
    known = all(kind in "LMN" or letter in "._-" for letter, kind in zip(normal, kinds))
    if not known or len(normal) > LONGEST_ID or normal[:1] == "-" or not {"L", "N"} & {*kinds}:
        raise StoreError(
            f"A reader's id is 1 to {LONGEST_ID} letters (of any script), digits, '.', '_' and '-'."
            " It needs at least one letter or digit and must not begin with a dash."
        )
    return normal


def add_reader(store: Engine, reader_id: str = "", simulated: bool = False) -> str:
    """Add a reader under an opaque id (made if not given); returns the id in its stored form.

    A known reader is left as it is. Raises StoreError for an invalid id.
    """
    reader_id = proper_id(reader_id or f"reader-{secrets.token_hex(3)}")
    row = {"simulated": simulated, "added_utc": utc_now(), "events": 0, "head": FIRST_HASH}
    known = sa.select(READERS).where(READERS.c.reader_id == reader_id)
    with store.begin() as connection:
        if not connection.execute(known).first():
            connection.execute(READERS.insert().values(reader_id=reader_id, **row))
    return reader_id


def readers(store: Engine) -> list[dict]:
    """All readers with reader_id, simulated, added_utc, events, head, in the order they were
    added.
    """
    with read_only(store) as connection:
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
    revoke(store, reader_id)
    made = {"reader_id": reader_id, "made_utc": utc_now(), "expires_utc": expires_utc}
    with store.begin() as connection:
        connection.execute(CODES.insert().values(code_sha256=code_sha256, **made))


def revoke(store: Engine, reader_id: str) -> None:
    """End a reader's codes and sessions; the answers stay.

    Raises StoreError for an unknown reader.
    """
    open_codes = (CODES.c.reader_id == reader_id) & CODES.c.revoked_utc.is_(None)
    with store.begin() as connection:
        known_reader(connection, reader_id)
        connection.execute(CODES.update().where(open_codes).values(revoked_utc=utc_now()))


def new_code(engine: Engine, reader_id: str, days: int) -> str:
    """A new personal code for a reader, like ABCDE-FGHJK-LMNPQ-RSTUV. Only its digest is stored.

    Earlier codes end.
    """
    letters = "".join(secrets.choice(ALPHABET) for _ in range(GROUPS * GROUP))
    expires = utc(datetime.now(UTC) + timedelta(days=days))
    set_code(engine, reader_id, code_digest(letters), expires)
    return "-".join(letters[i : i + GROUP] for i in range(0, len(letters), GROUP))


def code_digest(code: str) -> str:
    """SHA-256 of a code for storage: spaces, dashes and case do not matter."""
    plain = re.sub(r"[^0-9A-Z]", "", str(code)[:200].upper())
    return digest(f"reading code {plain}")


def code_holder(store: Engine, code_sha256: str, now: str | None = None) -> str:
    """The reader whose valid code has this digest; '' for an unknown, expired or revoked code."""
    return _holder(store, CODES.c.code_sha256 == code_sha256, now)


def open_session(store: Engine, code_sha256: str) -> str:
    """Begin a session for the reader of this code; returns the token that the browser keeps."""
    token = secrets.token_urlsafe(32)
    own = SESSIONS.c.code_sha256 == code_sha256
    newest_first = (
        sa.select(SESSIONS.c.session_sha256).where(own).order_by(SESSIONS.c.made_utc.desc())
    )
    row = {"session_sha256": digest(token), "code_sha256": code_sha256, "made_utc": utc_now()}
    with store.begin() as connection:
        surplus = connection.execute(newest_first.offset(MOST_SESSIONS - 1)).scalars().all()
        connection.execute(SESSIONS.delete().where(SESSIONS.c.session_sha256.in_(surplus)))
        connection.execute(SESSIONS.insert().values(row))
    return token


def end_session(store: Engine, token: str) -> None:
    """End a session wherever its token was copied to."""
    with store.begin() as connection:
        connection.execute(SESSIONS.delete().where(SESSIONS.c.session_sha256 == digest(token)))


def session_holder(store: Engine, token: str) -> str:
    """The reader whose session has this token; '' once the session or its code has ended."""
    open_now = sa.select(SESSIONS.c.code_sha256).where(SESSIONS.c.session_sha256 == digest(token))
    return _holder(store, CODES.c.code_sha256.in_(open_now))


def _holder(store: Engine, chosen, now: str | None = None) -> str:
    valid = CODES.c.revoked_utc.is_(None) & (CODES.c.expires_utc > (now or utc_now()))
    with read_only(store) as connection:
        return connection.execute(sa.select(CODES.c.reader_id).where(chosen & valid)).scalar() or ""


def code_states(store: Engine) -> dict[str, str]:
    """By reader: valid, expired, revoked or none, of the latest code."""
    states = {reader["reader_id"]: "none" for reader in readers(store)}
    with read_only(store) as connection:
        for row in connection.execute(sa.select(CODES).order_by(CODES.c.made_utc)):
            states[row.reader_id] = (
                "revoked"
                if row.revoked_utc
                else "valid"
                if row.expires_utc > utc_now()
                else "expired"
            )
    return states
