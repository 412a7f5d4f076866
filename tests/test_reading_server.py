"""The reading server as attackers and careless readers meet it: every way in is one reader's own,
or closed.
"""

import contextlib
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import reading_studies
from reading_client import Client, Server, message, replies

from helpers import tables
from helpers.reading import identity, operations

SECRET = "a-secret-of-the-server"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        reading_studies.use(root, patch.setenv)
        reading_studies.make(root, read=6, training=1, number_of_readers=6, going_back="until next")
    running = Server(root, OPENAI_API_KEY=SECRET, SEAL_PASSPHRASE=SECRET).start()
    yield running
    assert running.stop() == 0
    assert not running.kernels()


@pytest.fixture
def two(server):
    """Two signed-in readers of a running server; the second has come as far as the first image."""
    first, second = server.client(0), server.client(1)
    second.enter()
    return first, second


def test_the_serving_process_cannot_know_the_truth():
    code = (
        "import helpers.reading.app, helpers.reading.server, sys; print([m for m in"
        " ('pandas', 'torch', 'helpers.assemble_reading_set.blinding',"
        " 'helpers.assemble_reading_set.seal')"
        " if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_codes_are_printed_once_and_kept_as_digests(server):
    assert len(server.links) == 6
    for path in (
        *server.root.joinpath("outputs").rglob("readings.sqlite*"),
        server.root / "params",
    ):
        content = path.read_bytes() if path.is_file() else b""
        assert not any(
            link.split("#")[1].replace("-", "").encode() in content
            for link in server.links.values()
        )
    again = server.command("status")
    assert again.returncode == 0 and "login#" not in again.stdout and "0 of 6" in again.stdout


def test_nothing_is_served_without_signing_in(server):
    stranger = Client(server.port)
    assert stranger.get("")[0] == 302
    assert stranger.get("reading/state")[0] == 401
    assert stranger.post("reading/record", {"message": {}})[0] == 401
    assert stranger.get(f"reading/image/{reading_studies.STUDY}/reader/b000000000000000")[0] == 401
    kernel = "01234567-0123-0123-0123-0123456789ab"
    assert stranger.get(f"api/kernels/{kernel}")[0] in (302, 403)
    assert stranger.get(f"api/kernels/{kernel}/channels", Upgrade="websocket")[0] in (400, 403)
    stranger.cookie = 'reading-reading_test="2|1:0|10:1|8:reading|4:eA==|abcdef"'
    assert stranger.get("reading/state")[0] == 401


def test_a_kernel_is_its_reader_s_alone(server, two):
    first, second = two
    kernel = first.open_page()
    assert first.get(f"api/kernels/{kernel}")[0] == 200
    assert second.get(f"api/kernels/{kernel}")[0] == 403
    for reader in (first, second):
        assert reader.request("DELETE", f"api/kernels/{kernel}")[0] in (403, 404)
        assert reader.post(f"voila/api/shutdown/{kernel}", {})[0] in (403, 404)
        assert reader.post(f"api/kernels/{kernel}/restart", {})[0] in (403, 404)
    with pytest.raises(Exception, match="403"):
        second.socket(kernel)
    assert first.get(f"api/kernels/{kernel}")[0] == 200
    assert first.get("api/kernels")[0] == 404 and first.get("api/contents")[0] == 404


def test_a_kernel_s_socket_runs_no_code_and_tells_no_truth(server, two):
    first, _ = two
    with first.socket(first.open_page()) as socket:
        socket.send(
            message(
                "execute_request",
                {"code": "import os; os.system('touch /tmp/pwned')", "silent": False},
            )
        )
        socket.send(
            message(
                "comm_open", {"comm_id": "c1", "target_name": "jupyter.widget.control", "data": {}}
            )
        )
        socket.send(message("comm_msg", {"comm_id": "c1", "data": {"method": "request_states"}}))
        found = replies(socket, 3)
        kinds = [reply.get("header", {}).get("msg_type") for reply in found]
        assert "execute_reply" not in kinds and "execute_input" not in kinds
        told = json.dumps([reply for reply in found if "binary" not in reply]) + repr(
            [reply["binary"] for reply in found if "binary" in reply]
        )
        assert "ReadingPage" in told
        state = first.state()
        for hidden in (
            state["reader"],
            state["current"],
            "i1",
            "generated",
            "a model",
            SECRET,
            str(server.root),
        ):
            assert not hidden or f'"{hidden}"' not in told
        model = re.search(
            r'"([0-9a-f]{32})"[^}]*?"AnyModel"|"([0-9a-f]{32})": \{"model_name": "AnyModel"', told
        )
        target = next(group for group in model.groups() if group) if model else "unknown"
        for data in (
            {"method": "update", "state": {"told": 5, "layout": 7}},
            {"method": "custom", "content": {"a": 1}},
            {"method": "x"},
        ):
            socket.send(message("comm_msg", {"comm_id": target, "data": data}))
        after = replies(socket, 2)
        assert "error" not in [reply.get("header", {}).get("msg_type") for reply in after]
        assert "Traceback" not in json.dumps([reply for reply in after if "binary" not in reply])


def test_kernels_get_an_allow_listed_environment(server, two):
    first, _ = two
    status, _, _ = first.get("?token=" + SECRET)
    assert status == 200
    assert server.kernels()
    for process in server.kernels():
        told = Path(f"/proc/{process}/environ").read_bytes()
        assert SECRET.encode() not in told and str(server.root).encode() not in told
        names = {entry.split(b"=")[0].decode() for entry in told.split(b"\0") if entry}
        assert names <= {
            "PATH",
            "LANG",
            "LC_ALL",
            "LC_CTYPE",
            "TZ",
            "TMPDIR",
            "HOME",
            "IPYTHONDIR",
            "PYTHONPATH",
            "PYTHONDONTWRITEBYTECODE",
            "READING_PAGE",
        } | {name for name in names if name.startswith(("JPY_", "PYDEVD"))}


@pytest.mark.parametrize(
    "path",
    [
        "voila/files/07_read_cases.ipynb",
        "voila/files/x.png",
        "voila/query/01234567-0123-0123-0123-0123456789ab",
        "voila/render/07_read_cases.ipynb",
        "voila/tree",
        "voila/api/contents/",
        "07_read_cases.ipynb",
        "reading/static/../store.py",
        "reading/static/..%2f..%2fstore.py",
        "voila/static/..%2f..%2f..%2fetc/passwd",
        "voila/labextensions/..%2f..%2f..%2f..%2fpyvenv.cfg",
        "reading/image/reading_test/../../reading_set.csv",
    ],
)
def test_no_other_file_or_route_is_served(server, two, path):
    assert two[1].get(path)[0] in (301, 302, 400, 403, 404)


def test_template_and_theme_cannot_be_chosen(two):
    first, _ = two
    plain = first.get("")[1]
    assert first.get("?template=reveal&theme=../../x")[0] == 200
    assert b"reveal" not in plain


def test_no_page_names_another_host_and_the_policy_forbids_it(server, two):
    first, _ = two
    for path in (
        "",
        "login",
        *[
            f"reading/static/{p.name}"
            for p in Path(reading_studies.__file__).parent.parent.glob("helpers/reading/static/*.*")
        ],
    ):
        status, content, headers = first.get(path)
        assert status == 200
        assert not re.search(
            rb"https?://(?!www\.w3\.org)",
            re.sub(rb'"fullMathjaxUrl": "[^"]*"|"mathjaxUrl": "[^"]*"', b"", content),
        ), path
        assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_pictures_are_served_to_their_reader_when_it_is_their_turn(server, two):
    first, second = two
    state = second.state()
    reader, current = state["reader"], state["current"]
    status, pixels, headers = second.picture(current)
    assert (status, len(pixels), headers["X-Picture"]) == (200, 64 * 64 * 2, "64 64 2")
    assert (
        not {"Etag", "Last-Modified", "Content-Disposition"} & headers.keys()
        and headers["Cache-Control"] == "no-store"
    )
    original = reading_studies.images.read_png(
        server.root
        / "outputs"
        / reading_studies.STUDY
        / reading_studies.SET
        / "reading_set/images"
        / f"{current}.png"
    )
    assert original.astype("<u2").tobytes() == pixels
    assert first.get(f"reading/image/{reading_studies.STUDY}/{reader}/{current}")[0] == 403
    assert second.get(f"reading/image/another/{reader}/{current}")[0] == 403
    every = [f"b{number:015d}" for number in range(7)]
    ahead = [blind_id for blind_id in every if blind_id not in [current, *state["next"]]]
    assert [second.picture(blind_id)[0] for blind_id in ahead] == [403] * len(ahead)
    assert second.picture("b..%2f..%2freading_set")[0] in (403, 404)


def test_forged_messages_are_refused_and_leave_no_trace(server, two):
    _, reader = two
    state = reader.state()
    current, later = state["current"], state["next"][0]
    before = reader.state()
    assert reader.send("answered", later, label="real")[0] == 422
    assert reader.send("answered", "b999", label="real")[0] == 422
    assert reader.send("answered", current, label="yes")[0] == 422
    assert reader.send("answered", current)[0] == 422
    assert reader.send("answered", current, label="real", description="x" * 3000)[0] == 422
    assert reader.send("answered", current, label="real", seconds="soon")[0] == 422
    assert reader.send("answered", current, label="real", findings=["martians"])[0] == 422
    assert reader.send("answered", current, label="real", confidence=3)[0] == 422
    assert reader.send("assigned", order=[current])[0] == 422
    assert reader.send("erased")[0] == 422
    assert reader.send("changed", current, label="real", reason="r")[0] == 422
    assert reader.send("locked", code=server.code(1))[0] == 422
    assert reader.request("POST", "reading/record", "x" * 70_000)[0] == 413
    assert reader.request("POST", "reading/record", "{not json")[0] == 400
    assert reader.request("POST", "reading/record", "[" * 50_000)[0] == 400
    assert reader.post("reading/record", [1])[0] == 422
    assert reader.post("reading/record", {"message": None})[0] == 422
    assert (
        reader.post("reading/record", {"message": {"event": "consented"}}, **{"X-Reading": None})[0]
        == 403
    )
    assert (
        reader.post("reading/record", {"message": {}}, Origin="https://elsewhere.example")[0] == 403
    )
    assert reader.state() == before


def test_a_resend_is_one_answer_and_a_change_keeps_the_earlier_one(server):
    reader = server.client(2)
    current = reader.enter()["current"]
    reader.send("shown", current)
    first = reader.send("answered", current, identity="same-message-1", label="fake")
    again = reader.send("answered", current, identity="same-message-1", label="fake")
    assert (first[0], first[1]["again"], again[0], again[1]["again"]) == (200, False, 200, True)
    assert reader.send("answered", current, identity="same-message-1", label="real")[0] == 422
    assert reader.send("changed", current, label="real")[0] == 422, "a change needs a reason"
    assert reader.send("changed", current, label="real", reason="looked again")[0] == 200
    state = reader.state()
    assert state["answers"][current]["label"] == "real" and state["training_done"] == 1
    reader.answer(state["current"])
    assert reader.send("changed", current, label="fake", reason="too late")[0] == 422


def test_markup_and_control_characters_stay_text(server, tmp_path):
    reader = server.client(3)
    state = reader.enter()
    words = "<script>alert(1)</script>\x00\x1b[31m =HYPERLINK(1) \u202etxt"
    while state["current"]:
        first = "=1+1" if state["done"] == 0 else words
        assert reader.answer(state["current"], description=first)[0] == 200
        state = reader.state()
    assert reader.send("locked", code=server.code(2))[0] == 403, "another reader's code"
    status, kept = reader.send("locked", code=server.code(3).lower().replace("-", " "))
    assert status == 200 and re.fullmatch(r"[0-9a-f]{64}", kept["head"])
    assert reader.state()["phase"] == "locked" and reader.state()["head"] == kept["head"]
    assert reader.send("paused")[0] == 422
    done = server.command("export", "--to", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    readings = tables.read(tmp_path / "out" / "readings.csv")
    assert sorted(set(readings["description"]))[0] == "'=1+1"
    assert "<script>alert(1)</script>" in readings["description"].iloc[1] and not re.search(
        r"[\x00-\x1f\u202e]", readings["description"].iloc[1]
    )
    assert server.command("verify", state["reader"], "--hash", kept["head"]).returncode == 0
    assert server.command("verify", state["reader"], "--hash", "0" * 64).returncode == 1


def test_no_reader_sees_another_s_rows(server, two):
    first, second = two
    told = json.dumps(first.state())
    assert second.state()["reader"] not in told
    assert not {"label", "origin", "truth", "part", "checksum", "path"} & set(
        re.findall(r'"(\w+)":', told)
    )


def test_revoked_expired_and_renewed_codes(server):
    reader = server.client(4)
    old = server.code(4)
    name = list(server.links)[4]
    assert server.command("renew", name).returncode == 0
    assert reader.get("reading/state")[0] == 401, "the old session has ended"
    assert Client(server.port).post("login", {"code": old})[0] == 403
    reader = server.client(4)
    assert reader.state()["reader"] == name
    assert server.command("revoke", name).returncode == 0
    assert reader.get("reading/state")[0] == 401


def test_new_links_are_for_those_who_have_not_signed_in_yet(server):
    server.client(2).enter()
    begun = list(server.links)[2]
    waiting, revoked = (server.command("add").stdout.split()[0] for _ in range(2))
    assert server.command("revoke", revoked).returncode == 0
    old = server.links[waiting].split("#")[1]
    told = server.command("links").stdout
    assert waiting in told and begun not in told and revoked not in told
    assert "only on this machine" in server.command("renew", waiting).stdout
    assert Client(server.port).post("login", {"code": old})[0] == 403
    assert (
        Client(server.port).post("login", {"code": server.links[waiting].split("#")[1]})[0] == 200
    )


def test_signing_in_and_answers_survive_a_restart_and_a_kill(server):
    reader = server.client(5)
    current = reader.enter()["current"]
    assert reader.answer(current)[0] == 200
    server.kill()
    server.start()
    state = reader.state()
    assert state["training_done"] == 1 and state["current"] != current
    secret = server.root / "keys" / reading_studies.STUDY / "cookie"
    assert secret.stat().st_mode & 0o777 == 0o600


def test_the_brake_lets_go_after_a_minute_and_forgets():
    now = [0.0]
    limit = identity.RateLimit(lambda: now[0])
    for _ in range(5):
        limit.count("here")
    assert limit.wait("here") == 60 and limit.wait("there") == 0
    now[0] = 61
    assert limit.wait("here") == 0 and limit.counted == {}


def test_a_taken_port_and_an_unknown_study_are_one_sentence(server, monkeypatch):
    done = server.command("serve")
    assert (
        done.returncode == 1
        and "choose another with --port" in done.stderr
        and "Traceback" not in done.stderr
    )
    assert "login#" not in done.stdout, "no link is given out by a server that does not start"
    command = [sys.executable, "-m", "helpers.reading.server", reading_studies.STUDY, "status"]
    for url, told in {
        "postgresql://me:hidden@127.0.0.1:1/x": "cannot be opened",
        "postgresql:me:hidden@127.0.0.1/x": "must be postgresql://user:password@host/database.",
    }.items():
        env = server.env() | {"READING_DATABASE_URL": url}
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 1 and told in done.stderr
        assert not any(word in done.stderr for word in ("Traceback", "hidden"))
    command = [sys.executable, "-m", "helpers.reading.server", "no_such_study", "status"]
    done = subprocess.run(command, env=server.env(), capture_output=True, text=True)
    assert done.returncode == 1 and "run 06 first" in done.stderr and "Traceback" not in done.stderr


def test_a_store_that_cannot_be_written_is_named_and_not_served(tmp_path, monkeypatch):
    reading_studies.use(tmp_path, monkeypatch.setenv)
    reading_studies.make(tmp_path, read=2, number_of_readers=1)
    stopped = Server(tmp_path)
    assert stopped.command("add", "known").returncode == 0
    [place] = tmp_path.glob("outputs/*/07_read_cases/readings.sqlite")
    with contextlib.closing(sqlite3.connect(place)) as raw:
        raw.execute(
            "CREATE TRIGGER full BEFORE INSERT ON health BEGIN"
            " SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    done = stopped.command("serve")
    assert done.returncode == 1 and "the store's disk is full" in done.stderr
    assert "Traceback" not in done.stderr and not done.stdout


def test_a_place_that_cannot_be_written_is_named(server):
    (server.root / "file").write_text("in the way")
    for command in ("backup", "export"):
        done = server.command(command, "--to", str(server.root / "file" / "below"))
        assert done.returncode == 1 and str(server.root / "file") in done.stderr
        assert "Traceback" not in done.stderr and "store does not answer" not in done.stderr


def test_a_backup_is_restored_as_its_message_says_after_a_kill(server):
    told, before = server.command("backup").stdout, server.command("status").stdout
    assert server.command("add", "lost").returncode == 0
    del server.links["lost"]
    server.kill()
    folder = server.root / "outputs" / reading_studies.STUDY / "07_read_cases"
    assert (folder / "readings.sqlite-wal").exists()
    copy = re.search(r"Backed up to (\S+)\.\n", told)[1]
    for name in re.search(r"delete (\S+), (\S+) and (\S+),", told).groups():
        (folder / name).unlink(missing_ok=True)
    shutil.copy(copy, folder / re.search(r"copy this file to (\S+)\.\n", told)[1])
    assert server.command("status").stdout == before
    assert server.command("verify").returncode == 0
    server.start()


def test_the_help_explains_every_command_and_a_start_warns_of_nothing(server):
    shown = server.command("--help").stdout
    assert "manages readers" in " ".join(shown.split())
    for name, command in operations.COMMANDS.items():
        assert f"  {name:<10}{command.__doc__.split()[0]}" in shown
    assert "Warning" not in server.log.read_text()


def test_a_reload_leaves_no_kernel_behind(server):
    server.stop()  # earlier visits end with it
    server.start()
    reader = server.client(1)
    for _ in range(5):
        reader.open_page()
    end = time.monotonic() + 60
    while len(server.kernels()) > 2 and time.monotonic() < end:
        time.sleep(0.5)
    assert len(server.kernels()) <= 2, "more than the visit's own kernel and the one in stock"
    assert reader.open_page()


def test_guessing_codes_is_braked(server):
    guesser = Client(server.port)
    answers = [guesser.post("login", {"code": f"AAAAA-AAAAA-AAAAA-AAAA{n}"})[0] for n in range(7)]
    assert answers[:5] == [403] * 5 and set(answers[5:]) == {429}
    assert guesser.post("login", {"code": server.code(0)})[0] == 429
    assert int(guesser.request("POST", "login", "{}")[2]["Retry-After"]) > 30
