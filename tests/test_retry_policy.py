"""Failures are judged as the provider's pages and compatible servers word them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.services import retry_policy


def body(kind=None, code=None, message="m"):
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


@pytest.mark.parametrize(
    ("status", "answer", "action"),
    [
        (429, body("requests", "rate_limit_exceeded"), "throttled"),
        (429, body("tokens", None), "throttled"),
        (429, body("insufficient_quota", "credit_balance_exhausted"), "stop"),
        (429, body("insufficient_quota", "insufficient_quota"), "stop"),
        (429, body(None, "organization_spend_limit_exceeded"), "stop"),
        (429, body(None, "project_spend_limit_exceeded"), "stop"),
        (400, body("image_generation_user_error", "moderation_blocked"), "refused"),
        (400, body("invalid_request_error", "content_policy_violation"), "refused"),
        (
            400,
            {
                "error": {
                    "code": "content_filter",
                    "message": "m",
                    "inner_error": {"code": "ResponsibleAIPolicyViolation"},
                }
            },
            "refused",
        ),
        (400, body("invalid_request_error", "invalid_value"), "stop"),
        (401, body("invalid_request_error", "invalid_api_key"), "stop"),
        (403, body(), "stop"),
        (404, body("invalid_request_error", "model_not_found"), "stop"),
        (
            422,
            {"detail": [{"loc": ["body", "size"], "msg": "bad size", "type": "value_error"}]},
            "stop",
        ),
        (503, {"detail": "model is loading"}, "retry"),
        (500, "<html>oops</html>", "retry"),
        (502, None, "retry"),
        (500, {"error": None, "detail": "worker died"}, "retry"),
        (504, "<html>Gateway timeout</html>", "again"),
        (429, body("billing_not_active", "billing_not_active"), "stop"),
        (400, body("image_generation_user_error", "billing_hard_limit_reached"), "stop"),
        (408, {}, "retry"),
        (409, {}, "retry"),
    ],
)
def test_what_a_failure_means(status, answer, action):
    assert retry_policy.judge_status(status, answer, {}).action == action


def test_messages_say_what_the_server_said():
    assert (
        "bad size" in retry_policy.judge_status(422, {"detail": [{"msg": "bad size"}]}, {}).message
    )
    assert (
        "worker died"
        in retry_policy.judge_status(500, {"error": None, "detail": "worker died"}, {}).message
    )
    assert (
        "model is loading"
        in retry_policy.judge_status(503, {"detail": "model is loading"}, {}).message
    )
    assert (
        "moderation_blocked"
        in retry_policy.judge_status(400, body(None, "moderation_blocked"), {}).message
    )


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "²"}, 0),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_policy.retry_after_seconds(headers) == seconds


def test_retry_after_as_a_date():
    assert retry_policy.retry_after_seconds({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_policy.retry_after_seconds({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}) > 1e6


def test_a_date_is_held_against_the_services_own_clock():
    headers = {
        "retry-after": "Wed, 21 Oct 2015 07:28:09 GMT",
        "date": "Wed, 21 Oct 2015 07:28:00 GMT",
    }
    assert retry_policy.retry_after_seconds(headers) == 9


@given(failures=st.integers(0, 60), asked=st.floats(0, 500), seed=st.integers(0, 9))
def test_waits_obey_the_service_and_never_grow_without_bound(failures, asked, seed):
    seconds = retry_policy.wait_seconds(failures, asked, random.Random(seed))
    assert seconds >= asked
    assert seconds <= max(retry_policy.LONGEST_WAIT_SECONDS, 1.1 * asked + 0.2)
    assert seconds > 0


@given(
    st.lists(st.one_of(st.just("answered"), st.integers(0, 40)), max_size=200), st.integers(1, 32)
)
def test_the_number_in_flight_stays_between_one_and_the_most(events, most):
    flow = retry_policy.InFlight(most)
    for event in events:
        flow.answered() if event == "answered" else flow.throttled(event)
        assert 1 <= flow.allowed <= most


def test_the_number_in_flight_comes_back_when_answers_come():
    flow = retry_policy.InFlight(8)
    flow.throttled(2)
    assert flow.allowed == 2
    for _ in range(2 + 3 + 4 + 5 + 6 + 7):
        flow.answered()
    assert flow.allowed == 8
