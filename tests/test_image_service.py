"""Who is asked and how: providers, request shapes, preflight, keys, answers."""

import asyncio
import base64
import json
import os

import pytest
from test_buying import MODEL, buy, elsewhere, on_disk, purchase  # noqa: F401

from helpers.generate_openai import answers, image_service
from helpers.rehearsal import image_api_answers
from helpers.rehearsal.image_api import ImageServer
from helpers.runner import runs
from helpers.services import prices


def checked(server, needed_until="", **how):
    asked = {
        "provider": "openai",
        "model": MODEL,
        "size": "1024x1024",
        "quality": "low",
        "base_url": server.url,
        **how,
    }
    return asyncio.run(image_service.preflight(image_service.service(**asked), needed_until))


def test_without_a_key_and_without_an_address_one_sentence_says_how_to_get_on(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    run = runs.Run("s", "02_generate_openai", {})
    with pytest.raises(image_service.BuyingError) as caught:
        image_service.service("openai", MODEL, "1024x1024", "low", run=run)
    message = str(caught.value)
    assert (
        "OPENAI_API_KEY" in message
        and "base_url" in message
        and "rehearsal" in message
        and "\n" not in message
    )
    run.finished = True
    image_service.service("openai", MODEL, "1024x1024", "low", run=run)


def test_the_key_is_taken_from_the_environment_else_from_the_studys_keys(monkeypatch):
    run = runs.Run("s", "02_generate_openai", {})
    kept = runs.keys_folder("s") / "OPENAI_API_KEY"
    kept.write_text("sk-kept\n")
    assert image_service.credential("openai", "", "s") == "test"
    monkeypatch.delenv("OPENAI_API_KEY")
    assert image_service.credential("openai", "", "s") == "sk-kept"
    assert "sk-kept" not in repr(
        image_service.service("openai", MODEL, "1024x1024", "low", run=run)
    )


def test_preflight_knows_models_that_stay_go_and_are_gone():
    with ImageServer() as server:
        assert "is offered" in checked(server)
        assert "until 2026-12-01" in checked(server, "2026-11-30", model="gpt-image-1.5")
        with pytest.raises(image_service.BuyingError, match="shuts down on 2026-12-01"):
            checked(server, "2026-12-01", model="gpt-image-1.5")
        with pytest.raises(image_service.BuyingError, match="not offered"):
            checked(server, model="gpt-image-1", priced_as="gpt-image-2")
        with pytest.raises(image_service.BuyingError, match="needed_until"):
            checked(server, "next summer")
    assert server.requests == []


def test_preflight_says_when_the_key_is_refused_and_when_nobody_is_there(monkeypatch):
    with (
        ImageServer(key="another") as server,
        pytest.raises(image_service.BuyingError, match="Incorrect API key"),
    ):
        checked(server)
    with pytest.raises(image_service.BuyingError, match="Is the address right"):
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
        ("next spring", "2027-03-01", "which is no date"),
    ],
)
def test_the_end_of_a_model_in_whatever_way_it_is_said(monkeypatch, said, until, expected):
    monkeypatch.setitem(image_api_answers.TODAY, MODEL, said)
    with ImageServer() as server:
        if expected:
            assert expected in checked(server, until)
        else:
            with pytest.raises(image_service.BuyingError, match="shuts down"):
                checked(server, until)


@pytest.mark.parametrize(
    "listed", [None, [], {"object": "list"}, {"data": None}, "<html>", {"data": ["a"]}]
)
def test_a_server_without_a_usable_list_of_models_is_asked_all_the_same(monkeypatch, listed):
    monkeypatch.setattr(
        "helpers.rehearsal.image_api._Handler._get", lambda handler, path: (200, listed)
    )
    with ImageServer() as server:
        assert "not checked" in checked(server)


def test_a_key_that_may_not_list_models_may_still_make_images(monkeypatch):
    monkeypatch.setattr(
        "helpers.rehearsal.image_api._Handler._get",
        lambda handler, path: (403, {"error": {"message": "Missing scopes"}}),
    )
    with ImageServer() as server:
        assert "not checked" in checked(server)


@pytest.mark.parametrize("given", ["{0}", "{0}/", "{0}/v1", "{0}/v1/"])
def test_an_address_with_or_without_its_version_and_slash(given):
    with ImageServer(sketch=True) as server:
        bought = purchase(server, 1, base_url=given.format(server.url.removesuffix("/v1")))
        assert "is offered" in asyncio.run(image_service.preflight(bought.asked))
        buy(bought)
    assert len(on_disk(bought)) == 1


@pytest.mark.parametrize(
    ("provider", "base_url", "says"),
    [("local", "", "needs base_url"), ("local", "127.0.0.1:8000/v1", "http://")],
)
def test_an_address_that_cannot_be_one_is_refused(provider, base_url, says):
    with pytest.raises(image_service.BuyingError, match=says):
        image_service.service(provider, MODEL, "1024x1024", "low", base_url)


def test_what_the_environment_says_for_openai_is_heard_for_openai_alone(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example/v1")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert (
        image_service.service("openai", MODEL, "1024x1024", "low").base_url
        == "https://gateway.example/v1"
    )
    with ImageServer(sketch=True) as server:
        bought = purchase(server, 1, provider="local", quality="auto")
        assert bought.asked.client().organization is None
        buy(bought, tries=1)
    assert len(on_disk(bought)) == 1, "a proxy does not find this machine's own servers"


def test_azure_without_a_key_says_so(monkeypatch):
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    with pytest.raises(image_service.BuyingError, match="AZURE_OPENAI_API_KEY"):
        image_service.service(
            "azure",
            "d",
            "1024x1024",
            "low",
            "https://a.openai.azure.com/openai/",
            "v",
            priced_as="gpt-image-2",
        )


def test_a_model_at_openai_is_never_free():
    with pytest.raises(prices.PriceError):
        image_service.service(
            "local", "gpt-image-9", "1024x1024", "low", "https://api.openai.com/v1"
        )


def test_no_request_for_today_s_models_has_the_retired_models_fields():
    with ImageServer(sketch=True) as server:
        buy(purchase(server, 1, moderation="low"))
    today = image_service.service("openai", MODEL, "1024x1024", "auto", "http://a")
    order = purchase(server, 1).orders[0]
    assert set(today.request(order)) == {"model", "prompt", "n", "size"}


@pytest.mark.parametrize("by_url", [False, True])
def test_the_request_of_dall_e_2_and_its_answers(by_url):
    with ImageServer(answer_by_url=by_url) as server:
        bought = purchase(server, 2, model="dall-e-2", size="256x256", quality="auto")
        ledger = buy(bought)
    assert len(on_disk(bought)) == 2 and ledger["cost_usd"].tolist() == [0.016, 0.016]
    assert bought.asked.request(bought.orders[0])["response_format"] == "b64_json"


@pytest.mark.parametrize(("quality", "sent"), [("medium", None), ("auto", None), ("hd", "hd")])
def test_the_retired_models_are_not_told_todays_qualities(quality, sent):
    asked = image_service.service("local", "dall-e-3", "1024x1024", quality, "http://a")
    assert asked.request(openai_images_order(asked, 0)).get("quality") == sent


def test_a_url_that_cannot_be_fetched_is_a_lost_answer_and_counted():
    with ImageServer(answer_by_url=True, sketch=True) as server:
        server.pictures = _Forgetful()
        bought = purchase(server, 1)
        with pytest.raises(image_service.BuyingError, match="url could not be fetched"):
            buy(bought, ask_again=0)
    assert bought.ledger.spent_usd == pytest.approx(server.billed_usd)


def test_a_url_may_be_relative_to_the_server():
    with ImageServer() as server:
        server.pictures["1.png"] = b"picture"
        assert answers.fetch_url("/pictures/1.png", server.url) == b"picture"


class _Forgetful(dict):
    def __setitem__(self, name, picture):
        pass


def test_azure_asks_for_a_deployment_and_is_priced_as_its_model():
    os.environ["AZURE_OPENAI_API_KEY"] = "azure"
    try:
        with ImageServer(key="azure", sketch=True) as server:
            how = {
                "provider": "azure",
                "model": "our-images",
                "api_version": "2025-04-01-preview",
                "priced_as": "gpt-image-2",
            }
            bought = purchase(
                server, 2, base_url=server.url.removesuffix("/v1"), **{key: how[key] for key in how}
            )
            ledger = buy(bought)
            assert "not checked" in asyncio.run(image_service.preflight(bought.asked))
    finally:
        del os.environ["AZURE_OPENAI_API_KEY"]
    assert len(on_disk(bought)) == 2 and ledger["cost_usd"].sum() == pytest.approx(
        server.billed_usd
    )


def test_own_servers_get_further_fields_and_a_seed_of_each_image():
    asked = image_service.service(
        "local",
        "sd-turbo",
        "512x512",
        "auto",
        "http://a",
        request_shape="dall-e",
        extra_body='{"steps": 4}',
        seed_field="seed",
    )
    table_orders = [openai_images_order(asked, replicate) for replicate in (0, 1)]
    bodies = [asked.request(order) for order in table_orders]
    assert [body["steps"] for body in bodies] == [4, 4]
    assert bodies[0]["seed"] != bodies[1]["seed"] and bodies == [
        asked.request(order) for order in table_orders
    ]
    with pytest.raises(image_service.BuyingError, match="JSON object"):
        image_service.service("local", "m", "512x512", "auto", "http://a", extra_body="[1]")


def openai_images_order(asked, replicate):
    from test_buying import table

    from helpers.generate_openai import prompts

    return prompts.orders(table(2), asked)[replicate]


def test_an_unknown_model_needs_a_price_unless_the_server_is_ones_own():
    with pytest.raises(prices.PriceError, match="price_output"):
        image_service.service("openai", "gpt-image-9", "1024x1024", "low", "http://a")
    assert image_service.service("local", "sd", "512x512", "auto", "http://a").price.image_usd == 0
    assert (
        image_service.service(
            "openai", "gpt-image-9", "1024x1024", "low", "http://a", price_output=40.0
        ).price.output_usd
        == 40
    )


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"data": []}, "empty"),
        ({}, "empty"),
        ({"data": None}, "empty"),
        ([], "not a JSON object"),
        ({"data": [{}]}, "neither"),
        ({"data": [{"b64_json": "%%%"}]}, "base64"),
        ({"data": [{"b64_json": "abc"}]}, "base64"),
        ({"data": [{"b64_json": 12}]}, "base64"),
        ({"data": [None]}, "empty"),
        ({"data": {"url": "http://a"}}, "empty"),
        ({"data": [{"b64_json": None}]}, "neither"),
        ({"data": [{"url": "file:///etc/hostname"}]}, "not http"),
    ],
)
def test_answers_without_a_picture_say_what_they_are(body, says):
    with pytest.raises(answers.UnusableAnswer, match=says):
        answers.read_answer(body, answers.fetch_url)


def test_answers_with_a_picture():
    encoded = base64.b64encode(b"picture").decode()
    data = f"data:image/png;base64,{encoded}"
    lines = encoded[:4] + "\r\n" + encoded[4:] + "\n"
    for said in ({"b64_json": encoded}, {"b64_json": lines}, {"b64_json": data}, {"url": data}):
        body = {"data": [said]}
        assert answers.read_answer(body, None).content == b"picture"
    body = {
        "data": [{"b64_json": encoded, "revised_prompt": "r"}],
        "usage": {"output_tokens": 5},
        "size": "1x1",
    }
    answer = answers.read_answer(json.loads(json.dumps(body)), None)
    assert answer.usage == {"output_tokens": 5} and answer.effective == {
        "size": "1x1",
        "revised_prompt": "r",
    }
