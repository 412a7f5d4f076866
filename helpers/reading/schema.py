"""The tables of the record, and the triggers that refuse change and deletion in SQLite and
PostgreSQL.
"""

import sqlalchemy as sa

FIRST_HASH = "0" * 64  # the hash before the first event of a record
ERASED = "erased"
LONGEST_ID = 40
metadata = sa.MetaData()
READERS = sa.Table(
    "readers",
    metadata,
    sa.Column("reader_id", sa.String(LONGEST_ID), primary_key=True),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Column("added_utc", sa.String(30), nullable=False),
    sa.Column("events", sa.Integer, nullable=False),
    sa.Column("head", sa.String(64), nullable=False),
)


def _of_reader(**options) -> sa.Column:
    return sa.Column(
        "reader_id", sa.String(LONGEST_ID), sa.ForeignKey("readers.reader_id"), **options
    )


CODES = sa.Table(
    "codes",
    metadata,
    sa.Column("code_sha256", sa.String(64), primary_key=True),
    _of_reader(nullable=False),
    sa.Column("made_utc", sa.String(30), nullable=False),
    sa.Column("expires_utc", sa.String(30), nullable=False),
    sa.Column("revoked_utc", sa.String(30)),
)
SESSIONS = sa.Table(
    "sessions",
    metadata,
    sa.Column("session_sha256", sa.String(64), primary_key=True),
    sa.Column("code_sha256", sa.String(64), sa.ForeignKey("codes.code_sha256"), nullable=False),
    sa.Column("made_utc", sa.String(30), nullable=False),
)
EVENTS = sa.Table(
    "events",
    metadata,
    _of_reader(primary_key=True),
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
    sa.Column("reader_id", sa.String(LONGEST_ID), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("payload", sa.Text, nullable=False),
    sa.ForeignKeyConstraint(["reader_id", "sequence"], ["events.reader_id", "events.sequence"]),
)
HEALTH = sa.Table("health", metadata, sa.Column("checked_utc", sa.String(30), nullable=False))

_REFUSALS = (
    ("events", "UPDATE", ""),
    ("events", "DELETE", ""),
    ("payloads", "UPDATE", ""),
    ("payloads", "DELETE", ERASED),
)
_SQLITE_TRIGGER = (
    "CREATE TRIGGER IF NOT EXISTS {name} BEFORE {change} ON {table} WHEN {condition}"
    " BEGIN SELECT RAISE(ABORT, 'the record is append-only'); END"
)
_POSTGRES_FUNCTION = (
    "CREATE OR REPLACE FUNCTION {name}() RETURNS trigger AS $$ BEGIN IF {condition} THEN"
    " RAISE EXCEPTION 'the record is append-only'; END IF; RETURN OLD; END $$ LANGUAGE plpgsql"
)
_POSTGRES_TRIGGER = (
    "CREATE OR REPLACE TRIGGER {name} BEFORE {change} ON {table} {each} EXECUTE FUNCTION {name}()"
)


def triggers(dialect: str) -> list[str]:
    """The statements that create the triggers; they can be repeated without harm."""
    texts = [_SQLITE_TRIGGER] if dialect == "sqlite" else [_POSTGRES_FUNCTION, _POSTGRES_TRIGGER]
    refusals = [(table, change, unless, "FOR EACH ROW") for table, change, unless in _REFUSALS]
    if dialect != "sqlite":
        refusals += [(table, "TRUNCATE", "", "") for table in ("events", "payloads")]
    made = []
    for table, change, unless, each in refusals:
        condition = (
            "NOT EXISTS (SELECT 1 FROM events WHERE events.reader_id = OLD.reader_id AND"
            f" events.event = '{unless}')"
        )
        blanks = {
            "name": f"no_{change.lower()}_of_{table}",
            "table": table,
            "change": change,
            "each": each,
            "condition": condition if unless else "1 = 1",
        }
        made += [text.format(**blanks) for text in texts]
    return made
