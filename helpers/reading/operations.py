"""The commands for readers: links, add, renew, revoke, status, export, backup, verify, withdraw,
erase.
"""

import os
import sys
import uuid
from argparse import Namespace
from pathlib import Path

from sqlalchemy import Engine

from helpers import protocol
from helpers.files import utc_now
from helpers.plurals import counted
from helpers.reading import accounts, backup, reader_state, store
from helpers.reading.setting import Setting

LOCAL = ("://127.0.0.1", "://[::1]", "://localhost")


def greet(engine: Engine, opened: Setting, options: Namespace) -> None:
    """When serving starts, add the missing readers and print each new link once. With --no-links,
    or if systemd's journal stores the output, print none: a log must not hold working links.
    """
    journal = "JOURNAL_STREAM" in os.environ and not sys.stdout.isatty()
    quiet = options.no_links or journal
    missing = max(0, opened.parameters.number_of_readers - len(accounts.readers(engine)))
    added = [accounts.add_reader(engine) for _ in range(missing)]
    if added and quiet:
        _say(f"Readers added: {missing}. Only DO=links prints their links.")
    elif added:
        _print_links(engine, opened, added, options)
        _say(
            "Links are shown only once: send each to one reader. DO=renew ARGS=READER makes a new"
            " one."
        )
    texts = ("protocol", "ethics", "contact")
    if unwritten := [name for name in texts if "enter the " in str(opened.texts.get(name, ""))]:
        _say(
            f"Readers would see placeholders in study.yaml ({', '.join(unwritten)}): fill it in,"
            " then redo 06."
        )
    status(engine, opened, options)


def _say(text: str) -> None:
    print(text, flush=True)


def _print_links(engine: Engine, opened: Setting, ids: list[str], options: Namespace) -> None:
    for reader_id in ids:
        code = accounts.new_code(engine, reader_id, opened.parameters.code_days)
        _say(f"{reader_id}  {options.link}{code}")
    if ids and any(host in options.link for host in LOCAL):
        again = f"renew ARGS='{ids[0]} " if options.command == "renew" else "links ARGS='"
        _say(
            f"Links of this address work only on this machine. For readers elsewhere: DO={again}"
            "--url https://study.example.org/'."
        )


def links(engine: Engine, opened: Setting, options: Namespace) -> None:
    """New links for the readers who have not signed in yet and are not revoked."""
    codes = accounts.code_states(engine)
    waiting = [
        reader["reader_id"]
        for reader in accounts.readers(engine)
        if not reader["events"] and codes[reader["reader_id"]] != "revoked"
    ]
    _print_links(engine, opened, waiting, options)
    if waiting:
        _say("These links replace the earlier links of the same readers, which no longer work.")
    else:
        _say(
            "Every reader has signed in already or is revoked: DO=renew ARGS=READER makes one"
            " reader a new link."
        )


def add(engine: Engine, opened: Setting, options: Namespace) -> None:
    """Add one reader."""
    if options.reader and _named(options) in accounts.code_states(engine):
        name = options.reader
        raise store.StoreError(f"{name} is a reader already: DO=renew ARGS={name} makes a link.")
    _print_links(engine, opened, [accounts.add_reader(engine, options.reader)], options)


def renew(engine: Engine, opened: Setting, options: Namespace) -> None:
    """Make a new code for a reader; the old code and its sessions end."""
    _print_links(engine, opened, [_named(options)], options)


def revoke(engine: Engine, opened: Setting, options: Namespace) -> None:
    """End a reader's code and sessions; the answers stay."""
    reader_id = _named(options)
    accounts.revoke(engine, reader_id)
    _say(f"{reader_id} can no longer sign in; DO=renew ARGS={reader_id} lets the reader in again.")


def status(engine: Engine, opened: Setting, options: Namespace) -> None:
    """Print who has read how much, without labels."""
    codes = accounts.code_states(engine)
    to_read = {image.blind_id for image in opened.items if not image.training}
    lines = [f"{'reader':<16}{'read':>10}  {'phase':<14}{'code':<9}last seen"]
    for reader, kept, own in reader_state.every_record(engine):
        name = reader["reader_id"]
        seen = kept[-1].server_utc[:16].replace("T", " ") if kept else "never"
        phase = own.phase if kept else "not begun"
        read = f"{len(to_read & own.answers.keys()):>4} of {len(to_read):<3}"
        lines.append(f"{name:<16}{read}  {phase:<14}{codes[name]:<9}{seen}")
    _say("\n".join(lines))


def export(engine: Engine, opened: Setting, options: Namespace) -> None:
    """Export events.csv, answers.csv, readings.csv and readers.csv into a folder (--to), or the
    whole store into another one (--to FILE.sqlite or a URL).
    """
    target = options.to or str(opened.folder / "export")
    if "://" in target or target.endswith(".sqlite"):
        other = store.open_store(target)
        print(f"{counted(backup.copy(engine, other), 'event')} copied into {store.named(other)}.")
        other.dispose()
        return
    from helpers import tables  # import pandas only here, never where readers are served
    from helpers.reading import export as exporting

    for name, frame in exporting.export(engine, opened).items():
        tables.write(frame, Path(target) / f"{name}.csv", exporting.TABLES[name])
    print(
        f"events.csv, answers.csv, readings.csv and readers.csv are in {target}. answers.csv and"
        " readings.csv hold the answers of readers who have locked; events.csv holds all answers."
    )


def back_up(engine: Engine, opened: Setting, options: Namespace) -> None:
    """Make a consistent copy of the store while readers continue."""
    stamp = utc_now().replace(":", "").replace(".", "")
    usual = opened.folder / "backups" / f"readings-{stamp}.sqlite"
    target = Path(options.to or usual)
    target = target / usual.name if target.is_dir() else target
    _say(f"Backed up to {backup.backup(engine, target)}.")
    # SQLite would play an old -wal file into the copy.
    name = Path(engine.url.database).name
    _say(
        f"To restore it, stop the server, delete {name}, {name}-wal and {name}-shm, and copy this"
        f" file to {name}."
    )


def verify(engine: Engine, opened: Setting, options: Namespace) -> int:
    """Check every chain; with READER and --hash, also check the hash that this reader kept."""
    kept = options.hash and options.hash.strip().lower()
    heads = {_named(options): kept} if options.reader or kept is not None else {}
    wrong = store.verify(engine, heads)
    events = sum(reader["events"] for reader in accounts.readers(engine))
    _say(
        "\n".join(wrong)
        or f"The record is intact: {counted(events, 'event')}, every chain unbroken."
    )
    return 1 if wrong else 0


def withdraw(engine: Engine, opened: Setting, options: Namespace) -> None:
    """Record a withdrawal that a reader reported to the study team: the reader's answers leave the
    analysis.
    """
    reader_id = _named(options)
    reason = protocol.plain_text(options.reason)[:500] or "stated to the study team"
    payload = {"reason": reason, "by": "study team"}
    message = {"id": f"team-{uuid.uuid4()}", "event": "withdrawn", "payload": payload}
    store.append(engine, reader_id, message)
    _say(
        f"{reader_id} has withdrawn, so the answers are not analysed. DO=erase ARGS={reader_id}"
        " also erases them."
    )


def erase(engine: Engine, opened: Setting, options: Namespace) -> None:
    """Erase what a reader wrote; a tombstone stays and the chain stays valid.

    Earlier copies are not changed, but named: the files in the run folder, the kinds elsewhere.
    """
    reason = protocol.plain_text(options.reason)[:500]
    if not reason:
        raise store.StoreError("An erasure needs a reason, which is recorded: add --reason '…'.")
    store.erase(engine, _named(options), reason)
    # A backup that broke off is a .part file.
    copies = [*opened.folder.glob("**/*.sqlite*"), *opened.folder.glob("**/*.csv")]
    own = [f"readings.sqlite{end}" for end in ("", "-wal", "-shm")]
    names = [str(path.relative_to(opened.folder)) for path in copies]
    named = ", ".join(name for name in names if name not in own)
    _say(
        f"All that {options.reader} wrote is erased from the store; the tombstone gives the reason."
        " Earlier copies are not changed: delete them or make them again"
        f" ({named or 'none in the run folder'}). Others may hold the answers elsewhere: backups"
        " and exports made with --to, pg_dump files, other backups of the disk or database, and"
        " what 08 and 10 made of the answers (tables, report, release, poster)."
    )


def _named(options: Namespace) -> str:
    if not options.reader:
        raise store.StoreError(
            f"Which reader? DO={options.command} ARGS=READER; DO=status lists them."
        )
    return accounts.proper_id(options.reader)


COMMANDS = {
    f.__name__: f for f in (links, add, revoke, renew, status, export, verify, withdraw, erase)
} | {"backup": back_up}
