"""Shared by all code that writes, without pandas: the clock, hashes, atomic files."""

import hashlib
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path


def utc_now() -> str:
    """The time now, ISO 8601 UTC to the millisecond. The study has no other clock."""
    return utc(datetime.now(UTC))


def utc(moment: datetime) -> str:
    """A time in UTC in the format of every table and record: 2026-01-31T08:00:00.000Z."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write to a temporary file beside `path`, flush to disk, rename. A kill leaves either the old
    file or the new one. `mode` is lessened by the umask.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
