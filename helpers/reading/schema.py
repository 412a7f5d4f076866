"""The tables of the record and how a store is opened:

SQLite (WAL, every commit flushed) or PostgreSQL, with its triggers.
"""

import re
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Engine, exc

NETWORK_FILE_SYSTEMS = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "afs",
    "ceph",
    "gluster",
    "lustre",
    "fuse.sshfs",
    "fuse.rclone",
    "fuse.gcsfuse",
    "fuse.s3fs",
    "fuse.glusterfs",
    "fuse.davfs",
    "fuse.vmhgfs",
    "davfs",
    "beegfs",
    "gpfs",
    "vboxsf",
    "prl_fs",
    "drvfs",
)
FIRST = "0" * 64
HOLLOW = "erased"

metadata = sa.MetaData()
READERS = sa.Table(
    "readers",
    metadata,
    sa.Column("reader_id", sa.String(40), primary_key=True),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Column("added_utc", sa.String(30), nullable=False),
    sa.Column("events", sa.Integer, nullable=False),
    sa.Column("head", sa.String(64), nullable=False),
)
CODES = sa.Table(
    "codes",
    metadata,
    sa.Column("code_sha256", sa.String(64), primary_key=True),
    sa.Column("reader_id", sa.String(40), sa.ForeignKey("readers.reader_id"), nullable=False),
    sa.Column("made_utc", sa.String(30), nullable=False),
    sa.Column("expires_utc", sa.String(30), nullable=False),
    sa.Column("revoked_utc", sa.String(30)),
)
EVENTS = sa.Table(
    "events",
    metadata,
    sa.Column("reader_id", sa.String(40), sa.ForeignKey("readers.reader_id"), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("message_id", sa.String(64), nullable=False),
    sa.Column("event", sa.String(20), nullable=False),
    sa.Column("blind_id", sa.String(64), nullable=False),
    sa.Column("payload_sha256", sa.String(64), nullable=False),
    sa.Column("browser_utc", sa.String(30), nullable=False),
    sa.Column("server_utc", sa.String(30), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.UniqueConstraint("reader_id", "message_id"),
)
PAYLOADS = sa.Table(
    "payloads",
    metadata,
    sa.Column("reader_id", sa.String(40), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("payload", sa.Text, nullable=False),
    sa.ForeignKeyConstraint(["reader_id", "sequence"], ["events.reader_id", "events.sequence"]),
)

_REFUSALS = (
    ("events", "UPDATE", ""),
    ("events", "DELETE", ""),
    ("payloads", "UPDATE", ""),
    ("payloads", "DELETE", HOLLOW),
)


class StoreError(RuntimeError):
    """The store cannot be opened or used as asked; the message says what to do."""


def open_store(place: str | Path) -> Engine:
    """The store at a path (SQLite:

    WAL, every commit flushed to disk) or a database URL; made when absent.

    Raises StoreError on a network file system, where SQLite's locks cannot be relied on, and for a
    database that does not answer.
    """
    if "://" in str(place):
        engine = _by_url(str(place))
    else:
        path = Path(place).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = file_system(path.parent)
        if kind.startswith(NETWORK_FILE_SYSTEMS):
            raise StoreError(
                f"{path} lies on a network file system ({kind}): put the store on a local disk, or"
                " use PostgreSQL by URL."
            )
        engine = sa.create_engine(
            f"sqlite:///{path}", connect_args={"timeout": 2, "check_same_thread": False}
        )
        _prepare_sqlite(engine)
    try:
        with engine.begin() as connection:
            metadata.create_all(connection)
            for statement in _triggers(engine.dialect.name):
                connection.exec_driver_sql(statement)
    except exc.DBAPIError as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise StoreError(
            f"The store {shown} cannot be opened ({str(error.orig).splitlines()[0]})."
        ) from None
    return engine


def _by_url(url: str) -> Engine:
    scheme, rest = url.split("://", 1)
    scheme = "postgresql+psycopg" if scheme in ("postgres", "postgresql") else scheme
    try:
        return sa.create_engine(f"{scheme}://{rest}", pool_pre_ping=True)
    except (exc.ArgumentError, ModuleNotFoundError, ValueError):
        raise StoreError(
            "The database URL is not understood: write postgresql://user:password@host/database."
        ) from None


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


def _prepare_sqlite(engine: Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def settings(connection, _):
        connection.isolation_level = None  # transactions are begun below, before the first read
        for setting in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",
        ):
            connection.execute(f"PRAGMA {setting}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql(
            "BEGIN IMMEDIATE" if not connection.get_execution_options().get("reading") else "BEGIN"
        )


def _triggers(dialect: str) -> list[str]:
    made = []
    for table, change, unless in _REFUSALS:
        name = f"no_{change.lower()}_of_{table}"
        exception = (
            "NOT EXISTS (SELECT 1 FROM events WHERE events.reader_id = OLD.reader_id AND"
            f" events.event = '{unless}')"
        )
        if dialect == "sqlite":
            when = f"WHEN {exception}" if unless else ""
            body = "BEGIN SELECT RAISE(ABORT, 'the record is append-only'); END"
            made.append(
                f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE {change} ON {table} {when} {body}"
            )
        else:
            refuse = (
                f"IF {exception if unless else 'TRUE'} THEN RAISE EXCEPTION 'the record is"
                " append-only'; END IF; RETURN OLD;"
            )
            made.append(
                f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger AS $$ BEGIN {refuse} END $$"
                " LANGUAGE plpgsql"
            )
            made.append(
                f"CREATE OR REPLACE TRIGGER {name} BEFORE {change} ON {table} FOR EACH ROW EXECUTE"
                f" FUNCTION {name}()"
            )
    if dialect != "sqlite":
        made.append(
            "CREATE OR REPLACE FUNCTION no_truncate() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION"
            " 'the record is append-only'; END $$ LANGUAGE plpgsql"
        )
        made += [
            f"CREATE OR REPLACE TRIGGER no_truncate_{t} BEFORE TRUNCATE ON {t} EXECUTE FUNCTION"
            " no_truncate()"
            for t in ("events", "payloads")
        ]
    return made
