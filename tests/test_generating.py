"""Generating through the real client at a real server on loopback: money, failures, kills."""

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time

import faulty_service
import pandas as pd
import pytest
from faulty_service import FAULTS, ImageServer
from generations import (
    EACH,
    MODEL,
    elsewhere,  # noqa: F401
    generate,
    generation,
    on_disk,
    service_of,
)

from helpers import tables
from helpers.generate_openai import paid_images, prompts, requests, service
from helpers.rehearsal import image_api_answers
from helpers.runner import folders
from helpers.services import connection


def test_every_image_arrives_and_the_ledger_is_the_bill():
    with ImageServer() as server:
        made = generation(server, 4)
        ledger = generate(made)
    assert len(on_disk(made)) == 4
    assert (ledger["status"] == "ok").all()
    assert ledger["cost_usd"].sum() == pytest.approx(server.billed_usd)
    written = tables.read(made.run.folder / "ledger.csv")
    pd.testing.assert_frame_equal(written, ledger, check_exact=False)
    assert {record["client_request_id"] for record in server.requests} == set(ledger["request_id"])
    record = json.loads((made.paid / f"{made.orders[0].image_id}.json").read_text())
    assert record["request"] == {
        "model": MODEL,
        "prompt": made.orders[0].prompt,
        "n": 1,
        "size": "1024x1024",
        "quality": "low",
    }
    assert (
        record["effective"]["size"] == "1024x1024"
        and record["c2pa"]["present"]
        and record["service_request_id"]
    )


def test_what_is_on_disk_is_never_asked_for_again():
    with ImageServer(sketch=True) as server:
        generate(generation(server))
        again = generation(server)
        assert again.wanted == []
        generate(again)
        more = generation(server, 8)
        assert len(more.wanted) == 2
        generate(more)
    assert len(server.requests) == 8


def test_identity_follows_from_what_is_asked_for_and_nothing_else():
    asked, same = service_of(), service_of(base_url="http://b", timeout_seconds=3.0)
    ids = {prompts.identity(each, "p", 0) for each in (asked, same)}
    assert len(ids) == 1
    others = [{"provider": "local"}, {"model": "gpt-image-1.5"}, {"quality": "high"}]
    others += [{"size": "1536x1024"}, {"extra_body": '{"steps": 4}'}, {"cases": "01"}]
    ids |= {prompts.identity(service_of(**other), "p", 0) for other in others}
    ids |= {prompts.identity(asked, "p", 1), prompts.identity(asked, "q", 0)}
    assert len(ids) == 9
    given = ["openai", MODEL, "p", "1024x1024", "low", 0]
    assert prompts.stable_id("g", json.dumps(given)) in ids, "as in studies of long ago"


@pytest.mark.parametrize("kind", ["throttle", "throttle_silent", "server_error", "detail", "slow"])
def test_passing_failures_are_tried_again_and_cost_nothing(kind):
    with ImageServer(sketch=True, script=[kind, kind], retry_after="0.1") as server:
        made = generation(server)
        ledger = generate(made)
    assert len(on_disk(made)) == 6
    assert (
        ledger["cost_usd"].sum()
        == pytest.approx(server.billed_usd)
        == pytest.approx(6 * (EACH + 9 * 5e-6), rel=0.01)
    )
    assert len(ledger) == len(server.requests)


@pytest.mark.parametrize("kind", ["cut", "drop", "empty", "truncated"])
def test_lost_answers_are_asked_for_again_and_counted(kind):
    with ImageServer(sketch=True, script=[kind, kind]) as server:
        made = generation(server)
        ledger = generate(made)
    assert len(on_disk(made)) == 6
    lost = ledger[ledger["status"] != "ok"]
    assert len(lost) == 2 and (lost["cost_usd"] > 0).all() and lost["error"].notna().all()
    assert ledger["cost_usd"].sum() >= server.billed_usd - 1e-9


def test_lost_answers_are_asked_for_again_a_bounded_number_of_times():
    with (
        ImageServer(sketch=True, faults={"cut": 1.0}) as server,
        pytest.raises(connection.ServiceError, match="missing"),
    ):
        generate(generation(server, 2, ask_again=2))
    assert len(server.requests) == 2 * 3


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("quota", "no credit left"),
        ("unauthorised", "Incorrect API key"),
    ],
)
def test_what_would_fail_for_every_image_stops_the_run_and_keeps_what_there_is(kind, says):
    with ImageServer(sketch=True, script=["", "", kind]) as server:
        made = generation(server, 20, in_flight=1)
        with pytest.raises(connection.ServiceError, match=says):
            generate(made)
        assert len(server.requests) == 3
        assert len(on_disk(made)) == 2
        generate(generation(server, 20, in_flight=4))
    assert sum(record["status"] == 200 for record in server.requests) == 20


def test_a_request_that_fails_for_every_prompt_stops_the_run_soon():
    with ImageServer(sketch=True, faults={"forbidden": 1.0}) as server:
        made = generation(server, 4, [f"prompt {number}" for number in range(9)], in_flight=2)
        with pytest.raises(connection.ServiceError, match="must be verified") as caught:
            generate(made)
        assert len(server.requests) <= 6 and "again" not in str(caught.value)
        server.faults = {}
        generate(generation(server, 4, [f"prompt {number}" for number in range(9)]))
    assert sum(record["status"] == 200 for record in server.requests) == 36


def test_a_retired_model_stops_the_run():
    with ImageServer() as server, pytest.raises(connection.ServiceError, match="model_not_found"):
        generate(generation(server, 9, model="gpt-image-1", priced_as="gpt-image-2", in_flight=2))
    assert len(server.requests) <= 2


def test_refusals_are_recorded_and_never_asked_again(capsys):
    with ImageServer(sketch=True, script=["", "moderation"]) as server:
        made = generation(server, in_flight=1)
        ledger = generate(made)
        assert ledger["status"].value_counts().to_dict() == {"ok": 5, "refused": 1}
        assert "Generating: 5 of 6 images, 1 refused, " in capsys.readouterr().out
        assert "moderation_blocked" in ledger.loc[ledger["status"] == "refused", "error"].item()
        assert generation(server).wanted == []
    assert len(server.requests) == 6


def test_another_size_is_recorded_and_kept():
    with ImageServer(script=["wrong_size"]) as server:
        made = generation(server, 1)
        ledger = generate(made)
    assert ledger["status"].item() == "ok" and "512x512" in ledger["error"].item()
    assert json.loads((made.paid / f"{made.orders[0].image_id}.json").read_text())["width"] == 512


@pytest.mark.parametrize("images", [1, 3, 7, 10])
def test_the_budget_holds_while_many_requests_are_under_way(images):
    budget = images * (EACH + 9 * 5e-6) * 1.06
    with ImageServer(sketch=True, latency_seconds=0.05) as server:
        made = generation(server, 30, budget_usd=budget, in_flight=16)
        with pytest.raises(connection.ServiceError, match="budget"):
            generate(made)
    assert server.billed_usd <= budget
    assert len(on_disk(made)) == images
    assert tables.read(made.run.folder / "ledger.csv")["cost_usd"].sum() <= budget


@pytest.mark.parametrize("dearer", [3, 10])
def test_the_budget_holds_when_images_cost_far_more_than_the_table_says(monkeypatch, dearer):
    monkeypatch.setattr(image_api_answers, "TOKENS", {"low": 196 * dearer})
    budget = 5.5 * dearer * EACH
    with ImageServer(sketch=True, latency_seconds=0.05) as server:
        made = generation(server, 30, budget_usd=budget, in_flight=8)
        with pytest.raises(connection.ServiceError, match="budget"):
            generate(made)
    assert server.billed_usd <= budget and len(on_disk(made)) >= 4


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}, {"output_tokens": None}],
)
def test_an_image_without_a_count_is_not_free(monkeypatch, usage):
    answered = image_api_answers.generation

    def uncounted(*asked):
        status, answer = answered(*asked)
        return status, answer | {"usage": usage}

    monkeypatch.setattr(faulty_service, "price", lambda *_: EACH)
    monkeypatch.setattr(image_api_answers, "generation", uncounted)
    with ImageServer(sketch=True) as server:
        made = generation(server, 3)
        ledger = generate(made)
    assert (ledger["status"] == "ok").all() and ledger["error"].str.contains("estimated").all()
    assert ledger["cost_usd"].sum() == pytest.approx(server.billed_usd, rel=0.05)


def test_tokens_counted_in_total_only_are_charged_and_said(monkeypatch):
    answered = image_api_answers.generation

    def total_only(*asked):
        status, answer = answered(*asked)
        return status, answer | {"usage": {"total_tokens": 206}}

    monkeypatch.setattr(faulty_service, "price", lambda *_: EACH)
    monkeypatch.setattr(image_api_answers, "generation", total_only)
    with ImageServer(sketch=True) as server:
        ledger = generate(generation(server, 1))
    assert ledger["error"].str.contains("only a total").all()
    assert ledger["cost_usd"].tolist() == pytest.approx([206 * 30 / 1e6])


def test_a_gateway_that_gave_up_waiting_may_have_been_billed(monkeypatch):
    monkeypatch.setattr(
        faulty_service,
        "failure",
        lambda kind: (504, {"detail": "gateway timeout"}) if kind == "detail" else None,
    )
    with ImageServer(sketch=True, script=["detail"]) as server:
        ledger = generate(generation(server, 2))
    assert (
        ledger["status"].value_counts().to_dict() == {"ok": 2, "unknown": 1}
        and (ledger["cost_usd"] > 0).all()
    )


def test_an_answer_that_came_whole_is_kept_though_the_connection_broke(monkeypatch):
    def broken_off(handler, status, answer, *_, **__):
        content = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        handler.close_connection = True

    monkeypatch.setattr("helpers.rehearsal.image_api.Handler.send", broken_off)
    with ImageServer(sketch=True) as server:
        ledger = generate(generation(server, 3))
    assert ledger["status"].tolist() == ["ok"] * 3


def test_an_error_of_our_own_loses_no_other_answer(monkeypatch):
    request = service.Service.request

    def faulty(asked, order):
        if order.replicate == 2:
            raise KeyError("a mistake")
        return request(asked, order)

    monkeypatch.setattr(service.Service, "request", faulty)
    with ImageServer(sketch=True, latency_seconds=0.2) as server:
        made = generation(server, 6, in_flight=3)
        with pytest.raises(KeyError, match="a mistake"):
            generate(made)
    assert len(on_disk(made)) == len(server.requests) == 2


def test_an_interruption_waits_for_answers_that_are_paid_for():
    async def interrupted(made):
        task = asyncio.create_task(requests.generate(made))
        await asyncio.sleep(0.6)
        task.cancel()
        await task

    with ImageServer(sketch=True, latency_seconds=0.5) as server:
        made = generation(server, 12)
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(interrupted(made))
        again = generation(server, 12)
    assert len(on_disk(again)) == len(server.requests) < 12
    assert (again.ledger.frame()["status"] == "ok").all()


def test_an_outage_announced_for_longer_than_one_waits_stops_the_run():
    with ImageServer(sketch=True, faults={"throttle": 1.0}, retry_after="7200") as server:
        began = time.monotonic()
        with pytest.raises(connection.ServiceError, match="wait longer than"):
            generate(generation(server, 2))
        assert time.monotonic() - began < 10


def test_a_higher_budget_goes_on_where_the_first_ended():
    with ImageServer(sketch=True) as server:
        with pytest.raises(connection.ServiceError, match="budget"):
            generate(generation(server, 6, budget_usd=0.02))
        generate(generation(server, 6, budget_usd=1.0))
    assert len(server.requests) == 6


def test_the_number_in_flight_settles_at_what_the_service_accepts():
    with ImageServer(sketch=True, latency_seconds=0.1, in_flight_limit=3) as server:
        made = generation(server, 30, in_flight=12)
        generate(made)
    assert server.most_working == 3
    assert len(on_disk(made)) == 30
    refused = sum(record["status"] == 429 for record in server.requests)
    assert refused <= 9 + 10 + 3, "the first wave, then one probe a round"


def test_a_service_that_is_gone_stops_the_run_soon():
    with ImageServer(sketch=True) as server:
        made = generation(server, 40, in_flight=4, tries=2)
    with pytest.raises(connection.ServiceError, match="in a row failed"):
        generate(made)
    assert (made.ledger.frame()["cost_usd"] == 0).all()
    assert len(made.ledger.rows) < 40


def test_rate_limits_are_waited_out_but_not_for_ever():
    with ImageServer(sketch=True, faults={"throttle": 1.0}, retry_after="30") as server:
        began = time.monotonic()
        with pytest.raises(connection.ServiceError, match="wait longer than"):
            generate(generation(server, 2, patience_seconds=5.0))
        assert time.monotonic() - began < 25


def test_it_is_said_why_the_missing_image_is_missing():
    """Not what last happened to another one, which was asked for again and came."""

    class Service(ImageServer):
        def judged(self, request, kind, *counted):
            if request["prompt"] == "never":
                kind = "empty"
            elif len(self.requests) < 14:
                kind = "server_error"
            return super().judged(request, kind, *counted)

    with Service(sketch=True) as server:
        made = generation(server, 1, ["never"] + [f"prompt {n}" for n in range(4)], in_flight=1)
        with pytest.raises(connection.ServiceError, match="1 of 5 .* is missing.*empty data"):
            generate(made)
    assert server.requests[-1]["prompt"] != "never" and len(server.requests) > 14


def generated_at_last(made):
    """Start again whenever the same image comes empty twice, which by design ends a run: with 400
    images this happens by chance in about one start of three.
    """
    for _ in range(9):
        with contextlib.suppress(connection.ServiceError):
            return generate(made)
        made.rest()
    return generate(made)


def test_everything_comes_from_a_faulty_service():
    few = {
        kind: 0.03
        for kind in FAULTS
        if kind not in ("quota", "unauthorised", "forbidden", "moderation")
    }
    with ImageServer(sketch=True, faults=few, retry_after="0.05", seed=3) as server:
        made = generation(server, 60, in_flight=8, ask_again=5)
        ledger = generated_at_last(made)
    assert len(on_disk(made)) == 60
    assert len(ledger) == len(server.requests)
    known = ledger.loc[ledger["status"] != "unknown", "cost_usd"].sum()
    assert known - 1e-9 <= server.billed_usd <= ledger["cost_usd"].sum() + 1e-9


@pytest.mark.soak
def test_four_hundred_images_from_a_faulty_service():
    few = {kind: 0.03 for kind in FAULTS if kind not in ("quota", "unauthorised", "forbidden")}
    with ImageServer(
        sketch=True, faults=few, retry_after="0.2", latency_seconds=0.2, seed=5
    ) as server:
        made = generation(server, 400, in_flight=16, ask_again=5)
        ledger = generated_at_last(made)
    refused = set(ledger.loc[ledger["status"] == "refused", "image_id"])
    assert len(on_disk(made)) + len(refused) == 400
    assert (
        ledger.loc[ledger["status"] != "unknown", "cost_usd"].sum() - 1e-9
        <= server.billed_usd
        <= ledger["cost_usd"].sum() + 1e-9
    )


GENERATOR = """
import sys
sys.path.insert(0, "tests")
import generations
from faulty_service import ImageServer
server = ImageServer()
server.port = int(sys.argv[1])
made = generations.generation(server, 60, "left pleural effusion", budget_usd=50.0, in_flight=4)
print("ready", flush=True)
generations.generate(made)
"""


def killed_often(kills, latency_seconds, window, seed):
    chance = random.Random(seed)
    with ImageServer(sketch=True, latency_seconds=latency_seconds) as server:
        for _ in range(kills):
            process = subprocess.Popen(
                [sys.executable, "-c", GENERATOR, str(server.port)],
                stdout=subprocess.PIPE,
                env=os.environ,
                cwd=folders.ROOT,
            )
            process.stdout.readline()
            asked = len(server.requests)
            while len(server.requests) == asked and process.poll() is None:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, window * latency_seconds))
            process.kill()
            process.wait()
            process.stdout.close()
        before = generation(server, 60, prompt="left pleural effusion")
        complete = {order.image_id for order in on_disk(before)}
        assert len(before.wanted) == 60 - len(complete)
        ledger = generate(before)
    assert len(on_disk(before)) == 60
    assert (ledger["status"] == "unknown").sum() >= kills // 2, "kills must hit requests under way"
    return server, ledger


def check_books(server, ledger):
    """Every request that reached the server is on the ledger; what is known adds up; nothing was
    asked after its answer was on disk.
    """
    reached = {record["client_request_id"]: record for record in server.requests}
    assert set(reached) <= set(ledger["request_id"])
    known = ledger[ledger["status"] != "unknown"]
    billed = sum(reached[name]["billed_usd"] for name in known["request_id"] if name in reached)
    assert known["cost_usd"].sum() == pytest.approx(billed)
    assert known["cost_usd"].sum() <= server.billed_usd + 1e-9 <= ledger["cost_usd"].sum() + 1e-8
    for _, attempts in ledger.groupby("image_id"):
        by_time = attempts.sort_values("requested_utc")["status"].tolist()
        assert by_time.count("ok") == 1 and by_time[-1] == "ok"


def test_killed_five_times():
    check_books(*killed_often(5, 0.08, window=2.5, seed=1))


@pytest.mark.soak
def test_killed_fifty_times():
    check_books(*killed_often(50, 0.25, window=1.3, seed=2))


@pytest.mark.parametrize("there", ["nothing", "record", "image"])
def test_an_attempt_left_open_is_settled_from_what_is_on_disk(there):
    with ImageServer(sketch=True) as server:
        made = generation(server, 1)
        generate(made)
        order = made.orders[0]
        (row,) = made.ledger.rows.values()
        paid_usd = row["cost_usd"]
        row |= {"status": "sent", "cost_usd": 0.5}
        made.ledger.save_now()
        if there != "image":
            (made.paid / f"{order.image_id}.png").unlink()
        if there == "nothing":
            (made.paid / f"{order.image_id}.json").unlink()
        again = generation(server, 1)
    (row,) = again.ledger.rows.values()
    status, cost = {
        "nothing": ("unknown", 0.5),
        "record": ("unknown", paid_usd),
        "image": ("ok", paid_usd),
    }[there]
    assert (row["status"], row["cost_usd"]) == (status, pytest.approx(cost))
    assert len(again.wanted) == (there != "image")
    if there == "nothing":
        assert "may have been billed" in again.plan()


def test_the_study_copies_are_grey_and_bare():
    with ImageServer() as server:
        made = generation(server, 2, image_size=256)
        generate(made)
        frame = paid_images.study_copies(made.run, made.orders)
    assert frame["path"].map(lambda path: (made.run.folder / path).exists()).all()
    content = (made.run.folder / frame["path"].iloc[0]).read_bytes()
    kinds = set()
    at = 8
    while at < len(content):
        kinds.add(content[at + 4 : at + 8])
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    assert kinds == {b"IHDR", b"IDAT", b"IEND"}
    assert frame["width"].tolist() == [256, 256] and (frame["bits"] == 8).all()
    assert frame["sha256"].nunique() == 2
