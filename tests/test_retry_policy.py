"""Failures are judged as the provider's pages and compatible servers word them."""

import random
import time
from datetime import UTC, datetime

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
        (400, body("invalid_request_error", "invalid_value"), "rejected"),
        (401, body("invalid_request_error", "invalid_api_key"), "stop"),
        (403, body(), "rejected"),
        (404, body("invalid_request_error", "model_not_found"), "stop"),
        (
            422,
            {"detail": [{"loc": ["body", "size"], "msg": "bad size", "type": "value_error"}]},
            "rejected",
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


REFUSED = [
    (400, body(None, None, "Your request was rejected as a result of our safety system.")),
    (400, body("image_generation_user_error", None, "Request rejected")),
    (400, body("None", "400", "litellm.ContentPolicyViolationError: AzureException")),
    (403, {"error": {"message": "Input was flagged"}}),
    (403, {"message": "The prompt was blocked by moderation"}),
    (500, body("server_error", "task_failed_text_safety_system")),
    (422, {"detail": "NSFW content detected"}),
    (451, "Prohibited content"),
    (
        400,
        body(
            "invalid_request_error",
            "invalid_prompt",
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy",
        ),
    ),
    (400, {"error": {"code": "contentFilter", "inner_error": "a text"}}),
    (400, {"error": {"message": "m", "inner_error": ["a", 1, {"code": "content_filter"}]}}),
    (
        400,
        {"error": {"message": "m", "inner_error": None, "innererror": {"code": "ResponsibleAI"}}},
    ),
    (500, {"error": '{"error": {"message": "m", "code": "moderation_blocked"}}'}),
    (400, {"errors": [{"code": 400, "title": "content policy violation"}]}),
    (400, {"code": "DataInspectionFailed", "message": "Input data may be inappropriate"}),
]


@pytest.mark.parametrize(("status", "answer"), REFUSED)
def test_a_refusal_is_known_by_code_type_or_words_in_whatever_coat(status, answer):
    assert retry_policy.judge_status(status, answer, {}).action == "refused"
    assert retry_policy.judge_status(400, {"detail": answer}, {}).action == "refused"


@pytest.mark.parametrize(
    ("status", "answer", "action"),
    [
        (
            400,
            body("invalid_request_error", "unknown_parameter", "Unknown parameter: 'moderation'"),
            "rejected",
        ),
        (
            400,
            {"error": {"message": "'moderation' must be low or auto", "param": "moderation"}},
            "rejected",
        ),
        (403, body(None, None, "Your organization's policy does not allow this"), "rejected"),
        (403, body(None, None, "Your account was flagged, contact support"), "rejected"),
        (503, body(None, None, "The moderation service is temporarily unavailable"), "retry"),
        (
            429,
            body(None, "rate_limit_exceeded", "Rate limit policy: too many requests"),
            "throttled",
        ),
        (401, body(None, None, "The key was flagged"), "stop"),
        (402, {"detail": "no credit left"}, "stop"),
        (400, body(None, "string_above_max_length", "the prompt is too long"), "rejected"),
        (403, "<!DOCTYPE html><html><h1>Blocked by content filter</h1></html>", "rejected"),
        (403, {"detail": "<html><p>This site violates a policy</p></html>"}, "rejected"),
    ],
)
def test_the_same_words_about_something_else_are_no_refusal(status, answer, action):
    assert retry_policy.judge_status(status, answer, {}).action == action


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset-requests": "7"}, 7),
        ({"x-ratelimit-reset-requests": "250ms"}, 0.25),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        ({"x-ratelimit-reset-tokens": "1m30.5s"}, 90.5),
        (
            {
                "x-ratelimit-reset-requests": "1h",
                "x-ratelimit-remaining-requests": "3",
                "x-ratelimit-reset-tokens": "2s",
                "x-ratelimit-remaining-tokens": "0",
            },
            2,
        ),
        ({"x-ratelimit-reset-requests": "9s", "retry-after": "4"}, 4),
        ({"x-ratelimit-reset-requests": "soon"}, 0),
        ({}, 0),
    ],
)
def test_the_moment_at_which_a_limit_is_renewed_is_heeded(headers, seconds):
    verdict = retry_policy.judge_status(429, body(), headers)
    assert (verdict.action, verdict.retry_after) == ("throttled", seconds)


@pytest.mark.parametrize(("date", "seconds"), [("Wed, 10 Jun 2026 12:00:00 GMT", 30), (None, 0)])
def test_the_moment_of_renewal_is_held_against_the_services_own_clock(date, seconds):
    renewed = int(datetime(2026, 6, 10, 12, 0, 30, tzinfo=UTC).timestamp())
    headers = {"x-ratelimit-reset-requests": str(renewed)} | ({"date": date} if date else {})
    wait = retry_policy.judge_status(429, body(), headers).retry_after
    assert wait == pytest.approx(seconds)


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
        ({"retry-after": f"Fri, 31 Dec {'9' * 20} 23:59:59 GMT"}, 0),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_policy.retry_after_seconds(headers) == seconds


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
@pytest.mark.parametrize("ends", ["", " GMT", " -0000"])
def test_a_date_without_a_zone_is_in_utc_on_every_machine(monkeypatch, zone, ends):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    headers = {"retry-after": f"Sat, 28 Nov 2026 16:00:00{ends}"}
    headers["date"] = "Sat, 28 Nov 2026 15:59:30 GMT"
    assert retry_policy.retry_after_seconds(headers) == 30
    monkeypatch.undo()
    time.tzset()


def test_a_page_of_a_gateway_is_told_by_its_words():
    page = "<html><head><title>502 Bad Gateway</title><style>h1 {x}</style></head><h1>nginx</h1>"
    said = retry_policy.describe(page)
    assert said == "502 Bad Gateway nginx"


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


@pytest.mark.parametrize("most", [0, -1])
def test_at_least_one_request_may_run(most):
    assert retry_policy.InFlight(most).allowed == 1, "none would wait for ever"


def test_the_number_in_flight_comes_back_when_answers_come():
    flow = retry_policy.InFlight(8)
    flow.throttled(2)
    assert flow.allowed == 2
    for _ in range(2 + 3 + 4 + 5 + 6 + 7):
        flow.answered()
    assert flow.allowed == 8
