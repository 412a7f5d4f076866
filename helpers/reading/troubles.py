"""Why the store cannot be read or written, in words for the operator."""

import sqlite3

from sqlalchemy import exc

_TROUBLES = {  # the database's message -> its meaning
    ("locked", "lock timeout"): "another process holds the store's lock",
    ("disk is full", "no space left", "quota"): "the store's disk is full",
    ("disk i/o error", "file too large"): "the store's disk is full or failing",
    ("readonly", "read-only", "permission"): "the store may not be written by this account",
    ("too many", "connection slots"): "the database has no free connection",
    ("malformed", "not a database"): "the store's file is damaged",
    ("no such file", "unable to open"): "the store's file cannot be opened or is gone",
    ("no such table", "does not exist"): "a table of the store is missing",
}


def trouble(error: Exception) -> str:
    """Why the store cannot be read or written now, in words; "" for any other kind of error."""
    if not isinstance(error, exc.DBAPIError | exc.TimeoutError | sqlite3.Error | OSError):
        return ""
    said = str(getattr(error, "orig", error)).lower()
    known = [meaning for words, meaning in _TROUBLES.items() if any(w in said for w in words)]
    if not known and isinstance(error, exc.ProgrammingError | exc.IntegrityError | exc.DataError):
        return ""  # a fault of this program
    return known[0] if known else "the store does not answer"
