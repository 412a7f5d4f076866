"""The durable record: append-only, chained, recognised when sent again, verified, erased,
copied.
"""

import json
import multiprocessing
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.reading import accounts, backup, chain, schema, store, troubles

MESSAGE = {
    "id": "message-1",
    "event": "answered",
    "blind_id": "b1",
    "payload": {"label": "fake"},
    "browser_utc": "2026-01-01T00:00:00.000Z",
}


@pytest.fixture
def engine(tmp_path):
    engine = store.open_store(tmp_path / "readings.sqlite")
    accounts.add_reader(engine, "reader-a")
    yield engine
    engine.dispose()


def message(number: int, **changes) -> dict:
    return {
        **MESSAGE,
        "id": f"message-{number}",
        "payload": {"label": "fake", "seconds": number},
        **changes,
    }


def test_resend_is_recognised_and_another_content_refused(engine):
    first = store.append(engine, "reader-a", MESSAGE)
    again = store.append(engine, "reader-a", MESSAGE)
    assert (first["sequence"], again["sequence"], again["again"]) == (1, 1, True)
    with pytest.raises(store.Refused):
        store.append(engine, "reader-a", {**MESSAGE, "payload": {"label": "real"}})
    with pytest.raises(store.Refused):
        store.append(engine, "reader-a", {**MESSAGE, "blind_id": "b2"})
    assert len(store.events(engine, "reader-a")) == 1


def test_a_rule_refuses_inside_the_transaction(engine):
    def rule(events, sent):
        raise store.Refused("no")

    with pytest.raises(store.Refused):
        store.append(engine, "reader-a", MESSAGE, rule)
    assert store.events(engine) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET event = 'x'",
        "DELETE FROM events",
        "UPDATE payloads SET payload = '{}'",
        "DELETE FROM payloads",
    ],
)
def test_change_and_deletion_are_refused(engine, statement):
    store.append(engine, "reader-a", MESSAGE)
    with pytest.raises(sa.exc.IntegrityError, match="append-only"), engine.begin() as connection:
        connection.exec_driver_sql(statement)


TAMPERINGS = {
    "payload": "UPDATE payloads SET payload = replace(payload, 'fake', 'real') WHERE sequence = 3",
    "digest too": "UPDATE events SET payload_sha256 = 'a' WHERE sequence = 3",
    "time": "UPDATE events SET server_utc = '2020-01-01T00:00:00.000Z' WHERE sequence = 2",
    "message id": "UPDATE events SET message_id = 'message-x' WHERE sequence = 2",
    "person or simulated": "UPDATE readers SET simulated = NOT simulated",
    "order of two swapped": (
        "UPDATE events SET sequence = sequence + 100 WHERE sequence IN (2, 3); "
        "UPDATE events SET sequence = 105 - sequence WHERE sequence > 100"
    ),
    "another reader's event": (
        "INSERT INTO readers SELECT 'reader-b', simulated, added_utc, events, head FROM readers"
    ),
    "made up event": (
        "INSERT INTO events SELECT reader_id, 6, 'message-6', event, blind_id, payload_sha256,"
        " browser_utc, server_utc, hash FROM events WHERE sequence = 5"
    ),
    "head and count fitted": (
        "DELETE FROM payloads WHERE sequence = 5; DELETE FROM events WHERE sequence = 5; UPDATE"
        " readers SET events = 4"
    ),
    "made up erasure": (
        "DELETE FROM payloads WHERE sequence = 2; UPDATE events SET event = 'erased' WHERE"
        " sequence = 5"
    ),
    "image": "UPDATE events SET blind_id = 'b9' WHERE sequence = 2",
    "payload gone": "DELETE FROM payloads WHERE sequence = 4",
    "event gone": "DELETE FROM payloads WHERE sequence = 2; DELETE FROM events WHERE sequence = 2",
    "tail cut": "DELETE FROM payloads WHERE sequence = 5; DELETE FROM events WHERE sequence = 5",
    "all gone": "DELETE FROM payloads; DELETE FROM events",
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_verify_finds_tampering_behind_the_triggers(engine, what):
    store.append(engine, "reader-a", message(0, payload={"order": ["b1"], "simulated": False}))
    for number in range(1, 5):
        store.append(engine, "reader-a", message(number))
    assert store.verify(engine) == []
    engine.dispose()
    raw = sqlite3.connect(engine.url.database)
    for table, change, _ in schema._REFUSALS:
        raw.execute(f"DROP TRIGGER no_{change.lower()}_of_{table}")
    raw.executescript(TAMPERINGS[what])
    raw.commit()
    raw.close()
    assert store.verify(engine)


def test_a_dropped_reader_and_a_cut_record_are_found_by_the_hashes_that_readers_kept(engine):
    accounts.add_reader(engine, "reader-b")
    heads = {name: store.append(engine, name, MESSAGE)["hash"] for name in ("reader-a", "reader-b")}
    raw = sqlite3.connect(engine.url.database)
    for table, change, _ in schema._REFUSALS:
        raw.execute(f"DROP TRIGGER no_{change.lower()}_of_{table}")
    raw.executescript(
        "DELETE FROM payloads; DELETE FROM events; DELETE FROM readers WHERE reader_id = 'reader-b'"
    )
    raw.execute("UPDATE readers SET events = 0, head = ?", (schema.FIRST_HASH,))
    raw.commit()
    raw.close()
    assert store.verify(engine, heads) == [
        "reader-a: the hash that the reader kept is not in the record",
        "reader-b: is not a reader of the study",
    ]


def test_a_rewritten_record_is_found_by_the_hash_that_the_reader_kept(engine):
    head = store.append(engine, "reader-a", MESSAGE)["hash"]
    assert store.verify(engine, {"reader-a": head}) == []
    assert store.verify(engine, {"reader-a": "f" * 64}) == [
        "reader-a: the hash that the reader kept is not in the record"
    ]


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(text=st.text(max_size=80), number=st.floats(allow_nan=False, allow_infinity=False))
def test_any_payload_comes_back_as_it_was_sent_and_verifies(engine, text, number):
    text = text.encode("utf-8", "replace").decode()
    identity = f"m-{chain.digest(json.dumps([text, number]))[:20]}"
    store.append(
        engine,
        "reader-a",
        message(0, id=identity, payload={"description": text, "seconds": number}),
    )
    kept = next(event for event in store.events(engine) if event.message_id == identity)
    assert (kept.payload["description"], kept.payload["seconds"]) == (text, number)
    assert store.verify(engine) == []


def test_erasure_leaves_a_tombstone_and_the_chain_holds(engine):
    store.append(engine, "reader-a", message(1, payload={"specialty": "secret words"}))
    store.erase(engine, "reader-a", "asked by the reader")
    kept = store.events(engine, "reader-a")
    assert kept[0].payload is None and kept[1].event == "erased" and kept[1].payload["reason"]
    assert store.verify(engine) == []
    store.erase(engine, "reader-a", "asked again, in other words")
    assert len(store.events(engine, "reader-a")) == 2
    files = list(
        Path(engine.url.database).parent.glob("readings.sqlite*")
    )  # while the server is still there
    assert files and not any(b"secret words" in file.read_bytes() for file in files)


def test_an_erasure_that_broke_off_goes_on(engine):
    store.append(engine, "reader-a", message(1))
    store.append(
        engine, "reader-a", {"id": "erased", "event": "erased", "payload": {"reason": "asked"}}
    )  # as far as it came
    store.erase(engine, "reader-a", "asked")
    assert [event.payload is None for event in store.events(engine, "reader-a")] == [True, False]


def test_codes_are_renewed_revoked_and_expire(engine):
    accounts.set_code(engine, "reader-a", "first", "2100-01-01T00:00:00.000Z")
    accounts.set_code(engine, "reader-a", "second", "2100-01-01T00:00:00.000Z")
    assert (accounts.code_holder(engine, "first"), accounts.code_holder(engine, "second")) == (
        "",
        "reader-a",
    )
    assert accounts.code_holder(engine, "second", now="2100-01-02T00:00:00.000Z") == ""
    accounts.revoke(engine, "reader-a")
    assert accounts.code_holder(engine, "second") == "" and accounts.code_states(engine) == {
        "reader-a": "revoked"
    }
    with pytest.raises(store.StoreError, match="no reader"):
        accounts.revoke(engine, "nobody")


def test_network_file_systems_are_told_apart():
    mounts = "a / ext4 rw\nb /mnt nfs4 rw\nc /mnt/local xfs rw\n"
    assert store.file_system("/our share/x", mounts + "d /our\\040share cifs rw\n") == "cifs"
    assert [store.file_system(path, mounts) for path in ("/x", "/mnt/y", "/mnt/local/z")] == [
        "ext4",
        "nfs4",
        "xfs",
    ]


def test_a_store_on_a_network_file_system_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "file_system", lambda path: "nfs4")
    with pytest.raises(store.StoreError, match="local disk"):
        store.open_store(tmp_path / "readings.sqlite")


def _write(path: str, reader_id: str, count: int) -> None:
    engine = store.open_store(path)
    for number in range(count):
        store.append(engine, reader_id, message(number))


def test_several_processes_write_at_once(engine):
    accounts.add_reader(engine, "reader-b")
    engine.dispose()
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_write, args=(engine.url.database, reader, 30))
        for reader in ("reader-a", "reader-a", "reader-b")
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [len(store.events(engine, reader)) for reader in ("reader-a", "reader-b")] == [30, 30]
    assert store.verify(engine) == []


def test_only_postgresql_is_opened_by_url(tmp_path):
    """SQLite opened by URL would commit every statement by itself, not every answer as a whole."""
    with pytest.raises(store.StoreError, match="write postgresql://"):
        store.open_store(f"sqlite:///{tmp_path / 'readings.sqlite'}")


@pytest.mark.parametrize("gone", ["deleted", "replaced"])
def test_nothing_is_acknowledged_into_a_file_that_is_no_longer_there(engine, tmp_path, gone):
    accounts.add_reader(engine, "reader-a")
    store.append(engine, "reader-a", message(1))
    path = tmp_path / "readings.sqlite"
    path.rename(tmp_path / "aside")
    if gone == "replaced":
        path.write_bytes(b"")
    with pytest.raises((sa.exc.DBAPIError, OSError)) as raised:
        store.append(engine, "reader-a", message(2))
    assert troubles.trouble(raised.value)
    (tmp_path / "aside").replace(path)
    store.append(engine, "reader-a", message(2))
    assert len(store.events(engine)) == 2 and store.verify(engine) == []


def test_a_backup_never_replaces_the_store_itself(engine, tmp_path):
    before = (tmp_path / "readings.sqlite").stat().st_ino
    with pytest.raises(store.StoreError, match="is the store itself"):
        backup.backup(engine, tmp_path / "." / "readings.sqlite")
    assert (tmp_path / "readings.sqlite").stat().st_ino == before


def test_backup_while_open_and_copy_into_another_store(engine, tmp_path):
    for number in range(3):
        store.append(engine, "reader-a", message(number))
    kept = store.open_store(backup.backup(engine, tmp_path / "backups" / "one.sqlite"))
    assert store.events(kept) == store.events(engine) and store.verify(kept) == []
    other = store.open_store(tmp_path / "other.sqlite")
    assert backup.copy(engine, other) == 3 and store.events(other) == store.events(engine)
    with pytest.raises(store.StoreError, match="not empty"):
        backup.copy(engine, other)


def test_records_whose_ids_were_not_tied_in_yet_still_hold(engine, monkeypatch):
    monkeypatch.setattr(chain, "_tie", lambda salt, message_id: "")
    store.append(engine, "reader-a", MESSAGE)
    event = store.events(engine)[0]
    before = chain.Event(
        **{**vars(event), "payload": {**event.payload, "salt": event.payload["salt"].rstrip(".")}}
    )
    monkeypatch.undo()
    assert not any("message id" in phrase for phrase in chain.check_chain([before]))
