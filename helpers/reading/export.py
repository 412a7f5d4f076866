"""From the store to events.csv, readings.csv and readers.csv; `collect` is what the runner calls
for stage 07.
"""

import json

import pandas as pd
from sqlalchemy import Engine

from helpers import tables
from helpers.reading import accounts, record, setting, store
from helpers.runner import runs


def collect(run: runs.Run) -> str:
    """Export the read of a 07 run.

    Returns "" when it is complete, else one sentence: who still has to read what, and what to do.

    Raises SettingError or StoreError, and StoreError when the record does not verify.
    """
    run.reads(run.parameters.reading_set)
    opened = setting.setting_of(run)
    own_file = run.folder / "readings.sqlite"
    if opened.store_place == own_file and not own_file.exists():
        return (
            f"Nobody reads yet: `make reader STUDY={run.study}` starts the page and prints each"
            " reader's link."
        )
    engine = store.open_store(opened.store_place)
    try:
        wrong = store.verify(engine)
        if wrong:
            raise store.StoreError(
                f"The record of study '{run.study}' does not verify: {'; '.join(wrong[:3])}."
                " Compare it with a backup."
            )
        for name, frame in export(engine, opened).items():
            run.write(f"{name}.csv", frame)
        return waiting(engine, opened)
    finally:
        engine.dispose()


def waiting(engine: Engine, opened: setting.Setting) -> str:
    """Who still has to read what, in one sentence with what to do; "" when every reader has locked
    and there are enough of them.
    """
    open_readers, locked, states = [], 0, accounts.code_states(engine)
    to_read = {image.blind_id for image in opened.images.values() if not image.training}
    for reader in accounts.readers(engine):
        name = reader["reader_id"]
        own = record.fold(store.events(engine, name))
        locked += own.phase == "locked"
        if own.phase in ("locked", "withdrawn", "erased") or states[name] == "revoked":
            continue
        left = len(to_read - own.answers.keys())
        task = f"has {left} of {len(to_read)} images left" if left else "has to lock"
        open_readers.append(f"{name} {task}")
    missing = opened.parameters.number_of_readers - locked - len(open_readers)
    if missing > 0:
        open_readers.append(f"{missing} more reader{'s' if missing > 1 else ''} must be added")
    if not open_readers:
        return ""
    return (
        f"{'; '.join(open_readers)}: `make reader STUDY={opened.study}` serves the page; then run"
        " the study again."
    )


def export(engine: Engine, opened: setting.Setting) -> dict[str, pd.DataFrame]:
    """The three tables: every event, the answers that stand of locked readers who have not
    withdrawn, and the readers.
    """
    rows = {"events": [], "readings": [], "readers": []}
    for reader in accounts.readers(engine):
        kept = store.events(engine, reader["reader_id"])
        own = record.fold(kept)
        rows["events"] += [_event_row(event) for event in kept]
        rows["readers"].append(_reader_row(reader, own))
        if own.phase == "locked":
            read = [blind_id for blind_id in own.order if not opened.images[blind_id].training]
            rows["readings"] += [
                {"reader_id": reader["reader_id"], "blind_id": blind_id, "position": number}
                | _answer_row(own.answers[blind_id])
                for number, blind_id in enumerate(read, 1)
            ]
    return {
        name: tables.check(pd.DataFrame(found), name) if found else tables.empty(name)
        for name, found in rows.items()
    }


def _event_row(event: store.Event) -> dict:
    erased = {"erased": True, "sha256": event.payload_sha256}
    payload = erased if event.payload is None else event.payload
    row = {name: getattr(event, name) for name in ("reader_id", "sequence", "event", "hash")}
    return row | {
        "blind_id": event.blind_id or None,
        "payload": store.payload_text(payload),
        "browser_utc": event.browser_utc or None,
        "server_utc": event.server_utc,
    }


def _answer_row(answer: dict) -> dict:
    return {name: answer.get(name) for name in ("label", "confidence", "seconds", "changes")} | {
        "poor_quality": bool(answer.get("poor_quality")),
        "description": inert(answer.get("description", "")) or None,
        "findings": "|".join(answer.get("findings", [])) or None,
        "side": answer.get("side") or None,
        "cues": "|".join(answer.get("cues", [])) or None,
    }


def _reader_row(reader: dict, own: record.Record) -> dict:
    gone = own.phase in ("withdrawn", "erased")
    particulars, display = ({}, {}) if gone else (own.registered, own.display)
    return {
        "reader_id": reader["reader_id"],
        "years": particulars.get("years"),
        "specialty": inert(particulars.get("specialty", "")) or None,
        "prior_ai": particulars.get("prior_ai"),
        "display_steps_seen": display.get("steps_seen"),
        "room_light": display.get("room_light"),
        "device": display.get("device"),
        "consent_utc": own.consented_utc or None,
        "locked_utc": own.locked_utc or None,
        "withdrawn_utc": own.withdrawn_utc or None,
        "simulated": bool(reader["simulated"]),
    }


def inert(text: str) -> str:
    """Free text that no spreadsheet takes for a formula: an apostrophe before = + - @ at its start.

    The event keeps the original.
    """
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def check_export(frame: pd.DataFrame) -> list[str]:
    """What does not hold in an events.csv taken alone, checked as the store checks itself."""
    found = []
    for reader_id, rows in frame.groupby("reader_id"):
        found += [
            f"{reader_id}: {phrase}"
            for phrase in store.check_chain([_event(row) for row in rows.to_dict("records")])
        ]
    return found


def _event(row: dict) -> store.Event:
    payload = json.loads(row["payload"])
    erased = payload.get("erased") is True
    sha = payload["sha256"] if erased else store.digest(store.payload_text(payload))
    texts = {name: "" if pd.isna(row[name]) else row[name] for name in ("blind_id", "browser_utc")}
    row = row | texts | {"sequence": int(row["sequence"]), "message_id": ""}
    return store.Event(**row | {"payload": None if erased else payload, "payload_sha256": sha})
