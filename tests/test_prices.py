"""Prices come from the dated table or the study's parameters, never from a guess."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.services import budget, prices


def find(model, quality="low", price_input=0.0, price_output=0.0, price_image=-1.0):
    return prices.find(model, quality, price_input, price_output, price_image)


def test_a_snapshot_has_its_family_s_price():
    assert find("gpt-image-2-2026-04-21").output_usd == 30
    assert find("gpt-image-2.5-flare-2026-09-08").output_usd == 30
    assert find("gpt-image-1-mini").output_usd == 8
    assert find("dall-e-2").image("512x512") == 0.018
    assert find("dall-e-3").image("1024x1024") == 0.04
    assert find("dall-e-3", "hd").image("1024x1024") == 0.08
    with pytest.raises(prices.PriceError, match="256x256, 512x512, 1024x1024"):
        find("dall-e-2").image("640x640")


@pytest.mark.parametrize(
    "model", ["gpt-image-3", "gpt-image-2.7-flare", "our-deployment", "dall-e-4"]
)
def test_an_unknown_model_has_no_price(model):
    with pytest.raises(prices.PriceError, match="priced_as"):
        find(model)


def test_a_price_that_the_study_gives_counts_and_zero_is_one():
    assert find("own", price_image=0.0).image("9x9") == 0
    assert find("own", price_image=0.0).source.endswith("nothing charged")
    both = find("own", price_output=30.0, price_image=0.5)
    assert prices.cost(both, "9x9", 0, 1_000_000, False) == 30.5


def test_published_prices_of_an_image():
    price, size = find("gpt-image-2"), "1024x1024"
    for tokens, usd in ((196, 0.006), (1756, 0.053), (7024, 0.211)):
        assert prices.cost(price, size, 0, tokens, False) == pytest.approx(usd, abs=5e-4)
    assert prices.cost(price, size, 1_000_000, 0, False) == 5
    assert prices.cost(price, size, 0, 1_000_000, True) == 15
    assert prices.cost(find("dall-e-2"), "256x256", None, None, False) == 0.016


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"input_tokens": 10, "output_tokens": 196, "total_tokens": 206}, (10, 196)),
        ({"total_tokens": 206}, (None, 206)),
        ({"input_tokens": 10, "total_tokens": 206}, (10, 196)),
        ({"output_tokens": 196, "total_tokens": 206}, (10, 196)),
        ({"input_tokens": "10", "output_tokens": "196"}, (10, 196)),
        ({"input_tokens": None, "output_tokens": None}, (None, None)),
        ({"prompt_tokens": 9, "completion_tokens": 10, "total_tokens": 819}, (9, 810)),
        ({"input_tokens": 10, "output_tokens": 196, "total_tokens": 0}, (10, 196)),
        ({"output_tokens": -1}, (None, None)),
        ({"output_tokens": [196]}, (None, None)),
        ({"output_tokens": 10**400}, (None, None)),
        ({"output_tokens": 10**30}, (None, None)),
        ({}, (None, None)),
        (None, (None, None)),
    ],
)
def test_usage_is_read_as_far_as_it_goes(usage, counted):
    assert prices.tokens(usage) == counted


@pytest.mark.parametrize("given", [{"price_input": 5.0}, {"price_output": -30.0}])
def test_half_a_price_is_none(given):
    with pytest.raises(prices.PriceError, match="price_output"):
        find("gpt-image-9", **given)


@pytest.mark.parametrize("size", ["large", "1024", "1024×1024", "0x512", ""])
def test_a_size_is_two_numbers(size):
    with pytest.raises(prices.PriceError, match="WIDTHxHEIGHT"):
        prices.area(size)


def test_those_under_way_together_may_surprise_by_as_much_as_answers_differ():
    price = find("gpt-image-2")

    def surprise(seen):
        each = budget.estimate(price, "p", "1024x1024", "low", seen, False)
        return (each.beside_usd - each.reserve_usd) / 30e-6

    assert surprise([196]) == surprise([400, 400]) == pytest.approx(0, abs=1e-6)
    assert surprise([400]) == pytest.approx(400)
    assert surprise([200, 500, 300]) == pytest.approx(300)
    assert surprise([]) == pytest.approx(7 * 196)


def test_estimates_rest_on_what_was_really_counted():
    price = find("gpt-image-2.6-flare")
    before = budget.estimate(price, "p", "1024x1024", "low", [], False)
    after = budget.estimate(price, "p", "1024x1024", "low", [400, 500], False)
    assert not before.seen and "as gpt-image-2 counts" in before.basis
    assert after.seen and "450 output tokens per image in 2 answers" in after.basis
    assert after.usd == pytest.approx(450 * 30e-6, rel=0.01)


@given(
    st.lists(st.integers(1, 50_000), max_size=20),
    st.sampled_from(["low", "medium", "high", "auto", "xhigh"]),
    st.booleans(),
)
def test_at_least_as_much_is_set_aside_as_the_dearest_answer_cost(seen, quality, batch):
    price = find("gpt-image-2")
    estimate = budget.estimate(price, "p" * 100, "1024x1024", quality, seen, batch)
    assert estimate.reserve_usd >= estimate.usd
    for tokens in seen:
        assert estimate.reserve_usd >= prices.cost(price, "1024x1024", 30, tokens, batch)
