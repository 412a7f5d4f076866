"""What a service may answer beside an image: refusals in many coats, requests that fail for one
prompt or for all, answers that cannot be used, and keys echoed back.
"""

import asyncio
import base64
import contextlib
import gzip
import io
import itertools
import json
import multiprocessing
import os
import signal
from types import SimpleNamespace

import pytest
from generations import elsewhere, generation, on_disk, run_of, service_of, table  # noqa: F401
from generations import generate as _generate
from other_services import images_only, png, serving
from PIL import Image
from test_retry_policy import REFUSED, body

from helpers.files import write_atomically
from helpers.generate_openai import answers, paid_images, prompts, service
from helpers.services import connection, secrets

USAGE = {"input_tokens": 10, "output_tokens": 196, "total_tokens": 206}
WORDS = [f"chest X-ray number {number}" for number in range(6)]
BAD = WORDS[2]


def image(**more):
    encoded = base64.b64encode(png()).decode()
    return 200, {"data": [{"b64_json": encoded}], "usage": USAGE, **more}


def answering(bad, *, among=(BAD,)):
    """A server that answers `bad` to the prompts in `among`, and an image to the others."""

    def answer(path, headers, request):
        if request["prompt"] not in among:
            return image()
        return bad(headers, request) if callable(bad) else bad

    return serving(images_only(answer))


def at(address, words=WORDS, count=1, **values):
    class Server:
        url = f"{address}/v1"

    return generation(Server, count, words, **values)


def generate(made):
    """The message with which it ends, '' for none."""
    try:
        _generate(made)
    except connection.ServiceError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize("bad", REFUSED, ids=lambda bad: json.dumps(bad)[:60])
def test_one_refused_prompt_is_one_refused_prompt(bad, in_flight):
    with answering(bad) as (address, seen):
        made = at(address, in_flight=in_flight)
        assert generate(made) == ""
        assert len(on_disk(made)) == 5 and len(seen) == 6
        again = at(address, count=2, in_flight=in_flight)
        assert BAD not in {order.prompt for order in again.wanted}
        assert generate(again) == "" and len(seen) == 6 + 5
    ledger = made.ledger.frame()
    assert ledger.loc[ledger["prompt"] == BAD, "status"].tolist() == ["refused"]
    assert ledger.loc[ledger["prompt"] == BAD, "cost_usd"].tolist() == [0]


@pytest.mark.parametrize("first", [BAD, WORDS[0]])
@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_request_that_fails_for_one_prompt_sets_that_prompt_aside(status, first):
    words = [first, *(each for each in WORDS if each != first)]
    with answering((status, {"error": {"message": "cannot do this"}})) as (address, seen):
        made = at(address, words, count=3, in_flight=1)
        assert generate(made) == ""
        assert len(on_disk(made)) == 15 and len(seen) == 15 + 2
        assert generate(at(address, words, count=3)) == "" and len(seen) == 17
    refused = [row for row in made.ledger.rows.values() if row["status"] == "refused"]
    assert [row["prompt"] for row in refused] == [BAD]
    assert refused[0]["error"] == f"{status} cannot do this"


def test_many_prompts_that_fail_in_words_unheard_of_are_set_aside_one_by_one():
    words = [f"chest X-ray number {number}" for number in range(40)]
    among = words[3:40:4]
    with answering((400, {"error": {"message": "nein"}}), among=among) as (address, seen):
        made = at(address, words)
        assert generate(made) == ""
    assert len(on_disk(made)) == 30 and len(seen) <= 50


def test_different_prompts_that_fail_alike_stop_the_run_with_the_setting_that_helps():
    message = "litellm.UnsupportedParamsError: does not support parameters: {'quality': 'low'}"
    bad = (400, {"error": {"message": message, "type": "None", "param": "None", "code": "400"}})
    with answering(bad, among=WORDS) as (address, seen):
        said = generate(at(address, count=4, in_flight=2))
        assert len(seen) <= 6
    assert "set quality to auto" in said and "again" not in said


@pytest.mark.parametrize("bad", [(404, {}), (405, {}), (307, b"", {"Location": "/v2/images"})])
def test_a_wrong_address_is_named_and_no_redirect_is_followed(bad):
    with answering(bad, among=WORDS) as (address, seen):
        said = generate(at(address, in_flight=2))
        assert len(seen) <= 6 and {each["path"] for each in seen} == {"/v1/images/generations"}
    assert "set base_url to the address of the API" in said


@pytest.mark.parametrize("bad", [(400, b"[" * 200_000), (400, b'{"detail": "cut \\ud83d"}')])
def test_an_error_that_cannot_be_read_or_written_is_one_of_the_service(bad):
    with answering(bad) as (address, _):
        made = at(address)
        assert generate(made) == ""
    rows = made.ledger.frame().query("prompt == @BAD")
    assert rows["status"].iloc[-1] == "refused" and rows["error"].str.startswith("400").all()


def test_several_images_are_all_charged_and_the_first_is_kept():
    def answer(path, headers, request):
        item = {"b64_json": base64.b64encode(png()).decode()}
        return 200, {"data": [item, item, item]}

    with serving(images_only(answer)) as (address, _):
        made = at(address, price_image=0.25)
        assert generate(made) == "" and len(on_disk(made)) == len(WORDS)
    rows = made.ledger.frame()
    assert rows["cost_usd"].eq(0.75).all()
    assert rows["error"].str.startswith("3 images came, the first is kept").all()


def test_what_failed_before_is_asked_for_last():
    with answering((403, {"error": {"message": "no"}}), among=WORDS[:3]) as (address, seen):
        generate(at(address, in_flight=1))
        before = len(seen)
        generate(at(address, in_flight=1))
        first = [each["body"]["prompt"] for each in seen[before : before + 3]]
    assert first == WORDS[3:]


@pytest.mark.parametrize(
    "flag",
    [
        {"data": [], "flagged": True},
        {"data": [], "error": {"code": "content_filter", "message": "m"}},
        {"data": [], "moderation": {"input": {"flagged": True}}},
        {"data": [{"b64_json": None, "finish_reason": "content_filter"}]},
        {"data": [], "prompt_filter_results": [{"violence": {"filtered": True}}]},
        {"data": [], "promptFeedback": {"blockReason": "SAFETY"}},
        {"data": [{"b64_json": "", "nsfw_content_detected": [True]}]},
    ],
)
def test_an_answer_without_an_image_and_with_a_flag_is_a_refusal(flag):
    with answering((200, flag | {"usage": USAGE})) as (address, seen):
        made = at(address)
        assert generate(made) == ""
        assert len(on_disk(made)) == 5 and len(seen) == 6
        assert generate(at(address)) == "" and len(seen) == 6
    ledger = made.ledger.frame()
    assert ledger.loc[ledger["prompt"] == BAD, "status"].tolist() == ["refused"]
    assert (ledger["cost_usd"] == ledger["cost_usd"][0]).all(), "what was counted is charged"


@pytest.mark.parametrize(
    "limit",
    [
        {"error": {"message": "Rate limit exceeded", "code": 429}},
        {"error": {"message": "slow down", "type": "rate_limit_error"}, "data": []},
        {"detail": "Too Many Requests"},
        {"code": 503, "msg": "overloaded"},
        {"error": {"status": "RESOURCE_EXHAUSTED", "message": "try later"}, "data": None},
    ],
)
def test_a_limit_answered_as_a_success_is_waited_out_and_free(limit):
    left = 3 * [(200, limit, {"Retry-After": "0.05"})]
    with answering(lambda *_: left.pop() if left else image(), among=WORDS) as (address, seen):
        made = at(address, in_flight=1)
        assert generate(made) == ""
        assert len(on_disk(made)) == 6 and len(seen) == 9
    failed = made.ledger.frame().query("status == 'failed'")
    assert len(failed) == 3 and failed["cost_usd"].eq(0).all()


@pytest.mark.parametrize(
    ("bad", "helps"),
    [
        ({"error": {"code": "insufficient_quota", "message": "used up"}}, "add credit"),
        ({"error": {"code": 401, "message": "no"}, "data": []}, "Check the key"),
    ],
)
def test_what_stops_a_run_stops_it_as_a_success_too(bad, helps):
    with answering((200, bad), among=WORDS) as (address, seen):
        made = at(address, in_flight=1)
        said = generate(made)
        assert helps in said and len(seen) == 1 and made.ledger.spent_usd == 0


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "JPEG", "PNG"])
@pytest.mark.parametrize("raw", [True, False])
def test_an_image_of_another_format_is_kept(kind, raw):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png())).save(buffer, kind)
    content = buffer.getvalue()
    encoded = base64.b64encode(content).decode()
    answer = (200, content if raw else {"data": [{"b64_json": encoded}], "usage": USAGE})
    with answering(answer, among=WORDS) as (address, seen):
        made = at(address, WORDS[:2])
        assert generate(made) == "" and len(seen) == 2
        copies = paid_images.study_copies(made.run, made.orders)
    assert copies["width"].eq(64).all()
    for order in made.orders:
        assert made.on_disk(order).read_bytes() == content
        kept = json.loads((made.paid / f"{order.image_id}.json").read_text())
        assert kept["format"] == kind and kept["c2pa"] == {"present": False}


def stream(*events):
    return b"".join(b"data: " + json.dumps(event).encode() + b"\r\n\r\n" for event in events)


@pytest.mark.parametrize("shape", ["event", "data"])
def test_an_image_sent_as_an_event_stream_is_kept(shape):
    small, whole = (base64.b64encode(png(grey=grey)).decode() for grey in (1, 2))
    last = {"type": "image_generation.completed", "usage": USAGE, "size": "64x64"}
    last |= {"b64_json": whole} if shape == "event" else {"data": [{"b64_json": whole}]}
    preview = {"type": "image_generation.partial_image", "b64_json": small}
    answer = (200, stream(preview, last) + b"data: [DONE]\n", {"Content-Type": "text/event-stream"})
    with answering(answer, among=WORDS) as (address, seen):
        made = at(address, WORDS[:1])
        assert generate(made) == "" and len(seen) == 1
    assert made.on_disk(made.orders[0]).read_bytes() == png(grey=2)
    assert made.ledger.frame()["output_tokens"].tolist() == [196]


@pytest.mark.parametrize(
    ("event", "says"),
    [({"error": {"message": "out of memory"}}, "out of memory"), ({"type": "partial"}, "empty")],
)
def test_an_event_stream_without_an_image_is_empty(event, says):
    with answering((200, stream(event)), among=WORDS) as (address, seen):
        assert says in generate(at(address, WORDS[:1])) and len(seen) == 2


@pytest.mark.parametrize(
    ("code", "said"), [("rate_limit_exceeded", ""), ("insufficient_quota", "add credit")]
)
def test_an_error_inside_an_event_stream_is_that_error_and_free(code, said):
    event = stream({"type": "error", "error": {"code": code, "message": "no"}})
    left = 3 * [(200, event, {"Retry-After": "0.05"})]
    with answering(lambda *_: left.pop() if left else image(), among=WORDS) as (address, seen):
        made = at(address, in_flight=1)
        assert said in generate(made) and len(seen) == (1 if said else 9)
    failed = made.ledger.frame().query("status != 'ok'")
    assert len(failed) == (1 if said else 3) and failed["cost_usd"].eq(0).all()


def _cut_at_its_end(content):
    """An answer whose connection closes before it has announced its end."""
    return 200, content, {"Content-Length": str(len(content) + 9), "Connection": "close"}


@pytest.mark.parametrize("kind", ["image_generation.completed", None])
def test_an_event_stream_that_came_whole_is_kept_though_the_connection_broke(kind):
    event = {"type": kind, "usage": USAGE, "b64_json": base64.b64encode(png()).decode()}
    whole = _cut_at_its_end(stream(event) + (b"" if kind else b"data: [DONE]\n\n"))
    with answering(whole, among=WORDS) as (address, seen):
        made = at(address, WORDS[:1], ask_again=0, timeout_seconds=1.0)
        assert generate(made) == "" and len(seen) == 1 and len(on_disk(made)) == 1


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, stream({"type": "partial", "b64_json": "iVBO"})]
)
def test_an_answer_that_was_cut_off_may_have_been_billed(content):
    with answering(_cut_at_its_end(content), among=WORDS) as (address, seen):
        made = at(address, WORDS[:1], ask_again=1, timeout_seconds=1.0)
        assert "the answer was lost" in generate(made) and len(seen) == 2
    assert made.ledger.frame()["status"].tolist() == ["unknown", "unknown"]


def test_an_answer_that_unpacks_to_more_than_the_memory_is_given_up(monkeypatch):
    monkeypatch.setattr(connection, "MOST_BYTES", 1 << 20)
    bomb = (200, gzip.compress(bytes(1 << 26)), {"Content-Encoding": "gzip"})
    with answering(bomb, among=WORDS) as (address, seen):
        made = at(address, WORDS[:1], ask_again=1)
        assert "larger than 1 MB; may have been billed" in generate(made) and len(seen) == 2
    assert made.ledger.frame()["status"].tolist() == ["unknown", "unknown"]


def for_ever(*_):
    return itertools.repeat(bytes(1 << 16))


@pytest.mark.parametrize("status", [200, 302, 400, 500])
def test_an_answer_without_an_end_is_cut_off(status, monkeypatch):
    monkeypatch.setattr(connection, "MOST_BYTES", 1 << 20)
    with answering((status, for_ever(), {"Location": "/x"}), among=WORDS) as (address, seen):
        made = at(address, WORDS[:1], ask_again=0, tries=1)
        said = generate(made)
    assert len(seen) <= 2 and ("larger than 1 MB" if status == 200 else str(status)) in said


def test_a_list_of_models_without_an_end_is_no_list(monkeypatch):
    monkeypatch.setattr(connection, "MOST_BYTES", 1 << 20)
    with serving(lambda *_: (200, for_ever())) as (address, _):
        said = asyncio.run(service.preflight(service_of(base_url=f"{address}/v1")))
    assert "does not list its models" in said


def test_an_image_without_an_end_is_given_up(monkeypatch):
    monkeypatch.setattr(connection, "MOST_BYTES", 1 << 20)

    def answer(method, path, headers, request):
        if method == "POST":
            return 200, {"data": [{"url": "/one.png"}], "usage": USAGE}
        return 200, for_ever()

    with serving(answer) as (address, _):
        made = at(address, WORDS[:1], ask_again=0)
        assert "its url gives more than 1 MB" in generate(made)


def test_an_image_that_could_not_be_downloaded_is_fetched_before_anything_is_asked_for(monkeypatch):
    monkeypatch.setattr(answers, "FETCH_WAITS_SECONDS", (0.1, 0))
    there = []

    def answer(method, path, headers, request):
        if method == "POST":
            return 200, {"data": [{"url": f"http://{headers['host']}/1.png"}], "usage": USAGE}
        return (200, png()) if there else (404, {})

    with serving(answer) as (address, seen):
        assert "could not be fetched" in generate(at(address, WORDS[:1], ask_again=0))
        there.append(True)
        again = at(address, WORDS[:1])
        assert generate(again) == "" and len(seen) == 1
    assert len(on_disk(again)) == 1 and not list(again.paid.rglob("*.bin"))
    assert again.ledger.frame()["status"].tolist() == ["ok"]


@pytest.mark.parametrize("trouble", ["redirect", "late", "never"])
def test_an_image_behind_an_address_is_waited_for(trouble, monkeypatch):
    monkeypatch.setattr(answers, "FETCH_WAITS_SECONDS", (0.1, 0.1, 0.1, 0.1, 0.1, 0))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    fetched = []

    def answer(method, path, headers, request):
        if method == "POST":
            return 200, {"data": [{"url": "/one.png?sig=secret"}], "usage": USAGE}
        fetched.append(path)
        if trouble == "redirect" and "one" in path:
            return 302, b"", {"Location": "/two.png?sig=other"}
        gone = trouble == "never" or len(fetched) < 6
        return (404, {}) if trouble != "redirect" and gone else (200, png())

    with serving(answer) as (address, seen):
        made = at(address, WORDS[:1], ask_again=0)
        said = generate(made)
    assert len(seen) == 1 and (said == "") == (trouble != "never")
    assert "secret" not in said and "other" not in said
    assert len(on_disk(made)) == (trouble != "never")


@pytest.mark.parametrize(("address", "signed"), [("/one.png", False), ("/one.png?sig=x", True)])
def test_a_kill_while_an_image_is_downloaded_loses_it_only_behind_a_signed_address(address, signed):
    def answer(method, path, headers, request):
        if method == "POST":
            return 200, {"data": [{"url": f"http://{headers['host']}{address}"}], "usage": USAGE}
        return 200, png()

    with serving(answer) as (url, seen):
        child = multiprocessing.get_context("fork").Process(target=_killed_in_download, args=(url,))
        child.start()
        child.join()
        made = at(url, WORDS[:1])
        (row,) = made.ledger.rows.values()
        assert row["status"] == "unknown" and "may have been billed" in made.plan()
        assert "sig=" not in "".join(path.read_text() for path in made.paid.rglob("*.bin"))
        assert generate(made) == "" and len(seen) == 1 + signed and len(on_disk(made)) == 1
    assert not list(made.paid.rglob("*.bin"))
    assert made.ledger.frame()["status"].tolist() == ["unknown", "ok"][1 - signed :]
    assert made.ledger.frame()["cost_usd"].min() >= 0.00593 - 1e-9, "what was billed is counted"


def _killed_in_download(url):
    answers.fetch_url = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    generate(at(url, WORDS[:1]))


def test_an_image_elsewhere_is_fetched_through_the_proxy_though_the_gateway_is_here(monkeypatch):
    tried = []
    got = SimpleNamespace(iter_bytes=lambda: [png()])
    got.raise_for_status = lambda: got

    def stream(method, url, **options):
        tried.append(options["trust_env"])
        return contextlib.nullcontext(got)

    monkeypatch.setattr(answers.httpx2, "stream", stream)
    for url in ("https://cdn.example/1.png", "http://127.0.0.1:1/1.png", "/1.png"):
        answers._fetch(SimpleNamespace(base_url="http://localhost:4000/v1"), url)
    assert tried == [True, False, False]


@pytest.mark.parametrize(
    "empty", [{"data": []}, {"data": [], "flagged": False, "moderation": "auto"}, {"data": [{}]}]
)
def test_an_empty_answer_is_tried_once_more(empty):
    with answering((200, empty | {"usage": USAGE})) as (address, seen):
        said = generate(at(address))
        assert len(seen) == 5 + 2
    assert "1 of 6 images is missing" in said


@pytest.mark.parametrize("bad", ["@@@@", "abcde", base64.b64encode(b"GIF89a").decode(), ""])
@pytest.mark.parametrize("words", [WORDS, WORDS[:1]])
def test_the_same_unusable_answer_for_three_prompts_stops_the_run(bad, words):
    answer = (200, {"data": [{"b64_json": bad}], "usage": USAGE})
    with answering(answer, among=words) as (address, seen):
        made = at(address, words, count=6 // len(words), in_flight=1)
        said = generate(made)
        assert len(seen) == 3 and "in the same way" in said and "again" not in said
    assert made.ledger.spent_usd == pytest.approx(3 * (196 * 30 + 10 * 5) / 1e6)


@pytest.mark.parametrize("how", ["base64", "json", "image"])
def test_what_was_paid_for_and_could_not_be_read_is_tried_again_before_anything_is_sent(how):
    with answering(None, among=()) as (address, seen):
        made = at(address, WORDS[:1])
        request_id = made.begin(made.orders[0], 0.02)
        counted = {"input_tokens": 10, "output_tokens": 196, "cost_usd": 0.00593}
        made.ledger.settle(request_id, "failed", **counted, error="base64 that does not decode")
        made.ledger.save_now()
        encoded = base64.b64encode(png()).decode().rstrip("=")
        kept = {
            "base64": encoded.encode(),
            "json": json.dumps({"data": [{"b64_json": encoded}], "usage": USAGE}).encode(),
            "image": png(),
        }[how]
        write_atomically(made.paid / "unusable" / f"{request_id}.bin", kept)
        again = at(address, WORDS[:1])
        assert generate(again) == "" and seen == []
    assert len(on_disk(again)) == 1
    (row,) = again.ledger.rows.values()
    assert (row["status"], row["cost_usd"]) == ("ok", pytest.approx(0.00593))


def test_an_attempt_without_an_answer_is_set_aside_at_what_images_really_cost():
    dear = USAGE | {"output_tokens": 5 * 196, "total_tokens": 5 * 196 + 10}
    with serving(images_only(lambda *_: image(usage=dear))) as (address, _):
        made = at(address)
        request_id = made.begin(made.orders[0], made.estimate(made.orders[0]).reserve_usd)
        made.ledger.save_now()
        again = at(address)
        assert again.ledger.rows[request_id]["status"] == "unknown"
        assert again.ledger.rows[request_id]["cost_usd"] == pytest.approx(0.0178, rel=0.05)
        assert generate(again) == ""
        lost = again.ledger.rows[request_id]["cost_usd"]
        assert lost == pytest.approx(1.1 * 5 * 196 * 30e-6, rel=0.02)
        assert at(address).ledger.rows[request_id]["cost_usd"] == pytest.approx(lost)


@pytest.mark.parametrize("count", [200_000, 10**12])
def test_a_count_that_the_budget_refuses_is_refused_for_the_budget(count):
    run = run_of(base_url="http://127.0.0.1:9", budget_usd=5.0)
    with pytest.raises(prompts.PromptError, match="budget"):
        prompts.orders(table(("chest CT", count)), service.of(run))


def test_a_budget_that_covers_few_is_not_a_full_disk(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Disk", (), {"free": 100_000_000}))
    with answering(None, among=()) as (address, _):
        said = generate(at(address, WORDS, count=100, budget_usd=0.03))
    assert "budget" in said and "MB" not in said


def test_the_key_and_signed_addresses_are_nowhere(monkeypatch, capsys):
    key = "sk-proj-Very+Secret/Key=1"
    monkeypatch.setenv("OPENAI_API_KEY", key)

    def bad(headers, request):
        if request["prompt"] == WORDS[5]:
            return 200, json.dumps({"data": [{"b64_json": f"@{key}"}]}).replace("/", "\\/").encode()
        if request["prompt"] == WORDS[0]:
            return 422, {"error": {"message": f"flagged, {headers['authorization']}"}}
        if request["prompt"] == WORDS[1]:
            return 422, {"error": {"message": "x" * 485 + key}}
        if request["prompt"] == WORDS[2]:
            return 200, {"data": [{"b64_json": f"@{key}"}], "usage": USAGE}
        if request["prompt"] == WORDS[3]:
            address = f"http://user:pw@127.0.0.1:9/a.png?sig=signature&key={key}"
            return 200, {"data": [{"url": address}], "usage": USAGE}
        more = {"data": [dict(image()[1]["data"][0], revised_prompt=f"for {key}")]}
        return 200, image()[1] | more

    with answering(bad, among=WORDS) as (address, _):
        made = at(address, ask_again=0)
        said = generate(made)
    assert said
    texts = [said, capsys.readouterr().out, made.plan()]
    files = [path for path in made.run.folder.rglob("*") if path.is_file()]
    texts += [path.read_bytes().decode("latin-1") for path in files if path.suffix != ".png"]
    assert any(path.suffix == ".bin" for path in files)
    for text in texts:
        assert "Very" not in text and "signature" not in text and "user:pw" not in text
    assert "[key]" in "".join(texts)


def test_a_key_echoed_by_a_refused_list_or_an_address_is_taken_out(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "plainwordkey")
    models = (401, {"error": {"message": "Incorrect API key provided: plainwordkey"}})
    with serving(images_only(None, models)) as (address, _):
        asked = service.of(run_of(base_url=f"{address}/v1"))
        with pytest.raises(connection.ServiceError, match="Incorrect API key") as caught:
            asyncio.run(service.preflight(asked))
    assert "plainwordkey" not in str(caught.value)
    with pytest.raises(connection.ServiceError, match="address alone") as caught:
        service.of(run_of(base_url="https://me:secret@gateway.example/v1?key=abc"))
    assert "secret" not in str(caught.value) and "abc" not in str(caught.value)


@pytest.mark.parametrize("key", ["1", "0", "file", "bytes", "png", "none"])
def test_a_short_key_leaves_what_is_kept_readable(monkeypatch, key):
    monkeypatch.setattr(secrets, "_in_use", set())
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with answering((200, {"data": []})) as (address, _):
        made = at(address, provider="local", price_image=0.0, ask_again=0)
        generate(made)
        assert len(on_disk(made)) == len(WORDS) - 1
    assert secrets.clean_bytes(b'{"sure": 1, "file": "none", "grey": 0}').startswith(b'{"sure": 1')


@pytest.mark.parametrize("key", ["“sk-abcdefghijkl”", "sk-abcdefgh\nsecond", "schlüssel-1234"])
def test_what_cannot_be_a_key_is_not_sent_and_not_shown(monkeypatch, key):
    monkeypatch.setattr(secrets, "_in_use", set())
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(connection.ServiceError, match="The key in OPENAI_API_KEY has") as refused:
        service.of(run_of())
    assert key not in str(refused.value) and "second" not in str(refused.value)


def test_a_short_key_is_no_part_of_other_words(monkeypatch):
    monkeypatch.setattr(secrets, "_in_use", {"test"})
    assert secrets.clean("the latest test failed") == "the latest [key] failed"


@pytest.mark.parametrize(
    ("bad", "helps"),
    [
        ((401, body(None, "invalid_api_key", "wrong")), "Check the key"),
        ((402, {"detail": "Payment required"}), "add credit"),
        ((429, body("insufficient_quota", "insufficient_quota", "used up")), "add credit"),
        ((404, body(None, "model_not_found", "no such model")), "Choose a model"),
    ],
)
def test_run_again_is_said_only_where_it_can_help(bad, helps):
    with answering(bad, among=WORDS) as (address, _):
        said = generate(at(address))
        assert helps in said and "again" not in said.lower()
    with answering((500, {"detail": "oops"}), among=WORDS) as (address, _):
        assert "Run the stage again" in generate(at(address, tries=1))


def test_a_stage_without_a_single_image_is_not_finished():
    with answering((400, body(None, "moderation_blocked", "no")), among=WORDS) as (address, _):
        made = at(address)
        assert generate(made) == ""
        copies = paid_images.study_copies(made.run, made.orders)
        with pytest.raises(Exception, match="moderation_blocked") as caught:
            paid_images.finish(made.run, copies, made.ledger)
    assert "not finished" in str(caught.value) and not made.run.finished


@pytest.mark.parametrize(
    ("model", "listed"),
    [
        ("imagen-4", "models/imagen-4"),
        ("models/imagen-4", "models/imagen-4"),
        ("openai/imagen-4", "imagen-4"),
        ("imagen-4", "vertex_ai/imagen-4"),
    ],
)
def test_a_model_is_found_in_a_list_with_prefixes(model, listed):
    with serving(images_only(None, (200, {"data": [{"id": listed}]}))) as (address, _):
        asked = service.of(run_of(base_url=f"{address}/v1", model=model, price_image=0.1))
        assert "is offered" in asyncio.run(service.preflight(asked))


@pytest.mark.parametrize("status", [400, 402, 403, 404, 405, 422, 429, 500, 501, 503])
def test_a_list_that_cannot_be_had_is_no_refusal(status):
    with serving(images_only(None, (status, {"detail": "no"}))) as (address, _):
        asked = service.of(run_of(base_url=f"{address}/v1"))
        assert "not checked" in asyncio.run(service.preflight(asked))


def test_a_wait_that_only_the_renewal_of_the_limit_names_is_heeded():
    waits = {"x-ratelimit-reset-requests": "1500ms", "x-ratelimit-remaining-requests": "0"}
    times = []

    def answer(path, headers, request):
        times.append(asyncio.new_event_loop().time())
        return image() if len(times) > 1 else (429, body(None, "rate_limit_exceeded"), waits)

    with serving(images_only(answer)) as (address, _), contextlib.suppress(KeyError):
        assert generate(at(address, WORDS[:1])) == ""
    assert times[1] - times[0] >= 1.5
