"""Who is asked and how: providers, request shapes, preflight, keys, answers."""

import asyncio
import base64
import json
import os

import pytest
from test_buying import MODEL, buy, elsewhere, on_disk, purchase  # noqa: F401

from helpers import openai_images, prices, runs
from helpers.rehearsal.image_api import ImageServer


def checked(server, needed_until="", **how):
    asked = {"provider": "openai", "model": MODEL, "size": "1024x1024", "quality": "low", "base_url": server.url, **how}
    return asyncio.run(openai_images.preflight(openai_images.service(**asked), needed_until))


def test_without_a_key_and_without_an_address_one_sentence_says_how_to_get_on(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    run = runs.Run("s", "02_generate_openai", {})
    with pytest.raises(openai_images.BuyingError) as caught:
        openai_images.service("openai", MODEL, "1024x1024", "low", run=run)
    message = str(caught.value)
    assert "OPENAI_API_KEY" in message and "base_url" in message and "rehearsal" in message and "\n" not in message
    run.finished = True
    openai_images.service("openai", MODEL, "1024x1024", "low", run=run)


def test_the_key_is_taken_from_the_environment_else_from_the_studys_keys(monkeypatch):
    run = runs.Run("s", "02_generate_openai", {})
    kept = runs.keys_folder("s") / "OPENAI_API_KEY"
    kept.write_text("sk-kept\n")
    assert openai_images.credential("openai", "", "s") == "test"
    monkeypatch.delenv("OPENAI_API_KEY")
    assert openai_images.credential("openai", "", "s") == "sk-kept"
    assert "sk-kept" not in repr(openai_images.service("openai", MODEL, "1024x1024", "low", run=run))


def test_preflight_knows_models_that_stay_go_and_are_gone():
    with ImageServer() as server:
        assert "is offered" in checked(server)
        assert "until 2026-12-01" in checked(server, "2026-11-30", model="gpt-image-1.5")
        with pytest.raises(openai_images.BuyingError, match="shuts down on 2026-12-01"):
            checked(server, "2026-12-01", model="gpt-image-1.5")
        with pytest.raises(openai_images.BuyingError, match="not offered"):
            checked(server, model="gpt-image-1", priced_as="gpt-image-2")
        with pytest.raises(openai_images.BuyingError, match="needed_until"):
            checked(server, "next summer")
    assert server.requests == []


def test_preflight_says_when_the_key_is_refused_and_when_nobody_is_there(monkeypatch):
    with ImageServer(key="another") as server, pytest.raises(openai_images.BuyingError, match="Incorrect API key"):
        checked(server)
    with pytest.raises(openai_images.BuyingError, match="Is the address right"):
        checked(server)


def test_no_request_for_today_s_models_has_the_retired_models_fields():
    with ImageServer(sketch=True) as server:
        buy(purchase(server, 1, moderation="low"))
    today = openai_images.service("openai", MODEL, "1024x1024", "auto", "http://a")
    order = purchase(server, 1).orders[0]
    assert set(today.request(order)) == {"model", "prompt", "n", "size"}


@pytest.mark.parametrize("by_url", [False, True])
def test_the_request_of_dall_e_2_and_its_answers(by_url):
    with ImageServer(answer_by_url=by_url) as server:
        bought = purchase(server, 2, model="dall-e-2", size="256x256", quality="auto")
        ledger = buy(bought)
    assert len(on_disk(bought)) == 2 and ledger["cost_usd"].tolist() == [0.016, 0.016]
    assert bought.asked.request(bought.orders[0])["response_format"] == "b64_json"


def test_a_url_that_cannot_be_fetched_is_a_lost_answer_and_counted():
    with ImageServer(answer_by_url=True, sketch=True) as server:
        server.pictures = _Forgetful()
        bought = purchase(server, 1)
        with pytest.raises(openai_images.BuyingError, match="url could not be fetched"):
            buy(bought, ask_again=0)
    assert bought.ledger.spent_usd == pytest.approx(server.billed_usd)


class _Forgetful(dict):
    def __setitem__(self, name, picture):
        pass


def test_azure_asks_for_a_deployment_and_is_priced_as_its_model():
    os.environ["AZURE_OPENAI_API_KEY"] = "azure"
    try:
        with ImageServer(key="azure", sketch=True) as server:
            how = {"provider": "azure", "model": "our-images", "api_version": "2025-04-01-preview", "priced_as": "gpt-image-2"}
            bought = purchase(server, 2, base_url=server.url.removesuffix("/v1"), **{key: how[key] for key in how})
            ledger = buy(bought)
            assert "not checked" in asyncio.run(openai_images.preflight(bought.asked))
    finally:
        del os.environ["AZURE_OPENAI_API_KEY"]
    assert len(on_disk(bought)) == 2 and ledger["cost_usd"].sum() == pytest.approx(server.billed_usd)


def test_own_servers_get_further_fields_and_a_seed_of_each_image():
    asked = openai_images.service(
        "local", "sd-turbo", "512x512", "auto", "http://a", request_shape="dall-e", extra_body='{"steps": 4}', seed_field="seed"
    )
    table_orders = [openai_images_order(asked, replicate) for replicate in (0, 1)]
    bodies = [asked.request(order) for order in table_orders]
    assert [body["steps"] for body in bodies] == [4, 4]
    assert bodies[0]["seed"] != bodies[1]["seed"] and bodies == [asked.request(order) for order in table_orders]
    with pytest.raises(openai_images.BuyingError, match="JSON object"):
        openai_images.service("local", "m", "512x512", "auto", "http://a", extra_body="[1]")


def openai_images_order(asked, replicate):
    from test_buying import table

    from helpers import prompts

    return prompts.orders(table(2), asked)[replicate]


def test_an_unknown_model_needs_a_price_unless_the_server_is_ones_own():
    with pytest.raises(prices.PriceError, match="price_output"):
        openai_images.service("openai", "gpt-image-9", "1024x1024", "low", "http://a")
    assert openai_images.service("local", "sd", "512x512", "auto", "http://a").price.image_usd == 0
    assert openai_images.service("openai", "gpt-image-9", "1024x1024", "low", "http://a", price_output=40.0).price.output_usd == 40


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
        ({"data": [{"url": "file:///etc/hostname"}]}, "not http"),
    ],
)
def test_answers_without_a_picture_say_what_they_are(body, says):
    with pytest.raises(openai_images.UnusableAnswer, match=says):
        openai_images.read_answer(body, openai_images.fetch_url)


def test_answers_with_a_picture():
    encoded = base64.b64encode(b"picture").decode()
    for body in ({"data": [{"b64_json": encoded}]}, {"data": [{"url": f"data:image/png;base64,{encoded}"}]}):
        assert openai_images.read_answer(body, None).content == b"picture"
    body = {"data": [{"b64_json": encoded, "revised_prompt": "r"}], "usage": {"output_tokens": 5}, "size": "1x1"}
    answer = openai_images.read_answer(json.loads(json.dumps(body)), None)
    assert answer.usage == {"output_tokens": 5} and answer.effective == {"size": "1x1", "revised_prompt": "r"}
