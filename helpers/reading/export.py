"""Exports the store to events.csv, answers.csv, readings.csv and readers.csv. The runner calls
`collect` for stage 07.
"""

import json
import tempfile
from pathlib import Path

import pandas as pd
from sqlalchemy import URL, Engine, create_engine

from helpers import protocol, tables
from helpers.plurals import counted
from helpers.reading import accounts, backup, chain, reader_state, record, setting, store
from helpers.runner import runs

TABLES = {  # file -> its declaration in table_columns
    "events": "events",
    "answers": "given_answers",
    "readings": "readings",
    "readers": "readers",
}


def collect(run: runs.Run) -> str:
    """Export the read of a 07 run.

    Returns "" if it is complete, else one sentence: who still has to read what, and what to do.

    Raises SettingError, and StoreError also for a record that does not verify.
    """
    run.reads(run.parameters.reading_set)
    opened = setting.setting_of(run)
    own_file = run.folder / "readings.sqlite"
    if opened.store_place == own_file and not own_file.exists():
        return (
            f"Nobody is reading yet: `make reader STUDY={run.study}` starts the page and prints"
            " each reader's link."
        )
    engine = store.open_store(opened.store_place)
    try:
        if wrong := store.verify(engine):
            raise store.StoreError(
                f"The record of study '{run.study}' does not verify: {'; '.join(wrong[:3])}."
                " Compare it with a backup."
            )
        for name, frame in export(engine, opened).items():
            if not run.finished:
                tables.write(frame, run.file(f"{name}.csv"), TABLES[name])
        return waiting(engine, opened)
    finally:
        engine.dispose()


def added_since(folder: Path) -> int | None:
    """How many events a run folder's record has gained since events.csv was written; None if the
    record does not verify or lacks one of those events. Nothing is written into the record.
    """
    then = tables.read(folder / "events.csv")
    kept = create_engine(URL.create("sqlite", database=str(folder / "readings.sqlite")))
    with tempfile.TemporaryDirectory() as beside:
        try:
            engine = store.open_store(backup.backup(kept, Path(beside) / "readings.sqlite"))
        except store.StoreError:
            return None
        wrong, events = store.verify(engine), store.events(engine)
        engine.dispose()
    lost = set(then["hash"]) - {event.hash for event in events}
    return None if wrong or lost else len(events) - len(then)


def waiting(engine: Engine, opened: setting.Setting) -> str:
    """One sentence on who still has to read what, and what to do; "" if every reader has locked and
    there are enough readers.
    """
    open_readers, locked, states = [], 0, accounts.code_states(engine)
    to_read = {image.blind_id for image in opened.items if not image.training}
    for reader, _, own in reader_state.every_record(engine):
        name = reader["reader_id"]
        locked += own.phase == "locked"
        if own.phase in ("locked", "withdrawn", "erased") or states[name] == "revoked":
            continue
        left = len(to_read - own.answers.keys())
        task = f"has {left} of {len(to_read)} images left" if left else "has to lock the answers"
        open_readers.append(f"{name} {task}")
    missing = opened.parameters.number_of_readers - locked - len(open_readers)
    if missing > 0:
        open_readers.append(f"{counted(missing, 'more reader')} must be added")
    if not open_readers:
        return ""
    return (
        f"{'; '.join(open_readers)}: `make reader STUDY={opened.study}` serves the page; then run"
        " the study again."
    )


def export(engine: Engine, opened: setting.Setting) -> dict[str, pd.DataFrame]:
    """The four tables: every event; the valid answers of readers who have locked and not withdrawn,
    with one row per question and with one row per image; and the readers.
    """
    rows = {name: [] for name in TABLES}
    for reader, kept, own in reader_state.every_record(engine):
        rows["events"] += [_event_row(event) for event in kept]
        rows["readers"].append(_reader_row(reader, own))
        if own.phase == "locked":
            given, read = _answers(reader["reader_id"], own, opened)
            rows["answers"] += given
            rows["readings"] += read
    return {
        name: tables.check(pd.DataFrame(found), TABLES[name])
        if found
        else tables.empty(TABLES[name])
        for name, found in rows.items()
    }


def _answers(reader_id: str, own: record.Record, opened: setting.Setting) -> tuple[list, list]:
    """Rows of answers.csv and readings.csv of a reader; images that are not scored are left out."""
    once = {protocol.READER: own.registered, **own.begun}
    given = [
        {"reader_id": reader_id, "block": block} | answer
        for block, answers in once.items()
        for answer in _rows_of(answers, opened.protocol.questions_of(block))
    ]
    views = []
    for block, images in own.blocks.items():
        questions = opened.protocol.questions_of(block)
        scored = (blind_id for blind_id in images if not opened.images[blind_id].training)
        for position, blind_id in enumerate(scored, 1):
            if (answers := own.answers.get(blind_id)) is None:
                continue  # no answer of a model
            where = {"reader_id": reader_id, "block": block, "blind_id": blind_id}
            rows = list(_rows_of(answers, questions))
            given += [where | answer for answer in rows]
            view = {answer["question"]: answer["value"] for answer in rows}
            if protocol.LABEL in view:
                own_row = {name: answers.get(name) for name in ("seconds", "changes")}
                own_row |= {name: view.get(name) for name in protocol.PUBLISHED}
                own_row["poor_quality"] = view.get("poor_quality") == "true"
                views.append(where | {"position": position} | own_row)
    return given, views


def _rows_of(answers: dict, questions: list[protocol.Question]):
    for question in questions:
        if not protocol.empty(value := answers.get(question.id)):
            yield {"question": question.id, "value": spreadsheet_safe(protocol.as_text(value))}


def _event_row(event: chain.Event) -> dict:
    erased = {"erased": True, "sha256": event.payload_sha256}
    payload = erased if event.payload is None else event.payload
    return {
        **{name: getattr(event, name) for name in ("reader_id", "sequence", "event", "hash")},
        "blind_id": event.blind_id or None,
        "payload": chain.payload_text(payload),
        "browser_utc": event.browser_utc or None,
        "server_utc": event.server_utc,
    }


def _reader_row(reader: dict, own: record.Record) -> dict:
    gone = own.phase in ("withdrawn", "erased")
    # A question that is asked once may be in any block.
    once = [own.registered, *own.begun.values()]
    particulars = {} if gone else {name: value for one in once for name, value in one.items()}
    display = {} if gone else own.display
    return {
        "reader_id": reader["reader_id"],
        "kind": own.kind,
        "years": particulars.get("years"),
        "specialty": spreadsheet_safe(particulars.get("specialty", "")) or None,
        "prior_ai": particulars.get("prior_ai"),
        "display_steps_seen": display.get("steps_seen"),
        "room_light": display.get("room_light"),
        "device": display.get("device"),
        "consent_utc": own.consented_utc or None,
        "locked_utc": own.locked_utc or None,
        "withdrawn_utc": own.withdrawn_utc or None,
        "simulated": bool(reader["simulated"]),
    }


def spreadsheet_safe(text: str) -> str:
    """Free text that no spreadsheet takes for a formula: = + - @ at its start get an apostrophe.

    The event keeps the original.
    """
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def check_export(frame: pd.DataFrame) -> list[str]:
    """The faults of an events.csv by itself, with the checks that the store also uses."""
    return [
        f"{reader_id}: {phrase}"
        for reader_id, rows in frame.groupby("reader_id")
        for phrase in chain.check_chain([_event(row) for row in rows.to_dict("records")])
    ]


def _event(row: dict) -> chain.Event:
    payload = json.loads(row["payload"])
    erased = payload.get("erased") is True
    sha = payload["sha256"] if erased else chain.digest(chain.payload_text(payload))
    texts = {name: "" if pd.isna(row[name]) else row[name] for name in ("blind_id", "browser_utc")}
    row = row | texts | {"sequence": int(row["sequence"]), "message_id": ""}
    return chain.Event(**row | {"payload": None if erased else payload, "payload_sha256": sha})
