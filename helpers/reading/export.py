"""From the store to events.csv, readings.csv and readers.csv; the one function that the runner
calls for stage 07.
"""

import json

import pandas as pd
from sqlalchemy import Engine

from helpers import tables
from helpers.reading import record, setting, store
from helpers.runner import runs


def collect(run: runs.Run) -> str:
    """Export the read of a 07 run.

    Returns "" when it is complete, else one sentence: who still has to read what, and what to do.

    With `readers: simulated` the simulated readers answer first, through the same store. Raises
    SettingError or StoreError, and StoreError when the record does not verify.
    """
    run.reads(run.parameters["reading_set"])
    opened = setting.load(run.study, values=run.parameters)
    opened = setting.Setting(run.study, opened.asked, opened.told, opened.pictures, run.folder)
    if run.parameters["readers"] == "simulated" and not run.finished:
        from helpers.rehearsal import readers

        run.mark_simulated("readers")
        readers.read(run, opened)
    elif (
        not (run.folder / "readings.sqlite").exists()
        and opened.store_place == run.folder / "readings.sqlite"
    ):
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
        exported = export(engine, opened)
        for name, frame in exported.items():
            run.write(f"{name}.csv", frame)
        return waiting(engine, opened)
    finally:
        engine.dispose()


def waiting(engine: Engine, opened: setting.Setting) -> str:
    """Who still has to read what, in one sentence with what to do; "" when every reader has locked
    and there are enough of them.
    """
    open_readers, locked = [], 0
    for reader_id, own, code in _standing(engine):
        gone = own.withdrawn_utc or own.erased
        if own.locked_utc and not gone:
            locked += 1
        elif not gone and code != "revoked":
            read = [
                blind_id for blind_id in own.order if not opened.pictures[blind_id].training
            ] or [picture.blind_id for picture in opened.pictures.values() if not picture.training]
            left = sum(blind_id not in own.answers for blind_id in read)
            open_readers.append(
                f"{reader_id} has {left} of {len(read)} images left"
                if left
                else f"{reader_id} has to lock"
            )
    missing = opened.asked["number_of_readers"] - locked - len(open_readers)
    if missing > 0:
        open_readers.append(f"{missing} more reader{'s' if missing > 1 else ''} must be added")
    if not open_readers:
        return ""
    return (
        f"{'; '.join(open_readers)}: `make reader STUDY={opened.study}` serves the page; then run"
        " the study again."
    )


def _standing(engine: Engine) -> list[tuple[str, record.Record, str]]:
    states = store.code_states(engine)
    return [
        (r["reader_id"], record.fold(store.events(engine, r["reader_id"])), states[r["reader_id"]])
        for r in store.readers(engine)
    ]


def export(engine: Engine, opened: setting.Setting) -> dict[str, pd.DataFrame]:
    """The three tables: every event, the answers that stand of locked readers who have not
    withdrawn, and the readers.
    """
    events, readings, people = [], [], []
    for reader in store.readers(engine):
        kept = store.events(engine, reader["reader_id"])
        own = record.fold(kept)
        events += [_event_row(event) for event in kept]
        people.append(_reader_row(reader, own))
        if own.locked_utc and not own.withdrawn_utc and not own.erased:
            read = [blind_id for blind_id in own.order if not opened.pictures[blind_id].training]
            readings += [
                _reading_row(reader["reader_id"], own.answers[b], b, number)
                for number, b in enumerate(read, 1)
            ]
    rows = {"events": events, "readings": readings, "readers": people}
    return {
        name: tables.check(pd.DataFrame(rows[name]), name) if rows[name] else tables.empty(name)
        for name in rows
    }


def _event_row(event: store.Event) -> dict:
    payload = (
        event.payload
        if event.payload is not None
        else {"erased": True, "sha256": event.payload_sha256}
    )
    times = {"browser_utc": event.browser_utc or None, "server_utc": event.server_utc}
    named = {
        "reader_id": event.reader_id,
        "sequence": event.sequence,
        "event": event.event,
        "blind_id": event.blind_id or None,
    }
    return {**named, "payload": store.payload_text(payload), **times, "hash": event.hash}


def _reading_row(reader_id: str, answer: dict, blind_id: str, position: int) -> dict:
    row = {
        "reader_id": reader_id,
        "blind_id": blind_id,
        "position": position,
        "label": answer["label"],
        "changes": answer["changes"],
    }
    row["confidence"] = answer.get("confidence")
    row["description"] = inert(answer.get("description", "")) or None
    row["findings"] = "|".join(answer.get("findings", [])) or None
    row["side"] = answer.get("side") or None
    row["cues"] = "|".join(answer.get("cues", [])) or None
    row["seconds"] = answer.get("seconds")
    return row


def _reader_row(reader: dict, own: record.Record) -> dict:
    told = {} if own.withdrawn_utc or own.erased else own.registered
    row = {
        "reader_id": reader["reader_id"],
        "years": told.get("years"),
        "specialty": inert(told.get("specialty", "")) or None,
    }
    row |= {
        "prior_ai": told.get("prior_ai"),
        "consent_utc": own.consented_utc or None,
        "locked_utc": own.locked_utc or None,
    }
    return row | {
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
    text = {name: "" if pd.isna(row[name]) else row[name] for name in ("blind_id", "browser_utc")}
    erased = payload.get("erased") is True
    sha = payload["sha256"] if erased else store.digest(store.payload_text(payload))
    kept = None if erased else payload
    return store.Event(
        row["reader_id"],
        int(row["sequence"]),
        "",
        row["event"],
        text["blind_id"],
        kept,
        sha,
        text["browser_utc"],
        row["server_utc"],
        row["hash"],
    )
