"""Backs up a store while readers continue, and copies it from SQLite to PostgreSQL and back."""

import shutil
import sqlite3
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Engine

from helpers.reading.schema import EVENTS, HEALTH, READERS, metadata
from helpers.reading.store import StoreError, read_only


def backup(store: Engine, target: Path) -> Path:
    """A consistent copy of a SQLite store into a new file while it is in use.

    Raises StoreError for PostgreSQL or a full disk.
    """
    if store.dialect.name != "sqlite":
        raise StoreError(
            "Back up PostgreSQL with pg_dump, or copy it into a SQLite file with DO=export"
            " ARGS='--to FILE.sqlite'."
        )
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    source, copied = sqlite3.connect(store.url.database), sqlite3.connect(partial)
    try:
        source.backup(copied)
    except sqlite3.Error as error:
        free = shutil.disk_usage(target.parent).free
        raise StoreError(
            f"{target} could not be written ({error}); free space: {free} bytes."
        ) from None
    finally:
        source.close()
        copied.close()
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
