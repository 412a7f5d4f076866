"""Backs up a store while readers continue, and copies it from SQLite to PostgreSQL and back."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import Engine

from helpers.reading.schema import EVENTS, HEALTH, READERS, metadata
from helpers.reading.store import StoreError, read_only


def backup(store: Engine, target: Path) -> Path:
    """A consistent copy of a SQLite store into a new file while it is in use. The store itself is
    opened for reading only.

    Raises StoreError for PostgreSQL, for the store itself as target, or for a full disk.
    """
    if store.dialect.name != "sqlite":
        raise StoreError(
            "Back up PostgreSQL with pg_dump, or copy it into a SQLite file with DO=export"
            " ARGS='--to FILE.sqlite'."
        )
    target = Path(target)
    if target.resolve() == Path(store.url.database).resolve():
        raise StoreError(f"{target} is the store itself: name another file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    place = f"file:{quote(str(store.url.database))}?mode=ro"
    try:
        with (
            closing(sqlite3.connect(place, uri=True)) as source,
            closing(sqlite3.connect(partial)) as copied,
        ):
            source.backup(copied)
    except sqlite3.Error as error:
        partial.unlink(missing_ok=True)
        free = shutil.disk_usage(target.parent).free
        raise StoreError(
            f"{target} could not be written ({error}); free space: {free} bytes."
        ) from None
    return partial.replace(target)


def copy(source: Engine, target: Engine) -> int:
    """Copy a whole store into an empty one (SQLite to PostgreSQL or back); returns the number of
    events. Raises StoreError.
    """
    with read_only(source) as old, target.begin() as writing:
        if writing.execute(sa.select(READERS.c.reader_id)).first():
            raise StoreError("The target store is not empty: nothing was copied.")
        for table in metadata.sorted_tables:
            rows = [dict(row._mapping) for row in old.execute(sa.select(table))]
            if rows and table is not HEALTH:
                writing.execute(table.insert(), rows)
        return writing.execute(sa.select(sa.func.count()).select_from(EVENTS)).scalar()
