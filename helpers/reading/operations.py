"""Looking after readers: links, add, renew, revoke, status, export, backup, verify, withdraw,
erase.
"""

import uuid
from argparse import Namespace
from pathlib import Path

from sqlalchemy import Engine

from helpers.reading import identity, keeping, record, store
from helpers.reading.setting import Setting


def greet(engine: Engine, opened: Setting, link: str) -> None:
    """At the start of serving: add the readers that the study wants, and print each new link
    once.
    """
    missing = opened.asked["number_of_readers"] - len(store.readers(engine))
    for _ in range(max(0, missing)):
        _print_link(engine, opened, store.add_reader(engine), link)
    if missing > 0:
        print(
            "Each link is shown this once: send each to one reader. `renew READER` makes another.",
            flush=True,
        )
        if "://127.0.0.1" in link or "://[::1]" in link or "://localhost" in link:
            print(
                "They open on this machine alone. For readers elsewhere: DO=links ARGS='--url"
                " https://study.example.org/'.",
                flush=True,
            )
    unwritten = [
        name
        for name in ("protocol", "ethics", "contact")
        if "enter the " in str(opened.told.get(name, ""))
    ]
    if unwritten:
        print(
            f"Readers are shown study.yaml as it was: {', '.join(unwritten)} still says what to"
            " enter. Write it, then redo 06.",
            flush=True,
        )
    print(_table(engine, opened), flush=True)


def _print_link(engine: Engine, opened: Setting, reader_id: str, link: str) -> None:
    print(
        f"{reader_id}  {link}{identity.new_code(engine, reader_id, opened.asked['code_days'])}",
        flush=True,
    )


def links(engine: Engine, opened: Setting, asked: Namespace, link: str) -> int:
    """New links for the readers who have not signed in yet."""
    waiting = [reader["reader_id"] for reader in store.readers(engine) if not reader["events"]]
    for reader_id in waiting:
        _print_link(engine, opened, reader_id, link)
    if waiting:
        print(
            "These take the place of the links that the same readers had before, which no longer"
            " open."
        )
    else:
        print("Every reader has signed in already: `renew READER` makes one reader a new link.")
    return 0


def add(engine: Engine, opened: Setting, asked: Namespace, link: str) -> int:
    """One more reader."""
    _print_link(engine, opened, store.add_reader(engine, asked.reader), link)
    return 0


def renew(engine: Engine, opened: Setting, asked: Namespace, link: str) -> int:
    """A new code for a reader; the old one and its sessions end."""
    _print_link(engine, opened, _named(asked), link)
    return 0


def revoke(engine: Engine, opened: Setting, asked: Namespace, link: str) -> int:
    """End a reader's code and sessions; what was answered stays."""
    store.revoke(engine, _named(asked))
    print(f"{asked.reader} can no longer sign in; `renew {asked.reader}` lets the reader in again.")
    return 0


def status(engine: Engine, opened: Setting, asked: Namespace, link: str) -> int:
    """Who has read how much, without labels."""
    print(_table(engine, opened))
    return 0


def _table(engine: Engine, opened: Setting) -> str:
    codes = store.code_states(engine)
    lines = [f"{'reader':<16}{'read':>10}  {'phase':<14}{'code':<9}last seen"]
    for reader in store.readers(engine):
        kept = store.events(engine, reader["reader_id"])
        own = record.fold(kept)
        total = sum(not picture.training for picture in opened.pictures.values())
        done = sum(
            blind_id in own.answers and not opened.pictures[blind_id].training
            for blind_id in own.order
        )
        seen = kept[-1].server_utc[:16].replace("T", " ") if kept else "never"
        phase = own.phase if kept else "not begun"
        lines.append(
            f"{reader['reader_id']:<16}{done:>4} of {total:<3} "
            f" {phase:<14}{codes[reader['reader_id']]:<9}{seen}"
        )
    return "\n".join(lines)


def export(engine: Engine, opened: Setting, asked: Namespace, link: str) -> int:
    """events.csv, readings.csv and readers.csv into a folder (--to), or the whole store into
    another one (--to FILE.sqlite or a URL).
    """
    target = asked.to or str(opened.folder / "export")
    if "://" in target or target.endswith(".sqlite"):
        other = store.open_store(target)
        print(
            f"{keeping.copy(engine, other)} events copied into"
            f" {other.url.render_as_string(hide_password=True)}."
        )
        other.dispose()
        return 0
    from helpers import tables  # pandas only here, never where readers are served
    from helpers.reading import export as exporting

    for name, frame in exporting.export(engine, opened).items():
        tables.write(frame, Path(target) / f"{name}.csv")
    print(
        f"events.csv, readings.csv and readers.csv are in {target}. Readings are of readers who"
        " have locked."
    )
    return 0


def backup(engine: Engine, opened: Setting, asked: Namespace, link: str) -> int:
    """A consistent copy of the store while readers go on."""
    stamp = store.utc_now().replace(":", "").replace(".", "")
    usual = opened.folder / "backups" / f"readings-{stamp}.sqlite"
    print(f"Backed up to {keeping.backup(engine, Path(asked.to) if asked.to else usual)}.")
    return 0


def verify(engine: Engine, opened: Setting, asked: Namespace, link: str) -> int:
    """Check every chain; with READER and --hash also the hash that this reader kept."""
    wrong = store.verify(
        engine, {asked.reader: asked.hash} if asked.reader and asked.hash else None
    )
    print(
        "\n".join(wrong)
        if wrong
        else (
            f"The record holds: {sum(r['events'] for r in store.readers(engine))} events, every"
            " chain unbroken."
        )
    )
    return 1 if wrong else 0


def withdraw(engine: Engine, opened: Setting, asked: Namespace, link: str) -> int:
    """Record a withdrawal of consent that reached the study team: the reader's answers leave the
    analysis.
    """
    message = {
        "id": f"desk-{uuid.uuid4()}",
        "event": "withdrawn",
        "payload": {"reason": asked.reason or "told to the study team"},
    }
    store.append(engine, _named(asked), message)
    store.revoke(engine, asked.reader)
    print(
        f"{asked.reader} has withdrawn: the answers leave the analysis. `erase {asked.reader}` also"
        " erases what was written."
    )
    return 0


def erase(engine: Engine, opened: Setting, asked: Namespace, link: str) -> int:
    """Erase what a reader wrote; a tombstone stays and the chain still holds.

    Backups made before are not touched.
    """
    if not asked.reason:
        raise store.StoreError("An erasure is recorded with its reason: add --reason '…'.")
    store.erase(engine, _named(asked), asked.reason)
    store.revoke(engine, asked.reader)
    print(
        f"What {asked.reader} wrote is erased; the tombstone says why. Erase it in the backups and"
        " exports too."
    )
    return 0


def _named(asked: Namespace) -> str:
    if not asked.reader:
        raise store.StoreError(f"Which reader? `{asked.command} READER`; `status` lists them.")
    return asked.reader


COMMANDS = {
    f.__name__: f
    for f in (links, add, revoke, renew, status, export, backup, verify, withdraw, erase)
}
