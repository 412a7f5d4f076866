"""Prices come from the dated table or the study's parameters, never from a guess."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.services import prices


def test_a_snapshot_has_its_family_s_price():
    assert prices.find("gpt-image-2-2026-04-21", "1024x1024").output_usd == 30
    assert prices.find("gpt-image-2.5-flare-2026-09-08", "1024x1024").output_usd == 30
    assert prices.find("gpt-image-1-mini", "1024x1024").output_usd == 8
    assert prices.find("dall-e-2", "512x512").image_usd == 0.018
    assert prices.find("dall-e-3", "1024x1024").image_usd == 0.04
    assert prices.find("dall-e-3", "1024x1024", quality="hd").image_usd == 0.08


@pytest.mark.parametrize(
    "model", ["gpt-image-3", "gpt-image-2.7-flare", "our-deployment", "dall-e-4"]
)
def test_an_unknown_model_has_no_price(model):
    with pytest.raises(prices.PriceError, match="priced_as"):
        prices.find(model, "1024x1024")


def test_published_prices_of_an_image():
    price = prices.find("gpt-image-2", "1024x1024")
    for tokens, usd in ((196, 0.006), (1756, 0.053), (7024, 0.211)):
        assert prices.cost(price, 0, tokens) == pytest.approx(usd, abs=5e-4)
    assert prices.cost(price, 1_000_000, 0) == 5
    assert prices.cost(price, 0, 1_000_000, batch=True) == 15
    assert prices.cost(prices.find("dall-e-2", "256x256"), None, None) == 0.016


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"input_tokens": 10, "output_tokens": 196, "total_tokens": 206}, (10, 196)),
        ({"total_tokens": 206}, (None, 206)),
        ({"input_tokens": 10, "total_tokens": 206}, (10, 196)),
        ({"output_tokens": 196, "total_tokens": 206}, (10, 196)),
        ({"input_tokens": "10", "output_tokens": "196"}, (10, 196)),
        ({"input_tokens": None, "output_tokens": None}, (None, None)),
        ({"output_tokens": -1}, (None, None)),
        ({"output_tokens": [196]}, (None, None)),
        ({}, (None, None)),
        (None, (None, None)),
    ],
)
def test_usage_is_read_as_far_as_it_goes(usage, counted):
    assert prices.tokens(usage) == counted


@pytest.mark.parametrize("given", [{"input_usd": 5.0}, {"image_usd": -1.0}, {"output_usd": -30.0}])
def test_half_a_price_is_none(given):
    with pytest.raises(prices.PriceError, match="price_output"):
        prices.find("gpt-image-9", "1024x1024", **given)


@pytest.mark.parametrize("size", ["large", "1024", "1024×1024", "0x512", ""])
def test_a_size_is_two_numbers(size):
    with pytest.raises(prices.PriceError, match="WIDTHxHEIGHT"):
        prices.area(size)


def test_those_under_way_together_may_surprise_by_as_much_as_answers_differ():
    price = prices.find("gpt-image-2", "1024x1024")

    def surprise(seen):
        each = prices.estimate(price, "p", "1024x1024", "low", seen)
        return (each.beside_usd - each.reserve_usd) / 30e-6

    assert surprise([196]) == surprise([400, 400]) == pytest.approx(0, abs=1e-6)
    assert surprise([400]) == pytest.approx(400)
    assert surprise([200, 500, 300]) == pytest.approx(300)
    assert surprise([]) == pytest.approx(7 * 196)


def test_estimates_rest_on_what_was_really_counted():
    price = prices.find("gpt-image-2.6-flare", "1024x1024")
    before = prices.estimate(price, "p", "1024x1024", "low", [])
    after = prices.estimate(price, "p", "1024x1024", "low", [400, 500])
    assert not before.seen and "as gpt-image-2 counts" in before.basis
    assert after.seen and "450 output tokens an image in 2 answers" in after.basis
    assert after.usd == pytest.approx(450 * 30e-6, rel=0.01)


@given(
    st.lists(st.integers(1, 50_000), max_size=20),
    st.sampled_from(["low", "medium", "high", "auto", "xhigh"]),
    st.booleans(),
)
def test_at_least_as_much_is_set_aside_as_the_dearest_answer_cost(seen, quality, batch):
    price = prices.find("gpt-image-2", "1024x1024")
    estimate = prices.estimate(price, "p" * 100, "1024x1024", quality, seen, batch)
    assert estimate.reserve_usd >= estimate.usd
    for tokens in seen:
        assert estimate.reserve_usd >= prices.cost(price, 30, tokens, batch)
