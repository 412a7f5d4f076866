"""The durable record of the read: append-only events, hash-chained per reader.

An event is committed to disk before its acknowledgement leaves. Each event's hash is SHA-256 over
the previous hash and the event, with the digest of its payload. So a payload can be erased on
request, and the chain stays valid. Triggers refuse change and deletion; `verify` finds changes that
got around them.
"""

import json
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Engine, exc

from helpers.files import utc_now
from helpers.reading import chain, troubles
from helpers.reading.schema import (
    ERASED,
    EVENTS,
    FIRST_HASH,
    HEALTH,
    PAYLOADS,
    READERS,
    metadata,
    triggers,
)

_SQLITE_SETTINGS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA secure_delete=ON",
)
NETWORK_FILE_SYSTEMS = (
    *("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "davfs", "beegfs", "gpfs"),
    *("vboxsf", "prl_fs", "drvfs", "fuse.sshfs", "fuse.rclone", "fuse.gcsfuse", "fuse.s3fs"),
    *("fuse.glusterfs", "fuse.davfs", "fuse.vmhgfs"),
)
SECONDS_FOR_ERASING = 5  # time for other connections to release the log


class StoreError(RuntimeError):
    """The store cannot be opened or used in this way; the message says what to do."""


class Refused(ValueError):
    """The record does not accept a message. The error says why, without repeating the content."""


def open_store(place: str | Path) -> Engine:
    """The store at a path (SQLite) or a database URL (PostgreSQL); made when absent.

    Raises StoreError on a network file system, where SQLite's locks cannot be relied on, for a
    database that does not answer, and for a record of an earlier version (which is not changed).
    """
    engine = _by_url(str(place)) if "://" in str(place) else _by_path(Path(place).absolute())
    shown = named(engine)
    try:
        known = sa.inspect(engine)
        if known.has_table("readers") and "simulated" not in {
            column["name"] for column in known.get_columns("readers")
        }:
            raise StoreError(
                f"The record in {shown} was begun by an earlier version: commit"
                " 64a37d2 is the last that reads it. Nothing in it was changed."
            )
        with engine.begin() as connection:
            metadata.create_all(connection)
            for statement in triggers(engine.dialect.name):
                connection.exec_driver_sql(statement)
    except exc.DBAPIError as error:
        raise StoreError(
            f"The store {shown} cannot be opened ({str(error.orig).partition(chr(10))[0]})."
        ) from None
    return engine


def named(store: Engine) -> str:
    """The store's path, or its URL without options and password (options may hold one too)."""
    url = store.url.set(query={})
    return url.database if store.dialect.name == "sqlite" else url.render_as_string()


def _by_url(url: str) -> Engine:
    scheme, rest = url.split("://", 1)
    try:
        if scheme not in ("postgres", "postgresql", "postgresql+psycopg"):
            raise ValueError  # the settings and transactions of any other database are not known
        engine = sa.create_engine(
            f"postgresql+psycopg://{rest}", pool_pre_ping=True, hide_parameters=True
        )
        if "@" in (engine.url.host or ""):  # the rest of a password, which would be shown
            raise ValueError
    except (exc.ArgumentError, ValueError):
        raise StoreError(
            "The database URL is not valid: write postgresql://user:password@host/database, and"
            " an @ in the password as %40."
        ) from None

    @sa.event.listens_for(engine, "connect")
    def settle(connection, _):
        connection.execute("SET lock_timeout = '2s'")  # nobody waits for a lock forever
        connection.commit()

    return engine


def _by_path(path: Path) -> Engine:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = file_system(path.parent)
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        raise StoreError(
            f"{path} lies on a network file system ({kind}): put the store on a local disk, or"
            " use PostgreSQL by URL."
        )
    url = sa.URL.create("sqlite", database=str(path))
    opened: dict[str, int] = {}
    options = {"timeout": 2, "check_same_thread": False}
    engine = sa.create_engine(url, connect_args=options, hide_parameters=True)

    @sa.event.listens_for(engine, "connect")
    def settle(connection, _):
        connection.isolation_level = None  # transactions begin below, before the first read
        for statement in _SQLITE_SETTINGS:
            connection.execute(statement)
        opened.setdefault("file", path.stat().st_ino)

    # SQLite would write on into a file that was deleted or replaced, and the answers would be lost.
    @sa.event.listens_for(engine, "do_connect")
    @sa.event.listens_for(engine, "checkout")
    def same_file(*_):
        if opened and path.stat().st_ino != opened["file"]:
            raise FileNotFoundError(f"{path} is no such file as was opened: start again")

    @sa.event.listens_for(engine, "begin")
    def begin(connection):
        reading = connection.get_execution_options().get("reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def file_system(path: Path, mounts: str | None = None) -> str:
    """The kind of file system a path lies on, from /proc/mounts (or its text); '' where there is
    none.
    """
    if mounts is None:
        listed = Path("/proc/mounts")
        mounts = listed.read_text() if listed.exists() else ""
    best, kind = "", ""
    for line in mounts.splitlines():
        _, folder, found = line.split()[:3]
        folder = re.sub(
            r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), folder
        )  # a space is written \040
        if Path(path).resolve().is_relative_to(folder) and len(folder) >= len(best):
            best, kind = folder, found
    return kind


def read_only(store: Engine):
    """A read-only transaction; others may write at the same time."""
    return store.execution_options(reading=True).begin()


# --- events


def known_reader(connection, reader_id: str, locked: bool = False):
    """The reader's row. If `locked`, it stays locked until the transaction ends.

    Raises StoreError for an unknown reader.
    """
    query = sa.select(READERS).where(READERS.c.reader_id == reader_id)
    reader = connection.execute(query.with_for_update() if locked else query).first()
    if reader is None:
        raise StoreError(f"There is no reader '{reader_id}': DO=status lists the readers.")
    return reader


def append(
    store: Engine,
    reader_id: str,
    message: dict,
    rule: Callable | None = None,
    clock: Callable[[], str] = utc_now,
    after: int = 0,
) -> dict:
    """Commit one message to a reader's record; returns {id, sequence, hash, again}.

    `message` has id, event, blind_id, payload and browser_utc. A message that is already in the
    record is acknowledged again (`again`) and not written twice. `rule(events, message)` runs
    inside the transaction on the events that follow number `after` and may raise Refused. Also
    raises Refused for an id that came before with other content.
    """
    message = {"blind_id": "", "payload": {}, "browser_utc": "", **message}
    of_reader = EVENTS.c.reader_id == reader_id
    with store.begin() as connection:
        reader = known_reader(connection, reader_id, locked=True)
        earlier = _events(connection, of_reader & (EVENTS.c.message_id == message["id"]))
        if earlier:
            return _acknowledge_again(earlier[0], message)
        if rule is not None:
            rule(_events(connection, of_reader & (EVENTS.c.sequence > after)), message)
        event = chain.following(reader, message, clock())
        row = {name: value for name, value in vars(event).items() if name != "payload"}
        own = {"reader_id": reader_id, "sequence": event.sequence}
        connection.execute(EVENTS.insert().values(row))
        connection.execute(
            PAYLOADS.insert().values(**own, payload=chain.payload_text(event.payload))
        )
        ends = {"events": event.sequence, "head": event.hash}
        connection.execute(READERS.update().where(READERS.c.reader_id == reader_id).values(ends))
    return {"id": message["id"], "sequence": event.sequence, "hash": event.hash, "again": False}


def _acknowledge_again(earlier: chain.Event, message: dict) -> dict:
    same = earlier.event == message["event"] and earlier.blind_id == message["blind_id"]
    if earlier.payload is not None:
        same &= {**earlier.payload, "salt": ""} == {**message["payload"], "salt": ""}
    if not same:
        raise Refused("This message id was used before with other content: nothing was written.")
    return {"id": message["id"], "sequence": earlier.sequence, "hash": earlier.hash, "again": True}


def events(store: Engine, reader_id: str = "", after: int = 0) -> list[chain.Event]:
    """The record of one reader, or of all, in order, from the event that follows number `after`."""
    with read_only(store) as connection:
        return _events(
            connection,
            (EVENTS.c.reader_id == reader_id if reader_id else sa.true())
            & (EVENTS.c.sequence > after),
        )


def _events(connection, condition) -> list[chain.Event]:
    query = sa.select(EVENTS, PAYLOADS.c.payload).outerjoin_from(EVENTS, PAYLOADS).where(condition)
    rows = connection.execute(query.order_by(EVENTS.c.reader_id, EVENTS.c.sequence)).mappings()
    return [
        chain.Event(
            **{**row, "payload": json.loads(row["payload"]) if row["payload"] is not None else None}
        )
        for row in rows
    ]


def erase(store: Engine, reader_id: str, reason: str) -> None:
    """Erase what a reader wrote: an `erased` event is the tombstone, then the earlier payloads are
    deleted.

    The chain stays valid. Raises StoreError while a text may still be in the store's files.
    An interrupted erasure continues when it is repeated.
    """
    tombstones = [event.sequence for event in events(store, reader_id) if event.event == ERASED]
    message = {"id": ERASED, "event": ERASED, "payload": {"reason": reason}}
    sequence = tombstones[0] if tombstones else append(store, reader_id, message)["sequence"]
    earlier = (PAYLOADS.c.reader_id == reader_id) & (PAYLOADS.c.sequence < sequence)
    try:
        with store.begin() as connection:
            connection.execute(PAYLOADS.delete().where(earlier))
        if store.dialect.name == "sqlite":
            _leave_no_trace(store)
        else:
            with store.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                connection.exec_driver_sql("VACUUM FULL payloads")
    except (exc.DBAPIError, exc.TimeoutError, sqlite3.Error) as error:
        why = troubles.trouble(error) or "the database refused the request"
        raise StoreError(
            f"The erasure is recorded, but {why}, so the text may still be in its files: correct"
            " this, then erase again."
        ) from None


def _leave_no_trace(store: Engine) -> None:
    """Rewrite the file without deleted content, and empty its log."""
    until = time.monotonic() + SECONDS_FOR_ERASING
    with closing(store.raw_connection()) as connection:
        connection.execute("VACUUM")
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:  # busy
            if time.monotonic() > until:
                raise StoreError(
                    "The erasure is recorded, but another connection holds the store open, so the"
                    " text may still be in its files: close all programs that use the store, then"
                    " erase again."
                )
            time.sleep(0.1)


def check_writable(store: Engine) -> None:
    """Write and commit a row, as an answer would be. Raises the database's error."""
    with store.begin() as connection:
        connection.execute(HEALTH.delete())
        connection.execute(HEALTH.insert().values(checked_utc=utc_now()))


# --- checking


def verify(store: Engine, heads: dict[str, str] | None = None) -> list[str]:
    """All faults of the record, one phrase each: a broken chain, a gap, a changed or missing
    payload, a missing end.

    `heads` are the hashes that readers kept from their lock: each must still be in that reader's
    record.
    """
    with read_only(store) as connection:
        everything = _events(connection, sa.true())
        known = {row.reader_id: row for row in connection.execute(sa.select(READERS))}
    records: dict[str, list[chain.Event]] = {
        reader_id: [] for reader_id in [*known, *(heads or {})]
    }
    for event in everything:
        records.setdefault(event.reader_id, []).append(event)
    return [
        f"{reader_id}: {phrase}"
        for reader_id, record in records.items()
        for phrase in _wrong(record, known.get(reader_id), (heads or {}).get(reader_id))
    ]


def _wrong(record: list[chain.Event], reader, kept_hash: str | None) -> list[str]:
    """All faults of one reader's record; `reader` is the row of the table of readers."""
    found = chain.check_chain(record)
    if reader is None and not record:
        return ["is not a reader of the study"]
    if reader is None:
        return [*found, "has events but is not a reader of the study"]
    first = (record[0].payload if record else None) or {}
    if first.get("simulated", reader.simulated) != reader.simulated:
        found.append("the mark that distinguishes people from simulated readers was changed")
    if (reader.events, reader.head) != (len(record), record[-1].hash if record else FIRST_HASH):
        found.append(f"the record ends at event {len(record)}, but {reader.events} were written")
    if kept_hash is not None and kept_hash not in {event.hash for event in record}:
        found.append("the hash that the reader kept is not in the record")
    return found
