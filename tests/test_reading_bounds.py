"""Bounds of what one reader, one visitor and one operator can do: ids, sessions, kernels, messages,
errors, health, erasure. Every one of these did not hold once.
"""

import json
import re
import secrets
import sqlite3
import time
from urllib.parse import quote

import pytest
import reading_studies
from reading_client import Client, Server, message, replies, utc

from helpers.reading import accounts, schema, store, troubles

IDS = ("dr.müller", "Ärztin_7", "читатель", "読影者", "हिन्दी", "a", "r" * 40)
NO_KERNEL = "01234567-0123-0123-0123-0123456789ab"
NO_IDS = ("a/b", "a b", "..", ".", "-a", "r" * 41, "<b>", "a\n", "a\u202eb", "=1+1", "'; --")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("bounds")
    with pytest.MonkeyPatch.context() as patch:
        reading_studies.use(root, patch.setenv)
        reading_studies.make(root, read=6, training=0, number_of_readers=8)
    running = Server(root).start()
    yield running
    running.stop()


def folder(server: Server):
    return server.root / "outputs" / reading_studies.STUDY / "07_read_cases"


def test_ids_of_any_script_sign_in_read_and_are_named_in_no_broken_address(server):
    engine = store.open_store(folder(server) / "readings.sqlite")
    for reader_id in IDS:
        code = accounts.new_code(engine, accounts.add_reader(engine, reader_id), 1)
        reader = Client(server.port)
        assert reader.post("login", {"code": code})[0] == 200
        state = reader.enter()
        assert state["reader"] == reader_id and state["current"]
        address = f"reading/image/{reading_studies.STUDY}/{quote(reader_id, safe='')}"
        assert reader.get(f"{address}/{state['current']}")[0] == 200
    engine.dispose()


@pytest.mark.parametrize("reader_id", NO_IDS)
def test_what_is_no_id_is_refused_in_one_sentence(tmp_path, reader_id):
    engine = store.open_store(tmp_path / "readings.sqlite")
    with pytest.raises(store.StoreError, match="A reader's id is 1 to 40 letters"):
        accounts.add_reader(engine, reader_id)
    assert accounts.readers(engine) == []
    engine.dispose()


def test_the_operator_is_told_what_an_id_is(server):
    done = server.command("add", "a/b")
    assert done.returncode == 1 and "A reader's id is 1 to 40 letters" in done.stderr
    assert "Traceback" not in done.stderr and "login#" not in done.stdout


def test_a_command_says_so_when_it_takes_no_reader_or_the_reader_is_known(server):
    first = server.command("add", "known").stdout
    for arguments in (("links", "known"), ("backup", "copy.sqlite"), ("serve", "known")):
        done = server.command(*arguments)
        assert done.returncode == 1 and "takes no reader" in done.stderr and not done.stdout
    again = server.command("add", "known")
    assert again.returncode == 1 and "is a reader already: DO=renew" in again.stderr
    code = first.split("login#")[1].split()[0]
    assert Client(server.port).post("login", {"code": code})[0] == 200
    del server.links["known"]


def test_an_id_is_the_same_however_its_letters_are_composed(tmp_path):
    engine = store.open_store(tmp_path / "readings.sqlite")
    accounts.add_reader(engine, "mu\u0308ller")
    accounts.add_reader(engine, "m\u00fcller")
    assert [reader["reader_id"] for reader in accounts.readers(engine)] == ["m\u00fcller"]
    engine.dispose()


def test_a_copied_cookie_ends_with_the_sign_out(server):
    reader, copy, other = server.client(0), Client(server.port), server.client(0)
    copy.cookie = reader.cookie
    assert copy.get("reading/state")[0] == 200
    assert reader.post("logout", {})[0] == 200
    assert copy.get("reading/state")[0] == 401 and copy.get("")[0] == 302
    assert other.get("reading/state")[0] == 200, "another device's session goes on"


def test_sessions_of_a_code_are_bounded(server):
    engine = store.open_store(folder(server) / "readings.sqlite")
    for _ in range(accounts.MOST_SESSIONS + 3):
        server.client(1)
    with engine.begin() as connection:
        kept = connection.exec_driver_sql("SELECT code_sha256 FROM sessions").scalars().all()
    assert max(kept.count(code) for code in kept) == accounts.MOST_SESSIONS
    engine.dispose()


def test_messages_of_another_reader_s_page_are_not_taken(server):
    first, second = server.client(2), server.client(3)
    second.enter()
    sent = {"id": secrets.token_hex(8), "event": "consented", "browser_utc": utc()}
    status, _ = first.post("reading/record", {"message": sent, "reader": second.state()["reader"]})
    assert status == 401 and first.state()["phase"] == "consent"


def test_twenty_loads_are_not_twenty_kernels(server):
    reader = server.client(0)
    for _ in range(20):
        kernel = reader.open_page()
        assert len(server.kernels()) <= 5, "two of this reader, one being ended, one in stock"
    with reader.socket(kernel):
        pass


def test_more_messages_than_a_reader_can_send_wait(server):
    reader = server.client(4)
    reader.send("consented")
    answers = [reader.post("reading/record", {"message": {}})[0] for _ in range(450)]
    assert set(answers[:300]) == {422} and answers[-1] == 429
    assert server.client(5).send("consented")[0] == 200, "nobody else has to wait"


@pytest.mark.parametrize(
    "browser_utc",
    [
        "2026-02-30T10:00:00.000Z",
        "2026-13-01T00:00:00.000Z",
        "2026-01-01T25:00:00.000Z",
        "1970-01-01T00:00:00.000Z",
        "9999-12-31T23:59:59.999Z",
    ],
)
def test_impossible_browser_times_are_refused(server, browser_utc):
    sent = {"id": secrets.token_hex(8), "event": "consented", "browser_utc": browser_utc}
    status, told = server.client(6).post("reading/record", {"message": sent})
    assert status == 422 and "browser's" in told["error"]


def test_forged_kernel_messages_bring_no_traceback_back_and_none_into_the_log(server):
    reader = server.client(6)
    with reader.socket(reader.open_page()) as socket:
        for kind, content in (
            ("comm_open", {}),
            ("comm_open", {"comm_id": "x", "target_name": "nothing", "data": {}}),
            ("comm_open", {"comm_id": "y", "target_name": "jupyter.widget", "data": {"state": 5}}),
            ("comm_msg", {"comm_id": ["x"], "data": {}}),
            ("comm_msg", {"comm_id": "x", "data": 5}),
            ("comm_msg", {"comm_id": "x", "data": {"method": "update", "buffer_paths": [[1]]}}),
            ("comm_close", {}),
            ("comm_info_request", {"target_name": {"a": 1}}),
            ("execute_request", {"code": "1/0"}),
            ("shutdown_request", {"restart": False}),
        ):
            socket.send(message(kind, content))
        for text in ("{", "[]", "5", '{"header": 5}', b"\x00\x01", b"\xff" * 100):
            socket.send(text)
        socket.send(message("kernel_info_request", {}))
        found = replies(socket, 3)
    kinds = {reply.get("header", {}).get("msg_type") for reply in found if "binary" not in reply}
    assert "kernel_info_reply" in kinds and not kinds & {"error", "stream", "execute_reply"}
    assert "Traceback" not in str(found) and "/helpers/" not in str(found)
    assert "Traceback" not in server.log.read_text()


def test_a_refused_socket_is_one_line_in_the_log(server):
    first, second = server.client(6), server.client(7)
    kernel = first.open_page()
    before = server.log.read_text().count("\n")
    with pytest.raises(Exception, match="403"):
        second.socket(kernel)
    time.sleep(0.5)
    added = server.log.read_text().splitlines()[before:]
    assert len([line for line in added if "channels" in line or line.startswith(" ")]) == 1, added


@pytest.mark.parametrize(
    "path",
    [
        "",
        "login",
        "health",
        "nothing/here",
        "voila/static/nothing.js",
        "reading/static/app.js",
        "reading/static/nothing.js",
        "voila/templates/x",
        "api/kernels/x",
        "voila/labextensions/x/y.js",
        "voila/files/x.png",
        f"api/kernels/{NO_KERNEL}/channels",
    ],
)
def test_every_answer_has_the_strict_headers(server, path):
    for client in (Client(server.port), server.client(7)):
        status, content, headers = client.get(path)
        assert headers["X-Content-Type-Options"] == "nosniff", (path, status)
        assert "default-src 'none'" in headers["Content-Security-Policy"], (path, status)
        assert b"Traceback" not in content
        if path in ("voila/templates/x", "nothing/here"):
            assert status == 404


def test_a_browser_is_told_in_a_sentence_why_there_is_no_page(server):
    reader, browser = server.client(7), {"Accept": "text/html,*/*;q=0.8"}
    status, content, headers = reader.request("GET", "nothing/here", headers=browser)
    assert status == 404 and b"open the link" in content and "Refresh" not in headers
    raw = sqlite3.connect(folder(server) / "readings.sqlite", timeout=20, isolation_level=None)
    raw.execute("ALTER TABLE sessions RENAME TO away")
    status, content, headers = reader.request("GET", "", headers=browser)
    plain = reader.get("reading/state")[1]
    raw.execute("ALTER TABLE away RENAME TO sessions")
    raw.close()
    assert status >= 500 and b"cannot be opened just now" in content and b'"saved"' not in content
    assert headers["Refresh"] == "5" and json.loads(plain)["saved"] is False


def test_verify_answers_only_what_it_was_asked(server):
    name = next(iter(server.links))
    for arguments in (
        ("--hash", "0" * 64),
        (name, "--hash", "0" * 64),
        (name, "--hash", ""),
        ("nobody",),
    ):
        done = server.command("verify", *arguments)
        assert done.returncode == 1 and "intact" not in done.stdout, arguments
    assert "The record is intact" in server.command("verify", name).stdout


def test_health_writes_and_a_locked_store_is_named_in_the_log(server):
    visitor, reader = Client(server.port), server.client(6)
    current = reader.enter()["current"]
    assert visitor.get("health")[0] == 200
    raw = sqlite3.connect(folder(server) / "readings.sqlite", timeout=20)
    raw.execute("BEGIN IMMEDIATE")
    status, content, _ = visitor.get("health")
    refused, told = reader.answer(current)
    raw.rollback()
    raw.close()
    assert (status, json.loads(content)) == (503, {"ok": False})
    assert refused == 503 and told["saved"] is False
    assert "another process holds the store's lock" in server.log.read_text()
    assert visitor.get("health")[0] == 200
    assert reader.answer(current)[0] == 200


def test_a_withdrawal_by_the_team_is_told_as_such_and_an_erased_reader_is_not_registering(server):
    reader, name = server.client(7), list(server.links)[7]
    assert reader.answer(reader.enter()["current"])[0] == 200
    current = reader.state()["current"]
    assert server.command("withdraw", name, "--reason", "a letter").returncode == 0
    status, told = reader.answer(current)
    assert status == 422 and "withdrawn" in told["error"]
    state = reader.state()
    assert (state["phase"], state["withdrawn_by"]) == ("withdrawn", "study team")
    assert reader.picture(current)[0] == 403
    erased = server.command("erase", name, "--reason", "asked")
    assert erased.returncode == 0
    for copy in ("--to", "pg_dump", "08", "report", "release", "poster"):  # outside the run folder
        assert copy in erased.stdout
    line = next(line for line in server.command("status").stdout.splitlines() if name in line)
    assert "erased" in line and "registration" not in line
    assert reader.state()["phase"] == "erased"
    assert server.command("verify").returncode == 0


def test_an_erasure_succeeds_only_when_the_text_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SECONDS_FOR_ERASING", 0.3)
    path = tmp_path / "readings.sqlite"
    engine = store.open_store(path)
    accounts.add_reader(engine, "reader-a")
    words = f"private words {'x' * 6000}"
    sent = {"id": "m1", "event": "registered", "payload": {"specialty": words}}
    store.append(engine, "reader-a", sent)
    other = sqlite3.connect(path)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM payloads").fetchone()
    with pytest.raises(store.StoreError, match="another connection holds the store open"):
        store.erase(engine, "reader-a", "asked")
    other.rollback()
    other.close()
    store.erase(engine, "reader-a", "asked")
    files = list(tmp_path.glob("readings.sqlite*"))
    assert files and not any(b"private words" in file.read_bytes() for file in files)
    assert store.verify(engine) == [] and store.events(engine)[0].payload is None
    engine.dispose()


def test_a_record_of_an_earlier_version_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "readings.sqlite"
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA journal_mode=WAL")
    raw.execute("CREATE TABLE readers (reader_id TEXT PRIMARY KEY, pretended BOOLEAN)")
    raw.commit()
    raw.close()
    before = path.read_bytes()
    with pytest.raises(store.StoreError, match="64a37d2 is the last that reads it"):
        store.open_store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("error", "named"),
    [
        ("database or disk is full", "disk is full"),
        ("database is locked", "lock"),
        ("disk I/O error", "full or failing"),
        ("canceling statement due to lock timeout", "lock"),
        ("could not extend file: No space left on device", "disk is full"),
    ],
)
def test_what_is_wrong_with_the_store_is_said_by_name(error, named):
    raised = schema.sa.exc.OperationalError("INSERT", {}, Exception(error))
    assert named in troubles.trouble(raised)
    assert (
        not re.search("INSERT", troubles.trouble(raised))
        and troubles.trouble(ValueError(error)) == ""
    )
