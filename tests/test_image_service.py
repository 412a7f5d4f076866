"""Who is asked and how: providers, request shapes, preflight, keys, answers."""

import asyncio
import base64
import json
from types import SimpleNamespace

import pytest
from faulty_service import ImageServer
from generations import (
    MODEL,
    elsewhere,  # noqa: F401
    generate,
    generation,
    on_disk,
    run_of,
    service_of,
)
from other_services import images_only, serving

from helpers.generate_openai import answers, service
from helpers.rehearsal import image_api_answers
from helpers.runner import folders
from helpers.services import connection, prices


def checked(server, needed_until="", **values):
    asked = service_of(base_url=server.url, needed_until=needed_until, **values)
    return asyncio.run(service.preflight(asked))


@pytest.mark.parametrize("base_url", ["", "http://127.0.0.1:9/v1", "https://gateway.example/v1"])
def test_without_a_key_one_sentence_says_how_to_get_on_before_anything_is_sent(
    monkeypatch, base_url
):
    monkeypatch.delenv("OPENAI_API_KEY")
    run = run_of(base_url=base_url)
    with pytest.raises(connection.ServiceError) as caught:
        service.of(run)
    message = str(caught.value)
    for word in ("OPENAI_API_KEY", "base_url", "provider: local", "rehearsal"):
        assert word in message
    assert "\n" not in message
    run.finished = True
    service.of(run)


def test_the_key_is_taken_from_the_environment_else_from_the_studys_keys(monkeypatch):
    kept = folders.keys_folder("s") / "OPENAI_API_KEY"
    kept.write_text("sk-kept\n")
    assert connection.credential(run_of()) == "test"
    monkeypatch.delenv("OPENAI_API_KEY")
    assert connection.credential(run_of()) == "sk-kept"
    assert "sk-kept" not in repr(service_of())


def test_preflight_knows_models_that_stay_go_and_are_gone():
    with ImageServer() as server:
        assert "is offered" in checked(server)
        assert "until 2026-12-01" in checked(server, "2026-11-30", model="gpt-image-1.5")
        with pytest.raises(connection.ServiceError, match="shuts down on 2026-12-01"):
            checked(server, "2026-12-01", model="gpt-image-1.5")
        with pytest.raises(connection.ServiceError, match="not offered"):
            checked(server, model="gpt-image-1", priced_as="gpt-image-2")
        with pytest.raises(connection.ServiceError, match="needed_until"):
            checked(server, "next summer")
    assert server.requests == []


def test_preflight_says_when_the_key_is_refused_and_when_nobody_is_there(monkeypatch):
    with (
        ImageServer(key="another") as server,
        pytest.raises(connection.ServiceError, match="Incorrect API key"),
    ):
        checked(server)
    with pytest.raises(connection.ServiceError, match="Check the address"):
        checked(server)


@pytest.mark.parametrize(
    ("said", "until", "expected"),
    [
        ("2027-03-01", "2027-02-28", "until 2027-03-01"),
        ("2027-03-01T00:00:00Z", "2027-03-01", None),
        (1_803_859_200, "2027-02-28", "until 2027-03-01"),
        (1_803_859_200_000, "2027-03-01", None),
        ("1803859200", "2027-03-01", None),
        ("2020-01-01", "", None),
        ("", "2027-03-01", "no end announced"),
        ("next spring", "2027-03-01", "which is not a date"),
    ],
)
def test_the_end_of_a_model_in_whatever_way_it_is_said(monkeypatch, said, until, expected):
    monkeypatch.setitem(image_api_answers.TODAY, MODEL, said)
    with ImageServer() as server:
        if expected:
            assert expected in checked(server, until)
        else:
            with pytest.raises(connection.ServiceError, match="shuts down"):
                checked(server, until)


@pytest.mark.parametrize(
    "listed", [None, [], {"object": "list"}, {"data": None}, "<html>", {"data": ["a"]}]
)
def test_a_server_without_a_usable_list_of_models_is_asked_all_the_same(monkeypatch, listed):
    monkeypatch.setattr(
        "helpers.rehearsal.image_api.Handler.found", lambda handler, path: (200, listed)
    )
    with ImageServer() as server:
        assert "not checked" in checked(server)


def test_a_key_that_may_not_list_models_may_still_make_images(monkeypatch):
    monkeypatch.setattr(
        "helpers.rehearsal.image_api.Handler.found",
        lambda handler, path: (403, {"error": {"message": "Missing scopes"}}),
    )
    with ImageServer() as server:
        assert "not checked" in checked(server)


@pytest.mark.parametrize("given", ["{0}", "{0}/", "{0}/v1", "{0}/v1/"])
def test_an_address_with_or_without_its_version_and_slash(given):
    with ImageServer(sketch=True) as server:
        made = generation(server, 1, base_url=given.format(server.url.removesuffix("/v1")))
        assert "is offered" in asyncio.run(service.preflight(made.service))
        generate(made)
    assert len(on_disk(made)) == 1


@pytest.mark.parametrize(
    ("provider", "base_url", "says"),
    [
        ("local", "", "needs base_url"),
        ("local", "127.0.0.1:8000/v1", "http://"),
        ("local", "http://localhost:abc/v1", "base_url must be an address"),
        ("local", "http://127.0.0.1:99999/v1", "base_url must be an address"),
        ("local", "http://:8000", "base_url must be an address"),
        ("local", "http://[::1", "base_url must be an address"),
        ("local", "http://exa\tmple.org", "base_url must be an address"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused(provider, base_url, says):
    with pytest.raises(connection.ServiceError, match=says):
        service_of(provider=provider, base_url=base_url)


def test_what_the_environment_says_for_openai_is_heard_for_openai_alone(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example/v1")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert service_of(base_url="").base_url == "https://gateway.example/v1"
    with ImageServer(sketch=True) as server:
        made = generation(server, 1, provider="local", quality="auto", tries=1)
        assert made.service.client().organization is None
        generate(made)
    assert len(on_disk(made)) == 1, "a proxy does not find this machine's own servers"


def test_azure_without_a_key_says_so(monkeypatch):
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    with pytest.raises(connection.ServiceError, match="AZURE_OPENAI_API_KEY"):
        service_of(
            provider="azure",
            model="d",
            base_url="https://a.openai.azure.com/openai/",
            api_version="v",
            priced_as="gpt-image-2",
        )


@pytest.mark.parametrize(
    "base_url", ["https://api.openai.com/v1", "https://gateway.example", "http://127.0.0.1:4000/v1"]
)
def test_no_server_is_free_unless_the_study_says_so(base_url):
    asked = {"provider": "local", "model": "an-image-model", "base_url": base_url}
    with pytest.raises(prices.PriceError, match="price_image"):
        service_of(**asked)
    assert service_of(**asked, price_image=0.0).price.image("1024x1024") == 0
    assert service_of(**asked, price_image=0.04).price.image("1024x1024") == 0.04
    assert service_of(**asked, price_output=40.0).price.output_usd == 40


def test_no_request_for_today_s_models_has_the_retired_models_fields():
    with ImageServer(sketch=True) as server:
        made = generation(server, 1, moderation="low")
        generate(made)
    today = service_of(quality="auto")
    assert set(today.request(made.orders[0])) == {"model", "prompt", "n", "size"}


@pytest.mark.parametrize("by_url", [False, True])
def test_the_request_of_dall_e_2_and_its_answers(by_url):
    with ImageServer(answer_by_url=by_url) as server:
        made = generation(server, 2, model="dall-e-2", size="256x256", quality="auto")
        ledger = generate(made)
    assert len(on_disk(made)) == 2 and ledger["cost_usd"].tolist() == [0.016, 0.016]
    assert made.service.request(made.orders[0])["response_format"] == "b64_json"


@pytest.mark.parametrize(
    ("model", "quality", "sent"),
    [
        ("dall-e-3", "medium", None),
        ("dall-e-3", "auto", None),
        ("dall-e-3", "hd", "hd"),
        ("dall-e-2", "hd", None),
        ("dall-e-2", "standard", None),
        (MODEL, "auto", None),
        (MODEL, "low", "low"),
    ],
)
def test_a_quality_that_is_not_sent_is_not_recorded(model, quality, sent):
    with ImageServer(sketch=True) as server:
        made = generation(server, 1, model=model, quality=quality, price_image=0.04)
        request_id = made.begin(made.orders[0], 0.1)
    assert made.service.request(made.orders[0]).get("quality") == sent
    assert made.ledger.rows[request_id]["quality"] == sent


def test_a_url_that_cannot_be_fetched_is_a_lost_answer_and_counted(monkeypatch):
    monkeypatch.setattr(answers, "FETCH_WAITS_SECONDS", (0.1, 0))
    with ImageServer(answer_by_url=True, sketch=True) as server:
        server.pictures = _Forgetful()
        made = generation(server, 1, ask_again=0)
        with pytest.raises(connection.ServiceError, match="url could not be fetched"):
            generate(made)
    assert made.ledger.spent_usd == pytest.approx(server.billed_usd)


@pytest.mark.parametrize("url", ["http://[::1", "file:///etc/passwd", "http://\0/", 5, {"a": 1}])
def test_a_url_that_is_none_is_a_useless_answer_and_counted(url, monkeypatch):
    monkeypatch.setattr(answers, "FETCH_WAITS_SECONDS", (0,))
    usage = {"input_tokens": 10, "output_tokens": 196}
    answer = images_only(lambda *_: (200, {"data": [{"url": url}], "usage": usage}))
    with serving(answer) as (address, seen):
        made = generation(SimpleNamespace(url=f"{address}/v1"), 1, ask_again=0)
        with pytest.raises(connection.ServiceError, match="url"):
            generate(made)
    assert len(seen) == 1 and made.ledger.frame()["output_tokens"].tolist() == [196]


def test_a_url_may_be_relative_to_the_server():
    with ImageServer() as server:
        server.pictures["1.png"] = b"picture"
        assert answers.fetch_url("/pictures/1.png", server.url, False) == b"picture"


class _Forgetful(dict):
    def __setitem__(self, name, picture):
        pass


def test_azure_asks_for_a_deployment_and_is_priced_as_its_model(monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure")
    with ImageServer(key="azure", sketch=True) as server:
        made = generation(
            server,
            2,
            provider="azure",
            model="our-images",
            api_version="2025-04-01-preview",
            priced_as="gpt-image-2",
            base_url=server.url.removesuffix("/v1"),
        )
        ledger = generate(made)
        assert "not checked" in asyncio.run(service.preflight(made.service))
    assert len(on_disk(made)) == 2
    assert ledger["cost_usd"].sum() == pytest.approx(server.billed_usd)


OWN = {"provider": "local", "model": "sd-turbo", "size": "512x512", "price_image": 0.0}


def test_own_servers_get_further_fields_and_a_seed_of_each_image():
    with ImageServer() as server:
        own = OWN | {"request_shape": "dall-e", "extra_body": '{"steps": 4}', "seed_field": "seed"}
        made = generation(server, 2, **own)
        bodies = [made.service.request(order) for order in made.orders]
        assert [body["steps"] for body in bodies] == [4, 4]
        assert bodies[0]["seed"] != bodies[1]["seed"]
        assert bodies == [made.service.request(order) for order in made.orders]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"extra_body": "[1]"}, "JSON object"),
        ({"extra_body": "{"}, "JSON object"),
        ({"extra_body": '{"n": 4}'}, "may not set n"),
        ({"extra_body": '{"stream": true}'}, "may not set stream"),
        ({"extra_body": '{"model": "another"}'}, "may not set model"),
        ({"extra_body": '{"Prompt": "a cat"}'}, "may not set prompt"),
        ({"seed_field": "n"}, "may not set n"),
    ],
)
def test_further_fields_may_not_change_what_is_asked_for_and_billed(given, says):
    with pytest.raises(connection.ServiceError, match=says):
        service_of(**OWN, **given)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"data": []}, "empty"),
        ({}, "empty"),
        ({"data": None}, "empty"),
        ([], "not a JSON object"),
        ({"data": [{}]}, "neither"),
        ({"data": [{"b64_json": "%%%"}]}, "base64"),
        ({"data": [{"b64_json": "abcde"}]}, "base64"),
        ({"data": [{"b64_json": 12}]}, "base64"),
        ({"data": [None]}, "empty"),
        ({"data": {"url": "http://a"}}, "empty"),
        ({"data": [{"b64_json": None}]}, "neither"),
        ({"data": [{"url": "file:///etc/hostname"}]}, "not http"),
    ],
)
def test_answers_without_a_picture_say_what_they_are(body, says):
    with pytest.raises(connection.Unusable, match=says):
        answers.read(json.dumps(body).encode(), _fetch)


def _fetch(url):
    return answers.fetch_url(url, "", False)


def test_answers_with_an_image_however_it_is_encoded():
    image = b"\x89PNG" + bytes(range(250, 256)) * 3
    encoded = base64.b64encode(image).decode()
    assert encoded.endswith("=")
    data = f"data:image/png;base64,{encoded}"
    lines = encoded[:4] + "\r\n" + encoded[4:] + "\n"
    url_safe = base64.urlsafe_b64encode(image).decode()
    assert url_safe != encoded
    said = [{"b64_json": text} for text in (encoded, lines, data, url_safe, encoded.rstrip("="))]
    said += [{"url": data}, {"b64_json": url_safe.rstrip("=")}]
    said += [{"b64_json": f"\n {data}"}, {"url": f" {data}"}, {"url": data.replace("data", "DATA")}]
    said += [{"b64_json": f"image/png;base64,{encoded}"}]
    for item in said:
        assert answers.read(json.dumps({"data": [item]}).encode(), None).content == image
        for first in ([], [None], [{"b64_json": ""}]):
            assert answers.read(json.dumps({"data": [*first, item]}).encode(), None).images == 1
    assert answers.read(image, None).content == image
    assert answers.read(encoded.encode(), None).content == image
    body = {
        "data": [{"b64_json": encoded, "revised_prompt": "r"}],
        "usage": {"output_tokens": 5},
        "size": "1x1",
    }
    answer = answers.read(json.dumps(body).encode(), None)
    assert answer.usage == {"output_tokens": 5}
    assert answer.effective == {"size": "1x1", "revised_prompt": "r"}
