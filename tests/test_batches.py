"""The Batch API through the real client: submit, leave, collect; partial, expired and interrupted
batches.
"""

import asyncio
import contextlib
import itertools
import json
import multiprocessing
import os
import pathlib
import signal

import faulty_service
import openai
import pytest
from faulty_service import ImageServer
from generations import EACH, elsewhere, generate, generation, on_disk  # noqa: F401

from helpers.generate_openai import batches, service
from helpers.rehearsal import image_api
from helpers.services import connection, retry_policy


def visit(made):
    asyncio.run(batches.generate(made))
    return made.ledger.frame()


def submit(server, count=6, **how):
    made = generation(server, count, mode="batch", **how)
    with pytest.raises(connection.ServiceError, match="was submitted"):
        visit(made)
    return made


def test_submit_leave_and_collect_for_half_the_price():
    with ImageServer(sketch=True, batch_seconds=60) as server:
        submit(server)
        at_work = generation(server, mode="batch")
        assert at_work.wanted == []
        with pytest.raises(connection.ServiceError, match="in progress"):
            visit(at_work)
        assert len(server.batches) == 1
        server.batches[next(iter(server.batches))]["ready"] = 0
        made = generation(server, mode="batch")
        ledger = visit(made)
        assert len(on_disk(made)) == 6
        assert visit(generation(server, mode="batch")).equals(ledger)
    assert ledger["cost_usd"].sum() == pytest.approx(server.billed_usd)
    assert server.billed_usd == pytest.approx(6 * (EACH + 9 * 5e-6) / 2)
    assert len(server.requests) == 6 and len(server.batches) == 1


def test_images_bought_one_way_are_not_asked_for_the_other_way():
    with ImageServer(sketch=True) as server:
        submit(server)
        visit(generation(server, mode="batch"))
        assert generation(server).wanted == []


def test_what_an_expired_batch_did_is_kept_and_the_rest_is_submitted_again():
    with ImageServer(sketch=True, batch_expires_after=4) as server:
        submit(server)
        again = generation(server, mode="batch")
        with pytest.raises(connection.ServiceError, match="2 requests was submitted"):
            visit(again)
        assert len(on_disk(again)) == 4
        made = generation(server, mode="batch")
        ledger = visit(made)
    assert len(on_disk(made)) == 6
    assert ledger["cost_usd"].sum() == pytest.approx(server.billed_usd)


def test_refusals_and_failures_in_a_batch():
    with ImageServer(sketch=True, script=["moderation", "server_error", "truncated"]) as server:
        submit(server)
        again = generation(server, mode="batch")
        with pytest.raises(connection.ServiceError, match="2 requests was submitted"):
            visit(again)
        made = generation(server, mode="batch")
        ledger = visit(made)
    assert len(on_disk(made)) == 5
    assert ledger["status"].value_counts().to_dict() == {"ok": 5, "failed": 2, "refused": 1}
    assert ledger["cost_usd"].sum() == pytest.approx(server.billed_usd)


def test_a_batch_created_just_before_a_kill_is_found_again():
    with ImageServer(sketch=True) as server:
        made = submit(server)
        (path,) = (made.paid / "batches").glob("*.json")
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"batch_id": "", "status": "submitting"}))
        after = generation(server, mode="batch")
        visit(after)
        assert len(on_disk(after)) == 6 and len(server.batches) == 1


@pytest.mark.parametrize("at", range(1, 8))
def test_a_kill_after_any_write_of_a_submission_loses_nothing(at):
    with ImageServer(sketch=True) as server:
        child = multiprocessing.get_context("fork").Process(target=_killed, args=(server, at))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        with pytest.raises(connection.ServiceError, match="are waiting in a batch"):
            generate(generation(server, 4))
        for _ in range(2):
            after = generation(server, 4, mode="batch")
            with contextlib.suppress(connection.ServiceError):
                visit(after)
    assert len(on_disk(after)) == len(server.requests) == 4 and len(server.batches) == 1
    assert after.ledger.spent_usd == pytest.approx(server.billed_usd)


def _killed(server, at):
    """Submit a batch, and die after the write number `at`."""
    replace, writes = pathlib.Path.replace, itertools.count(1)

    def counted(path, target):
        replace(path, target)
        if next(writes) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    pathlib.Path.replace = counted
    submit(server, 4)
    visit(generation(server, 4, mode="batch"))


def test_a_batch_that_was_never_created_is_submitted_anew():
    with ImageServer(sketch=True, batch_seconds=60) as server:
        made = submit(server)
        (path,) = (made.paid / "batches").glob("*.json")
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"batch_id": "", "status": "submitting"}))
        server.batches.clear()
        submit(server)
        server.batches[next(iter(server.batches))]["ready"] = 0
        after = generation(server, mode="batch")
        visit(after)
    assert len(on_disk(after)) == 6 and len(server.requests) == 6


def test_a_batch_keeps_within_the_budget():
    with ImageServer(sketch=True) as server:
        budget = 3 * 3.3 * EACH / 2
        made = submit(server, 30, budget_usd=budget)
        assert made.ledger.spent_usd <= budget
        for _ in range(3):
            with pytest.raises(connection.ServiceError):
                visit(generation(server, 30, budget_usd=budget, mode="batch"))
    assert 3 < len(server.requests) < 10 and server.billed_usd <= budget


def test_without_any_budget_nothing_is_submitted():
    with (
        ImageServer(sketch=True) as server,
        pytest.raises(connection.ServiceError, match="does not cover"),
    ):
        visit(generation(server, budget_usd=0.0001, mode="batch"))
    assert not server.batches and not server.files


def test_parts_keep_within_the_limits_of_a_batch(monkeypatch):
    monkeypatch.setattr(batches, "MOST_REQUESTS", 4)
    with ImageServer(sketch=True) as server:
        submit(server, 10)
        assert sorted(
            len(content.splitlines())
            for name, content in server.files.values()
            if name == "input.jsonl"
        ) == [2, 4, 4]
        made = generation(server, 10, mode="batch")
        visit(made)
    assert len(on_disk(made)) == 10


def _results_lose_their_second_line(server, put):
    taken = server.files.__class__.__getitem__

    class Files(dict):
        def __getitem__(self, name):
            kind, content = taken(self, name)
            lines = content.splitlines(keepends=True)
            return (
                (kind, b"".join([lines[0], put, *lines[2:]]))
                if kind == "output.jsonl"
                else (kind, content)
            )

    server.files = Files(server.files)


@pytest.mark.parametrize("put", [b"", b'{"custom_id": "g1", "respo\n', b"[]\n"])
def test_a_result_that_is_missing_or_unreadable_may_have_been_billed(put):
    with ImageServer(sketch=True) as server:
        _results_lose_their_second_line(server, put)
        submit(server)
        again = generation(server, mode="batch")
        with pytest.raises(connection.ServiceError, match="1 request was submitted"):
            visit(again)
        assert len(on_disk(again)) == 5
        assert again.ledger.frame()["status"].value_counts()["unknown"] == 1
        assert again.ledger.spent_usd >= server.billed_usd


@pytest.mark.parametrize(
    ("result", "status"),
    [
        ({"response": {"status_code": "200", "body": {"data": []}}}, "unknown"),
        ({"response": "oops"}, "unknown"),
        ({"response": {"status_code": None}}, "failed"),
        ({"custom_id": ["g1"], "response": {"status_code": 200}}, "unknown"),
    ],
)
def test_a_result_of_another_shape_is_settled_and_the_others_are_kept(result, status):
    with ImageServer(sketch=True) as server:
        second = submit(server).orders[1].image_id
        line = json.dumps({"custom_id": second} | result).encode() + b"\n"
        _results_lose_their_second_line(server, line)
        again = generation(server, mode="batch")
        with pytest.raises(connection.ServiceError, match="1 request was submitted"):
            visit(again)
    assert len(on_disk(again)) == 5
    assert again.ledger.frame()["status"].value_counts()[status] == 1


@pytest.mark.parametrize(
    ("code", "says"),
    [("rate_limit_exceeded", "1 request was submitted"), ("insufficient_quota", "add credit")],
)
def test_an_error_in_a_result_with_status_200_is_that_error_and_free(code, says):
    with ImageServer(sketch=True) as server:
        made = submit(server, 3)
        second = made.orders[1].image_id
        body = {"error": {"code": code, "message": "no"}}
        result = {"custom_id": second, "response": {"status_code": 200, "body": body}}
        _results_lose_their_second_line(server, json.dumps(result).encode() + b"\n")
        again = generation(server, 3, mode="batch")
        with pytest.raises(connection.ServiceError, match=says):
            visit(again)
    (failed,) = [row for row in again.ledger.rows.values() if row["status"] == "failed"]
    assert failed["image_id"] == second and failed["cost_usd"] == 0 and code in failed["error"]


def test_a_lost_batch_is_not_forgotten_where_batches_may_not_be_listed(monkeypatch):
    with ImageServer(sketch=True) as server:
        made = submit(server)
        (path,) = (made.paid / "batches").glob("*.json")
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"batch_id": "", "status": "submitting"}))
        no = (403, {"error": {"message": "you may not list", "code": None}})
        monkeypatch.setattr(faulty_service.Handler, "found", lambda *_: no)
        again = generation(server, mode="batch")
        with pytest.raises(connection.ServiceError, match="may not list.*same key"):
            visit(again)
    assert again.ledger.frame()["status"].eq("submitted").all()


def test_a_batch_without_counts_is_collected():
    with ImageServer(sketch=True) as server:
        submit(server)
        (batch,) = server.batches.values()
        server.shown(batch["id"])
        batch["request_counts"] = {}
        made = generation(server, mode="batch")
        visit(made)
    assert len(on_disk(made)) == 6


def test_results_that_the_service_no_longer_has_are_counted(monkeypatch):
    with ImageServer(sketch=True) as server:
        submit(server)
        gone = connection.Failed(retry_policy.Verdict("stop", "404 no such file", status=404))

        async def download(*_):
            raise gone

        monkeypatch.setattr(service, "download", download)
        again = generation(server, mode="batch")
        with pytest.raises(connection.ServiceError, match="6 requests was submitted"):
            visit(again)
    assert again.ledger.frame()["status"].value_counts().to_dict() == {"unknown": 6, "submitted": 6}


def test_a_batch_whose_creation_was_cut_off_is_looked_for_and_not_submitted_twice(monkeypatch):
    begin = image_api.ImageServer.begin
    with ImageServer(sketch=True) as server:
        monkeypatch.setattr(
            image_api.ImageServer, "begin", lambda api, request: begin(api, request) and (1 / 0)
        )
        with pytest.raises(connection.ServiceError):
            visit(generation(server, mode="batch"))
        monkeypatch.setattr(image_api.ImageServer, "begin", begin)
        made = generation(server, mode="batch")
        assert made.wanted == []
        visit(made)
    assert len(on_disk(made)) == 6 and len(server.batches) == 1


def test_an_answer_502_leaves_open_whether_a_batch_was_created(monkeypatch):
    post = image_api.ImageServer.post

    def gateway(api, path, *rest):
        status, answer = post(api, path, *rest)
        return (502, {"detail": "bad gateway"}) if path == "/v1/batches" else (status, answer)

    with ImageServer(sketch=True) as server:
        monkeypatch.setattr(image_api.ImageServer, "post", gateway)
        with pytest.raises(connection.ServiceError, match="not certain"):
            visit(generation(server, mode="batch"))
        made = generation(server, mode="batch")
        visit(made)
    assert len(on_disk(made)) == 6 and len(server.batches) == 1


def test_a_batch_that_the_service_will_not_take_is_not_submitted_again():
    with ImageServer(sketch=True, faults={"forbidden": 1.0}) as server:
        submit(server)
        made = generation(server, mode="batch")
        with pytest.raises(connection.ServiceError, match="would fail again") as caught:
            visit(made)
        assert "must be verified" in str(caught.value) and len(server.batches) == 1


def test_a_request_that_fails_among_others_is_tried_once_more_and_then_set_aside():
    with ImageServer(sketch=True, script=["", "forbidden"]) as server:
        submit(server)
        for _ in range(2):
            made = generation(server, mode="batch")
            with contextlib.suppress(connection.ServiceError):
                visit(made)
            server.script = ["forbidden"]
        assert len(on_disk(made)) == 5 and len(server.batches) == 2


def test_a_batch_of_another_account_is_left_alone():
    with ImageServer(sketch=True, batch_seconds=60) as server:
        made = submit(server)
        server.batches.clear()
        with pytest.raises(connection.ServiceError, match="same key and address"):
            visit(generation(server, mode="batch"))
    assert (made.ledger.frame()["status"] == "submitted").all()


def test_a_rehearsed_batch_is_collected_at_once():
    with ImageServer(sketch=True) as server:
        made = generation(server, mode="batch", provider="rehearsal")
        visit(made)
    assert len(on_disk(made)) == 6


def test_images_in_a_batch_are_not_bought_beside_it():
    with ImageServer(sketch=True, batch_seconds=60) as server:
        submit(server)
        with pytest.raises(connection.ServiceError, match="waiting in a batch"):
            generate(generation(server, 9))
    assert not server.requests


@pytest.mark.parametrize("ended", ["expired", "cancelled"])
def test_what_a_batch_counts_beyond_its_results_may_have_been_billed(ended):
    with ImageServer(sketch=True, batch_expires_after=4) as server:
        _results_lose_their_second_line(server, b"")
        submit(server)
        asyncio.run(_worked_on(server))
        next(iter(server.batches.values()))["status"] = ended
        again = generation(server, mode="batch")
        with pytest.raises(connection.ServiceError, match="3 requests was submitted"):
            visit(again)
    statuses = again.ledger.frame()["status"].value_counts().to_dict()
    assert statuses == {"ok": 3, "unknown": 1, "failed": 2, "submitted": 3}
    assert again.ledger.spent_usd >= server.billed_usd


def test_a_cancelled_batch_that_counts_nothing_may_have_been_billed_whole():
    with ImageServer(sketch=True, batch_seconds=60) as server:
        submit(server)
        next(iter(server.batches.values()))["status"] = "cancelled"
        again = generation(server, mode="batch")
        with pytest.raises(connection.ServiceError, match="6 requests was submitted"):
            visit(again)
    assert again.ledger.frame()["status"].value_counts()["unknown"] == 6


async def _worked_on(server):
    """Ask for the batch, which then is worked on, and read nothing of it."""
    async with openai.AsyncOpenAI(base_url=server.url, api_key="any") as client:
        await client.batches.list()
