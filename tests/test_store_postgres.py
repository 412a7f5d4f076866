"""The same record in PostgreSQL, for real: a private cluster on a socket in a temporary folder."""

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import reading_studies
import sqlalchemy as sa
from reading_client import Server
from test_reading_bounds import IDS
from test_store import MESSAGE, message

from helpers.reading import accounts, backup, schema, setting, store, troubles


def programs() -> Path | None:
    """Where initdb and pg_ctl are: on the PATH or where Debian puts them."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next(
        (place for place in places if (place / "pg_ctl").exists() and (place / "initdb").exists()),
        None,
    )


def run_as_owner(*command: str) -> None:
    """PostgreSQL refuses to run as root: there the account that its package made is taken."""
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run([*prefix, *command], check=True, capture_output=True, cwd="/")


@pytest.fixture(scope="module")
def address():
    place = programs()
    if place is None:
        pytest.fail(
            "PostgreSQL is not installed: the record must be tested there too (Debian: apt-get"
            " install postgresql)."
        )
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path must be short
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    data = str(folder / "data")
    run_as_owner(str(place / "initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync")
    control(folder, "start")
    yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
    control(folder, "stop", "-m", "fast")
    shutil.rmtree(folder)


def control(folder: Path, *command: str) -> None:
    """Start or stop the cluster in a folder, and wait until that is done."""
    settings = ("-l", str(folder / "log"), "-o", f"-k {folder} -c listen_addresses=''")
    run_as_owner(str(programs() / "pg_ctl"), "-D", str(folder / "data"), *settings, "-w", *command)


@pytest.fixture
def engine(address):
    engine = store.open_store(address)
    yield engine
    engine.dispose()
    admin = sa.create_engine(address)
    with admin.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    admin.dispose()


def test_the_usual_address_works_and_a_wrong_one_is_one_sentence(engine, address):
    store.open_store(address.replace("+psycopg", "")).dispose()
    with pytest.raises(store.StoreError, match="cannot be opened") as raised:
        store.open_store("postgresql://me:hidden@127.0.0.1:1/nothing")
    assert "hidden" not in str(raised.value)
    with pytest.raises(store.StoreError, match="postgresql://user"):
        store.open_store("nosuch://host/database")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://127.0.0.1:1/nothing?user=me&password=hidden",
        "postgresql://me:se@hidden@127.0.0.1:1/nothing",
    ],
)
def test_no_message_shows_a_password_however_it_is_given(url):
    with pytest.raises(store.StoreError) as raised:
        store.open_store(url)
    assert "hidden" not in str(raised.value)


def test_append_resend_refuse_verify_and_erase(engine):
    accounts.add_reader(engine, "reader-a")
    assert store.append(engine, "reader-a", MESSAGE)["again"] is False
    assert store.append(engine, "reader-a", MESSAGE)["again"] is True
    with pytest.raises(store.Refused):
        store.append(engine, "reader-a", {**MESSAGE, "blind_id": "b2"})
    for number in range(3):
        store.append(engine, "reader-a", message(number + 10))
    assert store.verify(engine) == []
    store.erase(engine, "reader-a", "asked")
    assert store.verify(engine) == [] and [
        event.payload is None for event in store.events(engine)
    ] == [True] * 4 + [False]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET event = 'x'",
        "DELETE FROM payloads",
        "UPDATE payloads SET payload = '{}'",
        "TRUNCATE payloads",
    ],
)
def test_change_and_deletion_are_refused(engine, statement):
    accounts.add_reader(engine, "reader-a")
    store.append(engine, "reader-a", MESSAGE)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.exec_driver_sql(statement)


def test_a_table_that_is_gone_is_named_and_the_answer_is_not_shown(engine):
    accounts.add_reader(engine, "reader-a")
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE payloads RENAME TO away")
    private = {**MESSAGE, "payload": {"description": "private words"}}
    with pytest.raises(sa.exc.DBAPIError) as raised:
        store.append(engine, "reader-a", private)
    assert troubles.trouble(raised.value) == "a table of the store is missing"
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO payloads")
        connection.exec_driver_sql("ALTER TABLE payloads DROP COLUMN payload")
        connection.exec_driver_sql("ALTER TABLE payloads ADD COLUMN payload integer")
        with pytest.raises(sa.exc.DBAPIError) as raised:
            insert = schema.PAYLOADS.insert()
            own = {"reader_id": "reader-a", "sequence": 1, "payload": "private words"}
            connection.execute(insert, own)
    assert "private words" not in str(raised.value)


def test_an_erasure_that_must_wait_says_that_it_is_recorded_and_goes_on(engine):
    accounts.add_reader(engine, "reader-a")
    store.append(engine, "reader-a", MESSAGE)
    with engine.connect() as other:
        other.exec_driver_sql("SELECT count(*) FROM payloads")
        with pytest.raises(store.StoreError, match="is recorded, but another process holds"):
            store.erase(engine, "reader-a", "asked")
    store.erase(engine, "reader-a", "asked")
    assert store.events(engine, "reader-a")[0].payload is None and store.verify(engine) == []


def test_several_hosts_write_one_reader_s_record(engine, address):
    accounts.add_reader(engine, "reader-a")
    hosts = [store.open_store(address) for _ in range(3)]

    def write(host, offset):
        for number in range(20):
            store.append(host, "reader-a", message(offset + number))

    threads = [
        threading.Thread(target=write, args=(host, 100 * place)) for place, host in enumerate(hosts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.events(engine)) == 60 and store.verify(engine) == []
    for host in hosts:
        host.dispose()


def test_restarts_of_the_database_lose_and_double_no_answer(engine, address, tmp_path, monkeypatch):
    """Three readers answer while it is stopped as by a power cut, three times; each sends an answer
    until it is acknowledged, as the page does.
    """
    reading_studies.use(tmp_path, monkeypatch.setenv)
    reading_studies.make(tmp_path, read=25, training=0, number_of_readers=3)
    server = Server(tmp_path, **{setting.DATABASE: address}).start()
    folder, refused = Path(address.partition("host=")[2]), Counter()

    def state_of(client) -> tuple[int, dict]:
        status, content, _ = client.get("reading/state")
        return status, json.loads(content) if status == 200 else {}

    def until_acknowledged(send, *what, **more):
        for _ in range(600):
            status, told = send(*what, **more)
            if status == 200:
                return told
            refused[status] += 1
            time.sleep(0.1)
        raise AssertionError(told)

    def read(number: int) -> list[str]:
        client, given = server.client(number), []
        client.enter()
        while len(given) < 25:
            time.sleep(0.05)
            state = until_acknowledged(state_of, client)
            shown, identity = state["current"], secrets.token_hex(8)
            answer = {"label": "fake", "seconds": 1.5, "description": f"seen {shown}"}
            until_acknowledged(client.send, "shown", shown)
            until_acknowledged(client.send, "answered", shown, identity=identity, **answer)
            given.append(shown)
        return given

    try:
        with ThreadPoolExecutor(3) as pool:
            reading = [pool.submit(read, number) for number in range(3)]
            for _ in range(3):
                time.sleep(0.7)
                control(folder, "stop", "-m", "immediate")
                time.sleep(0.5)
                control(folder, "start")
            assert not all(one.done() for one in reading)
            given = [one.result() for one in reading]
    finally:
        server.stop()
    assert refused and store.verify(engine) == []
    for name, answered in zip(server.links, given):
        kept = [event for event in store.events(engine, name) if event.event == "answered"]
        assert [event.blind_id for event in kept] == answered
    assert "Traceback" not in server.log.read_text()


def test_from_sqlite_to_postgres_and_back(engine, tmp_path):
    first = store.open_store(tmp_path / "first.sqlite")
    accounts.add_reader(first, "reader-a")
    accounts.set_code(first, "reader-a", "digest", "2100-01-01T00:00:00.000Z")
    for number in range(5):
        store.append(first, "reader-a", message(number))
    assert backup.copy(first, engine) == 5
    assert store.events(engine) == store.events(first) and store.verify(engine) == []
    assert accounts.code_holder(engine, "digest") == "reader-a"
    back = store.open_store(tmp_path / "back.sqlite")
    backup.copy(engine, back)
    assert store.events(back) == store.events(first)
    store.append(engine, "reader-a", message(99))
    assert store.verify(engine) == []


@pytest.mark.parametrize("reader_id", IDS)
def test_ids_of_any_script_are_kept_with_their_record_and_code(engine, reader_id):
    kept = accounts.add_reader(engine, reader_id)
    store.append(engine, kept, MESSAGE)
    code = accounts.new_code(engine, kept, 1)
    assert accounts.code_holder(engine, accounts.code_digest(code)) == kept
    assert [event.event for event in store.events(engine, kept)] == [MESSAGE["event"]]
    assert store.verify(engine) == []


@pytest.mark.parametrize("reader_id", ["r" * 41, "a/b", "a b", "-x", "r\x00", "🫁", "DROP TABLE;"])
def test_what_is_no_id_never_reaches_the_database(engine, reader_id):
    with pytest.raises(store.StoreError, match="A reader's id is 1 to 40 letters"):
        accounts.add_reader(engine, reader_id)
    assert accounts.readers(engine) == []
